//! Events: list, show, body.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

use super::AdminState;
use super::error::AdminError;
use super::name::PathId;
use super::page::StrictQuery;
use crate::api::event::{EventPage, EventQuery, EventView};
use crate::api::page::PageView;
use crate::inbox::{EventDetail, EventSummary, Page};
use crate::intake;
use crate::mapping::PathMiss;
use crate::model::{self, Attempt, DeliveryId, EventId};

/// Time limit for the reason of one event in a list. A delivery that is being sent again is locked for longer.
const JUST_NOW: Duration = Duration::from_millis(100);

/// `GET /events`: lists the events that a filter fits.
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    StrictQuery(query): StrictQuery<EventQuery>,
) -> Result<Json<PageView<EventView>>, AdminError> {
    let filter = query.filter()?;
    state.can_search(&filter)?;
    state.check_source(filter.source.as_deref()).await?;
    let page = state.in_time(state.inbox.events(&filter)).await?;
    let mut items = Vec::with_capacity(page.items.len());
    let pending = |event: &&EventSummary| event.states.contains(&model::DeliveryState::Pending);
    let pending = page
        .items
        .iter()
        .filter(pending)
        .map(|event| event.id)
        .collect();
    let mut waits = state.waits(pending).await?;
    for event in page.items {
        let reason = reason(&state, &event).await?;
        let last = event
            .states
            .iter()
            .rposition(|state| *state == model::DeliveryState::Pending);
        let last = last
            .and_then(|number| u32::try_from(number).ok())
            .map(|number| DeliveryId {
                event: event.id,
                number,
            });
        let waits = last.and_then(|last| waits.remove(&last));
        items.push(EventView::new(event, reason, waits));
    }
    let holds = state.inbox.pauses().await?;
    Ok(Json(
        PageView::of(
            Page {
                items,
                next: page.next,
            },
            |event| event,
        )
        .with_paused(&holds),
    ))
}

/// Reads the last attempt of an event's last delivery, if that is dead or unknown.
async fn reason(state: &AdminState, event: &EventSummary) -> Result<Option<Attempt>, AdminError> {
    let Some(number) = event
        .states
        .len()
        .checked_sub(1)
        .and_then(|number| u32::try_from(number).ok())
    else {
        return Ok(None);
    };
    if !event
        .states
        .last()
        .is_some_and(|state| state.needs_attention())
    {
        return Ok(None);
    }
    let id = DeliveryId {
        event: event.id,
        number,
    };
    // The delivery has ended. The read waits only if it was sent again just now, and then its old reason is out of
    // date.
    match tokio::time::timeout(JUST_NOW, state.inbox.ended(id)).await {
        Ok(ended) => Ok(ended?.and_then(|mut delivery| delivery.tries.pop())),
        Err(_) => Ok(None),
    }
}

/// `GET /events/{id}`: shows an event with all its parts.
pub(super) async fn show(
    State(state): State<Arc<AdminState>>,
    PathId(id): PathId<EventId>,
) -> Result<Json<EventPage>, AdminError> {
    let event = state
        .inbox
        .event(id)
        .await?
        .ok_or(AdminError::NotFound("event"))?;
    let notes = notes(&state, &event);
    let source = state.compiled.get(&event.summary.source).cloned();
    let waits = match event
        .summary
        .states
        .contains(&model::DeliveryState::Pending)
    {
        true => state.waits(vec![id]).await?,
        false => HashMap::new(),
    };
    Ok(Json(EventPage::new(
        event,
        &notes,
        source.as_deref(),
        waits,
    )))
}

/// Maps an event once more, as its source is configured now, and gives the configured paths that find nothing in it.
fn notes(state: &AdminState, event: &EventDetail) -> Vec<PathMiss> {
    let Some(source) = state.compiled.get(&event.summary.source) else {
        return Vec::new();
    };
    source.mapping.explain(&intake::request_of(event)).notes
}

/// `GET /events/{id}/body`: gives the whole body as it was received. It is a third party's, so a browser must not
/// show it as a page.
pub(super) async fn body(
    State(state): State<Arc<AdminState>>,
    PathId(id): PathId<EventId>,
) -> Result<Response, AdminError> {
    let event = state
        .inbox
        .event(id)
        .await?
        .ok_or(AdminError::NotFound("event"))?;
    let headers = [
        (CONTENT_TYPE, "application/octet-stream"),
        (CONTENT_DISPOSITION, "attachment"),
    ];
    Ok((headers, event.body).into_response())
}
