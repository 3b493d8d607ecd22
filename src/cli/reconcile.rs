//! Find what a provider sent and what never arrived, and pull it in, through the admin API of a running gateway: the
//! inbox is that process's own.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::gateway::{ApiAnswer, GatewayArgs};
use super::print::{column, json as print_json, line, list};
use super::sheet::{Paper, sheets};
use super::{CommandResult, say, since};
use crate::model::Clock;

/// Longer than the gateway takes.
const ANSWER: Duration = Duration::from_secs(6 * 60);

/// There is no such source.
const NOT_FOUND: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct Reconcile {
    /// The source
    source: String,
    /// From when on: how long ago, like 2h or 3d, or a time like 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: String,
    /// Until before when [default: now]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only look, and pull nothing in
    #[arg(long)]
    dry_run: bool,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Runs it. The exit code is 0 when everything is here now, 3 when there is no such source, 1 when something failed or
/// it did not come to the end.
pub(super) async fn run(reconcile: &Reconcile) -> CommandResult {
    let gateway = reconcile.gateway.find()?;
    let name: String = form_urlencoded::byte_serialize(reconcile.source.as_bytes()).collect();
    let now = Clock::system().now();
    let until = reconcile
        .until
        .as_deref()
        .map(|text| since("--until", text, now))
        .transpose()?;
    let from = since("--since", &reconcile.since, now)?;
    let body = json!({
        "since": from.to_string(), "until": until.map(|until| until.to_string()), "dry_run": reconcile.dry_run,
    });
    let path = format!("/sources/{name}/reconcile");
    let report = match gateway.tell_within(&path, &body, ANSWER).await? {
        ApiAnswer::Answered(report) => report,
        ApiAnswer::NotFound(why) => {
            say(&format!("error: {}: {why}", line(&reconcile.source)));
            return Ok(NOT_FOUND.into());
        }
    };
    let (mut out, _) = sheets(reconcile.gateway.times);
    if reconcile.json {
        print_json(&mut out, &report)?
    } else {
        print(&mut out, &report)?
    }
    out.flush()?;
    if let Some(detail) = report["stopped"]["detail"].as_str() {
        say(&format!("stopped: {}", line(detail)));
        match report["reached"].as_str() {
            Some(reached) => say(&format!(
                "everything before {0} is done; go on with --since {0}",
                line(reached)
            )),
            None => say("nothing was done"),
        }
    }
    let good = report["stopped"].is_null() && report["failed"] == 0;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints the events that were missing, as a table, and the sums.
fn print(out: &mut impl Paper, report: &Value) -> std::io::Result<()> {
    let lines = report["lines"].as_array().map_or(&[][..], Vec::as_slice);
    let shown: Vec<&Value> = lines
        .iter()
        .filter(|line| line["became"] != "already_here")
        .collect();
    let look = *out.look();
    list(
        out,
        &json!({ "items": shown }),
        &[
            "CAME",
            "BECAME",
            "TYPE",
            "DEDUP KEY",
            "PROVIDER ID",
            "EVENT OR WHY",
        ],
        move |shown| {
            let why = shown["why"]
                .as_str()
                .or(shown["event"].as_str())
                .unwrap_or("-");
            let mut row = vec![look.time(&shown["at"]).into()];
            row.extend(
                ["became", "event_type", "dedup", "id"].map(|key| column(shown, key).into()),
            );
            row.push(line(why).into());
            row
        },
    )?;
    let count = |key: &str| report[key].as_u64().unwrap_or(0);
    let missing = if report["dry_run"] == true {
        ("missing", "missing")
    } else {
        ("pulled_in", "pulled in")
    };
    writeln!(
        out,
        "{} listed: {} already here, {} {}, {} filtered, {} failed",
        count("listed"),
        count("already_here"),
        count(missing.0),
        missing.1,
        count("filtered"),
        count("failed")
    )
}

#[cfg(test)]
mod tests {
    use super::super::sheet::{Sheet, Style, Times};
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn what_was_here_already_is_only_counted_and_nothing_acts_on_the_terminal() {
        let hostile = "\u{1b}[2J\nforged";
        let line = |became: &str| {
            json!({ "id": hostile, "dedup": hostile, "event_type": hostile, "became": became,
            "at": "2026-11-25T00:19:40.125Z", "event": null, "why": hostile })
        };
        let report = json!({ "listed": 3, "already_here": 2, "missing": 0, "pulled_in": 1, "filtered": 0, "failed": 0,
            "dry_run": false, "lines": [line("already_here"), line("pulled_in")] });
        let sheet = |width| {
            Sheet::new(
                Vec::new(),
                Style::plain(width, Times::Utc, Timestamp::from_seconds(0)),
            )
        };
        let mut out = sheet(400);
        print(&mut out, &report).expect("memory takes it");
        let text = String::from_utf8(out.into_inner()).expect("text");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.ends_with("3 listed: 2 already here, 1 pulled in, 0 filtered, 0 failed\n"),
            "{text}"
        );
        assert!(
            !text.contains('\u{1b}') && !text.lines().any(|line| line.starts_with("forged")),
            "{text}"
        );
        for odd in [json!(null), json!([]), json!({ "lines": [1, null, {}] })] {
            print(&mut sheet(80), &odd).expect("memory takes it");
        }
    }
}
