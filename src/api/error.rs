//! The answer to a request that failed.

use serde::{Deserialize, Serialize};

/// Error of the admin API. The status of the response says its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErrorView {
    /// Explanation for people.
    pub detail: String,
    /// Stable word for programs.
    pub code: String,
}
