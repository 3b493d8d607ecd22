//! The fields of a form, urlencoded or in parts: both kinds read alike.
//!
//! The character set is the one that the form names, else UTF-8. Forms name it in `_charset_` (HTML, and RFC 7578, 4.6),
//! in their type, or in a field `charset`, as payment providers do.

use std::borrow::Cow;

use encoding_rs::UTF_8;
use percent_encoding::percent_decode;
use serde_json::{Map, Value};

use super::multipart::{self, HeldPart, PartFault};
use super::{Charset, charset};
use crate::model::TextNotes;

/// The most fields of a form or a query.
pub const FIELDS: usize = 1_000;

/// Names and values, in order.
pub type FormFields<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// The same as bytes: no longer encoded for their way, and not yet read.
pub type RawFields<'a> = Vec<(Cow<'a, [u8]>, Cow<'a, [u8]>)>;

/// A form has more than [`FIELDS`] fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are more than {FIELDS} fields")]
pub struct TooManyFields;

/// Splits an urlencoded text.
pub fn split(text: &[u8]) -> Result<RawFields<'_>, TooManyFields> {
    let mut list = Vec::new();
    for pair in text
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
    {
        if list.len() == FIELDS {
            return Err(TooManyFields);
        }
        let cut = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = cut.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
        list.push((unescaped(name), unescaped(value)));
    }
    Ok(list)
}

fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let blanks: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    Cow::Owned(percent_decode(&blanks).collect())
}

/// Reads the fields of a form. `declared` is the character set of its content type.
pub fn form<'a>(raw: RawFields<'a>, declared: Option<&str>) -> (FormFields<'a>, TextNotes) {
    let named = |name: &[u8]| {
        let found = raw.iter().rev().find(|(known, _)| **known == *name);
        found.and_then(|(_, value)| charset(std::str::from_utf8(value).ok()?))
    };
    let is_utf_8 = || {
        raw.iter().all(|(name, value)| {
            [name, value]
                .iter()
                .all(|text| std::str::from_utf8(text).is_ok())
        })
    };
    let set =
        named(b"_charset_").or_else(|| declared.and_then(charset).filter(|set| *set != UTF_8));
    let set = set.or_else(|| {
        // This name is not kept for the purpose, so the bytes have their say: few texts in a set of one byte a character
        // are UTF-8 by chance.
        named(b"charset").filter(|set| !(set.is_single_byte() && is_utf_8()))
    });
    all(raw, set.unwrap_or(UTF_8))
}

/// Reads the fields of a query, which is UTF-8.
pub fn query(text: &str) -> Result<(FormFields<'_>, TextNotes), TooManyFields> {
    let (fields, notes) = all(split(text.as_bytes())?, UTF_8);
    Ok((
        fields,
        TextNotes {
            query: notes.replaced,
            ..TextNotes::default()
        },
    ))
}

fn all<'a>(raw: RawFields<'a>, set: Charset) -> (FormFields<'a>, TextNotes) {
    let (mut notes, mut is_ascii) = (TextNotes::default(), true);
    let mut one = |bytes: Cow<'a, [u8]>| {
        is_ascii &= bytes.is_ascii();
        let (text, is_replaced) = decoded(bytes, set);
        notes.replaced |= is_replaced;
        text
    };
    let fields = raw
        .into_iter()
        .map(|(name, value)| (one(name), one(value)))
        .collect();
    notes.charset = (set != UTF_8 && !is_ascii).then(|| set.name().to_owned());
    (fields, notes)
}

/// Bytes in a character set.
fn decoded(bytes: Cow<'_, [u8]>, set: Charset) -> (Cow<'_, str>, bool) {
    match bytes {
        Cow::Borrowed(bytes) => set.decode_without_bom_handling(bytes),
        Cow::Owned(bytes) => {
            let (text, is_replaced) = set.decode_without_bom_handling(&bytes);
            (Cow::Owned(text.into_owned()), is_replaced)
        }
    }
}

/// The text parts of a form in parts, while they come.
#[derive(Debug, Default)]
pub struct PartFields {
    list: Vec<(String, Vec<u8>, Option<Charset>)>,
    notes: TextNotes,
    named: Option<Charset>,
}

impl PartFields {
    /// The character set that the form has named so far.
    pub const fn charset(&self) -> Option<Charset> {
        self.named
    }

    /// Something that was read beside the fields.
    pub fn note(&mut self, is_replaced: bool) {
        self.notes.replaced |= is_replaced;
    }

    /// Takes a field: its name, its bytes and the character set of its own type.
    pub fn push(&mut self, name: String, value: Vec<u8>, own: Option<Charset>) {
        if name == "_charset_" {
            self.named = std::str::from_utf8(&value).ok().and_then(charset);
        }
        self.list.push((name, value, own));
    }

    /// The fields. `declared` is the character set of the whole form's type.
    pub fn end(mut self, declared: Option<&str>) -> (Vec<(String, String)>, TextNotes) {
        let default = self
            .named
            .or_else(|| declared.and_then(charset))
            .unwrap_or(UTF_8);
        let mut fields = Vec::with_capacity(self.list.len());
        for (name, value, own) in self.list {
            let set = own.unwrap_or(default);
            let is_ascii = value.is_ascii();
            let (text, is_replaced) = match String::from_utf8(value) {
                // A part's own UTF-8 mark, or none.
                Ok(text) if set == UTF_8 => (text, false),
                Ok(text) => (
                    set.decode_without_bom_handling(text.as_bytes())
                        .0
                        .into_owned(),
                    false,
                ),
                Err(error) => {
                    let (text, is_replaced) = set.decode_without_bom_handling(error.as_bytes());
                    (text.into_owned(), is_replaced)
                }
            };
            self.notes.replaced |= is_replaced;
            if set != UTF_8 && !is_ascii {
                self.notes.charset = Some(set.name().to_owned());
            }
            fields.push((name, text));
        }
        (fields, self.notes)
    }
}

/// A form in parts that is held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldForm {
    /// The text parts, in order.
    pub fields: Vec<(String, String)>,
    /// Number of files. The empty part that a browser sends for a file field without a file does not count.
    pub files: usize,
    /// Notes about the reading.
    pub notes: TextNotes,
}

/// Reads a form in parts that is held; its files are counted.
pub fn in_parts(content_type: &str, body: &[u8]) -> Result<HeldForm, PartFault> {
    let (mut fields, mut files) = (PartFields::default(), 0);
    for HeldPart { head, bytes } in multipart::read(content_type, body)? {
        if let Some((name, _)) = head.file_name(fields.charset()) {
            files += usize::from(!name.is_empty() || !bytes.is_empty());
            continue;
        }
        let (name, is_replaced) = head.name(fields.charset()).unwrap_or_default();
        fields.note(is_replaced);
        fields.push(name, bytes, head.charset());
    }
    let (fields, notes) = fields.end(super::declared(content_type).as_deref());
    Ok(HeldForm {
        fields,
        files,
        notes,
    })
}

/// The JSON object in a form's field `payload`, as senders of JSON in a form have it.
pub fn payload<'f>(fields: impl DoubleEndedIterator<Item = (&'f str, &'f str)>) -> Option<&'f str> {
    let (_, payload) = fields.rev().find(|(name, _)| *name == "payload")?;
    payload
        .trim_ascii_start()
        .starts_with('{')
        .then_some(payload)
}

/// Fields as an object of texts; a repeated one becomes a list.
pub fn object<'f>(fields: impl Iterator<Item = (&'f str, &'f str)>) -> Map<String, Value> {
    let mut map = Map::new();
    for (name, value) in fields {
        match map.get_mut(name) {
            None => drop(map.insert(name.to_owned(), Value::from(value))),
            Some(Value::Array(list)) => list.push(Value::from(value)),
            Some(one) => *one = Value::Array(vec![one.take(), Value::from(value)]),
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, declared: Option<&str>) -> (Vec<String>, TextNotes) {
        let (fields, notes) = form(split(text.as_bytes()).unwrap(), declared);
        (
            fields
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            notes,
        )
    }

    #[test]
    fn a4_a_form_names_its_charset_in_three_places() {
        for (text, declared) in [
            ("t=caf%E9&charset=windows-1252", None),
            ("t=caf%E9&_charset_=iso-8859-1", None),
            ("t=caf%E9", Some("ISO-8859-1")),
            ("t=caf%C3%A9", None),
            ("t=caf%C3%A9&charset=windows-1252", Some("utf-8")),
            ("t=caf%C3%A9&charset=my+own", None),
        ] {
            let (fields, notes) = read(text, declared);
            assert_eq!(
                (fields[0].as_str(), notes.replaced),
                ("t=café", false),
                "{text}"
            );
        }
        assert_eq!(read("t=%93%FA&charset=Shift_JIS", None).0[0], "t=日");
        assert_eq!(read("t=%C3%A9&charset=Shift_JIS", None).0[0], "t=ﾃｩ");
        let (fields, notes) = read("t=caf%E9", None);
        assert_eq!(
            (fields[0].as_str(), notes.replaced),
            ("t=caf\u{fffd}", true)
        );
        let (fields, notes) = query("a=%ff&b=c+d").unwrap();
        assert_eq!(
            (&*fields[0].1, &*fields[1].1, notes.query),
            ("\u{fffd}", "c d", true)
        );
    }

    #[test]
    fn rfc_7578_4_6_and_5_1_2_texts_in_parts_have_a_charset() {
        let body = |first: &str, head: &str| {
            let part = format!("--x\r\nContent-Disposition: form-data; name=t{head}\r\n\r\n");
            let mut body = first.as_bytes().to_vec();
            body.extend_from_slice(part.as_bytes());
            body.extend_from_slice(b"caf\xe9\r\n--x--");
            body
        };
        let named = "--x\r\nContent-Disposition: form-data; name=_charset_\r\n\r\nwindows-1252\r\n";
        for (kind, first, head) in [
            ("", named, ""),
            ("", "", "\r\nContent-Type: text/plain; charset=ISO-8859-1"),
            ("; charset=latin1", "", ""),
        ] {
            let form = in_parts(
                &format!("multipart/form-data; boundary=x{kind}"),
                &body(first, head),
            )
            .unwrap();
            assert_eq!(form.fields.last().unwrap().1, "café");
            assert!(!form.notes.replaced);
        }
        let form = in_parts("multipart/form-data; boundary=x", &body("", "")).unwrap();
        assert_eq!(
            (form.fields[0].1.as_str(), form.notes.replaced),
            ("caf\u{fffd}", true)
        );
    }

    #[test]
    fn a9_a_file_that_nobody_chose_is_no_file_of_the_form() {
        let of = |head: &str, text: &str| {
            let body = format!(
                "--x\r\nContent-Disposition: form-data; name=f; {head}\r\n\r\n{text}\r\n--x--"
            );
            in_parts("multipart/form-data; boundary=x", body.as_bytes())
                .unwrap()
                .files
        };
        assert_eq!(
            of(
                "filename=\"\"\r\nContent-Type: application/octet-stream",
                ""
            ),
            0
        );
        assert_eq!(
            (
                of("filename=\"\"", "x"),
                of("filename=a", ""),
                of("filename*=''", "")
            ),
            (1, 1, 0)
        );
    }
}
