//! The public listener: third parties POST here, and nothing of the operator's side answers.

mod body;
mod body_stream;
mod dropin;
mod event_stream;
mod file;
mod form;
mod host;
mod load_shed;
mod memory_limit;
mod proxy;
mod receive;
mod recent;
mod refuse;
mod request_log;
mod respond;
mod status;
mod upload;
mod upload_limit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use bytes::Bytes;
use tokio::sync::watch;

use crate::config::{Config, FileRules};
use crate::inbox::seal::Sealer;
use crate::inbox::{BudgetError, Budgets, CountedRun};
use crate::intake::{Intake, inbox_refusal};
use crate::limit::RateLimits;
use crate::model::{Outcome, Params, Refusal, RequestId, Route, Timestamp, UpstreamIds};
use crate::net::{ConnectionObserver, LoopGuard, TurnedAway};
use crate::source::WebClient;
use crate::telemetry::{Metrics, RefusedSamples, Uses};
use crate::upstream::Upstream;

pub use load_shed::LoadShed;
pub use memory_limit::{MemoryLimit, largest as largest_held};
pub use proxy::{Front, Proxies};
pub use upload_limit::UploadLimit;

pub use dropin::{Dropin, ForeignKeys, explain};

/// How long a call that is passed on may wait for its turn within the upstream's budget.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the public listener shares.
#[derive(Debug)]
pub struct Ingress {
    /// The way from a proved request into the inbox.
    pub intake: Arc<Intake>,
    /// How much, how fast.
    pub limits: Arc<RateLimits>,
    /// When secrets and keys were used.
    pub uses: Arc<Uses>,
    /// How many runs a day.
    pub budgets: Budgets,
    /// For calls that are passed on at once.
    pub upstream: Upstream,
    /// The file rules of a source that has none of its own.
    pub file_rules: FileRules,
    /// How long a file stays that nothing refers to.
    pub keep_files: Duration,
    /// Signs status links.
    pub sealer: Arc<Sealer>,
    /// Names conversations at the upstream.
    pub ids: Arc<UpstreamIds>,
    /// True when the gateway stops: nobody waits any longer then.
    pub stopping: watch::Receiver<bool>,
    /// True while an operator has stopped all runs.
    pub paused: Arc<AtomicBool>,
    /// What fetches certificates and confirmations.
    pub fetch: Arc<dyn WebClient>,
    /// What we put on our own requests.
    pub mark: LoopGuard,
    /// The last refused requests.
    pub samples: Arc<RefusedSamples>,
    /// How many refused requests are kept whole.
    pub keep_refused: usize,
    /// The address third parties know, without a slash at the end; empty where nobody said.
    pub public_url: String,
    /// How many requests are in work.
    pub load: Arc<LoadShed>,
    /// How much of bodies is held at once.
    pub held: Arc<MemoryLimit>,
    /// How many uploads are taken in at once.
    pub places: Arc<UploadLimit>,
    /// The bounds of a body.
    pub bounds: BodyLimits,
    /// The prefixes that are passed through.
    pub proxies: Proxies,
    /// The stand-in for the hosted webhook; none where it is shut.
    pub dropin: Option<Dropin>,
}

/// The bounds of a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Its size, where neither the source nor its provider says.
    pub size: u64,
    /// How long it may stand still.
    pub stall: Duration,
    /// How long it may take in all.
    pub whole: Duration,
    /// How long one with files may take in all.
    pub upload: Duration,
    /// The slowest that it may come after a while, in bytes a second.
    pub slowest: u64,
    /// Whether it may be compressed.
    pub compressed: bool,
}

impl BodyLimits {
    /// The bounds of a configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            size: config.server.max_body,
            stall: config.server.body_stall,
            whole: config.server.body_timeout,
            upload: config.attachments.upload_timeout,
            slowest: config.server.min_body_rate,
            compressed: false,
        }
    }

    /// Of a body that is held already.
    pub(crate) const fn of_held(size: u64) -> Self {
        let long = Duration::from_secs(600);
        Self {
            size,
            stall: long,
            whole: long,
            upload: long,
            slowest: 0,
            compressed: false,
        }
    }
}

impl Ingress {
    /// Whether a request may be looked at more closely: what is judged at every path.
    fn judge_head(&self, head: &http::request::Parts) -> Result<(), Refusal> {
        receive::judge_head(head)?;
        if self.mark.is_on(&head.headers) {
            Err(Refusal::Loop)
        } else {
            Ok(())
        }
    }

    /// Whether an agent may be run at once. What is kept waits until it may.
    fn may_run(&self) -> Result<(), Refusal> {
        if self.paused.load(Ordering::Relaxed) {
            Err(Refusal::Stopped)
        } else {
            Ok(())
        }
    }

    /// Whether a call that its caller waits for has its turn within the upstream's budget soon enough.
    fn has_turn(&self, upstream: &Upstream) -> Result<(), Refusal> {
        match upstream.is_busy(PATIENCE) {
            Some(wait) => Err(Refusal::UpstreamBusy(wait)),
            None => Ok(()),
        }
    }

    /// Counts a run that begins at once.
    async fn spend(&self, route: &Route, params: &Params) -> Result<CountedRun, Refusal> {
        let now = self.intake.clock.now();
        self.budgets
            .spend(&*self.intake.inbox, route, params, now)
            .await
            .map_err(|why| uncounted(why, now))
    }

    /// Whether a run might begin at once, as far as its budgets go. Nothing is counted.
    async fn has_runs(&self, route: &Route, params: &Params) -> Result<(), Refusal> {
        let now = self.intake.clock.now();
        self.budgets
            .has_room(&*self.intake.inbox, route, params, now)
            .await
            .map_err(|why| uncounted(why, now))
    }

    /// Counts connections for the accept loop.
    pub fn door(&self) -> Arc<dyn ConnectionObserver> {
        Arc::new(Doorkeeper(self.intake.metrics.clone()))
    }
}

/// Why a run does not begin at once.
fn uncounted(why: BudgetError, now: Timestamp) -> Refusal {
    match why {
        BudgetError::Spent(budget) => Refusal::Spent(budget, now.tomorrow().since(now)),
        BudgetError::Inbox(error) => inbox_refusal(error),
    }
}

#[derive(Debug)]
struct Doorkeeper(Arc<Metrics>);

impl ConnectionObserver for Doorkeeper {
    fn opened(&self) {
        self.0.connections.inc();
    }

    fn closed(&self) {
        self.0.connections.dec();
    }

    fn turned_away(&self, why: TurnedAway) {
        self.0.turned_away(why.as_str());
    }

    fn full_answer(&self) -> Option<Bytes> {
        let refusal = Refusal::Overloaded(refuse::retry_soon());
        self.0.request("", Outcome::Refused, Duration::ZERO);
        self.0.refused("", refusal.reason());
        Some(refuse::at_the_door(&refusal, RequestId::new()))
    }
}

/// The public listener whole: what is passed through does not come near the routes, since it must stay as it is.
pub fn front(ingress: Arc<Ingress>) -> Front {
    Front::new(router(ingress.clone()), ingress)
}

/// The public routes. There are no layers: what every request must pass, `receive` names in order.
pub fn router(ingress: Arc<Ingress>) -> Router {
    let mut router = Router::new()
        .route("/hooks/{source}", any(receive::at_source))
        .route("/events/{event}", any(receive::at_event))
        .route("/files/{token}/{name}", any(file::at_file));
    if ingress.dropin.is_some() {
        router = router
            .route("/", any(dropin::at_door))
            .route("/{agent_id}", any(dropin::at_door));
    }
    router.fallback(receive::elsewhere).with_state(ingress)
}
