//! Which configuration holds: how often one was loaded, since when it holds, what of it holds after a restart only, and
//! whether a later one was refused. An operator may have it read again.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use tokio::sync::{mpsc, oneshot};

use super::AdminState;
use super::error::AdminError;
use crate::api::status::{LoadedView, RefusedConfig, ReloadView};
use crate::model::Timestamp;

/// How long an operator waits for a configuration to be read and to hold.
const LONGEST: Duration = Duration::from_secs(60);

/// An operator's word that the configuration is to be read again. What becomes of it is answered here.
pub type ReloadOrder = oneshot::Sender<ReloadAnswer>;

/// What became of an order to reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadAnswer {
    /// It holds.
    Taken,
    /// It does not, and this is why; the one before holds.
    Refused(Vec<String>),
}

/// What is known of the configuration that holds. It outlives each.
#[derive(Debug)]
pub struct Loaded {
    started_at: Timestamp,
    now: Mutex<LoadedView>,
    /// Where orders go, in a process that reads its configuration again.
    orders: OnceLock<mpsc::Sender<ReloadOrder>>,
}

impl Loaded {
    /// The first one holds.
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

    /// Since when the process runs.
    pub(super) const fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Orders to read the configuration again go there from now on.
    pub fn take_orders(&self, orders: mpsc::Sender<ReloadOrder>) {
        // The first one counts: a process has one configuration.
        let _ = self.orders.set(orders);
    }

    /// Another one holds from now on, but for these settings.
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

    /// One was read and is not taken.
    pub fn refuse(&self, at: Timestamp, why: String) {
        self.now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .refused = Some(RefusedConfig { at, why });
    }

    /// What is known.
    pub(super) fn view(&self) -> LoadedView {
        self.now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// `POST /reload`: has this process read its configuration again, and answers when it holds.
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
            // The sources of this state are those of before.
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
