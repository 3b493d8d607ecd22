//! The configured sources and how they fare, and what was refused at their doors.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;

use super::AdminState;
use super::error::AdminError;
use super::page::{Asked, EnrolQuery, PageView, RefusedQuery};
use super::view::SourceView;
use crate::model::Timestamp;
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

/// A window that was opened.
#[derive(Debug, Serialize)]
pub(super) struct Opened {
    source: String,
    until: Timestamp,
}

/// `POST /sources/{name}/enrol?for=10min`: lets the source's provider bring its secret by a handshake, once.
pub(super) async fn enrol(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
    Asked(query): Asked<EnrolQuery>,
) -> Result<(StatusCode, Json<Opened>), AdminError> {
    let until = state.clock.now() + query.span()?;
    if !state.sources.iter().any(|source| source.config.name == name) {
        return Err(AdminError::NotFound("source"));
    }
    if !state.enrolments.open(&name, until) {
        let why = format!(
            "The provider of {name} brings no secret by a handshake, or the source has no enrol_file to keep it in."
        );
        return Err(AdminError::Conflict("no_enrolment", why));
    }
    tracing::info!(source = name, %until, "an operator lets a handshake bring a secret");
    Ok((StatusCode::ACCEPTED, Json(Opened { source: name, until })))
}
