//! Answers of the admin API on a terminal. What third parties sent is on one line, cut, and free of anything that
//! moves a cursor, changes a colour or turns the direction of writing. Names and ids are never cut.

mod list;
mod page;
mod status;
mod used;

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Value, json};

pub(in crate::cli) use list::{TableCell, banner, list, rows};
pub(super) use page::page;
pub(super) use status::{refused, refused_page, reloaded, status};
pub(super) use used::{keys, secrets};

use super::sheet::{Paper, Tone, span, wrap};

/// The longest value on a page, in characters.
const LONG: usize = 1024;

/// The longest value in a column.
const SHORT: usize = 40;

/// The longest sentence in a column.
const LINE: usize = 100;

/// The longest list on a page; beyond it `--json` has everything.
const MANY: usize = 200;

/// Width of the labels.
const LABEL: usize = 10;

/// A text on one line.
pub(super) fn line(text: &str) -> String {
    escaped(text, LONG)
}

/// The API's answer as it is. Characters that a terminal would act on are written as JSON escapes, which mean the
/// same: outside of texts JSON has none of them.
pub(super) fn json(out: &mut impl Paper, answer: &Value) -> io::Result<()> {
    out.exact();
    writeln!(out, "{}", harmless(&answer.to_string()))
}

fn harmless(json: &str) -> String {
    let mut text = String::new();
    for c in json.chars() {
        if acts(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // Writing into a text does not fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// The same over several lines, for reading.
fn pretty(out: &mut impl Paper, answer: &Value) -> io::Result<()> {
    out.exact();
    for line in serde_json::to_string_pretty(answer)
        .unwrap_or_default()
        .lines()
    {
        writeln!(out, "{}", harmless(line))?;
    }
    Ok(())
}

/// Talk: a line beside the answer. A terminal that is gone is no reason to stop.
pub(super) fn say(talk: &mut impl Write, text: &str) {
    let _ = writeln!(talk, "{text}");
}

/// A word and what stands behind it, broken where the sheet ends.
fn field(out: &mut impl Paper, label: &str, value: &str) -> io::Result<()> {
    labelled(out, 0, LABEL, label, value)
}

/// The same, set in by so many columns, with words of another width.
pub(super) fn labelled(
    out: &mut impl Paper,
    indent: usize,
    width: usize,
    label: &str,
    value: &str,
) -> io::Result<()> {
    let left = out.look().width.saturating_sub(indent + width + 1);
    for (number, part) in wrap(value, left, left).iter().enumerate() {
        let label = if number == 0 { label } else { "" };
        writeln!(
            out,
            "{:indent$}{}",
            "",
            format!("{label:<width$} {part}").trim_end()
        )?;
    }
    Ok(())
}

/// A text, set in by so many columns and its later lines by two more, broken where the sheet ends.
fn paragraph(out: &mut impl Paper, indent: usize, text: &str) -> io::Result<()> {
    let width = out.look().width;
    for (number, part) in wrap(
        text,
        width.saturating_sub(indent),
        width.saturating_sub(indent + 2),
    )
    .iter()
    .enumerate()
    {
        let indent = if number == 0 { indent } else { indent + 2 };
        writeln!(out, "{:indent$}{part}", "")?;
    }
    Ok(())
}

/// Events as a list. False when the list is empty.
pub(super) fn table(out: &mut impl Paper, page: &Value) -> io::Result<bool> {
    let look = *out.look();
    let row = move |event: &Value| {
        let state = states(event);
        let last = each(&event["states"])
            .last()
            .and_then(Value::as_str)
            .unwrap_or("filtered");
        vec![
            look.time(&event["received_at"]).into(),
            name(event, "id").into(),
            TableCell::new(state, Tone::of_state(last)),
            name(event, "source").into(),
            column(event, "event_type").into(),
            column(event, "thread").into(),
            why(event, &look).into(),
        ]
    };
    banner(out, page)?;
    list(
        out,
        page,
        &["CAME", "ID", "STATE", "SOURCE", "TYPE", "THREAD", "WHY"],
        row,
    )
}

/// Replays as a list. False when the list is empty.
pub(super) fn jobs(out: &mut impl Paper, page: &Value) -> io::Result<bool> {
    let look = *out.look();
    let row = move |job: &Value| {
        let state = column(job, "state");
        let tone = Tone::of_state(&state);
        vec![
            text(&job["id"]).into(),
            TableCell::new(state, tone),
            format!("{} of {}", text(&job["done"]), text(&job["total"])).into(),
            text(&job["skipped"]).into(),
            format!("{}/min", text(&job["pace"])).into(),
            look.time(&job["started_at"]).into(),
            look.time(&job["eta"]).into(),
            escaped(&words(&job["filter"]), LONG).into(),
        ]
    };
    banner(out, page)?;
    list(
        out,
        page,
        &[
            "NUMBER", "STATE", "DONE", "LEFT OUT", "PACE", "BEGAN", "ENDS", "FILTER",
        ],
        row,
    )
}

/// Sources as a list. False when the list is empty.
pub(super) fn sources(out: &mut impl Paper, page: &Value) -> io::Result<bool> {
    let look = *out.look();
    let row = move |source: &Value| {
        let (counts, open) = (&source["counts"], &source["open"]);
        let count = |of: &Value, tone| match of.as_u64() {
            None => TableCell::from("-".to_owned()),
            Some(0) => TableCell::from("0".to_owned()),
            Some(count) => TableCell::new(count.to_string(), tone),
        };
        vec![
            name(source, "name").into(),
            count(&counts["pending"], Tone::Busy),
            count(&counts["leased"], Tone::Busy),
            count(&open["dead"], Tone::Bad),
            count(&open["unknown"], Tone::Bad),
            count(&counts["delivered"], Tone::Plain),
            look.time(&source["last_event_at"]).into(),
            if source["configured"] == true {
                name(source, "provider")
            } else {
                "(not configured)".into()
            }
            .into(),
            name(source, "destination").into(),
            waits(&source["waits_for"], &look).into(),
        ]
    };
    let head = [
        "SOURCE",
        "WAITING",
        "RUNNING",
        "DEAD",
        "UNKNOWN",
        "DELIVERED",
        "LAST EVENT",
        "PROVIDER",
        "DESTINATION",
        "WAITS FOR",
    ];
    banner(out, page)?;
    list(out, page, &head, row)
}

/// Destinations as a list. False when the list is empty.
pub(super) fn destinations(out: &mut impl Paper, page: &Value) -> io::Result<bool> {
    let look = *out.look();
    let row = move |destination: &Value| {
        let sources = each(&destination["sources"])
            .map(text)
            .collect::<Vec<_>>()
            .join(", ");
        let fare = &destination["fare"];
        let breaker = column(fare, "breaker");
        let tone = if breaker == "closed" {
            Tone::Plain
        } else {
            Tone::of_state(&breaker)
        };
        // A line of another account has only the word.
        let waits_for = match fare["waits_for"].as_str() {
            Some(why) if !destination["waits_for"].is_object() => {
                let until = &fare["waits_until"];
                let until = if until.is_string() {
                    format!(", until {}", look.time(until))
                } else {
                    String::new()
                };
                format!("{}{until}", line(why))
            }
            _ => waits(&destination["waits_for"], &look),
        };
        vec![
            name(destination, "destination").into(),
            text(&fare["in_flight"]).into(),
            TableCell::new(breaker, tone),
            waits_for.into(),
            if sources.is_empty() {
                "-".into()
            } else {
                sources
            }
            .into(),
        ]
    };
    // What other accounts' calls come to has a line of its own.
    let lines = each(&page["items"]).flat_map(|destination| {
        let others = each(&destination["others"]).map(|fare| {
            let name = format!("  {}", fare["account"].as_str().unwrap_or_default());
            json!({ "destination": name, "fare": fare })
        });
        std::iter::once(destination.clone()).chain(others)
    });
    let lines = json!({ "items": lines.collect::<Vec<_>>() });
    banner(out, page)?;
    list(
        out,
        &lines,
        &[
            "DESTINATION",
            "IN FLIGHT",
            "BREAKER",
            "WAITS FOR",
            "SOURCES",
        ],
        row,
    )
}

/// Prints what was paused or resumed.
pub(super) fn held(out: &mut impl Paper, answer: &Value) -> io::Result<()> {
    let everything = Value::from("every run");
    let what = [&answer["source"], &answer["destination"]]
        .into_iter()
        .find(|named| named.is_string());
    let word = match &answer["paused"] {
        Value::Bool(true) => "paused",
        Value::Bool(false) => "running",
        _ => "called again",
    };
    let already = if answer["changed"] == false {
        " (it was so already)"
    } else {
        ""
    };
    writeln!(out, "{} {word}{already}", text(what.unwrap_or(&everything)))?;
    if answer["paused"] == true {
        paragraph(
            out,
            0,
            "No run begins any more in this process, and in every other one within 1 s.",
        )?;
    }
    Ok(())
}

/// A window for a handshake, what it brought, or what counts now.
pub(super) fn enrolment(
    out: &mut impl Paper,
    talk: &mut impl Paper,
    answer: &Value,
) -> io::Result<()> {
    let name = text(&answer["source"]);
    if answer["address"].is_string() {
        // The address is to be copied: it stays on one line.
        writeln!(out, "{}", text(&answer["address"]))?;
        let until = text(&answer["until"]);
        let whose = format!(
            "Give this address to the provider before {until}; nobody else can bring a secret."
        );
        paragraph(talk, 0, &whose)?;
        return paragraph(
            talk,
            0,
            &format!("Then compare what came in: sluicegate source enrol {name} --show"),
        );
    }
    let brought = &answer["brought"];
    if brought.is_object() {
        let fingerprint = text(&brought["fingerprint"]);
        let (peer, at) = (text(&brought["peer"]), text(&brought["at"]));
        paragraph(out, 0, &format!("{fingerprint}  from {peer}  at {at}"))?;
        let next = format!(
            "If that was the provider: sluicegate source enrol {name} --confirm {fingerprint}"
        );
        return paragraph(talk, 0, &next);
    }
    match &answer["fingerprint"] {
        Value::String(fingerprint) => paragraph(
            out,
            0,
            &format!("{name}: the secret {} counts now", line(fingerprint)),
        ),
        _ => paragraph(talk, 0, &format!("nothing was brought to {name}")),
    }
}

/// Prints the state of a delivery.
pub(super) fn stands(out: &mut impl Paper, answer: &Value) -> io::Result<()> {
    writeln!(out, "{} {}", text(&answer["id"]), text(&answer["state"]))
}

/// The reason for the state of an event: what it waits for, or the result of the last attempt of its last delivery.
fn why(event: &Value, look: &super::sheet::Style) -> String {
    if event["waits_for"].is_object() {
        return waits(&event["waits_for"], look);
    }
    let reason = &event["reason"];
    if !reason.is_object() {
        return "-".into();
    }
    let status = if reason["status"].is_null() {
        String::new()
    } else {
        format!(" {}", text(&reason["status"]))
    };
    let detail = reason["detail"]
        .as_str()
        .filter(|detail| !detail.is_empty());
    escaped(
        &format!(
            "{}{status}{}",
            text(&reason["result"]),
            detail.map(|d| format!(": {d}")).unwrap_or_default()
        ),
        LINE,
    )
}

/// The reason why something waits, with its times.
fn waits(waits: &Value, look: &super::sheet::Style) -> String {
    if !waits.is_object() {
        return "-".into();
    }
    let mut sentence = text(&waits["text"]);
    if waits["since"].is_string() {
        let _ = write!(sentence, ", since {}", look.time(&waits["since"]));
    }
    if waits["until"].is_string() {
        let word = match waits["why"].as_str() {
            Some("retry") => ";",
            Some("key_refused") => ", next try",
            _ => ", until",
        };
        let _ = write!(sentence, "{word} {}", look.time(&waits["until"]));
    }
    sentence
}

/// A short text of an object, or a dash.
pub(super) fn column(of: &Value, key: &str) -> String {
    escaped(
        of[key]
            .as_str()
            .filter(|text| !text.is_empty())
            .unwrap_or("-"),
        SHORT,
    )
}

/// A name or an id of an object, whole, or a dash.
fn name(of: &Value, key: &str) -> String {
    text(&of[key])
}

/// Prints the plan of a replay of many events.
pub(super) fn plan(out: &mut impl Paper, plan: &Value) -> io::Result<()> {
    let look = *out.look();
    let edge = |edge: &Value| match edge["id"].as_str() {
        Some(id) => format!("{}  {}", look.time(&edge["received_at"]), line(id)),
        None => "-".into(),
    };
    let more = if plan["more"] == true {
        "more than "
    } else {
        ""
    };
    let takes = plan["takes_s"].as_u64().map_or_else(|| "-".into(), span);
    for (label, value) in [
        ("filter", escaped(&words(&plan["filter"]), LONG)),
        ("events", format!("{more}{}", text(&plan["count"]))),
        ("pace", format!("{} a minute", text(&plan["pace"]))),
        ("takes", format!("about {takes}")),
        ("oldest", edge(&plan["oldest"])),
        ("newest", edge(&plan["newest"])),
    ] {
        field(out, label, &value)?;
    }
    for left_out in each(&plan["left_out"]) {
        let sentence = format!(
            "{} of the oldest {} looked at: source {}, {}",
            text(&left_out["count"]),
            text(&plan["looked_at"]),
            text(&left_out["source"]),
            text(&left_out["why"]),
        );
        field(out, "left out", &sentence)?;
    }
    Ok(())
}

/// One replay in bulk.
pub(super) fn job(out: &mut impl Paper, job: &Value) -> io::Result<()> {
    let look = *out.look();
    for (label, value) in [
        ("replay", text(&job["id"])),
        ("state", text(&job["state"])),
        ("filter", escaped(&words(&job["filter"]), LONG)),
        (
            "done",
            format!("{} of {}", text(&job["done"]), text(&job["total"])),
        ),
        ("left out", text(&job["skipped"])),
        ("pace", format!("{} a minute", text(&job["pace"]))),
        ("began", look.whole_time(&job["started_at"])),
        ("changed", look.whole_time(&job["changed_at"])),
        ("ends", look.whole_time(&job["eta"])),
    ] {
        field(out, label, &value)?;
    }
    Ok(())
}

/// The request that a dry run shows.
pub(super) fn dry_run(out: &mut impl Paper, answer: &Value) -> io::Result<()> {
    let request = &answer["request"];
    if !request.is_object() {
        return writeln!(out, "nothing would go out");
    }
    writeln!(
        out,
        "{} {}",
        text(&request["method"]),
        text(&request["path"])
    )?;
    for header in each(&request["headers"]) {
        writeln!(out, "{}: {}", text(&header[0]), text(&header[1]))?;
    }
    writeln!(out)?;
    pretty(out, &request["body"])
}

/// A filter as one reads it.
fn words(filter: &Value) -> String {
    let words = filter.as_object().into_iter().flatten();
    let words: Vec<String> = words
        .map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        })
        .collect();
    if words.is_empty() {
        "-".into()
    } else {
        words.join(" ")
    }
}

/// Prints the result of a replay: the event and its new deliveries.
pub(super) fn replayed(out: &mut impl Paper, answer: &Value) -> io::Result<()> {
    let list = each(&answer["deliveries"])
        .map(text)
        .collect::<Vec<_>>()
        .join(" ");
    paragraph(out, 0, &format!("{} {list}", text(&answer["event"])))
}

fn none_where_empty(out: &mut impl Paper, list: &Value) -> io::Result<()> {
    if each(list).next().is_none() {
        writeln!(out, "  none")
    } else {
        Ok(())
    }
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten().take(MANY)
}

/// A text or a number on one line; a dash where there is nothing.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => line(text),
        other => line(&other.to_string()),
    }
}

fn states(event: &Value) -> String {
    if event["filtered"].is_string() && each(&event["states"]).next().is_none() {
        return "filtered".into();
    }
    let word = |state: &Value| {
        if state == "leased" {
            "running".to_owned()
        } else {
            text(state)
        }
    };
    let states: Vec<String> = each(&event["states"]).map(word).collect();
    match states.as_slice() {
        [] => "-".into(),
        [one] => one.clone(),
        // What came before the last one is over.
        [.., last] => format!("{last} ({} sent)", states.len()),
    }
}

fn escaped(text: &str, most: usize) -> String {
    let mut line = String::new();
    let mut left = most;
    for c in text.chars() {
        if left == 0 {
            line.push('…');
            break;
        }
        left -= 1;
        match c {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if acts(c) => line.extend(c.escape_unicode()),
            c => line.push(c),
        }
    }
    line
}

/// True if a terminal may do something else with a character than show it: controls, line ends, invisible characters,
/// and those that turn the direction of writing.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::sheet::{Sheet, Style, Times, columns_of};
    use super::*;
    use crate::model::Timestamp;

    /// Everything that a third party could have put into an event.
    const HOSTILE: &str = "\u{1b}[2J\u{9b}31m\r\nforged: line\u{202e}txt\u{2028}\u{7f}\0";

    fn printed_on(
        width: usize,
        print: impl FnOnce(&mut Sheet<Vec<u8>>) -> io::Result<()>,
    ) -> String {
        let now = Timestamp::parse("2026-11-25T00:22:41Z").expect("a time");
        let mut out = Sheet::new(Vec::new(), Style::plain(width, Times::Ago, now));
        print(&mut out).expect("memory takes it");
        String::from_utf8(out.into_inner()).expect("text")
    }

    fn printed(print: impl FnOnce(&mut Sheet<Vec<u8>>) -> io::Result<()>) -> String {
        printed_on(200, print)
    }

    fn hostile_event() -> Value {
        json!({
            "id": "evt_1", "source": "triage", "event_type": HOSTILE, "dedup": HOSTILE, "thread": HOSTILE,
            "received_at": "2026-11-25T00:19:40.125Z", "filtered": HOSTILE, "states": ["delivered"],
            "verification": { "strength": "signed", "secret": "literal 1" },
            "request_line": HOSTILE,
            "params": [{
                "name": "prompt", "value": HOSTILE,
                "origin": { "from": "mapping", "path": "issue.title" }, "over": [{ "from": "query" }],
            }],
            "headers": [[HOSTILE, HOSTILE]],
            "body": "x".repeat(5_000), "body_base64": null, "body_bytes": 5_000, "body_cut": false,
            "deliveries": [{
                "id": "dlv_1_0", "destination": "agent/a", "state": "delivered", "upstream_id": HOSTILE, "tried": 1,
                "due": null, "doubt": HOSTILE, "answer": { "status": HOSTILE, "result": HOSTILE },
                "attempts": [{
                    "number": 1, "started_at": "2026-11-25T00:19:41Z", "ended_at": "2026-11-25T00:19:42.5Z",
                    "result": "completed", "status": 200, "detail": HOSTILE,
                }],
            }],
        })
    }

    #[test]
    fn t100_nothing_that_was_sent_acts_on_the_terminal() {
        let event = hostile_event();
        let list = json!({ "items": [event, event] });
        let texts = [
            printed(|out| page(out, &event)),
            printed(|out| table(out, &list).map(|_| ())),
            printed(|out| json(out, &event)),
            printed(|out| replayed(out, &json!({ "event": HOSTILE, "deliveries": [HOSTILE] }))),
            printed(|out| {
                job(
                    out,
                    &json!({ "id": HOSTILE, "filter": { HOSTILE: HOSTILE } }),
                )
            }),
            printed(|out| {
                let left_out = json!([{ "source": HOSTILE, "why": HOSTILE }]);
                plan(
                    out,
                    &json!({ "filter": { "text": HOSTILE }, "oldest": { "id": HOSTILE }, "left_out": left_out }),
                )
            }),
            printed(|out| {
                dry_run(
                    out,
                    &json!({ "request": { "path": HOSTILE, "headers": [[HOSTILE, HOSTILE]], "body": HOSTILE } }),
                )
            }),
        ];
        for text in &texts {
            assert!(!text.chars().any(|c| c != '\n' && acts(c)), "{text:?}");
            assert!(
                !text.lines().any(|line| line.starts_with("forged")),
                "{text}"
            );
        }
        for line in texts.iter().take(2).flat_map(|text| text.lines()) {
            assert!(columns_of(line) <= 200, "{line}");
        }
        assert_eq!(
            serde_json::from_str::<Value>(&texts[2]).expect("JSON"),
            event,
            "escapes change nothing"
        );
    }

    #[test]
    fn a_page_says_where_values_came_from_and_how_attempts_went() {
        let page = printed(|out| page(out, &hostile_event()));
        assert!(
            page.contains("prompt           from the mapping of issue.title, over the query"),
            "{page}"
        );
        assert!(
            page.contains("verified   signed, by the secret literal 1"),
            "{page}"
        );
        assert!(
            page.contains("3 min ago, 1.500 s, completed 200: "),
            "{page}"
        );
        assert!(
            page.contains("received   3 min ago (2026-11-25T00:19:40.125Z)"),
            "{page}"
        );
        assert!(
            page.contains("body, 5000 bytes") && page.ends_with("x…\n"),
            "{page}"
        );
    }

    #[test]
    fn columns_stand_under_each_other() {
        let event = |source: &str, states: Value, filtered: Value| {
            json!({ "id": "evt_1", "source": source, "received_at": "2026-11-25T00:19:40.125Z", "event_type": null,
                "thread": "t", "states": states, "filtered": filtered })
        };
        let list = json!({ "items": [
            event("a", json!(["dead", "pending"]), Value::Null),
            event("longer", json!([]), json!("events")),
        ] });
        let text = printed(|out| table(out, &list).map(|some| assert!(some)));
        assert_eq!(
            text,
            "CAME       ID     STATE             SOURCE  THREAD\n\
             3 min ago  evt_1  pending (2 sent)  a       t\n\
             3 min ago  evt_1  filtered          longer  t\n"
        );
        let mut dead = event("a", json!(["dead"]), Value::Null);
        dead["reason"] = json!({ "result": "refused", "status": 422, "detail": "no\n" });
        let text = printed(|out| table(out, &json!({ "items": [dead] })).map(|some| assert!(some)));
        assert!(
            text.contains("THREAD  WHY\n") && text.ends_with("t       refused 422: no\\n\n"),
            "{text}"
        );
        assert!(
            printed(|out| table(out, &json!({ "items": [] })).map(|some| assert!(!some)))
                .is_empty()
        );
    }

    #[test]
    fn rows_that_do_not_fit_have_a_second_line_and_ids_stay_whole() {
        let id = format!("evt_{}", "0193ab12".repeat(4));
        let event = json!({ "id": id, "source": "a-source-with-a-long-name", "received_at": "2026-11-25T00:19:40.125Z",
            "event_type": "pull_request.review_requested", "thread": "acme/app#7", "states": ["pending"], "filtered": null,
            "waits_for": { "why": "retry", "text": "retry 5, after: connection refused", "until": "2026-11-25T00:23:41Z" } });
        let page = json!({ "items": [event], "paused": [{ "what": "all", "kind": "all", "since": "2026-11-25T00:19:40Z" }] });
        for width in [40, 60, 80, 99] {
            let text = printed_on(width, |out| table(out, &page).map(|_| ()));
            assert!(
                text.lines().all(|line| columns_of(line) <= width),
                "{width}: {text}"
            );
            assert!(text.contains(&id), "{width}: {text}");
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                words.contains("retry 5, after: connection refused; in 60 s"),
                "{width}: {text}"
            );
            assert!(
                words.starts_with("PAUSED: every run, since 3 min ago"),
                "{width}: {text}"
            );
        }
        let long = json!({ "items": [{ "destination": format!("agent/{}", "x".repeat(150)), "fare": null }] });
        let text = printed_on(80, |out| destinations(out, &long).map(|_| ()));
        assert_eq!(text.matches('x').count(), 150, "{text}");
        assert!(text.lines().all(|line| columns_of(line) <= 80), "{text}");
    }

    #[test]
    fn status_and_refused_requests_fit_a_terminal() {
        let answer = json!({ "well": false, "attention": [{ "code": "dead", "about": "triage", "since": null,
            "text": "3 events of triage will not be tried again by itself", "todo": "sluicegate event list --source \
            triage --state dead; then: event replay --source triage --state dead" }],
            "budgets": [{ "budget": "all", "runs": 3, "most": 5 }], "disk": { "bytes": 5_000_000, "reusable_bytes": 0 } });
        let text = printed_on(80, |out| status(out, &answer).map(|well| assert!(!well)));
        assert!(
            text.starts_with("1 thing needs attention\n- 3 events of triage"),
            "{text}"
        );
        assert!(
            text.contains("runs today all 3 of 5") && text.contains("4 MiB"),
            "{text}"
        );
        assert!(
            printed(|out| status(out, &json!({ "well": true })).map(|well| assert!(well)))
                .starts_with("all is well")
        );
        let sample = json!({ "at": "2026-11-25T00:19:40Z", "request_id": "req_0123456789abcdef", "source": "triage",
            "method": "POST", "path": "/hooks/triage", "peer": "203.0.113.9", "headers": ["x-a"], "body_bytes": 12,
            "code": "bad_signature", "reason": "stale", "cause": HOSTILE, "whole": true });
        for text in [
            text,
            printed_on(80, |out| {
                refused(out, &json!({ "items": [sample] }), true).map(|_| ())
            }),
            printed_on(80, |out| {
                refused(out, &json!({ "items": [sample] }), false).map(|_| ())
            }),
            printed_on(80, |out| refused_page(out, &sample)),
        ] {
            assert!(text.lines().all(|line| columns_of(line) <= 80), "{text}");
            assert!(!text.chars().any(|c| c != '\n' && acts(c)), "{text:?}");
        }
    }

    #[test]
    fn answers_of_another_shape_print_without_a_panic() {
        for odd in [
            json!(null),
            json!([]),
            json!({ "items": [1, null, "x"], "params": 7, "headers": [[]] }),
        ] {
            printed(|out| page(out, &odd));
            printed(|out| table(out, &odd).map(|_| ()));
            printed(|out| replayed(out, &odd));
            printed(|out| plan(out, &odd));
            printed(|out| job(out, &odd));
            printed(|out| jobs(out, &odd).map(|_| ()));
            printed(|out| sources(out, &odd).map(|_| ()));
            printed(|out| destinations(out, &odd).map(|_| ()));
            printed(|out| dry_run(out, &odd));
            printed(|out| status(out, &odd).map(|_| ()));
            printed(|out| refused(out, &odd, true).map(|_| ()));
            printed(|out| refused_page(out, &odd));
        }
    }
}
