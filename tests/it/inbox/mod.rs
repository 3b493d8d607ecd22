//! The inbox's contract, run against every engine. A file for each noun of it; the list at the end says what is run.

mod attachment;
mod end;
mod fair;
mod job;
mod keep;
mod lease;
mod list;
mod operator;
mod overlap;
mod owed;
mod proof;
mod sweep;
mod together;
mod waiting;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluicegate::config::Secret;
use sluicegate::inbox::codec::Codec;
use sluicegate::inbox::postgres::{PostgresInbox, PostgresOptions};
use sluicegate::inbox::seal::Sealer;
use sluicegate::inbox::sqlite::{InboxFile, SqliteInbox, SqliteOptions};
use sluicegate::inbox::{
    Answer, ClaimBatch, Claimed, EventFilter, Inbox, InboxError, Keep, KeepTimes, Next, Replayed,
    Settled, Settlement, Terms,
};
use sluicegate::model::{
    Accepted, Account, Attempt, Class, DeliveryId, DeliveryState, Destination, EventId, Name,
    NewDelivery, NewEvent, Origin, Overlap, OverlapMode, Param, Params, Roles, Route, Strength,
    Timestamp,
};

use crate::cluster::{self, within};

/// How an inbox is run in a test.
#[derive(Clone, Copy)]
struct Options {
    batch: usize,
    queue: usize,
    search: bool,
    ceiling: Option<u64>,
}

const USUAL: Options = Options {
    batch: 64,
    queue: 256,
    search: false,
    ceiling: None,
};

/// A place for an inbox, and the engine that runs there.
#[async_trait::async_trait]
trait Engine: Send + Sync {
    async fn open(&self, options: Options) -> Result<Arc<dyn Inbox>, InboxError>;

    /// Makes what a process that is gone has left behind as old as it has to be.
    async fn age(&self);
}

impl From<Options> for SqliteOptions {
    fn from(options: Options) -> Self {
        Self {
            batch: options.batch,
            queue: options.queue,
            search: options.search,
            max_bytes: options.ceiling,
            ..Self::default()
        }
    }
}

impl From<Options> for PostgresOptions {
    fn from(options: Options) -> Self {
        Self {
            batch: options.batch,
            queue: options.queue,
            search: options.search,
            max_disk: options.ceiling,
            ..cluster::options(Duration::from_secs(3))
        }
    }
}

struct Sqlite(tempfile::TempDir);

impl Sqlite {
    fn path(&self) -> PathBuf {
        self.0.path().join("deep/inbox.db")
    }
}

#[async_trait::async_trait]
impl Engine for Sqlite {
    async fn open(&self, options: Options) -> Result<Arc<dyn Inbox>, InboxError> {
        Ok(Arc::new(
            SqliteInbox::open(&self.path(), options.into()).await?,
        ))
    }

    async fn age(&self) {}
}

struct Postgres(Secret);

#[async_trait::async_trait]
impl Engine for Postgres {
    async fn open(&self, options: Options) -> Result<Arc<dyn Inbox>, InboxError> {
        Ok(Arc::new(
            PostgresInbox::open(&self.0, options.into()).await?,
        ))
    }

    async fn age(&self) {
        cluster::beside(&self.0)
            .await
            .execute("UPDATE replica SET expires_at = now()", &[])
            .await
            .unwrap();
    }
}

/// A file whose events are closed to whoever has no key.
struct Closed(Sqlite);

#[async_trait::async_trait]
impl Engine for Closed {
    async fn open(&self, options: Options) -> Result<Arc<dyn Inbox>, InboxError> {
        let file = InboxFile::lock(&self.0.path()).await?;
        let inbox = SqliteInbox::open_file(file, options.into(), codec()).await?;
        Ok(Arc::new(inbox))
    }

    async fn age(&self) {}
}

/// A database whose events are closed to whoever has no key.
struct ClosedPostgres(Postgres);

#[async_trait::async_trait]
impl Engine for ClosedPostgres {
    async fn open(&self, options: Options) -> Result<Arc<dyn Inbox>, InboxError> {
        let inbox = PostgresInbox::open_as(&self.0.0, options.into(), Roles::ALL, codec()).await?;
        Ok(Arc::new(inbox))
    }

    async fn age(&self) {
        self.0.age().await;
    }
}

fn codec() -> Codec {
    let key = Secret::new("a test's key", "0123456789abcdef0123456789abcdef");
    Codec::new(Arc::new(Sealer::new(&key).unwrap()), true)
}

struct World {
    engine: Box<dyn Engine>,
    inbox: Option<Arc<dyn Inbox>>,
}

impl World {
    async fn sqlite() -> Self {
        Self::new(Box::new(Sqlite(tempfile::tempdir().unwrap()))).await
    }

    async fn encrypted() -> Self {
        Self::new(Box::new(Closed(Sqlite(tempfile::tempdir().unwrap())))).await
    }

    async fn encrypted_postgres() -> Self {
        let database = Postgres(cluster::shared().migrated().await);
        Self::new(Box::new(ClosedPostgres(database))).await
    }

    async fn postgres() -> Self {
        Self::new(Box::new(Postgres(cluster::shared().migrated().await))).await
    }

    async fn new(engine: Box<dyn Engine>) -> Self {
        let inbox = engine.open(USUAL).await.unwrap();
        Self {
            engine,
            inbox: Some(inbox),
        }
    }

    /// Ends without closing and starts again.
    async fn crash(&mut self) {
        self.inbox = None;
        self.engine.age().await;
        self.inbox = Some(self.engine.open(USUAL).await.unwrap());
        within(Duration::from_secs(10), async || {
            let counts = self.inbox().counts().await.unwrap();
            (!counts
                .iter()
                .any(|count| count.state == DeliveryState::Leased && count.count > 0))
            .then_some(())
        })
        .await;
    }

    /// Closes and opens again, run in another way.
    async fn reopen(&mut self, options: Options) {
        self.inbox().close().await;
        self.inbox = None;
        self.inbox = Some(self.engine.open(options).await.unwrap());
    }

    fn inbox(&self) -> &dyn Inbox {
        self.inbox.as_deref().unwrap()
    }

    async fn accept(&self, event: &NewEvent) -> DeliveryId {
        assert_eq!(
            self.inbox().accept(event.clone()).await.unwrap(),
            Accepted::New
        );
        DeliveryId {
            event: event.id,
            number: 0,
        }
    }

    async fn claims(&self, terms: &Plain, now: i64) -> ClaimBatch {
        self.inbox()
            .claim(Box::new(terms.clone()), at(now))
            .await
            .unwrap()
    }

    async fn claim(&self, now: i64) -> Vec<Claimed> {
        self.claim_some(100, now).await
    }

    async fn claim_some(&self, room: usize, now: i64) -> Vec<Claimed> {
        self.claims(&room_for(room), now).await.claimed
    }

    async fn claim_one(&self, now: i64) -> Claimed {
        self.claim_one_on(&room_for(100), now).await
    }

    async fn claim_one_on(&self, terms: &Plain, now: i64) -> Claimed {
        let mut claimed = self.claims(terms, now).await.claimed;
        assert_eq!(claimed.len(), 1, "one is due");
        claimed.remove(0)
    }

    /// When the next lane is due; asked at a time when nothing is.
    async fn next_due(&self) -> Option<Timestamp> {
        let claims = self.claims(&room_for(1), 0).await;
        assert!(claims.claimed.is_empty(), "nothing is due before its time");
        claims.next_due
    }

    async fn settle(&self, claimed: &Claimed, now: i64, next: Next) -> Settled {
        self.inbox()
            .settle(settlement(claimed, now, next))
            .await
            .unwrap()
    }

    async fn replay(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        now: i64,
    ) -> Vec<DeliveryId> {
        match self.inbox().replay(id, first, to, at(now)).await.unwrap() {
            Replayed::Made(ids) => ids,
            other => panic!("{other:?}"),
        }
    }

    async fn state(&self, id: DeliveryId) -> DeliveryState {
        let detail = self.inbox().event(id.event).await.unwrap().unwrap();
        detail
            .deliveries
            .iter()
            .find(|delivery| delivery.id == id)
            .unwrap()
            .state
    }

    async fn counts(&self) -> BTreeMap<(String, &'static str), u64> {
        let counts = self.inbox().counts().await.unwrap();
        counts
            .into_iter()
            .filter(|c| c.count > 0)
            .map(|c| ((c.source, c.state.as_str()), c.count))
            .collect()
    }
}

/// Terms that are said beforehand.
#[derive(Clone, Debug)]
struct Plain {
    room: usize,
    caps: HashMap<Route, usize>,
    overlap: Overlap,
    taken: HashMap<Route, usize>,
}

/// Everything is open, and waits.
fn room_for(room: usize) -> Plain {
    Plain {
        room,
        caps: HashMap::new(),
        overlap: Overlap::QUEUE,
        taken: HashMap::new(),
    }
}

impl Plain {
    fn cap(mut self, source: &str, most: usize) -> Self {
        self.caps
            .insert(event_of(source, "any", 0).deliveries[0].route(source), most);
        self
    }

    fn overlap(mut self, mode: OverlapMode, depth: Option<u32>, age: Option<u64>) -> Self {
        self.overlap = Overlap {
            mode,
            depth,
            age: age.map(Duration::from_millis),
        };
        self
    }
}

impl Terms for Plain {
    fn begin(&mut self) {
        self.taken.clear();
    }

    fn room(&self) -> usize {
        self.room - self.taken.values().sum::<usize>()
    }

    fn open(&mut self, route: &Route) -> usize {
        let cap = self.caps.get(route).copied().unwrap_or(usize::MAX);
        cap - self.taken.get(route).copied().unwrap_or(0)
    }

    fn took(&mut self, route: &Route, count: usize) {
        *self.taken.entry(route.clone()).or_default() += count;
    }

    fn overlap(&self, _: &str) -> Overlap {
        self.overlap
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
    let upstream_id = agent().former_thread_id("triage", thread).to_string();
    NewEvent {
        id: EventId::new(),
        source: "triage".into(),
        dedup: None,
        event_type: Some("issues.opened".into()),
        received_at: at(now),
        strength: Strength::Signed,
        secret: Some("current".into()),
        proof: None,
        filtered: None,
        unmappable: None,
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
        most_ahead: None,
        backlog: None,
        deliveries: vec![NewDelivery {
            destination: agent(),
            lane: agent().lane(&Account::Operator, &upstream_id),
            upstream_id,
            account: Account::Operator,
            class: Class::Normal,
            sealed: None,
        }],
    }
}

/// The same lane, from another source.
fn event_of(source: &str, thread: &str, now: i64) -> NewEvent {
    NewEvent {
        source: source.into(),
        ..event(thread, now)
    }
}

fn settlement(claimed: &Claimed, now: i64, next: Next) -> Settlement {
    Settlement {
        id: Some(claimed.id),
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
        owes: vec![],
        progress: None,
    }
}

fn done() -> Next {
    Next::Delivered(Answer {
        status: "completed".into(),
        result: Some("ok".into()),
        finished_at: None,
        task: None,
    })
}

fn retry(millis: i64) -> Next {
    Next::Retry {
        at: at(millis),
        doubt: None,
        counted: true,
    }
}

/// Everything is kept for the same time.
fn keep(millis: u64) -> Keep {
    let time = Duration::from_millis(millis);
    Keep {
        usual: KeepTimes {
            delivered: time,
            dead: time,
            filtered: time,
        },
        sources: HashMap::new(),
    }
}

fn everything() -> EventFilter {
    EventFilter {
        limit: 200,
        ..EventFilter::default()
    }
}

/// Runs the sentences of each file against every engine.
macro_rules! contract {
    ($($file:ident: [$($name:ident),* $(,)?])*) => {
        contract!(in sqlite: $($file: [$($name),*])*);
        contract!(in postgres: $($file: [$($name),*])*);
    };
    (in $engine:ident: $($file:ident: [$($name:ident),*])*) => {
        mod $engine {
            $(mod $file {
                use crate::inbox::{World, $file};
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $file::$name(World::$engine().await).await;
                })*
            })*
        }
    };
}

contract! {
    keep: [
        an_event_reads_back_as_it_was_given,
        sixty_four_copies_at_once_are_one_event,
        an_event_that_will_not_wait_is_turned_away_while_its_lane_is_busy,
        no_more_wait_in_a_lane_than_may_however_many_come_at_once,
        copies_from_different_sources_or_without_a_key_are_different_events,
        a_filtered_event_is_kept_and_owes_nothing,
        a_full_queue_refuses_with_a_time_to_come_back,
        after_closing_everything_answers_closed,
        odd_text_reads_back_unchanged,
        conversations_have_the_same_names_after_a_crash,
    ]
    lease: [
        one_delivery_of_a_lane_is_in_flight,
        a_lane_keeps_its_order_across_retries,
        a_retry_holds_its_whole_lane_until_its_time,
        a_released_delivery_gets_its_try_back,
        leases_that_nobody_took_come_back_by_themselves,
        what_was_accepted_outlives_a_crash_and_leases_come_back_with_doubt,
        news_and_the_next_due_time_follow_what_happens,
        a_route_that_is_closed_stays_as_it_is,
        a_route_that_floods_keeps_no_other_waiting,
    ]
    fair: [
        s3_whatever_waits_the_operator_and_the_urgent_have_their_turn,
        a_lane_keeps_its_order_whatever_the_classes_in_it,
        s4_a_stranger_in_a_conversation_holds_nobody_up,
        s3_routes_that_strangers_make_hide_no_other,
        more_than_may_wait_of_a_source_is_turned_away,
    ]
    overlap: [
        what_waited_goes_together_and_a_retry_brings_the_same_again,
        what_stands_between_is_not_overtaken,
        a_turn_has_its_bounds,
        what_is_old_or_too_much_is_dropped_in_favour_of_the_rest,
        only_the_latest_goes_out,
        a_queue_drops_what_waited_too_long,
        the_last_of_very_many_is_found,
        one_that_was_merged_ends_with_the_one_it_went_with,
    ]
    end: [
        a_late_settlement_changes_nothing,
        a_settlement_of_an_earlier_life_of_the_lane_changes_nothing,
        s2_an_event_of_a_stranger_goes_with_the_refusal_of_its_key,
        whoever_waits_for_an_end_is_told_at_once,
        a_sealed_call_lasts_as_long_as_its_delivery,
        a_task_object_is_kept_whole_or_not_at_all,
        tries_are_bounded_and_answers_are_kept,
        the_turn_before_is_found_with_its_answer,
    ]
    operator: [
        a_replay_is_a_new_delivery_behind_what_waits,
        a_replay_of_a_number_is_made_once,
        a_cancelled_head_lets_the_next_go_at_once,
        what_nobody_could_tell_is_settled_by_hand_in_three_ways,
        one_that_is_sent_again_by_hand_goes_before_what_waits,
        what_is_held_is_still_held_after_a_crash,
        a_run_is_counted_against_all_its_budgets_or_none,
        what_cannot_be_mapped_waits_for_an_operator_and_is_written_anew,
    ]
    owed: [
        a_settlement_owes_deliveries_that_say_what_they_answer,
        what_is_owed_is_owed_once_however_often_it_is_settled,
        what_is_owed_outlives_a_crash_and_is_tried_paused_and_called_off_like_any,
        a_settlement_says_how_far_what_is_owed_has_come,
        what_is_owed_is_neither_put_together_nor_dropped,
        a_replay_comes_behind_what_is_owed_and_owes_anew,
    ]
    attachment: [
        files_stay_with_their_event_and_then_for_their_time,
        files_of_what_goes_together_go_together,
        files_that_are_fetched_for_an_event_stand_behind_those_it_has,
        files_without_an_event_stay_for_their_time,
        files_that_nothing_refers_to_are_swept,
    ]
    job: [
        two_who_step_a_job_owe_each_event_once,
        a_job_that_is_not_running_or_has_moved_takes_no_step,
    ]
    list: [
        pages_walk_every_event_once_newest_first,
        every_filter_finds_its_own_both_ways,
        words_in_bodies_are_found_with_and_without_an_index,
        counts_add_up,
    ]
    proof: [
        s8_a_proof_is_good_for_one_event,
        s8_a_proof_with_a_window_is_good_again_after_it,
        s7_the_proof_of_a_redelivery_is_used_up_too,
        s7_copies_at_once_under_fresh_ids_are_one_event,
        s8_a_list_is_new_as_long_as_one_item_is,
        s8_what_is_not_kept_uses_nothing_up,
        s8_a_proof_goes_with_its_event,
        s8_a_proof_is_good_for_one_call_that_is_passed_on,
    ]
    sweep: [
        a_sweep_leaves_what_is_owed_and_what_is_young,
        each_source_and_state_is_kept_for_its_time,
        what_a_retry_would_bring_again_is_not_swept,
    ]
    together: [
        a1_events_of_one_request_are_kept_in_their_order,
        a1_a_list_of_old_and_new_keeps_the_new,
        a1_a_list_that_is_played_again_brings_nothing_new,
        a1_all_of_a_request_are_kept_or_none,
        a1_copies_at_once_of_a_list_are_kept_once,
    ]
    waiting: [
        what_waits_says_for_what,
        a_source_fares_by_the_last_delivery_of_each_event,
        ids_are_found_between_two,
    ]
    walk: [random_walks_agree_with_a_plain_model]
}

// What passes through an event's or an answer's text, once more where that is closed.
contract! {
    in encrypted:
    keep: [an_event_reads_back_as_it_was_given, odd_text_reads_back_unchanged]
    proof: [s8_a_proof_is_good_for_one_event]
    together: [a1_events_of_one_request_are_kept_in_their_order, a1_a_list_of_old_and_new_keeps_the_new]
    overlap: [
        what_waited_goes_together_and_a_retry_brings_the_same_again,
        one_that_was_merged_ends_with_the_one_it_went_with
    ]
    end: [
        tries_are_bounded_and_answers_are_kept,
        the_turn_before_is_found_with_its_answer
    ]
    lease: [what_was_accepted_outlives_a_crash_and_leases_come_back_with_doubt]
    owed: [
        a_settlement_owes_deliveries_that_say_what_they_answer,
        what_is_owed_outlives_a_crash_and_is_tried_paused_and_called_off_like_any
    ]
    operator: [
        a_replay_is_a_new_delivery_behind_what_waits,
        what_cannot_be_mapped_waits_for_an_operator_and_is_written_anew
    ]
    walk: [random_walks_agree_with_a_plain_model]
}

// The same on the other engine, for what each of them closes and opens by itself.
contract! {
    in encrypted_postgres:
    keep: [an_event_reads_back_as_it_was_given]
    overlap: [what_waited_goes_together_and_a_retry_brings_the_same_again]
    end: [tries_are_bounded_and_answers_are_kept, the_turn_before_is_found_with_its_answer]
    owed: [
        a_settlement_owes_deliveries_that_say_what_they_answer,
        a_settlement_says_how_far_what_is_owed_has_come
    ]
    operator: [what_cannot_be_mapped_waits_for_an_operator_and_is_written_anew]
}
