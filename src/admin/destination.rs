//! Destinations: a list with their condition, holds on them, and a reset of their breakers.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;

use super::AdminState;
use super::error::AdminError;
use super::hold::hold;
use super::page::StrictQuery;
use super::waiting::own;
use crate::api::delivery::WaitView;
use crate::api::destination::{DestinationView, FareView, ForceQuery, ResetView};
use crate::api::page::PageView;
use crate::api::source::HeldView;
use crate::dispatch::DestinationStatus;
use crate::inbox::Pause;
use crate::inbox::filter::destination;
use crate::model::{Account, Destination};

impl From<&DestinationStatus> for FareView {
    fn from(fare: &DestinationStatus) -> Self {
        Self {
            account: fare.account.to_string(),
            in_flight: fare.in_flight,
            breaker: fare.breaker.as_str().to_owned(),
            since: fare.since,
            failures: fare.failures,
            next_probe: fare.next_probe,
            waits_for: fare.closed.map(|closed| closed.as_str().to_owned()),
            waits_until: fare.closed_until,
        }
    }
}

/// Destination in a path.
pub(super) struct PathDestination(Destination);

impl<S: Send + Sync> FromRequestParts<S> for PathDestination {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AdminError> {
        let missing = AdminError::NotFound("destination");
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((kind, id))) => destination(&format!("{kind}/{id}"))
                .map(Self)
                .ok_or(missing),
            Err(_) => Err(missing),
        }
    }
}

/// `GET /destinations`: lists the destinations that a source sends to, that are held, or that this process calls.
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<PageView<DestinationView>>, AdminError> {
    let mut views: BTreeMap<Destination, DestinationView> = BTreeMap::new();
    for source in &state.sources {
        if let Some(destination) = &source.config.destination {
            views
                .entry(destination.clone())
                .or_default()
                .sources
                .insert(source.config.name.clone());
        }
    }
    let holds = state.inbox.pauses().await?;
    for (held, since) in &holds {
        if let Pause::Destination(destination) = held {
            views.entry(destination.clone()).or_default().paused_since = Some(*since);
        }
    }
    let every = holds
        .iter()
        .find(|(hold, _)| *hold == Pause::All)
        .map(|(_, since)| *since);
    for fare in state
        .dispatcher
        .iter()
        .flat_map(|dispatcher| dispatcher.destinations())
    {
        // The operator's own calls come first in this list.
        let view = views.entry(fare.destination.clone()).or_default();
        // Only the operator's own calls count here; the failures of another account do not delay them.
        if fare.account == Account::Operator {
            let route = own("", fare.destination.clone());
            view.waits_for = fare
                .closed
                .map(|why| WaitView::closed(why, &route, fare.closed_until));
        }
        match view.fare {
            None => view.fare = Some(FareView::from(&fare)),
            Some(_) => view.others.push(FareView::from(&fare)),
        }
    }
    for (destination, view) in &mut views {
        let since = |what: String| move |since| WaitView::paused(&what, since);
        let paused = every
            .map(since("every run".into()))
            .or(view.paused_since.map(since(destination.to_string())));
        view.waits_for = paused.or(view.waits_for.take());
    }
    let items = views
        .into_iter()
        .map(|(destination, view)| DestinationView {
            destination: destination.to_string(),
            ..view
        })
        .collect();
    Ok(Json(PageView::whole(items).with_paused(&holds)))
}

/// `POST /destinations/{kind}/{id}/pause`: holds the deliveries to a destination. Callers with keys of their own name
/// agents that no source does, so `force=true` holds any destination.
pub(super) async fn pause(
    State(state): State<Arc<AdminState>>,
    PathDestination(destination): PathDestination,
    StrictQuery(query): StrictQuery<ForceQuery>,
) -> Result<Json<HeldView>, AdminError> {
    let destination = state.destination(destination, query.force()?).await?;
    hold(&state, Pause::Destination(destination), true)
        .await
        .map(Json)
}

/// `POST /destinations/{kind}/{id}/resume`: ends the hold on a destination.
pub(super) async fn resume(
    State(state): State<Arc<AdminState>>,
    PathDestination(destination): PathDestination,
    StrictQuery(query): StrictQuery<ForceQuery>,
) -> Result<Json<HeldView>, AdminError> {
    let destination = state.destination(destination, query.force()?).await?;
    hold(&state, Pause::Destination(destination), false)
        .await
        .map(Json)
}

/// `POST /destinations/{kind}/{id}/reset`: closes the breaker and ends a pause that the destination asked for. Each
/// process has breakers of its own; this resets those of the process that is asked.
pub(super) async fn reset(
    State(state): State<Arc<AdminState>>,
    PathDestination(destination): PathDestination,
    StrictQuery(query): StrictQuery<ForceQuery>,
) -> Result<Json<ResetView>, AdminError> {
    let dispatcher = state.dispatcher.as_ref().ok_or_else(|| {
        let sentence = "This process sends nothing; ask one that has the role dispatch.";
        AdminError::Conflict("not_dispatching", sentence.to_owned())
    })?;
    let destination = state.destination(destination, query.force()?).await?;
    let changed = dispatcher.reset(&destination);
    if changed {
        tracing::info!(audit = "destination.reset", %destination, "an operator has it called again");
    }
    Ok(Json(ResetView {
        destination: destination.to_string(),
        changed,
    }))
}
