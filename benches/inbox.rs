//! What the inbox keeps a second on this disk, what sharing commits is worth, and whether what it does stays flat
//! however much is in it.
//!
//! `cargo bench --bench inbox`, or with `BENCH_FOLDER` set to a folder on the disk in question. `BENCH_QUEUED` says how
//! many events are there at most (1,000,000: needs 4 GB of disk); words behind `--` choose parts (`acks`, `search`,
//! `vacuum`, `claim`, `sweep`). Ends with 1 when a claim and its settlement cost more than twice as much with that many
//! as with 10,000. Every figure comes from one run on one disk: the ratios say more than the figures.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for a terminal"
)]

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluicegate::inbox::sqlite::{SqliteInbox, SqliteOptions};
use sluicegate::inbox::{
    Accept as _, Answer, Browse as _, Claimed, Deliver as _, EventFilter, Keep, KeepTimes, Next,
    Settlement, Terms, Upkeep as _, sweep,
};
use sluicegate::model::{
    Account, Attempt, Class, Clock, Destination, EventId, Name, NewDelivery, NewEvent, Origin,
    Overlap, Param, Params, Route, Strength, Timestamp,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long each figure of acceptance is measured.
const SPAN: Duration = Duration::from_secs(3);

/// How many events wait in the case that all others are compared with.
const FEW: usize = 10_000;

/// How many deliveries a claim brings at most, and how often it is done for a figure.
const CLAIM: usize = 256;
const ROUNDS: usize = 30;

/// How many times as much a claim and its settlement may cost with many events as with few.
const FLAT: f64 = 2.0;

const HOUR: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let disk =
        std::env::var_os("BENCH_FOLDER").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let most: usize = std::env::var("BENCH_QUEUED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let folder = tempfile::tempdir_in(disk).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|word| word == part);
    let mut flat = true;
    if wanted("acks") {
        println!(
            "{:<44}{:>10.0}",
            "write 8 KiB + fdatasync /s",
            syncs(folder.path())
        );
        runtime.block_on(acks(folder.path()));
    }
    if wanted("search") {
        runtime.block_on(search(folder.path()));
    }
    if wanted("vacuum") {
        runtime.block_on(vacuum(folder.path()));
    }
    if wanted("claim") {
        flat = runtime.block_on(claims(folder.path(), most));
    }
    if wanted("sweep") {
        runtime.block_on(sweeps(folder.path(), most));
    }
    if flat {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
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

async fn acks(folder: &Path) {
    head("1 KB events");
    let mut shared = 0.0;
    for (senders, batch) in [(1, 512), (64, 512), (512, 512), (512, 1)] {
        let inbox = open(
            &file(folder),
            SqliteOptions {
                batch,
                ..SqliteOptions::default()
            },
        )
        .await;
        let acks = accepts(&inbox, senders).await;
        inbox.close().await;
        let kind = if batch == 1 {
            "one commit each"
        } else {
            "shared commits"
        };
        acks.print(&format!("{senders:>3} senders, {kind}"));
        if batch == 1 {
            println!(
                "{:<44}{:>10.1}",
                "shared / one commit each",
                shared / acks.rate
            );
        }
        shared = acks.rate;
    }
}

/// What it costs to have bodies found by their words, the index filled up to the last one.
async fn search(folder: &Path) {
    head("search, 512 senders");
    for search in [false, true, false, true] {
        let inbox = open(
            &file(folder),
            SqliteOptions {
                search,
                ..SqliteOptions::default()
            },
        )
        .await;
        let (before, begun) = (cpu(), Instant::now());
        let mut acks = accepts(&inbox, 512).await;
        let mut last = event(Clock::system().now(), "last");
        last.body = b"{\"word\": \"findmeplease\"}".to_vec().into();
        inbox.accept(last).await.unwrap();
        let filter = EventFilter {
            text: Some("findmeplease".into()),
            limit: 1,
            ..EventFilter::default()
        };
        while search && inbox.events(&filter).await.unwrap().items.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        acks.cpu = (cpu() - before) / acks.count * 1e6;
        let behind = begun.elapsed().saturating_sub(SPAN).as_secs_f64();
        inbox.close().await;
        acks.print(if search { "on" } else { "off" });
        if search {
            println!("{:<44}{behind:>10.1}", "    index complete after, s");
        }
    }
}

/// What it costs that the file can be made smaller again, by turns with and without.
async fn vacuum(folder: &Path) {
    head("auto_vacuum, 512 senders");
    let mut costs = [0.0; 2];
    for (at, name) in [
        (0, "none"),
        (1, "incremental"),
        (1, "incremental"),
        (0, "none"),
    ]
    .repeat(2)
    {
        let path = file(folder);
        if at == 0 {
            // In a file that has a first page already it is not changed any more.
            let conn = rusqlite::Connection::open(&path).unwrap();
            conn.execute_batch(
                "PRAGMA page_size = 8192; PRAGMA auto_vacuum = NONE; PRAGMA journal_mode = WAL;",
            )
            .unwrap();
        }
        let inbox = open(&path, SqliteOptions::default()).await;
        let acks = accepts(&inbox, 512).await;
        let cost = deliveries(&inbox).await;
        inbox.close().await;
        acks.print(name);
        costs[at] += acks.cpu + cost.cpu;
    }
    println!(
        "{:<44}{:>10.1}",
        "accept, claim, settle: costs more, %",
        (costs[1] / costs[0] - 1.0) * 100.0
    );
}

/// Whether it costs the same however much waits.
async fn claims(folder: &Path, most: usize) -> bool {
    let ratios = ["wall", "CPU"];
    println!();
    println!(
        "{:<44}{:>10}{:>10}{:>10}{:>10}",
        "claim + settle of an event", "wall us", "CPU us", ratios[0], ratios[1]
    );
    let mut flat = true;
    for (name, threads, hot) in [
        ("1,000 threads", 1_000, false),
        ("100,000 threads", 100_000, false),
        ("half in one thread", 100_000, true),
    ] {
        let mut few: Option<Cost> = None;
        for queued in [FEW, most] {
            let path = file(folder);
            fill(&path, queued, move |at| {
                let thread = if hot && at % 2 == 0 { 0 } else { at % threads };
                event(Clock::system().now(), &thread.to_string())
            })
            .await;
            let inbox = open(&path, SqliteOptions::default()).await;
            let cost = deliveries(&inbox).await;
            inbox.close().await;
            let few = few.get_or_insert(cost);
            let ratios = [cost.wall / few.wall, cost.cpu / few.cpu];
            println!(
                "{:<44}{:>10.1}{:>10.1}{:>10.2}{:>10.2}",
                format!("{queued} queued, {name}"),
                cost.wall,
                cost.cpu,
                ratios[0],
                ratios[1]
            );
            flat &= ratios.iter().all(|ratio| *ratio <= FLAT);
            remove(&path);
        }
    }
    println!("{}", if flat { "flat" } else { "NOT FLAT" });
    flat
}

/// What looking for old events costs where all are kept longer, and how accepting fares while they are removed.
async fn sweeps(folder: &Path, most: usize) {
    let path = file(folder);
    let now = Clock::system().now();
    fill(&path, most, move |at| NewEvent {
        filtered: Some("not for us".into()),
        deliveries: vec![],
        ..event(now - HOUR * 2, &at.to_string())
    })
    .await;
    let inbox = open(&path, SqliteOptions::default()).await;
    let keep = |filtered| {
        let usual = KeepTimes {
            delivered: HOUR * 720,
            dead: HOUR,
            filtered,
        };
        Keep {
            usual,
            sources: std::collections::HashMap::new(),
        }
    };
    println!();
    println!(
        "{:<44}{:>10}{:>10}",
        format!("sweep, {most} events kept longer"),
        "ms",
        "CPU ms"
    );
    for name in ["first", "second", "third"] {
        let (begun, before) = (Instant::now(), cpu());
        assert_eq!(
            sweep::sweep(&*inbox, &keep(HOUR * 720), now).await.unwrap(),
            0
        );
        println!(
            "{name:<44}{:>10.1}{:>10.0}",
            begun.elapsed().as_secs_f64() * 1e3,
            (cpu() - before) * 1e3
        );
    }
    inbox.close().await;
    // As after a start: otherwise what was found to be kept longer is not looked at again today.
    let inbox = open(&path, SqliteOptions::default()).await;
    head("accept while a sweep runs, 64 senders");
    accepts(&inbox, 64).await.print("no sweep");
    let gone = Arc::new(AtomicUsize::new(0));
    let going = Arc::new(AtomicBool::new(true));
    let sweeping = tokio::spawn({
        let (inbox, gone, going, keep) = (
            Arc::clone(&inbox),
            Arc::clone(&gone),
            Arc::clone(&going),
            keep(HOUR),
        );
        async move {
            while going.load(Ordering::Relaxed) {
                let step = inbox.sweep(&keep, now, 1000).await.unwrap();
                gone.fetch_add(step, Ordering::Relaxed);
                if step == 0 {
                    break;
                }
            }
        }
    });
    let acks = accepts(&inbox, 64).await;
    let gone = gone.load(Ordering::Relaxed) as f64 / acks.took;
    going.store(false, Ordering::Relaxed);
    sweeping.await.unwrap();
    inbox.close().await;
    acks.print("sweep");
    println!("{:<44}{gone:>10.0}", "    events removed meanwhile /s");
    remove(&path);
}

/// How accepting went.
struct Acks {
    count: f64,
    took: f64,
    rate: f64,
    p50: f64,
    p99: f64,
    /// Microseconds an event, senders and all.
    cpu: f64,
}

impl Acks {
    fn print(&self, name: &str) {
        println!(
            "{name:<44}{:>10.0}{:>10.2}{:>10.2}{:>10.0}",
            self.rate, self.p50, self.p99, self.cpu
        );
    }
}

fn head(name: &str) {
    println!();
    println!(
        "{name:<44}{:>10}{:>10}{:>10}{:>10}",
        "acks/s", "p50 ms", "p99 ms", "CPU us"
    );
}

async fn accepts(inbox: &Arc<SqliteInbox>, senders: usize) -> Acks {
    let (begun, before) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..senders)
        .map(|_| {
            let inbox = Arc::clone(inbox);
            tokio::spawn(async move {
                let mut times = Vec::new();
                while begun.elapsed() < SPAN {
                    let event = event(Clock::system().now(), &format!("{:x}", fastrand::u64(..)));
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
    let took = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let share = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    let count = times.len() as f64;
    let cpu = (cpu() - before) / count * 1e6;
    Acks {
        count,
        took,
        rate: count / took,
        p50: share(50),
        p99: share(99),
        cpu,
    }
}

/// Puts a backlog there, and leaves it as it is after a start.
async fn fill(
    path: &Path,
    count: usize,
    event: impl Fn(usize) -> NewEvent + Clone + Send + 'static,
) {
    const SENDERS: usize = 2048;
    let inbox = open(
        path,
        SqliteOptions {
            batch: SENDERS,
            ..SqliteOptions::default()
        },
    )
    .await;
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (inbox, next, event) = (Arc::clone(&inbox), Arc::clone(&next), event.clone());
            tokio::spawn(async move {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        break;
                    }
                    inbox.accept(event(at)).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    inbox.close().await;
}

/// Microseconds for an event.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

/// Claims and settles for a while: the middle of the rounds' times, as others may use the machine; CPU of them all.
async fn deliveries(inbox: &Arc<SqliteInbox>) -> Cost {
    let now = Clock::system().now();
    // The first rounds prepare statements and bring pages in.
    for _ in 0..4 {
        round(inbox, now).await;
    }
    let (mut walls, mut done, before) = (Vec::new(), 0_usize, cpu());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let count = round(inbox, now).await;
        walls.push(begun.elapsed().as_secs_f64() * 1e6 / count as f64);
        done += count;
    }
    let cpu = (cpu() - before) * 1e6 / done as f64;
    walls.sort_unstable_by(f64::total_cmp);
    Cost {
        wall: walls[walls.len() / 2],
        cpu,
    }
}

async fn round(inbox: &Arc<SqliteInbox>, now: Timestamp) -> usize {
    let claims = inbox.claim(Box::new(Any(CLAIM)), now).await.unwrap();
    let tasks: Vec<_> = claims
        .claimed
        .into_iter()
        .map(|claimed| tokio::spawn(settle(Arc::clone(inbox), claimed, now)))
        .collect();
    let count = tasks.len();
    assert!(count > 0, "nothing left to claim");
    for task in tasks {
        task.await.unwrap();
    }
    count
}

async fn settle(inbox: Arc<SqliteInbox>, claimed: Claimed, now: Timestamp) {
    let attempt = Attempt {
        number: claimed.attempt,
        started_at: now,
        ended_at: now,
        result: "completed".into(),
        status: Some(200),
        detail: String::new(),
    };
    let answer = Answer {
        status: "completed".into(),
        result: Some("done".into()),
        finished_at: None,
        task: None,
    };
    let (key, lane, fence, next) = (
        claimed.key,
        claimed.lane,
        claimed.fence,
        Next::Delivered(answer),
    );
    inbox
        .settle(Settlement {
            id: Some(claimed.id),
            key,
            lane,
            fence,
            attempt,
            next,
            owes: vec![],
            progress: None,
        })
        .await
        .unwrap();
}

/// Whatever is due.
#[derive(Debug)]
struct Any(usize);

impl Terms for Any {
    fn begin(&mut self) {}

    fn room(&self) -> usize {
        self.0
    }

    fn open(&mut self, _: &Route) -> usize {
        usize::MAX
    }

    fn took(&mut self, _: &Route, _: usize) {}

    fn overlap(&self, _: &str) -> Overlap {
        Overlap::QUEUE
    }
}

/// The CPU time this process has used, in seconds, senders and all; on Linux, elsewhere 0.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}

async fn open(path: &Path, options: SqliteOptions) -> Arc<SqliteInbox> {
    Arc::new(SqliteInbox::open(path, options).await.unwrap())
}

/// A file that is not there yet.
fn file(folder: &Path) -> PathBuf {
    folder.join(format!("{:x}.db", fastrand::u64(..)))
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

/// One of a kind: its own key, 1 KB of body.
fn event(at: Timestamp, thread: &str) -> NewEvent {
    let destination: Destination = "agent/bench".parse().unwrap();
    let upstream_id = destination.former_thread_id("bench", thread).to_string();
    NewEvent {
        id: EventId::new(),
        source: "bench".into(),
        dedup: Some(format!("{:032x}", fastrand::u128(..))),
        event_type: Some("issues.opened".into()),
        received_at: at,
        strength: Strength::Signed,
        secret: Some("current".into()),
        proof: None,
        filtered: None,
        unmappable: None,
        thread: Some(thread.to_owned()),
        params: Params::new(vec![Param {
            name: Name::Prompt,
            value: "triage this".into(),
            origin: Origin::Template,
            over: vec![],
        }]),
        request_line: "POST /hooks/bench".into(),
        headers: vec![
            ("x-event".into(), "issues".into()),
            ("content-type".into(), "application/json".into()),
        ],
        body: body().into(),
        attachments: vec![],
        most_ahead: None,
        backlog: None,
        deliveries: vec![NewDelivery {
            destination: destination.clone(),
            lane: destination.lane(&Account::Operator, &upstream_id),
            upstream_id,
            account: Account::Operator,
            class: Class::Normal,
            sealed: None,
        }],
    }
}

/// About a hundred and fifty words of a few thousand there are, and a number or two of its own.
fn body() -> Vec<u8> {
    let mut body = format!("{{\"number\": {}, \"text\": \"", fastrand::u32(..)).into_bytes();
    while body.len() < 1022 {
        write!(body, "w{:x} ", fastrand::u32(..4096)).unwrap();
    }
    body.truncate(1022);
    body.extend_from_slice(b"\"}");
    body
}
