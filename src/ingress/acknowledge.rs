//! Acknowledgements: answers to the sender of kept events, as its provider wants them or in our JSON.

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::config::Ack;
use crate::intake::Receipt;
use crate::model::{EventId, Outcome};

/// Header with the id of an event, on the answer to its sender.
pub(super) const EVENT_ID: HeaderName = HeaderName::from_static("sluicegate-event-id");

/// Our JSON for the sender of an event.
#[derive(Serialize)]
struct Acknowledgement {
    status: &'static str,
    event_id: String,
    /// Each event of a request that brought several, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<Acknowledgement>,
}

impl Acknowledgement {
    fn of(receipt: &Receipt) -> Self {
        Self {
            status: receipt.outcome.told(),
            event_id: receipt.event.to_string(),
            events: Vec::new(),
        }
    }
}

/// Acknowledges one event.
pub(super) fn acknowledge(ack: &Ack, receipt: Receipt) -> Response<Body> {
    answer(ack, receipt.event, || Acknowledgement::of(&receipt))
}

/// Acknowledges several events; our JSON lists each of them, in order. `leading` is the place of the one that speaks for
/// all.
pub(super) fn acknowledge_all(ack: &Ack, receipts: &[Receipt], leading: usize) -> Response<Body> {
    let receipt = &receipts[leading];
    answer(ack, receipt.event, || Acknowledgement {
        events: receipts.iter().map(Acknowledgement::of).collect(),
        ..Acknowledgement::of(receipt)
    })
}

/// The place of the receipt that speaks for all of a request: the first new event's, or else the first.
pub(super) fn leading(receipts: &[Receipt]) -> usize {
    [
        Outcome::Accepted,
        Outcome::Unmappable,
        Outcome::Filtered,
        Outcome::Duplicate,
    ]
    .into_iter()
    .find_map(|wanted| {
        receipts
            .iter()
            .position(|receipt| receipt.outcome == wanted)
    })
    .unwrap_or(0)
}

fn answer(ack: &Ack, id: EventId, ours: impl FnOnce() -> Acknowledgement) -> Response<Body> {
    let (kind, body) = match &ack.text {
        Some(text) => ("text/plain; charset=utf-8", text.clone()),
        // Texts alone can always be written.
        None => (
            "application/json",
            serde_json::to_string(&ours()).unwrap_or_default(),
        ),
    };
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = ack
        .status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or(StatusCode::ACCEPTED);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in &ack.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.headers_mut().insert(name, value);
        }
    }
    with_event_id(answer, id)
}

/// The same answer with the id of its event.
pub(super) fn with_event_id(mut answer: Response<Body>, id: EventId) -> Response<Body> {
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        answer.headers_mut().insert(EVENT_ID, id);
    }
    answer
}

/// JSON for one caller alone.
pub(super) fn json(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
