//! The destinations of a running gateway: their state, paused and resumed, and their breakers reset.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::gateway::{GatewayArgs, ListArgs, NOT_FOUND};
use super::print;
use super::sheet::sheets;
use crate::inbox::filter::destination;
use crate::model::Destination;

/// Commands for destinations.
#[derive(Debug, Subcommand)]
pub(super) enum DestinationCommand {
    /// List destinations and their state: calls in flight, breaker, what waits
    List(ListArgs),
    /// Hold what waits for one
    Pause(DestinationArgs),
    /// Send again to a destination that was paused
    Resume(DestinationArgs),
    /// Call a destination that failed again now, before its rest is over
    Reset(DestinationArgs),
}

#[derive(Debug, Args)]
pub(super) struct DestinationArgs {
    /// The destination, like agent/ID or workflow/ID; a beginning that only one has is enough
    #[arg(value_name = "DESTINATION", value_parser = named)]
    destination: Destination,
    /// Also one that no source sends to and that nothing was sent to yet
    #[arg(long)]
    force: bool,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

fn named(text: &str) -> Result<Destination, &'static str> {
    destination(text).ok_or("write agent/ID or workflow/ID")
}

/// Runs a command. The exit code is 0 when all went well, 3 when there is no such thing, 1 for every other problem.
pub(super) async fn run(command: DestinationCommand) -> anyhow::Result<ExitCode> {
    let (named, verb) = match command {
        DestinationCommand::List(list) => {
            return list
                .show("destinations", "no destinations", print::destinations)
                .await;
        }
        DestinationCommand::Pause(named) => (named, "pause"),
        DestinationCommand::Resume(named) => (named, "resume"),
        DestinationCommand::Reset(named) => (named, "reset"),
    };
    let (mut out, mut talk) = sheets(named.gateway.times);
    let written = named.destination.to_string();
    let (kind, id) = written.split_once('/').unwrap_or((&written, ""));
    let force = if named.force { "?force=true" } else { "" };
    let path = format!(
        "/destinations/{kind}/{}/{verb}{force}",
        utf8_percent_encode(id, NON_ALPHANUMERIC)
    );
    let asked = named.gateway.find()?.tell(&path, &Value::Null).await?;
    let Some(answer) = asked.or_say(&mut talk, &print::line(&written)) else {
        return Ok(NOT_FOUND.into());
    };
    if named.json {
        print::json(&mut out, &answer)?
    } else {
        print::held(&mut out, &answer)?
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
