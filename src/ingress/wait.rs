//! `respond = "wait"`: the caller waits for the end of its event's run.
//!
//! The wait begins when the event is kept: whatever becomes of the connection, the delivery goes on, and a link shows
//! its end.

use axum::body::Body;
use http::{Response, StatusCode};

use super::acknowledge::{acknowledge, json, with_event_id};
use super::request_log::RequestLog;
use super::task::task_of;
use super::{Ingress, status};
use crate::config::Ack;
use crate::inbox::DeliveryDetail;
use crate::intake::Receipt;
use crate::mapping::getter::shape;
use crate::model::{DeliveryId, DeliveryState, EventId, NewEvent, Outcome, Refusal};
use crate::source::Source;

/// Keeps the event and waits for the end of its delivery. A duplicate waits for the delivery of the first event.
pub(super) async fn until_ended(
    ingress: &Ingress,
    source: &Source,
    ack: &Ack,
    event: NewEvent,
    log: &mut RequestLog,
) -> Result<(Receipt, Response<Body>), Refusal> {
    let receipt = ingress.intake.accept_one(event).await?;
    if receipt.outcome == Outcome::Filtered {
        return Ok((receipt, acknowledge(ack, receipt)));
    }
    let id = receipt.event;
    log.waits(receipt.outcome, Some(id));
    let ended = tokio::select! {
        ended = ingress.intake.inbox.ended(DeliveryId { event: id, number: 0 }) => ended,
        () = tokio::time::sleep(source.wait) => return Ok((receipt, link(ingress, source, id))),
        // A caller that waits on would hold up the stop.
        () = ingress.stopping.cancelled() => return Ok((receipt, link(ingress, source, id))),
    };
    let answer = match ended {
        // The first event was filtered: nothing is owed.
        Ok(None) => acknowledge(ack, receipt),
        Ok(Some(delivery)) => of_ended(ingress, source, id, &delivery),
        Err(error) => {
            // The event is kept all the same.
            tracing::error!(event = %id, %error, "cannot wait for a delivery's end");
            link(ingress, source, id)
        }
    };
    Ok((receipt, with_event_id(answer, id)))
}

/// The answer to the caller of a delivery that has ended.
fn of_ended(
    ingress: &Ingress,
    source: &Source,
    id: EventId,
    delivery: &DeliveryDetail,
) -> Response<Body> {
    match delivery.state {
        DeliveryState::Delivered => json(
            StatusCode::OK,
            shape(
                &task_of(delivery),
                source.getter.as_ref(),
                source.config.json,
            ),
        ),
        DeliveryState::Dead => {
            undelivered(id, "dead", "The agent could not be run with this event.")
        }
        DeliveryState::Unmappable => undelivered(
            id,
            "unmappable",
            "The agent could not be run with this event.",
        ),
        DeliveryState::Cancelled => {
            undelivered(id, "cancelled", "An operator has called this event off.")
        }
        DeliveryState::Dropped => undelivered(
            id,
            "dropped",
            "A later event of the conversation took this one's place.",
        ),
        // A merged delivery ends with the one that it went with.
        DeliveryState::Merged
        | DeliveryState::Unknown
        | DeliveryState::Pending
        | DeliveryState::Leased => link(ingress, source, id),
    }
}

/// The answer to a caller whose wait is over: the event is kept, and its end will be shown at a link.
fn link(ingress: &Ingress, source: &Source, id: EventId) -> Response<Body> {
    let url = status::link(ingress, id);
    let body =
        serde_json::json!({ "status": "accepted", "event_id": id.to_string(), "status_url": url });
    let status = source
        .ack
        .status
        .and_then(|status| StatusCode::from_u16(status).ok());
    with_event_id(
        json(status.unwrap_or(StatusCode::ACCEPTED), body.to_string()),
        id,
    )
}

fn undelivered(id: EventId, code: &str, detail: &str) -> Response<Body> {
    let body = serde_json::json!({ "detail": detail, "code": code, "event_id": id.to_string() });
    json(StatusCode::BAD_GATEWAY, body.to_string())
}
