//! Files that came with events.

use serde::{Deserialize, Serialize};

use crate::model::{AttachmentId, EventId, Timestamp};

/// A file of an event. Its bytes are not part of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileView {
    /// Id of the file.
    pub id: AttachmentId,
    /// File name as the sender gave it, cleaned.
    pub name: String,
    /// Media type as the sender gave it.
    pub content_type: String,
    /// Length of the content.
    pub bytes: u64,
    /// SHA-256 of the content in hex digits.
    pub sha256: String,
    /// The channel's own name of a file that was fetched from a channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Earliest end of storage, once nothing refers to the file.
    pub expires_at: Timestamp,
}

/// A file in the list of all files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeptFileView {
    /// The file itself.
    #[serde(flatten)]
    pub file: FileView,
    /// Name of the source that the file came by.
    pub source: String,
    /// The event that the file belongs to; null if the event was never accepted.
    pub event: Option<EventId>,
}

/// Answer to `DELETE /attachments/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RemovedFileView {
    /// Id of the file.
    pub id: AttachmentId,
    /// Always true.
    pub deleted: bool,
}

/// Query of `GET /attachments`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AttachmentQuery {
    /// Start of the page: a `next_cursor` of this list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Largest number of entries, from 1 to 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}
