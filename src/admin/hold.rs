//! Holds of an operator, on every run, on a source or on a destination.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::AdminState;
use super::error::AdminError;
use crate::api::source::HeldView;
use crate::inbox::Pause;

/// `POST /pause`: holds every run, of any caller and to any destination. New events are still accepted.
pub(super) async fn pause_all(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<HeldView>, AdminError> {
    hold(&state, Pause::All, true).await.map(Json)
}

/// `POST /resume`: ends the hold on every run.
pub(super) async fn resume_all(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<HeldView>, AdminError> {
    hold(&state, Pause::All, false).await.map(Json)
}

/// Sets or ends a hold, in the inbox and in this process.
pub(super) async fn hold(
    state: &AdminState,
    what: Pause,
    on: bool,
) -> Result<HeldView, AdminError> {
    let changed = state.inbox.set_paused(&what, on, state.clock.now()).await?;
    // This precedes the answer, so that no held run begins in this process after it.
    if what == Pause::All {
        state.stopper.order(on);
    }
    if let Some(dispatcher) = &state.dispatcher {
        dispatcher.pause(&what, on).await;
    }
    let all = what == Pause::All;
    let (source, destination) = match what {
        Pause::All => (None, None),
        Pause::Source(name) => (Some(name), None),
        Pause::Destination(destination) => (None, Some(destination.to_string())),
    };
    if changed {
        let audit = if on { "pause" } else { "resume" };
        let done = if on {
            "paused by an operator"
        } else {
            "resumed by an operator"
        };
        tracing::info!(audit, all, source, destination, "{done}");
    }
    Ok(HeldView {
        source,
        destination,
        paused: on,
        all,
        changed,
    })
}
