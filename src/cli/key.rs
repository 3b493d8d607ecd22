//! The gateway's own keys: what they are good for and how they were used.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::gateway::{GatewayArgs, NOT_FOUND};
use super::print;
use super::sheet::sheets;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// List them: what each is good for, when it was used last, what it has spent today
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Runs a command.
pub(super) async fn run(command: KeyCommand) -> anyhow::Result<ExitCode> {
    let KeyCommand::List(list) = command;
    let (mut out, mut talk) = sheets(list.gateway.times);
    let asked = list.gateway.find()?.ask("/keys").await?;
    let Some(page) = asked.or_say(&mut talk, "keys") else { return Ok(NOT_FOUND.into()) };
    if list.json {
        print::json(&mut out, &page)?;
    } else if !print::keys(&mut out, &page)? {
        print::say(&mut talk, "no keys; [keys.NAME] makes one");
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
