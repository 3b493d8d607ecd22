//! The body, read for the fields a signature covers or stands in: JSON, form fields, the parts of a multipart form.
//!
//! Strict, because two readers that understand a document differently are a way around a signature: a key that
//! stands twice in an object, or nesting past the bound, refuses the whole document. A byte order mark or half a
//! character somewhere in it does not: the sender signed the bytes, and those are what is digested.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};

use crate::text::multipart::HeldPart;
use crate::text::{self, fields, multipart};

/// A JSON value with numbers as they were written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Reads a document. Nesting stops at the parser's own bound of 128 levels.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = text::mended(text::json(bytes, None).text);
        serde_json::from_str(&text).map_err(|error| {
            // The parser's words quote no input but keys, which are the sender's own.
            format!("the document with the signed fields cannot be read: {error}")
        })
    }

    /// The value at a path; a number names an item of a list or a key.
    pub(crate) fn at(&self, path: &[String]) -> Option<&Self> {
        path.iter().try_fold(self, |value, step| match value {
            Self::Object(entries) => entries.get(step),
            Self::List(items) => step
                .parse::<usize>()
                .ok()
                .and_then(|number| items.get(number)),
            _ => None,
        })
    }

    /// Texts as they are, integers and truth values as JSON spells them; nothing else has one spelling.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(digits) if !digits.contains(['.', 'e', 'E']) => Some(digits),
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            _ => None,
        }
    }
}

/// By this key the parser hands over a number with its digits.
const NUMBER: &str = "$serde_json::private::Number";

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'))
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct JsonVisitor;
        impl<'de> Visitor<'de> for JsonVisitor {
            type Value = Json;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, yes: bool) -> Result<Json, E> {
                Ok(Json::Bool(yes))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
                Ok(Json::Number(number.to_string()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
                Ok(Json::Number(number.to_string()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
                Ok(Json::Number(format!("{number:e}")))
            }
            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Json, E> {
                Ok(Json::Text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Json::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Json>()? {
                    if entries.insert(key, value).is_some() {
                        return Err(A::Error::custom("a key stands twice in one object"));
                    }
                }
                match entries.get(NUMBER) {
                    Some(Json::Text(digits)) if entries.len() == 1 && is_number(digits) => {
                        Ok(Json::Number(digits.clone()))
                    }
                    _ => Ok(Json::Object(entries)),
                }
            }
        }
        deserializer.deserialize_any(JsonVisitor)
    }
}

/// The fields of a form: names and values, as bytes.
pub(crate) type FormBytes = Vec<(Vec<u8>, Vec<u8>)>;

/// Whether a content type says that a body is JSON, and so no form.
pub(crate) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// The fields of a form body, in order: urlencoded, or the parts of a multipart form. Their values are the bytes that were
/// sent, in whatever character set.
pub(crate) fn form(content_type: &str, body: &[u8]) -> Result<FormBytes, String> {
    if multipart::is_form(content_type) {
        return Ok(parts(content_type, body)?
            .into_iter()
            .map(|(name, bytes)| (name.into_bytes(), bytes))
            .collect());
    }
    let fields =
        fields::split(body).map_err(|error| format!("the form cannot be read: {error}"))?;
    Ok(fields
        .into_iter()
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect())
}

/// One part of a multipart body, by its field name; none when it is missing or there twice.
pub(crate) fn part(content_type: &str, body: &[u8], field: &str) -> Option<Vec<u8>> {
    let mut found = parts(content_type, body)
        .ok()?
        .into_iter()
        .filter(|(name, _)| name == field);
    let (_, bytes) = found.next()?;
    found.next().is_none().then_some(bytes)
}

/// The parts of a multipart form: field names and bytes.
fn parts(content_type: &str, body: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let parts = multipart::read(content_type, body)
        .map_err(|fault| format!("the form cannot be read: {fault}"))?;
    let named = |part: HeldPart| (part.head.name(None).unwrap_or_default().0, part.bytes);
    Ok(parts.into_iter().map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn values_keep_their_spelling_and_the_rest_has_none() {
        let text =
            br#"{"a":{"b":[{"c":12345678901234567890}]},"t":true,"f":1.50,"n":null,"s":"x\u0041"}"#;
        let json = Json::parse(text).unwrap();
        let get = |p: &str| json.at(&path(p)).and_then(Json::as_text);
        assert_eq!(get("a.b.0.c"), Some("12345678901234567890"));
        assert_eq!((get("t"), get("s")), (Some("true"), Some("xA")));
        assert_eq!(
            (get("f"), get("n"), get("a"), get("a.b.1.c")),
            (None, None, None, None)
        );
    }

    #[test]
    fn a_key_twice_and_deep_nesting_refuse_the_document() {
        assert!(Json::parse(br#"{"a":1,"\u0061":2}"#).is_err());
        assert!(Json::parse(br#"{"x":[{"a":1,"a":1}]}"#).is_err());
        let deep = |n: usize| [b"[".repeat(n), b"]".repeat(n)].concat();
        assert!(Json::parse(&deep(100)).is_ok());
        assert!(Json::parse(&deep(129)).is_err());
        assert!(Json::parse(&deep(100_000)).is_err());
    }

    #[test]
    fn multipart_fields_are_found_by_name() {
        let kind = "multipart/form-data; boundary=\"xyz\"";
        let body = b"--xyz\r\nContent-Disposition: form-data; name=\"json\"\r\n\r\n{\"a\":1}\r\n--xyz\r\ncontent-disposition: form-data; name=\"b\"; filename=\"x\"\r\nX: y\r\n\r\n\r\n--xyz--\r\n";
        assert_eq!(part(kind, body, "json").as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(part(kind, body, "b").as_deref(), Some(&b""[..]));
        assert_eq!(part(kind, body, "c"), None);
        assert_eq!(form(kind, body).unwrap().len(), 2);
        assert_eq!(
            form("application/x-www-form-urlencoded", b"a=1&b=%41+c").unwrap()[1].1,
            b"A c"
        );
        // In another character set the bytes are what was signed.
        assert_eq!(
            form("application/x-www-form-urlencoded", b"a=caf%E9").unwrap()[0].1,
            b"caf\xe9"
        );
        let odd = b"--=_1\r\nContent-Disposition: form-data; NAME=a\r\n\r\n1\r\n--=_1--";
        assert_eq!(
            form("multipart/form-data; boundary==_1", odd).unwrap(),
            [(b"a".to_vec(), b"1".to_vec())]
        );
    }

    #[test]
    fn a3_a5_marks_and_half_characters_do_not_hide_the_signed_fields() {
        let at = |bytes: &[u8]| {
            Json::parse(bytes)
                .unwrap()
                .at(&path("a.0.b"))
                .and_then(Json::as_text)
                .map(str::to_owned)
        };
        assert_eq!(
            at(b"\xef\xbb\xbf{\"a\":[{\"b\":\"x\"}]}").as_deref(),
            Some("x")
        );
        assert_eq!(
            at(b"{\"a\":[{\"b\":\"x\"}],\"c\":\"\\ud83d\",\"d\":\"\xff\"}").as_deref(),
            Some("x")
        );
        let wide: Vec<u8> = "\u{feff}{\"a\":[{\"b\":\"é\"}]}"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(at(&wide).as_deref(), Some("é"));
        assert!(Json::parse(b"\xff{}").is_err());
    }

    #[test]
    fn broken_multipart_ends_quietly() {
        let kind = "multipart/form-data; boundary=x";
        for body in ["", "--x", "--x\r\n", "--x\r\n\r\n--x", "--x\r\na\r\n--x--"] {
            assert!(form(kind, body.as_bytes()).is_err(), "{body:?}");
            assert_eq!(part(kind, body.as_bytes(), "a"), None, "{body:?}");
        }
    }
}
