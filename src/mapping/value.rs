//! A piece of a document as text: strings as they are, numbers by their digits, nothing for null and "".

use std::borrow::Cow;

use serde_json::Value;

use super::scan;
use crate::model::Refusal;

/// A piece of a document.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Text<'a> {
    /// Null, or a text of no length.
    Absent,
    /// A text, a number, true or false.
    One(Cow<'a, str>),
    /// A list or an object.
    Many,
}

/// Reads a piece of JSON that the scan has passed.
pub(super) fn text(raw: &str) -> Text<'_> {
    match raw.as_bytes().first() {
        Some(b'"') => match scan::string(raw) {
            Some(text) if !text.is_empty() => Text::One(text),
            _ => Text::Absent,
        },
        Some(b'{' | b'[') => Text::Many,
        Some(b'n') | None => Text::Absent,
        Some(_) => Text::One(Cow::Borrowed(raw)),
    }
}

/// Whether a piece says anything.
pub(super) fn says_something(raw: &str) -> bool {
    !matches!(raw, "null" | "\"\"")
}

/// A list or an object on one line without blanks; key order and the spelling of numbers stay.
pub(super) fn compact(raw: &str) -> Result<String, Refusal> {
    let tree = scan::tree(raw).map_err(|_| Refusal::Malformed("the body is not JSON".into()))?;
    if has_nul(&tree) {
        return Err(nul("a value"));
    }
    Ok(tree.to_string())
}

/// The first bytes of a text, at most so many, up to the end of a character.
pub(super) fn head(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// Refuses a NUL: text columns and terminals end there.
pub(super) fn without_nul<T: AsRef<str>>(text: T, what: &str) -> Result<T, Refusal> {
    if text.as_ref().contains('\0') { Err(nul(what)) } else { Ok(text) }
}

fn nul(what: &str) -> Refusal {
    Refusal::Malformed(format!("{what} has a NUL character in it"))
}
