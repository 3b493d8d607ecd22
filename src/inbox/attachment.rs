//! Files that came with events, as the inbox knows them.

use crate::model::{Attachment, EventId};

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
