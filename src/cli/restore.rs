//! Puts a backup in the place of the inbox so that nothing runs a second time.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use super::backup::key_beside;
use super::{CommandResult, ConfigFile, inbox_config, tell};
use crate::app::{engine, seal_key_file};
use crate::config::Config;
use crate::config::private::write_private;
use crate::model::Clock;

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup; without it, the inbox that is there was put back by other means
    #[arg(value_name = "FILE")]
    copy: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) async fn run(restore: &RestoreArgs) -> CommandResult {
    let config = inbox_config(&restore.config)?;
    if let Some(copy) = &restore.copy {
        put_key_back(&config, copy)?;
    }
    let now = Clock::system().now();
    let found = engine::restore(&config, restore.copy.as_deref(), now).await?;
    tell(&format!(
        "{} events; {} deliveries are open and may have run since the backup was made: the upstream is asked about each \
         before it is sent",
        found.events, found.deliveries
    ))?;
    tell(
        "every run is paused: start the gateway, look around, then let it go on with `sluicegate resume`",
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Puts the key of a backup beside the inbox, unless another one is there.
fn put_key_back(config: &Config, copy: &Path) -> anyhow::Result<()> {
    let kept = key_beside(copy);
    if config.inbox.key.is_some() || !kept.exists() {
        return Ok(());
    }
    let read = |file: &Path| {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
    };
    let (text, file) = (read(&kept)?, seal_key_file(config));
    if file.exists() {
        if read(&file)?.trim() != text.trim() {
            bail!(
                "{} is another key than {}: what is sealed in the backup would not open; move it away first",
                file.display(),
                kept.display()
            );
        }
        return Ok(());
    }
    write_private(&file, text.trim()).with_context(|| format!("cannot write {}", file.display()))
}
