//! An accepted fact: stored once, never changed.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Account, Attachment, Class, Destination, EventId, Params, Route, Strength, Timestamp, UsedProof,
};

/// An event about to be kept, with the deliveries it owes.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Its name.
    pub id: EventId,
    /// The source it came by.
    pub source: String,
    /// The provider's own name for it; the same source and key is the same event. None: it has no double.
    pub dedup: Option<String>,
    /// The provider's word for what happened.
    pub event_type: Option<String>,
    /// Time of its request.
    pub received_at: Timestamp,
    /// Strength of its proof.
    pub strength: Strength,
    /// The name of the secret that matched.
    pub secret: Option<String>,
    /// The proof of its request, which counts once. `None`: nothing was proved, or repetitions are allowed.
    pub proof: Option<UsedProof>,
    /// The rule that kept it from going further; such an event owes nothing.
    pub filtered: Option<String>,
    /// Reason why it could not be mapped. Its deliveries are then kept in the state [`super::DeliveryState::Unmappable`].
    pub unmappable: Option<String>,
    /// The conversation at the source, as the provider names it.
    pub thread: Option<String>,
    /// The parameters that the mapping took from it.
    pub params: Params,
    /// The method and the target.
    pub request_line: String,
    /// The headers that are kept, in order.
    pub headers: Vec<(String, String)>,
    /// The body, as it came.
    pub body: Bytes,
    /// The files that came along, in their order. Their bytes are durable already.
    pub attachments: Vec<Attachment>,
    /// Deliveries, waiting or in flight, that may be ahead of its own in their lanes; with more it is refused.
    pub most_ahead: Option<u32>,
    /// Bound on what may wait of its source; beyond it the event is refused.
    pub backlog: Option<Backlog>,
    /// Its deliveries.
    pub deliveries: Vec<NewDelivery>,
}

/// Bound on what may wait of a source before new events are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Number of deliveries.
    pub most: Option<u64>,
    /// Longest wait of a due delivery of the new event's own class.
    pub age: Option<Duration>,
    /// True if its sender tries again; otherwise the event is kept all the same, so that it is not lost.
    pub turns_away: bool,
}

/// A delivery about to be kept.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// The destination.
    pub destination: Destination,
    /// The lane: deliveries of one lane go out one at a time, in order of arrival. A delivery without a thread is
    /// its own lane.
    pub lane: Uuid,
    /// The upstream `id`, chosen before the first call.
    pub upstream_id: String,
    /// The account on whose behalf it goes.
    pub account: Account,
    /// Its urgency.
    pub class: Class,
    /// A call that was made by a caller and not by a source: kept closed, erased when the delivery ends.
    pub sealed: Option<Bytes>,
}

impl NewDelivery {
    /// The route it goes by, from this source.
    pub fn route(&self, source: &str) -> Route {
        Route {
            source: source.to_owned(),
            destination: self.destination.clone(),
            account: self.account.clone(),
            class: self.class,
        }
    }
}

/// Answer of the inbox to a new event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is kept, on disk.
    New,
    /// It was kept before, under this id.
    Duplicate(EventId),
    /// Its proof was used before, by the event of this id.
    Replayed(EventId),
    /// It is not kept: too much of its source waits, or for too long.
    Behind,
    /// It is not kept: more deliveries of its lane wait or are in flight than it was to wait behind.
    Busy,
}
