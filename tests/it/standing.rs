//! A process that lost its standing among those that share an inbox: it calls nobody and claims nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use sluicegate::config::{Config, Problems, Secret};
use sluicegate::dispatch::{Dispatcher, DispatcherParts, Throttle, owed_delivery};
use sluicegate::inbox::seal::Sealer;
use sluicegate::inbox::sqlite::{SqliteInbox, SqliteOptions};
use sluicegate::inbox::*;
use sluicegate::model::{
    Accepted, Attachment, AttachmentId, Clock, DeliveryId, DeliveryState, Destination, EventId,
    Name, NewDelivery, NewEvent, Origin, Param, Params, ProofMark, Role, Strength, Timestamp,
    UpstreamIds, UsedProof,
};
use sluicegate::net::Client;
use sluicegate::telemetry::Metrics;
use sluicegate::upstream::{Budget, Upstream};
use tokio::sync::Notify;

use crate::world::{self, wait_for};
use tokio_util::sync::CancellationToken;

/// An inbox whose standing a test decides.
#[derive(Debug)]
struct Shaky {
    inner: SqliteInbox,
    good: AtomicBool,
    generation: AtomicI64,
    /// The answer of the next claim that finds something comes after the process was lost and is back.
    answers_late: AtomicBool,
    changed: Notify,
    claims: AtomicUsize,
}

impl Shaky {
    fn stand(&self, good: bool) {
        self.good.store(good, Ordering::SeqCst);
        self.changed.notify_one();
    }

    /// Loses the standing and has another at once, faster than anybody looks.
    fn come_back(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }
}

macro_rules! passed_on {
    ($(impl $noun:ident { $($name:ident($($arg:ident: $kind:ty),*) -> $answer:ty;)* })*) => {
        $(passed_on!(in $noun { $($name($($arg: $kind),*) -> $answer;)* });)*
    };
    (in Deliver { $($name:ident($($arg:ident: $kind:ty),*) -> $answer:ty;)* }) => {
        #[async_trait]
        impl Deliver for Shaky {
            async fn claim(&self, terms: Box<dyn Terms>, now: Timestamp) -> Result<ClaimBatch, InboxError> {
                self.claims.fetch_add(1, Ordering::SeqCst);
                let batch = self.inner.claim(terms, now).await?;
                if !batch.claimed.is_empty() && self.answers_late.swap(false, Ordering::SeqCst) {
                    self.come_back();
                }
                Ok(batch)
            }

            $(async fn $name(&self, $($arg: $kind),*) -> $answer {
                self.inner.$name($($arg),*).await
            })*
        }
    };
    (in $noun:ident { $($name:ident($($arg:ident: $kind:ty),*) -> $answer:ty;)* }) => {
        #[async_trait]
        impl $noun for Shaky {
            $(async fn $name(&self, $($arg: $kind),*) -> $answer {
                self.inner.$name($($arg),*).await
            })*
        }
    };
}

#[async_trait]
impl Replicas for Shaky {
    fn replica_status(&self) -> ReplicaStatus {
        ReplicaStatus {
            good: self.good.load(Ordering::SeqCst),
            generation: self.generation.load(Ordering::SeqCst),
            ..self.inner.replica_status()
        }
    }

    fn replicas_with(&self, role: Role) -> u32 {
        self.inner.replicas_with(role)
    }

    async fn replica_status_changed(&self) {
        self.changed.notified().await;
    }
}

passed_on! {
    impl Accept {
        accept_all(events: Vec<NewEvent>) -> Result<Vec<Accepted>, InboxError>;
        known(source: &str, dedup: &str) -> Result<Option<EventId>, InboxError>;
        use_proof(proof: UsedProof, now: Timestamp) -> Result<bool, InboxError>;
        free_proof(marks: Vec<ProofMark>) -> Result<(), InboxError>;
    }
    impl Deliver {
        settle(settlement: Settlement) -> Result<Settled, InboxError>;
        work_due() -> ();
        earlier_turn(claimed: &Claimed) -> Result<Option<Turn>, InboxError>;
        ended(id: DeliveryId) -> Result<Option<DeliveryDetail>, InboxError>;
    }
    impl Browse {
        events(filter: &EventFilter) -> Result<Page<EventSummary>, InboxError>;
        count(filter: &EventFilter, most: u64) -> Result<u64, InboxError>;
        event(id: EventId) -> Result<Option<EventDetail>, InboxError>;
        between(from: EventId, to: EventId, most: usize) -> Result<Vec<EventId>, InboxError>;
        waiting(events: Vec<EventId>) -> Result<Vec<WaitingDelivery>, InboxError>;
        source_fares() -> Result<Vec<SourceFare>, InboxError>;
        destinations() -> Result<Vec<Destination>, InboxError>;
        counts() -> Result<Vec<Count>, InboxError>;
    }
    impl Operate {
        replay(id: EventId, first: u32, to: Vec<NewDelivery>, now: Timestamp) -> Result<Replayed, InboxError>;
        replay_anew(id: EventId, first: u32, to: Vec<NewDelivery>, anew: Anew, now: Timestamp)
        -> Result<Replayed, InboxError>;
        cancel(id: DeliveryId, now: Timestamp) -> Result<bool, InboxError>;
        resolve(id: DeliveryId, how: Resolution, note: &str, now: Timestamp) -> Result<bool, InboxError>;
        set_paused(what: &Pause, on: bool, now: Timestamp) -> Result<bool, InboxError>;
        pauses() -> Result<Vec<(Pause, Timestamp)>, InboxError>;
    }
    impl Jobs {
        begin_job(job: NewJob, now: Timestamp) -> Result<Job, InboxError>;
        jobs() -> Result<Vec<Job>, InboxError>;
        steer_job(id: i64, state: Option<JobState>, pace: Option<u32>, now: Timestamp) -> Result<Option<Job>, InboxError>;
        step_job(step: JobStep, now: Timestamp) -> Result<Option<Job>, InboxError>;
    }
    impl CountRuns {
        spend(day: i64, budgets: Vec<Spend>) -> Result<Option<String>, InboxError>;
        give_back(day: i64, budgets: Vec<String>) -> Result<(), InboxError>;
        spent(day: i64) -> Result<Vec<(String, u64)>, InboxError>;
    }
    impl KeepFiles {
        keep_attachments(source: &str, attachments: Vec<Attachment>) -> Result<(), InboxError>;
        add_attachments(event: EventId, attachments: Vec<Attachment>) -> Result<bool, InboxError>;
        extend_attachments(event: EventId, until: Timestamp) -> Result<(), InboxError>;
        attachment(id: AttachmentId) -> Result<Option<KeptAttachment>, InboxError>;
        attachments(cursor: Option<i64>, limit: usize) -> Result<Page<KeptAttachment>, InboxError>;
        attachments_gone(now: Timestamp, limit: usize) -> Result<Vec<Attachment>, InboxError>;
        attachments_known(ids: Vec<AttachmentId>) -> Result<Vec<AttachmentId>, InboxError>;
        forget_attachments(ids: Vec<AttachmentId>) -> Result<usize, InboxError>;
    }
    impl Upkeep {
        sweep(keep: &Keep, now: Timestamp, limit: usize) -> Result<usize, InboxError>;
        usage() -> Result<Usage, InboxError>;
        bytes_of(source: &str) -> Result<u64, InboxError>;
        upstream_ids() -> Result<UpstreamIds, InboxError>;
        ready() -> Result<(), InboxError>;
        failed() -> String;
        close() -> ();
    }
}

const SOURCE: &str = r#"
[sources.s]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
"#;

fn event(config: &Config, text: &str) -> NewEvent {
    let id = EventId::new();
    let delivery = DeliveryId {
        event: id,
        number: 0,
    };
    let prompt = Param {
        name: Name::Prompt,
        value: text.into(),
        origin: Origin::Template,
        over: vec![],
    };
    NewEvent {
        id,
        source: "s".into(),
        dedup: None,
        event_type: None,
        received_at: Clock::system().now(),
        strength: Strength::None,
        secret: None,
        proof: None,
        filtered: None,
        unmappable: None,
        thread: None,
        params: Params::new(vec![prompt]),
        request_line: "POST /hooks/s".into(),
        headers: Vec::new(),
        body: bytes::Bytes::from_static(b"{}"),
        deliveries: config
            .sources
            .iter()
            .find_map(|source| owed_delivery(source, delivery, None, &UpstreamIds::default()))
            .into_iter()
            .collect(),
        attachments: vec![],
        most_ahead: None,
        backlog: None,
    }
}

/// A dispatcher over an inbox whose standing a test decides.
struct World {
    upstream: world::Upstream,
    config: Config,
    inbox: Arc<Shaky>,
    dispatcher: Arc<Dispatcher>,
    stop: CancellationToken,
    dispatch: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl World {
    /// Accepts an event with this prompt.
    async fn accept(&self, prompt: &str) -> EventId {
        let event = event(&self.config, prompt);
        let id = event.id;
        self.inbox.accept(event).await.unwrap();
        id
    }

    /// The delivery of an event, once this many attempts of it have ended.
    async fn tried(&self, id: EventId, attempts: usize) -> DeliveryDetail {
        wait_for("the end of an attempt", async || {
            let event = self.inbox.event(id).await.unwrap();
            let delivery = event.expect("it is kept").deliveries.remove(0);
            (delivery.tries.len() >= attempts).then_some(delivery)
        })
        .await
    }

    async fn wait_for_delivered(&self, count: u64) {
        wait_for("deliveries to end", async || {
            let counts = self.inbox.counts().await.unwrap();
            let mut delivered = counts
                .iter()
                .filter(|of| of.state == DeliveryState::Delivered);
            delivered.any(|of| of.count == count).then_some(())
        })
        .await;
    }

    async fn close(self) {
        self.stop.cancel();
        self.dispatch.await.unwrap();
        self.inbox.close().await;
    }
}

async fn world() -> World {
    let upstream = world::Upstream::start(&["--delay", "20s"]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = world::Gateway::config(upstream.address, SOURCE, "");
    let problems = Problems::default();
    let config = Config::parse("t", &file, folder.path(), std::iter::empty(), &problems)
        .expect("it is valid");
    let options = SqliteOptions {
        batch: 64,
        queue: 64,
        ..SqliteOptions::default()
    };
    let inner = SqliteInbox::open(&folder.path().join("inbox.db"), options)
        .await
        .unwrap();
    let (good, changed) = (AtomicBool::new(true), Notify::new());
    let inbox = Arc::new(Shaky {
        inner,
        good,
        generation: AtomicI64::new(0),
        answers_late: AtomicBool::new(false),
        changed,
        claims: AtomicUsize::new(0),
    });
    let (budget, metrics) = (Budget::default(), Arc::new(Metrics::new()));
    let client = Client::new(Duration::from_secs(5), None).unwrap();
    let dispatcher = Arc::new(Dispatcher::new(
        &config,
        Upstream::new(&config.upstream, client, budget.clone()),
        DispatcherParts {
            inbox: inbox.clone(),
            sealer: Arc::new(
                Sealer::new(&Secret::new("k", "0123456789abcdef0123456789abcdef")).unwrap(),
            ),
            throttle: Throttle::new(budget, metrics.clone()),
            metrics: metrics.clone(),
            clock: Clock::system(),
        },
    ));
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    let dispatch = tokio::spawn(Dispatcher::run(
        Arc::new(ArcSwap::new(dispatcher.clone())),
        stop.clone(),
        hurry,
    ));
    World {
        upstream,
        config,
        inbox,
        dispatcher,
        stop,
        dispatch,
        _folder: folder,
    }
}

#[tokio::test]
async fn f21_a_process_that_lost_its_standing_breaks_its_calls_off_and_claims_nothing() {
    let world = world().await;
    let (inbox, upstream) = (&world.inbox, &world.upstream);
    let first = world.accept("one [[stub delay=4s]]").await;
    upstream.wait_for_runs(1).await;
    assert_eq!(world.dispatcher.destinations()[0].in_flight, 1);

    inbox.stand(false);
    wait_for("the call to be broken off", async || {
        let fares = world.dispatcher.destinations();
        fares.iter().all(|fare| fare.in_flight == 0).then_some(())
    })
    .await;
    let detail = world.tried(first, 1).await;
    assert_eq!(
        (detail.state, detail.doubt.is_some()),
        (DeliveryState::Pending, true),
        "{detail:?}"
    );
    assert_eq!(detail.tries[0].result, "broken_off");
    let (claims, requests) = (
        inbox.claims.load(Ordering::SeqCst),
        upstream.stats().await["requests"].clone(),
    );
    world.accept("two [[stub delay=10ms]]").await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(
        inbox.claims.load(Ordering::SeqCst),
        claims,
        "nothing is claimed"
    );
    assert_eq!(
        upstream.stats().await["requests"],
        requests,
        "nobody is called"
    );

    // Good again: the first is asked for and not run twice, the second runs.
    inbox.stand(true);
    world.wait_for_delivered(2).await;
    assert_eq!(upstream.runs().await.len(), 2);
    world.close().await;
}

#[tokio::test]
async fn f22_a_process_that_was_lost_and_is_back_breaks_off_what_it_sent_before() {
    let world = world().await;
    let first = world.accept("one [[stub delay=4s]]").await;
    world.upstream.wait_for_runs(1).await;
    world.inbox.come_back();
    let detail = world.tried(first, 1).await;
    assert_eq!(detail.tries[0].result, "broken_off", "{detail:?}");
    world.wait_for_delivered(1).await;
    assert_eq!(world.upstream.runs().await.len(), 1, "it is run once");
    world.close().await;
}

#[tokio::test]
async fn f22_a_claim_whose_answer_came_after_the_process_was_lost_is_not_sent() {
    let world = world().await;
    world.inbox.answers_late.store(true, Ordering::SeqCst);
    let first = world.accept("one [[stub delay=10ms]]").await;
    let detail = world.tried(first, 1).await;
    let tried = &detail.tries[0];
    assert_eq!(tried.result, "broken_off", "{detail:?}");
    // The next attempt is in no doubt: it sends without asking first.
    world.wait_for_delivered(1).await;
    let requests = world.upstream.stats().await["requests"].clone();
    assert_eq!(requests, 1, "nobody is called for the first");
    world.close().await;
}
