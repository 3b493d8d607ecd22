//! Owing events again: named ones at once, those of a filter as a job, after its plan was shown and agreed to.

use std::io::IsTerminal as _;

use anyhow::anyhow;
use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::super::gateway::{Gateway, GatewayArgs, NOT_FOUND};
use super::super::sheet::Paper;
use super::super::{pace, print, usage};
use super::EventName;
use super::filter::FilterArgs;
use crate::model::Timestamp;

/// Options of a replay.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).multiple(true).args([
    "ids", "source", "state", "open", "event_type", "thread", "dedup", "destination", "text", "since", "until", "filtered",
    "all",
])))]
pub(in crate::cli) struct Replay {
    /// The events, like evt_0193ab12; or name them by a filter
    #[arg(value_name = "ID", conflicts_with_all = ["all", "pace", "yes"])]
    ids: Vec<EventName>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Every event
    #[arg(long)]
    all: bool,
    /// Number of events a minute, with a filter, like 60/min [default: 60/min]
    #[arg(long, value_name = "RATE", value_parser = pace)]
    pace: Option<u32>,
    /// Begin without asking
    #[arg(short, long)]
    yes: bool,
    /// Show what would be done: the plan, or the request that would go out
    #[arg(long)]
    dry_run: bool,
    /// Print the API's JSON, one line an event
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) gateway: GatewayArgs,
}

impl Replay {
    pub(super) async fn run(
        &self,
        gateway: &Gateway,
        now: Timestamp,
        out: &mut impl Paper,
        talk: &mut impl Paper,
    ) -> anyhow::Result<u8> {
        match (self.ids.is_empty(), self.filter.is_given()) {
            (true, _) => self.by_filter(gateway, now, out, talk).await,
            (false, false) => self.by_id(gateway, out, talk).await,
            (false, true) => Err(usage("name events, or a filter, not both")),
        }
    }

    /// Every event is tried, whatever became of the one before.
    async fn by_id(
        &self,
        gateway: &Gateway,
        out: &mut impl Paper,
        talk: &mut impl Paper,
    ) -> anyhow::Result<u8> {
        let mut code = 0;
        for id in &self.ids {
            let dry_run = if self.dry_run { "?dry_run=true" } else { "" };
            match gateway
                .tell(&format!("/events/{id}/replay{dry_run}"), &Value::Null)
                .await
            {
                Ok(asked) => match asked.or_say(talk, &id.to_string()) {
                    Some(answer) if self.json => print::json(out, &answer)?,
                    Some(answer) if self.dry_run => print::dry_run(out, &answer)?,
                    Some(answer) => print::replayed(out, &answer)?,
                    None if code == 0 => code = NOT_FOUND,
                    None => {}
                },
                Err(error) => {
                    print::say(talk, &format!("error: {id}: {error:#}"));
                    code = 1;
                }
            }
            out.flush()?;
        }
        Ok(code)
    }

    async fn by_filter(
        &self,
        gateway: &Gateway,
        now: Timestamp,
        out: &mut impl Paper,
        talk: &mut impl Paper,
    ) -> anyhow::Result<u8> {
        let mut wanted = json!({ "filter": self.filter.words(now)?, "all": self.all });
        if let Some(pace) = self.pace {
            wanted["pace"] = pace.into();
        }
        let Some(plan) = gateway
            .tell("/replays/plan", &wanted)
            .await?
            .or_say(talk, "replay")
        else {
            return Ok(NOT_FOUND);
        };
        if self.dry_run {
            if self.json {
                print::json(out, &plan)?
            } else {
                print::plan(out, &plan)?
            }
            out.flush()?;
            return Ok(0);
        }
        print::plan(talk, &plan)?;
        if plan["count"] == 0 {
            print::say(talk, "no event fits; nothing to do");
            return Ok(0);
        }
        if !self.yes && !agreed(talk)? {
            print::say(talk, "nothing was replayed");
            return Ok(1);
        }
        // What was shown is what is done: the plan says until when.
        wanted["filter"] = plan["filter"].clone();
        let Some(job) = gateway
            .tell("/replays", &wanted)
            .await?
            .or_say(talk, "replay")
        else {
            return Ok(NOT_FOUND);
        };
        if self.json {
            print::json(out, &job)?
        } else {
            print::job(out, &job)?
        }
        out.flush()?;
        print::say(
            talk,
            &format!(
                "follow it with: sluicegate replay show {}",
                print::line(&job["id"].to_string())
            ),
        );
        Ok(0)
    }
}

/// Asks whoever sits at the terminal.
fn agreed(talk: &mut impl Paper) -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(anyhow!(
            "nobody can be asked here; add --yes to begin, or --dry-run to see the plan alone"
        ));
    }
    write!(talk, "Replay these? [y/N] ")?;
    talk.flush()?;
    let mut line = String::new();
    stdin.read_line(&mut line)?;
    Ok(matches!(
        line.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}
