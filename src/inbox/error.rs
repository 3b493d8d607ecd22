//! Errors of the inbox.

use std::time::Duration;

/// Errors of the inbox.
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
        /// The engine's own message.
        cause: String,
    },
}
