//! Destinations and their condition.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::delivery::WaitView;
use crate::model::Timestamp;

/// A destination and its condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DestinationView {
    /// Name of the destination, like `agent/a1`.
    pub destination: String,
    /// Sources that are configured to send there.
    pub sources: BTreeSet<String>,
    /// Begin of the operator's hold on its deliveries.
    pub paused_since: Option<Timestamp>,
    /// Reason why all of its deliveries wait, if there is one.
    pub waits_for: Option<WaitView>,
    /// Calls of this process; null if the process sends nothing, or has lately sent nothing there.
    pub fare: Option<FareView>,
    /// Calls of the accounts other than the one in `fare`.
    pub others: Vec<FareView>,
}

/// The calls of one account to a destination, as one process sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FareView {
    /// Account of the calls. One account's failures do not count for another.
    pub account: String,
    /// Calls in flight.
    pub in_flight: usize,
    /// State of the breaker: `closed` (calls are made), `open` (no calls) or `half_open` (one call probes).
    pub breaker: String,
    /// Begin of this state of the breaker.
    pub since: Timestamp,
    /// Failed calls among the last ones.
    pub failures: usize,
    /// Time of the next probe, while the breaker is open.
    pub next_probe: Option<Timestamp>,
    /// Reason why nothing is sent now, in a stable word.
    pub waits_for: Option<String>,
    /// End of that, if it is known.
    pub waits_until: Option<Timestamp>,
}

/// Query of `pause`, `resume` and `reset` of a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ForceQuery {
    /// `true` accepts a destination that nothing was ever sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<String>,
}

/// Answer to `POST /destinations/{kind}/{id}/reset`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResetView {
    /// Name of the destination.
    pub destination: String,
    /// False if there was nothing to reset.
    pub changed: bool,
}
