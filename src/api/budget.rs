//! Budgets of runs for each day.

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// A budget that at least one run was counted against today.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BudgetView {
    /// Name of the budget: `all`, `source/NAME`, `agent/ID`, `workflow/ID`, `user/` and a digest of the source and the user,
    /// or `foreign` and `foreign/agent/ID` for the runs of callers with foreign keys.
    pub budget: String,
    /// Runs that began today.
    pub runs: u64,
    /// Largest number of runs a day; null if the configuration no longer names the budget.
    pub most: Option<u64>,
    /// Start of the next day, when the count begins at zero.
    pub until: Timestamp,
}
