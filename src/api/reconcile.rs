//! Reconciliation: the events of a provider's log that never arrived.

use serde::{Deserialize, Serialize};

use crate::model::{EventId, Timestamp};

/// Body of `POST /sources/{name}/reconcile`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReconcileBody {
    /// Begin of the time span: a time (RFC 3339), or a duration before now, like `2h`.
    pub since: String,
    /// End of the time span, in the same form; now if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// True reports what is missing and accepts nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Result of a reconciliation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReportView {
    /// Name of the source.
    pub source: String,
    /// True if nothing was accepted.
    pub dry_run: bool,
    /// Begin of the time span.
    pub since: Timestamp,
    /// End of the time span.
    pub until: Timestamp,
    /// Entries of the log.
    pub listed: usize,
    /// Entries whose event is in the inbox.
    pub already_here: usize,
    /// Entries whose event is missing.
    pub missing: usize,
    /// Missing events that were accepted.
    pub pulled_in: usize,
    /// Missing events that the source filters.
    pub filtered: usize,
    /// Missing events that could not be accepted.
    pub failed: usize,
    /// The time before which everything is done.
    pub reached: Option<Timestamp>,
    /// Reason for an early end; null if the whole span was read.
    pub stopped: Option<StopView>,
    /// Entries one by one.
    pub lines: Vec<LineView>,
    /// Number of further entries that are not listed.
    pub unnamed: usize,
}

/// Reason for the early end of a reconciliation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StopView {
    /// Stable word.
    pub code: String,
    /// Explanation.
    pub detail: String,
}

/// One entry of a provider's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LineView {
    /// Id of the entry at the provider.
    pub id: String,
    /// Dedup key of its event.
    pub dedup: Option<String>,
    /// Type of its event.
    pub event_type: Option<String>,
    /// Time of the entry.
    pub at: Timestamp,
    /// Result for this entry in a stable word.
    pub became: String,
    /// Event of the entry.
    pub event: Option<EventId>,
    /// Reason of a failure.
    pub why: Option<String>,
}
