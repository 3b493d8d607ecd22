//! The body, read for the fields a signature covers or stands in: JSON, form fields, the parts of a multipart form.
//!
//! Strict, because two readers that understand a document differently are a way around a signature: a key that
//! stands twice in an object, or nesting past the bound, refuses the whole document.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};

/// A JSON value with numbers as they were written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Reads a document. Nesting stops at the parser's own bound of 128 levels.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| {
            // The parser's words quote no input but keys, which are the sender's own.
            format!("the document with the signed fields cannot be read: {error}")
        })
    }

    /// The value at a path; a number names an item of a list or a key.
    pub(super) fn at(&self, path: &[String]) -> Option<&Self> {
        path.iter().try_fold(self, |value, step| match value {
            Self::Object(entries) => entries.get(step),
            Self::List(items) => step.parse::<usize>().ok().and_then(|number| items.get(number)),
            _ => None,
        })
    }

    /// Texts as they are, integers and truth values as JSON spells them; nothing else has one spelling.
    pub(super) fn as_text(&self) -> Option<&str> {
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
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'))
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
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
        deserializer.deserialize_any(Reader)
    }
}

/// How many fields a form may have where a signature has to do with them.
const MOST_FIELDS: usize = 1000;

/// The fields of a form body, decoded, in order: urlencoded, or the parts of a multipart form that are texts.
pub(super) fn form(content_type: &str, body: &[u8]) -> Result<Vec<(String, String)>, String> {
    let fields: Vec<(String, String)> = match boundary(content_type) {
        Some(boundary) => parts(&boundary, body)
            .filter_map(|(name, bytes)| Some((name, std::str::from_utf8(bytes).ok()?.to_owned())))
            .take(MOST_FIELDS + 1)
            .collect(),
        None => form_urlencoded::parse(body).into_owned().take(MOST_FIELDS + 1).collect(),
    };
    if fields.len() > MOST_FIELDS { Err(format!("the form has more than {MOST_FIELDS} fields")) } else { Ok(fields) }
}

/// One part of a multipart body, by its field name; none when it is missing or there twice.
pub(super) fn part<'b>(content_type: &str, body: &'b [u8], field: &str) -> Option<&'b [u8]> {
    let boundary = boundary(content_type)?;
    let mut found = parts(&boundary, body).filter(|(name, _)| name == field);
    let (_, bytes) = found.next()?;
    found.next().is_none().then_some(bytes)
}

/// The boundary of a multipart form.
fn boundary(content_type: &str) -> Option<Vec<u8>> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    })?;
    (1..=70).contains(&value.len()).then(|| format!("--{value}").into_bytes())
}

/// The parts between delimiter lines: field name and bytes. What does not have the form of a part ends the walk.
fn parts<'b>(delimiter: &[u8], body: &'b [u8]) -> impl Iterator<Item = (String, &'b [u8])> {
    let line = [b"\r\n", delimiter].concat();
    let mut rest = body.strip_prefix(delimiter);
    if rest.is_none() {
        rest = find(body, &line).map(|at| &body[at + line.len()..]);
    }
    std::iter::from_fn(move || {
        let part = rest?.strip_prefix(b"\r\n")?;
        let end = find(part, &line)?;
        rest = Some(&part[end + line.len()..]);
        let part = &part[..end];
        let head_end = find(part, b"\r\n\r\n")?;
        let name = std::str::from_utf8(&part[..head_end]).ok().and_then(field_name).unwrap_or_default();
        Some((name, &part[head_end + 4..]))
    })
}

fn field_name(head: &str) -> Option<String> {
    let line = head.split("\r\n").find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))?;
    line.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("name").then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn values_keep_their_spelling_and_the_rest_has_none() {
        let text = br#"{"a":{"b":[{"c":12345678901234567890}]},"t":true,"f":1.50,"n":null,"s":"x\u0041"}"#;
        let json = Json::parse(text).unwrap();
        let get = |p: &str| json.at(&path(p)).and_then(Json::as_text);
        assert_eq!(get("a.b.0.c"), Some("12345678901234567890"));
        assert_eq!((get("t"), get("s")), (Some("true"), Some("xA")));
        assert_eq!((get("f"), get("n"), get("a"), get("a.b.1.c")), (None, None, None, None));
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
        assert_eq!(part(kind, body, "json"), Some(&b"{\"a\":1}"[..]));
        assert_eq!(part(kind, body, "b"), Some(&b""[..]));
        assert_eq!(part(kind, body, "c"), None);
        assert_eq!(form(kind, body).unwrap().len(), 2);
        assert_eq!(form("application/x-www-form-urlencoded", b"a=1&b=%41+c").unwrap()[1].1, "A c");
    }

    #[test]
    fn broken_multipart_ends_quietly() {
        let kind = "multipart/form-data; boundary=x";
        for body in ["", "--x", "--x\r\n", "--x\r\n\r\n--x", "--x\r\na\r\n--x--", "\r\n--x\r\n\r\n\r\n\r\n--x--"] {
            let _ = form(kind, body.as_bytes());
            assert_eq!(part(kind, body.as_bytes(), "a"), None, "{body:?}");
        }
    }
}
