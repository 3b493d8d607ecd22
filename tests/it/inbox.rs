//! The inbox's contract, run against every engine.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use sluicegate::attachment::{DRAWERS, Files, Folder};
use sluicegate::inbox::sqlite::{SqliteInbox, SqliteOptions};
use sluicegate::inbox::{
    Answer, Claimed, EventFilter, Inbox, InboxError, KeptAttachment, Next, SealedCall, Settled, Settlement,
    sweep::{sweep, sweep_drawer, sweep_files},
};
use sluicegate::model::{
    Accepted, Attachment, AttachmentId, Attempt, DeliveryId, Destination, EventId, Name, NewDelivery, NewEvent, Origin,
    Param, Params, State, Strength, Timestamp,
};
use uuid::Uuid;

/// An engine under test.
#[async_trait::async_trait]
trait Engine: Copy + Send + Sync {
    async fn open(self, path: &Path, batch: usize, queue: usize) -> Result<Arc<dyn Inbox>, InboxError>;
}

#[derive(Clone, Copy)]
struct Sqlite;

#[async_trait::async_trait]
impl Engine for Sqlite {
    async fn open(self, path: &Path, batch: usize, queue: usize) -> Result<Arc<dyn Inbox>, InboxError> {
        Ok(Arc::new(SqliteInbox::open(path, SqliteOptions { batch, queue }).await?))
    }
}

/// Runs the contract: the first list is the engines, the second the sentences.
macro_rules! contract {
    ($module:ident, $engine:expr, [$($name:ident),* $(,)?]) => {
        mod $module {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(World::new($engine).await).await;
            })*
        }
    };
}

contract!(
    sqlite,
    Sqlite,
    [
        an_event_reads_back_as_it_was_given,
        sixty_four_copies_at_once_are_one_event,
        an_event_that_will_not_wait_is_turned_away_while_its_lane_is_busy,
        whoever_waits_for_an_end_is_told_at_once,
        a_sealed_call_lasts_as_long_as_its_delivery,
        a_task_object_is_kept_whole_or_not_at_all,
        files_stay_with_their_event_and_then_for_their_time,
        files_without_an_event_stay_for_their_time,
        files_that_nothing_refers_to_are_swept,
        copies_from_different_sources_or_without_a_key_are_different_events,
        a_filtered_event_is_kept_and_owes_nothing,
        one_delivery_of_a_lane_is_in_flight,
        a_lane_keeps_its_order_across_retries,
        a_retry_holds_its_whole_lane_until_its_time,
        a_late_settlement_changes_nothing,
        a_settlement_of_an_earlier_life_of_the_lane_changes_nothing,
        a_released_delivery_gets_its_try_back,
        leases_that_nobody_took_come_back_by_themselves,
        what_was_accepted_outlives_a_crash_and_leases_come_back_with_doubt,
        tries_are_bounded_and_answers_are_kept,
        the_turn_before_is_found_with_its_answer,
        a_replay_is_a_new_delivery_behind_what_waits,
        a_cancelled_head_lets_the_next_go_at_once,
        pages_walk_every_event_once_newest_first,
        counts_add_up,
        a_sweep_leaves_what_is_owed_and_what_is_young,
        a_full_queue_refuses_with_a_time_to_come_back,
        a_second_opener_is_refused_until_the_first_has_closed,
        after_closing_everything_answers_closed,
        odd_text_reads_back_unchanged,
        news_and_the_next_due_time_follow_what_happens,
        random_walks_agree_with_a_plain_model,
    ]
);

struct World<E> {
    engine: E,
    folder: tempfile::TempDir,
    inbox: Option<Arc<dyn Inbox>>,
}

impl<E: Engine> World<E> {
    async fn new(engine: E) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self { engine, folder, inbox: None };
        world.start().await;
        world
    }

    async fn start(&mut self) {
        self.inbox = Some(self.again().await.unwrap());
    }

    async fn again(&self) -> Result<Arc<dyn Inbox>, InboxError> {
        self.engine.open(&self.folder.path().join("deep/inbox.db"), 64, 256).await
    }

    /// Ends without closing and starts again.
    async fn crash(&mut self) {
        self.inbox = None;
        self.start().await;
    }

    fn inbox(&self) -> &dyn Inbox {
        self.inbox.as_deref().unwrap()
    }

    async fn accept(&self, event: &NewEvent) {
        assert_eq!(self.inbox().accept(event.clone()).await.unwrap(), Accepted::New);
    }

    async fn claim(&self, now: i64) -> Vec<Claimed> {
        self.inbox().claim(100, at(now)).await.unwrap()
    }

    async fn claim_one(&self, now: i64) -> Claimed {
        let mut claimed = self.claim(now).await;
        assert_eq!(claimed.len(), 1, "one is due");
        claimed.remove(0)
    }

    async fn settle(&self, claimed: &Claimed, now: i64, next: Next) -> Settled {
        self.inbox().settle(settlement(claimed, now, next)).await.unwrap()
    }

    async fn state(&self, id: DeliveryId) -> State {
        let detail = self.inbox().event(id.event).await.unwrap().unwrap();
        detail.deliveries.iter().find(|delivery| delivery.id == id).unwrap().state
    }

    async fn counts(&self) -> BTreeMap<(String, &'static str), u64> {
        let counts = self.inbox().counts().await.unwrap();
        counts.into_iter().filter(|c| c.count > 0).map(|c| ((c.source, c.state.as_str()), c.count)).collect()
    }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn agent() -> Destination {
    "agent/a1".parse().unwrap()
}

/// An event with one delivery in the lane of `thread`.
fn event(thread: &str, now: i64) -> NewEvent {
    let upstream_id = agent().thread_id("triage", thread).to_string();
    NewEvent {
        id: EventId::new(),
        source: "triage".into(),
        dedup: None,
        event_type: Some("issues.opened".into()),
        received_at: at(now),
        strength: Strength::Signed,
        secret: Some("current".into()),
        filtered: None,
        thread: Some(thread.into()),
        params: Params::new(vec![Param {
            name: Name::Prompt,
            value: format!("{thread} at {now}"),
            origin: Origin::Query,
            over: vec![],
        }]),
        request_line: "POST /hooks/triage".into(),
        headers: vec![("x-event".into(), "issues".into())],
        body: format!("{{\"n\":{now}}}").into(),
        attachments: vec![],
        reject_if_busy: false,
        deliveries: vec![NewDelivery {
            destination: agent(),
            lane: agent().lane(&upstream_id),
            upstream_id,
            sealed: None,
        }],
    }
}

fn settlement(claimed: &Claimed, now: i64, next: Next) -> Settlement {
    Settlement {
        key: claimed.key,
        lane: claimed.lane,
        fence: claimed.fence,
        attempt: Attempt {
            number: claimed.attempt,
            started_at: at(now),
            ended_at: at(now),
            result: "refused".into(),
            status: Some(503),
            detail: "try again".into(),
        },
        next,
    }
}

fn done() -> Next {
    Next::Delivered(Answer { status: "completed".into(), result: Some("ok".into()), finished_at: None, task: None })
}

fn retry(millis: i64) -> Next {
    Next::Retry { at: at(millis), doubt: None, counted: true }
}

fn everything() -> EventFilter {
    EventFilter { limit: 200, ..EventFilter::default() }
}

async fn an_event_reads_back_as_it_was_given(world: World<impl Engine>) {
    let event = NewEvent { dedup: Some("d1".into()), ..event("t", 5) };
    world.accept(&event).await;
    let detail = world.inbox().event(event.id).await.unwrap().unwrap();
    assert_eq!(detail.summary.id, event.id);
    assert_eq!(detail.summary.source, event.source);
    assert_eq!(detail.summary.dedup, event.dedup);
    assert_eq!(detail.summary.event_type, event.event_type);
    assert_eq!(detail.summary.thread, event.thread);
    assert_eq!(detail.summary.received_at, event.received_at);
    assert_eq!(detail.summary.states, [State::Pending]);
    assert_eq!((detail.strength.as_str(), detail.secret), ("signed", event.secret));
    assert_eq!((detail.params, detail.headers), (event.params.clone(), event.headers.clone()));
    assert_eq!((detail.request_line, detail.body), (event.request_line, event.body.clone()));
    assert_eq!(detail.deliveries[0].due, Some(at(5)));
    assert!(world.inbox().event(EventId::new()).await.unwrap().is_none());

    let claimed = world.claim_one(5).await;
    assert_eq!(claimed.id, DeliveryId { event: event.id, number: 0 });
    assert_eq!((claimed.destination, claimed.upstream_id), (agent(), event.deliveries[0].upstream_id.clone()));
    assert_eq!((claimed.attempt, claimed.doubt, claimed.source.as_str()), (1, None, "triage"));
    assert_eq!((claimed.params, claimed.headers, claimed.body), (event.params, event.headers, event.body));
}

/// T50
async fn sixty_four_copies_at_once_are_one_event(world: World<impl Engine>) {
    let inbox = world.inbox.clone().unwrap();
    let copies = (0..64).map(|n| {
        let event = NewEvent { dedup: Some("same".into()), ..event("t", n) };
        let inbox = Arc::clone(&inbox);
        tokio::spawn(async move { (event.id, inbox.accept(event).await.unwrap()) })
    });
    let mut first = BTreeSet::new();
    let mut duplicates = BTreeSet::new();
    for copy in copies.collect::<Vec<_>>() {
        match copy.await.unwrap() {
            (id, Accepted::New) => first.insert(id),
            (_, Accepted::Duplicate(id)) => duplicates.insert(id),
            (_, Accepted::Busy) => panic!("nobody asked for that"),
        };
    }
    assert_eq!(first.len(), 1);
    assert_eq!(first, duplicates, "a duplicate is told the first one's id");
    assert_eq!(world.inbox().events(&everything()).await.unwrap().items.len(), 1);
    assert_eq!(world.counts().await.into_values().sum::<u64>(), 1);
}

async fn an_event_that_will_not_wait_is_turned_away_while_its_lane_is_busy(world: World<impl Engine>) {
    let hasty = |now| NewEvent { reject_if_busy: true, dedup: Some(format!("d{now}")), ..event("a", now) };
    let first = hasty(1);
    world.accept(&first).await;
    assert_eq!(world.inbox().accept(hasty(2)).await.unwrap(), Accepted::Busy, "one waits");
    let claimed = world.claim_one(2).await;
    assert_eq!(world.inbox().accept(hasty(3)).await.unwrap(), Accepted::Busy, "one is in flight");
    let again = NewEvent { id: EventId::new(), ..first.clone() };
    assert_eq!(world.inbox().accept(again).await.unwrap(), Accepted::Duplicate(first.id), "a double first of all");
    assert_eq!(world.inbox().accept(NewEvent { reject_if_busy: true, ..event("b", 3) }).await.unwrap(), Accepted::New);
    world.settle(&claimed, 4, done()).await;
    assert_eq!(world.inbox().accept(hasty(3)).await.unwrap(), Accepted::New, "what was turned away was not kept");
    assert_eq!(world.inbox().events(&everything()).await.unwrap().items.len(), 3);
}

async fn whoever_waits_for_an_end_is_told_at_once(world: World<impl Engine>) {
    let inbox = world.inbox.clone().unwrap();
    let wait = |id: DeliveryId| {
        let inbox = Arc::clone(&inbox);
        tokio::spawn(async move { inbox.ended(id).await.unwrap().map(|delivery| delivery.state) })
    };
    let nobody = DeliveryId { event: EventId::new(), number: 0 };
    assert_eq!(wait(nobody).await.unwrap(), None);
    for next in [done(), Next::Dead(None), Next::Unknown] {
        let event = event("a", 1);
        world.accept(&event).await;
        let id = DeliveryId { event: event.id, number: 0 };
        let (first, second) = (wait(id), wait(id));
        let claimed = world.claim_one(1).await;
        world.settle(&claimed, 1, retry(1)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!first.is_finished(), "a retry is no end");
        let begun = Instant::now();
        world.settle(&world.claim_one(1).await, 2, next).await;
        let ends = (first.await.unwrap(), second.await.unwrap());
        assert!(begun.elapsed() < Duration::from_millis(500), "told, and not found by looking");
        let state = world.state(id).await;
        assert_eq!(ends, (Some(state), Some(state)));
        assert_eq!(wait(id).await.unwrap(), Some(state), "afterwards too");
    }
    let called_off = event("b", 1);
    world.accept(&called_off).await;
    let id = DeliveryId { event: called_off.id, number: 0 };
    let waiting = wait(id);
    world.inbox().cancel(id, at(2)).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Some(State::Cancelled));
}

async fn a_sealed_call_lasts_as_long_as_its_delivery(world: World<impl Engine>) {
    let sealed = |thread: &str| {
        let mut event = event(thread, 1);
        event.deliveries[0].sealed = Some("closed".into());
        event
    };
    let kept = async |id: EventId| {
        let detail = world.inbox().event(id).await.unwrap().unwrap();
        detail.deliveries.iter().map(|delivery| delivery.sealed).collect::<Vec<_>>()
    };
    let plain = event("p", 1);
    world.accept(&plain).await;
    assert_eq!(kept(plain.id).await, [SealedCall::None]);
    world.settle(&world.claim_one(1).await, 1, done()).await;
    for (next, wanted) in
        [(done(), SealedCall::Erased), (Next::Dead(None), SealedCall::Erased), (Next::Unknown, SealedCall::Kept)]
    {
        let event = sealed("a");
        world.accept(&event).await;
        let claimed = world.claim_one(1).await;
        assert_eq!(claimed.sealed.as_deref(), Some(&b"closed"[..]));
        world.settle(&claimed, 1, retry(1)).await;
        assert_eq!(kept(event.id).await, [SealedCall::Kept]);
        world.settle(&world.claim_one(1).await, 1, next).await;
        assert_eq!(kept(event.id).await, [wanted]);
        if wanted == SealedCall::Kept {
            let to = vec![NewDelivery { sealed: None, ..event.deliveries[0].clone() }];
            world.inbox().replay(event.id, to, at(2)).await.unwrap().unwrap();
            assert_eq!(kept(event.id).await, [SealedCall::Erased, SealedCall::Kept], "it goes along");
            assert_eq!(world.claim_one(2).await.sealed.as_deref(), Some(&b"closed"[..]));
        }
    }
    let called_off = sealed("c");
    world.accept(&called_off).await;
    world.inbox().cancel(DeliveryId { event: called_off.id, number: 0 }, at(2)).await.unwrap();
    assert_eq!(kept(called_off.id).await, [SealedCall::Erased]);
}

async fn a_task_object_is_kept_whole_or_not_at_all(world: World<impl Engine>) {
    for (size, whole) in [(1 << 20, true), ((1 << 20) + 1, false)] {
        let event = event("a", 1);
        world.accept(&event).await;
        let task = bytes::Bytes::from(vec![b'7'; size]);
        let answer = Answer { status: "completed".into(), result: None, finished_at: None, task: Some(task.clone()) };
        world.settle(&world.claim_one(1).await, 1, Next::Delivered(answer)).await;
        let ended = world.inbox().ended(DeliveryId { event: event.id, number: 0 }).await.unwrap().unwrap();
        assert_eq!(ended.answer.unwrap().task, whole.then_some(task));
    }
}

fn file(name: &str, expires: i64) -> Attachment {
    let id = AttachmentId::new();
    Attachment {
        id,
        name: name.into(),
        content_type: "text/plain".into(),
        size: 1 << 40,
        sha256: [9; 32],
        key: id.key(name),
        expires_at: at(expires),
    }
}

async fn files_stay_with_their_event_and_then_for_their_time(world: World<impl Engine>) {
    let inbox = world.inbox();
    let attachments = vec![file("b\"é.txt", 50), file("a", 50)];
    let event = NewEvent { attachments: attachments.clone(), ..event("t", 1) };
    world.accept(&event).await;
    assert_eq!(inbox.event(event.id).await.unwrap().unwrap().attachments, attachments, "in their order");
    let claimed = world.claim_one(1).await;
    assert_eq!(claimed.attachments, attachments);
    let one = inbox.attachment(attachments[0].id).await.unwrap();
    let kept = KeptAttachment { attachment: attachments[0].clone(), source: "triage".into(), event: Some(event.id) };
    assert_eq!(one, Some(kept));
    assert_eq!(inbox.attachment(AttachmentId::new()).await.unwrap(), None);
    assert_eq!(inbox.attachments_gone(at(1000), 9).await.unwrap(), [], "an event refers to them");
    inbox.extend_attachments(event.id, at(100)).await.unwrap();
    inbox.extend_attachments(event.id, at(60)).await.unwrap();
    world.settle(&claimed, 2, done()).await;
    assert_eq!(sweep(inbox, Duration::ZERO, at(3)).await.unwrap(), 1);
    assert_eq!(inbox.attachments_gone(at(100), 9).await.unwrap(), [], "somebody has a link");
    let gone = inbox.attachments_gone(at(101), 9).await.unwrap();
    assert_eq!(
        gone.iter().map(|file| file.id).collect::<Vec<_>>(),
        attachments.iter().map(|file| file.id).collect::<Vec<_>>()
    );
    assert_eq!(inbox.attachment(gone[0].id).await.unwrap().unwrap().event, None);
    assert_eq!(inbox.forget_attachments(vec![gone[0].id, AttachmentId::new()]).await.unwrap(), 1);
    let known = inbox.attachments_known(gone.iter().map(|file| file.id).collect()).await.unwrap();
    assert_eq!(known, [gone[1].id]);
}

async fn files_without_an_event_stay_for_their_time(world: World<impl Engine>) {
    let inbox = world.inbox();
    let all: Vec<Attachment> = (0..5).map(|n| file(&n.to_string(), 10 + n)).collect();
    inbox.keep_attachments("dropin", all.clone()).await.unwrap();
    assert_eq!(inbox.attachments_gone(at(12), 9).await.unwrap(), all[..2]);
    assert_eq!(inbox.attachments_gone(at(99), 1).await.unwrap(), all[..1]);
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let page = inbox.attachments(cursor, 2).await.unwrap();
        seen.extend(page.items.into_iter().map(|kept| (kept.attachment, kept.source, kept.event)));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let wanted: Vec<_> = all.into_iter().rev().map(|file| (file, "dropin".to_owned(), None)).collect();
    assert_eq!(seen, wanted, "newest first, each once");
}

async fn files_that_nothing_refers_to_are_swept(world: World<impl Engine>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Folder::open(folder.path()).unwrap());
    let files = Files::new(store, None, false, Duration::from_secs(9), 4);
    let mut made = Vec::new();
    for expires in [10, 1000, 1000] {
        let mut incoming = files.begin("a.txt", None).await.unwrap();
        incoming.take("x".into()).await.unwrap();
        made.push(incoming.end(at(expires)).await.unwrap().place().await.unwrap());
    }
    world.inbox().keep_attachments("s", made[..2].to_vec()).await.unwrap();
    assert_eq!(sweep_files(world.inbox(), &files, at(500)).await.unwrap(), 1, "its time is over");
    let mut orphans = 0;
    for drawer in 0..DRAWERS {
        assert_eq!(sweep_drawer(world.inbox(), &files, drawer, at(1)).await.unwrap(), 0, "too young");
        let later = Timestamp::from_seconds(i64::MAX / 2000);
        orphans += sweep_drawer(world.inbox(), &files, drawer, later).await.unwrap();
    }
    assert_eq!(orphans, 1, "what the inbox knows nothing of");
    assert!(files.open(&made[0].key, 0..1).await.is_err() && files.open(&made[2].key, 0..1).await.is_err());
    assert!(files.open(&made[1].key, 0..1).await.is_ok());
}

async fn copies_from_different_sources_or_without_a_key_are_different_events(world: World<impl Engine>) {
    let keyed = NewEvent { dedup: Some("k".into()), ..event("t", 1) };
    world.accept(&keyed).await;
    world.accept(&NewEvent { source: "other".into(), dedup: Some("k".into()), ..event("t", 1) }).await;
    world.accept(&event("t", 1)).await;
    world.accept(&event("t", 1)).await;
    let again = world.inbox().accept(keyed.clone()).await.unwrap();
    assert_eq!(again, Accepted::Duplicate(keyed.id), "the same event, its first answer lost");
}

async fn a_filtered_event_is_kept_and_owes_nothing(world: World<impl Engine>) {
    let event = NewEvent { filtered: Some("events".into()), deliveries: vec![], ..event("t", 1) };
    world.accept(&event).await;
    assert!(world.claim(9).await.is_empty());
    let only = EventFilter { filtered: Some(true), ..everything() };
    assert_eq!(world.inbox().events(&only).await.unwrap().items[0].filtered.as_deref(), Some("events"));
    let passed = EventFilter { filtered: Some(false), ..everything() };
    assert!(world.inbox().events(&passed).await.unwrap().items.is_empty());
}

async fn one_delivery_of_a_lane_is_in_flight(world: World<impl Engine>) {
    for n in 0..3 {
        world.accept(&event("a", n)).await;
        world.accept(&event("b", n)).await;
    }
    assert_eq!(world.claim(9).await.len(), 2, "one a lane");
    assert!(world.claim(9).await.is_empty(), "both lanes are taken");
    assert_eq!(world.inbox().next_due().await.unwrap(), None);
}

async fn a_lane_keeps_its_order_across_retries(world: World<impl Engine>) {
    let events: Vec<_> = (0..4).map(|n| event("a", n)).collect();
    for event in &events {
        world.accept(event).await;
    }
    for (n, event) in events.iter().enumerate() {
        for attempt in 1..=2 {
            let claimed = world.claim_one(100).await;
            assert_eq!(claimed.id.event, event.id, "turn {n}");
            assert_eq!(claimed.attempt, attempt);
            let next = if attempt == 1 { retry(50) } else { done() };
            assert_eq!(world.settle(&claimed, 100, next).await, Settled::Done);
        }
    }
    assert!(world.claim(1000).await.is_empty());
}

async fn a_retry_holds_its_whole_lane_until_its_time(world: World<impl Engine>) {
    let first = event("a", 1);
    world.accept(&first).await;
    world.settle(&world.claim_one(1).await, 2, retry(500)).await;
    world.accept(&event("a", 3)).await;
    assert!(world.claim(499).await.is_empty());
    assert_eq!(world.inbox().next_due().await.unwrap(), Some(at(500)));
    assert_eq!(world.claim_one(500).await.id.event, first.id);
}

/// F21
async fn a_late_settlement_changes_nothing(world: World<impl Engine>) {
    world.accept(&event("a", 1)).await;
    let late = world.claim_one(1).await;
    world.settle(&late, 1, Next::Released { doubt: None }).await;
    let current = world.claim_one(2).await;
    assert_eq!(current.key, late.key);
    assert_eq!(world.settle(&late, 3, done()).await, Settled::Stale);
    assert_eq!(world.state(late.id).await, State::Leased);
    assert_eq!(world.settle(&current, 3, done()).await, Settled::Done);
    assert_eq!(world.settle(&current, 3, done()).await, Settled::Stale, "not twice either");
    assert_eq!(world.counts().await, BTreeMap::from([(("triage".into(), "delivered"), 1)]));
}

async fn a_settlement_of_an_earlier_life_of_the_lane_changes_nothing(world: World<impl Engine>) {
    world.accept(&event("a", 1)).await;
    let earlier = world.claim_one(1).await;
    world.settle(&earlier, 1, done()).await;
    world.accept(&event("a", 2)).await;
    let later = world.claim_one(2).await;
    assert_eq!(later.lane, earlier.lane);
    assert_eq!(world.settle(&earlier, 3, retry(3)).await, Settled::Stale);
    assert_eq!(world.state(later.id).await, State::Leased);
    assert_eq!(world.state(earlier.id).await, State::Delivered);
}

async fn a_released_delivery_gets_its_try_back(world: World<impl Engine>) {
    world.accept(&event("a", 1)).await;
    let claimed = world.claim_one(1).await;
    world.settle(&claimed, 1, Next::Released { doubt: claimed.doubt }).await;
    let again = world.claim_one(1).await;
    assert_eq!((again.attempt, again.doubt), (1, None));
    world.settle(&again, 2, Next::Retry { at: at(3), doubt: Some(at(1)), counted: true }).await;
    assert_eq!(world.claim_one(3).await.doubt, Some(at(1)));
}

async fn leases_that_nobody_took_come_back_by_themselves(world: World<impl Engine>) {
    for n in 0..20 {
        world.accept(&event(&n.to_string(), n)).await;
    }
    let inbox = world.inbox.clone().unwrap();
    for round in 0..60_u32 {
        // Given up at another moment each time: before, during and after the commit, and while reading.
        let mut claim = inbox.claim(100, at(50));
        let mut all = Vec::new();
        for _ in 0..=round % 3 {
            let polled = std::future::poll_fn(|context| Poll::Ready(claim.as_mut().poll(context))).await;
            if let Poll::Ready(claimed) = polled {
                all.extend(claimed.unwrap());
                break;
            }
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_micros(u64::from(round) * 30) {
                tokio::task::yield_now().await;
            }
        }
        drop(claim);
        for _ in 0..400 {
            all.extend(world.claim(50).await);
            if all.len() == 20 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(all.len(), 20, "all come back in round {round}");
        for claimed in all {
            assert_eq!((claimed.attempt, claimed.doubt), (1, None), "as if it had not been claimed");
            world.settle(&claimed, 50, Next::Released { doubt: None }).await;
        }
    }
}

/// F1
async fn what_was_accepted_outlives_a_crash_and_leases_come_back_with_doubt(mut world: World<impl Engine>) {
    let (sent, waits) = (event("a", 1), event("b", 2));
    world.accept(&sent).await;
    let before = world.claim_one(1).await;
    world.accept(&waits).await;
    world.accept(&event("a", 3)).await;
    world.crash().await;

    let claimed = world.claim(9).await;
    assert_eq!(claimed.iter().map(|c| c.id.event).collect::<Vec<_>>(), [sent.id, waits.id]);
    assert_eq!((claimed[0].doubt, claimed[0].attempt), (Some(at(1)), 2), "it may have run");
    assert_eq!((claimed[1].doubt, claimed[1].attempt), (None, 1));
    assert_eq!(world.settle(&before, 9, done()).await, Settled::Stale);
    let counts = [(("triage".into(), "leased"), 2), (("triage".into(), "pending"), 1)];
    assert_eq!(world.counts().await, BTreeMap::from(counts));
}

async fn tries_are_bounded_and_answers_are_kept(world: World<impl Engine>) {
    let event = event("a", 1);
    world.accept(&event).await;
    for now in 1..=60 {
        world.settle(&world.claim_one(now).await, now, retry(now)).await;
    }
    let answer = Answer {
        status: "failed".into(),
        result: Some("é".repeat(200_000)),
        finished_at: Some("x".into()),
        task: None,
    };
    world.settle(&world.claim_one(61).await, 61, Next::Dead(Some(answer))).await;
    let detail = world.inbox().event(event.id).await.unwrap().unwrap();
    let delivery = &detail.deliveries[0];
    assert_eq!((delivery.state, delivery.attempts, delivery.due), (State::Dead, 61, None));
    assert_eq!(delivery.tries.len(), 50);
    assert_eq!(delivery.tries.iter().map(|t| t.number).collect::<Vec<_>>(), (12..=61).collect::<Vec<_>>());
    let answer = delivery.answer.as_ref().unwrap();
    assert_eq!((answer.status.as_str(), answer.finished_at.as_deref()), ("failed", Some("x")));
    let result = answer.result.as_ref().unwrap();
    assert!(result.len() <= 256 << 10 && result.chars().all(|c| c == 'é'), "cut between characters");
}

async fn the_turn_before_is_found_with_its_answer(world: World<impl Engine>) {
    let first = event("a", 1);
    world.accept(&first).await;
    let claimed = world.claim_one(1).await;
    assert_eq!(world.inbox().earlier_turn(&claimed).await.unwrap(), None);
    world.settle(&claimed, 1, done()).await;

    let called_off = event("a", 2);
    world.accept(&called_off).await;
    world.inbox().cancel(DeliveryId { event: called_off.id, number: 0 }, at(2)).await.unwrap();
    world.accept(&event("a", 3)).await;
    let turn = world.inbox().earlier_turn(&world.claim_one(3).await).await.unwrap().unwrap();
    assert_eq!((turn.params, turn.headers, turn.body), (first.params, first.headers, first.body));
    assert_eq!(turn.answer.unwrap().result.as_deref(), Some("ok"));

    let mut alone = event("b", 4);
    let id = DeliveryId { event: alone.id, number: 0 }.as_uuid().to_string();
    alone.deliveries[0] = NewDelivery { destination: agent(), lane: agent().lane(&id), upstream_id: id, sealed: None };
    world.accept(&alone).await;
    assert_eq!(world.inbox().earlier_turn(&world.claim_one(4).await).await.unwrap(), None);
}

async fn a_replay_is_a_new_delivery_behind_what_waits(world: World<impl Engine>) {
    let (first, second) = (event("a", 1), event("a", 2));
    world.accept(&first).await;
    world.settle(&world.claim_one(1).await, 1, Next::Dead(None)).await;
    world.accept(&second).await;
    let ids = world.inbox().replay(first.id, first.deliveries.clone(), at(3)).await.unwrap().unwrap();
    assert_eq!(ids, [DeliveryId { event: first.id, number: 1 }]);
    let claimed = world.claim_one(9).await;
    assert_eq!(claimed.id.event, second.id);
    world.settle(&claimed, 9, done()).await;
    let again = world.claim_one(9).await;
    assert_eq!((again.id, again.attempt), (ids[0], 1));
    let detail = world.inbox().event(first.id).await.unwrap().unwrap();
    assert_eq!(detail.summary.states, [State::Dead, State::Leased], "the old one stays as it was");
    assert_eq!(world.inbox().replay(EventId::new(), vec![], at(3)).await.unwrap(), None);
}

async fn a_cancelled_head_lets_the_next_go_at_once(world: World<impl Engine>) {
    let (first, second) = (event("a", 1), event("a", 2));
    world.accept(&first).await;
    world.accept(&second).await;
    let claimed = world.claim_one(2).await;
    assert!(!world.inbox().cancel(claimed.id, at(2)).await.unwrap(), "it is in flight");
    world.settle(&claimed, 2, retry(1_000_000)).await;
    assert!(world.inbox().cancel(claimed.id, at(3)).await.unwrap());
    assert!(!world.inbox().cancel(claimed.id, at(3)).await.unwrap(), "only once");
    let next = world.claim_one(3).await;
    assert_eq!(next.id.event, second.id);
    world.settle(&next, 3, retry(4)).await;
    assert!(world.inbox().cancel(next.id, at(4)).await.unwrap());
    assert_eq!(world.inbox().next_due().await.unwrap(), None, "a lane without work is gone");
    let unknown = DeliveryId { event: EventId::new(), number: 0 };
    assert!(!world.inbox().cancel(unknown, at(4)).await.unwrap());
}

async fn pages_walk_every_event_once_newest_first(world: World<impl Engine>) {
    let mut all = Vec::new();
    for n in 0..25 {
        let source = if n % 5 == 0 { "rare" } else { "triage" };
        let event = NewEvent { source: source.into(), ..event(&n.to_string(), n * 1000) };
        world.accept(&event).await;
        all.push(event.id);
    }
    for claimed in world.inbox().claim(3, at(i64::MAX)).await.unwrap() {
        world.settle(&claimed, 1, if claimed.received_at == at(1000) { Next::Unknown } else { done() }).await;
    }
    let walk = async |filter: EventFilter| {
        let (mut seen, mut filter) = (Vec::new(), filter);
        loop {
            let page = world.inbox().events(&filter).await.unwrap();
            assert!(page.items.len() <= filter.limit);
            seen.extend(page.items.iter().map(|event| event.received_at.seconds()));
            filter.cursor = page.next;
            if page.next.is_none() {
                return seen;
            }
        }
    };
    let page = EventFilter { limit: 4, ..EventFilter::default() };
    assert_eq!(walk(page.clone()).await, (0..25).rev().collect::<Vec<_>>());
    assert_eq!(walk(EventFilter { source: Some("rare".into()), ..page.clone() }).await, [20, 15, 10, 5, 0]);
    assert_eq!(walk(EventFilter { state: Some(State::Delivered), ..page.clone() }).await, [2, 0]);
    assert_eq!(walk(EventFilter { state: Some(State::Unknown), ..page.clone() }).await, [1]);
    let pending = EventFilter { state: Some(State::Pending), source: Some("rare".into()), ..page.clone() };
    assert_eq!(walk(pending).await, [20, 15, 10, 5]);
    world.inbox().replay(all[1], event("1", 1).deliveries, at(1)).await.unwrap();
    world.inbox().replay(all[1], event("1", 1).deliveries, at(1)).await.unwrap();
    let twice = EventFilter { state: Some(State::Pending), until: Some(at(2000)), limit: 1, ..page.clone() };
    assert_eq!(walk(twice).await, [1], "once, though it is owed twice");
    let between = EventFilter { since: Some(at(7000)), until: Some(at(9000)), ..page.clone() };
    assert_eq!(walk(between).await, [8, 7]);
    for odd in [i64::MIN, -1, 0] {
        assert!(walk(EventFilter { cursor: Some(odd), ..page.clone() }).await.is_empty());
    }
    let edges = EventFilter { since: Some(at(i64::MIN)), until: Some(at(i64::MAX)), limit: 0, ..page };
    assert_eq!(world.inbox().events(&edges).await.unwrap().items.len(), 1);
}

async fn counts_add_up(world: World<impl Engine>) {
    for n in 0..6 {
        world.accept(&event(&n.to_string(), n)).await;
    }
    let ends = [done(), Next::Dead(None), Next::Unknown, retry(100), Next::Released { doubt: None }];
    let claimed = world.inbox().claim(5, at(9)).await.unwrap();
    for (claimed, next) in claimed.iter().zip(ends) {
        world.settle(claimed, 200, next).await;
    }
    world.inbox().cancel(claimed[4].id, at(200)).await.unwrap();
    world.inbox().claim(1, at(150)).await.unwrap();
    let want = [("cancelled", 1), ("dead", 1), ("delivered", 1), ("leased", 1), ("pending", 1), ("unknown", 1)];
    let want = want.map(|(state, count)| (("triage".to_owned(), state), count));
    assert_eq!(world.counts().await, BTreeMap::from(want));
}

async fn a_sweep_leaves_what_is_owed_and_what_is_young(world: World<impl Engine>) {
    for n in 0..450 {
        world.accept(&event(&n.to_string(), n)).await;
    }
    let mut claimed = Vec::new();
    while claimed.len() < 440 {
        claimed.extend(world.claim(1000).await);
    }
    for claimed in claimed.iter().filter(|claimed| claimed.received_at.millis() % 10 != 0) {
        world.settle(claimed, 1000, done()).await;
    }
    let replayed = claimed.iter().find(|claimed| claimed.received_at == at(11)).unwrap();
    let to = event("11", 11).deliveries;
    world.inbox().replay(replayed.id.event, to, at(1000)).await.unwrap();
    assert_eq!(world.inbox().sweep(at(400), 7).await.unwrap(), 7, "no more than asked for");
    let gone = sweep(world.inbox(), Duration::from_millis(600), at(1000)).await.unwrap();
    assert_eq!(gone + 7, 400 - 40 - 1);
    let left = world.inbox().events(&everything()).await.unwrap().items;
    assert_eq!(left.len(), 450 - 359);
    assert!(left.iter().any(|event| event.id == replayed.id.event));
    assert_eq!(sweep(world.inbox(), Duration::from_millis(600), at(1000)).await.unwrap(), 0);
}

/// T42
async fn a_full_queue_refuses_with_a_time_to_come_back(world: World<impl Engine>) {
    let inbox = world.engine.open(&world.folder.path().join("small.db"), 1, 1).await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..200 {
        let inbox = Arc::clone(&inbox);
        tasks.push(tokio::spawn(async move { inbox.accept(event("a", n)).await }));
    }
    let (mut kept, mut refused) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => kept += 1,
            Err(InboxError::Full(wait)) => {
                assert!(wait >= Duration::from_secs(1) && wait < Duration::from_secs(3));
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(kept > 0 && refused > 0, "{kept} kept, {refused} refused");
    let there = inbox.events(&everything()).await.unwrap().items.len();
    assert_eq!(there, kept, "what was refused is not there");
}

async fn a_second_opener_is_refused_until_the_first_has_closed(world: World<impl Engine>) {
    let error = world.again().await.err().unwrap();
    assert!(error.to_string().contains("another process"), "{error}");
    world.accept(&event("a", 1)).await;
    world.inbox().close().await;
    let next = world.again().await.unwrap();
    assert_eq!(next.events(&everything()).await.unwrap().items.len(), 1);
}

async fn after_closing_everything_answers_closed(world: World<impl Engine>) {
    let inbox = world.inbox.clone().unwrap();
    let before = tokio::spawn({
        let inbox = Arc::clone(&inbox);
        async move { inbox.accept(event("a", 1)).await }
    });
    before.await.unwrap().unwrap();
    inbox.close().await;
    inbox.close().await;
    assert!(matches!(inbox.accept(event("a", 1)).await, Err(InboxError::Closed)));
    assert!(matches!(inbox.claim(1, at(1)).await, Err(InboxError::Closed)));
    assert!(matches!(inbox.counts().await, Err(InboxError::Closed)));
    assert!(matches!(inbox.ready().await, Err(InboxError::Closed)));
    let failed = tokio::time::timeout(Duration::from_millis(20), inbox.failed()).await;
    assert!(failed.is_err(), "closing is no failure");
}

/// T62, T63
async fn odd_text_reads_back_unchanged(world: World<impl Engine>) {
    let odd = ["\0", "a\0b", "\u{feff}\u{202e}", "e\u{301}", "é", "👩‍👩‍👧", "'; DROP TABLE event; --", "\\u0000", ""];
    for text in odd {
        let mut event = event(text, 1);
        event.dedup = Some(text.into());
        event.event_type = Some(text.into());
        event.headers = vec![(text.into(), text.into())];
        event.body = bytes::Bytes::from_static(&[0, 255, 254, 0]);
        event.params =
            Params::new(vec![Param { name: Name::Prompt, value: text.into(), origin: Origin::Query, over: vec![] }]);
        world.accept(&event).await;
        let detail = world.inbox().event(event.id).await.unwrap().unwrap();
        assert_eq!((detail.summary.dedup, detail.summary.thread), (Some(text.into()), Some(text.into())));
        assert_eq!((detail.params, detail.headers, detail.body), (event.params, event.headers, event.body));
    }
}

async fn news_and_the_next_due_time_follow_what_happens(world: World<impl Engine>) {
    let soon = async || tokio::time::timeout(Duration::from_secs(2), world.inbox().news()).await.is_ok();
    world.accept(&event("a", 7)).await;
    assert!(soon().await, "told although nobody was waiting");
    assert_eq!(world.inbox().next_due().await.unwrap(), Some(at(7)));
    assert!(world.claim(6).await.is_empty(), "not before its time");
    let claimed = world.claim_one(7).await;
    world.settle(&claimed, 8, retry(20)).await;
    assert!(soon().await);
    assert_eq!(world.inbox().next_due().await.unwrap(), Some(at(20)));
    world.inbox().ready().await.unwrap();
}

/// What a lane is, in a few lines: a queue whose head may be leased.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Owed>,
    leased: bool,
    ready_at: i64,
}

struct Owed {
    id: DeliveryId,
    attempts: u32,
    doubt: Option<i64>,
}

/// Random verbs, crashes among them, against lanes as plain queues.
async fn random_walks_agree_with_a_plain_model(mut world: World<impl Engine>) {
    let mut random = fastrand::Rng::with_seed(7);
    let mut lanes: HashMap<Uuid, Lane> = HashMap::new();
    let mut flying: Vec<Claimed> = Vec::new();
    let mut over: Vec<Claimed> = Vec::new();
    let mut known: HashMap<DeliveryId, State> = HashMap::new();
    let mut events: Vec<NewEvent> = Vec::new();
    for now in 1..1500_i64 {
        match random.u32(..100) {
            0..35 => {
                let event = event(&random.u32(..6).to_string(), now);
                world.accept(&event).await;
                owe(&mut lanes, &mut known, DeliveryId { event: event.id, number: 0 }, event.deliveries[0].lane, now);
                events.push(event);
            }
            35..60 => {
                let limit = random.usize(1..4);
                let claimed = world.inbox().claim(limit, at(now)).await.unwrap();
                let due = lanes.values().filter(|lane| !lane.leased && lane.ready_at <= now).count();
                assert_eq!(claimed.len(), due.min(limit), "at {now}");
                for claimed in claimed {
                    let lane = lanes.get_mut(&claimed.lane).unwrap();
                    assert!(!lane.leased && lane.ready_at <= now);
                    lane.leased = true;
                    let head = lane.waiting.front_mut().unwrap();
                    head.attempts += 1;
                    assert_eq!((claimed.id, claimed.attempt), (head.id, head.attempts), "at {now}");
                    assert_eq!(claimed.doubt.map(Timestamp::millis), head.doubt, "at {now}");
                    head.doubt = head.doubt.or(Some(now));
                    known.insert(claimed.id, State::Leased);
                    flying.push(claimed);
                }
            }
            60..85 if !flying.is_empty() => {
                let claimed = flying.swap_remove(random.usize(..flying.len()));
                let later = now + random.i64(..30);
                let (next, state) = match random.u32(..5) {
                    0 | 1 => (done(), State::Delivered),
                    2 => (Next::Dead(None), State::Dead),
                    3 => (Next::Retry { at: at(later), doubt: Some(at(now)), counted: true }, State::Pending),
                    _ => (Next::Released { doubt: claimed.doubt }, State::Pending),
                };
                let lane = lanes.get_mut(&claimed.lane).unwrap();
                lane.leased = false;
                lane.ready_at = now;
                let head = lane.waiting.front_mut().unwrap();
                match &next {
                    Next::Retry { .. } => {
                        head.doubt = Some(now);
                        lane.ready_at = later;
                    }
                    Next::Released { doubt } => {
                        head.attempts -= 1;
                        head.doubt = doubt.map(Timestamp::millis);
                    }
                    _ => drop(lane.waiting.pop_front()),
                }
                if lane.waiting.is_empty() {
                    lanes.remove(&claimed.lane);
                }
                known.insert(claimed.id, state);
                assert_eq!(world.settle(&claimed, now, next).await, Settled::Done);
                over.push(claimed);
            }
            85..90 if !over.is_empty() => {
                let late = &over[random.usize(..over.len())];
                assert_eq!(world.settle(late, now, done()).await, Settled::Stale, "at {now}");
            }
            90..95 if !events.is_empty() => {
                let id = DeliveryId { event: events[random.usize(..events.len())].id, number: 0 };
                let pending = known[&id] == State::Pending;
                assert_eq!(world.inbox().cancel(id, at(now)).await.unwrap(), pending, "at {now}");
                if pending {
                    known.insert(id, State::Cancelled);
                    for lane in lanes.values_mut() {
                        if !lane.leased && lane.waiting.front().is_some_and(|head| head.id == id) {
                            lane.ready_at = lane.ready_at.min(now);
                        }
                        lane.waiting.retain(|owed| owed.id != id);
                    }
                    lanes.retain(|_, lane| !lane.waiting.is_empty());
                }
            }
            95..99 if !events.is_empty() => {
                let event = &events[random.usize(..events.len())];
                let ids = world.inbox().replay(event.id, event.deliveries.clone(), at(now)).await.unwrap().unwrap();
                owe(&mut lanes, &mut known, ids[0], event.deliveries[0].lane, now);
            }
            99 => {
                world.crash().await;
                over.append(&mut flying);
                for lane in lanes.values_mut().filter(|lane| lane.leased) {
                    lane.leased = false;
                    known.insert(lane.waiting[0].id, State::Pending);
                }
            }
            _ => {}
        }
        let due = lanes.values().filter(|lane| !lane.leased).map(|lane| at(lane.ready_at)).min();
        assert_eq!(world.inbox().next_due().await.unwrap(), due, "at {now}");
    }
    for (id, state) in &known {
        assert_eq!(world.state(*id).await, *state);
    }
    let mut sums: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    for state in known.values() {
        *sums.entry(("triage".into(), state.as_str())).or_default() += 1;
    }
    assert_eq!(world.counts().await, sums);
}

fn owe(lanes: &mut HashMap<Uuid, Lane>, known: &mut HashMap<DeliveryId, State>, id: DeliveryId, lane: Uuid, now: i64) {
    known.insert(id, State::Pending);
    let lane = lanes.entry(lane).or_insert_with(|| Lane { ready_at: now, ..Lane::default() });
    lane.waiting.push_back(Owed { id, attempts: 0, doubt: None });
}
