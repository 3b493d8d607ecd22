//! Destinations: which there are and how they fare, held and let go by an operator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use serde::Serialize;

use super::AdminState;
use super::error::AdminError;
use super::page::PageView;
use super::source::{HeldView, hold};
use crate::inbox::Hold;
use crate::inbox::words::destination;
use crate::model::{Destination, Timestamp};

/// A destination and how it fares.
#[derive(Debug, Default, Serialize)]
pub(super) struct DestinationView {
    destination: String,
    /// The sources that send there as they are configured.
    sources: BTreeSet<String>,
    /// Since when what waits for it is held by an operator.
    paused_since: Option<Timestamp>,
}

/// The destination that a path names.
pub(super) struct Target(Destination);

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AdminError> {
        let missing = AdminError::NotFound("destination");
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((kind, id))) => destination(&format!("{kind}/{id}")).map(Self).ok_or(missing),
            Err(_) => Err(missing),
        }
    }
}

/// `GET /destinations`: those that a source sends to, and those that are held or in use.
pub(super) async fn list(State(state): State<Arc<AdminState>>) -> Result<Json<PageView<DestinationView>>, AdminError> {
    let mut views: BTreeMap<Destination, DestinationView> = BTreeMap::new();
    for source in &state.sources {
        if let Some(destination) = &source.config.destination {
            views.entry(destination.clone()).or_default().sources.insert(source.config.name.clone());
        }
    }
    for (held, since) in state.inbox.holds().await? {
        if let Hold::Destination(destination) = held {
            views.entry(destination).or_default().paused_since = Some(since);
        }
    }
    let items = views.into_iter().map(|(destination, view)| view.named(&destination)).collect();
    Ok(Json(PageView::whole(items)))
}

impl DestinationView {
    fn named(self, destination: &Destination) -> Self {
        Self { destination: destination.to_string(), ..self }
    }
}

/// `POST /destinations/{kind}/{id}/pause`: what waits for it is held. Callers with keys of their own name agents that
/// no source does, so any destination can be held.
pub(super) async fn pause(
    State(state): State<Arc<AdminState>>,
    Target(destination): Target,
) -> Result<Json<HeldView>, AdminError> {
    hold(&state, Hold::Destination(destination), true).await.map(Json)
}

/// `POST /destinations/{kind}/{id}/resume`
pub(super) async fn resume(
    State(state): State<Arc<AdminState>>,
    Target(destination): Target,
) -> Result<Json<HeldView>, AdminError> {
    hold(&state, Hold::Destination(destination), false).await.map(Json)
}
