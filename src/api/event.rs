//! Events: one in a list, one with all its parts, and the query that selects them.

use serde::{Deserialize, Serialize};

use super::attachment::FileView;
use super::delivery::{AttemptView, DeliveryView, WaitView};
use crate::model::{EventId, Timestamp};

/// An event in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventView {
    /// Id of the event.
    pub id: EventId,
    /// Name of its source.
    pub source: String,
    /// Its type, if its source names one.
    pub event_type: Option<String>,
    /// The provider's own name of the event.
    pub dedup: Option<String>,
    /// Its conversation.
    pub thread: Option<String>,
    /// Time of its receipt.
    pub received_at: Timestamp,
    /// Rule of the source that filtered it.
    pub filtered: Option<String>,
    /// States of its deliveries, in their order.
    pub states: Vec<String>,
    /// In a list, the last attempt of the last delivery if that is dead or unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<AttemptView>,
    /// Reason why its last pending delivery waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitView>,
}

/// An event with all its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventPage {
    /// The event as it stands in a list, without `reason`.
    #[serde(flatten)]
    pub event: EventView,
    /// Proof of its origin.
    pub verification: VerificationView,
    /// Event that an operator made this one of.
    pub resent_from: Option<String>,
    /// Method and target of its request.
    pub request_line: String,
    /// Params that the mapping took from it.
    pub params: Vec<ParamView>,
    /// Grounds to trust its type and its dedup key, as the source is configured now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing: Option<HeadBackings>,
    /// Remarks on the reading of its text.
    pub notes: Vec<String>,
    /// Configured paths that found nothing in this event, as the source is configured now.
    pub misses: Vec<MissView>,
    /// Headers of its request: names and values.
    pub headers: Vec<(String, String)>,
    /// Number of later requests with the same proof.
    pub replays: u64,
    /// Time of the last of them.
    pub replayed_at: Option<Timestamp>,
    /// Body as text, cut at 256 KiB; null if it is not UTF-8.
    pub body: Option<String>,
    /// Body in base64, cut at 256 KiB, if it is not UTF-8.
    pub body_base64: Option<String>,
    /// Length of the whole body.
    pub body_bytes: usize,
    /// True if the body is cut here.
    pub body_cut: bool,
    /// Files that came with it.
    pub attachments: Vec<FileView>,
    /// Its deliveries, in their order.
    pub deliveries: Vec<DeliveryView>,
}

/// Proof of an event's origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VerificationView {
    /// Strength of the proof in a stable word.
    pub strength: String,
    /// Name of the secret that proved it; the secret itself is never part of an answer.
    pub secret: Option<String>,
}

/// A named value that the mapping took from an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ParamView {
    /// Name of the param.
    pub name: String,
    /// Value, cut at 256 KiB.
    pub value: String,
    /// True if the value is cut here.
    pub value_cut: bool,
    /// Grounds to trust it: `proved`, `unproved` or `operator`, by the source's proof as it is configured now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing: Option<String>,
    /// Origin of the value.
    pub origin: OriginView,
    /// Origins that this one took precedence over.
    pub over: Vec<OriginView>,
}

/// Origin of a param.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OriginView {
    /// Kind of the origin, like `mapping` or `query`.
    pub from: String,
    /// Path of a mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A configured path that found nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MissView {
    /// Setting that has the path.
    pub of: String,
    /// The path as it is configured.
    pub path: String,
    /// Reason in a stable word.
    pub why: String,
}

/// Grounds to trust the type and the dedup key of an event; null if its provider names no place for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeadBackings {
    /// Grounds to trust the type.
    pub event_type: Option<String>,
    /// Grounds to trust the dedup key.
    pub dedup: Option<String>,
}

/// Query of `GET /events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Only of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Only if the last delivery is in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only of this type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
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
    /// `true`: only filtered events. `false`: only the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filtered: Option<String>,
    /// `true`: only events that need an operator. `false`: only the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<String>,
    /// Only received at or after this time (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Only received before this time (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Order of the list: `newest` or `oldest` first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Start of the page: a `next_cursor` of this list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Largest number of entries, from 1 to 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}
