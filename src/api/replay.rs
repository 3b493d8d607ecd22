//! One event sent again: as it is (replay) or with changes (resend).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::{DeliveryId, EventId};

/// Query of `replay` and `resend` of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DryRunQuery {
    /// `true` shows the request that would be sent and sends nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<String>,
}

/// Answer to a replay of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReplayView {
    /// Id of the event.
    pub event: EventId,
    /// Rule that filtered the event when it was mapped again. It has no new delivery then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filtered: Option<String>,
    /// New deliveries.
    pub deliveries: Vec<DeliveryId>,
}

/// Answer to a resend of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResendView {
    /// Id of the new event.
    pub event: EventId,
    /// Id of the event that it was made of.
    pub resent_from: EventId,
    /// Rule that filtered the new event.
    pub filtered: Option<String>,
    /// Deliveries of the new event.
    pub deliveries: Vec<DeliveryId>,
}

/// Answer to a dry run of a replay or a resend.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DryRunView {
    /// Always true.
    pub dry_run: bool,
    /// Id of the event.
    pub event: EventId,
    /// Rule that would filter the event.
    pub filtered: Option<String>,
    /// Conversation of the event.
    pub thread: Option<String>,
    /// Request that would be sent; null if nothing would be sent.
    pub request: Option<RequestView>,
}

/// A request as it would be sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RequestView {
    /// Destination, like `agent/a1`.
    pub destination: String,
    /// Method of the request.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers: names and values. Values that are secrets are masked.
    pub headers: Vec<(String, String)>,
    /// JSON body.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub body: Box<RawValue>,
}

/// Answer that depends on `dry_run`. A reader knows which of the two it asked for and reads that one.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum DryRunOr<T> {
    /// Nothing was sent.
    DryRun(DryRunView),
    /// The request was carried out.
    Done(T),
}

/// Body of `POST /events/{id}/resend`: the changes to the event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct EventChanges {
    /// New body as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// New body in base64, if it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// New values of headers; null removes a header.
    #[cfg_attr(
        test,
        schemars(with = "std::collections::BTreeMap<String, Option<String>>")
    )]
    pub headers: serde_json::Map<String, serde_json::Value>,
}
