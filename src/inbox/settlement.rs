//! Settlements: the end of a lease, and the state of the delivery after it.

use bytes::Bytes;
use uuid::Uuid;

use crate::model::{Attempt, DeliveryId, NewDelivery, Timestamp};

/// The end of a lease.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The delivery. None where its record cannot be read: then there is no answer to be kept.
    pub id: Option<DeliveryId>,
    /// [`super::Claimed::key`]
    pub key: i64,
    /// [`super::Claimed::lane`]
    pub lane: Uuid,
    /// [`super::Claimed::fence`]
    pub fence: i64,
    /// The attempt.
    pub attempt: Attempt,
    /// The fate of the delivery.
    pub next: Next,
    /// Deliveries that answer this one. They are kept in the same transaction, behind those that the event has, and are
    /// deliveries like any other. A settlement that changes nothing owes nothing, so they are never owed twice.
    pub owes: Vec<OwedDelivery>,
    /// The payload from now on of a delivery that answers another one: it says how far that has come. `None`: it stays.
    pub progress: Option<Bytes>,
}

/// A delivery that answers another one of the same event, about to be kept.
#[derive(Clone, Debug)]
pub struct OwedDelivery {
    /// The delivery. Its lane is that of its destination, account and upstream id ([`crate::model::Destination::lane`]).
    pub delivery: NewDelivery,
    /// The answer, in the form that its destination takes. Kept as long as the event is.
    pub payload: Bytes,
}

impl Settlement {
    /// True if it ends because the upstream refused the key. Events of strangers go with such an end.
    pub fn refuses_key(&self) -> bool {
        matches!(self.next, Next::Dead(_)) && matches!(self.attempt.status, Some(401 | 403))
    }
}

/// The fate of a delivery when its lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Done. The upstream's last word is kept with it.
    Delivered(Answer),
    /// Tried again at a time. `doubt` as in [`super::Claimed::doubt`]. The lane waits with it.
    Retry {
        /// The time of the next try.
        at: Timestamp,
        /// Since when nobody knows whether it ran.
        doubt: Option<Timestamp>,
        /// True if this try counts against the delivery ([`super::Claimed::strikes`]).
        counted: bool,
    },
    /// Will not be tried again by itself.
    Dead(Option<Answer>),
    /// Nobody can tell whether it ran; held for an operator.
    Unknown,
    /// Given back unsent: due at once, this try is not counted, doubt as it was before the claim.
    Released {
        /// [`super::Claimed::doubt`]
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
    /// The time when the run ended, in the upstream's words.
    pub finished_at: Option<String>,
    /// The whole task object as the upstream wrote it, where it is within the inbox's bound.
    pub task: Option<Bytes>,
}

/// The result of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is on disk.
    Done,
    /// The lease had passed to somebody else; nothing was changed.
    Stale,
}
