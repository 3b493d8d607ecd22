//! The status of the gateway in one answer: the problems that need an operator, the configuration, the backlog.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::AdminState;
use super::attention::{Findings, LISTED};
use super::error::AdminError;
use super::health::standing_word;
use super::waiting::paused_list;
use crate::api::status::{BacklogView, LastEventView, OpenView, StatusPage};
use crate::inbox::SourceFare;
use crate::model;

/// `GET /status`: shows everything that needs an operator, and numbers that say how busy the gateway is.
pub(super) async fn show(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<StatusPage>, AdminError> {
    let now = state.clock.now();
    let holds = state.inbox.pauses().await?;
    let counts = state.inbox.counts().await?;
    let fares = state.in_time(state.inbox.source_fares()).await?;
    let spent = state.in_time(state.inbox.spent(now.day())).await?;
    let usage = state.inbox.usage().await?;
    let standing = state.inbox.replica_status();
    let loaded = state.loaded.view();
    let findings = Findings {
        state: &state,
        now,
        holds: &holds,
        fares: &fares,
        spent: &spent,
        usage: &usage,
        loaded: &loaded,
    };
    let attention = findings.attention().await;

    let count = |wanted: model::DeliveryState| {
        counts
            .iter()
            .filter(|count| count.state == wanted)
            .map(|count| count.count)
            .sum::<u64>()
    };
    let sum = |of: fn(&SourceFare) -> u64| fares.iter().map(of).sum::<u64>();
    let oldest = fares
        .iter()
        .filter_map(|fare| Some((fare.oldest_pending?, &fare.source)))
        .min();
    let last = fares
        .iter()
        .filter_map(|fare| Some((fare.last_event?, &fare.source)))
        .max();
    Ok(Json(StatusPage {
        well: attention.is_empty(),
        attention,
        at: now,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: state.loaded.started_at(),
        configuration: loaded,
        roles: state.roles.to_string(),
        replicas: standing.replicas,
        standing: standing_word(standing.good).to_owned(),
        sources: state.sources.len(),
        paused: paused_list(&holds),
        waiting: BacklogView {
            pending: count(model::DeliveryState::Pending),
            running: count(model::DeliveryState::Leased),
            oldest_at: oldest.map(|(at, _)| at),
            oldest_source: oldest.map(|(_, source)| source.clone()),
        },
        open: OpenView {
            dead: sum(|fare| fare.dead),
            unknown: sum(|fare| fare.unknown),
            unmappable: sum(|fare| fare.unmappable),
        },
        last_event: last.map(|(at, source)| LastEventView {
            at,
            source: source.clone(),
        }),
        budgets: state.budget_views(spent.into_iter().take(LISTED), now),
        disk: usage.into(),
    }))
}
