//! The channel of a provider for `provider show`: what it promises, how long a message may be, at what pace messages go.

use serde_json::{Value, json};

use crate::channel::{ChannelDoc, ChannelSpec};
use crate::config::{Problems, Provider};

/// Description of the channel; nothing for a provider without one, or with mistakes in it.
pub(super) fn described(provider: &Provider) -> Option<ChannelDoc> {
    let written = provider.reply.as_ref()?;
    // `check` reports mistakes with their places.
    ChannelSpec::compile(written, &Problems::default()).map(|spec| spec.doc())
}

/// Names and texts of its lines.
pub(super) fn lines(doc: &ChannelDoc) -> Vec<(&'static str, String)> {
    let way = |(target, promises): &(String, Vec<_>)| {
        let promises: Vec<String> = promises.iter().map(ToString::to_string).collect();
        let text = match promises.is_empty() {
            true => "an operator decides about a message in doubt".to_owned(),
            false => promises.join("; "),
        };
        ("answers by", format!("{target}: {text}"))
    };
    let mut lines: Vec<_> = doc.once.iter().map(way).collect();
    lines.extend(doc.facts.iter().cloned());
    if !doc.recall.is_empty() {
        let text = format!(
            "{}: known from memory, not looked up",
            doc.recall.join(", ")
        );
        lines.push(("not certain", text));
    }
    lines
}

/// The same as JSON.
pub(super) fn to_json(doc: &ChannelDoc) -> Value {
    let way = |(target, promises): &(String, Vec<_>)| {
        let promises: Vec<String> = promises.iter().map(ToString::to_string).collect();
        json!({ "target": target, "promises": promises })
    };
    json!({
        "ways": doc.once.iter().map(way).collect::<Vec<_>>(),
        "facts": doc.facts.iter().map(|(name, text)| json!({ "name": name, "text": text })).collect::<Vec<_>>(),
        "recall": doc.recall,
    })
}
