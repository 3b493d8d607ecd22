//! Replays in bulk: how they go, and steering them. They are begun by `event replay` with a filter.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::gateway::{GatewayArgs, ListArgs, NOT_FOUND};
use super::sheet::sheets;
use super::{pace, print};

/// Commands for replays.
#[derive(Debug, Subcommand)]
pub(super) enum ReplayCommand {
    /// List the last ones, newest first
    List(ListArgs),
    /// Show the progress of one replay
    Show(One),
    /// Stop one until it is resumed
    Pause(One),
    /// Let a paused one go on
    Resume(One),
    /// Change how many events a minute one owes again
    Pace(ChangePace),
    /// Call one off; what it has owed already stays owed
    Cancel(One),
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// Its number
    #[arg(value_name = "NUMBER")]
    id: i64,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Debug, Args)]
pub(super) struct ChangePace {
    #[command(flatten)]
    one: One,
    /// Number of events a minute, like 60/min
    #[arg(value_name = "RATE", value_parser = pace)]
    pace: u32,
}

/// Runs a command. The exit code is 0 when all went well, 3 when there is no such replay, 1 for every other problem.
pub(super) async fn run(command: ReplayCommand) -> anyhow::Result<ExitCode> {
    let (one, change) = match command {
        ReplayCommand::List(list) => return list.show("replays", "no replays", print::jobs).await,
        ReplayCommand::Show(one) => (one, Value::Null),
        ReplayCommand::Pause(one) => (one, json!({ "state": "paused" })),
        ReplayCommand::Resume(one) => (one, json!({ "state": "running" })),
        ReplayCommand::Pace(ChangePace { one, pace }) => (one, json!({ "pace": pace })),
        ReplayCommand::Cancel(one) => (one, json!({ "state": "cancelled" })),
    };
    let (mut out, mut talk) = sheets(one.gateway.times);
    let gateway = one.gateway.find()?;
    let path = format!("/replays/{}", one.id);
    let asked = if change.is_null() {
        gateway.ask(&path).await?
    } else {
        gateway.tell(&path, &change).await?
    };
    let Some(job) = asked.or_say(&mut talk, &one.id.to_string()) else {
        return Ok(NOT_FOUND.into());
    };
    if one.json {
        print::json(&mut out, &job)?
    } else {
        print::job(&mut out, &job)?
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
