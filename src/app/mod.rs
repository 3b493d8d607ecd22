//! The parts, built from a `Config`, started and drained.
//!
//! The sockets and the order to stop come from outside, so that a test or the demo runs the same gateway as `serve`.
//! A process has some of the roles or all of them; what its roles do not ask for is not started. The admin listener is
//! there in every process, since whoever watches over processes must be able to ask how each fares: without the admin
//! role it answers health and metrics and nothing else.

pub mod engine;
pub mod secret;
mod share;

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use axum::Router;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::admin::{self, AdminState};
use crate::config::{Config, Problems, Secret};
use crate::dispatch::replay::Replayer;
use crate::dispatch::{Dispatcher, Pace};
use crate::inbox::seal::Sealer;
use crate::inbox::sweep::sweep;
use crate::inbox::{Inbox, Keep};
use crate::ingress::{self, Bounds, Dropin, Ingress, Proxies};
use crate::limit::{Limits, Share};
use crate::model::{Clock, Roles};
use crate::net::{Client, Door, ListenOptions, Swap, listen};
use crate::source::{Fetch, Sources};
use crate::telemetry::{Metrics, RefusedSamples};
use crate::upstream::{Budget, Upstream};

pub(crate) use secret::write_private;
use secret::{admin_token, sealer};
pub use secret::{admin_token_file, seal_key_file};

/// The sockets of a gateway.
#[derive(Debug)]
pub struct Listeners {
    /// Where third parties call; none without the ingress role.
    pub public: Option<TcpListener>,
    /// Where operators call.
    pub admin: TcpListener,
}

/// A gateway, built and not yet serving.
#[derive(Debug)]
pub struct App {
    config: Config,
    kept: Kept,
    parts: Parts,
    stop_all: watch::Sender<bool>,
}

/// What a new configuration leaves as it is.
#[derive(Debug)]
struct Kept {
    inbox: Arc<dyn Inbox>,
    metrics: Arc<Metrics>,
    samples: Arc<RefusedSamples>,
    sealer: Arc<Sealer>,
    roles: Roles,
    share: Share,
    budget: Budget,
    pace: Arc<Pace>,
    token: Secret,
    stopping: watch::Receiver<bool>,
    serving: Arc<AtomicBool>,
    clock: Clock,
}

/// What a configuration is made into.
#[derive(Debug)]
struct Parts {
    ingress: Arc<Ingress>,
    dispatcher: Arc<Dispatcher>,
    replayer: Arc<Replayer>,
    admin: Arc<AdminState>,
}

/// How often what is too old is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How long a source may wait for a certificate, and how large it may be.
const FETCH_TIME: Duration = Duration::from_secs(5);
const FETCH_BYTES: u64 = 64 * 1024;

/// What a stop may take beyond the drain time, for the last settlements and the last commit.
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
    pub async fn build(config: Config, sources: Sources, roles: Roles, clock: Clock) -> anyhow::Result<Self> {
        let token = admin_token(&config)?;
        let inbox = engine::open(&config, roles).await?;
        // After the inbox, whose lock keeps a second process from making a key of its own.
        let sealer = Arc::new(sealer(&config)?);
        let share = Share::default();
        let (budget, metrics) = (Budget::default(), Arc::new(Metrics::new()));
        share::take(&share, &budget, &*inbox);
        let (stop_all, stopping) = watch::channel(false);
        let kept = Kept {
            inbox,
            pace: Pace::new(budget.clone(), metrics.clone()),
            budget,
            metrics,
            samples: Arc::new(RefusedSamples::default()),
            sealer,
            roles,
            share,
            token,
            stopping,
            serving: Arc::new(AtomicBool::new(false)),
            clock,
        };
        let parts = Parts::new(&config, sources, &kept)?;
        Ok(Self { config, kept, parts, stop_all })
    }

    /// Serves until `stop` resolves, then drains: no new connection, no new claim; requests in flight are answered,
    /// leases given back, the inbox closed. An error when the inbox stopped by itself. A configuration that comes by
    /// `reloads` takes the place of the one before, whole.
    pub async fn serve(
        self,
        listeners: Listeners,
        mut reloads: mpsc::Receiver<(Config, Sources)>,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let Self { mut config, kept, parts, stop_all } = self;
        let drain = config.server.drain_timeout;
        let options = listen_options(&config);
        let public_address = listeners.public.as_ref().map(TcpListener::local_addr).transpose()?;
        let admin_address = listeners.admin.local_addr()?;
        let (hurry_all, hurry) = watch::channel(false);
        let told = |mut stopping: watch::Receiver<bool>| async move {
            // A sender that is gone has stopped as well.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let door = parts.ingress.door();
        let front = Swap::new(ingress::front(parts.ingress));
        let routes = Swap::new(kept.admin_routes(parts.admin));
        let dispatcher = Arc::new(ArcSwap::new(parts.dispatcher));
        let replayer = Arc::new(ArcSwap::new(parts.replayer));
        let public = listeners.public.map(|listener| {
            tokio::spawn(listen::serve(listener, front.clone(), options, door, told(kept.stopping.clone())))
        });
        // The admin listener stays until the end, so that a stop can be watched.
        let (close_admin, admin_closing) = watch::channel(false);
        let admin_options = ListenOptions { drain: Duration::from_millis(500), ..options };
        let admin = tokio::spawn(listen::serve(
            listeners.admin,
            routes.clone(),
            admin_options,
            Arc::new(Unwatched),
            told(admin_closing),
        ));
        let (inbox, stopping) = (kept.inbox.clone(), kept.stopping.clone());
        let dispatch = kept.roles.dispatch.then(|| {
            let dispatch = tokio::spawn(Dispatcher::run(dispatcher.clone(), stopping.clone(), hurry));
            (dispatch, tokio::spawn(Replayer::run(replayer.clone(), stopping)))
        });
        let sweep = kept
            .roles
            .dispatch
            .then(|| tokio::spawn(sweep_often(inbox.clone(), Keep::new(&config), kept.clock.clone())));
        let follow = tokio::spawn(share::follow(kept.share.clone(), kept.budget.clone(), inbox));
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

        let mut stop = std::pin::pin!(stop);
        let failed = loop {
            tokio::select! {
                () = stop.as_mut() => break None,
                cause = kept.inbox.failed() => break Some(cause),
                Some((next, sources)) = reloads.recv() => match Parts::new(&next, sources, &kept) {
                    Ok(parts) => {
                        front.exchange(ingress::front(parts.ingress));
                        routes.exchange(kept.admin_routes(parts.admin));
                        dispatcher.store(parts.dispatcher);
                        replayer.store(parts.replayer);
                        kept.pace.changed();
                        warn_of_what_stays(&config, &next);
                        config = next;
                        tracing::info!(sources = config.sources.len(), "configuration reloaded");
                    }
                    Err(error) => tracing::error!(%error, "configuration not reloaded, the old one stays"),
                },
            }
        };
        kept.serving.store(false, Ordering::Release);
        tracing::info!(drain_s = drain.as_secs_f64(), "stopping");
        if let Some(sweep) = sweep {
            sweep.abort();
        }
        follow.abort();
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
                tracing::warn!("some deliveries did not end in time; their leases are free at the next start");
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
    /// What the admin listener answers in this process.
    fn admin_routes(&self, state: Arc<AdminState>) -> Router {
        if self.roles.admin { admin::router(state) } else { admin::probes(state) }
    }
}

impl Parts {
    fn new(config: &Config, sources: Sources, kept: &Kept) -> anyhow::Result<Self> {
        let client = Client::new(config.upstream.connect_timeout, config.upstream.ca_file.as_deref())?;
        let upstream = Upstream::new(&config.upstream, client.clone(), kept.budget.clone());
        let sources = Arc::new(sources);
        let enrolments = sources.enrolments();
        let ingress = Arc::new(Ingress {
            fetch: Arc::new(Web(client.clone())),
            sources: sources.clone(),
            limits: Limits::new(config, &kept.share),
            inbox: kept.inbox.clone(),
            upstream: upstream.clone(),
            sealer: kept.sealer.clone(),
            stopping: kept.stopping.clone(),
            metrics: kept.metrics.clone(),
            samples: kept.samples.clone(),
            clock: kept.clock.clone(),
            public_url: config.server.public_url.clone(),
            bounds: Bounds::new(config),
            proxies: Proxies::new(config, client),
            dropin: Dropin::new(config, upstream.clone()),
        });
        let dispatcher = Dispatcher::new(
            config,
            kept.inbox.clone(),
            upstream.clone(),
            kept.sealer.clone(),
            kept.pace.clone(),
            kept.metrics.clone(),
            kept.clock.clone(),
        );
        let replayer = Replayer::new(config, kept.inbox.clone(), kept.clock.clone());
        let admin = AdminState::new(
            config,
            sources,
            kept.inbox.clone(),
            upstream,
            kept.metrics.clone(),
            kept.samples.clone(),
            config.admin.token.clone().unwrap_or_else(|| kept.token.clone()),
            kept.clock.clone(),
            kept.serving.clone(),
        );
        let admin = admin.with_enrolments(enrolments).with_roles(kept.roles);
        let admin = Arc::new(if kept.roles.dispatch { admin.with_dispatcher(dispatcher.clone()) } else { admin });
        Ok(Self { ingress, dispatcher, replayer, admin })
    }
}

/// What is read at the start only, and has changed all the same.
fn warn_of_what_stays(old: &Config, new: &Config) {
    let changed = [
        ("server.listen", old.server.listen != new.server.listen),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("inbox", format!("{:?}", old.inbox) != format!("{:?}", new.inbox)),
        ("log", format!("{:?}", old.log) != format!("{:?}", new.log)),
    ];
    for (setting, _) in changed.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(setting, "this has changed and holds after a restart only");
    }
}

fn listen_options(config: &Config) -> ListenOptions {
    ListenOptions {
        max_connections: config.server.max_connections,
        max_head: config.server.max_head,
        head_timeout: config.server.head_timeout,
        drain: config.server.drain_timeout,
    }
}

/// Reads and compiles a configuration, as `check` and `serve` both do. None when something stands in the way; every
/// problem is in `problems`.
pub fn compile(file: &Path, problems: &Problems) -> Option<(Config, Sources)> {
    let config = Config::load(file, problems)?;
    let sources = Sources::compile(&config, problems);
    (!problems.any_error()).then_some((config, sources))
}

/// The web, as far as sources may ask it.
#[derive(Debug)]
struct Web(Client);

#[async_trait::async_trait]
impl Fetch for Web {
    async fn get(&self, address: &str) -> Result<Bytes, String> {
        let request = http::Request::get(address).body(Bytes::new()).map_err(|error| error.to_string())?;
        let answer = self.0.send(request, FETCH_TIME, FETCH_BYTES).await.map_err(|error| error.to_string())?;
        if answer.status() == http::StatusCode::OK {
            Ok(answer.into_body())
        } else {
            Err(format!("it answered {}", answer.status()))
        }
    }
}

/// Connections at the admin listener are few and not counted.
struct Unwatched;

impl Door for Unwatched {
    fn opened(&self) {}
    fn closed(&self) {}
    fn full(&self) {}
}

async fn sweep_often(inbox: Arc<dyn Inbox>, keep: Keep, clock: Clock) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        match sweep(&*inbox, &keep, clock.now()).await {
            Ok(0) => {}
            Ok(events) => tracing::info!(events, "old events removed"),
            Err(error) => tracing::error!(%error, "cannot remove old events"),
        }
    }
}
