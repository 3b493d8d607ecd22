//! Answers of the admin API on a terminal. What third parties sent is on one line, cut, and free of anything that
//! moves a cursor, changes a colour or turns the direction of writing.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::model::Timestamp;

/// The longest value on a page, in characters.
const LONG: usize = 1024;

/// The longest value in a column.
const SHORT: usize = 40;

/// The longest sentence in a column.
const LINE: usize = 100;

/// The longest list on a page; beyond it `--json` has everything.
const MANY: usize = 200;

/// A text on one line.
pub(super) fn line(text: &str) -> String {
    escaped(text, LONG)
}

/// The API's answer as it is. Characters that a terminal would act on are written as JSON escapes, which mean the
/// same: outside of texts JSON has none of them.
pub(super) fn json(out: &mut impl Write, answer: &Value) -> io::Result<()> {
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
pub(super) fn pretty(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    for line in serde_json::to_string_pretty(answer).unwrap_or_default().lines() {
        writeln!(out, "{}", harmless(line))?;
    }
    Ok(())
}

/// Talk: a line beside the answer. A terminal that is gone is no reason to stop.
pub(super) fn say(talk: &mut impl Write, text: &str) {
    let _ = writeln!(talk, "{text}");
}

/// Events as an aligned table. False when there are none.
pub(super) fn table(out: &mut impl Write, page: &Value) -> io::Result<bool> {
    let row = |event: &Value| {
        vec![
            short_time(&event["received_at"]),
            column(event, "id"),
            column(event, "source"),
            column(event, "event_type"),
            states(event),
            column(event, "thread"),
            reason(event),
        ]
    };
    let head = ["TIME", "ID", "SOURCE", "TYPE", "STATE", "THREAD", "REASON"];
    // Where nothing went wrong there is nothing to say of it.
    let wrong = each(&page["items"]).any(|event| event["reason"].is_object());
    list(out, page, if wrong { &head } else { &head[..6] }, row)
}

/// Replays as a table. False when there are none.
pub(super) fn jobs(out: &mut impl Write, page: &Value) -> io::Result<bool> {
    let row = |job: &Value| {
        vec![
            text(&job["id"]),
            column(job, "state"),
            format!("{} of {}", text(&job["done"]), text(&job["total"])),
            text(&job["skipped"]),
            format!("{}/min", text(&job["pace"])),
            short_time(&job["started_at"]),
            short_time(&job["eta"]),
            escaped(&words(&job["filter"]), LONG),
        ]
    };
    list(out, page, &["NUMBER", "STATE", "DONE", "LEFT OUT", "PACE", "BEGAN", "ENDS", "FILTER"], row)
}

/// Sources as a table. False when there are none.
pub(super) fn sources(out: &mut impl Write, page: &Value) -> io::Result<bool> {
    let row = |source: &Value| {
        let counts = &source["counts"];
        let mut row = vec![
            column(source, "name"),
            if source["configured"] == true { column(source, "provider") } else { "(not configured)".into() },
            column(source, "destination"),
            short_time(&source["paused_since"]),
        ];
        row.extend(["pending", "leased", "delivered", "dead", "unknown"].map(|state| text(&counts[state])));
        row
    };
    let head =
        ["SOURCE", "PROVIDER", "DESTINATION", "PAUSED SINCE", "PENDING", "LEASED", "DELIVERED", "DEAD", "UNKNOWN"];
    list(out, page, &head, row)
}

/// Destinations as a table. False when there are none.
pub(super) fn destinations(out: &mut impl Write, page: &Value) -> io::Result<bool> {
    let row = |destination: &Value| {
        let sources = each(&destination["sources"]).map(text).collect::<Vec<_>>().join(",");
        let fare = &destination["fare"];
        vec![
            column(destination, "destination"),
            short_time(&destination["paused_since"]),
            text(&fare["in_flight"]),
            column(fare, "breaker"),
            column(fare, "waits_for"),
            short_time(&fare["waits_until"]),
            if sources.is_empty() { "-".into() } else { escaped(&sources, SHORT) },
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
    let page = &json!({ "items": lines.collect::<Vec<_>>() });
    let head = ["DESTINATION", "PAUSED SINCE", "IN FLIGHT", "BREAKER", "WAITS FOR", "UNTIL", "SOURCES"];
    list(out, page, &head, row)
}

/// What is held or let go.
pub(super) fn held(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    let everything = Value::from("every run");
    let what = [&answer["source"], &answer["destination"]].into_iter().find(|named| named.is_string());
    let word = match &answer["paused"] {
        Value::Bool(true) => "paused",
        Value::Bool(false) => "running",
        _ => "called again",
    };
    let already = if answer["changed"] == false { " (it was so already)" } else { "" };
    writeln!(out, "{} {word}{already}", text(what.unwrap_or(&everything)))
}

/// A window for a handshake, what it brought, or what counts now.
pub(super) fn enrolment(out: &mut impl Write, talk: &mut impl Write, answer: &Value) -> io::Result<()> {
    let name = text(&answer["source"]);
    if answer["address"].is_string() {
        writeln!(out, "{}", text(&answer["address"]))?;
        let until = text(&answer["until"]);
        writeln!(talk, "Give this address to the provider before {until}; nobody else can bring a secret.")?;
        return writeln!(talk, "Then compare what came in: sluicegate source enrol {name} --show");
    }
    let brought = &answer["brought"];
    if brought.is_object() {
        let fingerprint = text(&brought["fingerprint"]);
        writeln!(out, "{fingerprint}  from {}  at {}", text(&brought["peer"]), text(&brought["at"]))?;
        return writeln!(talk, "If that was the provider: sluicegate source enrol {name} --confirm {fingerprint}");
    }
    match &answer["fingerprint"] {
        Value::String(_) => writeln!(out, "{name}: the secret {} counts now", text(&answer["fingerprint"])),
        _ => writeln!(talk, "nothing was brought to {name}"),
    }
}

/// Where a delivery stands now.
pub(super) fn stands(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    writeln!(out, "{} {}", text(&answer["id"]), text(&answer["state"]))
}

/// A list as an aligned table. False when there is nothing in it.
pub(super) fn list(
    out: &mut impl Write,
    page: &Value,
    head: &[&str],
    row: impl Fn(&Value) -> Vec<String>,
) -> io::Result<bool> {
    let Some(items) = page["items"].as_array().filter(|items| !items.is_empty()) else { return Ok(false) };
    let mut rows = vec![head.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()];
    rows.extend(items.iter().map(row));
    let mut widths = vec![0; head.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(&row) {
            // Writing into a text does not fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(true)
}

/// What the last try of an event's last delivery came to.
fn reason(event: &Value) -> String {
    let reason = &event["reason"];
    if !reason.is_object() {
        return "-".into();
    }
    let status = if reason["status"].is_null() { String::new() } else { format!(" {}", text(&reason["status"])) };
    let detail = reason["detail"].as_str().filter(|detail| !detail.is_empty());
    escaped(
        &format!("{}{status}{}", text(&reason["result"]), detail.map(|d| format!(": {d}")).unwrap_or_default()),
        LINE,
    )
}

/// A short text of an object, or a dash.
pub(super) fn column(of: &Value, key: &str) -> String {
    escaped(of[key].as_str().filter(|text| !text.is_empty()).unwrap_or("-"), SHORT)
}

/// What a replay in bulk would be.
pub(super) fn plan(out: &mut impl Write, plan: &Value) -> io::Result<()> {
    let edge = |edge: &Value| match edge["id"].as_str() {
        Some(id) => format!("{}  {}", short_time(&edge["received_at"]), line(id)),
        None => "-".into(),
    };
    let more = if plan["more"] == true { "more than " } else { "" };
    let takes = plan["takes_s"].as_u64().map_or_else(|| "-".into(), span);
    for (label, value) in [
        ("filter", escaped(&words(&plan["filter"]), LONG)),
        ("events", format!("{more}{}", text(&plan["count"]))),
        ("pace", format!("{} a minute", text(&plan["pace"]))),
        ("takes", format!("about {takes}")),
        ("oldest", edge(&plan["oldest"])),
        ("newest", edge(&plan["newest"])),
    ] {
        writeln!(out, "{label:<10} {value}")?;
    }
    for left_out in each(&plan["left_out"]) {
        writeln!(
            out,
            "left out   {} of the oldest {} looked at: source {}, {}",
            text(&left_out["count"]),
            text(&plan["looked_at"]),
            text(&left_out["source"]),
            text(&left_out["why"]),
        )?;
    }
    Ok(())
}

/// One replay in bulk.
pub(super) fn job(out: &mut impl Write, job: &Value) -> io::Result<()> {
    for (label, value) in [
        ("replay", text(&job["id"])),
        ("state", text(&job["state"])),
        ("filter", escaped(&words(&job["filter"]), LONG)),
        ("done", format!("{} of {}", text(&job["done"]), text(&job["total"]))),
        ("left out", text(&job["skipped"])),
        ("pace", format!("{} a minute", text(&job["pace"]))),
        ("began", text(&job["started_at"])),
        ("changed", text(&job["changed_at"])),
        ("ends", text(&job["eta"])),
    ] {
        writeln!(out, "{label:<10} {value}")?;
    }
    Ok(())
}

/// The request that a dry run shows.
pub(super) fn dry_run(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    let request = &answer["request"];
    if !request.is_object() {
        return writeln!(out, "nothing would go out");
    }
    writeln!(out, "{} {}", text(&request["method"]), text(&request["path"]))?;
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
    if words.is_empty() { "-".into() } else { words.join(" ") }
}

/// Seconds as one says them.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// What a replay has made: the event and its new deliveries.
pub(super) fn replayed(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    let list = each(&answer["deliveries"]).map(text).collect::<Vec<_>>().join(" ");
    writeln!(out, "{} {list}", text(&answer["event"]))
}

/// One event, as a page.
pub(super) fn page(out: &mut impl Write, event: &Value) -> io::Result<()> {
    let verification = &event["verification"];
    let proof = match verification["secret"].as_str() {
        Some(secret) => format!("{}, by the secret {}", text(&verification["strength"]), line(secret)),
        None => text(&verification["strength"]),
    };
    let proof = match event["resent_from"].as_str() {
        Some(from) => format!("{proof}, who made it of {}", line(from)),
        None => proof,
    };
    let filtered = event["filtered"].as_str().map_or_else(|| "no".to_owned(), |rule| format!("yes, by {}", line(rule)));
    for (label, value) in [
        ("event", text(&event["id"])),
        ("source", text(&event["source"])),
        ("type", with_backing(&event["event_type"], &event["backing"]["event_type"])),
        ("received", text(&event["received_at"])),
        ("request", text(&event["request_line"])),
        ("verified", proof),
        ("dedup key", with_backing(&event["dedup"], &event["backing"]["dedup"])),
        ("thread", text(&event["thread"])),
        ("filtered", filtered),
    ] {
        writeln!(out, "{label:<10} {value}")?;
    }

    if let Some(replays) = event["replays"].as_u64().filter(|replays| *replays > 0) {
        writeln!(out, "{:<10} {replays} times, last {}", "replayed", text(&event["replayed_at"]))?;
    }
    for note in each(&event["notes"]) {
        writeln!(out, "{:<10} {}", "note", text(note))?;
    }

    writeln!(out, "\nparams")?;
    none_where_empty(out, &event["params"])?;
    for param in each(&event["params"]) {
        let over: Vec<String> = each(&param["over"]).map(origin).collect();
        let over = if over.is_empty() { String::new() } else { format!(", over {}", over.join(", ")) };
        let backing = param["backing"].as_str().map_or_else(String::new, |backing| format!(" ({})", line(backing)));
        writeln!(out, "  {:<16} from {}{backing}{over}", text(&param["name"]), origin(&param["origin"]))?;
        writeln!(out, "    {}", text(&param["value"]))?;
    }

    for miss in each(&event["misses"]) {
        writeln!(out, "  {:<16} {} {}", text(&miss["of"]), text(&miss["path"]), text(&miss["why"]))?;
    }

    writeln!(out, "\ndeliveries")?;
    none_where_empty(out, &event["deliveries"])?;
    for each_of in each(&event["deliveries"]) {
        delivery(out, each_of)?;
    }

    writeln!(out, "\nheaders")?;
    none_where_empty(out, &event["headers"])?;
    for header in each(&event["headers"]) {
        writeln!(out, "  {}: {}", text(&header[0]), text(&header[1]))?;
    }

    let (kind, body) = match event["body"].as_str() {
        Some(body) => ("", body),
        None => (", as base64", event["body_base64"].as_str().unwrap_or_default()),
    };
    writeln!(out, "\nbody, {} bytes{kind}", text(&event["body_bytes"]))?;
    writeln!(out, "  {}", line(body))
}

fn delivery(out: &mut impl Write, delivery: &Value) -> io::Result<()> {
    writeln!(out, "  {}  {}  to {}", text(&delivery["id"]), text(&delivery["state"]), text(&delivery["destination"]))?;
    writeln!(out, "    upstream id  {}", text(&delivery["upstream_id"]))?;
    if delivery["due"].is_string() {
        writeln!(out, "    due          {}", text(&delivery["due"]))?;
    }
    if delivery["doubt"].is_string() {
        writeln!(out, "    in doubt     since {}: it may have run", text(&delivery["doubt"]))?;
    }
    let answer = &delivery["answer"];
    if answer.is_object() {
        writeln!(out, "    answer       {}: {}", text(&answer["status"]), text(&answer["result"]))?;
    }
    for attempt in each(&delivery["attempts"]) {
        let status = if attempt["status"].is_null() { String::new() } else { format!(" {}", text(&attempt["status"])) };
        let detail = attempt["detail"].as_str().filter(|detail| !detail.is_empty());
        let detail = detail.map(|detail| format!(": {}", line(detail))).unwrap_or_default();
        writeln!(
            out,
            "    attempt {:<4} {}  {}  {}{status}{detail}",
            text(&attempt["number"]),
            text(&attempt["started_at"]),
            took(attempt),
            text(&attempt["result"]),
        )?;
    }
    Ok(())
}

/// A value, and on whose word it stands.
fn with_backing(value: &Value, backing: &Value) -> String {
    match (value.is_null(), backing.as_str()) {
        (false, Some(backing)) => format!("{} ({})", text(value), line(backing)),
        _ => text(value),
    }
}

/// Where a value came from, in words.
fn origin(origin: &Value) -> String {
    match (origin["from"].as_str(), origin["path"].as_str()) {
        (Some("mapping"), Some(path)) => format!("the mapping of {}", line(path)),
        (Some("template"), _) => "the prompt template".into(),
        (Some("fixed"), _) => "the fixed value".into(),
        (Some("query"), _) => "the query".into(),
        (Some("body"), _) => "the body's own field".into(),
        (Some("default"), _) => "the configured default".into(),
        (Some("event"), _) => "the whole event".into(),
        _ => text(&origin["from"]),
    }
}

/// How long an attempt took, in seconds.
fn took(attempt: &Value) -> String {
    let time = |key: &str| attempt[key].as_str().and_then(Timestamp::parse);
    match (time("started_at"), time("ended_at")) {
        (Some(start), Some(end)) => format!("{:.3} s", end.since(start).as_secs_f64()),
        _ => "-".into(),
    }
}

fn none_where_empty(out: &mut impl Write, list: &Value) -> io::Result<()> {
    if each(list).next().is_none() { writeln!(out, "  none") } else { Ok(()) }
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
    let states: Vec<String> = each(&event["states"]).map(text).collect();
    if states.is_empty() { "-".into() } else { escaped(&states.join(","), SHORT) }
}

/// A time without its fraction.
fn short_time(value: &Value) -> String {
    let text = text(value);
    match (text.split_once('.'), text.ends_with('Z')) {
        (Some((seconds, _)), true) => format!("{seconds}Z"),
        _ => escaped(&text, SHORT),
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

/// Whether a terminal may do something else with it than show it: controls, line ends, invisible characters, and
/// those that turn the direction of writing.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Everything that a third party could have put into an event.
    const HOSTILE: &str = "\u{1b}[2J\u{9b}31m\r\nforged: line\u{202e}txt\u{2028}\u{7f}\0";

    fn printed(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).expect("memory takes it");
        String::from_utf8(out).expect("text")
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
            printed(|out| job(out, &json!({ "id": HOSTILE, "filter": { HOSTILE: HOSTILE } }))),
            printed(|out| {
                let left_out = json!([{ "source": HOSTILE, "why": HOSTILE }]);
                plan(out, &json!({ "filter": { "text": HOSTILE }, "oldest": { "id": HOSTILE }, "left_out": left_out }))
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
            assert!(!text.lines().any(|line| line.starts_with("forged")), "{text}");
        }
        assert_eq!(texts[1].lines().count(), 3);
        assert_eq!(serde_json::from_str::<Value>(&texts[2]).expect("JSON"), event, "escapes change nothing");
    }

    #[test]
    fn a_page_says_where_values_came_from_and_how_attempts_went() {
        let page = printed(|out| page(out, &hostile_event()));
        assert!(page.contains("prompt           from the mapping of issue.title, over the query"), "{page}");
        assert!(page.contains("verified   signed, by the secret literal 1"), "{page}");
        assert!(page.contains("1.500 s  completed 200: "), "{page}");
        assert!(page.contains("body, 5000 bytes") && page.ends_with("x…\n"), "{page}");
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
            "TIME                  ID     SOURCE  TYPE  STATE         THREAD\n\
             2026-11-25T00:19:40Z  evt_1  a       -     dead,pending  t\n\
             2026-11-25T00:19:40Z  evt_1  longer  -     filtered      t\n"
        );
        let mut dead = event("a", json!(["dead"]), Value::Null);
        dead["reason"] = json!({ "result": "refused", "status": 422, "detail": "no\n" });
        let text = printed(|out| table(out, &json!({ "items": [dead] })).map(|some| assert!(some)));
        assert!(text.contains("THREAD  REASON\n") && text.ends_with("t       refused 422: no\\n\n"), "{text}");
        assert!(!table(&mut Vec::new(), &json!({ "items": [] })).expect("memory takes it"));
    }

    #[test]
    fn answers_of_another_shape_print_without_a_panic() {
        for odd in [json!(null), json!([]), json!({ "items": [1, null, "x"], "params": 7, "headers": [[]] })] {
            printed(|out| page(out, &odd));
            printed(|out| table(out, &odd).map(|_| ()));
            printed(|out| replayed(out, &odd));
            printed(|out| plan(out, &odd));
            printed(|out| job(out, &odd));
            printed(|out| jobs(out, &odd).map(|_| ()));
            printed(|out| sources(out, &odd).map(|_| ()));
            printed(|out| destinations(out, &odd).map(|_| ()));
            printed(|out| dry_run(out, &odd));
        }
    }
}
