//! Read a configuration and its providers, report every problem, start nothing. The same path as starting. On demand the
//! upstream is asked for the key and the agents as well.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::{CommandResult, ConfigFile, answer, say, tally, tell};
use crate::app;
use crate::config::{Config, GatewayKey, Place, Problem, Problems, Secret, Weight};
use crate::model::DestinationKind;
use crate::net::Client;
use crate::upstream::{Budget, Upstream};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The configuration file, as --config names it
    #[arg(value_name = "FILE", conflicts_with = "config")]
    named: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
    /// Ask the upstream as well, whether it takes the key and has each agent; nothing is run
    #[arg(long)]
    online: bool,
    /// End with 1 when there are warnings, not only when there are errors
    #[arg(long)]
    deny_warnings: bool,
    /// Print the problems and the addresses as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(check: &CheckArgs) -> CommandResult {
    let file = check.named.as_deref().unwrap_or(&check.file.config);
    let (config, problems, seen) = look(file, check.online).await;
    let has_errors = problems
        .iter()
        .any(|problem| problem.weight == Weight::Error);
    let is_good = !has_errors && (!check.deny_warnings || problems.is_empty());
    let addresses = config.as_ref().map(addresses).unwrap_or_default();
    if check.json {
        let list: Vec<_> = problems.iter().map(view).collect();
        let addresses: Vec<_> = addresses
            .iter()
            .map(|(source, provider, address)| json!({ "source": source, "provider": provider, "address": address }))
            .collect();
        let whole =
            json!({ "good": is_good, "problems": list, "addresses": addresses, "upstream": seen });
        answer(&whole.to_string())?;
    } else {
        for problem in &problems {
            tell(&problem.to_string())?;
        }
        for line in &seen {
            tell(line)?;
        }
    }
    let tally = tally(&problems);
    let name = file.display();
    let Some(config) = config.filter(|_| !has_errors) else {
        say(&format!("{name}: {tally}"));
        return Ok(ExitCode::FAILURE);
    };
    if !check.json && !addresses.is_empty() {
        answer("addresses to give to each provider:")?;
        for (source, provider, address) in &addresses {
            tell(&format!("  {address}  ({provider}, source {source})"))?;
        }
        if config.server.public_url.is_empty() {
            tell(
                "server.public_url is not set: these addresses are reached from this machine alone",
            )?;
        }
    }
    let names: Vec<&str> = config
        .sources
        .iter()
        .map(|source| source.name.as_str())
        .collect();
    let warnings = if problems.is_empty() {
        String::new()
    } else {
        format!(" ({tally})")
    };
    let verdict = if is_good {
        "good"
    } else {
        "not good: warnings are denied"
    };
    say(&format!(
        "{name}: {verdict}{warnings}; sources: {}",
        names.join(", ")
    ));
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Everything that is wrong, the configuration where it can be read at all, and what the upstream was seen to have.
async fn look(file: &Path, online: bool) -> (Option<Config>, Vec<Problem>, Vec<String>) {
    let (compiled, mut problems) = {
        let problems = Problems::default();
        let compiled = app::compile(file, &problems);
        (compiled, problems.into_sorted())
    };
    let Some((config, _)) = compiled else {
        return (None, problems, Vec::new());
    };
    let mut seen = Vec::new();
    if online {
        problems.extend(ask(&config, &mut seen).await);
    }
    (Some(config), problems, seen)
}

/// The address of each source: its name, its provider, and where its requests are taken.
fn addresses(config: &Config) -> Vec<(String, String, String)> {
    let base = match config.server.public_url.as_str() {
        "" => format!("http://{}", config.server.listen),
        url => url.to_owned(),
    };
    let of = |name: &str| format!("{base}/hooks/{name}");
    let sources = config.sources.iter();
    sources
        .map(|source| {
            (
                source.name.clone(),
                source.provider.value.clone(),
                of(&source.name),
            )
        })
        .collect()
}

/// Longest time for one question, and for all of them.
const ANSWER: Duration = Duration::from_secs(10);
const ALL: Duration = Duration::from_secs(60);

/// Number of agents that are asked for.
const AGENTS: usize = 50;

/// Asks the upstream, by reading calls alone. `seen` gets what is there.
async fn ask(config: &Config, seen: &mut Vec<String>) -> Vec<Problem> {
    let Some(key) = &config.upstream.api_key else {
        return Vec::new();
    };
    let client = Client::new(
        config.upstream.connect_timeout,
        config.upstream.ca_file.as_deref(),
    );
    let client = match client {
        Ok(client) => client.allowing(&config.fetch.allow),
        Err(error) => {
            let place = config.setting(&["upstream", "ca_file"]);
            return vec![error_at(
                &place,
                format!("the upstream cannot be asked: {error}"),
                "see upstream.ca_file",
            )];
        }
    };
    let upstream = Upstream::new(&config.upstream, client, Budget::default());
    let problems = ask_keys(config, &upstream, key, seen).await;
    // What a refused key says of agents is nothing.
    if problems.is_empty() {
        ask_agents(config, &upstream, key, seen).await
    } else {
        problems
    }
}

/// Asks for the key, and for those that callers' keys are exchanged for.
async fn ask_keys(
    config: &Config,
    upstream: &Upstream,
    own: &Secret,
    seen: &mut Vec<String>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let of_key = |key: &GatewayKey| {
        let place = config.setting(&["keys", &key.name, "upstream_key"]);
        Some((
            format!("keys.{}.upstream_key", key.name),
            place,
            key.upstream_key.clone()?,
        ))
    };
    let own = (
        "upstream.api_key".to_owned(),
        config.setting(&["upstream", "api_key"]),
        own.clone(),
    );
    let mut asked: Vec<Secret> = Vec::new();
    for (name, place, key) in std::iter::once(own).chain(config.keys.iter().filter_map(of_key)) {
        if asked.iter().any(|other| other.expose() == key.expose()) || asked.len() >= AGENTS {
            continue;
        }
        match upstream
            .ask_raw(None, &key, ANSWER)
            .await
            .map(|answer| answer.status().as_u16())
        {
            Ok(200..=299) => seen.push(format!("the upstream takes {name}")),
            Ok(status @ (401 | 403)) => {
                let what = format!("the upstream refuses {name} (status {status})");
                let hint = "copy the key again; it has to be of the organisation of the agents";
                problems.push(error_at(&place, what, hint));
            }
            Ok(status) => {
                let what =
                    format!("the upstream does not say whether it takes {name}: status {status}");
                problems.push(error_at(
                    &place,
                    what,
                    "is upstream.base_url the address of the API?",
                ));
            }
            Err(error) => {
                let place = config.setting(&["upstream", "base_url"]);
                let what = format!("the upstream does not answer: {error}");
                problems.push(error_at(
                    &place,
                    what,
                    "look at upstream.base_url and the network",
                ));
                break;
            }
        }
        asked.push(key);
    }
    problems
}

/// Asks for each agent that a source names.
async fn ask_agents(
    config: &Config,
    upstream: &Upstream,
    key: &Secret,
    seen: &mut Vec<String>,
) -> Vec<Problem> {
    let begun = Instant::now();
    let (mut problems, mut known) = (Vec::new(), BTreeSet::new());
    for source in &config.sources {
        let Some(destination) = &source.destination else {
            continue;
        };
        if !known.insert(destination.to_string()) {
            continue;
        }
        if destination.kind == DestinationKind::Workflow {
            seen.push(format!(
                "{destination} cannot be asked for without running it"
            ));
            continue;
        }
        if known.len() > AGENTS || begun.elapsed() > ALL {
            seen.push("there are more agents, which were not asked for".to_owned());
            break;
        }
        match upstream
            .ask_agent(&destination.id, key, ANSWER)
            .await
            .map(|answer| answer.status().as_u16())
        {
            Ok(200..=299) => seen.push(format!("the upstream has {destination}")),
            Ok(status @ (403 | 404 | 422)) => {
                let place = config.setting(&["sources", &source.name, "agent"]);
                let what =
                    format!("the upstream has no {destination} for this key (status {status})");
                problems.push(error_at(
                    &place,
                    what,
                    "copy the id from the platform's address bar",
                ));
            }
            Ok(status) => seen.push(format!(
                "the upstream does not say whether it has {destination}: status {status}"
            )),
            Err(error) => seen.push(format!(
                "the upstream does not say whether it has {destination}: {error}"
            )),
        }
    }
    problems
}

fn error_at(place: &Place, what: String, hint: &str) -> Problem {
    Problem {
        weight: Weight::Error,
        place: place.clone(),
        what,
        hint: Some(hint.to_owned()),
    }
}

fn view(problem: &Problem) -> serde_json::Value {
    json!({
        "weight": match problem.weight { Weight::Error => "error", Weight::Warning => "warning" },
        "file": &*problem.place.file,
        "line": problem.place.line,
        "what": problem.what,
        "hint": problem.hint,
    })
}
