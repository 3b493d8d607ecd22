//! The parts, built from a `Config`, started and drained.
//!
//! The sockets and the order to stop come from outside, so that a test or the demo runs the same gateway as `serve`.
//! A process has some of the roles or all of them; what its roles do not ask for is not started. The admin listener is
//! there in every process, since whoever watches over processes must be able to ask how each fares: without the admin
//! role it answers health and metrics and nothing else.

pub mod engine;
mod files;
mod notify;
pub mod secret;
mod settings;
mod share;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::{ArcSwap, ArcSwapOption};
use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{self, AdminState, Loaded, Stopper};
use crate::attachment::Files;
use crate::channel::Channels;
use crate::config::{Config, Place, Problems, Secret, TlsFiles, sense};
use crate::dispatch::replay::{Remap, Replayer};
use crate::dispatch::{Dispatcher, DispatcherParts, Throttle};
use crate::inbox::codec::{self, Codec};
use crate::inbox::seal::Sealer;
use crate::inbox::sweep::sweep;
use crate::inbox::{Budgets, Inbox, Keep};
use crate::ingress::{
    self, BodyLimits, Dropin, ForeignKeys, Ingress, LoadShed, MemoryLimit, Proxies, UploadLimit,
    largest_held,
};
use crate::intake::{CommitQueue, Intake, Remapper};
use crate::limit::{RateLimits, Share};
use crate::model::{Clock, Roles, UpstreamIds};
use crate::net::{
    Client, ConnectionObserver, DownloadError, ListenOptions, LoopGuard, PerCore, Reloadable,
    ServerTls, TurnedAway, descriptors, download, listen,
};
use crate::reconcile::{self, ActiveReconciles, Reconciler};
use crate::run::RunContext;
use crate::source::Sources;
use crate::source::WebClient;
use crate::telemetry::{Metrics, RefusedSamples, SparseLines, Uses};
use crate::upstream::{Budget, Upstream};

use files::FilesSweep;
use secret::admin_token;
pub use secret::{admin_token_file, seal_key_file, sealer};
use settings::Settings;

/// The sockets of a gateway.
#[derive(Debug)]
pub struct Listeners {
    /// Socket for third parties; absent without the ingress role.
    pub public: Option<TcpListener>,
    /// Socket for operators.
    pub admin: TcpListener,
}

/// A gateway, built and not yet serving.
#[derive(Debug)]
pub struct App {
    config: Config,
    settings: Settings,
    kept: Kept,
    parts: Parts,
    stop_all: watch::Sender<bool>,
}

/// A configuration that is to take the place of the one that holds.
#[derive(Debug)]
pub struct NextConfig {
    /// The configuration.
    pub config: Config,
    /// Its sources, compiled.
    pub sources: Sources,
    /// Channel for the result: the configuration holds, or the reason why it does not.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// Parts that a new configuration does not replace.
#[derive(Debug)]
struct Kept {
    inbox: Arc<dyn Inbox>,
    metrics: Arc<Metrics>,
    samples: Arc<RefusedSamples>,
    sealer: Arc<Sealer>,
    ids: Arc<UpstreamIds>,
    load: Arc<LoadShed>,
    queue: Arc<CommitQueue>,
    held: Arc<MemoryLimit>,
    places: Arc<UploadLimit>,
    lines: Arc<SparseLines>,
    uses: Arc<Uses>,
    foreign: Arc<ForeignKeys>,
    roles: Roles,
    share: Share,
    budget: Budget,
    throttle: Arc<Throttle>,
    files: Option<Arc<Files>>,
    limits: ArcSwapOption<RateLimits>,
    swept: Arc<ArcSwap<Swept>>,
    stopper: Stopper,
    loaded: Arc<Loaded>,
    token: Secret,
    stopping: watch::Receiver<bool>,
    serving: Arc<AtomicBool>,
    reconciling: ActiveReconciles,
    clock: Clock,
}

/// Parts that are built from a configuration.
#[derive(Debug)]
struct Parts {
    ingress: Arc<Ingress>,
    dispatcher: Arc<Dispatcher>,
    replayer: Arc<Replayer>,
    admin: Arc<AdminState>,
}

/// Interval between two sweeps of old events and files.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Connections at the admin listener at once. They take of what is kept back from the public one.
const ADMIN_CONNECTIONS: usize = 32;

/// Interval between two looks for a renewed certificate.
const LOOK_FOR_CERTIFICATE: Duration = Duration::from_secs(5);

/// Time limit for fetching a certificate for a source, and its largest size.
const FETCH_TIME: Duration = Duration::from_secs(5);
const FETCH_BYTES: u64 = 64 * 1024;

/// Time that a shutdown may take beyond the drain time, for the last settlements and the last commit.
const LAST_WORDS: Duration = Duration::from_millis(1_500);

impl Listeners {
    /// Binds what these roles need.
    pub async fn bind(config: &Config, roles: Roles) -> anyhow::Result<Self> {
        let bind = async |address: SocketAddr, key: &str| {
            TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address} ({key}); is another program there, or another sluicegate?")
            })
        };
        Ok(Self {
            public: match roles.ingress {
                true => Some(bind(config.server.listen, "server.listen").await?),
                false => None,
            },
            admin: bind(config.admin.listen, "admin.listen").await?,
        })
    }
}

impl App {
    /// Opens the inbox and builds the parts.
    pub async fn build(
        config: Config,
        sources: Sources,
        roles: Roles,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let token = admin_token(&config)?;
        let place = engine::take_place(&config, roles).await?;
        // After the inbox's place was taken: its lock keeps a second process from making a key of its own.
        let sealer = Arc::new(sealer(&config)?);
        let codec = Codec::new(sealer.clone(), config.inbox.encrypt);
        let inbox = engine::open(&config, place, roles, codec).await?;
        codec::check(&*inbox)
            .await
            .context("the inbox cannot be read")?;
        let ids = Arc::new(
            inbox
                .upstream_ids()
                .await
                .context("the names of conversations cannot be read")?,
        );
        let share = Share::default();
        let (budget, metrics) = (Budget::default(), Arc::new(Metrics::new()));
        share::take(&share, &budget, &*inbox);
        let files = files::open(&config, &sealer)?.map(Arc::new);
        if let Some(files) = &files {
            files::sweep_left(&*inbox, files, clock.now()).await;
        }
        let (stop_all, stopping) = watch::channel(false);
        let settings = Settings::of(&config);
        let queue = CommitQueue::new();
        let kept = Kept {
            inbox,
            throttle: Throttle::new(budget.clone(), metrics.clone()),
            budget,
            metrics,
            samples: Arc::new(RefusedSamples::default()),
            sealer,
            ids,
            load: LoadShed::new(config.server.max_requests, queue.clone()),
            queue,
            held: MemoryLimit::new(config.server.max_held.value),
            places: UploadLimit::new(config.attachments.uploads),
            lines: SparseLines::new("requests that were refused or prove nothing"),
            uses: Arc::new(Uses::default()),
            foreign: ForeignKeys::new(),
            roles,
            share,
            files,
            limits: ArcSwapOption::empty(),
            swept: Arc::new(ArcSwap::from_pointee(Swept::new(&config))),
            stopper: Stopper::default(),
            loaded: Arc::new(Loaded::new(clock.now(), settings.digest())),
            token,
            stopping,
            serving: Arc::new(AtomicBool::new(false)),
            reconciling: ActiveReconciles::default(),
            clock,
        };
        let parts = Parts::new(&config, sources, &kept)?;
        Ok(Self {
            config,
            settings,
            kept,
            parts,
            stop_all,
        })
    }

    /// State of the configuration that holds.
    pub fn loaded(&self) -> Arc<Loaded> {
        self.kept.loaded.clone()
    }

    /// Serves until `stop` resolves, then drains: no new connection, no new claim; requests in flight are answered,
    /// leases given back, the inbox closed. An error when the inbox stopped by itself. A configuration that comes by
    /// `reloads` takes the place of the one before, whole.
    pub async fn serve(
        self,
        listeners: Listeners,
        mut reloads: mpsc::Receiver<NextConfig>,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        // What is read at the start only is compared with what the process was started with, so that a change is told of
        // until a restart has taken it over.
        let Self {
            config,
            settings,
            kept,
            parts,
            stop_all,
        } = self;
        let drain = config.server.drain_timeout;
        let tls = config
            .server
            .tls
            .as_ref()
            .map(ServerTls::load)
            .transpose()?;
        let options = listen_options(&config, tls.clone());
        let public_address = listeners
            .public
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()?;
        let admin_address = listeners.admin.local_addr()?;
        let (hurry_all, hurry) = watch::channel(false);
        let told = |mut stopping: watch::Receiver<bool>| async move {
            // A sender that is gone has stopped as well.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let door = parts.ingress.observer();
        let front = Reloadable::new(ingress::front(parts.ingress));
        let routes = Reloadable::new(kept.admin_routes(parts.admin));
        let dispatcher = Arc::new(ArcSwap::new(parts.dispatcher));
        let replayer = Arc::new(ArcSwap::new(parts.replayer));
        let cores = listeners
            .public
            .is_some()
            .then(PerCore::start)
            .transpose()?;
        let public = listeners.public.map(|listener| {
            let stop = told(kept.stopping.clone());
            tokio::spawn(listen::serve(
                listener,
                front.clone(),
                options.clone(),
                cores,
                door,
                stop,
            ))
        });
        // The admin listener stays until the end, so that a stop can be watched.
        let (close_admin, admin_closing) = watch::channel(false);
        let admin_options = ListenOptions {
            max_connections: ADMIN_CONNECTIONS,
            max_connections_per_address: ADMIN_CONNECTIONS / 2,
            drain: Duration::from_millis(500),
            trusted: Arc::default(),
            proxy_protocol: false,
            tls: None,
            http2_cleartext: false,
            ..options
        };
        let admin = tokio::spawn(listen::serve(
            listeners.admin,
            routes.clone(),
            admin_options,
            None,
            Arc::new(Unwatched),
            told(admin_closing),
        ));
        let (inbox, stopping) = (kept.inbox.clone(), kept.stopping.clone());
        let dispatch = kept.roles.dispatch.then(|| {
            let dispatch =
                tokio::spawn(Dispatcher::run(dispatcher.clone(), stopping.clone(), hurry));
            (
                dispatch,
                tokio::spawn(Replayer::run(replayer.clone(), stopping)),
            )
        });
        let sweep = kept.roles.dispatch.then(|| {
            let files = kept.files.clone().map(FilesSweep::new);
            tokio::spawn(sweep_often(
                inbox.clone(),
                kept.swept.clone(),
                files,
                kept.clock.clone(),
            ))
        });
        let follow = tokio::spawn(share::follow(
            kept.share.clone(),
            kept.budget.clone(),
            kept.stopper.clone(),
            inbox,
        ));
        let (look, told_to_look) = mpsc::channel(1);
        let renewal = tokio::spawn(renew(tls, told_to_look));
        kept.serving.store(true, Ordering::Release);
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            roles = %kept.roles,
            public = public_address.map(tracing::field::display),
            admin = %admin_address,
            sources = config.sources.len(),
            inbox = %config.inbox.engine.title(),
            upstream = %config.upstream.base_url,
            "serving"
        );
        notify::ready();
        if let Some(public) = public_address {
            tell_addresses(&config, public);
        }

        let mut stop = std::pin::pin!(stop);
        let failed = loop {
            tokio::select! {
                () = stop.as_mut() => break None,
                cause = kept.inbox.failed() => break Some(cause),
                Some(NextConfig { config: next, sources, done }) = reloads.recv() => match Parts::new(&next, sources, &kept) {
                    Ok(parts) => {
                        front.exchange(ingress::front(parts.ingress));
                        routes.exchange(kept.admin_routes(parts.admin));
                        dispatcher.store(parts.dispatcher);
                        replayer.store(parts.replayer);
                        kept.swept.store(Arc::new(Swept::new(&next)));
                        kept.throttle.changed();
                        take_over(&kept, &settings, &next);
                        // One that is looking already looks for us as well.
                        let _ = look.try_send(());
                        // Whoever ordered it may have left.
                        let _ = done.send(Ok(()));
                    }
                    Err(error) => {
                        let _ = done.send(Err(format!("{error:#}")));
                    }
                },
            }
        };
        kept.serving.store(false, Ordering::Release);
        notify::stopping();
        tracing::info!(drain_s = drain.as_secs_f64(), "stopping");
        if let Some(sweep) = sweep {
            sweep.abort();
        }
        follow.abort();
        renewal.abort();
        let _ = stop_all.send(true);
        let finish = async {
            if let Some(public) = public {
                let _ = public.await;
            }
            if let Some((dispatch, replay)) = dispatch {
                let _ = dispatch.await;
                let _ = replay.await;
            }
        };
        let mut finish = std::pin::pin!(finish);
        if tokio::time::timeout(drain, finish.as_mut()).await.is_err() {
            let _ = hurry_all.send(true);
            if tokio::time::timeout(LAST_WORDS, finish).await.is_err() {
                tracing::warn!(
                    "some deliveries did not end in time; their leases are free at the next start"
                );
            }
        }
        let _ = close_admin.send(true);
        let _ = admin.await;
        kept.inbox.close().await;
        match failed {
            None => {
                tracing::info!("stopped");
                Ok(())
            }
            Some(cause) => Err(anyhow::anyhow!("the inbox stopped: {cause}")),
        }
    }
}

impl Kept {
    /// Router of the admin listener in this process.
    fn admin_routes(&self, state: Arc<AdminState>) -> Router {
        if self.roles.admin {
            admin::router(state)
        } else {
            admin::probes(state)
        }
    }
}

impl Parts {
    fn new(config: &Config, sources: Sources, kept: &Kept) -> anyhow::Result<Self> {
        let client = Client::new(
            config.upstream.connect_timeout,
            config.upstream.ca_file.as_deref(),
        )?
        .allowing(&config.fetch.allow);
        let servers = config
            .proxies
            .iter()
            .map(|proxy| &proxy.upstream)
            .chain([&config.upstream.base_url])
            .chain(
                sources
                    .iter()
                    .filter_map(|source| source.scheme.judge_address()),
            );
        let mark = LoopGuard::new(kept.sealer.mark(), servers);
        let upstream = Upstream::new(&config.upstream, client.clone(), kept.budget.clone())
            .marked(mark.clone());
        kept.budget.set_foreign_share(config.foreign_share());
        let sources = Arc::new(sources.of_inbox(&kept.ids, kept.sealer.marks()));
        let files = kept
            .files
            .as_ref()
            .map(|files| Arc::new(files::handed_out(files, config, &kept.sealer)));
        let intake = Arc::new(Intake {
            sources: sources.clone(),
            inbox: kept.inbox.clone(),
            files: files.clone(),
            metrics: kept.metrics.clone(),
            lines: kept.lines.clone(),
            queue: kept.queue.clone(),
            clock: kept.clock.clone(),
        });
        let reconciler = Reconciler::new(
            config,
            intake.clone(),
            &client,
            kept.stopping.clone(),
            kept.reconciling.clone(),
        );
        kept.held.set(config.server.max_held.value);
        let limits = Arc::new(RateLimits::next(
            config,
            &kept.share,
            kept.limits.load().as_deref(),
        ));
        let runs = Arc::new(RunContext {
            upstream: upstream.clone(),
            budgets: Budgets::new(config),
            inbox: kept.inbox.clone(),
            files: files.clone(),
            metrics: kept.metrics.clone(),
            paused: kept.stopper.flag(),
            clock: kept.clock.clone(),
        });
        let ingress = Arc::new(Ingress {
            fetch: Arc::new(Web {
                client: client.clone(),
                mark: mark.clone(),
            }),
            limits: limits.clone(),
            uses: kept.uses.clone(),
            intake,
            runs,
            file_rules: config.attachments.intake.clone(),
            keep_files: config.attachments.keep,
            sealer: kept.sealer.clone(),
            ids: kept.ids.clone(),
            stopping: kept.stopping.clone(),
            samples: kept.samples.clone(),
            keep_refused: config.admin.keep_refused,
            public_url: config.server.public_url.clone(),
            load: kept.load.clone(),
            memory: kept.held.clone(),
            uploads: kept.places.clone(),
            body_limits: BodyLimits::new(config),
            mark,
            proxies: Proxies::new(config, client.clone()),
            dropin: Dropin::new(config, upstream.clone(), kept.foreign.clone()),
        });
        let parts = DispatcherParts {
            inbox: kept.inbox.clone(),
            sealer: kept.sealer.clone(),
            throttle: kept.throttle.clone(),
            metrics: kept.metrics.clone(),
            clock: kept.clock.clone(),
        };
        let dispatcher = Dispatcher::new(config, upstream.clone(), parts);
        let dispatcher = Arc::new(dispatcher.with_files(files.clone(), client.clone()));
        let remap: Arc<dyn Remap> = Arc::new(Remapper(sources.clone()));
        let replayer = Replayer::new(
            config,
            kept.inbox.clone(),
            remap,
            kept.ids.clone(),
            kept.clock.clone(),
        );
        let admin = AdminState::new(
            config,
            sources,
            kept.inbox.clone(),
            upstream,
            kept.metrics.clone(),
            kept.samples.clone(),
            config
                .admin
                .token
                .clone()
                .unwrap_or_else(|| kept.token.clone()),
            kept.clock.clone(),
            kept.serving.clone(),
        );
        let admin = admin
            .with_loaded(kept.loaded.clone(), kept.stopper.clone())
            .with_files(files)
            .with_reconciler(reconciler)
            .with_uses(config, kept.uses.clone())
            .with_names(kept.ids.clone(), kept.sealer.marks().clone())
            .with_roles(kept.roles);
        let admin = Arc::new(if kept.roles.dispatch {
            admin.with_dispatcher(dispatcher.clone())
        } else {
            admin
        });
        kept.limits.store(Some(limits));
        Ok(Self {
            ingress,
            dispatcher,
            replayer,
            admin,
        })
    }
}

/// Most addresses that are logged at the start; `sluicegate source list` has all of them.
const ADDRESSES: usize = 50;

/// The addresses to give to each provider.
fn tell_addresses(config: &Config, public: SocketAddr) {
    let base = match config.server.public_url.as_str() {
        "" => {
            tracing::info!(
                "server.public_url is not set: these addresses are reached from this machine alone"
            );
            format!("http://{public}")
        }
        url => url.to_owned(),
    };
    for source in config.sources.iter().take(ADDRESSES) {
        let (name, provider) = (&source.name, &source.provider.value);
        tracing::info!(
            source = name,
            provider,
            address = format!("{base}/hooks/{name}"),
            "an address to give away"
        );
    }
    if let Some(more) = config
        .sources
        .len()
        .checked_sub(ADDRESSES)
        .filter(|more| *more > 0)
    {
        tracing::info!(
            more,
            "more sources have addresses; sluicegate source list names them"
        );
    }
}

/// Says that another configuration holds, and what of it does not until a restart: at each reload, until then.
fn take_over(kept: &Kept, started: &Settings, next: &Config) {
    let settings = Settings::of(next);
    let waiting = started.waiting(&settings);
    for setting in &waiting {
        tracing::warn!(
            setting,
            "this setting has changed; it needs a restart to take effect"
        );
    }
    let digest = settings.digest();
    tracing::info!(
        sources = next.sources.len(),
        digest,
        "configuration reloaded"
    );
    kept.loaded.next(kept.clock.now(), digest, waiting);
}

fn listen_options(config: &Config, tls: Option<ServerTls>) -> ListenOptions {
    let server = &config.server;
    ListenOptions {
        max_connections: descriptors::room_for_connections(server.max_connections),
        max_connections_per_address: server.max_connections_per_address,
        max_head: server.max_head,
        head_timeout: server.head_timeout,
        idle_timeout: server.idle_timeout,
        write_stall: server.write_stall,
        trusted: server.trusted_proxies.as_slice().into(),
        forwarded: server.forwarded,
        proxy_protocol: server.proxy_protocol,
        tls,
        http2_cleartext: server.http2_cleartext,
        drain: server.drain_timeout,
    }
}

/// Looks for another certificate in the place of the one that is shown; at once when told to, and else now and then.
async fn renew(tls: Option<ServerTls>, mut told: mpsc::Receiver<()>) {
    let Some(tls) = tls else { return };
    while let Ok(Some(())) | Err(_) = tokio::time::timeout(LOOK_FOR_CERTIFICATE, told.recv()).await
    {
        let files = tls.files();
        let (cert, key) = (&*files.cert, &*files.key);
        match tls.reload() {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(cert = %cert.display(), "another certificate is shown from now on")
            }
            Err(error) => {
                tracing::error!(%error, key = %key.display(), "certificate not taken, the one before stays")
            }
        }
    }
}

/// Reads and compiles a configuration, as `check` and `serve` both do. None when something stands in the way; every
/// problem is in `problems`.
pub fn compile(file: &Path, problems: &Problems) -> Option<(Config, Sources)> {
    let (config, sources) = compiled(Config::load(file, problems)?, problems);
    if let Some(files) = &config.server.tls
        && let Err(error) = ServerTls::load(files)
    {
        let (place, hint) = tls_file(files, &error.file);
        problems.error_hint(place, error.to_string(), hint);
    }
    sense::check(&config, problems);
    reconcile::check(&config, &sources, problems);
    check_held(&config, &sources, problems);
    (!problems.any_error()).then_some((config, sources))
}

/// Where a TLS file is named, and what has to stand in it.
fn tls_file<'f>(files: &'f TlsFiles, file: &Path) -> (&'f Place, &'static str) {
    let pair = "write the certificate with its chain, and its key, as PEM";
    let clients = files.clients.as_ref();
    let crl = clients.and_then(|clients| clients.crl.as_ref());
    if files.key.value == file {
        (&files.key.place, pair)
    } else if let Some(clients) = clients.filter(|clients| clients.ca.value == file) {
        let hint = "write the certificates of the CAs that sign client certificates, as PEM";
        (&clients.ca.place, hint)
    } else if let Some(crl) = crl.filter(|crl| crl.value == file) {
        (
            &crl.place,
            "write the revocation lists of these CAs, as PEM",
        )
    } else {
        (&files.cert.place, pair)
    }
}

/// The same for one source alone: what others, the upstream and callers need is not asked for.
pub fn compile_source(file: &Path, source: &str, problems: &Problems) -> Option<(Config, Sources)> {
    let (config, sources) = compiled(Config::load_for(file, Some(source), problems)?, problems);
    (!problems.any_error()).then_some((config, sources))
}

fn compiled(config: Config, problems: &Problems) -> (Config, Sources) {
    let sources = Sources::compile(&config, problems);
    // For the mistakes in them; the channels themselves belong to what sends to them.
    Channels::of(&config, problems);
    (config, sources)
}

/// Checks that each body that is held in memory may have its configured size.
fn check_held(config: &Config, sources: &Sources, problems: &Problems) {
    let (max_held, own) = (&config.server.max_held, config.server.max_body);
    let of_sources = sources.iter().map(|source| source.max_body.unwrap_or(own));
    let largest = of_sources
        .chain([own, config.dropin.max_body.unwrap_or(own)])
        .max()
        .unwrap_or(own);
    if largest > largest_held(max_held.value) {
        problems.error_hint(
            &max_held.place,
            format!("server.max_held is too small for the largest body that is taken, {largest} bytes"),
            "one body may have seven sixteenths of it: write at least two and a half times the largest max_body",
        );
    }
}

/// The web, as far as sources may ask it.
#[derive(Debug)]
struct Web {
    client: Client,
    /// Put on requests to a service that judges requests, whose address may lead back here.
    mark: LoopGuard,
}

#[async_trait::async_trait]
impl WebClient for Web {
    async fn get(&self, address: &str) -> Result<Bytes, String> {
        let bounds = download::DownloadBounds {
            time: FETCH_TIME,
            stall: FETCH_TIME,
            bytes: FETCH_BYTES,
        };
        let fetched = async {
            self.client
                .download_here(address, bounds)
                .await?
                .whole()
                .await
        };
        fetched
            .await
            .map_err(|error: DownloadError| error.to_string())
    }

    async fn ask(
        &self,
        mut request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<(StatusCode, HeaderMap), String> {
        let server = request.uri().clone();
        self.mark.put_on(request.headers_mut(), &server);
        let answer = self
            .client
            .send(request, timeout, FETCH_BYTES)
            .await
            .map_err(|error| error.to_string())?;
        Ok((answer.status(), answer.headers().clone()))
    }
}

/// Connections at the admin listener are few and not counted.
struct Unwatched;

impl ConnectionObserver for Unwatched {
    fn opened(&self) {}
    fn closed(&self) {}
    fn turned_away(&self, _: TurnedAway) {}
    fn certificate_refused(&self, _: IpAddr, _: &str) {}
    fn full_answer(&self) -> Option<Bytes> {
        None
    }
}

/// Times for which finished events are kept.
#[derive(Debug)]
struct Swept {
    keep: Keep,
    /// The longest an upload may take.
    upload: Duration,
}

impl Swept {
    fn new(config: &Config) -> Self {
        Self {
            keep: Keep::new(config),
            upload: config.attachments.upload_timeout,
        }
    }
}

async fn sweep_often(
    inbox: Arc<dyn Inbox>,
    swept: Arc<ArcSwap<Swept>>,
    mut files: Option<FilesSweep>,
    clock: Clock,
) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let swept = swept.load_full();
        match sweep(&*inbox, &swept.keep, clock.now()).await {
            Ok(0) => {}
            Ok(events) => tracing::info!(events, "old events removed"),
            Err(error) => tracing::error!(%error, "cannot remove old events"),
        }
        if let Some(files) = &mut files {
            files.step(&*inbox, swept.upload, clock.now()).await;
        }
    }
}
