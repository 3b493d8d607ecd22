//! The parts, built from a `Config`, started and drained.
//!
//! The sockets and the order to stop come from outside, so that a test or the demo runs the same gateway as `serve`.
//! A process has some of the roles or all of them; what its roles do not ask for is not started. The admin listener is
//! there in every process, since whoever watches over processes must be able to ask how each fares: without the admin
//! role it answers health and metrics and nothing else.

mod certificate;
mod compile;
pub mod engine;
mod files;
mod listeners;
mod notify;
mod parts;
mod reload;
mod runtime;
pub mod secret;
mod serve;
mod settings;
mod share;
mod sweep;
mod web;

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::admin::Loaded;
use crate::config::Config;
use crate::model::{Clock, Roles};
use crate::source::Sources;

pub use compile::{compile, compile_source};
pub use listeners::Listeners;
use parts::Parts;
use runtime::Runtime;
pub use secret::{admin_token_file, seal_key_file, sealer};
use settings::Settings;

/// A gateway, built and not yet serving.
#[derive(Debug)]
pub struct App {
    config: Config,
    settings: Settings,
    runtime: Runtime,
    parts: Parts,
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

impl App {
    /// Opens the inbox and builds the parts.
    pub async fn build(
        config: Config,
        sources: Sources,
        roles: Roles,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let settings = Settings::of(&config);
        let runtime = Runtime::open(&config, settings.digest(), roles, clock).await?;
        let parts = Parts::new(&config, sources, &runtime)?;
        Ok(Self {
            config,
            settings,
            runtime,
            parts,
        })
    }

    /// State of the configuration that holds.
    pub fn loaded(&self) -> Arc<Loaded> {
        self.runtime.loaded.clone()
    }
}
