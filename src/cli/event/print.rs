//! Answers of the admin API on a terminal. What third parties sent is on one line, cut, and free of anything that
//! moves a cursor, changes a colour or turns the direction of writing.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::Value;

use crate::model::Timestamp;

/// The longest value on a page, in characters.
const LONG: usize = 1024;

/// The longest value in a column.
const SHORT: usize = 40;

/// The longest list on a page; beyond it `--json` has everything.
const MANY: usize = 200;

/// A text on one line.
pub(in crate::cli) fn line(text: &str) -> String {
    escaped(text, LONG)
}

/// The API's answer as it is. Characters that a terminal would act on are written as JSON escapes, which mean the
/// same: outside of texts JSON has none of them.
pub(in crate::cli) fn json(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    let mut text = String::new();
    for c in answer.to_string().chars() {
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
    writeln!(out, "{text}")
}

/// Events as an aligned table. False when there are none.
pub(super) fn table(out: &mut impl Write, page: &Value) -> io::Result<bool> {
    let Some(items) = page["items"].as_array().filter(|items| !items.is_empty()) else { return Ok(false) };
    let mut rows = vec![["TIME", "ID", "SOURCE", "TYPE", "STATE", "THREAD"].map(str::to_owned)];
    rows.extend(items.iter().map(|event| {
        let column = |key: &str| column(&event[key]);
        [
            short_time(&event["received_at"]),
            column("id"),
            column("source"),
            column("event_type"),
            states(event),
            column("thread"),
        ]
    }));
    aligned(out, &rows)?;
    Ok(true)
}

/// Rows whose columns stand under each other.
pub(in crate::cli) fn aligned<const N: usize>(out: &mut impl Write, rows: &[[String; N]]) -> io::Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.into_iter().zip(row) {
            let _ = write!(line, "{cell:width$}  ");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A text in a column; a dash where there is none.
pub(in crate::cli) fn column(text: &Value) -> String {
    escaped(text.as_str().filter(|text| !text.is_empty()).unwrap_or("-"), SHORT)
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
    let filtered = event["filtered"].as_str().map_or_else(|| "no".to_owned(), |rule| format!("yes, by {}", line(rule)));
    for (label, value) in [
        ("event", text(&event["id"])),
        ("source", text(&event["source"])),
        ("type", text(&event["event_type"])),
        ("received", text(&event["received_at"])),
        ("request", text(&event["request_line"])),
        ("verified", proof),
        ("dedup key", text(&event["dedup"])),
        ("thread", text(&event["thread"])),
        ("filtered", filtered),
    ] {
        writeln!(out, "{label:<10} {value}")?;
    }

    writeln!(out, "\nparams")?;
    none_where_empty(out, &event["params"])?;
    for param in each(&event["params"]) {
        let over: Vec<String> = each(&param["over"]).map(origin).collect();
        let over = if over.is_empty() { String::new() } else { format!(", over {}", over.join(", ")) };
        writeln!(out, "  {:<16} from {}{over}", text(&param["name"]), origin(&param["origin"]))?;
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

/// Where a value came from, in words.
fn origin(origin: &Value) -> String {
    match (origin["from"].as_str(), origin["path"].as_str()) {
        (Some("mapping"), Some(path)) => format!("the mapping of {}", line(path)),
        (Some("template"), _) => "the prompt template".into(),
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
        assert!(!table(&mut Vec::new(), &json!({ "items": [] })).expect("memory takes it"));
    }

    #[test]
    fn answers_of_another_shape_print_without_a_panic() {
        for odd in [json!(null), json!([]), json!({ "items": [1, null, "x"], "params": 7, "headers": [[]] })] {
            printed(|out| page(out, &odd));
            printed(|out| table(out, &odd).map(|_| ()));
            printed(|out| replayed(out, &odd));
        }
    }
}
