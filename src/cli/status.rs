//! Prints what is wrong with a gateway, if anything is. The exit code says it too.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::gateway::{GatewayArgs, NOT_FOUND};
use super::print;
use super::sheet::sheets;

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Asks. The exit code is 0 when all is well, and 1 when something needs attention or nobody answers.
pub(super) async fn run(status: &Status) -> anyhow::Result<ExitCode> {
    let (mut out, mut talk) = sheets(status.gateway.times);
    let asked = status.gateway.find()?.ask("/status").await?;
    let Some(answer) = asked.or_say(&mut talk, "status") else {
        return Ok(NOT_FOUND.into());
    };
    let well = if status.json {
        print::json(&mut out, &answer)?;
        answer["well"] == true
    } else {
        print::status(&mut out, &answer)?
    };
    out.flush()?;
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
