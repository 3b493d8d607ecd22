//! Settings of the operator for every run of a source.

use std::time::Duration;

use crate::config::node::{Node, Value};
use crate::config::section::Section;

/// Settings of the operator for every run of a source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunFields {
    /// `?version=`
    pub version: Option<String>,
    /// Fields of the body, by their upstream names, in the order of the upstream's documentation.
    pub fields: Vec<(&'static str, serde_json::Value)>,
    /// Time limit for one blocking call.
    pub timeout: Option<Duration>,
}

impl RunFields {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let mut fields = Vec::new();
        for key in ["title", "instructions_override", "expected_output"] {
            if let Some(text) = section.text(key) {
                fields.push((key, text.value.into()));
            }
        }
        let words = |key: &'static str, words: &[(&str, &'static str)], fields: &mut Vec<_>| {
            if let Some(word) = section.one_of(key, words) {
                fields.push((key, serde_json::Value::from(word.value)));
            }
        };
        words(
            "output_format",
            &[
                ("text", "text"),
                ("markdown", "markdown"),
                ("json", "json"),
                ("voice", "voice"),
            ],
            &mut fields,
        );
        if let Some(node) = section.node("output_schema") {
            match json(node) {
                Some(schema @ serde_json::Value::Object(_)) => {
                    fields.push(("output_schema", schema))
                }
                _ => section.problems().error_hint(
                    &node.place,
                    "output_schema must be a table or a text that holds a JSON object",
                    "it is a JSON Schema, for example { type = \"object\" }",
                ),
            }
        }
        words(
            "think_mode",
            &[("default", "default"), ("harder", "harder")],
            &mut fields,
        );
        if let Some(yes) = section.bool("disable_attachment_injection") {
            fields.push(("disable_attachment_injection", yes.value.into()));
        }
        for key in ["llm_model_provider", "llm_model_name"] {
            if let Some(text) = section.text(key) {
                fields.push((key, text.value.into()));
            }
        }
        words(
            "llm_reasoning_effort",
            &[
                ("low", "low"),
                ("medium", "medium"),
                ("high", "high"),
                ("xhigh", "xhigh"),
            ],
            &mut fields,
        );
        Self {
            version: section.text("version").map(|v| v.value),
            fields,
            timeout: section.duration("run_timeout").map(|d| d.value),
        }
    }
}

/// A TOML value as JSON; a text is read as JSON where it is an object.
fn json(node: &Node) -> Option<serde_json::Value> {
    Some(match &node.value {
        Value::Text(text) => serde_json::from_str(text).unwrap_or_else(|_| text.clone().into()),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => serde_json::Number::from_f64(*number)?.into(),
        Value::Bool(yes) => (*yes).into(),
        Value::Time(text) => text.clone().into(),
        Value::List(items) => items.iter().map(json).collect::<Option<Vec<_>>>()?.into(),
        Value::Table(table) => table
            .entries
            .iter()
            .map(|(key, _, node)| Some((key.clone(), json(node)?)))
            .collect::<Option<serde_json::Map<_, _>>>()?
            .into(),
    })
}
