//! A piece of a document as text: strings as they are, numbers by their digits, nothing for null and "".

use std::borrow::Cow;

use crate::json;
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
        Some(b'"') => match json::string(raw) {
            Some(text) if !text.is_empty() => Text::One(text),
            _ => Text::Absent,
        },
        Some(b'{' | b'[') => Text::Many,
        Some(b'n') | None => Text::Absent,
        Some(_) => Text::One(Cow::Borrowed(raw)),
    }
}

/// True if a piece is neither null nor an empty text.
pub(super) fn says_something(raw: &str) -> bool {
    !matches!(raw, "null" | "\"\"")
}

/// A list or an object on one line without blanks; key order and the spelling of numbers stay.
pub(super) fn compact(raw: &str) -> Result<String, Refusal> {
    let tree = json::tree(raw).map_err(|_| Refusal::Malformed("the body is not JSON".into()))?;
    Ok(tree.to_string())
}

/// The first bytes of a text, at most so many, up to the end of a character.
pub(super) fn head(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    &text[..end]
}

/// A text with U+FFFD for each NUL: text columns and terminals end at one.
pub(super) fn cleared(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}

/// Refuses a NUL in what names something.
pub(super) fn without_nul(text: String, what: &str) -> Result<String, Refusal> {
    if text.contains('\0') {
        return Err(Refusal::Malformed(format!(
            "{what} has a NUL character in it"
        )));
    }
    Ok(text)
}
