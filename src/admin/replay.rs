//! One event, delivered again as it is. The old deliveries stay as they are.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::AdminState;
use super::error::AdminError;
use super::name::PathId;
use super::page::StrictQuery;
use crate::api::replay::{DryRunOr, DryRunQuery, DryRunView, ReplayView, RequestView};
use crate::dispatch::replay::{ReplayRefused, mapped_anew, owed_again};
use crate::inbox::{Anew, EventDetail, Replayed, SealedCall};
use crate::intake;
use crate::model::{DeliveryId, EventId, NewDelivery, Timestamp};
use crate::upstream::Call;

/// Text in place of a secret.
const MASK: &str = "***";

/// `POST /events/{id}/replay`: makes a new delivery of an event, to the current destination of its source. With
/// `dry_run=true` it only shows the request that would be sent.
pub(super) async fn make(
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

/// Commits the new delivery. Two operators at the same time must not use the same number for it.
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

/// Maps an event again that was unmappable, and gives the result to keep.
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

/// Makes the error for an event that cannot be replayed.
pub(super) fn cannot(why: ReplayRefused, source: &str) -> AdminError {
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

/// Makes the request that a replay would send.
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

/// Shows a call as the upstream would get it, with secrets masked.
pub(super) fn rendered(
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
