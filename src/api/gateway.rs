//! The gateway as a whole, and its health.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// Answer to `GET /api/v1`: identity and load of the gateway. A part that the inbox cannot tell is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GatewayView {
    /// Always `sluicegate`.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Start of the process.
    pub started_at: Timestamp,
    /// Number of processes that share the inbox.
    pub replicas: u32,
    /// Begin of the operator's hold on every run.
    pub paused_since: Option<Timestamp>,
    /// `good`, or `lost` if other processes may have taken over the work of this one.
    pub standing: String,
    /// Disk space of the inbox.
    pub disk: Option<DiskView>,
    /// Number of deliveries in each state.
    pub deliveries: Option<BTreeMap<String, u64>>,
}

/// Disk space of the inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiskView {
    /// Bytes in use, reusable ones among them.
    pub bytes: u64,
    /// Bytes of deleted records, which new records will use.
    pub reusable_bytes: u64,
    /// Largest size that is configured.
    pub ceiling_bytes: Option<u64>,
}

/// Answer to `GET /health/live` and `GET /health/ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HealthView {
    /// `live`, `ready` or `unready`.
    pub status: String,
    /// Reason why events are accepted but not sent: `paused` or `upstream_key_refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Reason why new events are not accepted, in a stable word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl HealthView {
    /// The answer of a process that is well: `live` or `ready`.
    pub fn good(status: &str) -> Self {
        Self {
            status: status.to_owned(),
            detail: None,
            reason: None,
        }
    }
}
