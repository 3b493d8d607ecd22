//! One event, owed again or sent again with changes. The event that was there stays as it is.

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
use super::{AdminState, json};
use crate::api::replay::{
    DryRunOr, DryRunQuery, DryRunView, EventChanges, ReplayView, RequestView, ResendView,
};
use crate::dispatch::replay::{ReplayRefused, mapped_anew, owed_again};
use crate::inbox::{Anew, EventDetail, Replayed, SealedCall};
use crate::intake::{self, Trust};
use crate::model::{
    Accepted, DeliveryId, EventId, NewDelivery, NewEvent, Received, Refusal, RequestId, Timestamp,
};
use crate::source::Source;
use crate::upstream::Call;

/// The header of a resent event that names the event it came from.
pub(super) const RESENT_FROM: &str = "sluicegate-resent-from";

/// What stands for a key.
const MASK: &str = "***";

/// `POST /events/{id}/replay`: owes the event again, to where its source sends events now. With `dry_run=true` it
/// only shows the request that would go out.
pub(super) async fn replay(
    State(state): State<Arc<AdminState>>,
    PathId(id): PathId<EventId>,
    StrictQuery(query): StrictQuery<DryRunQuery>,
) -> Result<(StatusCode, Json<DryRunOr<ReplayView>>), AdminError> {
    let now = state.clock.now();
    state.replays.take(now).map_err(AdminError::Replays)?;
    if query.dry_run()? {
        let mut event = state
            .inbox
            .event(id)
            .await?
            .ok_or(AdminError::NotFound("event"))?;
        let remapped = remapped(&state, &mut event)?.is_some();
        let preview = preview(&state, &event, remapped).await?;
        return Ok((StatusCode::OK, Json(DryRunOr::DryRun(preview))));
    }
    let _one_at_a_time = state.replaying.lock().await;
    let mut event = state
        .inbox
        .event(id)
        .await?
        .ok_or(AdminError::NotFound("event"))?;
    let anew = remapped(&state, &mut event)?;
    let name = &event.summary.source;
    let source = state
        .source(name)
        .map(|source| (&*source.config, &*state.ids));
    let (number, owed) = owed_again(source, &event).map_err(|why| cannot(why, name))?;
    let filtered = anew.as_ref().and_then(|anew| anew.filtered.clone());
    let owed = if filtered.is_some() {
        Vec::new()
    } else {
        vec![owed]
    };
    let deliveries = owe_again(&state, id, number, (owed, anew), now).await?;
    if let Some(rule) = &filtered {
        tracing::info!(audit = "event.replay", event = %id, source = name, filtered = rule, "mapped anew, and filtered");
    }
    for delivery in &deliveries {
        tracing::info!(audit = "event.replay", event = %id, %delivery, source = name, "replayed by an operator");
    }
    Ok((
        StatusCode::ACCEPTED,
        Json(DryRunOr::Done(ReplayView {
            event: id,
            filtered,
            deliveries,
        })),
    ))
}

/// Owes the event once more. Two operators at once are not to owe it under one number.
async fn owe_again(
    state: &AdminState,
    id: EventId,
    number: u32,
    (owed, anew): (Vec<NewDelivery>, Option<Anew>),
    now: Timestamp,
) -> Result<Vec<DeliveryId>, AdminError> {
    let replayed = match anew {
        None => state.inbox.replay(id, number, owed, now).await?,
        Some(anew) => state.inbox.replay_anew(id, number, owed, anew, now).await?,
    };
    match replayed {
        Replayed::Made(deliveries) => Ok(deliveries),
        Replayed::NoEvent => Err(AdminError::NotFound("event")),
        Replayed::Moved => Err(AdminError::Conflict(
            "replayed_meanwhile",
            "Somebody else has replayed this event just now. Look at it, and replay it again if it is still to be."
                .to_owned(),
        )),
    }
}

/// Maps an event anew that could not be mapped when it came; gives what of that is to be kept.
fn remapped(state: &AdminState, event: &mut EventDetail) -> Result<Option<Anew>, AdminError> {
    if event.is_unmapped() && state.source(&event.summary.source).is_none() {
        return Err(cannot(ReplayRefused::SourceGone, &event.summary.source));
    }
    mapped_anew(&intake::Remapper(state.compiled.clone()), event).map_err(|why| {
        let sentence = format!(
            "The event still cannot be mapped: {why}. Mend the mapping of the source {}, reload, and replay it again.",
            event.summary.source
        );
        AdminError::Conflict(ReplayRefused::StillUnmappable.as_str(), sentence)
    })
}

/// Why one event cannot be owed again, for people.
fn cannot(why: ReplayRefused, source: &str) -> AdminError {
    let sentence = match why {
        ReplayRefused::SourceGone => {
            format!(
                "The source {source} of this event is not configured any more. Configure it again to replay."
            )
        }
        ReplayRefused::NoDestination => {
            format!("The source {source} has no destination to replay to.")
        }
        ReplayRefused::CallErased => {
            "This event was sent with its caller's own key, which was erased when its delivery \
                                 ended. Ask the caller to send it again."
                .to_owned()
        }
        ReplayRefused::OnItsWay => "The event's last delivery has not ended.".to_owned(),
        ReplayRefused::ReplayedSince => "The event was replayed since.".to_owned(),
        ReplayRefused::StillUnmappable => {
            format!("The event still cannot be mapped by the source {source}.")
        }
    };
    AdminError::Conflict(why.as_str(), sentence)
}

/// The request that a replay would send.
async fn preview(
    state: &AdminState,
    event: &EventDetail,
    remapped: bool,
) -> Result<DryRunView, AdminError> {
    let name = &event.summary.source;
    let source = state.source(name).map(|source| &*source.config);
    let (_, owed) = owed_again(source.map(|source| (source, &*state.ids)), event)
        .map_err(|why| cannot(why, name))?;
    if remapped && let Some(rule) = &event.summary.filtered {
        let (event, filtered) = (event.summary.id, Some(rule.clone()));
        return Ok(DryRunView {
            dry_run: true,
            event,
            filtered,
            thread: None,
            request: None,
        });
    }
    let Some(source) = source.filter(|_| {
        event
            .deliveries
            .last()
            .is_none_or(|last| last.sealed == SealedCall::None)
    }) else {
        return Err(AdminError::Conflict(
            "call_sealed",
            "This event was sent with its caller's own key. Its call is kept closed and is shown to nobody.".to_owned(),
        ));
    };
    let links = match &state.files {
        Some(files) if !event.attachments.is_empty() => {
            files.links(&event.attachments, state.clock.now()).await
        }
        _ => Ok(Vec::new()),
    };
    let links = links.map_err(|error| {
        AdminError::Conflict("no_request", format!("There are no links: {error}"))
    })?;
    let request = rendered(
        state,
        &owed,
        &Call::of_kept(event, &owed, source, &state.marks).with_files(&links),
    )?;
    Ok(DryRunView {
        dry_run: true,
        event: event.summary.id,
        filtered: None,
        thread: event.summary.thread.clone(),
        request: Some(request),
    })
}

/// A call as the upstream would get it, with what is secret masked.
fn rendered(
    state: &AdminState,
    owed: &NewDelivery,
    call: &Call,
) -> Result<RequestView, AdminError> {
    let cannot = |why: String| {
        AdminError::Conflict("no_request", format!("No request can be made of it: {why}"))
    };
    let request = state
        .upstream
        .request_of(call)
        .map_err(|error| cannot(error.to_string()))?;
    let headers = request.headers().iter().map(|(name, value)| {
        let value = if value.is_sensitive() {
            MASK.into()
        } else {
            String::from_utf8_lossy(value.as_bytes())
        };
        (name.as_str().to_owned(), value.into_owned())
    });
    Ok(RequestView {
        destination: owed.destination.to_string(),
        method: request.method().to_string(),
        path: request
            .uri()
            .path_and_query()
            .map_or_else(|| "/".to_owned(), ToString::to_string),
        headers: headers.collect(),
        body: serde_json::from_slice(request.body()).map_err(|error| cannot(error.to_string()))?,
    })
}

/// `POST /events/{id}/resend`: a new event of the same source, made of this one and what is changed.
pub(super) async fn resend(
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
        let owed = resent.deliveries.first();
        let request = owed
            .map(|owed| {
                rendered(
                    &state,
                    owed,
                    &Call::of_event(
                        &resent,
                        owed,
                        &source.config,
                        &state.marks,
                        source.config.run_mode,
                    ),
                )
            })
            .transpose()?;
        let view = DryRunView {
            dry_run,
            event: id,
            filtered: resent.filtered,
            thread: resent.thread,
            request,
        };
        return Ok((StatusCode::OK, Json(DryRunOr::DryRun(view))));
    }
    no_destination(source, resent.filtered.is_some())?;
    let view = ResendView {
        event: resent.id,
        resent_from: id,
        filtered: resent.filtered.clone(),
        deliveries: (0..)
            .zip(&resent.deliveries)
            .map(|(number, _)| DeliveryId {
                event: resent.id,
                number,
            })
            .collect(),
    };
    match state.inbox.accept(resent).await? {
        Accepted::New => {}
        Accepted::Duplicate(_) | Accepted::Replayed(_) | Accepted::Busy | Accepted::Behind => {
            return Err(AdminError::Conflict(
                "not_kept",
                "The inbox did not keep it as a new event.".to_owned(),
            ));
        }
    }
    tracing::info!(
        audit = "event.resend", event = %view.event, resent_from = %id, source = name, filtered = view.filtered,
        "sent again by an operator"
    );
    Ok((StatusCode::ACCEPTED, Json(DryRunOr::Done(view))))
}

/// A source that sends nowhere keeps what comes in; an operator who sends wants it to arrive.
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

/// The request that an event came by, with the changes.
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
        // They speak of the bytes that were there.
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

/// The event that an operator sends by hand, as its source reads it. It has no double, and waits behind any number of
/// turns: an operator is not turned away.
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
