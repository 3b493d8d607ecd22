//! What must not be lost.
//!
//! What is promised:
//! * An event that [`Inbox::accept`] said yes to is on disk: it survives a crash and a power cut.
//! * The events of one request are kept together: all of them or none.
//! * A source and a dedup key are one event, however often and however many at once they come.
//! * What proved one event proves no other one, as long as the proof counts as used.
//! * Delivery is at least once; a delivery that may have been sent before says so when it is claimed
//!   ([`Claimed::doubt`]), so that whoever sends it can ask the upstream first.
//! * In a lane, deliveries go out one at a time, in the order of arrival. Between lanes nothing is promised.
//! * A settlement under a lease that has passed to somebody else changes nothing.
//!
//! What is not: the inbox reads no clock (every verb is given `now`) and decides no policy; when to try again is said
//! by whoever settles.

pub mod budget;
pub mod encrypted;
mod fair;
pub mod filter;
pub mod job;
pub mod postgres;
pub mod seal;
pub mod sqlite;
pub mod sweep;
pub mod waiting;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

pub use budget::{BudgetError, Budgets, CountedRun};
pub use fair::Shares;
pub use job::{Job, JobState, JobStep, NewJob};
pub use waiting::{SourceFare, WaitingDelivery};

use crate::model::{
    Accepted, Account, Attachment, AttachmentId, Attempt, Class, DeliveryId, DeliveryState,
    Destination, EventId, NewDelivery, NewEvent, Overlap, Params, ProofMark, Role, Route,
    Timestamp, UpstreamIds, UsedProof,
};

/// Stands before the reason, in the place of a filter, where an event could not be mapped and owes nothing.
pub const UNMAPPABLE: &str = "unmappable: ";

/// What the secret goes by that the names of conversations are made with.
const OWN_SECRET: &str = "upstream ids";

/// A place where events are kept until they are delivered. Every engine passes the same contract
/// (`tests/it/inbox/`).
#[async_trait]
pub trait Inbox: Send + Sync + std::fmt::Debug {
    /// Keeps the events of one request and what they owe, in one transaction and in their order. Returns when that is on
    /// disk. Of several all are kept or none: where one has to be turned away, all are. The proof of the first is that
    /// of the request: where it was used before, none of them is new, whatever else the request says.
    async fn accept_all(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, InboxError>;

    /// Keeps one event and what it owes.
    async fn accept(&self, event: NewEvent) -> Result<Accepted, InboxError> {
        let told = self.accept_all(vec![event]).await?;
        told.into_iter().next().ok_or(InboxError::Closed)
    }

    /// Leases due deliveries on the terms given: one a lane, in each route the lanes that are due longest first, and
    /// the routes by the shares of their accounts, classes and sources (`fair.rs`), so that none keeps another waiting. Fewer than there is room for does not say that no more
    /// is due. The leases of a call that is given up before it returns are given back. The try is counted and the
    /// doubt noted on disk before this returns, so that a delivery which kills the process does not loop for ever.
    ///
    /// Here too is decided what becomes of turns that waited ([`Overlap`]), when the first of them is tried for the
    /// first time: those that go with it are `merged`, those that go nowhere `dropped`, both for good.
    async fn claim(&self, terms: Box<dyn Terms>, now: Timestamp) -> Result<ClaimBatch, InboxError>;

    /// Ends a lease: the attempt and the delivery's new state, in one transaction.
    async fn settle(&self, settlement: Settlement) -> Result<Settled, InboxError>;

    /// Waits until something may have become due that was not before: an event was accepted, a lane was freed, a
    /// delivery replayed. May return without cause. News that comes while nobody waits is told to the next who does.
    async fn work_due(&self);

    /// The last delivery of the same upstream id before this event that reached the upstream, if any is still known.
    async fn earlier_turn(&self, claimed: &Claimed) -> Result<Option<Turn>, InboxError>;

    /// A page of events, newest first unless the filter says otherwise.
    async fn events(&self, filter: &EventFilter) -> Result<Page<EventSummary>, InboxError>;

    /// How many events fit a filter; counted up to `most`.
    async fn count(&self, filter: &EventFilter, most: u64) -> Result<u64, InboxError>;

    /// One event with everything known of it; of its deliveries' task objects only the last one's.
    async fn event(&self, id: EventId) -> Result<Option<EventDetail>, InboxError>;

    /// The events whose ids lie between two, both included; the oldest first, at most `most`.
    async fn between(
        &self,
        from: EventId,
        to: EventId,
        most: usize,
    ) -> Result<Vec<EventId>, InboxError>;

    /// What the pending deliveries of these events wait for, as far as the inbox knows; of at most 200 events.
    async fn waiting(&self, events: Vec<EventId>) -> Result<Vec<WaitingDelivery>, InboxError>;

    /// How each source fares of which there are events.
    async fn source_fares(&self) -> Result<Vec<SourceFare>, InboxError>;

    /// The destinations that anything was ever owed to, at most 10,000.
    async fn destinations(&self) -> Result<Vec<Destination>, InboxError>;

    /// The event of a source that has this dedup key, where there is one.
    async fn known(&self, source: &str, dedup: &str) -> Result<Option<EventId>, InboxError>;

    /// Owes the event again: a new delivery for each of `to`, numbered from `first` on, with the lane and upstream id
    /// given. When the event has other numbers by now, nothing is done: ids are made from numbers. A sealed call that
    /// the event's last delivery still has goes along.
    async fn replay(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        now: Timestamp,
    ) -> Result<Replayed, InboxError>;

    /// The same for an event that could not be mapped, with what its source makes of it now, in one transaction. Owes
    /// nothing where it is filtered now; what waited for an operator is then cancelled.
    async fn replay_anew(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        anew: Anew,
        now: Timestamp,
    ) -> Result<Replayed, InboxError>;

    /// Calls a delivery off. False when it is not there or neither pending nor unmappable (any more).
    async fn cancel(&self, id: DeliveryId, now: Timestamp) -> Result<bool, InboxError>;

    /// Settles by hand what nobody could tell. False when it is not there or not `unknown` (any more). The note is
    /// kept among the delivery's tries.
    async fn resolve(
        &self,
        id: DeliveryId,
        how: Resolution,
        note: &str,
        now: Timestamp,
    ) -> Result<bool, InboxError>;

    /// Holds what a source or a destination has waiting, or lets it go. What comes in is still kept. False when it
    /// was so already.
    async fn set_paused(&self, what: &Pause, on: bool, now: Timestamp) -> Result<bool, InboxError>;

    /// What is held, and since when.
    async fn pauses(&self) -> Result<Vec<(Pause, Timestamp)>, InboxError>;

    /// Counts one more run of a day against each budget, or against none when one of them is spent: that one's name is
    /// told. Days are numbered from 1970 on.
    async fn spend(&self, day: i64, budgets: Vec<Spend>) -> Result<Option<String>, InboxError>;

    /// Takes back what was counted: the run was not begun.
    async fn give_back(&self, day: i64, budgets: Vec<String>) -> Result<(), InboxError>;

    /// Uses up what proves a request that is passed on and not kept, and has it counted as used until its time. False:
    /// it was used before.
    async fn use_proof(&self, proof: UsedProof, now: Timestamp) -> Result<bool, InboxError>;

    /// Takes that back: the request reached nobody.
    async fn free_proof(&self, marks: Vec<ProofMark>) -> Result<(), InboxError>;

    /// What was spent on a day, by budget; the largest first, at most 1,000.
    async fn spent(&self, day: i64) -> Result<Vec<(String, u64)>, InboxError>;

    /// How much disk the events and files of a source take, about.
    async fn bytes_of(&self, source: &str) -> Result<u64, InboxError>;

    /// Keeps a job, running.
    async fn begin_job(&self, job: NewJob, now: Timestamp) -> Result<Job, InboxError>;

    /// The last 100 jobs, newest first.
    async fn jobs(&self) -> Result<Vec<Job>, InboxError>;

    /// Changes a job's state and pace, where given. None when there is no such job; one that has ended stays as it is.
    async fn steer_job(
        &self,
        id: i64,
        state: Option<JobState>,
        pace: Option<u32>,
        now: Timestamp,
    ) -> Result<Option<Job>, InboxError>;

    /// Takes a job one step on, in one transaction with what the step owes. None, and nothing done: the job is not
    /// running, or has moved since, or one of the events has other deliveries than were known.
    async fn step_job(&self, step: JobStep, now: Timestamp) -> Result<Option<Job>, InboxError>;

    /// Waits until a delivery has ended and tells how; one that was merged ends with the one it went with, which is
    /// then told of. None: there is no such delivery. Whoever waits bounds the wait.
    async fn ended(&self, id: DeliveryId) -> Result<Option<DeliveryDetail>, InboxError>;

    /// How many deliveries stand in each state that is not final, and the totals of the final ones, by source.
    async fn counts(&self) -> Result<Vec<Count>, InboxError>;

    /// Removes up to `limit` events that are kept long enough and whose deliveries are all final; one that was merged
    /// stays as long as the one it went with is not, or is unknown. Returns how many went.
    async fn sweep(&self, keep: &Keep, now: Timestamp, limit: usize) -> Result<usize, InboxError>;

    /// How much of the disk it has.
    async fn usage(&self) -> Result<Usage, InboxError>;

    /// How this process stands among those that share the inbox. Asked before every call upstream, so it does not
    /// wait.
    fn replica_status(&self) -> ReplicaStatus;

    /// How many of the processes that share the inbox have a role, this one counted where it has; at least one. All of
    /// them, where an engine does not know.
    fn replicas_with(&self, _role: Role) -> u32 {
        self.replica_status().replicas
    }

    /// Waits until [`Inbox::replica_status`] may have changed.
    async fn replica_status_changed(&self);

    /// Keeps files of a call that is passed on and not kept itself. Their bytes are durable already.
    async fn keep_attachments(
        &self,
        source: &str,
        attachments: Vec<Attachment>,
    ) -> Result<(), InboxError>;

    /// Keeps more files of an event, behind those it has. False: there is no such event any more.
    async fn add_attachments(
        &self,
        event: EventId,
        attachments: Vec<Attachment>,
    ) -> Result<bool, InboxError>;

    /// Has the files of an event stay at least until a time: somebody was given links to them.
    async fn extend_attachments(&self, event: EventId, until: Timestamp) -> Result<(), InboxError>;

    /// One file.
    async fn attachment(&self, id: AttachmentId) -> Result<Option<KeptAttachment>, InboxError>;

    /// A page of files, newest first; at most 200.
    async fn attachments(
        &self,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<Page<KeptAttachment>, InboxError>;

    /// Up to `limit` files that no event refers to and whose time is over. Whoever removed their bytes forgets them.
    async fn attachments_gone(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Attachment>, InboxError>;

    /// Those of these files that the inbox knows of.
    async fn attachments_known(
        &self,
        ids: Vec<AttachmentId>,
    ) -> Result<Vec<AttachmentId>, InboxError>;

    /// Forgets files whose bytes are gone. Returns how many it knew.
    async fn forget_attachments(&self, ids: Vec<AttachmentId>) -> Result<usize, InboxError>;

    /// What names conversations at the upstream: the same for all that ever use this inbox.
    async fn upstream_ids(&self) -> Result<UpstreamIds, InboxError>;

    /// Whether it can keep events now; for the readiness probe.
    async fn ready(&self) -> Result<(), InboxError>;

    /// Waits until the inbox has stopped for good (a sync failed, and nothing can be promised after that), and says
    /// why. Then the program should end and be started anew. Does not return otherwise.
    async fn failed(&self) -> String;

    /// Finishes what was handed in and closes. Leases that are left are free at the next start.
    async fn close(&self);
}

/// On what terms deliveries may be claimed. The engine asks within a claim, so answers are quick and wait for nothing.
pub trait Terms: Send {
    /// A claim begins, maybe not for the first time: what was taken before is forgotten.
    fn begin(&mut self);

    /// How many more deliveries may be leased in all.
    fn room(&self) -> usize;

    /// How many more of a route may be leased. 0: it is held, at its cap or resting, and its lanes stay as they are.
    fn open(&mut self, route: &Route) -> usize;

    /// So many of a route are leased.
    fn took(&mut self, route: &Route, count: usize);

    /// What becomes of the turns that wait in a source's conversations.
    fn overlap(&self, source: &str) -> Overlap;

    /// How much a source has of what its account has, against the account's other sources.
    fn weight(&self, _source: &str) -> u32 {
        1
    }

    /// Of a hundred places, how many callers with foreign keys have while others wait as well.
    fn foreign_share(&self) -> u32 {
        25
    }
}

/// What a claim brought.
#[derive(Clone, Debug, Default)]
pub struct ClaimBatch {
    /// The leases.
    pub claimed: Vec<Claimed>,
    /// When, in a route that was open, the next lane that is not leased is due. Only said when nothing was claimed.
    pub next_due: Option<Timestamp>,
    /// What was dropped on the way, by source.
    pub dropped: Vec<(String, u64)>,
}

/// A delivery under lease.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Its name.
    pub id: DeliveryId,
    /// The engine's own number for it.
    pub key: i64,
    /// Its lane.
    pub lane: Uuid,
    /// The lease: a settlement that carries another number changes nothing.
    pub fence: i64,
    /// To whom.
    pub destination: Destination,
    /// On whose behalf.
    pub account: Account,
    /// How urgent.
    pub class: Class,
    /// The upstream `id` that was chosen for it.
    pub upstream_id: String,
    /// The number of this try, from 1.
    pub attempt: u32,
    /// The tries that count against it, this one among them: those that reached the upstream or ended the process.
    pub strikes: u32,
    /// Since when it may have been sent without anybody knowing the end. None: it surely has not run.
    pub doubt: Option<Timestamp>,
    /// The source it came by.
    pub source: String,
    /// The provider's word for what happened.
    pub event_type: Option<String>,
    /// The conversation at the source.
    pub thread: Option<String>,
    /// When its request came.
    pub received_at: Timestamp,
    /// What the mapping took from it.
    pub params: Params,
    /// The headers that were kept.
    pub headers: Vec<(String, String)>,
    /// The body, as it came.
    pub body: Bytes,
    /// The files that came along, in their order.
    pub attachments: Vec<Attachment>,
    /// [`crate::model::NewDelivery::sealed`]
    pub sealed: Option<Bytes>,
    /// What goes with it as one turn, in order of arrival.
    pub merged: Vec<Merged>,
    /// How many turns of the conversation were dropped in its favour.
    pub dropped: u32,
}

impl Claimed {
    /// The route it goes by.
    pub fn route(&self) -> Route {
        Route {
            source: self.source.clone(),
            destination: self.destination.clone(),
            account: self.account.clone(),
            class: self.class,
        }
    }
}

/// An event that goes out within the turn of another.
#[derive(Clone, Debug)]
pub struct Merged {
    /// Its delivery's name.
    pub id: DeliveryId,
    /// The provider's word for what happened.
    pub event_type: Option<String>,
    /// When its request came.
    pub received_at: Timestamp,
    /// What the mapping took from it.
    pub params: Params,
    /// The headers that were kept.
    pub headers: Vec<(String, String)>,
    /// The body, as it came.
    pub body: Bytes,
    /// The files that came along, in their order.
    pub attachments: Vec<Attachment>,
}

/// The end of a lease.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The delivery. None where its record cannot be read: then there is no answer to be kept.
    pub id: Option<DeliveryId>,
    /// [`Claimed::key`]
    pub key: i64,
    /// [`Claimed::lane`]
    pub lane: Uuid,
    /// [`Claimed::fence`]
    pub fence: i64,
    /// What was tried.
    pub attempt: Attempt,
    /// What becomes of the delivery.
    pub next: Next,
}

impl Settlement {
    /// Whether it ends because the upstream refused the key. Events of strangers go with such an end.
    pub fn refuses_key(&self) -> bool {
        matches!(self.next, Next::Dead(_)) && matches!(self.attempt.status, Some(401 | 403))
    }
}

/// What becomes of a delivery when its lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Done. The upstream's last word is kept with it.
    Delivered(Answer),
    /// Tried again at a time. `doubt` as in [`Claimed::doubt`]. The lane waits with it.
    Retry {
        /// When.
        at: Timestamp,
        /// Since when nobody knows whether it ran.
        doubt: Option<Timestamp>,
        /// Whether this try counts against the delivery ([`Claimed::strikes`]).
        counted: bool,
    },
    /// Will not be tried again by itself.
    Dead(Option<Answer>),
    /// Nobody can tell whether it ran; held for an operator.
    Unknown,
    /// Given back unsent: due at once, this try is not counted, doubt as it was before the claim.
    Released {
        /// [`Claimed::doubt`]
        doubt: Option<Timestamp>,
    },
}

/// The upstream's last word on a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The run's status in the upstream's words.
    pub status: String,
    /// The agent's answer, cut at the inbox's bound.
    pub result: Option<String>,
    /// When the run ended, in the upstream's words.
    pub finished_at: Option<String>,
    /// The whole task object as the upstream wrote it, where it is within the inbox's bound.
    pub task: Option<Bytes>,
}

/// What became of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is on disk.
    Done,
    /// The lease had passed to somebody else; nothing was changed.
    Stale,
}

/// A turn of a conversation that went before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its delivery.
    pub id: DeliveryId,
    /// What the upstream said of its end.
    pub answer: Option<Answer>,
    /// What the mapping took from its event.
    pub params: Params,
    /// The headers that were kept.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

/// Which events to list.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Only of this source.
    pub source: Option<String>,
    /// Only of this type.
    pub event_type: Option<String>,
    /// Only of this conversation.
    pub thread: Option<String>,
    /// Only with this key.
    pub dedup: Option<String>,
    /// Only with a delivery to this destination.
    pub destination: Option<Destination>,
    /// Only with these words in the body, in any order and case.
    pub text: Option<String>,
    /// Only where the last delivery is in this state: one that was replayed is as its replay is.
    pub state: Option<DeliveryState>,
    /// Only where the last delivery needs an operator (true), or only the others (false).
    pub open: Option<bool>,
    /// Only filtered (true) or only passed on (false).
    pub filtered: Option<bool>,
    /// Only received at or after.
    pub since: Option<Timestamp>,
    /// Only received before.
    pub until: Option<Timestamp>,
    /// Where the page before ended: [`Page::next`].
    pub cursor: Option<i64>,
    /// Oldest first.
    pub oldest_first: bool,
    /// How many, at most 200.
    pub limit: usize,
}

/// What became of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The new deliveries.
    Made(Vec<DeliveryId>),
    /// The event has more deliveries than was thought.
    Moved,
    /// There is no such event.
    NoEvent,
}

/// How an operator settles what nobody could tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It ran.
    Delivered,
    /// It did not, and is not to.
    Dead,
    /// It did not, and is sent again.
    Again,
}

/// What can be held.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pause {
    /// Every run: nothing is sent at all.
    All,
    /// Everything of a source.
    Source(String),
    /// Everything to a destination.
    Destination(Destination),
}

/// A budget that one more run is counted against.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spend {
    /// Its name.
    pub budget: String,
    /// How many runs a day it allows.
    pub most: u64,
}

/// How long finished events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Where a source does not say.
    pub usual: KeepTimes,
    /// Sources that say.
    pub sources: HashMap<String, KeepTimes>,
}

/// How long a finished event is kept, from when it came. The longest that fits one of its deliveries holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepTimes {
    /// All is delivered (or merged).
    pub delivered: Duration,
    /// A delivery is dead or unknown.
    pub dead: Duration,
    /// It was filtered, or a delivery was cancelled or dropped.
    pub filtered: Duration,
}

/// How much of the disk an inbox has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Those of them that will be used again before it grows.
    pub reusable: u64,
    /// Above how many it keeps nothing more; none: until the disk is full.
    pub ceiling: Option<u64>,
}

/// How a process stands among those that share the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its leases are good, so it may call upstream. False: others may have taken its work over; calls in flight are
    /// to be broken off.
    pub good: bool,
    /// How many processes there are, this one among them.
    pub replicas: u32,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page begins; none on the last one.
    pub next: Option<i64>,
}

/// An event in a list.
#[derive(Clone, Debug)]
pub struct EventSummary {
    /// Its name.
    pub id: EventId,
    /// The source it came by.
    pub source: String,
    /// The provider's word for what happened.
    pub event_type: Option<String>,
    /// The provider's own name for it.
    pub dedup: Option<String>,
    /// The conversation at the source.
    pub thread: Option<String>,
    /// When its request came.
    pub received_at: Timestamp,
    /// The rule that kept it from going further.
    pub filtered: Option<String>,
    /// Its deliveries' states, in order.
    pub states: Vec<DeliveryState>,
}

/// An event with everything known of it.
#[derive(Clone, Debug)]
pub struct EventDetail {
    /// As in a list.
    pub summary: EventSummary,
    /// How much its check proved: [`crate::model::Strength::as_str`].
    pub strength: String,
    /// The name of the secret that matched.
    pub secret: Option<String>,
    /// The method and the target.
    pub request_line: String,
    /// What the mapping took from it.
    pub params: Params,
    /// The headers that were kept.
    pub headers: Vec<(String, String)>,
    /// The body, as it came.
    pub body: Bytes,
    /// How many requests came again with what proves this one, under another name, and were not kept.
    pub replays: u64,
    /// When the last of them came.
    pub replayed_at: Option<Timestamp>,
    /// The files that came along and are still there, in their order.
    pub attachments: Vec<Attachment>,
    /// What it owes and owed, in order of number.
    pub deliveries: Vec<DeliveryDetail>,
}

impl EventDetail {
    /// Whether it could not be mapped when it came, and has not been mapped since.
    pub fn is_unmapped(&self) -> bool {
        let filtered = self.summary.filtered.as_deref();
        match self.deliveries.last() {
            Some(last) => last.state == DeliveryState::Unmappable,
            None => filtered.is_some_and(|rule| rule.starts_with(UNMAPPABLE)),
        }
    }
}

/// What a source makes of an event that could not be mapped when it came. It is written over what was kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anew {
    /// The provider's word for what happened.
    pub event_type: Option<String>,
    /// The conversation at the source.
    pub thread: Option<String>,
    /// The rule that keeps it from going further.
    pub filtered: Option<String>,
    /// The method and the target, as they were kept.
    pub request_line: String,
    /// What the mapping took from it.
    pub params: Params,
    /// The headers, as they were kept.
    pub headers: Vec<(String, String)>,
}

/// A file, and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAttachment {
    /// The file.
    pub attachment: Attachment,
    /// The source it came by.
    pub source: String,
    /// Its event; none where it came with a call that was passed on, or its event has gone.
    pub event: Option<EventId>,
}

/// A delivery with its tries.
#[derive(Clone, Debug)]
pub struct DeliveryDetail {
    /// Its name.
    pub id: DeliveryId,
    /// To whom.
    pub destination: Destination,
    /// On whose behalf.
    pub account: Account,
    /// How urgent.
    pub class: Class,
    /// Where it stands.
    pub state: DeliveryState,
    /// The upstream `id` that was chosen for it.
    pub upstream_id: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is due, while it is pending.
    pub due: Option<Timestamp>,
    /// Since when nobody knows whether it ran.
    pub doubt: Option<Timestamp>,
    /// The upstream's last word.
    pub answer: Option<Answer>,
    /// Whether it is sent as a caller made it, and whether that call is still there.
    pub sealed: SealedCall,
    /// Its tries, oldest first.
    pub tries: Vec<Attempt>,
}

/// What is there of a call that a caller made ([`crate::model::NewDelivery::sealed`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedCall {
    /// The delivery's call is made from its event.
    None,
    /// The call is kept, closed.
    Kept,
    /// The call was erased when the delivery ended.
    Erased,
}

/// How many deliveries of a source stand in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The source.
    pub source: String,
    /// The state.
    pub state: DeliveryState,
    /// How many.
    pub count: u64,
}

/// Why the inbox could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InboxError {
    /// Too much waits for the writer; try again after this long.
    #[error("the inbox writer's queue is full")]
    Full(Duration),
    /// The disk is full, or the engine's store cannot grow.
    #[error("the inbox has no space left")]
    NoSpace,
    /// The inbox is closed, or its writer has stopped after a failed sync.
    #[error("the inbox is closed")]
    Closed,
    /// This one record cannot be kept; others can.
    #[error("the inbox refuses this record: {0}")]
    Record(String),
    /// The engine failed.
    #[error("the inbox failed to {doing}: {cause}")]
    Engine {
        /// The operation.
        doing: &'static str,
        /// What the engine says.
        cause: String,
    },
}

/// The beginning of a text, of so many bytes at most.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
