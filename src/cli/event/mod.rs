//! Events by hand: list, show and replay them through the admin API of a running gateway.
//!
//! What third parties sent is printed as text: control characters are escaped, long values cut. With `--json` it is
//! the API's own answer, whole.

pub(super) mod gateway;
pub(super) mod print;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use form_urlencoded::Serializer;
use http::Method;

use self::gateway::{Asked, Gateway, GatewayArgs};
use crate::config::unit;
use crate::model::{Clock, EventId, State, Timestamp};

/// What to do with events.
#[derive(Debug, Subcommand)]
pub(super) enum EventCommand {
    /// List what came in, newest first
    List(List),
    /// Show one event: proof, values and where each came from, every attempt
    Show(Show),
    /// Owe events again, each as a new delivery
    Replay(Replay),
}

/// Which events to list.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only with a delivery in this state
    #[arg(long, value_parser = PossibleValuesParser::new(State::ALL.map(State::as_str)))]
    state: Option<String>,
    /// Only received since: a time like 2026-01-31T12:00:00Z, or how long ago, like 2h or 30min
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// How many, at most 200
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
    /// Where the page before ended
    #[arg(long)]
    cursor: Option<String>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Which event to show.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The event, like evt_0193…
    #[arg(value_name = "ID")]
    id: EventId,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Which events to replay.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The events, like evt_0193…
    #[arg(value_name = "ID", required = true)]
    ids: Vec<EventId>,
    /// Print the API's JSON, one line an event
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// There is no such event.
const NOT_FOUND: u8 = 3;

/// Runs a command. The exit code is 0 when all went well, 3 when an event was not found, 1 for every other problem.
pub(super) async fn run(command: EventCommand) -> anyhow::Result<ExitCode> {
    let (mut out, mut talk) = (std::io::stdout().lock(), std::io::stderr().lock());
    let done = match command {
        EventCommand::List(list) => {
            let gateway = list.gateway.find()?;
            list.run(&gateway, Clock::system().now(), &mut out, &mut talk).await
        }
        EventCommand::Show(show) => {
            let gateway = show.gateway.find()?;
            show.run(&gateway, &mut out, &mut talk).await
        }
        EventCommand::Replay(replay) => {
            let gateway = replay.gateway.find()?;
            replay.run(&gateway, &mut out, &mut talk).await
        }
    };
    done.map(ExitCode::from)
}

impl List {
    async fn run(
        &self,
        gateway: &Gateway,
        now: Timestamp,
        out: &mut impl Write,
        talk: &mut impl Write,
    ) -> anyhow::Result<u8> {
        let page = match gateway.ask(Method::GET, &format!("/events?{}", self.query(now)?)).await? {
            Asked::Answered(page) => page,
            Asked::NotFound(why) => anyhow::bail!(why),
        };
        if self.json {
            print::json(out, &page)?;
        } else if !print::table(out, &page)? {
            say(talk, "no events");
        }
        if let (false, Some(cursor)) = (self.json, page["next_cursor"].as_str()) {
            say(talk, &format!("there are more: add --cursor {}", print::line(cursor)));
        }
        out.flush()?;
        Ok(0)
    }

    fn query(&self, now: Timestamp) -> anyhow::Result<String> {
        let mut query = Serializer::new(String::new());
        query.append_pair("limit", &self.limit.to_string());
        for (key, value) in [("source", &self.source), ("state", &self.state), ("cursor", &self.cursor)] {
            if let Some(value) = value {
                query.append_pair(key, value);
            }
        }
        if let Some(text) = &self.since {
            let since = since(text, now).with_context(|| {
                format!("--since cannot be \"{}\"; write 2026-01-31T12:00:00Z, 2h or 30min", print::line(text))
            })?;
            query.append_pair("since", &since.to_string());
        }
        Ok(query.finish())
    }
}

impl Show {
    async fn run(&self, gateway: &Gateway, out: &mut impl Write, talk: &mut impl Write) -> anyhow::Result<u8> {
        let event = match gateway.ask(Method::GET, &format!("/events/{}", self.id)).await? {
            Asked::Answered(event) => event,
            Asked::NotFound(why) => {
                say(talk, &format!("error: {}: {why}", self.id));
                return Ok(NOT_FOUND);
            }
        };
        if self.json {
            print::json(out, &event)?
        } else {
            print::page(out, &event)?
        }
        out.flush()?;
        Ok(0)
    }
}

impl Replay {
    /// Every event is tried, whatever became of the one before.
    async fn run(&self, gateway: &Gateway, out: &mut impl Write, talk: &mut impl Write) -> anyhow::Result<u8> {
        let mut code = 0;
        for id in &self.ids {
            match gateway.ask(Method::POST, &format!("/events/{id}/replay")).await {
                Ok(Asked::Answered(answer)) if self.json => print::json(out, &answer)?,
                Ok(Asked::Answered(answer)) => print::replayed(out, &answer)?,
                Ok(Asked::NotFound(why)) => {
                    say(talk, &format!("error: {id}: {why}"));
                    if code == 0 {
                        code = NOT_FOUND;
                    }
                }
                Err(error) => {
                    say(talk, &format!("error: {id}: {error:#}"));
                    code = 1;
                }
            }
            out.flush()?;
        }
        Ok(code)
    }
}

/// Talk: a line beside the answer. A terminal that is gone is no reason to stop.
fn say(talk: &mut impl Write, text: &str) {
    let _ = writeln!(talk, "{text}");
}

/// A time as written, or that long before now.
fn since(text: &str, now: Timestamp) -> Option<Timestamp> {
    Timestamp::parse(text).or_else(|| unit::duration(text).map(|ago| now - ago))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: EventCommand,
    }

    fn parsed(line: &str) -> Result<EventCommand, clap::Error> {
        Cli::try_parse_from(std::iter::once("event").chain(line.split(' '))).map(|cli| cli.command)
    }

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = Timestamp::from_seconds(1_800_000_000);
        assert_eq!(since("2h", now), Some(Timestamp::from_seconds(1_800_000_000 - 7_200)));
        assert_eq!(since("30min", now), Some(Timestamp::from_seconds(1_800_000_000 - 1_800)));
        assert_eq!(since("2026-01-31T14:00:00+02:00", now), Timestamp::parse("2026-01-31T12:00:00Z"));
        assert_eq!(since("yesterday", now), None);
    }

    #[test]
    fn a_list_becomes_a_query_that_nothing_breaks_out_of() {
        let Ok(EventCommand::List(list)) = parsed("list --source a&b=c --state dead --since 1s --limit 7") else {
            panic!("a list")
        };
        let query = list.query(Timestamp::from_seconds(1)).expect("a query");
        assert_eq!(query, "limit=7&source=a%26b%3Dc&state=dead&since=1970-01-01T00%3A00%3A00.000Z");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_before_anything_is_asked() {
        for wrong in [
            "list --state accepted",
            "list --limit 0",
            "list --limit 201",
            "show ../sources",
            "replay",
            "replay evt_1",
            "list --admin http://localhost:1 --config a.toml",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
