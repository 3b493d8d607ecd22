//! The sources of a running gateway: their state, paused and resumed.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{ConfigFile, answer, say, tally};
use crate::app;
use crate::config::{Problems, QueryUse};
use crate::model::Name;

use super::gateway::{GatewayArgs, ListArgs, NOT_FOUND};
use super::print;
use super::sheet::sheets;

/// Commands for sources.
#[derive(Debug, Subcommand)]
pub(super) enum SourceCommand {
    /// List them with what they have waiting
    List(ListArgs),
    /// Hold what a source has waiting; what comes in is still kept
    Pause(SourceArgs),
    /// Run again what a paused source has waiting
    Resume(SourceArgs),
    /// Show the secrets of a source: when each proved a request last, and when it ends
    Secrets(SourceArgs),
    /// Let a provider's handshake bring the source's secret, and have it count
    Enrol(Enrol),
    /// Print the address to give to its provider, with parameters in it; sealed where the source wants that
    Url(SourceUrl),
}

#[derive(Debug, Args)]
pub(super) struct SourceUrl {
    #[command(flatten)]
    file: ConfigFile,
    /// The source
    #[arg(value_name = "NAME")]
    name: String,
    /// Prompt for the agent
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// The conversation
    #[arg(long, value_name = "ID")]
    task_id: Option<String>,
    /// Id of the user who speaks
    #[arg(long, value_name = "ID")]
    user_id: Option<String>,
    /// The address of who is speaking
    #[arg(long, value_name = "ADDRESS")]
    user_email: Option<String>,
    /// The given name of who is speaking
    #[arg(long, value_name = "NAME")]
    user_first_name: Option<String>,
    /// The family name of who is speaking
    #[arg(long, value_name = "NAME")]
    user_last_name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    /// The source
    #[arg(value_name = "NAME")]
    name: String,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Debug, Args)]
pub(super) struct Enrol {
    /// The source
    #[arg(value_name = "NAME")]
    name: String,
    /// Time that the window stays open [default: 10min]
    #[arg(long = "for", value_name = "TIME", conflicts_with_all = ["show", "confirm"])]
    span: Option<String>,
    /// Show what a handshake brought, and open no window
    #[arg(long, conflicts_with = "confirm")]
    show: bool,
    /// Have the secret with this fingerprint count
    #[arg(long, value_name = "FINGERPRINT")]
    confirm: Option<String>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Opens a window, shows what came in by it, or has that count.
async fn enrol(enrol: Enrol) -> anyhow::Result<ExitCode> {
    let (mut out, mut talk) = sheets(enrol.gateway.times);
    let path = format!(
        "/sources/{}/enrol",
        utf8_percent_encode(&enrol.name, NON_ALPHANUMERIC)
    );
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let gateway = enrol.gateway.find()?;
    let asked = match (&enrol.confirm, enrol.show) {
        (Some(fingerprint), _) => {
            let path = format!("{path}/confirm?fingerprint={}", encoded(fingerprint));
            gateway.tell(&path, &Value::Null).await?
        }
        (None, true) => gateway.ask(&path).await?,
        (None, false) => {
            let query = enrol
                .span
                .as_deref()
                .map_or_else(String::new, |span| format!("?for={}", encoded(span)));
            gateway
                .tell(&format!("{path}{query}"), &Value::Null)
                .await?
        }
    };
    let Some(answer) = asked.or_say(&mut talk, &print::line(&enrol.name)) else {
        return Ok(NOT_FOUND.into());
    };
    if enrol.json {
        print::json(&mut out, &answer)?;
    } else {
        print::enrolment(&mut out, &mut talk, &answer)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command. The exit code is 0 when all went well, 3 when there is no such source, 1 for every other problem.
pub(super) async fn run(command: SourceCommand) -> anyhow::Result<ExitCode> {
    let (named, verb) = match command {
        SourceCommand::List(list) => {
            return list.show("sources", "no sources", print::sources).await;
        }
        SourceCommand::Pause(named) => (named, "pause"),
        SourceCommand::Resume(named) => (named, "resume"),
        SourceCommand::Enrol(words) => return enrol(words).await,
        SourceCommand::Secrets(named) => return secrets(named).await,
        SourceCommand::Url(asked) => return url(asked),
    };
    let (mut out, mut talk) = sheets(named.gateway.times);
    let name = utf8_percent_encode(&named.name, NON_ALPHANUMERIC);
    let asked = named
        .gateway
        .find()?
        .tell(&format!("/sources/{name}/{verb}"), &Value::Null)
        .await?;
    let Some(answer) = asked.or_say(&mut talk, &print::line(&named.name)) else {
        return Ok(NOT_FOUND.into());
    };
    if named.json {
        print::json(&mut out, &answer)?
    } else {
        print::held(&mut out, &answer)?
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the secrets of a source and how they were used.
async fn secrets(named: SourceArgs) -> anyhow::Result<ExitCode> {
    let (mut out, mut talk) = sheets(named.gateway.times);
    let path = format!(
        "/sources/{}/secrets",
        utf8_percent_encode(&named.name, NON_ALPHANUMERIC)
    );
    let asked = named.gateway.find()?.ask(&path).await?;
    let Some(page) = asked.or_say(&mut talk, &print::line(&named.name)) else {
        return Ok(NOT_FOUND.into());
    };
    if named.json {
        print::json(&mut out, &page)?;
    } else if !print::secrets(&mut out, &page)? {
        print::say(&mut talk, "it has no secrets");
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the address of a source. Nothing has to run: the configuration and the gateway's key are enough.
fn url(asked: SourceUrl) -> anyhow::Result<ExitCode> {
    let SourceUrl {
        file,
        name,
        prompt,
        task_id,
        user_id,
        user_email,
        user_first_name,
        user_last_name,
    } = asked;
    let problems = Problems::default();
    let Some((config, sources)) = app::compile(&file.config, &problems) else {
        let problems = problems.into_sorted();
        problems
            .iter()
            .for_each(|problem| say(&problem.to_string()));
        say(&format!("{}: {}", file.config.display(), tally(&problems)));
        return Ok(ExitCode::FAILURE);
    };
    let Some(source) = sources.get(&name) else {
        say(&format!("no source is called {name:?}"));
        return Ok(NOT_FOUND.into());
    };
    let given = [
        prompt,
        task_id,
        user_id,
        user_email,
        user_first_name,
        user_last_name,
    ];
    let params: Vec<(Name, String)> = Name::ALL
        .into_iter()
        .zip(given)
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect();
    match source.config.query {
        QueryUse::Ignore if !params.is_empty() => {
            anyhow::bail!(
                "source {name} ignores its query; set query = \"sealed\" to have parameters in its address"
            )
        }
        QueryUse::Allow if !params.is_empty() => {
            say(
                "this source takes any query, so the address is not sealed; query = \"sealed\" takes only what is printed here",
            );
        }
        _ => {}
    }
    if config.server.public_url.is_empty() {
        say("server.public_url is not set: put the public address before the path");
    }
    let target = source
        .target(&params, &app::sealer(&config)?)
        .ok_or_else(|| anyhow::anyhow!("a parameter is given twice"))?;
    answer(&format!("{}{target}", config.server.public_url))?;
    Ok(ExitCode::SUCCESS)
}
