//! Budgets of runs: what was spent today.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::AdminState;
use super::error::AdminError;
use super::page::PageView;
use crate::model::Timestamp;

/// A budget that something was counted against today.
#[derive(Debug, Serialize)]
pub(super) struct BudgetView {
    /// `all`, `source/NAME`, `agent/ID`, `workflow/ID`, `user/` and a digest of the source and the user, or `foreign` and
    /// `foreign/agent/ID` for the runs of callers with foreign keys.
    budget: String,
    /// Runs that began today.
    runs: u64,
    /// How many may; none where the configuration says nothing any more.
    most: Option<u64>,
    /// When it begins anew.
    until: Timestamp,
}

/// `GET /api/v1/budgets`
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<PageView<BudgetView>>, AdminError> {
    let now = state.clock.now();
    let spent = state.in_time(state.inbox.spent(now.day())).await?;
    let view = |(budget, runs): (String, u64)| {
        let most = state.budgets.most(&budget);
        BudgetView {
            budget,
            runs,
            most,
            until: now.tomorrow(),
        }
    };
    Ok(Json(PageView::whole(spent.into_iter().map(view).collect())))
}
