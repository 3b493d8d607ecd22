//! A configuration to begin with, for whoever has the program alone.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::{CommandResult, answer, say};
use crate::config::DEFAULTS;

const EXAMPLE: &str = include_str!("../../config/example.toml");

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The file to write
    #[arg(value_name = "FILE", default_value = "sluicegate.toml")]
    file: PathBuf,
    /// Print every setting with its default and a sentence, and write nothing
    #[arg(long, conflicts_with = "file")]
    defaults: bool,
}

/// Writes the file; one that is there is left as it is.
pub(super) fn run(init: &Init) -> CommandResult {
    if init.defaults {
        answer(DEFAULTS.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let file = init.file.display();
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).open(&init.file);
    let mut written = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            say(&format!("{file} is there already and was left as it is"));
            return Ok(ExitCode::FAILURE);
        }
        opened => opened.with_context(|| format!("cannot write {file}"))?,
    };
    written
        .write_all(EXAMPLE.as_bytes())
        .with_context(|| format!("cannot write {file}"))?;
    say(&format!(
        "wrote {file}: a small setup with two sources. Name your agents in it, set the variables that it names, then:\n\
         \x20 sluicegate check {file}\n\
         \x20 sluicegate serve --config {file}\n\
         Every other setting: sluicegate init --defaults"
    ));
    Ok(ExitCode::SUCCESS)
}
