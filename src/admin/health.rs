//! Identity, health and metrics of the gateway. A probe learns one word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use super::AdminState;
use crate::api::gateway::{DiskView, GatewayView, HealthView};
use crate::inbox::waiting::LOOKED_AT;
use crate::inbox::{InboxError, Pause, SourceFare, Usage};
use crate::model::{self, Timestamp};
use crate::telemetry::SourceGauges;

/// Media type of the Prometheus text format, version 0.0.4.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// State in the metrics of deliveries that needed an operator and do not any more.
const CLOSED: &str = "closed";

/// Time limit for the inbox to say that it is ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// `GET /api/v1`: shows the identity of the gateway and the content of its inbox. A part that the inbox cannot tell
/// is null.
pub(super) async fn gateway(State(state): State<Arc<AdminState>>) -> Json<GatewayView> {
    let standing = state.inbox.replica_status();
    let usage = match state.inbox.usage().await {
        Ok(usage) => Some(DiskView::from(usage)),
        Err(error) => {
            tracing::error!(%error, "cannot tell how much of the disk the inbox has");
            None
        }
    };
    let deliveries = match state.inbox.counts().await {
        Ok(counts) => {
            let mut states: BTreeMap<_, _> = model::DeliveryState::ALL
                .into_iter()
                .map(|state| (state.as_str().to_owned(), 0))
                .collect();
            for count in counts {
                *states.entry(count.state.as_str().to_owned()).or_default() += count.count;
            }
            Some(states)
        }
        Err(error) => {
            tracing::error!(%error, "cannot count what the inbox holds");
            None
        }
    };
    let holds = state.inbox.pauses().await.unwrap_or_default();
    let paused = holds
        .iter()
        .find(|(hold, _)| *hold == Pause::All)
        .map(|(_, since)| *since);
    Json(GatewayView {
        name: "sluicegate".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: state.loaded.started_at(),
        replicas: standing.replicas,
        paused_since: paused,
        standing: standing_word(standing.good).to_owned(),
        disk: usage,
        deliveries,
    })
}

/// Names the standing of a process among those that share its inbox.
pub(super) const fn standing_word(is_good: bool) -> &'static str {
    if is_good { "good" } else { "lost" }
}

impl From<Usage> for DiskView {
    fn from(usage: Usage) -> Self {
        Self {
            bytes: usage.bytes,
            reusable_bytes: usage.reusable,
            ceiling_bytes: usage.ceiling,
        }
    }
}

/// `GET /health/live`: answers if the process runs.
pub(super) async fn live() -> Json<HealthView> {
    Json(HealthView::good("live"))
}

/// `GET /health/ready`: answers 200 if the process accepts events and can store them.
pub(super) async fn ready(State(state): State<Arc<AdminState>>) -> (StatusCode, Json<HealthView>) {
    match unready(&state).await {
        None => {
            let mut answer = HealthView::good("ready");
            // Events are accepted in this case too, but they are not sent.
            let holds = tokio::time::timeout(PATIENCE, state.inbox.pauses()).await;
            if holds.is_ok_and(|holds| {
                holds.is_ok_and(|holds| holds.iter().any(|(hold, _)| *hold == Pause::All))
            }) {
                answer.detail = Some("paused".to_owned());
            }
            if state
                .dispatcher
                .as_ref()
                .is_some_and(|dispatcher| !dispatcher.refused_keys().is_empty())
            {
                answer.detail = Some("upstream_key_refused".to_owned());
            }
            (StatusCode::OK, Json(answer))
        }
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(HealthView {
                reason: Some(reason.to_owned()),
                ..HealthView::good("unready")
            }),
        ),
    }
}

/// Gives the reason why the process does not accept events, in a stable word.
pub(super) async fn unready(state: &AdminState) -> Option<&'static str> {
    if !state.serving.load(Ordering::Acquire) {
        return Some("draining");
    }
    match tokio::time::timeout(PATIENCE, state.inbox.ready()).await {
        Ok(Ok(())) => None,
        Ok(Err(InboxError::Full(_))) => Some("busy"),
        Ok(Err(InboxError::NoSpace)) => Some("no_space"),
        Ok(Err(InboxError::Closed)) => Some("closed"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            Some("inbox")
        }
        Err(_) => Some("slow"),
    }
}

/// `GET /metrics`: gives the counters, and gauges of the inbox as it is now.
pub(super) async fn metrics(State(state): State<Arc<AdminState>>) -> Response {
    let fares = state.in_time(state.inbox.source_fares()).await;
    match state.inbox.counts().await {
        Ok(counts) => {
            // The inbox does not count a state that no delivery is in; its gauge must fall to zero.
            let mut kept = BTreeMap::new();
            let names = state
                .sources
                .iter()
                .map(|source| source.config.name.as_str());
            for name in names.chain(counts.iter().map(|count| count.source.as_str())) {
                kept.extend(model::DeliveryState::ALL.map(|state| ((name, state.as_str()), 0)));
            }
            kept.extend(
                counts
                    .iter()
                    .map(|count| ((count.source.as_str(), count.state.as_str()), count.count)),
            );
            if let Ok(fares) = &fares {
                closed(&mut kept, fares);
            }
            for ((source, state_word), count) in kept {
                state.metrics.kept(source, state_word, count);
            }
        }
        // The counters are still right, and a scrape without an answer would hide that the inbox failed.
        Err(error) => tracing::error!(%error, "cannot count what the inbox holds"),
    }
    match fares {
        Ok(fares) => sources(&state, &fares),
        Err(error) => tracing::error!(%error, "cannot tell how the sources fare"),
    }
    let standing = state.inbox.replica_status();
    state.metrics.standing(standing.good, standing.replicas);
    match state.inbox.usage().await {
        Ok(usage) => state
            .metrics
            .disk(usage.bytes, usage.reusable, usage.ceiling),
        Err(error) => tracing::error!(%error, "cannot tell how much of the disk the inbox has"),
    }
    ([(CONTENT_TYPE, PROMETHEUS)], state.metrics.text()).into_response()
}

/// Counts the events that need an operator by the state of their last delivery, so that a successful replay lowers
/// the gauge. Earlier ones, replayed or removed since, are counted as `closed`: the sum stays the same.
fn closed<'a>(kept: &mut BTreeMap<(&'a str, &'a str), u64>, fares: &[SourceFare]) {
    let names: BTreeSet<&str> = kept.keys().map(|(name, _)| *name).collect();
    let none = SourceFare::default();
    for name in names {
        let fare = fares
            .iter()
            .find(|fare| fare.source == name)
            .unwrap_or(&none);
        let mut closed = 0;
        for (state, open) in open(fare) {
            let total = kept.entry((name, state)).or_default();
            // Above the number that is examined, the total is the better estimate.
            if open < LOOKED_AT as u64 {
                closed += total.saturating_sub(open);
                *total = open.min(*total);
            }
        }
        kept.insert((name, CLOSED), closed);
    }
}

/// Gives the numbers of a source's events that need an operator, by the state of the last delivery.
pub(super) fn open(fare: &SourceFare) -> [(&'static str, u64); 3] {
    [
        (model::DeliveryState::Dead.as_str(), fare.dead),
        (model::DeliveryState::Unknown.as_str(), fare.unknown),
        (model::DeliveryState::Unmappable.as_str(), fare.unmappable),
    ]
}

/// Sets the gauges of all sources that are configured or that have events.
fn sources(state: &AdminState, fares: &[SourceFare]) {
    let now = state.clock.now();
    let none = SourceFare::default();
    let named = state
        .sources
        .iter()
        .map(|source| source.config.name.as_str());
    let names: BTreeSet<&str> = named
        .chain(fares.iter().map(|fare| fare.source.as_str()))
        .collect();
    state.metrics.sources(names.into_iter().map(|source| {
        let fare = fares
            .iter()
            .find(|fare| fare.source == source)
            .unwrap_or(&none);
        SourceGauges {
            source,
            open: open(fare),
            oldest_pending_s: fare
                .oldest_pending
                .map_or(0, |oldest| now.since(oldest).as_secs()),
            last_event_s: fare.last_event.map(Timestamp::seconds),
        }
    }));
}
