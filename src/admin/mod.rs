//! The operator's listener: what came in, what became of it, and what to do about it, as JSON under `/api/v1`.
//!
//! What is promised: nothing but health answers without the token; no answer holds a secret, a header that proved
//! somebody, or the engine's words; asking (GET) changes nothing; everything that is listed is bounded. A replay makes
//! new deliveries and leaves the old ones as they are.

mod attachment;
mod auth;
mod delivery;
mod error;
mod event;
mod health;
mod page;
mod source;
#[cfg(test)]
mod tests;
mod view;

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Request};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};

use self::auth::Tally;
use self::error::AdminError;
use crate::attachment::Files;
use crate::config::{Config, Secret, SourceConfig};
use crate::inbox::Inbox;
use crate::model::{Clock, Timestamp};
use crate::source::{Enrolments, Sources};
use crate::telemetry::{Metrics, RefusedSamples};

/// Requests without the right token, a minute, before they are told to wait.
const GUESSES: usize = 10;

/// Replays a minute: a script gone wild must not owe everything again at once.
const REPLAYS: usize = 600;

const MINUTE: Duration = Duration::from_secs(60);

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
    /// What an operator must show.
    pub token: Secret,
    /// Where `now` comes from.
    pub clock: Clock,
    /// When the gateway was built.
    pub started_at: Timestamp,
    /// Host names this listener goes by, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// True while the public listener takes requests; false before and while draining.
    pub serving: Arc<AtomicBool>,
    /// The windows in which handshakes may bring secrets.
    enrolments: Enrolments,
    /// Files that came along; none where there is no store.
    files: Option<Arc<Files>>,
    guesses: Tally,
    replays: Tally,
    /// Held from reading an event's deliveries to owing the next one: the next one's number names its run.
    replaying: tokio::sync::Mutex<()>,
}

/// A source as it stands in the configuration.
#[derive(Clone, Debug)]
pub struct ConfiguredSource {
    /// As written.
    pub config: SourceConfig,
    /// What people call its provider.
    pub provider_title: Option<String>,
}

impl AdminState {
    /// The state for a configuration and its sources, compiled. `serving` is set by whoever runs the public listener.
    #[expect(clippy::too_many_arguments, reason = "one of each thing that is shared, built in one place")]
    pub fn new(
        config: &Config,
        compiled: Arc<Sources>,
        inbox: Arc<dyn Inbox>,
        metrics: Arc<Metrics>,
        samples: Arc<RefusedSamples>,
        token: Secret,
        clock: Clock,
        serving: Arc<AtomicBool>,
    ) -> Self {
        let configured = |source: &SourceConfig| ConfiguredSource {
            provider_title: config.providers.get(&source.provider.value).map(|provider| provider.title.clone()),
            config: source.clone(),
        };
        Self {
            sources: config.sources.iter().map(configured).collect(),
            compiled,
            started_at: clock.now(),
            hosts: config.admin.hosts.clone(),
            enrolments: Enrolments::default(),
            files: None,
            guesses: Tally::new(GUESSES, MINUTE),
            replays: Tally::new(REPLAYS, MINUTE),
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
    /// The same, with the windows that operators may open.
    pub fn with_enrolments(mut self, enrolments: Enrolments) -> Self {
        self.enrolments = enrolments;
        self
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
        .route("/api/v1/events/{id}/replay", post(event::replay))
        .route("/api/v1/deliveries/{id}/cancel", post(delivery::cancel))
        .route("/api/v1/attachments", get(attachment::list))
        .route("/api/v1/attachments/{id}", delete(attachment::remove))
        .route("/api/v1/sources", get(source::list))
        .route("/api/v1/sources/{name}/enrol", post(source::enrol))
        .route("/api/v1/refused", get(source::refused))
        .route("/api/v1/metrics", get(health::metrics))
        .method_not_allowed_fallback(async || AdminError::Method)
        .route_layer(from_fn_with_state(state.clone(), auth::token));
    // Probes carry no token; what they learn is one word.
    let open = Router::new()
        .route("/api/v1/health/live", get(health::live))
        .route("/api/v1/health/ready", get(health::ready))
        .method_not_allowed_fallback(async || AdminError::Method);
    let layers = tower::ServiceBuilder::new()
        // Outermost, so that what the guards answer has these headers as well.
        .layer(from_fn(answer_headers))
        // Before the origin, which is compared with the host.
        .layer(from_fn_with_state(state.clone(), auth::host))
        // Before the token, so that another site's page cannot use up the guesses.
        .layer(from_fn(auth::origin));
    behind_the_token.merge(open).fallback(async || AdminError::NoSuchPath).layer(layers).with_state(state)
}

/// Layer: no answer is kept by a cache or taken for a type it does not name.
async fn answer_headers(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// The id in a path. What is no id of its kind names nothing.
struct Named<T>(T);

impl<T: FromStr + Kind, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AdminError> {
        let missing = AdminError::NotFound(T::WORD);
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => text.parse().map(Self).map_err(|_| missing),
            Err(_) => Err(missing),
        }
    }
}

/// What an id names, in a word.
trait Kind {
    const WORD: &'static str;
}

impl Kind for crate::model::EventId {
    const WORD: &'static str = "event";
}

impl Kind for crate::model::AttachmentId {
    const WORD: &'static str = "attachment";
}

impl Kind for crate::model::DeliveryId {
    const WORD: &'static str = "delivery";
}
