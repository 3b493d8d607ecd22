//! The gateway's own keys and their use.

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// Use of a key or a secret, in this process since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UseView {
    /// First use.
    pub first: Timestamp,
    /// Last use.
    pub last: Timestamp,
    /// Number of uses.
    pub count: u64,
}

/// A key of the gateway's own, by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeyView {
    /// Name of the key.
    pub name: String,
    /// Agents that it may call. If `agents` and `paths` are both empty, it may call everything.
    pub agents: Vec<String>,
    /// Paths that it may call.
    pub paths: Vec<String>,
    /// Begins of the ids that its callers may use.
    pub prefixes: Vec<String>,
    /// End of its validity.
    pub expires: Option<Timestamp>,
    /// True if its validity has ended.
    pub expired: bool,
    /// Runs of its callers today, if they are counted.
    pub runs_today: Option<u64>,
    /// Largest number of runs a day.
    pub runs_per_day: Option<u64>,
    /// Largest size of an upload.
    pub max_upload_bytes: Option<u64>,
    /// Largest rate of requests, like `10/60s`.
    pub rate: Option<String>,
    /// Use of all keys of this name together.
    pub used: Option<UseView>,
    /// The keys of this name one by one.
    pub keys: Vec<LiveView>,
}

/// One of the keys of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LiveView {
    /// Place of the key, like the name of its environment variable; never the key itself.
    pub key: String,
    /// Use of this key.
    pub used: Option<UseView>,
}
