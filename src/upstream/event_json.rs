//! An event as text for an agent: compact JSON where it is JSON or a form, else its text, cut to a bound.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use crate::json::{compact, shorten};
use crate::text::{self, fields, multipart};

/// The longest text of an event that goes into a call, in bytes.
pub(super) const MAX_EVENT_TEXT: usize = 256 * 1024;

/// The JSON of an event, compact, with its keys in order and the digits of its numbers as they came. JSON that is longer
/// than [`MAX_EVENT_TEXT`] is shortened so that it is still JSON and says what was left out. A form becomes an object of
/// texts, or the JSON object in its `payload` field. Any other text stays as it is, cut with a mark.
pub(super) fn event_text(body: &Bytes, headers: &[(String, String)]) -> String {
    let kind = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let kind = kind.map_or("", |(_, value)| value.as_str());
    match json_of(body, kind) {
        Some(json) => shorten(&json, MAX_EVENT_TEXT),
        None => cut(text::plain(body, text::declared(kind).as_deref())
            .text
            .into_owned()),
    }
}

/// A body as JSON, if it is JSON or a form.
fn json_of(body: &[u8], kind: &str) -> Option<String> {
    // The content is tried before the type: JSON is often sent under the type of a form, or without a type.
    let declared = text::declared(kind);
    if let Some(json) = compact(&text::mended(text::json(body, declared.as_deref()).text)) {
        return Some(json);
    }
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let fields = match essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        true => fields::form(fields::split(body).ok()?, declared.as_deref()).0,
        false if multipart::is_form(kind) => {
            let form = fields::in_parts(kind, body).ok()?.fields.into_iter();
            form.map(|(name, value)| (Cow::Owned(name), Cow::Owned(value)))
                .collect()
        }
        false => return None,
    };
    let pairs = || fields.iter().map(|(name, value)| (&**name, &**value));
    let payload =
        fields::payload(pairs()).and_then(|payload| compact(&text::mended(payload.into())));
    Some(payload.unwrap_or_else(|| Value::from(fields::object(pairs())).to_string()))
}

/// A text cut to [`MAX_EVENT_TEXT`], with a mark that tells how much was left out.
fn cut(mut text: String) -> String {
    if text.len() > MAX_EVENT_TEXT {
        let mut end = MAX_EVENT_TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let left_out = text.len() - end;
        text.truncate(end);
        text.push_str(&format!("…[{left_out} bytes left out]"));
    }
    text
}
