//! The body of a call, read by its content before its declared type.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{CallBody, CallRequest};
use crate::json::{self, JsonFault};
use crate::mapping::document::{self, FormFields};
use crate::model::{Refusal, TextNotes};
use crate::text::{self, fields};

/// A body after it was read.
pub(super) enum ReadBody<'a> {
    Empty,
    /// Named fields; the JSON text is there for paths, and as the message where no field is taken out of it.
    Fields(Map<String, Value>, Cow<'a, str>),
    /// A list, or a text that is no JSON.
    Text(Cow<'a, str>),
}

/// Reads the body. Its content decides about its kind, before its declared type.
pub(super) fn body<'a>(asked: &CallRequest<'a>) -> Result<(ReadBody<'a>, TextNotes), Refusal> {
    let bytes = match asked.body {
        CallBody::Parts(parts) => {
            let fields: FormFields<'_> = parts
                .iter()
                .map(|(key, value)| (Cow::Borrowed(key.as_str()), Cow::Borrowed(value.as_str())))
                .collect();
            return Ok((made(&fields), TextNotes::default()));
        }
        CallBody::Whole(bytes) => bytes,
    };
    if bytes.trim_ascii().is_empty() {
        return Ok((ReadBody::Empty, TextNotes::default()));
    }
    let essence = asked
        .content_type
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase();
    let is_json =
        matches!(essence.as_str(), "application/json" | "text/json") || essence.ends_with("+json");
    let declared = text::declared(asked.content_type);
    let read = text::json(bytes, declared.as_deref());
    if is_json || read.text.trim_ascii_start().starts_with(['{', '[']) {
        // The caller gets this answer at once, and can mend the request.
        if read.notes.replaced {
            let whole = std::str::from_utf8(bytes)
                .err()
                .map_or(0, |error| error.valid_up_to());
            return Err(Refusal::Malformed(format!(
                "the body is not UTF-8 from byte {whole} on"
            )));
        }
        let json = text::mended(read.text);
        match json::tree(&json) {
            Ok(Value::Object(fields)) => return Ok((ReadBody::Fields(fields, json), read.notes)),
            Ok(_) => return Ok((ReadBody::Text(json), read.notes)),
            Err(JsonFault::Syntax(_)) if !is_json => {}
            Err(fault) => return Err(document::refusal(fault)),
        }
    }
    if essence == "application/x-www-form-urlencoded" {
        let raw = fields::split(bytes).map_err(|error| document::too_many("form", error))?;
        let (fields, notes) = fields::form(raw, declared.as_deref());
        return Ok((made(&fields), notes));
    }
    let read = text::plain(bytes, declared.as_deref());
    if read.notes.replaced {
        return Err(Refusal::Unsupported(
            "the body is neither JSON nor a form nor UTF-8 text".into(),
        ));
    }
    Ok((ReadBody::Text(read.text), read.notes))
}

/// Fields of a form as JSON.
fn made<'a>(fields: &FormFields<'_>) -> ReadBody<'a> {
    match document::object(fields) {
        Value::Object(map) if !map.is_empty() => {
            let text = Value::from(map.clone()).to_string();
            ReadBody::Fields(map, Cow::Owned(text))
        }
        _ => ReadBody::Empty,
    }
}
