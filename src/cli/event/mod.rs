//! Events by hand, through the admin API of a running gateway: list and show them, owe them again, send them again with
//! changes; settle and call off their deliveries.
//!
//! What third parties sent is printed as text: control characters are escaped, long values cut. With `--json` it is
//! the API's own answer, whole.

mod filter;
mod replay;
mod resend;
mod settle;

use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Subcommand};
use form_urlencoded::Serializer;

use self::filter::FilterArgs;
use super::gateway::{Gateway, GatewayArgs, NOT_FOUND};
use super::print;
use super::sheet::{Paper, Times, sheets};
use crate::model::{Clock, EventId, Timestamp};

/// Commands for events.
#[derive(Debug, Subcommand)]
pub(super) enum EventCommand {
    /// List what came in, newest first
    List(ListEvents),
    /// Show one event: proof, values and where each came from, every attempt
    Show(ShowEvent),
    /// Run events again, by id or by filter
    ///
    /// Each is sent as a new delivery; the old ones stay as they are. A filter becomes a job, after its plan was shown
    /// and agreed to.
    #[command(
        override_usage = "sluicegate event replay [OPTIONS] ID...\n       sluicegate event replay [OPTIONS] --source NAME | --state STATE | --all"
    )]
    Replay(replay::Replay),
    /// Send an event again with changes, as a new one that its source reads once more
    Resend(resend::Resend),
    /// Settle by hand a delivery of which nobody could tell whether it ran
    Settle(settle::Settle),
    /// Call a delivery off that waits, or whose event cannot be mapped
    Cancel(settle::Cancel),
}

/// Options of a list of events.
#[derive(Debug, Args)]
pub(super) struct ListEvents {
    #[command(flatten)]
    filter: FilterArgs,
    /// Oldest first
    #[arg(long)]
    oldest: bool,
    /// Number of events, at most 200
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
    /// Cursor of the page before
    #[arg(long)]
    cursor: Option<String>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Options of one event.
#[derive(Debug, Args)]
pub(super) struct ShowEvent {
    /// The event, like evt_0193ab12; a beginning that only one has is enough
    #[arg(value_name = "ID")]
    id: EventName,
    /// Print the body alone, byte for byte
    #[arg(long, conflicts_with = "json")]
    body: bool,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

impl EventCommand {
    /// The form of times.
    const fn times(&self) -> Times {
        match self {
            Self::List(list) => list.gateway.times,
            Self::Show(show) => show.gateway.times,
            Self::Replay(replay) => replay.gateway.times,
            Self::Resend(resend) => resend.gateway.times,
            Self::Settle(settle) => settle.gateway.times,
            Self::Cancel(cancel) => cancel.gateway.times,
        }
    }
}

/// The id of an event as typed: whole, or a beginning that only one has.
#[derive(Clone, Debug)]
pub(super) struct EventName(String);

impl FromStr for EventName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_end_matches(['.', '…']);
        let good = text.starts_with("evt_") && EventId::beginning(text).is_some();
        good.then(|| Self(text.to_owned()))
            .ok_or("an event's id is evt_ and 32 hex digits; 6 of them may be enough")
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs a command. The exit code is 0 when all went well, 3 when something was not found, 1 for every other problem.
pub(super) async fn run(command: EventCommand) -> anyhow::Result<ExitCode> {
    let (mut out, mut talk) = sheets(command.times());
    let now = Clock::system().now();
    let (out, talk) = (&mut out, &mut talk);
    let done = match command {
        EventCommand::List(list) => list.run(&list.gateway.find()?, now, out, talk).await,
        EventCommand::Show(show) => show.run(&show.gateway.find()?, out, talk).await,
        EventCommand::Replay(replay) => replay.run(&replay.gateway.find()?, now, out, talk).await,
        EventCommand::Resend(resend) => resend.run(&resend.gateway.find()?, out, talk).await,
        EventCommand::Settle(settle) => settle.run(&settle.gateway.find()?, out, talk).await,
        EventCommand::Cancel(cancel) => cancel.run(&cancel.gateway.find()?, out, talk).await,
    };
    done.map(ExitCode::from)
}

impl ListEvents {
    async fn run(
        &self,
        gateway: &Gateway,
        now: Timestamp,
        out: &mut impl Paper,
        talk: &mut impl Paper,
    ) -> anyhow::Result<u8> {
        let asked = gateway
            .ask(&format!("/events?{}", self.query(now)?))
            .await?;
        let Some(page) = asked.or_say(talk, "events") else {
            return Ok(NOT_FOUND);
        };
        if self.json {
            print::json(out, &page)?;
        } else if !print::table(out, &page)? {
            print::say(talk, "no events");
        }
        if let (false, Some(cursor)) = (self.json, page["next_cursor"].as_str()) {
            print::say(
                talk,
                &format!("there are more: add --cursor {}", print::line(cursor)),
            );
        }
        out.flush()?;
        Ok(0)
    }

    fn query(&self, now: Timestamp) -> anyhow::Result<String> {
        let mut query = Serializer::new(String::new());
        query.append_pair("limit", &self.limit.to_string());
        filter::append(&mut query, &self.filter.words(now)?)?;
        if self.oldest {
            query.append_pair("order", "oldest");
        }
        if let Some(cursor) = &self.cursor {
            query.append_pair("cursor", cursor);
        }
        Ok(query.finish())
    }
}

impl ShowEvent {
    async fn run(
        &self,
        gateway: &Gateway,
        out: &mut impl Paper,
        talk: &mut impl Paper,
    ) -> anyhow::Result<u8> {
        let path = format!("/events/{}", self.id);
        if self.body {
            match gateway.fetch(&format!("{path}/body")).await? {
                Ok(body) => {
                    out.exact();
                    out.write_all(&body)?;
                }
                Err(why) => {
                    print::say(talk, &format!("error: {}: {why}", self.id));
                    return Ok(NOT_FOUND);
                }
            }
        } else {
            let Some(event) = gateway.ask(&path).await?.or_say(talk, &self.id.to_string()) else {
                return Ok(NOT_FOUND);
            };
            if self.json {
                print::json(out, &event)?
            } else {
                print::page(out, &event)?
            }
        }
        out.flush()?;
        Ok(0)
    }
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
    fn a_list_becomes_a_query_that_nothing_breaks_out_of() {
        let Ok(EventCommand::List(list)) =
            parsed("list --source a&b=c --state dead --since 1s --limit 7")
        else {
            panic!("a list")
        };
        let query = list.query(Timestamp::from_seconds(1)).expect("a query");
        assert_eq!(
            query,
            "limit=7&source=a%26b%3Dc&state=dead&since=1970-01-01T00%3A00%3A00.000Z"
        );
        let Ok(EventCommand::List(list)) =
            parsed("list --type a --text b&c --filtered false --oldest --cursor d")
        else {
            panic!("a list")
        };
        let query = list.query(Timestamp::from_seconds(1)).expect("a query");
        assert_eq!(
            query,
            "limit=50&type=a&text=b%26c&filtered=false&order=oldest&cursor=d"
        );
        let Ok(EventCommand::List(list)) = parsed("list --destination robot/1") else {
            panic!("a list")
        };
        assert!(list.query(Timestamp::from_seconds(1)).is_err());
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
            "replay --yes",
            "replay --source a --pace 0/min",
            "replay --source a --pace 101/s",
            "replay --all evt_00000000000000000000000000000000",
            "show evt_00000000000000000000000000000000 --body --json",
            "settle dlv_1 --as delivered",
            "settle dlv_00000000000000000000000000000000_0",
            "settle dlv_00000000000000000000000000000000_0 --as maybe",
            "list --admin http://localhost:1 --config a.toml",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
