//! Deliveries: cancel. They are listed with their event.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::error::AdminError;
use super::{AdminState, Named};
use crate::model::{self, DeliveryId};

/// `POST /deliveries/{id}/cancel`: only what is still pending can be called off.
pub(super) async fn cancel(
    State(state): State<Arc<AdminState>>,
    Named(id): Named<DeliveryId>,
) -> Result<Json<Value>, AdminError> {
    if state.inbox.cancel(id, state.clock.now()).await? {
        tracing::info!(event = %id.event, delivery = %id, "cancelled by an operator");
        return Ok(Json(json!({ "id": id, "state": model::State::Cancelled.as_str() })));
    }
    let event = state.inbox.event(id.event).await?;
    let delivery = event.and_then(|event| event.deliveries.into_iter().find(|delivery| delivery.id == id));
    let delivery = delivery.ok_or(AdminError::NotFound("delivery"))?;
    Err(AdminError::Conflict(
        "not_pending",
        format!("The delivery is {}; only a pending one can be cancelled.", delivery.state.as_str()),
    ))
}
