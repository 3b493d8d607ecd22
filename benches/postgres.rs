//! How many events the inbox on Postgres keeps a second, and whether a claim stays flat however much waits.
//!
//! `cargo bench --bench postgres`, with PostgreSQL's programs installed: a server of its own runs for it, with fsync on,
//! in a scratch folder (`BENCH_FOLDER`). `BENCH_QUEUED` says how many events wait at most. The ratios say more than the
//! figures.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for a terminal"
)]
#![allow(unreachable_pub, dead_code, reason = "a part is shared with the tests")]

#[path = "../tests/it/cluster.rs"]
mod cluster;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::config::Secret;
use sluicegate::inbox::postgres::{PostgresInbox, PostgresOptions};
use sluicegate::inbox::{Accept as _, Answer, Deliver as _, Next, Settlement, Terms, Upkeep as _};
use sluicegate::model::{
    Account, Attempt, Class, Clock, Destination, EventId, Name, NewDelivery, NewEvent, Origin,
    Overlap, Param, Params, Route, Strength, Timestamp,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(4);

/// How many deliveries are claimed and settled for a figure; fewer than there are lanes in the smallest backlog, so that
/// a claim is always a whole one.
const ROUNDS: usize = 3_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let server = cluster::Cluster::start();
    runtime.block_on(async {
        println!(
            "{:<44}{:>10}{:>10}{:>10}",
            "1 KB events", "acks/s", "p50 ms", "p99 ms"
        );
        for (senders, batch) in [(1, 512), (64, 512), (512, 512), (512, 1)] {
            let url = server.migrated().await;
            let (rate, p50, p99) = accepts(&url, senders, batch).await;
            let shared = if batch == 1 {
                "one commit each"
            } else {
                "shared commits"
            };
            println!(
                "{:<44}{rate:>10.0}{p50:>10.2}{p99:>10.2}",
                format!("{senders:>3} senders, {shared}")
            );
        }
        let most: usize = std::env::var("BENCH_QUEUED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(1_000_000);
        println!();
        println!(
            "{:<44}{:>10}{:>10}{:>10}",
            "claim + settle", "us each", "per s", "ratio"
        );
        for (name, threads, hot) in [
            ("1,000 threads", 1_000, false),
            ("100,000 threads", 100_000, false),
            ("half in one thread", 100_000, true),
        ] {
            let mut first = None;
            for queued in [10_000, most] {
                let url = server.migrated().await;
                let inbox = open(&url, 512).await;
                fill(&url, queued, threads.min(queued), hot).await;
                let each = deliveries(&inbox).await;
                let ratio = each / *first.get_or_insert(each);
                let name = format!("{queued} queued, {name}");
                println!("{name:<44}{each:>10.1}{:>10.0}{ratio:>10.2}", 1e6 / each);
                let usage = inbox.usage().await.unwrap();
                println!(
                    "{:<44}{:>10} bytes an event",
                    "",
                    usage.bytes / queued as u64
                );
                inbox.close().await;
            }
        }
    });
}

async fn open(url: &Secret, batch: usize) -> Arc<PostgresInbox> {
    let options = PostgresOptions {
        batch,
        queue: 4096,
        lease: Duration::from_secs(15),
        connections: 8,
        search: false,
        max_disk: None,
    };
    Arc::new(PostgresInbox::open(url, options).await.unwrap())
}

async fn accepts(url: &Secret, senders: usize, batch: usize) -> (f64, f64, f64) {
    let inbox = open(url, batch).await;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..senders)
        .map(|_| {
            let inbox = Arc::clone(&inbox);
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
    let took = begun.elapsed();
    inbox.close().await;
    times.sort_unstable();
    let share = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    (
        times.len() as f64 / took.as_secs_f64(),
        share(50),
        share(99),
    )
}

/// Puts a backlog there, past the inbox: what is measured is what comes after. Then the server knows its tables, as it
/// does soon by itself.
async fn fill(url: &Secret, queued: usize, threads: usize, hot: bool) {
    let beside = cluster::beside(url).await;
    let (queued, threads) = (
        i64::try_from(queued).unwrap(),
        i64::try_from(threads).unwrap(),
    );
    beside
        .batch_execute(&format!(
            "SET synchronous_commit TO off;
             INSERT INTO route (id, source, destination, account, class)
                VALUES (1, 'bench', 'agent/bench', 'operator', 'normal');
             CREATE TEMPORARY TABLE queued AS SELECT n AS seq,
                CASE WHEN {hot} AND n % 2 = 0 THEN 0 ELSE n % {threads} END AS thread
             FROM generate_series(1::bigint, {queued}) AS n;
             INSERT INTO event (seq, id, received_at, bytes, source, thread, strength)
             SELECT seq, gen_random_uuid(), seq, 2048, 'bench', convert_to(thread::text, 'UTF8'), 'none' FROM queued;
             INSERT INTO body SELECT seq, 'POST /', '[]', '[]', convert_to(repeat(md5(seq::text), 32), 'UTF8') FROM queued;
             INSERT INTO lane (ready_at, lane, route)
             SELECT min(seq), md5(thread::text)::uuid, 1 FROM queued GROUP BY thread ORDER BY min(seq);
             CREATE TEMPORARY TABLE lanes AS SELECT id, lane FROM lane;
             CREATE INDEX ON lanes (lane);
             ANALYZE lanes;
             INSERT INTO delivery (key, event, lane, number, route, turns, sealed, state, upstream_id)
             SELECT q.seq, q.seq, l.id, 0, 1, true, false, 'pending', convert_to(q.thread::text, 'UTF8')
             FROM queued AS q JOIN lanes AS l ON l.lane = md5(q.thread::text)::uuid ORDER BY q.seq;
             SELECT setval('event_seq', {queued}), setval('delivery_key', {queued});"
        ))
        .await
        .unwrap();
    beside.batch_execute("VACUUM ANALYZE").await.unwrap();
    beside.batch_execute("CHECKPOINT").await.unwrap();
}

/// Claims and settles for a while. Returns the microseconds for each.
async fn deliveries(inbox: &Arc<PostgresInbox>) -> f64 {
    let now = Clock::system().now();
    let mut done = 0;
    let mut took = Duration::ZERO;
    // The first rounds make the plans.
    let mut warm = 4;
    while done < ROUNDS {
        let begun = Instant::now();
        let claims = inbox.claim(Box::new(Any(256)), now).await.unwrap();
        assert!(!claims.claimed.is_empty());
        let settled = claims.claimed.into_iter().map(|claimed| {
            let inbox = Arc::clone(inbox);
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
                    .unwrap()
            })
        });
        let mut count = 0;
        for task in settled.collect::<Vec<_>>() {
            task.await.unwrap();
            count += 1;
        }
        if warm > 0 {
            warm -= 1;
            continue;
        }
        done += count;
        took += begun.elapsed();
    }
    took.as_secs_f64() * 1e6 / done as f64
}

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
        body: vec![b'x'; 1024].into(),
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
