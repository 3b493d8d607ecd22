//! Times for which finished events are kept, and the room they take.

use std::collections::HashMap;
use std::time::Duration;

/// Times that finished events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The times of sources that say none of their own.
    pub usual: KeepTimes,
    /// Sources that say.
    pub sources: HashMap<String, KeepTimes>,
}

/// Time that a finished event is kept, from when it came. The longest that fits one of its deliveries holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepTimes {
    /// All is delivered (or merged).
    pub delivered: Duration,
    /// A delivery is dead or unknown.
    pub dead: Duration,
    /// It was filtered, or a delivery was cancelled or dropped.
    pub filtered: Duration,
}

/// The room that an inbox has on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Those of them that will be used again before it grows.
    pub reusable: u64,
    /// Above how many it keeps nothing more; none: until the disk is full.
    pub ceiling: Option<u64>,
}
