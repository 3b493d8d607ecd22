//! Replays in bulk: the request, the plan, and the progress of a job.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::{EventId, FilterWords, Timestamp};

/// Body of `POST /replays` and `POST /replays/plan`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ReplayRequest {
    /// Events to replay.
    pub filter: FilterWords,
    /// True permits a filter that leaves nothing out.
    pub all: bool,
    /// Events a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<u32>,
}

/// Forecast of a replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PlanView {
    /// The filter with its defaults filled in.
    pub filter: FilterWords,
    /// Number of events, as far as they were counted.
    pub count: u64,
    /// True if there are more than were counted.
    pub more: bool,
    /// Events a minute.
    pub pace: u32,
    /// Duration of the replay in seconds.
    pub takes_s: u64,
    /// The oldest event.
    pub oldest: Option<EdgeView>,
    /// The newest event.
    pub newest: Option<EdgeView>,
    /// Number of the oldest events that were examined one by one.
    pub looked_at: usize,
    /// Those of them that the replay would leave out.
    pub left_out: Vec<LeftOutView>,
}

/// The first or the last event of a replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EdgeView {
    /// Id of the event.
    pub id: EventId,
    /// Time of its receipt.
    pub received_at: Timestamp,
}

/// Events that a replay would leave out for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeftOutView {
    /// Name of their source.
    pub source: String,
    /// Reason in a stable word.
    pub why: String,
    /// Number of events.
    pub count: u64,
}

/// A replay and its progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobView {
    /// Number of the replay.
    pub id: i64,
    /// State: `running`, `paused`, `cancelled` or `done`.
    pub state: String,
    /// The filter as it was kept when the replay began.
    #[cfg_attr(test, schemars(with = "FilterWords"))]
    pub filter: Box<RawValue>,
    /// Events a minute.
    pub pace: u32,
    /// Number of events at the start.
    pub total: u64,
    /// Events that have a new delivery.
    pub done: u64,
    /// Events that were left out.
    pub skipped: u64,
    /// Start of the replay.
    pub started_at: Timestamp,
    /// Time of the last change.
    pub changed_at: Timestamp,
    /// Estimated end at this pace; null unless the replay is running.
    pub eta: Option<Timestamp>,
}

/// Body of `POST /replays/{id}`: the changes to a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct SteerRequest {
    /// New state: `running`, `paused` or `cancelled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// New number of events a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<u32>,
}
