//! The record of loaded configurations: their number, the settings that need a restart, the last one that was
//! refused. An operator can have the configuration loaded again.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use tokio::sync::{mpsc, oneshot};

use super::AdminState;
use super::error::AdminError;
use crate::api::status::{LoadedView, RefusedConfig, ReloadView};
use crate::model::Timestamp;

/// Time limit for the load of a configuration.
const LONGEST: Duration = Duration::from_secs(60);

/// Order of an operator to load the configuration again. The answer goes through it.
pub type ReloadOrder = oneshot::Sender<ReloadAnswer>;

/// Result of an order to load the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadAnswer {
    /// The new configuration is in force.
    Taken,
    /// The new configuration was refused for these reasons; the old one is in force.
    Refused(Vec<String>),
}

/// Record of the configurations of this process. It outlives each of them.
#[derive(Debug)]
pub struct Loaded {
    started_at: Timestamp,
    now: Mutex<LoadedView>,
    /// Receiver of orders, in a process that can load its configuration again.
    orders: OnceLock<mpsc::Sender<ReloadOrder>>,
}

impl Loaded {
    /// Starts the record with the configuration that the process was started with.
    pub fn new(now: Timestamp, digest: String) -> Self {
        let first = LoadedView {
            generation: 1,
            digest,
            loaded_at: now,
            restart_for: Vec::new(),
            refused: None,
        };
        Self {
            started_at: now,
            now: Mutex::new(first),
            orders: OnceLock::new(),
        }
    }

    /// Gives the start of the process.
    pub(super) const fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Sets the receiver of orders.
    pub fn take_orders(&self, orders: mpsc::Sender<ReloadOrder>) {
        // Only the first call counts: a process has one configuration.
        let _ = self.orders.set(orders);
    }

    /// Records that another configuration is in force, without the changes to these settings.
    pub fn next(&self, now: Timestamp, digest: String, restart_for: Vec<String>) {
        let mut loaded = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = loaded.generation + 1;
        *loaded = LoadedView {
            generation,
            digest,
            loaded_at: now,
            restart_for,
            refused: None,
        };
    }

    /// Records that a configuration was read and refused.
    pub fn refuse(&self, at: Timestamp, why: String) {
        self.now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .refused = Some(RefusedConfig { at, why });
    }

    /// Gives the record for an answer.
    pub(super) fn view(&self) -> LoadedView {
        self.now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// `POST /reload`: has this process load its configuration again, and answers when that is done.
pub(super) async fn reload(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<ReloadView>, AdminError> {
    let Some(orders) = state.loaded.orders.get() else {
        let why = "This process was started without a configuration file that it could read again.";
        return Err(AdminError::Conflict("no_reload", why.into()));
    };
    let (order, told) = oneshot::channel();
    tracing::info!(
        audit = "reload",
        "an operator has the configuration read again"
    );
    let answer = async {
        orders.send(order).await.ok()?;
        told.await.ok()
    };
    match tokio::time::timeout(LONGEST, answer).await {
        Ok(Some(ReloadAnswer::Taken)) => {
            // This state still has the old sources; the record is the same for both.
            Ok(Json(ReloadView {
                configuration: state.loaded.view(),
            }))
        }
        Ok(Some(ReloadAnswer::Refused(why))) => {
            let why = format!(
                "The configuration was not taken, and the one before holds: {}.",
                why.join("; ")
            );
            Err(AdminError::Conflict("not_reloaded", why))
        }
        Ok(None) => Err(AdminError::Conflict(
            "no_reload",
            "The process stops.".into(),
        )),
        Err(_) => Err(AdminError::Slow),
    }
}
