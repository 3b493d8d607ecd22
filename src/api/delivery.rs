//! Deliveries of an event, their attempts, and the reason why a pending one waits.

use serde::{Deserialize, Serialize};

use crate::model::{DeliveryId, Timestamp};

/// A delivery with its attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeliveryView {
    /// Id of the delivery.
    pub id: DeliveryId,
    /// Destination, like `agent/a1`.
    pub destination: String,
    /// Account on whose behalf it is sent.
    pub account: String,
    /// Urgency: `interactive`, `normal` or `bulk`.
    pub class: String,
    /// State of the delivery, like `pending` or `dead`.
    pub state: String,
    /// Id of the conversation or the run at the upstream.
    pub upstream_id: String,
    /// Number of attempts.
    pub tried: u32,
    /// Time of the next attempt.
    pub due: Option<Timestamp>,
    /// Reason why it waits, while it is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitView>,
    /// Time of a call whose result is not known.
    pub doubt: Option<Timestamp>,
    /// Answer of the upstream, if it is known.
    pub answer: Option<AnswerView>,
    /// Attempts that are kept, in their order.
    pub attempts: Vec<AttemptView>,
}

/// Answer of the upstream to a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AnswerView {
    /// State of the run in the upstream's words.
    pub status: String,
    /// Result of the run.
    pub result: Option<String>,
    /// End of the run in the upstream's words.
    pub finished_at: Option<String>,
}

/// One attempt of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AttemptView {
    /// Number of the attempt within its delivery.
    pub number: u32,
    /// Begin of the attempt.
    pub started_at: Timestamp,
    /// End of the attempt.
    pub ended_at: Timestamp,
    /// Result in a stable word.
    pub result: String,
    /// HTTP status of the upstream, if it answered.
    pub status: Option<u16>,
    /// Explanation of the result.
    pub detail: String,
}

/// Reason why something has not been sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WaitView {
    /// Reason in a stable word.
    pub why: String,
    /// Reason in a sentence, without its times.
    pub text: String,
    /// Begin of the wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// End of the wait, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Delivery of the same conversation that has to end first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<DeliveryId>,
}

/// Body of `POST /deliveries/{id}/settle`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SettleRequest {
    /// New state by the operator's word: `delivered`, `dead` or `again`.
    pub r#as: String,
    /// Reason in the operator's words.
    #[serde(default)]
    pub note: String,
}

/// Answer to a delivery's `cancel` and `settle`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChangedDeliveryView {
    /// Id of the delivery.
    pub id: DeliveryId,
    /// New state of the delivery.
    pub state: String,
}
