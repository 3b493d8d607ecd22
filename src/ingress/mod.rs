//! The public listener: third parties POST here, and nothing of the operator's side answers.

mod body;
mod host;
mod receive;
mod refuse;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::any;

use crate::config::Config;
use crate::inbox::Inbox;
use crate::limit::Limits;
use crate::model::Clock;
use crate::net::Door;
use crate::source::{Fetch, Sources};
use crate::telemetry::{Metrics, RefusedSamples};

/// What the public listener shares.
#[derive(Debug)]
pub struct Ingress {
    /// The configured ways in.
    pub sources: Sources,
    /// How much, how fast.
    pub limits: Limits,
    /// Where events are kept.
    pub inbox: Arc<dyn Inbox>,
    /// What fetches certificates and confirmations.
    pub fetch: Arc<dyn Fetch>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The last refused requests.
    pub samples: Arc<RefusedSamples>,
    /// Where `now` comes from.
    pub clock: Clock,
    /// The address third parties know, without a slash at the end; empty where nobody said.
    pub public_url: String,
    /// The bounds of a body.
    pub bounds: Bounds,
}

/// The bounds of a body.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Its size, where neither the source nor its provider says.
    pub size: u64,
    /// How long it may stand still.
    pub stall: Duration,
    /// How long it may take in all.
    pub whole: Duration,
    /// Whether it may be compressed.
    pub compressed: bool,
}

impl Bounds {
    /// The bounds of a configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            size: config.server.max_body,
            stall: config.server.body_stall,
            whole: config.server.body_timeout,
            compressed: false,
        }
    }
}

impl Ingress {
    /// Counts connections for the accept loop.
    pub fn door(&self) -> Arc<dyn Door> {
        Arc::new(Doorkeeper(self.metrics.clone()))
    }
}

#[derive(Debug)]
struct Doorkeeper(Arc<Metrics>);

impl Door for Doorkeeper {
    fn opened(&self) {
        self.0.connections.inc();
    }

    fn closed(&self) {
        self.0.connections.dec();
    }

    fn full(&self) {
        self.0.connections_refused.inc();
    }
}

/// The public routes. There are no layers: what every request must pass, `receive` names in order.
pub fn router(ingress: Arc<Ingress>) -> Router {
    Router::new().route("/hooks/{source}", any(receive::at_source)).fallback(receive::elsewhere).with_state(ingress)
}
