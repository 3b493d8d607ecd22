//! Event intake: from a proved and mapped request to events in the inbox.
//!
//! The public listener, the reader of a provider's log and the operator's resend make their events here. What none of
//! them does by itself: name an event's deliveries (`event`), vouch for a request without a signature ([`Trust`]),
//! commit events and count what became of them ([`Intake::accept`]).

mod accept;
mod event;
mod queue;
mod remap;
mod trust;

use std::sync::Arc;

use crate::attachment::Files;
use crate::inbox::Inbox;
use crate::model::Clock;
use crate::source::Sources;
use crate::telemetry::{Metrics, SparseLines};

pub use accept::Receipt;
pub use event::event;
#[cfg(test)]
pub(crate) use queue::SHORT_QUEUE;
pub use queue::{CommitQueue, QueuedEvents};
pub use remap::{Remapper, request_of};
pub use trust::Trust;

/// Shared parts of every way in.
#[derive(Debug)]
pub struct Intake {
    /// The configured sources.
    pub sources: Arc<Sources>,
    /// The store of events.
    pub inbox: Arc<dyn Inbox>,
    /// The store of files; absent where none is usable.
    pub files: Option<Arc<Files>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Log lines that strangers can cause, at a bounded rate.
    pub lines: Arc<SparseLines>,
    /// Events on their way to the inbox.
    pub queue: Arc<CommitQueue>,
    /// The source of the current time.
    pub clock: Clock,
}
