//! A JSON document for signed fields: an object that has a key twice refuses the document.
//!
//! Two readers that take different values of a repeated key are a way around a signature. The grammar, the depth and the
//! meaning of escapes are those of the [`Scan`] that mappings use as well.

use std::collections::BTreeMap;

use super::scan::{JsonFault, Scan};
use crate::text;

/// A JSON value. Numbers keep their spelling, and no object has a key twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as it is spelled in the text.
    Number(String),
    /// A string with its escapes decoded.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object.
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Reads the bytes of a document. A byte order mark and bytes that are not UTF-8 do not refuse it.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonFault> {
        let text = text::json(bytes, None).text;
        let mut scan = Scan::of_any_size(&text);
        let value = scan.unique()?;
        scan.end()?;
        Ok(value)
    }

    /// The value at a path. A step is a key of an object or an index of a list.
    pub fn at(&self, path: &[String]) -> Option<&Self> {
        path.iter().try_fold(self, |value, step| match value {
            Self::Object(entries) => entries.get(step),
            Self::List(items) => step
                .parse::<usize>()
                .ok()
                .and_then(|number| items.get(number)),
            _ => None,
        })
    }

    /// The value as text: strings, integers and truth values. All others have more than one spelling in JSON.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(digits) if !digits.contains(['.', 'e', 'E']) => Some(digits),
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            _ => None,
        }
    }
}

impl Scan<'_> {
    fn unique(&mut self) -> Result<Json, JsonFault> {
        let first = self.begin()?;
        let start = self.at();
        Ok(match first {
            b'{' => {
                let mut entries = BTreeMap::new();
                self.members(|scan, key| {
                    let value = scan.unique()?;
                    match entries.insert(key.text().into_owned(), value) {
                        None => Ok(()),
                        Some(_) => Err(JsonFault::RepeatedKey),
                    }
                })?;
                Json::Object(entries)
            }
            b'[' => {
                let mut list = Vec::new();
                self.items(|scan, _| {
                    list.push(scan.unique()?);
                    Ok(())
                })?;
                Json::List(list)
            }
            b'"' => Json::Text(self.string()?.text().into_owned()),
            other => {
                self.scalar(other)?;
                match other {
                    b't' => Json::Bool(true),
                    b'f' => Json::Bool(false),
                    b'n' => Json::Null,
                    _ => Json::Number(self.since(start).to_owned()),
                }
            }
        })
    }
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
        assert_eq!(
            Json::parse(br#"{"a":1,"\u0061":2}"#),
            Err(JsonFault::RepeatedKey)
        );
        assert!(Json::parse(br#"{"x":[{"a":1,"a":1}]}"#).is_err());
        let deep = |n: usize| [b"[".repeat(n), b"]".repeat(n)].concat();
        assert!(Json::parse(&deep(100)).is_ok());
        assert_eq!(Json::parse(&deep(128)), Err(JsonFault::Depth));
        assert!(Json::parse(&deep(100_000)).is_err());
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
    fn a_key_that_a_parser_uses_for_itself_is_a_plain_key() {
        let json = Json::parse(br#"{"a":{"$serde_json::private::Number":"7"}}"#).unwrap();
        assert_eq!(json.at(&path("a")).and_then(Json::as_text), None);
        let inside = json.at(&["a".to_owned(), "$serde_json::private::Number".to_owned()]);
        assert_eq!(inside.and_then(Json::as_text), Some("7"));
    }

    #[test]
    fn a_signed_document_may_have_any_number_of_values() {
        let many = format!("[{}0]", "0,".repeat(150_000));
        assert!(Json::parse(many.as_bytes()).is_ok());
    }
}
