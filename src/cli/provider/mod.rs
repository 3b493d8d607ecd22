//! The providers that are known: compiled in, and those of the operator's folder. List them, show one, judge requests
//! by one, check the file of a new one.

pub(super) mod case;
mod check;
mod show;
mod trying;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Ended, answer, say};
use crate::config::{Config, Problems};

#[derive(Debug, Subcommand)]
pub(super) enum ProviderCommand {
    /// List them
    List(List),
    /// Show one: what to set up there, which secret goes where
    Show(show::Show),
    /// Judge requests by a provider's scheme: JSON lines in, JSON lines out
    Try(trying::Try),
    /// Check the file of a new provider with its kept requests
    Check(check::Check),
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
    match command {
        ProviderCommand::List(list) => run_list(list),
        ProviderCommand::Show(show) => show::run(show),
        ProviderCommand::Try(trying) => trying::run(trying),
        ProviderCommand::Check(check) => check::run(check),
    }
}

/// A configuration with the providers that are known; what is wrong with it is said.
pub(super) fn known(file: Option<&Path>) -> Option<Config> {
    known_for(file, None)
}

/// The same with one source alone.
pub(super) fn known_for(file: Option<&Path>, source: Option<&str>) -> Option<Config> {
    let problems = Problems::default();
    let config = match file {
        Some(file) => Config::load_for(file, source, &problems),
        None => Config::parse("", "", Path::new("."), std::iter::empty(), &problems),
    };
    if config.is_none() {
        for problem in problems.into_sorted() {
            say(&problem.to_string());
        }
    }
    config
}

/// The longest title in the list, so that a line of it has 80 columns at most.
const TITLE: usize = 44;

fn run_list(list: &List) -> Ended {
    let Some(config) = known(list.config.as_deref()) else { return Ok(ExitCode::FAILURE) };
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
        let mut title: String = provider.title.chars().take(TITLE).collect();
        if title.len() < provider.title.len() {
            title.truncate(title.len().saturating_sub(3));
            title.push_str("...");
        }
        answer(&format!("{:<23} {title:<TITLE$} {}", provider.name, provider.evidence))?;
    }
    Ok(ExitCode::SUCCESS)
}
