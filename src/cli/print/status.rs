//! Prints the state of a gateway, and what it refused.

use std::io;

use serde_json::Value;

use super::super::sheet::{Paper, Style, Tone};
use super::{TableCell, banner, each, field, list, paragraph, rows, text};

/// Prints the state of a gateway and what is wrong with it. True if nothing is.
pub(in crate::cli) fn status(out: &mut impl Paper, status: &Value) -> io::Result<bool> {
    let look = *out.look();
    let well = status["well"] == true;
    let count = each(&status["attention"]).count();
    let (verdict, tone) = match (well, count) {
        (true, _) => ("all is well".to_owned(), Tone::Good),
        (false, 1) => ("1 thing needs attention".to_owned(), Tone::Bad),
        (false, _) => (format!("{count} things need attention"), Tone::Bad),
    };
    writeln!(out, "{}", look.paint(&verdict, tone))?;
    for item in each(&status["attention"]) {
        let mut sentence = text(&item["text"]);
        if item["since"].is_string() {
            sentence.push_str(&format!(", since {}", look.time(&item["since"])));
        }
        if item["until"].is_string() {
            let word = if item["code"] == "key_refused" {
                "next try"
            } else {
                "until"
            };
            sentence.push_str(&format!(", {word} {}", look.time(&item["until"])));
        }
        paragraph(out, 0, &format!("- {sentence}"))?;
        paragraph(out, 4, &format!("do: {}", text(&item["todo"])))?;
    }
    writeln!(out)?;
    facts(out, status, &look)?;
    Ok(well)
}

/// A configuration that holds since a moment ago.
pub(in crate::cli) fn reloaded(out: &mut impl Paper, answer: &Value) -> io::Result<()> {
    let configuration = &answer["configuration"];
    let (generation, digest) = (
        text(&configuration["generation"]),
        text(&configuration["digest"]),
    );
    paragraph(
        out,
        0,
        &format!("reloaded: generation {generation} holds, digest {digest}"),
    )?;
    for setting in each(&configuration["restart_for"]) {
        let sentence = format!(
            "- {} has changed; it needs a restart to take effect",
            text(setting)
        );
        paragraph(out, 0, &sentence)?;
    }
    Ok(())
}

fn facts(out: &mut impl Paper, status: &Value, look: &Style) -> io::Result<()> {
    let (waiting, open) = (&status["waiting"], &status["open"]);
    let configuration = &status["configuration"];
    let oldest = match waiting["oldest_at"].as_str() {
        Some(_) => {
            format!(
                "; the oldest came {} by {}",
                look.time(&waiting["oldest_at"]),
                text(&waiting["oldest_source"])
            )
        }
        None => String::new(),
    };
    let last = &status["last_event"];
    let last = match last["at"].as_str() {
        Some(_) => format!("{}, by {}", look.time(&last["at"]), text(&last["source"])),
        None => "none yet".to_owned(),
    };
    for (label, value) in [
        (
            "gateway",
            format!(
                "{}, started {}",
                text(&status["version"]),
                look.time(&status["started_at"])
            ),
        ),
        (
            "settings",
            format!(
                "generation {}, digest {}, loaded {}; {} sources",
                text(&configuration["generation"]),
                text(&configuration["digest"]),
                look.time(&configuration["loaded_at"]),
                text(&status["sources"])
            ),
        ),
        (
            "processes",
            format!(
                "{}; this one does {}",
                text(&status["replicas"]),
                text(&status["roles"])
            ),
        ),
        (
            "waiting",
            format!(
                "{} waiting, {} running{oldest}",
                text(&waiting["pending"]),
                text(&waiting["running"])
            ),
        ),
        (
            "open",
            format!(
                "{} dead, {} unknown, {} unmappable",
                text(&open["dead"]),
                text(&open["unknown"]),
                text(&open["unmappable"])
            ),
        ),
        ("last event", last),
        ("runs today", runs_today(&status["budgets"])),
        ("disk", used_of(&status["disk"])),
    ] {
        field(out, label, &value)?;
    }
    Ok(())
}

/// The disk that the inbox uses, and its ceiling.
fn used_of(disk: &Value) -> String {
    let used = disk["bytes"]
        .as_u64()
        .unwrap_or(0)
        .saturating_sub(disk["reusable_bytes"].as_u64().unwrap_or(0));
    match disk["ceiling_bytes"].as_u64() {
        Some(ceiling) => format!("{} of {}", size(used), size(ceiling)),
        None => format!("{}; inbox.max_disk sets no ceiling", size(used)),
    }
}

/// The runs of today, by budget.
fn runs_today(budgets: &Value) -> String {
    let most = |budget: &Value| {
        budget["most"]
            .as_u64()
            .map_or_else(String::new, |most| format!(" of {most}"))
    };
    let told: Vec<String> = each(budgets)
        .map(|budget| {
            format!(
                "{} {}{}",
                text(&budget["budget"]),
                text(&budget["runs"]),
                most(budget)
            )
        })
        .collect();
    if told.is_empty() {
        "not counted: no budget".into()
    } else {
        told.join(", ")
    }
}

/// Bytes as one says them.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// The words for what is told of a refused request.
const REFUSED: [&str; 7] = ["CAME", "ID", "SOURCE", "CODE", "REQUEST", "FROM", "WHY"];

/// Refused requests as a list, newest first. False when the list is empty.
pub(in crate::cli) fn refused(
    out: &mut impl Paper,
    page: &Value,
    with_head: bool,
) -> io::Result<bool> {
    let look = *out.look();
    if with_head {
        banner(out, page)?;
        return list(out, page, &REFUSED, move |refused| row(refused, &look));
    }
    let all: Vec<Vec<TableCell>> = each(&page["items"])
        .map(|refused| row(refused, &look))
        .collect();
    let some = !all.is_empty();
    rows(out, None, &REFUSED, all)?;
    Ok(some)
}

fn row(refused: &Value, look: &Style) -> Vec<TableCell> {
    let whole = if refused["whole"] == true {
        " (kept whole)"
    } else {
        ""
    };
    vec![
        look.time(&refused["at"]).into(),
        text(&refused["request_id"]).into(),
        text(&refused["source"]).into(),
        TableCell::new(text(&refused["code"]), Tone::Bad),
        format!(
            "{} {}, {} bytes",
            text(&refused["method"]),
            text(&refused["path"]),
            text(&refused["body_bytes"])
        )
        .into(),
        text(&refused["peer"]).into(),
        format!("{}{whole}", text(&refused["cause"])).into(),
    ]
}

/// One refused request, whole where it is kept so.
pub(in crate::cli) fn refused_page(out: &mut impl Paper, page: &Value) -> io::Result<()> {
    let look = *out.look();
    let headers: Vec<String> = each(&page["headers"]).map(text).collect();
    for (label, value) in [
        ("request", text(&page["request_id"])),
        ("came", look.whole_time(&page["at"])),
        ("source", text(&page["source"])),
        (
            "line",
            format!("{} {}", text(&page["method"]), text(&page["path"])),
        ),
        ("from", text(&page["peer"])),
        (
            "answered",
            format!("{} ({})", text(&page["code"]), text(&page["reason"])),
        ),
        ("why", text(&page["cause"])),
    ] {
        field(out, label, &value)?;
    }
    let request = &page["request"];
    if !request.is_object() {
        field(out, "headers", &headers.join(", "))?;
        let sentence = "The request itself is not kept. admin.keep_refused = 20 keeps the last ones whole, in memory.";
        return paragraph(out, 0, sentence);
    }
    writeln!(out, "\nheaders")?;
    for header in each(&request["headers"]) {
        paragraph(
            out,
            2,
            &format!("{}: {}", text(&header[0]), text(&header[1])),
        )?;
    }
    let (kind, body) = match request["body"].as_str() {
        Some(_) => ("", text(&request["body"])),
        None => (", as base64", text(&request["body_base64"])),
    };
    writeln!(out, "\nbody, {} bytes{kind}", text(&page["body_bytes"]))?;
    paragraph(out, 2, &body)?;
    let id = text(&page["request_id"]);
    writeln!(out)?;
    paragraph(
        out,
        0,
        &format!("Explain it with: sluicegate verify explain --refused {id}"),
    )
}
