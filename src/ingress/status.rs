//! `GET /events/{id}?token=`: what became of one event, for a caller whose wait ran out.
//!
//! The token is made for the event and given to its caller alone. Without it, or with another, this path answers as if
//! nothing were here. Nothing of the event's headers or body is ever shown.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use serde_json::value::RawValue;

use super::Ingress;
use super::acknowledge::json;
use super::door;
use super::door_kind::Door;
use super::request_log::{Answered, RequestLog};
use super::task::task_of;
use crate::inbox::EventDetail;
use crate::mapping::getter::shape;
use crate::model::{DeliveryState, EventId, Outcome, Refusal};

/// The path of an event.
const PATH: &str = "/events/";

#[derive(serde::Serialize)]
struct StatusView<'a> {
    event_id: EventId,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<Box<RawValue>>,
}

/// A request below [`PATH`].
pub(super) async fn at_event(
    State(ingress): State<Arc<Ingress>>,
    request: Request<Body>,
) -> Response<Body> {
    door::serve(ingress, Door::Source, request, show).await
}

/// Shows what became of the event of a link.
async fn show(
    ingress: &Ingress,
    (head, _): (Parts, Body),
    log: &mut RequestLog,
) -> Result<Answered, Refusal> {
    ingress.limits.caller(log.peer.0, &mut log.limits)?;
    let linked = linked(ingress, &head);
    ingress.limits.whole(linked.is_some())?;
    let id = linked.ok_or(Refusal::NotFound)?;
    if head.method != Method::GET {
        return Err(Refusal::Method("GET"));
    }
    let event = ingress
        .intake
        .inbox
        .event(id)
        .await
        .map_err(|error| Refusal::Inbox(error.to_string()))?
        .ok_or(Refusal::NotFound)?;
    let (status, task) = status(ingress, &event);
    let body = serde_json::to_string(&StatusView {
        event_id: id,
        status,
        task,
    })
    .map_err(|error| Refusal::Internal(error.to_string()))?;
    Ok(Answered {
        outcome: Outcome::Shown,
        event: None,
        answer: json(StatusCode::OK, body),
    })
}

/// The link to what becomes of an event, for its caller alone.
pub(super) fn link(ingress: &Ingress, id: EventId) -> String {
    let token = ingress.sealer.link_token(id);
    format!("{}{PATH}{id}?token={token}", ingress.public_url)
}

/// The event that a link with the right token is of.
fn linked(ingress: &Ingress, head: &Parts) -> Option<EventId> {
    let id: EventId = head.uri.path().strip_prefix(PATH)?.parse().ok()?;
    let query = head.uri.query().unwrap_or_default().as_bytes();
    let (_, token) = form_urlencoded::parse(query).find(|(name, _)| name == "token")?;
    ingress.sealer.is_link_token(id, &token).then_some(id)
}

/// The status of an event's last delivery, and its task object where that was delivered.
fn status(ingress: &Ingress, event: &EventDetail) -> (&'static str, Option<Box<RawValue>>) {
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
    let task = task_of(delivery);
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
