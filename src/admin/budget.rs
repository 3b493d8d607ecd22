//! Budgets of runs for each day.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::AdminState;
use super::error::AdminError;
use crate::api::budget::BudgetView;
use crate::api::page::PageView;
use crate::model::Timestamp;

/// `GET /budgets`: lists the budgets that were used today.
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<PageView<BudgetView>>, AdminError> {
    let now = state.clock.now();
    let spent = state.in_time(state.inbox.spent(now.day())).await?;
    Ok(Json(PageView::whole(state.budget_views(spent, now))))
}

impl AdminState {
    /// Makes the views of budgets and of the runs that were counted against them.
    pub(super) fn budget_views(
        &self,
        spent: impl IntoIterator<Item = (String, u64)>,
        now: Timestamp,
    ) -> Vec<BudgetView> {
        let view = |(budget, runs): (String, u64)| BudgetView {
            most: self.budgets.most(&budget),
            budget,
            runs,
            until: now.tomorrow(),
        };
        spent.into_iter().map(view).collect()
    }
}
