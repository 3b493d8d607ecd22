//! Sources: their condition, and holds on their deliveries.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};

use super::error::AdminError;
use super::health::open;
use super::hold::hold;
use super::{AdminState, ConfiguredSource};
use crate::api::page::PageView;
use crate::api::source::{HeldView, SourceView};
use crate::inbox::{Count, Pause, SourceFare};
use crate::model::{DeliveryState, Timestamp};

/// `GET /sources`: lists the configured sources in their order, then those that only the inbox knows.
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<PageView<SourceView>>, AdminError> {
    let facts = SourceFacts {
        counts: state.inbox.counts().await?,
        holds: state.inbox.pauses().await?,
        fares: state.in_time(state.inbox.source_fares()).await?,
        spent: state
            .in_time(state.inbox.spent(state.clock.now().day()))
            .await?,
    };
    let configured = |source: &ConfiguredSource| {
        let config = &source.config;
        let secrets = config.secrets.iter();
        SourceView {
            configured: true,
            path: Some(format!("/hooks/{}", config.name)),
            provider: Some(config.provider.value.clone()),
            provider_title: source.provider_title.clone(),
            destination: config.destination.as_ref().map(ToString::to_string),
            secrets: secrets.map(|secret| secret.name().to_owned()).collect(),
            ..facts.view(&state, &config.name)
        }
    };
    let mut views: Vec<SourceView> = state.sources.iter().map(configured).collect();
    for name in facts.names() {
        if !views.iter().any(|view| view.name == *name) {
            views.push(facts.view(&state, name));
        }
    }
    Ok(Json(PageView::whole(views).with_paused(&facts.holds)))
}

/// Facts of the inbox about all sources.
struct SourceFacts {
    counts: Vec<Count>,
    holds: Vec<(Pause, Timestamp)>,
    fares: Vec<SourceFare>,
    /// Budgets with the runs that were counted against them today.
    spent: Vec<(String, u64)>,
}

impl SourceFacts {
    /// The names of the sources that have deliveries or events, or that are held.
    fn names(&self) -> impl Iterator<Item = &String> {
        let held = self.holds.iter().filter_map(|(hold, _)| match hold {
            Pause::Source(name) => Some(name),
            Pause::All | Pause::Destination(_) => None,
        });
        let counted = self.counts.iter().map(|count| &count.source);
        let known = counted.chain(self.fares.iter().map(|fare| &fare.source));
        known.chain(held)
    }

    /// Makes the view of a source, without what its configuration says.
    fn view(&self, state: &AdminState, name: &str) -> SourceView {
        let none = SourceFare::default();
        let fare = self.fares.iter().find(|fare| fare.source == name);
        let fare = fare.unwrap_or(&none);
        let paused = self
            .holds
            .iter()
            .find(|(hold, _)| matches!(hold, Pause::Source(held) if held == name));
        let mut counts: BTreeMap<String, u64> = DeliveryState::ALL
            .into_iter()
            .map(|state| (state.as_str().to_owned(), 0))
            .collect();
        for count in self.counts.iter().filter(|count| count.source == name) {
            counts.insert(count.state.as_str().to_owned(), count.count);
        }
        let open = open(fare).into_iter();
        SourceView {
            name: name.to_owned(),
            paused_since: paused.map(|(_, since)| *since),
            waits_for: state.source_waits(name, &self.spent, &self.holds),
            last_event_at: fare.last_event,
            oldest_pending_at: fare.oldest_pending,
            open: open
                .map(|(state, count)| (state.to_owned(), count))
                .collect(),
            counts,
            ..SourceView::default()
        }
    }
}

/// `POST /sources/{name}/pause`: holds the deliveries of a source. New events are still accepted.
pub(super) async fn pause(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
) -> Result<Json<HeldView>, AdminError> {
    if state.source(&name).is_none() {
        state.check_source(Some(&name)).await?;
        return Err(AdminError::NotFound("configured source"));
    }
    hold(&state, Pause::Source(name), true).await.map(Json)
}

/// `POST /sources/{name}/resume`: ends the hold on a source.
pub(super) async fn resume(
    State(state): State<Arc<AdminState>>,
    Path(name): Path<String>,
) -> Result<Json<HeldView>, AdminError> {
    // A source that is no longer configured may still be held.
    let held = Pause::Source(name.clone());
    if state.source(&name).is_none()
        && !state
            .inbox
            .pauses()
            .await?
            .iter()
            .any(|(hold, _)| *hold == held)
    {
        state.check_source(Some(&name)).await?;
        return Err(AdminError::NotFound("configured source"));
    }
    hold(&state, held, false).await.map(Json)
}
