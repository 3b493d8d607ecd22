//! One event, as a page.

use std::io;

use serde_json::Value;

use super::super::sheet::{Paper, Tone, wrap};
use super::{each, field, labelled, line, none_where_empty, paragraph, text, waits};
use crate::model::Timestamp;

/// Everything that is known of it.
pub(in crate::cli) fn page(out: &mut impl Paper, event: &Value) -> io::Result<()> {
    let verification = &event["verification"];
    let proof = match verification["secret"].as_str() {
        Some(secret) => format!(
            "{}, by the secret {}",
            text(&verification["strength"]),
            line(secret)
        ),
        None => text(&verification["strength"]),
    };
    let proof = match event["resent_from"].as_str() {
        Some(from) => format!("{proof}, who made it of {}", line(from)),
        None => proof,
    };
    let filtered = event["filtered"]
        .as_str()
        .map_or_else(|| "no".to_owned(), |rule| format!("yes, by {}", line(rule)));
    let look = *out.look();
    for (label, value) in [
        ("event", text(&event["id"])),
        ("source", text(&event["source"])),
        (
            "type",
            with_backing(&event["event_type"], &event["backing"]["event_type"]),
        ),
        ("received", look.whole_time(&event["received_at"])),
        ("request", text(&event["request_line"])),
        ("verified", proof),
        (
            "dedup key",
            with_backing(&event["dedup"], &event["backing"]["dedup"]),
        ),
        ("thread", text(&event["thread"])),
        ("filtered", filtered),
    ] {
        field(out, label, &value)?;
    }
    if let Some(why) = unmappable(event) {
        let todo = "; mend the mapping of its source, reload, then: sluicegate event replay ";
        field(
            out,
            "unmappable",
            &format!("{}{todo}{}", text(why), text(&event["id"])),
        )?;
    }
    if event["waits_for"].is_object() {
        field(out, "waits for", &waits(&event["waits_for"], &look))?;
    }

    if let Some(replays) = event["replays"].as_u64().filter(|replays| *replays > 0) {
        let last = look.whole_time(&event["replayed_at"]);
        field(out, "replayed", &format!("{replays} times, last {last}"))?;
    }

    for note in each(&event["notes"]) {
        field(out, "note", &text(note))?;
    }

    params(out, event)?;
    writeln!(out, "\ndeliveries")?;
    none_where_empty(out, &event["deliveries"])?;
    for each_of in each(&event["deliveries"]) {
        delivery(out, each_of)?;
    }
    request(out, event)
}

/// Prints the parameters of an event, and the paths that found nothing.
fn params(out: &mut impl Paper, event: &Value) -> io::Result<()> {
    writeln!(out, "\nparams")?;
    none_where_empty(out, &event["params"])?;
    for param in each(&event["params"]) {
        let over: Vec<String> = each(&param["over"]).map(origin).collect();
        let over = if over.is_empty() {
            String::new()
        } else {
            format!(", over {}", over.join(", "))
        };
        let backing = param["backing"]
            .as_str()
            .map_or_else(String::new, |backing| format!(" ({})", line(backing)));
        labelled(
            out,
            2,
            16,
            &text(&param["name"]),
            &format!("from {}{backing}{over}", origin(&param["origin"])),
        )?;
        block(out, 4, &text(&param["value"]))?;
    }

    for miss in each(&event["misses"]) {
        labelled(
            out,
            2,
            16,
            &text(&miss["of"]),
            &format!("{} {}", text(&miss["path"]), text(&miss["why"])),
        )?;
    }
    Ok(())
}

/// Prints the headers and the body of an event's request.
fn request(out: &mut impl Paper, event: &Value) -> io::Result<()> {
    writeln!(out, "\nheaders")?;
    none_where_empty(out, &event["headers"])?;
    for header in each(&event["headers"]) {
        paragraph(
            out,
            2,
            &format!("{}: {}", text(&header[0]), text(&header[1])),
        )?;
    }

    let (kind, body) = match event["body"].as_str() {
        Some(body) => ("", body),
        None => (
            ", as base64",
            event["body_base64"].as_str().unwrap_or_default(),
        ),
    };
    writeln!(out, "\nbody, {} bytes{kind}", text(&event["body_bytes"]))?;
    block(out, 2, &line(body))
}

/// The reason why an event could not be mapped, if it could not.
fn unmappable(event: &Value) -> Option<&Value> {
    let last = event["deliveries"].as_array()?.last()?;
    (last["state"] == "unmappable").then_some(&last["attempts"][0]["detail"])
}

/// A text of others, set in, every line of it by as much.
fn block(out: &mut impl Paper, indent: usize, text: &str) -> io::Result<()> {
    let width = out.look().width.saturating_sub(indent);
    for part in wrap(text, width, width) {
        writeln!(out, "{:indent$}{part}", "")?;
    }
    Ok(())
}

fn delivery(out: &mut impl Paper, delivery: &Value) -> io::Result<()> {
    let look = *out.look();
    let state = delivery["state"].as_str().unwrap_or_default();
    let word = if state == "leased" {
        "running".to_owned()
    } else {
        text(&delivery["state"])
    };
    writeln!(
        out,
        "  {}  {}",
        text(&delivery["id"]),
        look.paint(&word, Tone::of_state(state))
    )?;
    let mut said = |label: &str, value: &str| labelled(out, 4, 12, label, value);
    said("to", &text(&delivery["destination"]))?;
    if delivery["account"]
        .as_str()
        .is_some_and(|account| account != "operator")
    {
        said("account", &text(&delivery["account"]))?;
    }
    said("class", &text(&delivery["class"]))?;
    said("upstream id", &text(&delivery["upstream_id"]))?;
    if delivery["due"].is_string() {
        said("due", &look.whole_time(&delivery["due"]))?;
    }
    if delivery["waits_for"].is_object() {
        said("waits for", &waits(&delivery["waits_for"], &look))?;
    }
    if delivery["doubt"].is_string() {
        said(
            "in doubt",
            &format!("since {}: it may have run", text(&delivery["doubt"])),
        )?;
    }
    let answer = &delivery["answer"];
    if answer.is_object() {
        said(
            "answer",
            &format!("{}: {}", text(&answer["status"]), text(&answer["result"])),
        )?;
    }
    for attempt in each(&delivery["attempts"]) {
        let status = if attempt["status"].is_null() {
            String::new()
        } else {
            format!(" {}", text(&attempt["status"]))
        };
        let detail = attempt["detail"]
            .as_str()
            .filter(|detail| !detail.is_empty());
        let detail = detail
            .map(|detail| format!(": {}", line(detail)))
            .unwrap_or_default();
        let (began, result) = (look.time(&attempt["started_at"]), text(&attempt["result"]));
        said(
            &format!("attempt {}", text(&attempt["number"])),
            &format!("{began}, {}, {result}{status}{detail}", took(attempt)),
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

/// The origin of a value, in words.
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

/// The time that an attempt took, in seconds.
fn took(attempt: &Value) -> String {
    let time = |key: &str| attempt[key].as_str().and_then(Timestamp::parse);
    match (time("started_at"), time("ended_at")) {
        (Some(start), Some(end)) => format!("{:.3} s", end.since(start).as_secs_f64()),
        _ => "-".into(),
    }
}
