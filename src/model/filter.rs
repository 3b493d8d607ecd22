//! A filter of events in words: as the admin API takes it, as the command line sends it, and as a job keeps it. The inbox
//! reads the words and says what it cannot read.

use serde::{Deserialize, Serialize};

/// A filter of events in words. An empty one fits every event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct FilterWords {
    /// Only of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Only where the last delivery is in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only where the last delivery needs an operator (true), or only the others (false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
    /// Only of this type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Only of this conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// Only with this dedup key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedup: Option<String>,
    /// Only with a delivery to this destination, like `agent/a1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Only with these words in the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Only received at or after, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Only received before, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Only filtered (true) or only passed on (false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filtered: Option<bool>,
}
