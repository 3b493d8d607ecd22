//! The providers that are known: compiled in, and those of the operator's folder.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Ended, answer, say};
use crate::config::{Config, Problems};

#[derive(Debug, Subcommand)]
pub(super) enum ProviderCommand {
    /// List them
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// A configuration file, for the providers of its folder
    #[arg(short, long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &ProviderCommand) -> Ended {
    let ProviderCommand::List(list) = command;
    let problems = Problems::default();
    let config = match &list.config {
        Some(file) => Config::load(file, &problems),
        None => Config::parse("", "", std::path::Path::new("."), std::iter::empty(), &problems),
    };
    let Some(config) = config else {
        for problem in problems.into_sorted() {
            say(&problem.to_string());
        }
        return Ok(ExitCode::FAILURE);
    };
    if list.json {
        let providers: Vec<_> = config
            .providers
            .values()
            .map(|p| json!({ "name": p.name, "title": p.title, "docs": p.docs, "evidence": p.evidence }))
            .collect();
        answer(&serde_json::Value::from(providers).to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    for provider in config.providers.values() {
        answer(&format!("{:<24} {:<32} known by: {}", provider.name, provider.title, provider.evidence))?;
    }
    Ok(ExitCode::SUCCESS)
}
