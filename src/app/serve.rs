//! A gateway that serves: its tasks are started, and drained in the end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::files::FilesSweep;
use super::listeners::{Unwatched, admin_options, public_options, tell_addresses};
use super::parts::Parts;
use super::reload::{self, Serving};
use super::runtime::Runtime;
use super::sweep::sweep_often;
use super::{App, Listeners, NextConfig, certificate, notify, share};
use crate::config::Config;
use crate::dispatch::Dispatcher;
use crate::dispatch::replay::Replayer;
use crate::ingress;
use crate::net::{ListenOptions, PerCore, Reloadable, ServerTls, listen};

/// Time that a shutdown may take beyond the drain time, for the last settlements and the last commit.
const LAST_WORDS: Duration = Duration::from_millis(1_500);

/// The tasks of a gateway, by the moment when they end.
struct Tasks {
    /// Those that end what they have begun.
    draining: TaskTracker,
    /// Those that are of no use once the gateway stops, and are cut.
    upkeep: Vec<JoinHandle<()>>,
    /// The admin listener, which stays until the end, so that a stop can be watched.
    admin: JoinHandle<()>,
    close_admin: CancellationToken,
    /// Ends the time for finishing work.
    hurry: CancellationToken,
}

impl App {
    /// Serves until `stop` resolves, then drains: no new connection, no new claim; requests in flight are answered,
    /// leases given back, the inbox closed. An error when the inbox stopped by itself. A configuration that comes by
    /// `reloads` takes the place of the one before, whole.
    pub async fn serve(
        self,
        listeners: Listeners,
        reloads: mpsc::Receiver<NextConfig>,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let Self {
            config,
            settings,
            runtime,
            parts,
        } = self;
        let public = listeners.public.as_ref();
        let public = public.map(|socket| socket.local_addr()).transpose()?;
        let admin = listeners.admin.local_addr()?;
        let (serving, tasks) = start(&config, &runtime, parts, listeners)?;
        runtime.serving.store(true, Ordering::Release);
        say_serving(&config, &runtime, public, admin);
        let failed = reload::follow(&runtime, &settings, &serving, reloads, stop).await;
        runtime.serving.store(false, Ordering::Release);
        notify::stopping();
        let drain = config.server.drain_timeout;
        tracing::info!(drain_s = drain.as_secs_f64(), "stopping");
        tasks.end(&runtime, drain).await;
        runtime.inbox.close().await;
        match failed {
            None => {
                tracing::info!("stopped");
                Ok(())
            }
            Some(cause) => Err(anyhow::anyhow!("the inbox stopped: {cause}")),
        }
    }
}

/// Starts the tasks that the roles of this process ask for.
fn start(
    config: &Config,
    runtime: &Runtime,
    parts: Parts,
    listeners: Listeners,
) -> anyhow::Result<(Serving, Tasks)> {
    let tls = config.server.tls.as_ref();
    let tls = tls.map(ServerTls::load).transpose()?;
    let options = public_options(config, tls.clone());
    let observer = parts.ingress.observer();
    let (look, told_to_look) = mpsc::channel(1);
    let serving = Serving {
        front: Reloadable::new(ingress::front(parts.ingress)),
        routes: Reloadable::new(runtime.admin_routes(parts.admin)),
        dispatcher: Arc::new(ArcSwap::new(parts.dispatcher)),
        replayer: Arc::new(ArcSwap::new(parts.replayer)),
        look,
    };
    let draining = TaskTracker::new();
    if let Some(listener) = listeners.public {
        let stop = runtime.stopping.clone().cancelled_owned();
        draining.spawn(listen::serve(
            listener,
            serving.front.clone(),
            options.clone(),
            Some(PerCore::start()?),
            observer,
            stop,
        ));
    }
    let hurry = CancellationToken::new();
    let mut upkeep = vec![
        tokio::spawn(share::follow(
            runtime.share.clone(),
            runtime.budget.clone(),
            runtime.stopper.clone(),
            runtime.inbox.clone(),
        )),
        tokio::spawn(certificate::renew(tls, told_to_look)),
    ];
    if runtime.roles.dispatch {
        let stop = &runtime.stopping;
        draining.spawn(Dispatcher::run(
            serving.dispatcher.clone(),
            stop.clone(),
            hurry.clone(),
        ));
        draining.spawn(Replayer::run(serving.replayer.clone(), stop.clone()));
        upkeep.push(tokio::spawn(sweep_often(
            runtime.inbox.clone(),
            runtime.swept.clone(),
            runtime.files.clone().map(FilesSweep::new),
            runtime.clock.clone(),
        )));
    }
    draining.close();
    let close_admin = CancellationToken::new();
    let admin = serve_admin(listeners.admin, &serving, options, close_admin.clone());
    let tasks = Tasks {
        draining,
        upkeep,
        admin,
        close_admin,
        hurry,
    };
    Ok((serving, tasks))
}

fn serve_admin(
    listener: tokio::net::TcpListener,
    serving: &Serving,
    public: ListenOptions,
    close: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(listen::serve(
        listener,
        serving.routes.clone(),
        admin_options(public),
        None,
        Arc::new(Unwatched),
        close.cancelled_owned(),
    ))
}

fn say_serving(config: &Config, runtime: &Runtime, public: Option<SocketAddr>, admin: SocketAddr) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        roles = %runtime.roles,
        public = public.map(tracing::field::display),
        admin = %admin,
        sources = config.sources.len(),
        inbox = %config.inbox.engine.title(),
        upstream = %config.upstream.base_url,
        "serving"
    );
    notify::ready();
    if let Some(public) = public {
        tell_addresses(config, public);
    }
}

impl Tasks {
    /// Ends the tasks: those that have begun something may finish it within the drain time.
    async fn end(self, runtime: &Runtime, drain: Duration) {
        self.upkeep.iter().for_each(JoinHandle::abort);
        runtime.stopping.cancel();
        let mut finished = pin!(self.draining.wait());
        if tokio::time::timeout(drain, finished.as_mut())
            .await
            .is_err()
        {
            self.hurry.cancel();
            if tokio::time::timeout(LAST_WORDS, finished).await.is_err() {
                tracing::warn!(
                    "some deliveries did not end in time; their leases are free at the next start"
                );
            }
        }
        self.close_admin.cancel();
        let _ = self.admin.await;
    }
}
