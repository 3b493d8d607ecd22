//! Ask a running gateway whether it is ready, for whoever watches over processes. Needs no token.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, StatusCode};

use super::{CommandResult, ConfigFile, answer, reachable};
use crate::config::{Config, Problems};
use crate::net::Client;

/// Longest time for an answer; a gateway that is slower counts as ill.
const PATIENCE: Duration = Duration::from_secs(4);

pub(super) async fn run(file: &ConfigFile) -> CommandResult {
    // What is wrong with single settings is for `check` to say; here only the address matters.
    let Some(config) = Config::load(&file.config, &Problems::default()) else {
        bail!(
            "{} cannot be read: run `sluicegate check`",
            file.config.display()
        );
    };
    let url = format!(
        "http://{}/api/v1/health/ready",
        reachable(config.admin.listen)
    );
    let request = Request::get(&url).body(Bytes::new())?;
    let said = Client::new(PATIENCE, None)?
        .send(request, PATIENCE, 4096)
        .await
        .with_context(|| format!("{url} does not answer"))?;
    answer(&String::from_utf8_lossy(said.body()))?;
    Ok(if said.status() == StatusCode::OK {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
