//! The providers that are known: compiled in, and those of the operator's folder. List them, show one, judge requests
//! by one, check the file of a new one.

mod channel;
mod check;
pub(super) mod fixture;
mod judge;
mod show;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{CommandResult, answer, say};
use crate::config::{Config, Problems, Provider, fold, near_provider};

#[derive(Debug, Subcommand)]
pub(super) enum ProviderCommand {
    /// List them, or those that have a word in a name or in the title
    List(ListProviders),
    /// Show one: what to set up there, which secret goes where
    Show(show::ShowProvider),
    /// Judge requests by a provider's scheme: JSON lines in, JSON lines out
    Try(judge::Try),
    /// Check the file of a new provider with its kept requests
    Check(check::CheckProvider),
}

#[derive(Debug, Args)]
pub(super) struct ListProviders {
    /// A word to look for; capitals, spaces and marks do not count
    word: Option<String>,
    /// A configuration file, for the providers of its folder
    #[arg(short, long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &ProviderCommand) -> CommandResult {
    match command {
        ProviderCommand::List(list) => run_list(list),
        ProviderCommand::Show(show) => show::run(show),
        ProviderCommand::Try(command) => judge::run(command),
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

fn run_list(list: &ListProviders) -> CommandResult {
    let Some(config) = known(list.config.as_deref()) else {
        return Ok(ExitCode::FAILURE);
    };
    let found: Vec<&Provider> = config
        .providers
        .values()
        .map(|provider| &**provider)
        .filter(|provider| fits(provider, list))
        .collect();
    if list.json {
        let providers: Vec<_> = found.iter().map(|provider| row(provider)).collect();
        answer(&serde_json::Value::from(providers).to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let (Some(word), true) = (&list.word, found.is_empty()) {
        let near = near_provider(&config.providers, word);
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        say(&format!(
            "no provider has {word:?} in its name or title{hint}"
        ));
        return Ok(ExitCode::FAILURE);
    }
    for provider in found {
        let mut title: String = provider.title.chars().take(TITLE).collect();
        if title.len() < provider.title.len() {
            title.truncate(title.len().saturating_sub(3));
            title.push_str("...");
        }
        answer(&format!(
            "{:<23} {title:<TITLE$} {}",
            provider.name, provider.evidence
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(provider: &Provider) -> serde_json::Value {
    let aliases: Vec<&str> = provider
        .aliases
        .iter()
        .map(|alias| alias.as_str())
        .collect();
    json!({
        "name": provider.name,
        "aliases": aliases,
        "title": provider.title,
        "docs": provider.docs,
        "evidence": provider.evidence,
    })
}

/// True if a provider is one that was asked for.
fn fits(provider: &Provider, list: &ListProviders) -> bool {
    let Some(word) = list
        .word
        .as_deref()
        .map(fold)
        .filter(|word| !word.is_empty())
    else {
        return true;
    };
    let aliases = provider.aliases.iter().map(|alias| alias.as_str());
    [provider.name.as_str(), provider.title.as_str()]
        .into_iter()
        .chain(aliases)
        .any(|text| fold(text).contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_finds_providers_by_name_alias_and_title_whatever_its_capitals() {
        let config = known(None).unwrap();
        let found = |word: &str| {
            let list = ListProviders {
                word: Some(word.to_owned()),
                config: None,
                json: false,
            };
            let fitting = config
                .providers
                .values()
                .filter(|provider| fits(provider, &list));
            fitting
                .map(|provider| provider.name.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(found("msteams"), ["microsoft-teams"]);
        assert_eq!(found("Lemon Squeezy"), ["lemon-squeezy"]);
        assert!(found("hub").contains(&"github") && found("HUB").contains(&"hubspot-v3"));
        assert_eq!(found("no such thing"), Vec::<&str>::new());
        assert_eq!(found("").len(), config.providers.len());
    }
}
