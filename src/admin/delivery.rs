//! Deliveries: cancel, settle by hand. They are listed with their event.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::AdminState;
use super::error::AdminError;
use super::json::JsonBody;
use super::name::PathId;
use crate::api::delivery::{ChangedDeliveryView, SettleRequest};
use crate::inbox::Resolution;
use crate::model::{self, DeliveryId};

/// Longest note of an operator, in bytes.
const MAX_NOTE: usize = 1000;

/// `POST /deliveries/{id}/cancel`: cancels a delivery that is pending or unmappable.
pub(super) async fn cancel(
    State(state): State<Arc<AdminState>>,
    PathId(id): PathId<DeliveryId>,
) -> Result<Json<ChangedDeliveryView>, AdminError> {
    if state.inbox.cancel(id, state.clock.now()).await? {
        tracing::info!(audit = "delivery.cancel", event = %id.event, delivery = %id, "cancelled by an operator");
        return Ok(changed(id, model::DeliveryState::Cancelled));
    }
    let now = stands(&state, id).await?;
    let sentence = format!(
        "The delivery is {}; only one that is pending or unmappable can be cancelled.",
        now.as_str()
    );
    Err(AdminError::Conflict("not_pending", sentence))
}

/// `POST /deliveries/{id}/settle`: ends an unknown delivery as the operator says.
pub(super) async fn settle(
    State(state): State<Arc<AdminState>>,
    PathId(id): PathId<DeliveryId>,
    JsonBody(settling): JsonBody<SettleRequest>,
) -> Result<Json<ChangedDeliveryView>, AdminError> {
    let (how, becomes) = match settling.r#as.as_str() {
        "delivered" => (Resolution::Delivered, model::DeliveryState::Delivered),
        "dead" => (Resolution::Dead, model::DeliveryState::Dead),
        "again" => (Resolution::Again, model::DeliveryState::Pending),
        _ => {
            return Err(AdminError::Body(
                "as must be delivered, dead or again.".into(),
            ));
        }
    };
    let note = settling.note.trim();
    if note.len() > MAX_NOTE || note.contains('\0') {
        return Err(AdminError::Body(format!(
            "note must be a text of at most {MAX_NOTE} bytes."
        )));
    }
    if state
        .inbox
        .resolve(id, how, note, state.clock.now())
        .await?
    {
        tracing::info!(
            audit = "delivery.settle", event = %id.event, delivery = %id, r#as = settling.r#as, note,
            "settled by an operator"
        );
        return Ok(changed(id, becomes));
    }
    let now = stands(&state, id).await?;
    let sentence = format!(
        "The delivery is {}; only an unknown one is settled by hand. A replay sends it again.",
        now.as_str()
    );
    Err(AdminError::Conflict("not_unknown", sentence))
}

/// Makes the answer to a change of a delivery.
fn changed(id: DeliveryId, state: model::DeliveryState) -> Json<ChangedDeliveryView> {
    let state = state.as_str().to_owned();
    Json(ChangedDeliveryView { id, state })
}

/// Reads the state of a delivery that could not be changed.
async fn stands(state: &AdminState, id: DeliveryId) -> Result<model::DeliveryState, AdminError> {
    let event = state.inbox.event(id.event).await?;
    let delivery = event.and_then(|event| {
        event
            .deliveries
            .into_iter()
            .find(|delivery| delivery.id == id)
    });
    Ok(delivery.ok_or(AdminError::NotFound("delivery"))?.state)
}
