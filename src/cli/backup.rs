//! Copies the inbox to a file while the gateway goes on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::{CommandResult, ConfigFile, inbox_config, tell};
use crate::app::{engine, seal_key_file};
use crate::config::private::write_private;

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The file to write; it must not be there yet
    #[arg(value_name = "FILE")]
    copy: PathBuf,
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) async fn run(backup: &BackupArgs) -> CommandResult {
    let config = inbox_config(&backup.config)?;
    let size = engine::back_up(&config, &backup.copy).await?;
    tell(&format!(
        "{}: the inbox of this moment, {} KiB",
        backup.copy.display(),
        size.div_ceil(1024)
    ))?;
    let key = seal_key_file(&config);
    if config.inbox.key.is_none() && key.exists() {
        let copy = key_beside(&backup.copy);
        let text = std::fs::read_to_string(&key)
            .with_context(|| format!("cannot read {}", key.display()))?;
        write_private(&copy, text.trim())
            .with_context(|| format!("cannot write {}", copy.display()))?;
        tell(&format!(
            "{}: the key that opens what is sealed in it; keep it as safe as the backup",
            copy.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The file of the key that belongs to a backup.
pub(super) fn key_beside(copy: &Path) -> PathBuf {
    let mut name = copy.as_os_str().to_owned();
    name.push(".key");
    PathBuf::from(name)
}
