//! The status of the gateway: everything that needs an operator, and the configuration in force.

use serde::{Deserialize, Serialize};

use super::budget::BudgetView;
use super::gateway::DiskView;
use super::page::PausedView;
use crate::model::Timestamp;

/// Answer to `GET /status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StatusPage {
    /// True if nothing needs an operator.
    pub well: bool,
    /// Problems that need an operator.
    pub attention: Vec<AttentionView>,
    /// Time of this answer.
    pub at: Timestamp,
    /// Version of the program.
    pub version: String,
    /// Start of the process.
    pub started_at: Timestamp,
    /// The configuration in force.
    pub configuration: LoadedView,
    /// Roles of the process, separated by commas.
    pub roles: String,
    /// Number of processes that share the inbox.
    pub replicas: u32,
    /// `good`, or `lost` if other processes may have taken over the work of this one.
    pub standing: String,
    /// Number of configured sources.
    pub sources: usize,
    /// Holds of an operator.
    pub paused: Vec<PausedView>,
    /// Deliveries that have not ended.
    pub waiting: BacklogView,
    /// Events that need an operator.
    pub open: OpenView,
    /// The last event.
    pub last_event: Option<LastEventView>,
    /// Budgets that runs were counted against today.
    pub budgets: Vec<BudgetView>,
    /// Disk space of the inbox.
    pub disk: DiskView,
}

/// A problem that needs an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AttentionView {
    /// Stable word.
    pub code: String,
    /// Subject: a source, a destination, a budget or a setting.
    pub about: Option<String>,
    /// Explanation, without its times.
    pub text: String,
    /// Begin of the problem.
    pub since: Option<Timestamp>,
    /// End of the problem, if it ends by itself.
    pub until: Option<Timestamp>,
    /// Advice to the operator.
    pub todo: String,
}

/// Deliveries that have not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BacklogView {
    /// Number of pending deliveries.
    pub pending: u64,
    /// Number of deliveries that are being sent.
    pub running: u64,
    /// Receipt of the oldest event with a pending delivery.
    pub oldest_at: Option<Timestamp>,
    /// Source of that event.
    pub oldest_source: Option<String>,
}

/// Events that need an operator, by the state of their last delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OpenView {
    /// Events whose last delivery is dead.
    pub dead: u64,
    /// Events whose last delivery is unknown.
    pub unknown: u64,
    /// Events whose last delivery is unmappable.
    pub unmappable: u64,
}

/// The last event of all sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LastEventView {
    /// Time of its receipt.
    pub at: Timestamp,
    /// Name of its source.
    pub source: String,
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LoadedView {
    /// Number of the configuration: 1 at the start of the process, one more for each reload.
    pub generation: u64,
    /// Digest of all settings, secrets among them.
    pub digest: String,
    /// Time of the last load.
    pub loaded_at: Timestamp,
    /// Settings that have changed since the start and take effect after a restart only.
    pub restart_for: Vec<String>,
    /// The last configuration that was read and refused, unless a later one was accepted.
    pub refused: Option<RefusedConfig>,
}

/// A configuration that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefusedConfig {
    /// Time of the attempt.
    pub at: Timestamp,
    /// Reason of the refusal.
    pub why: String,
}

/// Answer to `POST /reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReloadView {
    /// The configuration in force.
    pub configuration: LoadedView,
}
