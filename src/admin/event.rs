//! Events: list, show, replay.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use serde::Serialize;

use super::error::AdminError;
use super::page::{Asked, EventQuery, PageView};
use super::view::{EventPage, EventView};
use super::{AdminState, Named};
use crate::inbox::{DeliveryDetail, EventDetail, Replayed, SealedCall};
use crate::mapping::Note;
use crate::model::{DeliveryId, EventId, NewDelivery, Received, RequestId, Timestamp};

/// `GET /events`
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    Asked(query): Asked<EventQuery>,
) -> Result<Json<PageView<EventView>>, AdminError> {
    let page = state.inbox.events(&query.filter()?).await?;
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

/// What a replay has made.
#[derive(Debug, Serialize)]
pub(super) struct ReplayView {
    event: EventId,
    deliveries: Vec<DeliveryId>,
}

/// `POST /events/{id}/replay`: owes the event again, to where its source sends events now.
pub(super) async fn replay(
    State(state): State<Arc<AdminState>>,
    Named(id): Named<EventId>,
) -> Result<(StatusCode, Json<ReplayView>), AdminError> {
    let now = state.clock.now();
    state.replays.take(now).map_err(AdminError::Replays)?;
    let _one_at_a_time = state.replaying.lock().await;
    let event = state.inbox.event(id).await?.ok_or(AdminError::NotFound("event"))?;
    let name = &event.summary.source;
    if let Some(last) = event.deliveries.last().filter(|last| last.sealed != SealedCall::None) {
        let deliveries = replay_sealed(&state, last, now).await?;
        return Ok((StatusCode::ACCEPTED, Json(ReplayView { event: id, deliveries })));
    }
    let source = state.sources.iter().find(|source| source.config.name == *name).ok_or_else(|| {
        AdminError::Conflict(
            "source_gone",
            format!("The source {name} of this event is not configured any more. Configure it again to replay."),
        )
    })?;
    let number = event.deliveries.iter().map(|delivery| delivery.id.number.saturating_add(1)).max().unwrap_or(0);
    let owed =
        source.config.owed(DeliveryId { event: id, number }, event.summary.thread.as_deref()).ok_or_else(|| {
            AdminError::Conflict("no_destination", format!("The source {name} has no destination to replay to."))
        })?;
    let deliveries = owe_again(&state, id, number, owed, now).await?;
    for delivery in &deliveries {
        tracing::info!(event = %id, %delivery, source = name, "replayed by an operator");
    }
    Ok((StatusCode::ACCEPTED, Json(ReplayView { event: id, deliveries })))
}

/// Owes the event once more. Two operators at once are not to owe it under one number.
async fn owe_again(
    state: &AdminState,
    id: EventId,
    number: u32,
    owed: NewDelivery,
    now: Timestamp,
) -> Result<Vec<DeliveryId>, AdminError> {
    match state.inbox.replay(id, number, vec![owed], now).await? {
        Replayed::Made(deliveries) => Ok(deliveries),
        Replayed::NoEvent => Err(AdminError::NotFound("event")),
        Replayed::Moved => Err(AdminError::Conflict(
            "replayed_meanwhile",
            "Somebody else has replayed this event just now. Look at it, and replay it again if it is still to be."
                .to_owned(),
        )),
    }
}

/// Owes a caller's own call again, as it was made, while it is still there.
async fn replay_sealed(
    state: &AdminState,
    last: &DeliveryDetail,
    now: Timestamp,
) -> Result<Vec<DeliveryId>, AdminError> {
    let event = last.id.event;
    if last.sealed == SealedCall::Erased {
        return Err(AdminError::Conflict(
            "call_erased",
            "This event was sent with its caller's own key, which was erased when its delivery ended. Ask the caller \
             to send it again."
                .to_owned(),
        ));
    }
    let owed = NewDelivery {
        destination: last.destination.clone(),
        lane: last.destination.lane(&last.upstream_id),
        upstream_id: last.upstream_id.clone(),
        // The inbox takes it over from the last delivery.
        sealed: None,
    };
    let deliveries = owe_again(state, event, last.id.number.saturating_add(1), owed, now).await?;
    for delivery in &deliveries {
        tracing::info!(%event, %delivery, "replayed by an operator, as its caller made it");
    }
    Ok(deliveries)
}
