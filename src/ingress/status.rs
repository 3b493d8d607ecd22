//! `GET /events/{id}?token=`: what became of one event, for a caller whose wait ran out.
//!
//! The token is made for the event and given to its caller alone. Without it, or with another, this path answers as if
//! nothing were here. Nothing of the event's headers or body is ever shown.

use serde_json::value::RawValue;

use axum::body::Body;
use http::{Method, Response, StatusCode};

use super::Ingress;
use super::respond::{json, task};
use crate::inbox::EventDetail;
use crate::mapping::getter::shape;
use crate::model::{DeliveryState, EventId, Refusal};

/// The path of an event.
pub(super) const PATH: &str = "/events/";

#[derive(serde::Serialize)]
struct StatusView<'a> {
    event_id: EventId,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<Box<RawValue>>,
}

/// Answers a request below [`PATH`].
pub(super) async fn answer(
    ingress: &Ingress,
    head: &http::request::Parts,
) -> Result<Response<Body>, Refusal> {
    let id = asked(ingress, head).ok_or(Refusal::NotFound)?;
    if head.method != Method::GET {
        return Err(Refusal::Method("GET"));
    }
    let event = ingress
        .intake
        .inbox
        .event(id)
        .await
        .map_err(|error| Refusal::Inbox(error.to_string()))?;
    let event = event.ok_or(Refusal::NotFound)?;
    let (status, task) = stands(ingress, &event);
    let body = serde_json::to_string(&StatusView {
        event_id: id,
        status,
        task,
    })
    .map_err(|error| Refusal::Internal(error.to_string()))?;
    Ok(json(StatusCode::OK, body))
}

/// The event that a link with the right token is of.
pub(super) fn asked(ingress: &Ingress, head: &http::request::Parts) -> Option<EventId> {
    let id: EventId = head.uri.path().strip_prefix(PATH)?.parse().ok()?;
    let query = head.uri.query().unwrap_or_default().as_bytes();
    let (_, token) = form_urlencoded::parse(query).find(|(name, _)| name == "token")?;
    ingress.sealer.is_link_token(id, &token).then_some(id)
}

/// Where an event stands: as its last delivery does.
fn stands(ingress: &Ingress, event: &EventDetail) -> (&'static str, Option<Box<RawValue>>) {
    let Some(delivery) = event.deliveries.last() else {
        return ("filtered", None);
    };
    let status = match delivery.state {
        DeliveryState::Leased => "running",
        state => state.as_str(),
    };
    if delivery.state != DeliveryState::Delivered {
        return (status, None);
    }
    let task = task(delivery);
    // An event of a source that is gone, or of no source, is shown whole.
    let shaped = match ingress.intake.sources.get(&event.summary.source) {
        Some(source) => shape(&task, source.getter.as_ref(), source.config.json),
        None => task.to_vec(),
    };
    (
        status,
        String::from_utf8(shaped)
            .ok()
            .and_then(|text| RawValue::from_string(text).ok()),
    )
}
