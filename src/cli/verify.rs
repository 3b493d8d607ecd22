//! Say in words what becomes of a captured request, and why.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::gateway::{ApiAnswer, GatewayArgs};
use super::provider::fixture::Fixture;
use super::provider::known_for;
use super::{CommandResult, print, say, tell, usage};
use crate::config::{Config, Located, Place, Problems, Secret, find_provider};
use crate::model::{Clock, Timestamp};
use crate::verify::{CheckConfig, DryRun};

/// The largest request.
const LARGEST: u64 = 64 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum VerifyCommand {
    /// Explain one captured request: what is signed, how old it is, what probably went wrong
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The request, as it stood on the wire or as JSON (see `provider try`); - is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    request: PathBuf,
    /// A request that a running gateway refused and keeps whole (admin.keep_refused), like req_0123abcd
    #[arg(long, value_name = "ID", conflicts_with = "request")]
    refused: Option<String>,
    /// The source of the configuration that it was sent to
    #[arg(long, value_name = "NAME", conflicts_with = "provider")]
    source: Option<String>,
    /// The provider that it comes from
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// A secret or public key, as env:NAME, file:PATH or literal:TEXT
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Another value that the provider asks for
    #[arg(long, value_name = "NAME=VALUE")]
    value: Vec<String>,
    /// The public address that the provider was given, with the path
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The time to judge by, such as 2026-01-31T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
    /// The configuration file [default: sluicegate.toml where --source or --refused is given]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// With --refused, the address of the admin API instead of the configuration file's
    #[arg(long, value_name = "URL", requires = "refused")]
    admin: Option<String>,
    /// With --refused, the environment variable that holds the admin token
    #[arg(long, value_name = "NAME", requires = "refused")]
    token_env: Option<String>,
}

pub(super) async fn run(command: VerifyCommand) -> CommandResult {
    let VerifyCommand::Explain(mut explain) = command;
    let now = match &explain.now {
        Some(text) => Timestamp::parse(text)
            .ok_or_else(|| usage("--now is no time like 2026-01-31T12:00:00Z"))?,
        None => Clock::system().now(),
    };
    let (mut fixture, found) = match explain.refused.take() {
        Some(id) => fetch(&mut explain, &id, now).await?,
        None => (read(&explain, now)?, None),
    };
    let explain = &explain;
    let file = match (&explain.config, &explain.source) {
        (None, Some(_)) => Some(PathBuf::from("sluicegate.toml")),
        (file, _) => file.clone(),
    };
    let Some(config) = known_for(file.as_deref(), explain.source.as_deref()) else {
        return Ok(ExitCode::FAILURE);
    };
    let mut written = written_check(explain, &config, &mut fixture)?;
    written.secrets.extend(secrets(&explain.secret)?);
    for pair in &explain.value {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| usage("--value is NAME=VALUE"))?;
        written.values.push((name.to_owned(), value.to_owned()));
    }
    let trial = match DryRun::compile(written) {
        Ok(trial) => trial,
        Err(problems) => {
            problems
                .iter()
                .for_each(|problem| say(&problem.to_string()));
            return Ok(ExitCode::FAILURE);
        }
    };
    if let Some(found) = found {
        // What proved it is cut, so it cannot be judged here: the gateway judged it when it was whole.
        for line in trial.describe(&fixture.received, fixture.now) {
            tell(&line)?;
        }
        tell(&found)?;
        return Ok(ExitCode::FAILURE);
    }
    for line in trial.explain(&fixture.received, fixture.now) {
        tell(&line)?;
    }
    let good = trial.judge(&fixture.received, fixture.now).verdict != "refused";
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The check of the source or the provider that the options name.
fn written_check(
    explain: &ExplainArgs,
    config: &Config,
    fixture: &mut Fixture,
) -> anyhow::Result<CheckConfig> {
    match (
        &explain.source,
        explain.provider.as_ref().or(fixture.provider.as_ref()),
    ) {
        (Some(name), _) => {
            let source = config.sources.iter().find(|source| source.name == *name);
            let source = source.ok_or_else(|| anyhow!("no source is called {name:?}"))?;
            if fixture.received.url.is_empty() {
                fixture.received.url =
                    format!("{}{}", config.server.public_url, fixture.received.target);
            }
            CheckConfig::of_source(
                source,
                config
                    .providers
                    .get(&source.provider.value)
                    .map(|provider| &**provider),
            )
        }
        (None, Some(name)) => {
            let provider = find_provider(&config.providers, name);
            let provider = provider.ok_or_else(|| anyhow!("no provider is called {name:?}"))?;
            fixture.written(provider)
        }
        (None, None) => bail!(
            "name the source or the provider: --source NAME --config FILE, or --provider NAME"
        ),
    }
    .context("nothing says how its callers are known")
}

/// Substitute for a value that was masked before a request was kept.
const MASK: &str = "***";

/// Mark behind the beginning of a signature that was cut before a request was kept.
const CUT: char = '…';

/// A request that a gateway keeps. It names its source, and when it came: by that time its own is judged. Where a
/// signature was cut before it was kept, what the gateway found stands beside the request.
async fn fetch(
    explain: &mut ExplainArgs,
    id: &str,
    now: Timestamp,
) -> anyhow::Result<(Fixture, Option<String>)> {
    let file = explain
        .config
        .clone()
        .unwrap_or_else(|| PathBuf::from("sluicegate.toml"));
    let gateway = GatewayArgs::of(file, explain.admin.clone(), explain.token_env.clone()).find()?;
    let page = match gateway
        .ask(&format!(
            "/refused/{}",
            utf8_percent_encode(id, NON_ALPHANUMERIC)
        ))
        .await?
    {
        ApiAnswer::Answered(page) => page,
        ApiAnswer::NotFound(why) => bail!("{}: {why}", print::line(id)),
    };
    if !page["request"].is_object() {
        bail!(
            "of {} the request itself is not kept; admin.keep_refused = 20 keeps the last ones whole from then on",
            print::line(id)
        );
    }
    if explain.source.is_none() && explain.provider.is_none() {
        explain.source = page["source"].as_str().map(str::to_owned);
    }
    let came = page["at"].as_str().and_then(Timestamp::parse);
    let fixture = Fixture::read(
        &page["request"],
        if explain.now.is_some() {
            now
        } else {
            came.unwrap_or(now)
        },
    )?;
    let masked: Vec<&str> = fixture
        .received
        .headers
        .iter()
        .filter(|(_, value)| value.as_bytes() == MASK.as_bytes())
        .map(|(name, _)| name.as_str())
        .collect();
    if !masked.is_empty() {
        say(&format!(
            "these headers held secrets and were masked before they were kept, so that they cannot match: {}",
            masked.join(", ")
        ));
    }
    let request = &page["request"];
    let of_headers = request["headers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|header| header[1].as_str());
    let is_cut = of_headers
        .chain(request["target"].as_str())
        .any(|text| text.contains(CUT));
    let word = |key: &str| print::line(page[key].as_str().unwrap_or_default());
    let found = is_cut.then(|| {
        format!(
            "the gateway refused it when it came ({}): {}",
            word("reason"),
            word("cause")
        )
    });
    if found.is_some() {
        say("of signatures only the beginnings are kept, so that nobody can send them again");
    }
    Ok((fixture, found))
}

fn read(explain: &ExplainArgs, now: Timestamp) -> anyhow::Result<Fixture> {
    let mut bytes = Vec::new();
    let from = explain.request.display();
    if explain.request.as_os_str() == "-" {
        std::io::stdin()
            .take(LARGEST + 1)
            .read_to_end(&mut bytes)
            .context("cannot read the request")?;
    } else {
        let file =
            std::fs::File::open(&explain.request).with_context(|| format!("cannot read {from}"))?;
        file.take(LARGEST + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {from}"))?;
    }
    if bytes.len() as u64 > LARGEST {
        bail!("the request is larger than {LARGEST} bytes");
    }
    let mut fixture = if bytes.trim_ascii_start().starts_with(b"{") {
        Fixture::read(
            &serde_json::from_slice(&bytes).context("the request is no JSON")?,
            now,
        )?
    } else {
        Fixture::raw(&bytes, now)?
    };
    if let Some(url) = &explain.url {
        fixture.received.url.clone_from(url);
    }
    Ok(fixture)
}

fn secrets(written: &[String]) -> anyhow::Result<Vec<Secret>> {
    let problems = Problems::default();
    let place = Place {
        file: "--secret".into(),
        line: 0,
    };
    let found: Vec<Option<Secret>> = written
        .iter()
        .enumerate()
        .map(|(number, text)| {
            let text = Located {
                value: text.clone(),
                place: place.clone(),
            };
            Secret::resolve(&text, number, std::path::Path::new("."), &problems)
        })
        .collect();
    match problems.into_sorted().first() {
        Some(problem) => bail!("{problem}"),
        None => Ok(found.into_iter().flatten().collect()),
    }
}
