//! Every run held, or let go on, at once.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::gateway::{GatewayArgs, NOT_FOUND};
use super::print;
use super::sheet::sheets;

#[derive(Debug, Args)]
pub(super) struct All {
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Runs `pause` or `resume`, which is the verb of the admin API as well.
pub(super) async fn run(all: All, verb: &str) -> anyhow::Result<ExitCode> {
    let (mut out, mut talk) = sheets(all.gateway.times);
    let asked = all
        .gateway
        .find()?
        .tell(&format!("/{verb}"), &Value::Null)
        .await?;
    let Some(answer) = asked.or_say(&mut talk, verb) else {
        return Ok(NOT_FOUND.into());
    };
    if all.json {
        print::json(&mut out, &answer)?
    } else {
        print::held(&mut out, &answer)?
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
