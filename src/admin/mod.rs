//! The operator's listener: what came in, what became of it, and what to do about it, as JSON under `/api/v1`.
//!
//! What is promised: nothing but health answers without the token; no answer holds a secret, a header that proved
//! somebody, or the engine's words; asking (GET) changes nothing; everything that is listed is bounded. A replay makes
//! new deliveries and leaves the old ones as they are. Whatever an operator changes is one line of the log, with the
//! field `audit`.

mod attachment;
mod auth;
mod budget;
mod delivery;
mod destination;
mod error;
mod event;
mod guess;
mod health;
mod job;
mod json;
mod key;
mod loaded;
mod name;
mod page;
mod reconcile;
mod replay;
mod secret;
mod source;
mod status;
mod stopper;
#[cfg(test)]
mod tests;
mod view;
mod waiting;

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};

use self::auth::SlidingWindow;
use self::error::AdminError;
use self::guess::Guesses;
pub use self::loaded::{Loaded, ReloadAnswer, ReloadOrder};
use self::name::PathId;
pub use self::stopper::Stopper;
use crate::attachment::Files;
use crate::config::{Config, GatewayKey, Secret, SourceConfig};
use crate::dispatch::Dispatcher;
use crate::inbox::{Budgets, EventFilter, Inbox, InboxError};
use crate::model::{Clock, Marks, Roles, UpstreamIds};
use crate::net::HeadFault;
use crate::reconcile::Reconciler;
use crate::source::Sources;
use crate::telemetry::{Metrics, RefusedSamples, Uses};
use crate::upstream::Upstream;

/// Requests without the right token, a minute of one address, before they are told to wait.
const GUESSES: usize = 10;

/// Replays by hand a minute, previews and jobs among them: a script gone wild must not owe everything again at once.
const REPLAYS: usize = 600;

const MINUTE: Duration = Duration::from_secs(60);

/// How long a look into the inbox may take. What it has not found by then is not waited for.
const LOOK: Duration = Duration::from_secs(30);

/// What the operator's listener shares.
#[derive(Debug)]
pub struct AdminState {
    /// Where events are kept.
    pub inbox: Arc<dyn Inbox>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The last refused requests.
    pub samples: Arc<RefusedSamples>,
    /// The configured ways in.
    pub sources: Vec<ConfiguredSource>,
    /// The same, compiled.
    pub compiled: Arc<Sources>,
    /// The upstream, to show requests as it would get them.
    pub upstream: Upstream,
    /// The largest body of an event, where its source does not say.
    pub max_body: u64,
    /// Whether bodies can be searched for words.
    pub search: bool,
    /// What an operator must show.
    pub token: Secret,
    /// Where `now` comes from.
    pub clock: Clock,
    /// Which configuration holds.
    loaded: Arc<Loaded>,
    /// Stops calls that are passed on at once, in this process.
    stopper: Stopper,
    /// Host names this listener goes by, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// True while the public listener takes requests; false before and while draining.
    pub serving: Arc<AtomicBool>,
    /// What this process does of the whole.
    roles: Roles,
    /// What sends here, where this process does.
    dispatcher: Option<Arc<Dispatcher>>,
    /// The address of the public listener as others know it, or empty.
    public_url: String,
    /// Reads providers' own logs; none where nobody gave one.
    reconciler: Option<Reconciler>,
    /// Files that came along; none where there is no store.
    files: Option<Arc<Files>>,
    /// How many runs a day.
    budgets: Budgets,
    /// The gateway's own keys, and when they and the sources' secrets were used.
    keys: Vec<GatewayKey>,
    uses: Arc<Uses>,
    ids: Arc<UpstreamIds>,
    marks: Marks,
    guesses: Guesses,
    replays: SlidingWindow,
    /// Held from reading an event's deliveries to owing the next one: the next one's number names its run.
    replaying: tokio::sync::Mutex<()>,
}

/// A source as it stands in the configuration.
#[derive(Clone, Debug)]
pub struct ConfiguredSource {
    /// As written.
    pub config: Arc<SourceConfig>,
    /// What people call its provider.
    pub provider_title: Option<String>,
}

impl AdminState {
    /// The state for a configuration and its sources, compiled. `serving` is set by whoever runs the public listener.
    #[expect(
        clippy::too_many_arguments,
        reason = "one of each thing that is shared, built in one place"
    )]
    pub fn new(
        config: &Config,
        compiled: Arc<Sources>,
        inbox: Arc<dyn Inbox>,
        upstream: Upstream,
        metrics: Arc<Metrics>,
        samples: Arc<RefusedSamples>,
        token: Secret,
        clock: Clock,
        serving: Arc<AtomicBool>,
    ) -> Self {
        let configured = |source: &Arc<SourceConfig>| ConfiguredSource {
            provider_title: config
                .providers
                .get(&source.provider.value)
                .map(|provider| provider.title.clone()),
            config: source.clone(),
        };
        Self {
            sources: config.sources.shared().map(configured).collect(),
            compiled,
            loaded: Arc::new(Loaded::new(clock.now(), String::new())),
            stopper: Stopper::default(),
            hosts: config.admin.hosts.clone(),
            max_body: config.server.max_body,
            search: config.inbox.search,
            upstream,
            roles: Roles::ALL,
            dispatcher: None,
            public_url: config.server.public_url.clone(),
            reconciler: None,
            files: None,
            budgets: Budgets::new(config),
            keys: Vec::new(),
            uses: Arc::default(),
            ids: Arc::default(),
            marks: Marks::default(),
            guesses: Guesses::new(GUESSES, MINUTE),
            replays: SlidingWindow::new(REPLAYS, MINUTE),
            replaying: tokio::sync::Mutex::new(()),
            inbox,
            metrics,
            samples,
            token,
            clock,
            serving,
        }
    }
}

impl AdminState {
    /// The same, with what is known of the configuration, and with what stops calls that are passed on.
    pub fn with_loaded(mut self, loaded: Arc<Loaded>, stopper: Stopper) -> Self {
        (self.loaded, self.stopper) = (loaded, stopper);
        self
    }

    /// The same, with what reads providers' own logs.
    pub fn with_reconciler(mut self, reconciler: Reconciler) -> Self {
        self.reconciler = Some(reconciler);
        self
    }

    /// The same, with the gateway's own keys, and when they and the sources' secrets were used.
    pub fn with_uses(mut self, config: &Config, uses: Arc<Uses>) -> Self {
        (self.keys, self.uses) = (config.keys.clone(), uses);
        self
    }

    /// The same, in a process that has these roles only.
    pub fn with_roles(mut self, roles: Roles) -> Self {
        self.roles = roles;
        self
    }

    /// The same, with what names conversations at the upstream and makes the marks of fences.
    pub fn with_names(mut self, ids: Arc<UpstreamIds>, marks: Marks) -> Self {
        self.ids = ids;
        self.marks = marks;
        self
    }

    /// The same, with what sends in this process.
    pub fn with_dispatcher(mut self, dispatcher: Arc<Dispatcher>) -> Self {
        self.dispatcher = Some(dispatcher);
        self
    }

    /// A configured source.
    fn source(&self, name: &str) -> Option<&ConfiguredSource> {
        self.sources
            .iter()
            .find(|source| source.config.name == name)
    }

    /// Whether this filter can be answered.
    fn can_search(&self, filter: &EventFilter) -> Result<(), AdminError> {
        if filter.text.is_some() && !self.search {
            return Err(AdminError::Query(
                "text cannot be searched for: inbox.search is off.".into(),
            ));
        }
        Ok(())
    }

    /// What the inbox answers, or that it takes too long.
    async fn in_time<T>(
        &self,
        look: impl Future<Output = Result<T, InboxError>>,
    ) -> Result<T, AdminError> {
        match tokio::time::timeout(LOOK, look).await {
            Ok(found) => Ok(found?),
            Err(_) => Err(AdminError::Slow),
        }
    }
}

impl AdminState {
    /// The same, with the files that came along.
    pub fn with_files(mut self, files: Option<Arc<Files>>) -> Self {
        self.files = files;
        self
    }
}

/// The operator's routes and layers.
pub fn router(state: Arc<AdminState>) -> Router {
    let behind_the_token = Router::new()
        .route("/api/v1", get(health::gateway))
        .route("/api/v1/events", get(event::list))
        .route("/api/v1/events/{id}", get(event::show))
        .route("/api/v1/events/{id}/body", get(event::body))
        .route("/api/v1/events/{id}/replay", post(replay::replay))
        .route("/api/v1/events/{id}/resend", post(replay::resend))
        .route("/api/v1/replays", get(job::list).post(job::begin))
        .route("/api/v1/replays/plan", post(job::plan))
        .route("/api/v1/replays/{id}", get(job::show).post(job::steer))
        .route("/api/v1/deliveries/{id}/cancel", post(delivery::cancel))
        .route("/api/v1/deliveries/{id}/settle", post(delivery::settle))
        .route("/api/v1/attachments", get(attachment::list))
        .route("/api/v1/attachments/{id}", delete(attachment::remove))
        .route("/api/v1/sources", get(source::list))
        .route(
            "/api/v1/sources/{name}/enrol",
            get(source::brought).post(source::enrol),
        )
        .route(
            "/api/v1/sources/{name}/enrol/confirm",
            post(source::confirm),
        )
        .route("/api/v1/sources/{name}/secrets", get(secret::list))
        .route(
            "/api/v1/sources/{name}/reconcile",
            post(reconcile::reconcile),
        )
        .route("/api/v1/sources/{name}/pause", post(source::pause))
        .route("/api/v1/sources/{name}/resume", post(source::resume))
        .route("/api/v1/destinations", get(destination::list))
        .route(
            "/api/v1/destinations/{kind}/{id}/pause",
            post(destination::pause),
        )
        .route(
            "/api/v1/destinations/{kind}/{id}/resume",
            post(destination::resume),
        )
        .route(
            "/api/v1/destinations/{kind}/{id}/reset",
            post(destination::reset),
        )
        .route("/api/v1/pause", post(source::pause_all))
        .route("/api/v1/resume", post(source::resume_all))
        .route("/api/v1/refused", get(source::refused))
        .route("/api/v1/refused/{id}", get(source::refused_one))
        .route("/api/v1/status", get(status::show))
        .route("/api/v1/reload", post(loaded::reload))
        .route("/api/v1/budgets", get(budget::list))
        .route("/api/v1/keys", get(key::list))
        .method_not_allowed_fallback(async || AdminError::Method)
        .route_layer(from_fn_with_state(state.clone(), auth::token));
    guarded(
        behind_the_token
            .merge(health(&state))
            .fallback(async || AdminError::NoSuchPath),
        state,
    )
}

/// What the listener answers in a process without the admin role: health and metrics.
pub fn probes(state: Arc<AdminState>) -> Router {
    guarded(
        health(&state).fallback(async || AdminError::NoAdminRole),
        state,
    )
}

/// Health, and the metrics behind the token.
fn health(state: &Arc<AdminState>) -> Router<Arc<AdminState>> {
    let metrics = Router::new()
        .route("/api/v1/metrics", get(health::metrics))
        .method_not_allowed_fallback(async || AdminError::Method)
        .route_layer(from_fn_with_state(state.clone(), auth::token));
    // Probes carry no token; what they learn is one word.
    Router::new()
        .route("/api/v1/health/live", get(health::live))
        .route("/api/v1/health/ready", get(health::ready))
        .method_not_allowed_fallback(async || AdminError::Method)
        .merge(metrics)
}

/// Puts the layers around the routes.
fn guarded(routes: Router<Arc<AdminState>>, state: Arc<AdminState>) -> Router {
    let layers = tower::ServiceBuilder::new()
        // Outermost, so that what the guards answer has these headers as well.
        .layer(from_fn(answer_headers))
        // What is no request has neither host nor token.
        .layer(from_fn(whole))
        // Before the origin, which is compared with the host.
        .layer(from_fn_with_state(state.clone(), auth::host))
        // Before the token, so that another site's page cannot use up the guesses.
        .layer(from_fn(auth::origin));
    routes.layer(layers).with_state(state)
}

/// Layer: no answer is kept by a cache or taken for a type it does not name.
async fn answer_headers(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Layer: what came is a request.
async fn whole(request: Request, next: Next) -> Result<Response, AdminError> {
    match request.extensions().get::<HeadFault>() {
        Some(fault) => Err(AdminError::NoRequest(*fault)),
        None => Ok(next.run(request).await),
    }
}

/// The number of a replay in bulk.
#[derive(Clone, Copy, Debug)]
struct JobId(i64);

impl FromStr for JobId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
