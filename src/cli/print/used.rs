//! Keys and secrets: how they were used.

use std::io;

use serde_json::Value;

use super::super::sheet::{Paper, Style, Tone};
use super::{TableCell, each, list, text};

const KEYS: [&str; 6] = [
    "NAME",
    "LAST USED",
    "REQUESTS",
    "RUNS TODAY",
    "EXPIRES",
    "GOOD FOR",
];

/// The gateway's own keys. False when the list is empty.
pub(in crate::cli) fn keys(out: &mut impl Paper, page: &Value) -> io::Result<bool> {
    let look = *out.look();
    list(out, page, &KEYS, move |key| {
        let runs = match (key["runs_today"].as_u64(), key["runs_per_day"].as_u64()) {
            (Some(runs), Some(most)) => format!("{runs} of {most}"),
            _ => "-".into(),
        };
        let some = |what: &str| each(&key[what]).map(text).collect::<Vec<_>>().join(", ");
        let good: Vec<String> = ["agents", "paths"]
            .into_iter()
            .map(some)
            .filter(|part| !part.is_empty())
            .collect();
        let good = if good.is_empty() {
            "everything".to_owned()
        } else {
            good.join("; ")
        };
        vec![
            text(&key["name"]).into(),
            used(&key["used"], &look),
            key["used"]["count"]
                .as_u64()
                .map_or_else(|| "0".to_owned(), |count| count.to_string())
                .into(),
            runs.into(),
            ends(&key["expires"], key["expired"] == true, &look),
            good.into(),
        ]
    })
}

const SECRETS: [&str; 6] = [
    "SECRET",
    "LAST USED",
    "REQUESTS",
    "FIRST USED",
    "ENDS",
    "SINCE",
];

/// The secrets of a source. False when the list is empty.
pub(in crate::cli) fn secrets(out: &mut impl Paper, page: &Value) -> io::Result<bool> {
    let look = *out.look();
    list(out, page, &SECRETS, move |secret| {
        let first = match secret["used"].is_object() {
            true => look.time(&secret["used"]["first"]),
            false => "-".into(),
        };
        vec![
            text(&secret["name"]).into(),
            used(&secret["used"], &look),
            secret["used"]["count"]
                .as_u64()
                .map_or_else(|| "0".to_owned(), |count| count.to_string())
                .into(),
            first.into(),
            ends(&secret["until"], secret["ended"] == true, &look),
            look.time(&secret["counted_since"]).into(),
        ]
    })
}

fn used(used: &Value, look: &Style) -> TableCell {
    if used.is_object() {
        look.time(&used["last"]).into()
    } else {
        TableCell::new("never".into(), Tone::Busy)
    }
}

fn ends(at: &Value, is_over: bool, look: &Style) -> TableCell {
    match (at.is_string(), is_over) {
        (false, _) => "-".to_owned().into(),
        (true, true) => TableCell::new(format!("ended {}", look.time(at)), Tone::Bad),
        (true, false) => look.time(at).into(),
    }
}
