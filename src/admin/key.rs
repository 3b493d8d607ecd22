//! The gateway's own keys: rights and use. No answer has a key.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::AdminState;
use super::error::AdminError;
use crate::api::key::{KeyView, LiveView, UseView};
use crate::api::page::PageView;
use crate::config::GatewayKey;
use crate::inbox::budget::of_key;
use crate::telemetry::Use;

/// `GET /keys`: lists the keys by their names.
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<PageView<KeyView>>, AdminError> {
    let now = state.clock.now();
    let spent = state.in_time(state.inbox.spent(now.day())).await?;
    let view = |key: &GatewayKey| {
        let live = key.keys.iter().map(|live| LiveView {
            key: live.name().to_owned(),
            used: state.uses.of_key(&key.name, live.name()).map(UseView::from),
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

impl From<Use> for UseView {
    fn from(found: Use) -> Self {
        Self {
            first: found.first,
            last: found.last,
            count: found.count,
        }
    }
}

/// Adds up the uses of two keys.
fn together(a: UseView, b: UseView) -> UseView {
    UseView {
        first: a.first.min(b.first),
        last: a.last.max(b.last),
        count: a.count.saturating_add(b.count),
    }
}
