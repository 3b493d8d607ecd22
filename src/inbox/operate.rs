//! Orders of an operator, and what becomes of them.

use crate::model::{DeliveryId, Destination, Params};

/// The result of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The new deliveries.
    Made(Vec<DeliveryId>),
    /// The event has more deliveries than was thought.
    Moved,
    /// There is no such event.
    NoEvent,
}

/// An operator's word on a delivery of which nobody could tell whether it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It ran.
    Delivered,
    /// It did not, and is not to.
    Dead,
    /// It did not, and is sent again.
    Again,
}

/// The object of a pause.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pause {
    /// Every run: nothing is sent at all.
    All,
    /// Everything of a source.
    Source(String),
    /// Everything to a destination.
    Destination(Destination),
}

/// The texts that a source makes of an event which could not be mapped when it came. They are written over those that
/// were kept.
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
    /// The values that the mapping took from it.
    pub params: Params,
    /// The headers, as they were kept.
    pub headers: Vec<(String, String)>,
}
