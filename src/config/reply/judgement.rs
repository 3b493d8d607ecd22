//! The parts of `[reply]` that judge an answer of the channel: `[reply.sent]` and `[[reply.verdict]]`.

use std::time::Duration;

use super::TextPair;
use crate::config::node::{Node, Value};
use crate::config::problem::{Located, Place};
use crate::config::section::Section;

/// The `[reply.sent]` table: rules that read an answer.
#[derive(Clone, Debug, Default)]
pub struct SentConfig {
    /// Paths of the body and patterns that fit a success; without any, a status of 200 to 299 is one.
    pub ok: Vec<TextPair>,
    /// Path to the id of the message.
    pub id: Option<Located<String>>,
    /// Path to the code of an error.
    pub code: Option<Located<String>>,
    /// Path to the text of an error.
    pub error: Option<Located<String>>,
    /// Place of the time to wait.
    pub wait: Option<WaitConfig>,
}

/// Place of the time to wait in a body.
#[derive(Clone, Debug)]
pub struct WaitConfig {
    /// Path to the number.
    pub at: Located<String>,
    /// Length of one unit of the number.
    pub unit: Duration,
}

/// A `[[reply.verdict]]` table.
#[derive(Clone, Debug)]
pub struct VerdictConfig {
    /// Place of the table.
    pub place: Place,
    /// Statuses, as numbers or as `5xx`.
    pub status: Vec<Located<String>>,
    /// Codes of errors, as patterns.
    pub code: Vec<Located<String>>,
    /// Texts of errors, as parts of them or as `/pattern/`.
    pub error: Vec<Located<String>>,
    /// Further paths of the body, and patterns.
    pub when: Vec<TextPair>,
    /// The verdict.
    pub then: VerdictThen,
}

/// Verdict on an answer, as written.
#[derive(Clone, Debug)]
pub enum VerdictThen {
    /// A word without more: `sent`, `retry`, `plain`, `smaller`, `next`, `dead`, `gone`, `alarm`, `doubt`, `wait`.
    Word(Located<String>),
    /// The same message without a value of the address.
    Without(Located<String>),
    /// The same message with values of the answer in the address: names and paths.
    With(Vec<TextPair>),
    /// A pause of the chat or of the token (`wait`), perhaps with its length.
    Wait(Located<String>, Option<Duration>),
}

impl SentConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let ok = match section.node("ok").map(|node| &node.value) {
            Some(Value::Text(_)) => {
                let path = section.text("ok");
                path.map(|path| {
                    let wanted = Located {
                        value: "true".to_owned(),
                        place: path.place.clone(),
                    };
                    vec![(path, wanted)]
                })
            }
            Some(_) => section.text_table("ok"),
            None => None,
        };
        let wait = section.section("wait").and_then(|wait| {
            let unit = wait.one_of(
                "unit",
                &[
                    ("s", Duration::from_secs(1)),
                    ("ms", Duration::from_millis(1)),
                ],
            );
            Some(WaitConfig {
                at: wait.required_text("at", "write the path to the number")?,
                unit: unit.map_or(Duration::from_secs(1), |unit| unit.value),
            })
        });
        Self {
            ok: ok.unwrap_or_default(),
            id: section.text("id"),
            code: section.text("code"),
            error: section.text("error"),
            wait,
        }
    }
}

impl VerdictConfig {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let status = numbers_or_texts(section, "status");
        let code = numbers_or_texts(section, "code");
        let error = section.texts("error").unwrap_or_default();
        let when = section.text_table("when").unwrap_or_default();
        if status.is_empty() && code.is_empty() && error.is_empty() && when.is_empty() {
            section.problems().error_hint(
                section.place(),
                format!("{} fits every answer", section.name()),
                "write status, code, error or when",
            );
        }
        Some(Self {
            place: section.place().clone(),
            status,
            code,
            error,
            when,
            then: then(section)?,
        })
    }
}

fn then(section: &Section<'_>) -> Option<VerdictThen> {
    match section.node("then").map(|node| &node.value) {
        Some(Value::Text(_)) => section.text("then").map(VerdictThen::Word),
        Some(_) => {
            let table = section.section("then")?;
            let pause = table.duration("pause").map(|pause| pause.value);
            let (without, wait) = (table.text("without"), table.text("wait"));
            let with = table.text_table("with");
            match (without, with, wait) {
                (Some(name), None, None) => Some(VerdictThen::Without(name)),
                (None, Some(values), None) => Some(VerdictThen::With(values)),
                (None, None, Some(scope)) => Some(VerdictThen::Wait(scope, pause)),
                _ => {
                    section.problems().error_hint(
                        table.place(),
                        format!("{} needs one of without, with and wait", table.name()),
                        "or write a word: then = \"dead\"",
                    );
                    None
                }
            }
        }
        None => {
            let what = format!("{} has no verdict", section.name());
            let hint = "write for example then = \"dead\"";
            section.problems().error_hint(section.place(), what, hint);
            None
        }
    }
}

/// A number, a text, or a list of both.
fn numbers_or_texts(section: &Section<'_>, key: &str) -> Vec<Located<String>> {
    let Some(node) = section.node(key) else {
        return Vec::new();
    };
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let text = |item: &Node| {
        let value = match &item.value {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            other => {
                let what = format!(
                    "{} must be numbers or texts, not {}",
                    section.path(key),
                    other.kind()
                );
                section.problems().error(&item.place, what);
                return None;
            }
        };
        Some(Located {
            value,
            place: item.place.clone(),
        })
    };
    items.iter().filter_map(text).collect()
}
