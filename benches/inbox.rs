//! How many events the inbox keeps a second on this disk, and what sharing commits is worth.
//!
//! `cargo bench --bench inbox`, or with `BENCH_FOLDER` set to a folder on the disk in question. Every figure comes from one run on one disk: the ratios say more than the figures.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for a terminal")]

use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::inbox::sqlite::{SqliteInbox, SqliteOptions};
use sluicegate::inbox::{Answer, Inbox, Next, Settlement};
use sluicegate::model::{
    Attempt, Clock, Destination, EventId, Name, NewDelivery, NewEvent, Origin, Param, Params, Strength, Timestamp,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(3);

fn main() {
    let disk = std::env::var_os("BENCH_FOLDER").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let folder = tempfile::tempdir_in(disk).unwrap();
    println!("{:<30}{:>8.0}", "write 8 KiB + fdatasync /s", syncs(folder.path()));
    println!();
    println!("{:<30}{:>8}{:>10}{:>10}{:>10}", "1 KB events", "acks/s", "p50 ms", "p99 ms", "CPU us");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let run = |senders, batch| {
        let before = cpu();
        let (rate, p50, p99) = runtime.block_on(accepts(folder.path(), senders, batch));
        let cpu = (cpu() - before) / (rate * SPAN.as_secs_f64()) * 1e6;
        let shared = if batch == 1 { "one commit each" } else { "shared commits" };
        println!("{:<30}{rate:>8.0}{p50:>10.2}{p99:>10.2}{cpu:>10.0}", format!("{senders:>3} senders, {shared}"));
        rate
    };
    run(1, 512);
    run(64, 512);
    let shared = run(512, 512);
    let single = run(512, 1);
    println!();
    println!("{:<30}{:>8.1}", "shared / one commit each", shared / single);
    let before = cpu();
    let (count, rate) = runtime.block_on(deliveries(folder.path()));
    println!("{:<30}{rate:>8.0}{:>30.0}", "claim + settle /s", (cpu() - before) / f64::from(count) * 1e6);
}

fn syncs(folder: &Path) -> f64 {
    let mut file = std::fs::File::create(folder.join("raw")).unwrap();
    let page = [7_u8; 8192];
    let (begun, mut count) = (Instant::now(), 0_u32);
    while begun.elapsed() < Duration::from_secs(2) {
        // Over the same megabyte again and again, as a log does once it has its length.
        if count % 128 == 0 {
            file.rewind().unwrap();
        }
        file.write_all(&page).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

async fn accepts(folder: &Path, senders: usize, batch: usize) -> (f64, f64, f64) {
    let inbox = open(&folder.join(format!("{senders}-{batch}.db")), batch).await;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..senders)
        .map(|_| {
            let inbox = Arc::clone(&inbox);
            tokio::spawn(async move {
                let mut times = Vec::new();
                while begun.elapsed() < SPAN {
                    let event = event(Clock::system().now());
                    let sent = Instant::now();
                    inbox.accept(event).await.unwrap();
                    times.push(sent.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    let took = begun.elapsed();
    inbox.close().await;
    times.sort_unstable();
    let share = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    (times.len() as f64 / took.as_secs_f64(), share(50), share(99))
}

/// Goes through what the run at 512 senders left.
async fn deliveries(folder: &Path) -> (u32, f64) {
    let inbox = open(&folder.join("512-512.db"), 512).await;
    let now = Clock::system().now();
    let (begun, mut count) = (Instant::now(), 0_u32);
    while begun.elapsed() < SPAN {
        let claimed = inbox.claim(256, now).await.unwrap();
        if claimed.is_empty() {
            break;
        }
        let settled = claimed.into_iter().map(|claimed| {
            let inbox = Arc::clone(&inbox);
            tokio::spawn(async move {
                let attempt = Attempt {
                    number: claimed.attempt,
                    started_at: now,
                    ended_at: now,
                    result: "completed".into(),
                    status: Some(200),
                    detail: String::new(),
                };
                let next = Next::Delivered(Answer {
                    status: "completed".into(),
                    result: Some("done".into()),
                    finished_at: None,
                    task: None,
                });
                let (key, lane, fence) = (claimed.key, claimed.lane, claimed.fence);
                inbox.settle(Settlement { key, lane, fence, attempt, next }).await.unwrap()
            })
        });
        for task in settled.collect::<Vec<_>>() {
            task.await.unwrap();
            count += 1;
        }
    }
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    inbox.close().await;
    (count, rate)
}

/// The CPU time this process has used, in seconds, senders and all; on Linux, elsewhere 0.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks / 100.0
}

async fn open(path: &Path, batch: usize) -> Arc<dyn Inbox> {
    Arc::new(SqliteInbox::open(path, SqliteOptions { batch, queue: 4096 }).await.unwrap())
}

/// One of a kind: its own key, its own thread, 1 KB of body.
fn event(at: Timestamp) -> NewEvent {
    let destination: Destination = "agent/bench".parse().unwrap();
    let id = EventId::new();
    let upstream_id = destination.thread_id("bench", &id.to_string()).to_string();
    NewEvent {
        id,
        source: "bench".into(),
        dedup: Some(format!("{:032x}", fastrand::u128(..))),
        event_type: Some("issues.opened".into()),
        received_at: at,
        strength: Strength::Signed,
        secret: Some("current".into()),
        filtered: None,
        thread: Some(id.to_string()),
        params: Params::new(vec![Param {
            name: Name::Prompt,
            value: "triage this".into(),
            origin: Origin::Template,
            over: vec![],
        }]),
        request_line: "POST /hooks/bench".into(),
        headers: vec![("x-event".into(), "issues".into()), ("content-type".into(), "application/json".into())],
        body: vec![b'x'; 1024].into(),
        attachments: vec![],
        reject_if_busy: false,
        deliveries: vec![NewDelivery {
            destination: destination.clone(),
            lane: destination.lane(&upstream_id),
            upstream_id,
            sealed: None,
        }],
    }
}
