//! The exchange of configurations while the gateway serves.
//!
//! The parts of a new configuration are built first and take their places together. If one cannot be built, the
//! configuration that holds stays, and whoever ordered the reload gets the reason.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use tokio::sync::mpsc;

use super::NextConfig;
use super::parts::Parts;
use super::runtime::Runtime;
use super::settings::Settings;
use super::sweep::Swept;
use crate::config::Config;
use crate::dispatch::Dispatcher;
use crate::dispatch::replay::Replayer;
use crate::ingress::{self, Front};
use crate::net::Reloadable;

/// The parts of the configuration that holds, as the tasks that serve see them.
pub(super) struct Serving {
    pub(super) front: Reloadable<Front>,
    pub(super) routes: Reloadable<Router>,
    pub(super) dispatcher: Arc<ArcSwap<Dispatcher>>,
    pub(super) replayer: Arc<ArcSwap<Replayer>>,
    /// Orders to look for another certificate.
    pub(super) look: mpsc::Sender<()>,
}

/// Exchanges configurations until the gateway is to stop. Returns the cause if the inbox stopped by itself.
///
/// A setting that is read at the start only is compared with what the process was started with (`settings`), so that a change is
/// told of until a restart has taken it over.
pub(super) async fn follow(
    runtime: &Runtime,
    settings: &Settings,
    serving: &Serving,
    mut reloads: mpsc::Receiver<NextConfig>,
    stop: impl Future<Output = ()>,
) -> Option<String> {
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = stop.as_mut() => return None,
            cause = runtime.inbox.failed() => return Some(cause),
            Some(NextConfig { config, sources, done }) = reloads.recv() => {
                let taken = match Parts::new(&config, sources, runtime) {
                    Ok(parts) => {
                        serving.exchange(runtime, parts, &config);
                        say_reloaded(runtime, settings, &config);
                        Ok(())
                    }
                    Err(error) => Err(format!("{error:#}")),
                };
                // Whoever ordered it may have left.
                let _ = done.send(taken);
            }
        }
    }
}

impl Serving {
    /// Puts the parts of another configuration in the place of those that hold.
    fn exchange(&self, runtime: &Runtime, parts: Parts, config: &Config) {
        self.front.exchange(ingress::front(parts.ingress));
        self.routes.exchange(runtime.admin_routes(parts.admin));
        self.dispatcher.store(parts.dispatcher);
        self.replayer.store(parts.replayer);
        runtime.swept.store(Arc::new(Swept::new(config)));
        runtime.throttle.changed();
        // A look that is on its way already sees the new certificate as well.
        let _ = self.look.try_send(());
    }
}

/// Logs that another configuration holds, and what of it needs a restart: at each reload, until then.
fn say_reloaded(runtime: &Runtime, started: &Settings, next: &Config) {
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
    runtime.loaded.next(runtime.clock.now(), digest, waiting);
}
