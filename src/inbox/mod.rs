//! The inbox: durable store of events and of the deliveries they owe, on SQLite or PostgreSQL.
//!
//! It promises:
//! * An event that [`Accept::accept`] said yes to is on disk: it survives a crash and a power cut.
//! * The events of one request are kept together: all of them or none.
//! * A source and a dedup key are one event, however often and however many at once they come.
//! * What proved one event proves no other one, as long as the proof counts as used.
//! * Delivery is at least once; a delivery that may have been sent before says so when it is claimed
//!   ([`Claimed::doubt`]), so that the dispatcher can ask the upstream first.
//! * In a lane, deliveries go out one at a time, in the order of arrival. Between lanes nothing is promised.
//! * A settlement under a lease that has passed to somebody else changes nothing.
//!
//! It reads no clock (every verb is given `now`) and decides no policy: the settlement says when to try again.
//!
//! [`Inbox`] is the sum of narrow traits; a caller takes the one it needs. Every engine passes the same contract
//! (`tests/it/inbox/`). A new verb stands in one of these traits and in the file of the same noun in both engines.

mod attachment;
mod backup;
mod bounds;
mod browse;
pub mod budget;
mod claim;
mod closed;
pub mod codec;
mod error;
mod fair;
pub mod filter;
pub mod job;
mod keep;
mod operate;
mod overlap;
pub mod postgres;
mod queue;
mod replica;
pub mod seal;
mod settlement;
pub mod sqlite;
pub mod sweep;
mod transition;
pub mod waiting;

use async_trait::async_trait;

pub use attachment::KeptAttachment;
pub use backup::Reopened;
pub use browse::{Count, DeliveryDetail, EventDetail, EventFilter, EventSummary, Page, SealedCall};
pub use budget::{BudgetError, Budgets, CountedRun, Spend};
pub use claim::{AnsweredDelivery, ClaimBatch, Claimed, Merged, Terms, Turn};
pub use error::InboxError;
pub use fair::Shares;
pub use job::{Job, JobState, JobStep, NewJob};
pub use keep::{Keep, KeepTimes, Usage};
pub use operate::{Anew, Pause, Replayed, Resolution};
pub use replica::ReplicaStatus;
pub use settlement::{Answer, Next, OwedDelivery, Settled, Settlement};
pub use waiting::{SourceFare, WaitingDelivery};

use crate::model::{
    Accepted, Attachment, AttachmentId, DeliveryId, Destination, EventId, NewDelivery, NewEvent,
    ProofMark, Role, Timestamp, UpstreamIds, UsedProof,
};

/// Prefix of the reason, in the place of a filter, of an event that could not be mapped and owes nothing.
pub const UNMAPPABLE: &str = "unmappable: ";

/// Name of the secret that the names of conversations are made with.
const OWN_SECRET: &str = "upstream ids";

/// A place where events are kept until they are delivered.
pub trait Inbox:
    Accept + Deliver + Browse + Operate + Jobs + CountRuns + KeepFiles + Upkeep + Replicas
{
}

impl<T> Inbox for T where
    T: Accept + Deliver + Browse + Operate + Jobs + CountRuns + KeepFiles + Upkeep + Replicas
{
}

/// Taking events in.
#[async_trait]
pub trait Accept: Send + Sync + std::fmt::Debug {
    /// Keeps the events of one request and what they owe, in one transaction and in their order. Returns when that is
    /// on disk. Of several events all are kept or none: where one has to be turned away, all are. The proof of the
    /// first event is that of the request: where it was used before, none of them is new, whatever else the request
    /// says.
    async fn accept_all(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, InboxError>;

    /// Keeps one event and what it owes.
    async fn accept(&self, event: NewEvent) -> Result<Accepted, InboxError> {
        let accepted = self.accept_all(vec![event]).await?;
        accepted.into_iter().next().ok_or(InboxError::Closed)
    }

    /// Finds the event of a source that has this dedup key.
    async fn known(&self, source: &str, dedup: &str) -> Result<Option<EventId>, InboxError>;

    /// Uses up what proves a request that is passed on and not kept, and has it counted as used until its time. Returns
    /// false if it was used before.
    async fn use_proof(&self, proof: UsedProof, now: Timestamp) -> Result<bool, InboxError>;

    /// Takes the use of a proof back: its request reached nobody.
    async fn free_proof(&self, marks: Vec<ProofMark>) -> Result<(), InboxError>;
}

/// Claiming deliveries and settling them.
#[async_trait]
pub trait Deliver: Send + Sync {
    /// Leases due deliveries on the terms given: one a lane, in each route the lanes that are due longest first, and
    /// the routes by the shares of their accounts, classes and sources (`fair.rs`), so that none keeps another waiting.
    /// Fewer than there is room for does not say that no more is due. The leases of a call that is given up before it
    /// returns are given back. The try is counted and the doubt noted on disk before this returns, so that a delivery
    /// which kills the process does not loop for ever.
    ///
    /// The claim also decides over turns that waited ([`crate::model::Overlap`]), when the first of them is tried for
    /// the first time: those that go with it are `merged`, those that go nowhere `dropped`, both for good.
    ///
    /// ```
    /// # use sluicegate::inbox::{ClaimBatch, InboxError, Deliver, Terms};
    /// # use sluicegate::model::Timestamp;
    /// # async fn example(queue: &dyn Deliver, terms: Box<dyn Terms>) -> Result<(), InboxError> {
    /// let ClaimBatch { claimed, next_due, .. } = queue.claim(terms, Timestamp::from_seconds(1)).await?;
    /// for delivery in claimed {
    ///     println!("{} goes to {} for the {}. time", delivery.id, delivery.destination, delivery.attempt);
    /// }
    /// # let _ = next_due;
    /// # Ok(())
    /// # }
    /// ```
    async fn claim(&self, terms: Box<dyn Terms>, now: Timestamp) -> Result<ClaimBatch, InboxError>;

    /// Ends a lease: the attempt, the delivery's new state and the deliveries that answer it, in one transaction.
    async fn settle(&self, settlement: Settlement) -> Result<Settled, InboxError>;

    /// Waits until something may have become due that was not before: an event was accepted, a lane was freed, a
    /// delivery replayed. May return without cause. A notice that comes while nobody waits is kept for the next caller.
    async fn work_due(&self);

    /// Finds the last delivery of the same upstream id before this one that reached the upstream.
    async fn earlier_turn(&self, claimed: &Claimed) -> Result<Option<Turn>, InboxError>;

    /// Waits until a delivery has ended, and returns its end; a delivery that was merged ends with the one it went
    /// with, whose end is then returned. `None` if there is no such delivery. The caller bounds the wait.
    async fn ended(&self, id: DeliveryId) -> Result<Option<DeliveryDetail>, InboxError>;
}

/// Reading what is kept.
#[async_trait]
pub trait Browse: Send + Sync {
    /// Lists a page of events, newest first unless the filter says otherwise.
    async fn events(&self, filter: &EventFilter) -> Result<Page<EventSummary>, InboxError>;

    /// Counts the events that fit a filter, up to `most`.
    async fn count(&self, filter: &EventFilter, most: u64) -> Result<u64, InboxError>;

    /// Reads one event with everything known of it; of its deliveries' task objects only that of the last delivery
    /// which answers no other.
    async fn event(&self, id: EventId) -> Result<Option<EventDetail>, InboxError>;

    /// Lists the events whose ids lie between two, both included; the oldest first, at most `most`.
    async fn between(
        &self,
        from: EventId,
        to: EventId,
        most: usize,
    ) -> Result<Vec<EventId>, InboxError>;

    /// Says what the pending deliveries of these events wait for, as far as the inbox knows; of at most 200 events.
    async fn waiting(&self, events: Vec<EventId>) -> Result<Vec<WaitingDelivery>, InboxError>;

    /// Says how each source fares of which there are events.
    async fn source_fares(&self) -> Result<Vec<SourceFare>, InboxError>;

    /// Lists the destinations that anything was ever owed to, at most 10,000.
    async fn destinations(&self) -> Result<Vec<Destination>, InboxError>;

    /// Counts the deliveries in each state that is not final, and all that came into each final one, by source.
    async fn counts(&self) -> Result<Vec<Count>, InboxError>;
}

/// Carrying out what an operator orders.
#[async_trait]
pub trait Operate: Send + Sync {
    /// Owes an event again: a new delivery for each of `to`, numbered from `first` on, with the lane and upstream id
    /// given. When the event has other numbers by now, nothing is done: ids are made from numbers. A sealed call that
    /// the event's last delivery still has goes along.
    async fn replay(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        now: Timestamp,
    ) -> Result<Replayed, InboxError>;

    /// Owes an event again that could not be mapped, with what its source makes of it now, in one transaction. Owes
    /// nothing where it is filtered now; what waited for an operator is then cancelled.
    async fn replay_anew(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        anew: Anew,
        now: Timestamp,
    ) -> Result<Replayed, InboxError>;

    /// Calls a delivery off. Returns false if it is not there or neither pending nor unmappable (any more).
    async fn cancel(&self, id: DeliveryId, now: Timestamp) -> Result<bool, InboxError>;

    /// Settles by hand a delivery of which nobody could tell whether it ran. Returns false if it is not there or not
    /// `unknown` (any more). The note is kept among the delivery's tries.
    async fn resolve(
        &self,
        id: DeliveryId,
        how: Resolution,
        note: &str,
        now: Timestamp,
    ) -> Result<bool, InboxError>;

    /// Pauses what a source or a destination has waiting, or resumes it. What comes in is still kept. Returns false if
    /// it was so already.
    async fn set_paused(&self, what: &Pause, on: bool, now: Timestamp) -> Result<bool, InboxError>;

    /// Lists the pauses, each with its beginning.
    async fn pauses(&self) -> Result<Vec<(Pause, Timestamp)>, InboxError>;
}

/// Work in bulk.
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Keeps a job, running.
    async fn begin_job(&self, job: NewJob, now: Timestamp) -> Result<Job, InboxError>;

    /// Lists the last 100 jobs, newest first.
    async fn jobs(&self) -> Result<Vec<Job>, InboxError>;

    /// Changes a job's state and pace, where given. `None` if there is no such job; one that has ended stays as it is.
    async fn steer_job(
        &self,
        id: i64,
        state: Option<JobState>,
        pace: Option<u32>,
        now: Timestamp,
    ) -> Result<Option<Job>, InboxError>;

    /// Takes a job one step on, in one transaction with what the step owes. `None`, and nothing done, if the job is not
    /// running, or has moved since, or one of the events has other deliveries than were known.
    async fn step_job(&self, step: JobStep, now: Timestamp) -> Result<Option<Job>, InboxError>;
}

/// Counting runs against budgets.
#[async_trait]
pub trait CountRuns: Send + Sync {
    /// Counts one more run of a day against each budget, or against none of them when one is spent, whose name is
    /// returned. Days are numbered from 1970 on.
    async fn spend(&self, day: i64, budgets: Vec<Spend>) -> Result<Option<String>, InboxError>;

    /// Takes back what was counted: the run was not begun.
    async fn give_back(&self, day: i64, budgets: Vec<String>) -> Result<(), InboxError>;

    /// Lists the runs of a day by budget; the largest first, at most 1,000.
    async fn spent(&self, day: i64) -> Result<Vec<(String, u64)>, InboxError>;
}

/// Keeping track of files that came with events.
#[async_trait]
pub trait KeepFiles: Send + Sync {
    /// Keeps files of a call that is passed on and not kept itself. Their bytes are durable already.
    async fn keep_attachments(
        &self,
        source: &str,
        attachments: Vec<Attachment>,
    ) -> Result<(), InboxError>;

    /// Keeps more files of an event, behind those it has. Returns false if there is no such event any more.
    async fn add_attachments(
        &self,
        event: EventId,
        attachments: Vec<Attachment>,
    ) -> Result<bool, InboxError>;

    /// Has the files of an event stay at least until a time: somebody was given links to them.
    async fn extend_attachments(&self, event: EventId, until: Timestamp) -> Result<(), InboxError>;

    /// Finds one file.
    async fn attachment(&self, id: AttachmentId) -> Result<Option<KeptAttachment>, InboxError>;

    /// Lists a page of files, newest first; at most 200.
    async fn attachments(
        &self,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<Page<KeptAttachment>, InboxError>;

    /// Lists up to `limit` files that no event refers to and whose time is over. The caller removes their bytes and
    /// then has them forgotten.
    async fn attachments_gone(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Attachment>, InboxError>;

    /// Returns those of these files that the inbox knows of.
    async fn attachments_known(
        &self,
        ids: Vec<AttachmentId>,
    ) -> Result<Vec<AttachmentId>, InboxError>;

    /// Forgets files whose bytes are gone. Returns the number of files that it knew.
    async fn forget_attachments(&self, ids: Vec<AttachmentId>) -> Result<usize, InboxError>;
}

/// Keeping the inbox itself in order.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Removes up to `limit` events that were kept long enough and whose deliveries are all final; one that was merged
    /// stays as long as the one it went with is not final, or is unknown. Returns the number of events that went.
    async fn sweep(&self, keep: &Keep, now: Timestamp, limit: usize) -> Result<usize, InboxError>;

    /// Measures the room that the inbox has on the disk.
    async fn usage(&self) -> Result<Usage, InboxError>;

    /// Measures about how much disk the events and files of a source take.
    async fn bytes_of(&self, source: &str) -> Result<u64, InboxError>;

    /// Reads what names conversations at the upstream: the same for all that ever use this inbox.
    async fn upstream_ids(&self) -> Result<UpstreamIds, InboxError>;

    /// Returns an error unless the inbox can keep events now; for the readiness probe.
    async fn ready(&self) -> Result<(), InboxError>;

    /// Waits until the inbox has stopped for good (a sync failed, and nothing can be promised after that), and returns
    /// the cause. Then the program should end and be started anew. Does not return otherwise.
    async fn failed(&self) -> String;

    /// Finishes what was handed in and closes. Leases that are left are free at the next start.
    async fn close(&self);
}

/// Standing of this process among those that share the inbox.
#[async_trait]
pub trait Replicas: Send + Sync {
    /// Says how this process stands. Asked before every call upstream, so it does not wait.
    fn replica_status(&self) -> ReplicaStatus;

    /// Counts the processes that have a role, this one where it has it; at least one. All of them, where an engine does
    /// not know.
    fn replicas_with(&self, _role: Role) -> u32 {
        self.replica_status().replicas
    }

    /// Waits until [`Replicas::replica_status`] may have changed.
    async fn replica_status_changed(&self);
}
