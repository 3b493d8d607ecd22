//! Placeholders for everything that differs between two runs of the same story: ids, times, ports, digests, sizes.

use std::collections::HashMap;

use regex::{Captures, Regex};

/// Replaces what differs between runs. Ids are numbered by their first appearance, so that a text keeps saying which of
/// them are the same.
pub(super) struct Mask {
    ids: HashMap<String, usize>,
    id: Regex,
    rules: Vec<(Regex, &'static str)>,
    folder: String,
}

impl Mask {
    /// Masks for a story whose files are in a folder.
    pub(super) fn new(folder: &str) -> Self {
        let rule = |pattern: &str, placeholder| {
            (
                Regex::new(pattern).expect("a regular expression"),
                placeholder,
            )
        };
        Self {
            ids: HashMap::new(),
            id: Regex::new("(evt_|dlv_|req_|att_|enrol=)?[0-9a-f]{32}")
                .expect("a regular expression"),
            rules: vec![
                rule(
                    r"\d{4}-\d\d-\d\dT\d\d(:|%3A)\d\d(:|%3A)\d\d(\.\d+)?Z",
                    "<time>",
                ),
                rule(
                    "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
                    "<uuid>",
                ),
                rule(r"\b(evt|dlv)_[0-9a-f]{6,31}\b", "${1}_<beginning>"),
                rule(r"req_[0-9a-f]{16}", "req_<id>"),
                rule(r"\b[0-9a-f]{24}\b", "<mark>"),
                rule(r"\b[0-9a-f]{10,}…", "<mark>…"),
                rule("/files/[0-9A-Za-z_-]{30,}/", "/files/<link>/"),
                // The reason is the machine's.
                rule(r#"dns error: [^"\\\n]*"#, "dns error"),
                rule(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
                rule(r"\b[0-9a-f]{64}\b", "<sha256>"),
                rule(r"\b[0-9a-f]{16}\b", "<digest>"),
                rule(r"\d+\.\d{3} s\b", "<seconds> s"),
                rule(r"\b\d+ (s|min|h|days) ago", "<span> ago"),
                rule(r#"("(bytes|reusable_bytes)":) ?\d{5,}"#, "$1 <bytes>"),
                rule(r"\b\d+ (KiB|MiB)(; inbox| of)", "<bytes>$2"),
                rule(r"\b[0-9a-zA-Z]{4,}«", "<mark>«"),
                rule(r"»[0-9a-zA-Z]{4,}\b", "»<mark>"),
                rule(r#""next_cursor": "[^"]+""#, r#""next_cursor": "<cursor>""#),
                rule(r"enrol=[0-9a-zA-Z_-]{20,}", "enrol=<word>"),
            ],
            folder: folder.to_owned(),
        }
    }

    /// A text with placeholders.
    pub(super) fn apply(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        if !self.folder.is_empty() {
            text = text.replace(&self.folder, "<folder>");
        }
        let ids = &mut self.ids;
        let mut text = self
            .id
            .replace_all(&text, |found: &Captures<'_>| {
                let kind = found.get(1).map_or("", |kind| kind.as_str());
                let next = ids.len() + 1;
                let number = ids.entry(found[0][kind.len()..].to_owned()).or_insert(next);
                format!("{kind}<{number}>")
            })
            .into_owned();
        for (rule, placeholder) in &self.rules {
            text = rule.replace_all(&text, *placeholder).into_owned();
        }
        text
    }
}

#[test]
fn ids_are_numbered_by_their_first_appearance_and_times_are_gone() {
    let mut mask = Mask::new("/tmp/x");
    let (a, b) = ("a".repeat(32), "b".repeat(32));
    assert_eq!(
        mask.apply(&format!(
            "evt_{a} dlv_{a}_0 evt_{b} in /tmp/x/y at 2026-12-01T04:06:06.123Z"
        )),
        "evt_<1> dlv_<1>_0 evt_<2> in <folder>/y at <time>"
    );
    assert_eq!(mask.apply(&format!("evt_{b}")), "evt_<2>");
}
