//! Sources: their condition, and holds on their deliveries.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};

use super::AdminState;
use super::error::AdminError;
use super::hold::hold;
use crate::api::page::PageView;
use crate::api::source::{HeldView, SourceView};
use crate::inbox::Pause;

/// `GET /sources`: lists the configured sources, and those that only the inbox knows.
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<PageView<SourceView>>, AdminError> {
    let counts = state.inbox.counts().await?;
    let holds = state.inbox.pauses().await?;
    let fares = state.in_time(state.inbox.source_fares()).await?;
    let spent = state
        .in_time(state.inbox.spent(state.clock.now().day()))
        .await?;
    let waits = |name: &str| state.source_waits(name, &spent, &holds);
    let views = SourceView::list(&state.sources, &counts, &holds, &fares, waits);
    Ok(Json(PageView::whole(views).with_paused(&holds)))
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
