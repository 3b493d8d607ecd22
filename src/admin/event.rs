//! Events: list, show.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

use super::error::AdminError;
use super::page::{Asked, EventQuery, PageView};
use super::view::{EventPage, EventView};
use super::{AdminState, Named};
use crate::inbox::EventDetail;
use crate::mapping::Note;
use crate::model::{EventId, Received, RequestId};

/// `GET /events`
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    Asked(query): Asked<EventQuery>,
) -> Result<Json<PageView<EventView>>, AdminError> {
    let filter = query.filter()?;
    state.can_search(&filter)?;
    let page = state.in_time(state.inbox.events(&filter)).await?;
    Ok(Json(PageView::new(page, EventView::from)))
}

/// `GET /events/{id}`
pub(super) async fn show(
    State(state): State<Arc<AdminState>>,
    Named(id): Named<EventId>,
) -> Result<Json<EventPage>, AdminError> {
    let event = state.inbox.event(id).await?.ok_or(AdminError::NotFound("event"))?;
    let notes = notes(&state, &event);
    Ok(Json(EventPage::new(event, &notes)))
}

/// Why configured paths found nothing in an event: its source reads it once more, as it is configured now.
fn notes(state: &AdminState, event: &EventDetail) -> Vec<Note> {
    let Some(source) = state.compiled.get(&event.summary.source) else { return Vec::new() };
    let (method, target) = event.request_line.split_once(' ').unwrap_or(("POST", event.request_line.as_str()));
    let headers = event.headers.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
    let request = Received {
        id: RequestId::new(),
        at: event.summary.received_at,
        method: method.parse().unwrap_or(Method::POST),
        target: target.to_owned(),
        url: String::new(),
        headers: headers.collect(),
        body: event.body.clone(),
        peer: Ipv4Addr::UNSPECIFIED.into(),
    };
    source.mapping.explain(&request).notes
}

/// `GET /events/{id}/body`: the body as it came, whole. It is somebody else's, so it is never shown in a page.
pub(super) async fn body(
    State(state): State<Arc<AdminState>>,
    Named(id): Named<EventId>,
) -> Result<Response, AdminError> {
    let event = state.inbox.event(id).await?.ok_or(AdminError::NotFound("event"))?;
    let headers = [(CONTENT_TYPE, "application/octet-stream"), (CONTENT_DISPOSITION, "attachment")];
    Ok((headers, event.body).into_response())
}
