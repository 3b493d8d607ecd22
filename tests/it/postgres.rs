//! What the contract does not say, because only an engine with several processes has it: replicas that freeze or die,
//! connections that break, a server that goes away, schemas that are old.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sluicegate::config::Secret;
use sluicegate::inbox::postgres::{PostgresInbox, PostgresOptions};
use sluicegate::inbox::{
    Accept as _, Answer, Browse as _, ClaimBatch, Claimed, Deliver as _, EventFilter, InboxError,
    JobState, JobStep, Jobs as _, NewJob, Next, Operate as _, Pause, Replicas as _, Resolution,
    Settled, Settlement, Terms, Upkeep as _,
};
use sluicegate::model::{
    Accepted, Account, Attempt, Class, Clock, DeliveryId, DeliveryState, Destination, EventId,
    NewDelivery, NewEvent, Overlap, OverlapMode, Params, Route, Strength,
};

use crate::cluster::{self, Cluster, beside, options, within};

const LEASE: Duration = Duration::from_millis(1000);

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
    fn took(&mut self, _: &Route, count: usize) {
        self.0 = self.0.saturating_sub(count);
    }
    fn overlap(&self, _: &str) -> Overlap {
        Overlap::QUEUE
    }
}

async fn open(url: &Secret) -> PostgresInbox {
    PostgresInbox::open(url, options(LEASE)).await.unwrap()
}

async fn claim(inbox: &PostgresInbox) -> ClaimBatch {
    inbox
        .claim(Box::new(Any(100)), Clock::system().now())
        .await
        .unwrap()
}

async fn claim_one(inbox: &PostgresInbox) -> Claimed {
    within(Duration::from_secs(10), async || {
        claim(inbox).await.claimed.pop()
    })
    .await
}

fn event(thread: &str) -> NewEvent {
    let destination: Destination = "agent/a1".parse().unwrap();
    let upstream_id = destination.former_thread_id("triage", thread).to_string();
    NewEvent {
        id: EventId::new(),
        source: "triage".into(),
        dedup: None,
        event_type: None,
        received_at: Clock::system().now(),
        strength: Strength::Signed,
        secret: None,
        proof: None,
        filtered: None,
        unmappable: None,
        thread: Some(thread.into()),
        params: Params::default(),
        request_line: "POST /hooks/triage".into(),
        headers: vec![],
        body: "{}".into(),
        attachments: vec![],
        most_ahead: None,
        backlog: None,
        deliveries: vec![NewDelivery {
            lane: destination.lane(&Account::Operator, &upstream_id),
            destination,
            upstream_id,
            account: Account::Operator,
            class: Class::Normal,
            sealed: None,
        }],
    }
}

fn settlement(claimed: &Claimed, next: Next) -> Settlement {
    let now = Clock::system().now();
    let attempt = Attempt {
        number: claimed.attempt,
        started_at: now,
        ended_at: now,
        result: "completed".into(),
        status: Some(200),
        detail: String::new(),
    };
    Settlement {
        id: Some(claimed.id),
        key: claimed.key,
        lane: claimed.lane,
        fence: claimed.fence,
        attempt,
        next,
        owes: vec![],
        progress: None,
    }
}

fn done() -> Next {
    Next::Delivered(Answer {
        status: "completed".into(),
        result: None,
        finished_at: None,
        task: None,
    })
}

async fn state(inbox: &PostgresInbox, id: DeliveryId) -> DeliveryState {
    inbox.event(id.event).await.unwrap().unwrap().deliveries[0].state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_replica_loses_its_leases_once_and_is_told_so() {
    let url = cluster::shared().migrated().await;
    let (frozen, other) = (open(&url).await, open(&url).await);
    frozen.accept(event("a")).await.unwrap();
    frozen.accept(event("a")).await.unwrap();
    let held = claim_one(&frozen).await;
    assert!(claim(&other).await.claimed.is_empty(), "the lane is taken");
    within(LEASE * 3, async || {
        (other.replica_status().replicas == 2).then_some(())
    })
    .await;

    frozen.freeze();
    let begun = Instant::now();
    within(LEASE, async || {
        frozen.replica_status_changed().await;
        (!frozen.replica_status().good).then_some(())
    })
    .await;
    assert!(
        begun.elapsed() < LEASE,
        "it stops before its lease has ended"
    );
    assert!(
        claim(&frozen).await.claimed.is_empty(),
        "it claims nothing more"
    );

    let taken = claim_one(&other).await;
    assert!(
        begun.elapsed() >= LEASE.mul_f64(0.7),
        "not before the lease has ended"
    );
    assert_eq!(
        (taken.id, taken.attempt, taken.strikes),
        (held.id, 2, 2),
        "the try stays counted"
    );
    assert!(taken.doubt.is_some(), "nobody knows whether it ran");
    assert_ne!(taken.fence, held.fence);
    assert_eq!(
        frozen.settle(settlement(&held, done())).await.unwrap(),
        Settled::Stale
    );
    assert_eq!(
        state(&other, held.id).await,
        DeliveryState::Leased,
        "it changed nothing"
    );
    assert_eq!(
        other.settle(settlement(&taken, done())).await.unwrap(),
        Settled::Done
    );
    within(LEASE * 2, async || {
        (other.replica_status().replicas == 1).then_some(())
    })
    .await;
    assert_ne!(claim_one(&other).await.id, taken.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_comes_back_is_a_new_one_and_its_old_leases_are_free() {
    let url = cluster::shared().migrated().await;
    let inbox = open(&url).await;
    inbox.accept(event("a")).await.unwrap();
    let held = claim_one(&inbox).await;
    // As when the server's clock is past the end before the renewal comes.
    let beside = beside(&url).await;
    beside
        .execute("UPDATE replica SET expires_at = now()", &[])
        .await
        .unwrap();
    let taken = claim_one(&inbox).await;
    assert_eq!((taken.id, taken.attempt), (held.id, 2));
    assert_eq!(
        inbox.settle(settlement(&held, done())).await.unwrap(),
        Settled::Stale
    );
    assert_eq!(
        inbox.settle(settlement(&taken, done())).await.unwrap(),
        Settled::Done
    );
    assert!(inbox.replica_status().good);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_gives_everything_back_at_once() {
    let url = cluster::shared().migrated().await;
    let long = PostgresInbox::open(&url, options(Duration::from_secs(600)))
        .await
        .unwrap();
    let other = open(&url).await;
    long.accept(event("a")).await.unwrap();
    let held = claim_one(&long).await;
    long.close().await;
    assert!(matches!(
        long.accept(event("a")).await,
        Err(InboxError::Closed)
    ));
    assert_eq!(claim_one(&other).await.id, held.id);
    within(LEASE * 2, async || {
        (other.replica_status().replicas == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_replicas_never_have_one_lane_at_once_and_lose_nothing() {
    let url = cluster::shared().migrated().await;
    let inboxes: Vec<Arc<PostgresInbox>> =
        futures_util::future::join_all((0..3).map(|_| open(&url)))
            .await
            .into_iter()
            .map(Arc::new)
            .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let in_flight = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let workers: Vec<_> = inboxes
        .iter()
        .map(|inbox| {
            let (inbox, stop) = (Arc::clone(inbox), Arc::clone(&stop));
            let (in_flight, order) = (Arc::clone(&in_flight), Arc::clone(&order));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let claimed = inbox
                        .claim(Box::new(Any(10)), Clock::system().now())
                        .await
                        .unwrap()
                        .claimed;
                    if claimed.is_empty() {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    for one in &claimed {
                        assert!(
                            in_flight.lock().unwrap().insert(one.lane),
                            "two at once in a lane"
                        );
                    }
                    for one in claimed {
                        order
                            .lock()
                            .unwrap()
                            .push((one.thread.clone().unwrap(), one.id));
                        in_flight.lock().unwrap().remove(&one.lane);
                        assert_eq!(
                            inbox.settle(settlement(&one, done())).await.unwrap(),
                            Settled::Done
                        );
                    }
                }
            })
        })
        .collect();
    let mut sent: Vec<(String, DeliveryId)> = Vec::new();
    for n in 0..40 {
        for thread in 0..8 {
            let event = event(&format!("t{thread}"));
            let id = DeliveryId {
                event: event.id,
                number: 0,
            };
            assert_eq!(inboxes[n % 3].accept(event).await.unwrap(), Accepted::New);
            sent.push((format!("t{thread}"), id));
        }
    }
    within(Duration::from_secs(20), async || {
        (order.lock().unwrap().len() >= sent.len()).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    let order = order.lock().unwrap().clone();
    for thread in 0..8 {
        let of = |list: &[(String, DeliveryId)]| {
            list.iter()
                .filter(|(t, _)| *t == format!("t{thread}"))
                .map(|(_, id)| *id)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&order), of(&sent), "in order, each once");
    }
    let counts = inboxes[0].counts().await.unwrap();
    let nonzero: Vec<_> = counts.iter().filter(|count| count.count > 0).collect();
    assert_eq!(
        (nonzero.len(), nonzero[0].state, nonzero[0].count),
        (1, DeliveryState::Delivered, 320)
    );
}

/// F9
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_goes_and_comes_back_has_everything_that_was_accepted() {
    let cluster = Cluster::start();
    let url = cluster.migrated().await;
    let inbox = Arc::new(open(&url).await);
    let kept = Arc::new(std::sync::Mutex::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let longest = Arc::new(std::sync::Mutex::new(Duration::ZERO));
    let senders: Vec<_> = (0..16)
        .map(|n| {
            let (inbox, kept, stop) = (Arc::clone(&inbox), Arc::clone(&kept), Arc::clone(&stop));
            let longest = Arc::clone(&longest);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let event = NewEvent {
                        dedup: Some(format!("{:032x}", fastrand::u128(..))),
                        ..event(&format!("t{n}"))
                    };
                    let id = event.id;
                    let begun = Instant::now();
                    match inbox.accept(event).await {
                        Ok(Accepted::New) => kept.lock().unwrap().push(id),
                        Ok(other) => panic!("{other:?}"),
                        Err(InboxError::Engine { .. }) => {
                            tokio::time::sleep(Duration::from_millis(50)).await
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                    let mut longest = longest.lock().unwrap();
                    *longest = longest.max(begun.elapsed());
                }
            })
        })
        .collect();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        tokio::task::block_in_place(|| cluster.stop());
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(inbox.accept(event("down")).await.is_err());
        assert!(inbox.ready().await.is_err());
        tokio::task::block_in_place(|| cluster.run());
        let before = kept.lock().unwrap().len();
        within(Duration::from_secs(5), async || {
            (kept.lock().unwrap().len() > before).then_some(())
        })
        .await;
        within(Duration::from_secs(5), async || {
            inbox.replica_status().good.then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }
    assert!(
        *longest.lock().unwrap() < Duration::from_secs(8),
        "nobody waits for long: {longest:?}"
    );
    let kept = kept.lock().unwrap().clone();
    let beside = beside(&url).await;
    for id in &kept {
        let id = uuid::Uuid::from_bytes(*id.as_bytes());
        let found: i64 = beside
            .query_one("SELECT count(*) FROM event WHERE id = $1", &[&id])
            .await
            .unwrap()
            .get(0);
        assert_eq!(found, 1, "accepted and there");
    }
    assert!(kept.len() > 100);
    let claimed = claim(&inbox).await.claimed;
    assert!(!claimed.is_empty(), "and it goes on");
}

/// F10
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_that_is_killed_costs_nobody_a_wrong_answer() {
    let url = cluster::shared().migrated().await;
    let inbox = Arc::new(open(&url).await);
    let stop = Arc::new(AtomicBool::new(false));
    let killer = {
        let (stop, beside) = (Arc::clone(&stop), beside(&url).await);
        tokio::spawn(async move {
            let mut killed = 0;
            while !stop.load(Ordering::Relaxed) {
                let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                           WHERE datname = current_database() AND pid <> pg_backend_pid()";
                killed += beside.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            killed
        })
    };
    let senders: Vec<_> = (0..8)
        .map(|n| {
            let inbox = Arc::clone(&inbox);
            tokio::spawn(async move {
                for _ in 0..40 {
                    let event = event(&format!("t{n}"));
                    assert_eq!(inbox.accept(event).await.unwrap(), Accepted::New);
                    // However quick the machine is, some of it is done while connections are killed.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let mut settled = 0;
    let begun = Instant::now();
    while settled < 320 {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{settled} so far"
        );
        for one in claim(&inbox).await.claimed {
            assert_eq!(one.attempt, 1, "no claim was lost");
            assert_eq!(
                inbox.settle(settlement(&one, done())).await.unwrap(),
                Settled::Done
            );
            settled += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(killer.await.unwrap() > 5);
    let counts = inbox.counts().await.unwrap();
    assert!(
        counts.iter().all(|count| count.count
            == if count.state == DeliveryState::Delivered {
                320
            } else {
                0
            }),
        "{counts:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_is_made_once_however_many_begin_and_whoever_is_killed() {
    let url = cluster::shared().database().await;
    let none = PostgresInbox::open(&url, options(LEASE))
        .await
        .unwrap_err()
        .to_string();
    assert!(none.contains("sluicegate migrate"), "{none}");
    // Killed on the way.
    for _ in 0..5 {
        let begun = tokio::spawn({
            let url = url.clone();
            async move { PostgresInbox::migrate(&url).await }
        });
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..40))).await;
        begun.abort();
    }
    let all = futures_util::future::join_all((0..6).map(|_| PostgresInbox::migrate(&url))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    let opened = futures_util::future::join_all((0..4).map(|_| open(&url))).await;
    assert_eq!(opened[0].accept(event("a")).await.unwrap(), Accepted::New);
    within(LEASE * 2, async || {
        (opened[0].replica_status().replicas == 4).then_some(())
    })
    .await;

    let beside = beside(&url).await;
    beside
        .execute("INSERT INTO schema_version (version) VALUES (99)", &[])
        .await
        .unwrap();
    let newer = PostgresInbox::open(&url, options(LEASE))
        .await
        .unwrap_err()
        .to_string();
    assert!(newer.contains("newer version"), "{newer}");
    PostgresInbox::migrate(&url).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_wait_for_its_disk_is_refused() {
    let url = cluster::shared().migrated().await;
    let beside = beside(&url).await;
    let name: String = beside
        .query_one("SELECT current_database()", &[])
        .await
        .unwrap()
        .get(0);
    beside
        .batch_execute(&format!(
            "ALTER DATABASE {name} SET synchronous_commit TO off"
        ))
        .await
        .unwrap();
    let refused = PostgresInbox::open(&url, options(LEASE))
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("synchronous_commit = off"), "{refused}");
    let anyway = Secret::new(
        "env:X",
        format!("{}?sluicegate_unsafe=1", url.expose_text().unwrap()),
    );
    let inbox = open(&anyway).await;
    assert_eq!(inbox.accept(event("a")).await.unwrap(), Accepted::New);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_told_across_replicas() {
    let url = cluster::shared().migrated().await;
    let (waits, works) = (Arc::new(open(&url).await), open(&url).await);
    within(LEASE * 2, async || {
        (works.replica_status().replicas == 2).then_some(())
    })
    .await;
    let event = event("a");
    let id = DeliveryId {
        event: event.id,
        number: 0,
    };
    waits.accept(event).await.unwrap();
    let waiting = tokio::spawn({
        let waits = Arc::clone(&waits);
        async move { waits.ended(id).await.unwrap().unwrap().state }
    });
    let claimed = claim_one(&works).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    let begun = Instant::now();
    works.settle(settlement(&claimed, done())).await.unwrap();
    assert_eq!(waiting.await.unwrap(), DeliveryState::Delivered);
    assert!(
        begun.elapsed() < Duration::from_millis(500),
        "told, and not found by looking: {:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_in_bodies_are_found_with_and_without_an_index() {
    for search in [false, true] {
        let url = cluster::shared().migrated().await;
        let inbox = PostgresInbox::open(
            &url,
            PostgresOptions {
                search,
                ..options(LEASE)
            },
        )
        .await
        .unwrap();
        let mut wanted = event("a");
        wanted.body = b"\xff\0 The Gate is OPEN, says {\"who\": \"Ada\"}"[..].into();
        inbox.accept(wanted.clone()).await.unwrap();
        inbox.accept(event("b")).await.unwrap();
        let filter = |text: &str| EventFilter {
            text: Some(text.into()),
            limit: 10,
            ..EventFilter::default()
        };
        let found = within(Duration::from_secs(5), async || {
            let found = inbox.events(&filter("ada gate open")).await.unwrap().items;
            (!found.is_empty()).then_some(found)
        })
        .await;
        assert_eq!(
            found.iter().map(|event| event.id).collect::<Vec<_>>(),
            [wanted.id]
        );
        assert!(
            inbox
                .events(&filter("ada window"))
                .await
                .unwrap()
                .items
                .is_empty()
        );
        assert_eq!(inbox.count(&filter("gate"), 10).await.unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_inbox_refuses_and_says_how_full_it_is() {
    let url = cluster::shared().migrated().await;
    let inbox = PostgresInbox::open(
        &url,
        PostgresOptions {
            max_disk: Some(1),
            ..options(LEASE)
        },
    )
    .await
    .unwrap();
    within(Duration::from_secs(5), async || {
        matches!(inbox.accept(event("a")).await, Err(InboxError::NoSpace)).then_some(())
    })
    .await;
    assert!(matches!(inbox.ready().await, Err(InboxError::NoSpace)));
    let usage = inbox.usage().await.unwrap();
    assert!(usage.bytes > 0 && usage.ceiling == Some(1));
}

/// Terms that say what becomes of turns that wait, and how many of each source may go.
#[derive(Debug)]
struct Told(Overlap, Vec<(&'static str, usize)>, HashMap<String, usize>);

impl Terms for Told {
    fn begin(&mut self) {
        self.2.clear();
    }
    fn room(&self) -> usize {
        100
    }
    fn open(&mut self, route: &Route) -> usize {
        let most = self
            .1
            .iter()
            .find(|(source, _)| *source == route.source)
            .map_or(0, |(_, most)| *most);
        most - self.2.get(&route.source).copied().unwrap_or(0)
    }
    fn took(&mut self, route: &Route, count: usize) {
        assert!(count <= self.open(route), "no more than may go");
        *self.2.entry(route.source.clone()).or_default() += count;
    }
    fn overlap(&self, _: &str) -> Overlap {
        self.0
    }
}

async fn told(
    inbox: &PostgresInbox,
    mode: OverlapMode,
    depth: Option<u32>,
    age: Option<Duration>,
) -> ClaimBatch {
    let terms = Told(
        Overlap { mode, depth, age },
        vec![("triage", 100)],
        HashMap::new(),
    );
    inbox
        .claim(Box::new(terms), Clock::system().now())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_that_waited_go_together_and_stay_together() {
    let url = cluster::shared().migrated().await;
    let inbox = Arc::new(open(&url).await);
    let turns: Vec<NewEvent> = (0..6).map(|_| event("a")).collect();
    for turn in &turns[..5] {
        inbox.accept(turn.clone()).await.unwrap();
    }
    let mut claims = told(&inbox, OverlapMode::Collect, Some(3), None).await;
    assert_eq!(claims.dropped, [("triage".to_owned(), 2)]);
    let first = claims.claimed.pop().unwrap();
    assert_eq!(first.id.event, turns[2].id);
    let ids = |claimed: &Claimed| {
        claimed
            .merged
            .iter()
            .map(|one| one.id.event)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (ids(&first), first.dropped),
        (vec![turns[3].id, turns[4].id], 2)
    );
    let merged = DeliveryId {
        event: turns[4].id,
        number: 0,
    };
    let waiting = tokio::spawn({
        let inbox = Arc::clone(&inbox);
        async move { inbox.ended(merged).await.unwrap().unwrap().state }
    });
    inbox.accept(turns[5].clone()).await.unwrap();
    let at = Clock::system().now();
    inbox
        .settle(settlement(
            &first,
            Next::Retry {
                at,
                doubt: None,
                counted: true,
            },
        ))
        .await
        .unwrap();
    let again = told(&inbox, OverlapMode::Collect, Some(3), None)
        .await
        .claimed
        .pop()
        .unwrap();
    assert_eq!(
        (again.id, ids(&again), again.dropped),
        (first.id, ids(&first), 2),
        "nothing new joins"
    );
    assert!(!waiting.is_finished(), "it ends with the one it went with");
    inbox.settle(settlement(&again, done())).await.unwrap();
    assert_eq!(
        waiting.await.unwrap(),
        DeliveryState::Delivered,
        "as the one it went with"
    );
    assert_eq!(
        told(&inbox, OverlapMode::Collect, None, None).await.claimed[0]
            .id
            .event,
        turns[5].id
    );
    let mut counts: Vec<_> = inbox
        .counts()
        .await
        .unwrap()
        .into_iter()
        .map(|count| (count.state, count.count))
        .collect();
    counts.retain(|(_, count)| *count > 0);
    assert_eq!(
        counts,
        [
            (DeliveryState::Leased, 1),
            (DeliveryState::Delivered, 1),
            (DeliveryState::Merged, 2),
            (DeliveryState::Dropped, 2)
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_latest_goes_and_what_is_too_old_does_not() {
    let url = cluster::shared().migrated().await;
    let inbox = open(&url).await;
    // More than one claim looks at.
    let turns: Vec<NewEvent> = (0..1200).map(|_| event("a")).collect();
    futures_util::future::join_all(turns.iter().map(|turn| async {
        while let Err(InboxError::Full(_)) = inbox.accept(turn.clone()).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }))
    .await;
    let first = told(&inbox, OverlapMode::Latest, None, None).await;
    assert!(first.claimed.is_empty());
    let mut second = told(&inbox, OverlapMode::Latest, None, None).await;
    let claimed = second.claimed.pop().unwrap();
    assert_eq!(first.dropped[0].1 + second.dropped[0].1, 1199);
    assert_eq!(claimed.dropped, 1199);
    inbox.settle(settlement(&claimed, done())).await.unwrap();
    assert!(
        told(&inbox, OverlapMode::Latest, None, None)
            .await
            .claimed
            .is_empty()
    );

    let old = NewEvent {
        received_at: Clock::system().now() - Duration::from_secs(60),
        ..event("b")
    };
    let fresh = event("b");
    inbox.accept(old.clone()).await.unwrap();
    inbox.accept(fresh.clone()).await.unwrap();
    let claims = told(
        &inbox,
        OverlapMode::Queue,
        None,
        Some(Duration::from_secs(30)),
    )
    .await;
    assert_eq!(claims.claimed[0].id.event, fresh.id);
    assert_eq!(claims.dropped, [("triage".to_owned(), 1)]);
    assert_eq!(
        state(
            &inbox,
            DeliveryId {
                event: old.id,
                number: 0
            }
        )
        .await,
        DeliveryState::Dropped
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_is_held_keeps_no_other_waiting_and_has_its_turn() {
    let url = cluster::shared().migrated().await;
    let inbox = open(&url).await;
    for n in 0..30 {
        for source in ["triage", "other", "third"] {
            let event = NewEvent {
                source: source.into(),
                ..event(&format!("{source}{n}"))
            };
            while let Err(InboxError::Full(_)) = inbox.accept(event.clone()).await {}
        }
    }
    let now = Clock::system().now();
    let terms = |open: &[(&'static str, usize)]| {
        Box::new(Told(Overlap::QUEUE, open.to_vec(), HashMap::new()))
    };
    let of = |claims: &ClaimBatch, source: &str| {
        claims
            .claimed
            .iter()
            .filter(|one| one.source == source)
            .count()
    };
    let claims = inbox
        .claim(terms(&[("other", 5), ("third", 100)]), now)
        .await
        .unwrap();
    assert_eq!(
        (
            of(&claims, "triage"),
            of(&claims, "other"),
            of(&claims, "third")
        ),
        (0, 5, 30)
    );
    let claims = inbox.claim(Box::new(Any(4)), now).await.unwrap();
    assert_eq!(
        (of(&claims, "triage"), of(&claims, "other")),
        (2, 2),
        "an equal share"
    );
    let held = Pause::Source("triage".into());
    assert!(
        inbox.set_paused(&held, true, now).await.unwrap()
            && !inbox.set_paused(&held, true, now).await.unwrap()
    );
    assert_eq!(inbox.pauses().await.unwrap(), [(held.clone(), now)]);
    assert!(
        inbox.set_paused(&held, false, now).await.unwrap()
            && inbox.pauses().await.unwrap().is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_could_tell_is_settled_by_hand() {
    let url = cluster::shared().migrated().await;
    let inbox = open(&url).await;
    let now = Clock::system().now();
    for (how, wanted) in [
        (Resolution::Delivered, DeliveryState::Delivered),
        (Resolution::Dead, DeliveryState::Dead),
        (Resolution::Again, DeliveryState::Pending),
    ] {
        inbox.accept(event("a")).await.unwrap();
        let claimed = claim_one(&inbox).await;
        assert!(
            !inbox.resolve(claimed.id, how, "", now).await.unwrap(),
            "it is not unknown"
        );
        inbox
            .settle(settlement(&claimed, Next::Unknown))
            .await
            .unwrap();
        // One that waits behind goes after it.
        let behind = event("a");
        inbox.accept(behind.clone()).await.unwrap();
        assert!(inbox.resolve(claimed.id, how, "saw it", now).await.unwrap());
        assert!(
            !inbox.resolve(claimed.id, how, "saw it", now).await.unwrap(),
            "only once"
        );
        let detail = inbox
            .event(claimed.id.event)
            .await
            .unwrap()
            .unwrap()
            .deliveries
            .remove(0);
        assert_eq!(
            (detail.state, detail.tries.last().unwrap().detail.as_str()),
            (wanted, "saw it")
        );
        let next = claim_one(&inbox).await;
        if how == Resolution::Again {
            assert_eq!((next.id, next.doubt), (claimed.id, None));
            inbox.settle(settlement(&next, done())).await.unwrap();
        } else {
            assert_eq!(next.id.event, behind.id);
            inbox.settle(settlement(&next, done())).await.unwrap();
            continue;
        }
        assert_eq!(claim_one(&inbox).await.id.event, behind.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_on_where_it_was_and_owes_nothing_twice() {
    let url = cluster::shared().migrated().await;
    let (inbox, other) = (open(&url).await, open(&url).await);
    let now = Clock::system().now();
    let event = event("a");
    inbox.accept(event.clone()).await.unwrap();
    let job = inbox
        .begin_job(
            NewJob {
                filter: "{}\0".into(),
                total: 1,
                pace: 60,
            },
            now,
        )
        .await
        .unwrap();
    assert_eq!(
        (job.state, job.filter.as_str()),
        (JobState::Running, "{}\0")
    );
    let step = |from, to, first| JobStep {
        id: job.id,
        from,
        to,
        ended: false,
        owed: vec![(event.id, first, event.deliveries.clone())],
        anew: HashMap::new(),
        skipped: 1,
    };
    let (one, two) = tokio::join!(
        inbox.step_job(step(None, Some(7), 1), now),
        other.step_job(step(None, Some(7), 1), now)
    );
    assert_eq!(
        [one.unwrap(), two.unwrap()].iter().flatten().count(),
        1,
        "one of two takes it on"
    );
    assert_eq!(
        inbox
            .event(event.id)
            .await
            .unwrap()
            .unwrap()
            .deliveries
            .len(),
        2
    );
    assert!(
        inbox
            .step_job(step(Some(7), Some(8), 1), now)
            .await
            .unwrap()
            .is_none(),
        "it has other deliveries"
    );
    let paused = inbox
        .steer_job(job.id, Some(JobState::Paused), Some(5), now)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (paused.state, paused.pace, paused.done, paused.skipped),
        (JobState::Paused, 5, 1, 1)
    );
    assert!(
        inbox
            .step_job(step(Some(7), Some(8), 2), now)
            .await
            .unwrap()
            .is_none(),
        "it waits"
    );
    inbox
        .steer_job(job.id, Some(JobState::Cancelled), None, now)
        .await
        .unwrap();
    let ended = inbox
        .steer_job(job.id, Some(JobState::Running), None, now)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        ended.state,
        JobState::Cancelled,
        "one that has ended stays as it is"
    );
    assert_eq!(inbox.jobs().await.unwrap(), [ended]);
    assert!(
        inbox
            .steer_job(99, None, None, now)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_has_its_depth_and_doubles_are_doubles_first() {
    let url = cluster::shared().migrated().await;
    let inbox = open(&url).await;
    let turn = |dedup: &str| NewEvent {
        dedup: Some(dedup.into()),
        most_ahead: Some(2),
        ..event("a")
    };
    let first = turn("1");
    // It is there before the others: of those, whichever comes last finds the queue full.
    assert_eq!(inbox.accept(first.clone()).await.unwrap(), Accepted::New);
    let all = [turn("2"), turn("3"), turn("4"), turn("1")];
    let answers =
        futures_util::future::join_all(all.iter().map(|turn| inbox.accept(turn.clone()))).await;
    let answers: Vec<Accepted> = answers.into_iter().map(Result::unwrap).collect();
    let double = Accepted::Duplicate(first.id);
    assert_eq!(
        answers
            .iter()
            .filter(|answer| **answer == Accepted::New)
            .count(),
        2
    );
    assert_eq!(
        answers
            .iter()
            .filter(|answer| **answer == Accepted::Busy)
            .count(),
        1
    );
    assert_eq!(answers[3], double);
    assert_eq!(inbox.accept(turn("1")).await.unwrap(), double);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_in_a_database_that_was_put_back_is_in_doubt_and_paused() {
    let url = cluster::shared().migrated().await;
    let inbox = open(&url).await;
    let kept = event("a");
    let received = kept.received_at;
    assert_eq!(inbox.accept(kept).await.unwrap(), Accepted::New);
    inbox.close().await;
    let now = Clock::system().now();
    let found = PostgresInbox::reopen(&url, now).await.unwrap();
    assert_eq!((found.events, found.deliveries), (1, 1));
    let inbox = open(&url).await;
    assert_eq!(inbox.pauses().await.unwrap(), [(Pause::All, now)]);
    let claimed = claim_one(&inbox).await;
    assert!(
        claimed.doubt.is_some_and(|since| since < received),
        "{claimed:?}"
    );
}
