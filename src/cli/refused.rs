//! Requests that were refused, and why: the last ones, those that come from now on, and one of them whole.

use std::collections::HashSet;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use form_urlencoded::Serializer;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::gateway::{Gateway, GatewayArgs, NOT_FOUND};
use super::sheet::{Paper, sheets};
use super::{print, since};
use crate::model::Clock;

/// Time between two looks for new refusals.
const LOOK: Duration = Duration::from_secs(1);

/// Most refusals in a list: all that a gateway keeps.
const MOST: u16 = 1024;

#[derive(Debug, Args)]
pub(super) struct RefusedArgs {
    /// A source; or the id of one request, like req_0123abcd, to see all that is kept of it
    #[arg(value_name = "SOURCE|ID")]
    what: Option<String>,
    /// Go on, and print each one as it is refused, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Number of refusals, at most 1024
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1024))]
    limit: u16,
    /// Only since: a time like 2026-01-31T12:00:00Z, a date, or how long ago, like 2h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Print the API's JSON; with --follow one line for each request
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Runs it. The exit code is 0 when all went well, 3 when there is no such source or request, 1 for every other problem.
pub(super) async fn run(refused: &RefusedArgs) -> anyhow::Result<ExitCode> {
    let (mut out, mut talk) = sheets(refused.gateway.times);
    let gateway = refused.gateway.find()?;
    let (out, talk) = (&mut out, &mut talk);
    let id = refused
        .what
        .as_deref()
        .filter(|what| what.starts_with("req_"));
    if let Some(id) = id {
        let path = format!("/refused/{}", utf8_percent_encode(id, NON_ALPHANUMERIC));
        let Some(page) = gateway.ask(&path).await?.or_say(talk, &print::line(id)) else {
            return Ok(NOT_FOUND.into());
        };
        if refused.json {
            print::json(out, &page)?
        } else {
            print::refused_page(out, &page)?
        }
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(page) = gateway
        .ask(&refused.path(refused.limit)?)
        .await?
        .or_say(talk, "refused")
    else {
        return Ok(NOT_FOUND.into());
    };
    if refused.follow {
        let stop = super::stop_signal()?;
        tokio::select! {
            ended = refused.go_on(&gateway, page, out) => ended?,
            () = stop => {}
        }
        return Ok(ExitCode::SUCCESS);
    }
    if refused.json {
        print::json(out, &page)?;
    } else if !print::refused(out, &page, true)? {
        print::say(talk, "nothing was refused since this process started");
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

impl RefusedArgs {
    fn path(&self, limit: u16) -> anyhow::Result<String> {
        let mut query = Serializer::new(String::new());
        query.append_pair("limit", &limit.to_string());
        if let Some(source) = &self.what {
            query.append_pair("source", source);
        }
        if let Some(text) = &self.since {
            query.append_pair(
                "since",
                &since("--since", text, Clock::system().now())?.to_string(),
            );
        }
        Ok(format!("/refused?{}", query.finish()))
    }

    /// Prints what there is, the oldest first, and then what comes.
    async fn go_on(
        &self,
        gateway: &Gateway,
        first: Value,
        out: &mut impl Paper,
    ) -> anyhow::Result<()> {
        let mut seen = HashSet::new();
        let mut page = first;
        loop {
            let items = page["items"].as_array().cloned().unwrap_or_default();
            let ids: HashSet<String> = items
                .iter()
                .map(|item| item["request_id"].to_string())
                .collect();
            let new: Vec<Value> = items
                .into_iter()
                .rev()
                .filter(|item| !seen.contains(&item["request_id"].to_string()))
                .collect();
            // What the gateway has forgotten does not come again.
            seen = ids;
            if self.json {
                for item in &new {
                    print::json(out, item)?;
                }
            } else {
                print::refused(out, &json!({ "items": new }), false)?;
            }
            out.flush()?;
            tokio::time::sleep(LOOK).await;
            // All that are kept: what came between two looks is among them as long as the gateway keeps it.
            let asked = gateway.ask(&self.path(MOST)?).await?;
            if let super::gateway::ApiAnswer::Answered(next) = asked {
                page = next;
            }
        }
    }
}
