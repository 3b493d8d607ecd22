//! The parts that are built from a configuration, and anew at each reload: ingress, dispatcher, replayer, admin API.

use std::sync::Arc;

use super::files;
use super::runtime::Runtime;
use super::web::Web;
use crate::admin::{AdminParts, AdminState};
use crate::attachment::Files;
use crate::config::Config;
use crate::dispatch::replay::{Remap, Replayer};
use crate::dispatch::{Dispatcher, DispatcherParts};
use crate::inbox::Budgets;
use crate::ingress::{BodyLimits, Dropin, Ingress, Proxies};
use crate::intake::{Intake, Remapper};
use crate::limit::RateLimits;
use crate::net::{Client, LoopGuard};
use crate::reconcile::Reconciler;
use crate::run::RunContext;
use crate::source::Sources;
use crate::upstream::Upstream;

/// Parts that are built from a configuration.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) ingress: Arc<Ingress>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) replayer: Arc<Replayer>,
    pub(super) admin: Arc<AdminState>,
}

/// A configuration while its parts are built, with what several of them share.
struct Builder<'a> {
    config: &'a Config,
    runtime: &'a Runtime,
    sources: Arc<Sources>,
    client: Client,
    guard: LoopGuard,
    upstream: Upstream,
    files: Option<Arc<Files>>,
    intake: Arc<Intake>,
}

impl Parts {
    /// The parts of a configuration.
    pub(super) fn new(
        config: &Config,
        sources: Sources,
        runtime: &Runtime,
    ) -> anyhow::Result<Self> {
        runtime.budget.set_foreign_share(config.foreign_share());
        runtime.held.set(config.server.max_held.value);
        let limits = Arc::new(RateLimits::next(
            config,
            &runtime.share,
            runtime.limits.load().as_deref(),
        ));
        let builder = Builder::new(config, sources, runtime)?;
        let ingress = builder.ingress(limits.clone());
        let dispatcher = builder.dispatcher();
        let parts = Self {
            ingress,
            replayer: builder.replayer(),
            admin: builder.admin(&dispatcher),
            dispatcher,
        };
        runtime.limits.store(Some(limits));
        Ok(parts)
    }
}

impl<'a> Builder<'a> {
    fn new(config: &'a Config, sources: Sources, runtime: &'a Runtime) -> anyhow::Result<Self> {
        let (timeout, ca) = (&config.upstream.connect_timeout, &config.upstream.ca_file);
        let client = Client::new(*timeout, ca.as_deref())?.allowing(&config.fetch.allow);
        let guard = guard(config, &sources, runtime);
        let upstream = Upstream::new(&config.upstream, client.clone(), runtime.budget.clone())
            .marked(guard.clone());
        let sources = Arc::new(sources.of_inbox(&runtime.ids, runtime.sealer.marks()));
        let files = runtime
            .files
            .as_ref()
            .map(|files| Arc::new(files::handed_out(files, config, &runtime.sealer)));
        let intake = Arc::new(Intake {
            sources: sources.clone(),
            inbox: runtime.inbox.clone(),
            files: files.clone(),
            metrics: runtime.metrics.clone(),
            lines: runtime.lines.clone(),
            queue: runtime.queue.clone(),
            clock: runtime.clock.clone(),
        });
        Ok(Self {
            config,
            runtime,
            sources,
            client,
            guard,
            upstream,
            files,
            intake,
        })
    }

    fn ingress(&self, limits: Arc<RateLimits>) -> Arc<Ingress> {
        let (config, runtime) = (self.config, self.runtime);
        let runs = Arc::new(RunContext {
            upstream: self.upstream.clone(),
            budgets: Budgets::new(config),
            inbox: runtime.inbox.clone(),
            files: self.files.clone(),
            metrics: runtime.metrics.clone(),
            paused: runtime.stopper.flag(),
            clock: runtime.clock.clone(),
        });
        Arc::new(Ingress {
            fetch: Arc::new(Web {
                client: self.client.clone(),
                guard: self.guard.clone(),
            }),
            limits,
            uses: runtime.uses.clone(),
            intake: self.intake.clone(),
            runs,
            file_rules: config.attachments.intake.clone(),
            keep_files: config.attachments.keep,
            sealer: runtime.sealer.clone(),
            ids: runtime.ids.clone(),
            stopping: runtime.stopping.clone(),
            samples: runtime.samples.clone(),
            keep_refused: config.admin.keep_refused,
            public_url: config.server.public_url.clone(),
            load: runtime.load.clone(),
            memory: runtime.held.clone(),
            uploads: runtime.places.clone(),
            body_limits: BodyLimits::new(config),
            mark: self.guard.clone(),
            proxies: Proxies::new(config, self.client.clone()),
            dropin: Dropin::new(config, self.upstream.clone(), runtime.foreign.clone()),
        })
    }

    fn dispatcher(&self) -> Arc<Dispatcher> {
        let runtime = self.runtime;
        let parts = DispatcherParts {
            inbox: runtime.inbox.clone(),
            sealer: runtime.sealer.clone(),
            throttle: runtime.throttle.clone(),
            metrics: runtime.metrics.clone(),
            clock: runtime.clock.clone(),
        };
        let dispatcher = Dispatcher::new(self.config, self.upstream.clone(), parts);
        let dispatcher = dispatcher.with_files(self.files.clone(), self.client.clone());
        Arc::new(dispatcher.with_channels(self.config, self.client.clone(), runtime.share.clone()))
    }

    fn replayer(&self) -> Arc<Replayer> {
        let runtime = self.runtime;
        let remap: Arc<dyn Remap> = Arc::new(Remapper(self.sources.clone()));
        Replayer::new(
            self.config,
            runtime.inbox.clone(),
            remap,
            runtime.ids.clone(),
            runtime.clock.clone(),
        )
    }

    fn admin(&self, dispatcher: &Arc<Dispatcher>) -> Arc<AdminState> {
        let (config, runtime) = (self.config, self.runtime);
        let reconciler = Reconciler::new(
            config,
            self.intake.clone(),
            &self.client,
            runtime.stopping.clone(),
            runtime.reconciling.clone(),
        );
        let token = config.admin.token.as_ref().unwrap_or(&runtime.token);
        let parts = AdminParts {
            inbox: runtime.inbox.clone(),
            metrics: runtime.metrics.clone(),
            samples: runtime.samples.clone(),
            clock: runtime.clock.clone(),
            serving: runtime.serving.clone(),
        };
        let (sources, upstream) = (self.sources.clone(), self.upstream.clone());
        let admin = AdminState::new(config, sources, upstream, token.clone(), parts);
        let admin = admin
            .with_loaded(runtime.loaded.clone(), runtime.stopper.clone())
            .with_files(self.files.clone())
            .with_reconciler(reconciler)
            .with_uses(config, runtime.uses.clone())
            .with_names(runtime.ids.clone(), runtime.sealer.marks().clone())
            .with_roles(runtime.roles);
        Arc::new(if runtime.roles.dispatch {
            admin.with_dispatcher(dispatcher.clone())
        } else {
            admin
        })
    }
}

/// The guard that marks requests to servers whose addresses may lead back here.
fn guard(config: &Config, sources: &Sources, runtime: &Runtime) -> LoopGuard {
    let proxies = config.proxies.iter().map(|proxy| &proxy.upstream);
    let judges = sources
        .iter()
        .filter_map(|source| source.scheme.judge_address());
    let servers = proxies.chain([&config.upstream.base_url]).chain(judges);
    LoopGuard::new(runtime.sealer.mark(), servers)
}
