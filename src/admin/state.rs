//! The state that all handlers of the operator's listener share, built from one configuration.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::auth::SlidingWindow;
use super::error::AdminError;
use super::guess::Guesses;
use super::{Loaded, Stopper};
use crate::attachment::Files;
use crate::config::{Config, GatewayKey, Secret, SourceConfig};
use crate::dispatch::Dispatcher;
use crate::inbox::{Budgets, EventFilter, Inbox, InboxError};
use crate::model::{Clock, Marks, Roles, UpstreamIds};
use crate::reconcile::Reconciler;
use crate::source::Sources;
use crate::telemetry::{Metrics, RefusedSamples, Uses};
use crate::upstream::Upstream;

/// Wrong tokens a minute of one address, after which its tokens have to wait.
pub(super) const GUESSES: usize = 10;

/// Replays by hand a minute, previews and jobs among them. The limit stops a script that would replay everything at once.
pub(super) const REPLAYS: usize = 600;

pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// Time limit of a search in the inbox.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);

/// The parts of the process that the listener uses and that outlive a configuration.
#[derive(Clone, Debug)]
pub struct AdminParts {
    /// Events and deliveries.
    pub inbox: Arc<dyn Inbox>,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// The last refused requests.
    pub samples: Arc<RefusedSamples>,
    /// Source of the current time.
    pub clock: Clock,
    /// True while the public listener accepts requests; false before the start and while the process drains. The owner of the
    /// public listener sets it.
    pub serving: Arc<AtomicBool>,
}

/// State of the operator's listener.
#[derive(Debug)]
pub struct AdminState {
    pub(super) inbox: Arc<dyn Inbox>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) samples: Arc<RefusedSamples>,
    pub(super) clock: Clock,
    pub(super) serving: Arc<AtomicBool>,
    /// The sources as they are configured.
    pub(super) sources: Vec<ConfiguredSource>,
    /// The same sources, compiled.
    pub(super) compiled: Arc<Sources>,
    /// The upstream, which shows requests as it would get them.
    pub(super) upstream: Upstream,
    /// Largest body of an event, unless its source sets its own limit.
    pub(super) max_body: u64,
    /// True if the inbox indexes the words of bodies.
    pub(super) search: bool,
    /// The token of an operator.
    pub(super) token: Secret,
    pub(super) loaded: Arc<Loaded>,
    /// Stops the calls of this process that are passed on at once.
    pub(super) stopper: Stopper,
    /// Host names of this listener, besides addresses and `localhost`.
    pub(super) hosts: Vec<String>,
    /// Roles of this process.
    pub(super) roles: Roles,
    /// The dispatcher of this process, if it has that role.
    pub(super) dispatcher: Option<Arc<Dispatcher>>,
    /// URL of the public listener for the outside world, or empty.
    pub(super) public_url: String,
    /// Reader of the providers' logs.
    pub(super) reconciler: Option<Reconciler>,
    /// The attachment store, if one is configured.
    pub(super) files: Option<Arc<Files>>,
    /// Limits of runs a day.
    pub(super) budgets: Budgets,
    /// The gateway's own keys.
    pub(super) keys: Vec<GatewayKey>,
    /// Uses of these keys and of the sources' secrets.
    pub(super) uses: Arc<Uses>,
    pub(super) ids: Arc<UpstreamIds>,
    pub(super) marks: Marks,
    pub(super) guesses: Guesses,
    pub(super) replays: SlidingWindow,
    /// Held from the read of an event's deliveries to the commit of the next one, because the number of the next one names
    /// its run.
    pub(super) replaying: tokio::sync::Mutex<()>,
}

/// A source as it is configured.
#[derive(Clone, Debug)]
pub struct ConfiguredSource {
    /// Section of the configuration.
    pub config: Arc<SourceConfig>,
    /// Title of its provider.
    pub provider_title: Option<String>,
}

impl AdminState {
    /// Builds the state for a configuration and its compiled sources.
    pub fn new(
        config: &Config,
        compiled: Arc<Sources>,
        upstream: Upstream,
        token: Secret,
        parts: AdminParts,
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
            loaded: Arc::new(Loaded::new(parts.clock.now(), String::new())),
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
            inbox: parts.inbox,
            metrics: parts.metrics,
            samples: parts.samples,
            token,
            clock: parts.clock,
            serving: parts.serving,
        }
    }

    /// Adds the record of loaded configurations, and the switch that stops calls that are passed on at once.
    pub fn with_loaded(mut self, loaded: Arc<Loaded>, stopper: Stopper) -> Self {
        (self.loaded, self.stopper) = (loaded, stopper);
        self
    }

    /// Adds the reader of the providers' logs.
    pub fn with_reconciler(mut self, reconciler: Reconciler) -> Self {
        self.reconciler = Some(reconciler);
        self
    }

    /// Adds the gateway's own keys, and the uses of these keys and of the sources' secrets.
    pub fn with_uses(mut self, config: &Config, uses: Arc<Uses>) -> Self {
        (self.keys, self.uses) = (config.keys.clone(), uses);
        self
    }

    /// Sets the roles of the process; without this call it has all of them.
    pub fn with_roles(mut self, roles: Roles) -> Self {
        self.roles = roles;
        self
    }

    /// Adds the names of conversations at the upstream, and the maker of fence marks.
    pub fn with_names(mut self, ids: Arc<UpstreamIds>, marks: Marks) -> Self {
        self.ids = ids;
        self.marks = marks;
        self
    }

    /// Adds the dispatcher of this process.
    pub fn with_dispatcher(mut self, dispatcher: Arc<Dispatcher>) -> Self {
        self.dispatcher = Some(dispatcher);
        self
    }

    /// Adds the attachment store.
    pub fn with_files(mut self, files: Option<Arc<Files>>) -> Self {
        self.files = files;
        self
    }
}

impl AdminState {
    /// Finds a configured source by its name.
    pub(super) fn source(&self, name: &str) -> Option<&ConfiguredSource> {
        self.sources
            .iter()
            .find(|source| source.config.name == name)
    }

    /// Refuses a filter by words if the inbox has no index of words.
    pub(super) fn can_search(&self, filter: &EventFilter) -> Result<(), AdminError> {
        if filter.text.is_some() && !self.search {
            return Err(AdminError::Query(
                "text cannot be searched for: inbox.search is off.".into(),
            ));
        }
        Ok(())
    }

    /// Waits for an answer of the inbox, within the time limit of a search.
    pub(super) async fn in_time<T>(
        &self,
        search: impl Future<Output = Result<T, InboxError>>,
    ) -> Result<T, AdminError> {
        match tokio::time::timeout(SEARCH_TIMEOUT, search).await {
            Ok(found) => Ok(found?),
            Err(_) => Err(AdminError::Slow),
        }
    }
}
