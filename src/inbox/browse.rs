//! Views of what is kept: events and deliveries as an operator sees them, and the filters of lists.

use bytes::Bytes;

use super::{Answer, UNMAPPABLE};
use crate::model::{
    Account, Attachment, Attempt, Class, DeliveryId, DeliveryState, Destination, EventId, Params,
    Timestamp,
};

/// A filter of a list of events, and the page of it.
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
    /// The place where the page before ended: [`Page::next`].
    pub cursor: Option<i64>,
    /// Oldest first.
    pub oldest_first: bool,
    /// Length of the page, at most 200.
    pub limit: usize,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// The place where the next page begins; `None` on the last one.
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
    /// The time when its request came.
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
    /// The strength of its check: [`crate::model::Strength::as_str`].
    pub strength: String,
    /// The name of the secret that matched.
    pub secret: Option<String>,
    /// The method and the target.
    pub request_line: String,
    /// The values that the mapping took from it.
    pub params: Params,
    /// The headers that were kept.
    pub headers: Vec<(String, String)>,
    /// The body, as it came.
    pub body: Bytes,
    /// Number of requests that came again with the proof of this one under another name, and were not kept.
    pub replays: u64,
    /// The time when the last of them came.
    pub replayed_at: Option<Timestamp>,
    /// The files that came along and are still there, in their order.
    pub attachments: Vec<Attachment>,
    /// Its deliveries, in order of number.
    pub deliveries: Vec<DeliveryDetail>,
}

impl EventDetail {
    /// True if it could not be mapped when it came, and has not been mapped since.
    pub fn is_unmapped(&self) -> bool {
        let filtered = self.summary.filtered.as_deref();
        match self.deliveries.last() {
            Some(last) => last.state == DeliveryState::Unmappable,
            None => filtered.is_some_and(|rule| rule.starts_with(UNMAPPABLE)),
        }
    }
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
    /// Its class: how urgent it is.
    pub class: Class,
    /// Its state.
    pub state: DeliveryState,
    /// The upstream `id` that was chosen for it.
    pub upstream_id: String,
    /// Number of tries.
    pub attempts: u32,
    /// The time when it is due, while it is pending.
    pub due: Option<Timestamp>,
    /// Since when nobody knows whether it ran.
    pub doubt: Option<Timestamp>,
    /// The upstream's last word.
    pub answer: Option<Answer>,
    /// The delivery that it answers; `None`: it is owed by its event.
    pub answers: Option<DeliveryId>,
    /// The caller's own call, where it is sent as a caller made it.
    pub sealed: SealedCall,
    /// Its tries, oldest first.
    pub tries: Vec<Attempt>,
}

/// State of a call that a caller made ([`crate::model::NewDelivery::sealed`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedCall {
    /// The delivery's call is made from its event.
    None,
    /// The call is kept, closed.
    Kept,
    /// The call was erased when the delivery ended.
    Erased,
}

/// Deliveries of a source that stand in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The source.
    pub source: String,
    /// The state.
    pub state: DeliveryState,
    /// The number.
    pub count: u64,
}
