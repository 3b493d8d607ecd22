//! The log: one line per request and per attempt on standard error, ids as fields, no secret ever.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Log;

/// Starts logging. A filter that cannot be read is said on the way and replaced by `info`.
pub fn start(config: &Log) {
    let (filter, wrong) = match EnvFilter::try_new(&config.filter) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A program that embeds the gateway twice, as tests do, keeps its first subscriber.
    let _ =
        if config.json { builder.json().flatten_event(true).finish().try_init() } else { builder.finish().try_init() };
    if let Some(error) = wrong {
        tracing::warn!(%error, "log.filter cannot be read, using info");
    }
}
