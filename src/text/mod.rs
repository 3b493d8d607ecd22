//! Bytes as text: character sets, byte order marks, half surrogates.
//!
//! Promises: reading never fails. Bytes that are invalid in their character set become U+FFFD, and the notes say so; the
//! caller keeps the original bytes, because those were signed. JSON is UTF-8 unless its bytes show another encoding (RFC
//! 8259, 8.1).

mod boundary;
mod fault;
pub mod fields;
pub mod multipart;
pub mod parameter;
mod transfer;

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use memchr::memchr;

use crate::model::TextNotes;

/// A character set.
pub type Charset = &'static Encoding;

/// Finds a character set by its name or one of its aliases, as browsers do, in any case.
pub fn charset(name: &str) -> Option<Charset> {
    Encoding::for_label_no_replacement(name.trim().as_bytes())
}

/// Bytes that were read as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The text.
    pub text: Cow<'a, str>,
    /// Notes about the reading.
    pub notes: TextNotes,
}

/// Reads the bytes of a JSON document. `declared` is the character set that the content type names: by the standard it
/// says nothing, and so it counts only where the bytes are no UTF-8.
pub fn json<'a>(bytes: &'a [u8], declared: Option<&str>) -> Decoded<'a> {
    if let Some(marked) = marked(bytes) {
        return marked;
    }
    if let Some(wide) = Wide::of_json(bytes) {
        return wide.read(bytes);
    }
    let declared = declared
        .and_then(charset)
        .filter(|charset| !matches!(*charset, c if c == UTF_16LE || c == UTF_16BE));
    match declared {
        // ISO-2022-JP looks like UTF-8 but for its escapes, which JSON cannot have.
        Some(charset) if !charset.is_ascii_compatible() && bytes.contains(&0x1b) => {
            read(bytes, charset)
        }
        Some(charset) if charset.is_ascii_compatible() && std::str::from_utf8(bytes).is_err() => {
            read(bytes, charset)
        }
        _ => read(bytes, UTF_8),
    }
}

/// Reads the bytes of any other text in the character set that its type names, else as UTF-8.
pub fn plain<'a>(bytes: &'a [u8], declared: Option<&str>) -> Decoded<'a> {
    if let Some(marked) = marked(bytes) {
        return marked;
    }
    read(bytes, declared.and_then(charset).unwrap_or(UTF_8))
}

/// The value of a header as text: UTF-8, else Latin-1, as older senders mean it (RFC 9110, 5.5).
pub fn header(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect()),
    }
}

/// The `charset` that a content type names.
pub fn declared(content_type: &str) -> Option<String> {
    if !content_type.contains(';') {
        return None;
    }
    let parameters = parameter::parse(content_type.as_bytes());
    parameters
        .get("charset")
        .map(|name| String::from_utf8_lossy(name).into_owned())
}

/// Replaces every escape of half a surrogate pair in a JSON text by the escape of U+FFFD. Offsets do not change.
pub fn mended(text: Cow<'_, str>) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut halves = Vec::new();
    let mut at = 0;
    while let Some(next) = bytes.get(at..).and_then(|rest| memchr(b'\\', rest)) {
        at += next;
        match unit(bytes, at) {
            Some(0xd800..=0xdbff) if matches!(unit(bytes, at + 6), Some(0xdc00..=0xdfff)) => {
                at += 12
            }
            Some(0xd800..=0xdfff) => {
                halves.push(at);
                at += 6;
            }
            Some(_) => at += 6,
            None => at += 2,
        }
    }
    if halves.is_empty() {
        return text;
    }
    let mut whole = String::with_capacity(text.len());
    let mut from = 0;
    for half in halves {
        whole.push_str(&text[from..half]);
        whole.push_str("\\ufffd");
        from = half + 6;
    }
    whole.push_str(&text[from..]);
    Cow::Owned(whole)
}

/// The number in an escape `\uXXXX` that stands at a place.
fn unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |number, digit| {
        Some(number * 16 + char::from(*digit).to_digit(16)?)
    })
}

/// Reads bytes in a character set.
fn read(bytes: &[u8], charset: Charset) -> Decoded<'_> {
    let (text, is_replaced) = charset.decode_without_bom_handling(bytes);
    let charset = (charset != UTF_8 && (charset != WINDOWS_1252 || !bytes.is_ascii()))
        .then(|| charset.name().to_owned());
    Decoded {
        text,
        notes: TextNotes {
            charset,
            replaced: is_replaced,
            ..TextNotes::default()
        },
    }
}

/// Bytes with a byte order mark, read without it.
fn marked(bytes: &[u8]) -> Option<Decoded<'_>> {
    if let Some(wide) = Wide::marked(bytes) {
        return Some(wide.read(&bytes[4..]));
    }
    Encoding::for_bom(bytes).map(|(charset, length)| read(&bytes[length..], charset))
}

/// An encoding of two or four bytes a character, as the zeros in JSON show it: its first character is ASCII.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wide {
    Two(Charset),
    Four { is_big: bool },
}

impl Wide {
    /// UTF-32 by its mark. That of UTF-16 with a NUL behind it is read as UTF-32 too: no text begins so.
    fn marked(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0, 0, 0xfe, 0xff, ..] => Some(Self::Four { is_big: true }),
            [0xff, 0xfe, 0, 0, ..] => Some(Self::Four { is_big: false }),
            _ => None,
        }
    }

    fn of_json(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0, 0, 0, 1..=255, ..] => Some(Self::Four { is_big: true }),
            [1..=255, 0, 0, 0, ..] => Some(Self::Four { is_big: false }),
            [0, 1..=255, ..] => Some(Self::Two(UTF_16BE)),
            [1..=255, 0, ..] => Some(Self::Two(UTF_16LE)),
            _ => None,
        }
    }

    fn read(self, bytes: &[u8]) -> Decoded<'static> {
        match self {
            Self::Two(charset) => {
                let Decoded { text, notes } = read(bytes, charset);
                Decoded {
                    text: Cow::Owned(text.into_owned()),
                    notes,
                }
            }
            Self::Four { is_big } => {
                let (units, rest) = bytes.as_chunks::<4>();
                let of = |unit: &[u8; 4]| {
                    if is_big {
                        u32::from_be_bytes(*unit)
                    } else {
                        u32::from_le_bytes(*unit)
                    }
                };
                let mut is_replaced = !rest.is_empty();
                let text = units.iter().map(|unit| {
                    char::from_u32(of(unit)).unwrap_or_else(|| {
                        is_replaced = true;
                        char::REPLACEMENT_CHARACTER
                    })
                });
                let text = Cow::Owned(text.collect());
                let notes = TextNotes {
                    charset: Some("UTF-32".to_owned()),
                    replaced: is_replaced,
                    ..TextNotes::default()
                };
                Decoded { text, notes }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(text: &str, is_big: bool, mark: bool) -> Vec<u8> {
        let units = mark
            .then_some(0xfeff)
            .into_iter()
            .chain(text.encode_utf16());
        units
            .flat_map(|unit| {
                if is_big {
                    unit.to_be_bytes()
                } else {
                    unit.to_le_bytes()
                }
            })
            .collect()
    }

    #[test]
    fn a3_rfc_8259_8_1_byte_order_marks_and_wide_encodings_are_read() {
        let text = r#"{"text":"hé 😀"}"#;
        let mut all = vec![
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        ];
        for is_big in [true, false] {
            all.extend([true, false].map(|mark| wide(text, is_big, mark)));
            let four = |c: char| {
                if is_big {
                    u32::from(c).to_be_bytes()
                } else {
                    u32::from(c).to_le_bytes()
                }
            };
            all.push(text.chars().flat_map(four).collect());
            all.push(
                std::iter::once('\u{feff}')
                    .chain(text.chars())
                    .flat_map(four)
                    .collect(),
            );
        }
        for bytes in all {
            for declared in [None, Some("utf-8"), Some("utf-16"), Some("nonsense")] {
                let read = json(&bytes, declared);
                assert_eq!(
                    (&*read.text, read.notes.replaced),
                    (text, false),
                    "{bytes:x?} {declared:?}"
                );
            }
        }
    }

    #[test]
    fn a4_json_is_utf_8_and_another_declared_charset_counts_where_it_is_not() {
        assert_eq!(json("\"é\"".as_bytes(), Some("iso-8859-1")).text, "\"é\"");
        let latin = json(b"\"caf\xe9\"", Some("ISO-8859-1"));
        assert_eq!(
            (&*latin.text, latin.notes.charset.as_deref()),
            ("\"café\"", Some("windows-1252"))
        );
        let unknown = json(b"\"caf\xe9\"", None);
        assert_eq!(
            (&*unknown.text, unknown.notes.replaced),
            ("\"caf\u{fffd}\"", true)
        );
        let (kana, _, _) = encoding_rs::ISO_2022_JP.encode("\"日本\"");
        assert_eq!(json(&kana, Some("iso-2022-jp")).text, "\"日本\"");
    }

    #[test]
    fn a4_text_is_read_in_the_charset_that_its_type_names() {
        for (name, bytes, wanted) in [
            ("latin1", &b"caf\xe9"[..], "café"),
            ("Windows-1252", b"\x80", "€"),
            ("shift_jis", b"\x93\xfa\x96\x7b", "日本"),
            ("windows-1251", b"\xcf\xf0", "Пр"),
            ("gb18030", b"\xc4\xe3", "你"),
            ("us-ascii", b"a", "a"),
        ] {
            let read = plain(bytes, Some(name));
            assert_eq!(
                (&*read.text, read.notes.replaced),
                (wanted, false),
                "{name}"
            );
        }
        assert_eq!(plain(b"\xff", Some("no-such-set")).text, "\u{fffd}");
        assert_eq!(
            declared("text/plain; Charset=\"Shift_JIS\"").as_deref(),
            Some("Shift_JIS")
        );
        assert_eq!(
            (header(b"caf\xe9"), header("café".as_bytes())),
            ("café".into(), "café".into())
        );
    }

    #[test]
    fn a5_halves_are_mended_and_whole_pairs_are_not() {
        for (text, wanted) in [
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\uDE00\uD83D""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\\\ud83dx""#, r#""\\\ufffdx""#),
            (r#""\ud83d\"#, r#""\ufffd\"#),
            (r#""\ud83"#, r#""\ud83"#),
        ] {
            assert_eq!(mended(Cow::Borrowed(text)), wanted, "{text}");
        }
    }
}
