//! The configured sources and how they fare, and what was refused at their doors.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::AdminState;
use super::error::AdminError;
use super::page::{Asked, PageView, RefusedQuery};
use super::view::SourceView;
use crate::telemetry::RefusedSample;

/// `GET /sources`
pub(super) async fn list(State(state): State<Arc<AdminState>>) -> Result<Json<PageView<SourceView>>, AdminError> {
    let counts = state.inbox.counts().await?;
    Ok(Json(PageView::whole(SourceView::list(&state.sources, &counts))))
}

/// `GET /refused`: the last refused requests, newest first.
pub(super) async fn refused(
    State(state): State<Arc<AdminState>>,
    Asked(query): Asked<RefusedQuery>,
) -> Result<Json<PageView<RefusedSample>>, AdminError> {
    Ok(Json(PageView::whole(state.samples.list(query.source()?.as_deref()))))
}
