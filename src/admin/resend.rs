//! An event sent again with changes, as a new event. The old one stays as it is.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::error::AdminError;
use super::name::PathId;
use super::page::StrictQuery;
use super::replay::{cannot, rendered};
use super::{AdminState, json};
use crate::api::replay::{DryRunOr, DryRunQuery, DryRunView, EventChanges, ResendView};
use crate::dispatch::replay::ReplayRefused;
use crate::inbox::EventDetail;
use crate::intake::{self, Trust};
use crate::model::{
    Accepted, DeliveryId, EventId, NewEvent, Received, Refusal, RequestId, Timestamp,
};
use crate::source::Source;
use crate::upstream::Call;

/// Header of a resent event with the id of the event that it was made of.
pub(super) const RESENT_FROM: &str = "sluicegate-resent-from";

/// `POST /events/{id}/resend`: makes a new event of the same source from an event and the operator's changes.
pub(super) async fn make(
    State(state): State<Arc<AdminState>>,
    PathId(id): PathId<EventId>,
    StrictQuery(query): StrictQuery<DryRunQuery>,
    request: Request,
) -> Result<(StatusCode, Json<DryRunOr<ResendView>>), AdminError> {
    let now = state.clock.now();
    state.replays.take(now).map_err(AdminError::Replays)?;
    let dry_run = query.dry_run()?;
    let event = state
        .inbox
        .event(id)
        .await?
        .ok_or(AdminError::NotFound("event"))?;
    if !event.attachments.is_empty() {
        let why = "It brought files, which stay with it. Replay it as it is.".to_owned();
        return Err(AdminError::Conflict("has_files", why));
    }
    let name = event.summary.source.clone();
    let source = state
        .compiled
        .get(&name)
        .ok_or_else(|| cannot(ReplayRefused::SourceGone, &name))?;
    let most = source.max_body.unwrap_or(state.max_body);
    let changes = json::read(request.into_body(), max_request(most)).await?;
    let received = changed(event, changes, most, now)?;
    let resent =
        by_hand(source, received).map_err(|refusal| AdminError::Unmappable(refusal.cause()))?;
    if dry_run {
        let preview = preview(&state, id, source, resent)?;
        return Ok((StatusCode::OK, Json(DryRunOr::DryRun(preview))));
    }
    no_destination(source, resent.filtered.is_some())?;
    let view = commit(&state, id, resent).await?;
    tracing::info!(
        audit = "event.resend", event = %view.event, resent_from = %id, source = name, filtered = view.filtered,
        "sent again by an operator"
    );
    Ok((StatusCode::ACCEPTED, Json(DryRunOr::Done(view))))
}

/// Shows the request that a resend of the event `from` would send.
fn preview(
    state: &AdminState,
    from: EventId,
    source: &Source,
    resent: NewEvent,
) -> Result<DryRunView, AdminError> {
    let config = &source.config;
    let request = match resent.deliveries.first() {
        Some(owed) => {
            let call = Call::of_event(&resent, owed, config, &state.marks, config.run_mode);
            Some(rendered(state, owed, &call)?)
        }
        None => None,
    };
    Ok(DryRunView {
        dry_run: true,
        event: from,
        filtered: resent.filtered,
        thread: resent.thread,
        request,
    })
}

/// Commits the new event that was made of the event `from`.
async fn commit(
    state: &AdminState,
    from: EventId,
    resent: NewEvent,
) -> Result<ResendView, AdminError> {
    let event = resent.id;
    let view = ResendView {
        event,
        resent_from: from,
        filtered: resent.filtered.clone(),
        deliveries: (0..)
            .zip(&resent.deliveries)
            .map(|(number, _)| DeliveryId { event, number })
            .collect(),
    };
    match state.inbox.accept(resent).await? {
        Accepted::New => Ok(view),
        Accepted::Duplicate(_) | Accepted::Replayed(_) | Accepted::Busy | Accepted::Behind => {
            Err(AdminError::Conflict(
                "not_kept",
                "The inbox did not keep it as a new event.".to_owned(),
            ))
        }
    }
}

/// Refuses a resend to a source without a destination. Such a source keeps events, but an operator who sends one
/// wants it delivered.
fn no_destination(source: &Source, filtered: bool) -> Result<(), AdminError> {
    if source.config.destination.is_none() && !filtered {
        return Err(cannot(ReplayRefused::NoDestination, &source.config.name));
    }
    Ok(())
}

/// Largest request for a body of at most `body` bytes. Written as JSON, a text takes up to six times its length.
pub(super) const fn max_request(body: u64) -> u64 {
    body.saturating_mul(6).saturating_add(json::MAX_BODY)
}

/// Makes the request of an event again, with the changes.
fn changed(
    event: EventDetail,
    changes: EventChanges,
    most: u64,
    now: Timestamp,
) -> Result<Received, AdminError> {
    let id = event.summary.id;
    let mut headers: HeaderMap = event
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
        .collect();
    let body = match (changes.body, changes.body_base64) {
        (Some(_), Some(_)) => {
            return Err(AdminError::Body(
                "body and body_base64 cannot both be given.".into(),
            ));
        }
        (Some(text), None) => Some(Bytes::from(text)),
        (None, Some(text)) => match STANDARD.decode(text) {
            Ok(bytes) => Some(bytes.into()),
            Err(_) => return Err(AdminError::Body("body_base64 is no base64.".into())),
        },
        (None, None) => None,
    };
    if body.is_some() {
        // These headers describe the old body.
        for name in [CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING] {
            headers.remove(name);
        }
    }
    for (name, value) in changes.headers {
        let wrong = |why: &str| AdminError::Body(format!("headers: {} {why}", name.escape_debug()));
        let key = HeaderName::try_from(&name).map_err(|_| wrong("is no name of a header."))?;
        match value {
            Value::Null => drop(headers.remove(key)),
            Value::String(text) => {
                let value = HeaderValue::try_from(text)
                    .map_err(|_| wrong("has a value that no header can have."))?;
                headers.insert(key, value);
            }
            _ => return Err(wrong("must be a text, or null to take it away.")),
        }
    }
    let from = HeaderValue::try_from(id.to_string()).map_err(|_| AdminError::NotFound("event"))?;
    headers.insert(HeaderName::from_static(RESENT_FROM), from);
    let body = body.unwrap_or(event.body);
    if body.len() as u64 > most {
        return Err(AdminError::TooLarge(most));
    }
    let (method, target) = event
        .request_line
        .split_once(' ')
        .unwrap_or(("POST", event.request_line.as_str()));
    Ok(Received {
        id: RequestId::new(),
        at: now,
        method: method.parse().unwrap_or(Method::POST),
        target: target.to_owned(),
        url: String::new(),
        headers,
        body,
        peer: Ipv4Addr::UNSPECIFIED.into(),
        certificate: None,
    })
}

/// Maps the request as its source does. The new event has no dedup key, and it may wait behind any number of turns:
/// an operator is not refused.
fn by_hand(source: &Source, request: Received) -> Result<NewEvent, Refusal> {
    let verified = Trust::Operator.vouch_for(request)?;
    let mapped = source.apply(&verified, false)?;
    Ok(NewEvent {
        dedup: None,
        most_ahead: None,
        backlog: None,
        ..intake::event(source, &verified, mapped)
    })
}
