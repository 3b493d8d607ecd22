//! The gateway's own keys: what they are good for and how they were used.

use std::process::ExitCode;

use clap::Subcommand;

use super::gateway::ListArgs;
use super::print;

/// Commands for keys.
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// List them: what each is good for, when it was used last, what it has spent today
    List(ListArgs),
}

/// Runs a command.
pub(super) async fn run(command: KeyCommand) -> anyhow::Result<ExitCode> {
    let KeyCommand::List(list) = command;
    list.show("keys", "no keys; [keys.NAME] makes one", print::keys)
        .await
}
