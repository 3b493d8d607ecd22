//! Sources: their condition, holds on them, and the enrolment of their secrets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::delivery::WaitView;
use crate::model::Timestamp;

/// A source and the condition of its deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SourceView {
    /// Name of the source.
    pub name: String,
    /// False if the configuration no longer names the source but events of it are kept.
    pub configured: bool,
    /// Path of its requests.
    pub path: Option<String>,
    /// Its provider.
    pub provider: Option<String>,
    /// Title of its provider.
    pub provider_title: Option<String>,
    /// Its destination, like `agent/a1`.
    pub destination: Option<String>,
    /// Names of its secrets, never their values.
    pub secrets: Vec<String>,
    /// Begin of the operator's hold on its deliveries.
    pub paused_since: Option<Timestamp>,
    /// Reason why all of its deliveries wait, if there is one.
    pub waits_for: Option<WaitView>,
    /// Time of its last event.
    pub last_event_at: Option<Timestamp>,
    /// Receipt of its oldest event with a pending delivery.
    pub oldest_pending_at: Option<Timestamp>,
    /// Number of its events that need an operator, by the state of their last delivery.
    pub open: BTreeMap<String, u64>,
    /// Number of its deliveries in each state.
    pub counts: BTreeMap<String, u64>,
}

/// Answer to `pause` and `resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeldView {
    /// Name of the source, if one is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Name of the destination, if one is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// True after `pause`, false after `resume`.
    pub paused: bool,
    /// True if every run is meant, not those of one source or destination.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// False if it was so before.
    pub changed: bool,
}

/// Query of `POST /sources/{name}/enrol`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EnrolQuery {
    /// Duration of the enrolment window, like `10min`; at most `24h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#for: Option<String>,
}

/// An enrolment window that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EnrolmentWindow {
    /// Name of the source.
    pub source: String,
    /// End of the window.
    pub until: Timestamp,
    /// URL for the provider; only its path if `server.public_url` is not set.
    pub address: String,
}

/// Result of an enrolment so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BroughtView {
    /// Name of the source.
    pub source: String,
    /// The new secret; null if none waits for confirmation.
    pub brought: Option<BroughtSecret>,
}

/// A new secret that waits for confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BroughtSecret {
    /// Fingerprint of the secret.
    pub fingerprint: String,
    /// Address of the caller that sent it.
    pub peer: IpAddr,
    /// Time of the request.
    pub at: Timestamp,
}

/// Query of `POST /sources/{name}/enrol/confirm`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfirmQuery {
    /// Fingerprint of the secret, 16 hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// Answer to the confirmation of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConfirmedView {
    /// Name of the source.
    pub source: String,
    /// Fingerprint of the secret that is valid now.
    pub fingerprint: String,
}
