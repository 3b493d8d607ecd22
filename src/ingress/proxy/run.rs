//! The body of a call that begins a run, for callers whose conversations are theirs alone.
//!
//! Promises: the run has a name that says whose it is ([`UpstreamIds`]), so the caller may read it afterwards,
//! and no caller gets into a conversation of others by its name. Nothing else of the body is touched. A body in which
//! somebody may read another name than is read here is refused.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::{Refusal, UpstreamIds};

/// The body with the run's name in it. A body that is empty has none, and begins nothing.
pub(super) fn named(ids: &UpstreamIds, key: &str, body: Bytes) -> Result<Bytes, Refusal> {
    if body.is_empty() {
        return Ok(body);
    }
    let odd = |what: &str| Refusal::Malformed(format!("the body {what}"));
    let text = std::str::from_utf8(&body).map_err(|_| odd("is no UTF-8"))?;
    let pairs: Pairs<'_> = serde_json::from_str(text).map_err(|_| odd("is no JSON object"))?;
    // A run below another one sees what that one has seen.
    if let Some(parent) = pairs.only("parent_execution_id").map_err(odd)?
        && let Some(parent) = said(parent)?
        && !ids.owns(key, &parent)
    {
        return Err(Refusal::KeyRefused(format!(
            "key {key} began no run that is called so in parent_execution_id"
        )));
    }
    let (from, to, name) = match pairs.only("id").map_err(odd)? {
        None => {
            let start = text.find('{').map_or(0, |at| at + 1);
            let comma = if pairs.0.is_empty() { "" } else { "," };
            (
                start,
                start,
                format!("\"id\":\"{}\"{comma}", ids.new_of_key(key)),
            )
        }
        Some(raw) => {
            let id = said(raw)?.filter(|id| !id.is_empty());
            if id.as_deref().is_some_and(|id| ids.owns(key, id)) {
                return Ok(body);
            }
            let name = id.map_or_else(|| ids.new_of_key(key), |id| ids.of_key(key, &id));
            let start = raw.get().as_ptr().addr() - text.as_ptr().addr();
            (start, start + raw.get().len(), format!("\"{name}\""))
        }
    };
    Ok([&text[..from], &name, &text[to..]].concat().into())
}

/// The text that a value is; none for null.
fn said(raw: &RawValue) -> Result<Option<String>, Refusal> {
    serde_json::from_str(raw.get())
        .map_err(|_| Refusal::Malformed("the name of a run is no text".into()))
}

/// The pairs of an object, values as they stand.
struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Pairs<'a> {
    /// The value of a name. One that stands there twice is read by some as the first and by others as the last.
    fn only(&self, name: &str) -> Result<Option<&'a RawValue>, &'static str> {
        let mut found = self
            .0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, raw)| *raw);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err("names a run twice"),
            (first, None) => Ok(first),
        }
    }
}

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    pairs.push((name.into(), value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named_as(ids: &UpstreamIds, body: &str) -> Result<String, Refusal> {
        named(ids, "ci", body.to_owned().into())
            .map(|body| String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn s10_a_run_has_a_name_of_its_key_and_nothing_else_is_touched() {
        let ids = UpstreamIds::default();
        for (body, before, after) in [
            (
                r#"{"input":{"text":"a","id":"x"},"n":1.50}"#,
                "{",
                r#","input":{"text":"a","id":"x"},"n":1.50}"#,
            ),
            ("{}", "{", "}"),
            (" { } ", " {", " } "),
            (
                r#"{"a":1, "id" : null ,"b":2}"#,
                r#"{"a":1, "id" : "#,
                r#" ,"b":2}"#,
            ),
            (r#"{"\u0069d":"","b":2}"#, r#"{"\u0069d":"#, r#","b":2}"#),
            (r#"{"id":"the-thread-of-the-ceo"}"#, r#"{"id":"#, "}"),
        ] {
            let text = named_as(&ids, body).unwrap();
            let middle = text
                .strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(after))
                .unwrap_or(&text);
            let id = middle
                .strip_prefix("\"id\":")
                .unwrap_or(middle)
                .trim_matches('"');
            assert!(ids.owns("ci", id), "{body}: {text}");
            assert_eq!(
                named_as(&ids, &text).unwrap(),
                text,
                "what the key was given goes on"
            );
        }
        assert_eq!(
            named_as(&ids, r#"{"id":"a"}"#),
            named_as(&ids, r#"{"id":"a"}"#),
            "it continues"
        );
        let other = format!(r#"{{"id":"{}"}}"#, ids.new_of_key("shop"));
        assert_ne!(named_as(&ids, &other).unwrap(), other);
        assert_eq!(named_as(&ids, "").unwrap(), "");
    }

    #[test]
    fn s10_a_body_that_somebody_may_read_otherwise_is_refused() {
        let ids = UpstreamIds::default();
        for body in [
            r#"{"id":"a","id":"b"}"#,
            r#"{"id":"a","\u0069d":"b"}"#,
            r#"{"id":4711}"#,
            r#"{"id":["a"]}"#,
            r#"{"id":NaN}"#,
            r#"{"id":"a"} {"id":"b"}"#,
            r#"[{"id":"a"}]"#,
            "\u{feff}{\"id\":\"a\"}",
            "id=a",
            "{",
        ] {
            assert!(
                matches!(named_as(&ids, body), Err(Refusal::Malformed(_))),
                "{body}"
            );
        }
        let wide: Vec<u8> = r#"{"id":"a"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(named(&ids, "ci", wide.into()).is_err());
        let parent = |id: &str| named_as(&ids, &format!(r#"{{"parent_execution_id":"{id}"}}"#));
        assert!(matches!(
            parent("the-thread-of-the-ceo"),
            Err(Refusal::KeyRefused(_))
        ));
        assert!(parent(&ids.new_of_key("ci")).is_ok());
        assert!(named_as(&ids, r#"{"parent_execution_id":null}"#).is_ok());
    }
}
