//! The log: one line per request and per attempt on standard error, ids as fields, no secret ever. What a caller wrote
//! can make neither a second line nor a second field (`field`), and nothing that a terminal obeys (`line`). Panics are lines
//! like any other.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::field::PlainFields;
use super::json_line::JsonLine;
use super::line::Lines;
use crate::config::Log;

/// The process has one standard error, and so one way to it.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Starts logging. A filter that cannot be read is said on the way and replaced by `info`.
pub fn start(config: &Log) -> std::io::Result<()> {
    let (filter, wrong) = match EnvFilter::try_new(&config.filter) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let lines = Lines::start(std::io::stderr())?;
    let lines = LINES.get_or_init(|| lines).clone();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(lines)
        .with_ansi(std::io::stderr().is_terminal());
    // A program that embeds the gateway twice, as tests do, keeps its first subscriber.
    let _ = if config.json {
        builder.event_format(JsonLine).finish().try_init()
    } else {
        builder.fmt_fields(PlainFields).finish().try_init()
    };
    super::panic::log();
    if let Some(error) = wrong {
        tracing::warn!(%error, "log.filter cannot be read, using info");
    }
    Ok(())
}

/// Waits until what was logged is written, unless nobody reads it.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush();
    }
}

/// Number of lines that were dropped because no reader took them.
pub fn dropped() -> u64 {
    LINES.get().map_or(0, Lines::dropped)
}
