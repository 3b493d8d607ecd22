//! The public listener: third parties POST here, and nothing of the operator's side answers.

mod acknowledge;
mod body;
mod body_file;
mod body_progress;
mod body_stream;
mod challenge;
mod door;
mod door_kind;
mod dropin;
mod elsewhere;
mod event_stream;
mod file;
mod form;
mod head;
mod hook;
mod host;
mod items;
mod load_shed;
mod memory_limit;
mod proof;
mod proxy;
mod received;
mod recent;
mod refusal_terms;
mod refuse;
mod relay;
mod request_log;
mod staged;
mod status;
mod task;
mod upload;
mod upload_limit;
mod wait;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use tower::Service;

use crate::config::{Config, FileRules};
use crate::inbox::seal::Sealer;
use crate::intake::Intake;
use crate::limit::RateLimits;
use crate::model::{Clock, Outcome, Refusal, RequestId, UpstreamIds};
use crate::net::{ConnectionObserver, HeadFault, LoopGuard, TurnedAway};
use crate::run::RunContext;
use crate::source::WebClient;
use crate::telemetry::{Metrics, RefusedSample, RefusedSamples, SparseLines, Uses};
use tokio_util::sync::CancellationToken;

pub(crate) use head::refusal_of;
pub use load_shed::LoadShed;
pub use memory_limit::{MemoryLimit, largest as largest_held};
pub use proxy::Proxies;
pub(crate) use refusal_terms::status_and_sentence;
pub use upload_limit::UploadLimit;

pub use dropin::{Dropin, ForeignKeys, explain};

/// Shared parts of the public listener.
#[derive(Debug)]
pub struct Ingress {
    /// The way from a proved request into the inbox.
    pub intake: Arc<Intake>,
    /// Runs that begin at once.
    pub runs: Arc<RunContext>,
    /// Rate limits.
    pub limits: Arc<RateLimits>,
    /// The last uses of secrets and keys.
    pub uses: Arc<Uses>,
    /// The file rules of a source that has none of its own.
    pub file_rules: FileRules,
    /// The time after which a file that nothing refers to is removed.
    pub keep_files: Duration,
    /// Signs status links.
    pub sealer: Arc<Sealer>,
    /// Names conversations at the upstream.
    pub ids: Arc<UpstreamIds>,
    /// True when the gateway stops: then no caller waits any longer.
    pub stopping: CancellationToken,
    /// The client that fetches certificates and confirmations.
    pub fetch: Arc<dyn WebClient>,
    /// The mark on the gateway's own requests, by which a loop is found.
    pub mark: LoopGuard,
    /// The last refused requests.
    pub samples: Arc<RefusedSamples>,
    /// The number of refused requests that are kept whole.
    pub keep_refused: usize,
    /// The address that third parties know, without a slash at the end; empty where it is not configured.
    pub public_url: String,
    /// Bounds on the requests in work.
    pub load: Arc<LoadShed>,
    /// The limit on the memory of bodies.
    pub memory: Arc<MemoryLimit>,
    /// The limit on uploads at once.
    pub uploads: Arc<UploadLimit>,
    /// The bounds of a body.
    pub body_limits: BodyLimits,
    /// The prefixes that are passed through.
    pub proxies: Proxies,
    /// The stand-in for the hosted webhook; absent where it is disabled.
    pub dropin: Option<Dropin>,
}

/// The bounds of a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The largest size, where neither the source nor its provider sets one.
    pub size: u64,
    /// The longest time without a byte.
    pub stall: Duration,
    /// The longest time of a whole body.
    pub whole: Duration,
    /// The longest time of a body with files.
    pub upload: Duration,
    /// The slowest rate after the first seconds, in bytes a second.
    pub slowest: u64,
    /// True if it may be compressed.
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

    /// The bounds of a body that is held already.
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
    /// Counts connections for the accept loop.
    pub fn observer(&self) -> Arc<dyn ConnectionObserver> {
        Arc::new(ConnectionCounts {
            metrics: self.intake.metrics.clone(),
            samples: self.samples.clone(),
            lines: self.intake.lines.clone(),
            clock: self.intake.clock.clone(),
        })
    }
}

/// Counters of connections, and the record of client certificates that were refused.
#[derive(Debug)]
struct ConnectionCounts {
    metrics: Arc<Metrics>,
    samples: Arc<RefusedSamples>,
    lines: Arc<SparseLines>,
    clock: Clock,
}

impl ConnectionObserver for ConnectionCounts {
    fn opened(&self) {
        self.metrics.connections.inc();
    }

    fn closed(&self) {
        self.metrics.connections.dec();
    }

    fn turned_away(&self, why: TurnedAway) {
        self.metrics.turned_away(why.as_str());
    }

    fn certificate_refused(&self, peer: IpAddr, cause: &str) {
        let cause = format!("the TLS handshake failed: {cause}");
        let reason = TurnedAway::Certificate.as_str();
        if self.lines.admits() {
            tracing::info!(%peer, reason, cause, "client certificate refused");
        }
        let sample = RefusedSample {
            at: self.clock.now(),
            request_id: RequestId::new().to_string(),
            source: None,
            method: String::new(),
            path: String::new(),
            peer,
            headers: Vec::new(),
            body_bytes: 0,
            code: reason,
            reason,
            cause,
            whole: false,
        };
        // Whole requests that are kept stay as they are.
        self.samples.keep(sample, None, usize::MAX);
    }

    fn full_answer(&self) -> Option<Bytes> {
        let refusal = Refusal::Overloaded(refuse::retry_soon());
        self.metrics.request("", Outcome::Refused, Duration::ZERO);
        self.metrics.refused("", refusal.reason());
        Some(refuse::on_the_wire(&refusal, RequestId::new()))
    }
}

/// The service of the public listener. Prefixes that are passed through come before the routes, since routing would
/// change their requests.
#[derive(Clone, Debug)]
pub struct Front {
    router: Router,
    ingress: Arc<Ingress>,
}

impl Front {
    const fn new(router: Router, ingress: Arc<Ingress>) -> Self {
        Self { router, ingress }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Neither side ever waits to be ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        if let Some(fault) = request.extensions().get::<HeadFault>().copied() {
            let answer = head::refuse_invalid(&self.ingress, fault, &request);
            return Box::pin(std::future::ready(Ok(answer)));
        }
        match self.ingress.proxies.find(request.uri().path()) {
            Some(proxy) => {
                let passed = proxy::through(self.ingress.clone(), proxy.clone(), request);
                Box::pin(passed.map(Ok))
            }
            None => Box::pin(self.router.call(request)),
        }
    }
}

/// Makes the service of the public listener.
pub fn front(ingress: Arc<Ingress>) -> Front {
    Front::new(router(ingress.clone()), ingress)
}

/// The public routes. There are no layers: `door` is the shell of every door, and each door lists its own steps.
pub fn router(ingress: Arc<Ingress>) -> Router {
    let mut router = Router::new()
        .route("/hooks/{source}", any(hook::at_source))
        .route("/events/{event}", any(status::at_event))
        .route("/files/{token}/{name}", any(file::at_file));
    if ingress.dropin.is_some() {
        router = router
            .route("/", any(dropin::at_door))
            .route("/{agent_id}", any(dropin::at_door));
    }
    router.fallback(elsewhere::at_any_path).with_state(ingress)
}
