//! The keys of the gateway's own: what they are good for and how they were used. No key is ever shown.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::AdminState;
use super::error::AdminError;
use super::page::PageView;
use crate::config::GatewayKey;
use crate::inbox::budget::of_key;
use crate::model::Timestamp;
use crate::telemetry::Use;

/// A key by its name.
#[derive(Debug, Serialize)]
pub(super) struct KeyView {
    name: String,
    /// What it is good for besides everything: agents and paths; both empty: everything.
    agents: Vec<String>,
    paths: Vec<String>,
    prefixes: Vec<String>,
    /// From when on it is not good any more, and whether that is so now.
    expires: Option<Timestamp>,
    expired: bool,
    /// Runs that its callers began today, where they are counted, and how many they may.
    runs_today: Option<u64>,
    runs_per_day: Option<u64>,
    max_upload_bytes: Option<u64>,
    rate: Option<String>,
    /// When it was used, in this process since its start: all keys of the name together.
    used: Option<Use>,
    /// The keys of that name one by one, by where they are kept.
    keys: Vec<LiveView>,
}

/// One of the keys of a name.
#[derive(Debug, Serialize)]
struct LiveView {
    key: String,
    used: Option<Use>,
}

/// `GET /keys`
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<PageView<KeyView>>, AdminError> {
    let now = state.clock.now();
    let spent = state.in_time(state.inbox.spent(now.day())).await?;
    let view = |key: &GatewayKey| {
        let live = key.keys.iter().map(|live| LiveView {
            key: live.name().to_owned(),
            used: state.uses.of_key(&key.name, live.name()),
        });
        let keys: Vec<LiveView> = live.collect();
        let budget = of_key(&key.name);
        let runs = spent
            .iter()
            .find(|(name, _)| *name == budget)
            .map(|(_, runs)| *runs);
        KeyView {
            name: key.name.clone(),
            agents: key.agents.clone(),
            paths: key.paths.clone(),
            prefixes: key.prefixes.clone(),
            expires: key.expires,
            expired: key.is_over(now),
            runs_today: key.runs_per_day.map(|_| runs.unwrap_or(0)),
            runs_per_day: key.runs_per_day,
            max_upload_bytes: key.max_upload,
            rate: key
                .rate
                .map(|rate| format!("{}/{}s", rate.count, rate.per.as_secs_f64())),
            used: keys.iter().filter_map(|live| live.used).reduce(together),
            keys,
        }
    };
    Ok(Json(PageView::whole(state.keys.iter().map(view).collect())))
}

fn together(a: Use, b: Use) -> Use {
    Use {
        first: a.first.min(b.first),
        last: a.last.max(b.last),
        count: a.count.saturating_add(b.count),
    }
}
