//! The sources of a running gateway: how they fare, held and let go.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::gateway::{GatewayArgs, NOT_FOUND};
use super::print;
use super::sheet::sheets;

/// What to do with sources.
#[derive(Debug, Subcommand)]
pub(super) enum SourceCommand {
    /// List them with what they have waiting
    List(List),
    /// Hold what a source has waiting; what comes in is still kept
    Pause(Named),
    /// Let it go on
    Resume(Named),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// The source
    #[arg(value_name = "NAME")]
    name: String,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Runs a command. The exit code is 0 when all went well, 3 when there is no such source, 1 for every other problem.
pub(super) async fn run(command: SourceCommand) -> anyhow::Result<ExitCode> {
    let times = match &command {
        SourceCommand::List(list) => list.gateway.times,
        SourceCommand::Pause(named) | SourceCommand::Resume(named) => named.gateway.times,
    };
    let (mut out, mut talk) = sheets(times);
    let (named, verb) = match command {
        SourceCommand::List(list) => {
            let asked = list.gateway.find()?.ask("/sources").await?;
            let Some(page) = asked.or_say(&mut talk, "sources") else { return Ok(NOT_FOUND.into()) };
            if list.json {
                print::json(&mut out, &page)?;
            } else if !print::sources(&mut out, &page)? {
                print::say(&mut talk, "no sources");
            }
            out.flush()?;
            return Ok(ExitCode::SUCCESS);
        }
        SourceCommand::Pause(named) => (named, "pause"),
        SourceCommand::Resume(named) => (named, "resume"),
    };
    let name = utf8_percent_encode(&named.name, NON_ALPHANUMERIC);
    let asked = named.gateway.find()?.tell(&format!("/sources/{name}/{verb}"), &Value::Null).await?;
    let Some(answer) = asked.or_say(&mut talk, &print::line(&named.name)) else { return Ok(NOT_FOUND.into()) };
    if named.json {
        print::json(&mut out, &answer)?
    } else {
        print::held(&mut out, &answer)?
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
