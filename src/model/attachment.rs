//! A file that came with an event, kept beside it: what is known of it, and never its bytes.
//!
//! What a sender calls a file is text for people. It is cleaned before it is kept and stands in no path of ours.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::Timestamp;
use super::id::InvalidId;

/// The longest name, in bytes.
pub const MAX_NAME: usize = 255;

/// The longest extension that a place in a store ends with.
const MAX_EXTENSION: usize = 12;

/// A file's name in what comes in and goes out: `att_` and 32 hex digits, in order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentId(Uuid);

impl AttachmentId {
    /// A new id.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The 16 bytes an inbox keeps.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From the bytes an inbox kept.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The place in a store of a file of this id: the id, and an extension that says no more than a kind.
    pub fn key(&self, name: &str) -> String {
        match extension(name) {
            Some(extension) => format!("{}.{extension}", self.0.simple()),
            None => self.0.simple().to_string(),
        }
    }

    /// The id of the file at a place in a store; none for what is no place of ours.
    pub fn of_key(key: &str) -> Option<Self> {
        let hex = key.split_once('.').map_or(key, |(hex, _)| hex);
        if hex.len() != 32 {
            return None;
        }
        Uuid::try_parse(hex).map(Self).ok()
    }
}

impl Default for AttachmentId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "att_{}", self.0.simple())
    }
}

impl FromStr for AttachmentId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let hex = text
            .strip_prefix("att_")
            .filter(|hex| hex.len() == 32)
            .ok_or(InvalidId)?;
        Uuid::try_parse(hex).map(Self).map_err(|_| InvalidId)
    }
}

impl serde::Serialize for AttachmentId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for AttachmentId {
    fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let text: std::borrow::Cow<'de, str> = serde::Deserialize::deserialize(reader)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A file that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its name among ours.
    pub id: AttachmentId,
    /// Its name as the sender gave it, cleaned.
    pub name: String,
    /// Its media type as the sender gave it.
    pub content_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// Its place in the store.
    pub key: String,
    /// Its id at the channel that it was fetched from; `None` for a file that came with its request.
    pub origin: Option<String>,
    /// Until when it is kept when no event refers to it any more.
    pub expires_at: Timestamp,
}

/// A name as a sender gave it, fit to be shown: without the folders before it, without what would hide or turn its
/// letters; never empty.
pub fn cleaned_name(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last
        .chars()
        .filter(|c| !matches!(c, '\u{feff}' | '\u{200b}' | '\u{2060}'))
        .map(|c| if c.is_control() || turns(c) { '_' } else { c })
        .collect();
    let clean = clean.trim();
    if clean.is_empty() || clean.chars().all(|c| c == '.') {
        return "file".to_owned();
    }
    let end = (0..=MAX_NAME.min(clean.len()))
        .rev()
        .find(|end| clean.is_char_boundary(*end))
        .unwrap_or(0);
    clean[..end].to_owned()
}

/// True for a character that changes the direction of the text behind it, or ends a line.
const fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A media type as a sender wrote it, without its parameters; `application/octet-stream` if it is not valid.
pub fn cleaned_type(given: Option<&str>) -> String {
    let essence = given
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    match essence.split_once('/') {
        Some((kind, sub)) if token(kind) && token(sub) && essence.len() <= 127 => essence,
        _ => "application/octet-stream".to_owned(),
    }
}

/// The extension of a name, where it is short and plain.
fn extension(name: &str) -> Option<String> {
    let (stem, extension) = name.rsplit_once('.')?;
    let plain = (1..=MAX_EXTENSION).contains(&extension.len())
        && extension.bytes().all(|b| b.is_ascii_alphanumeric());
    (plain && !stem.is_empty()).then(|| extension.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t91_names_are_shown_cleaned() {
        let cases = include_str!("../../tests/corpora/edge-cases/file-names.json");
        let cases: Vec<std::collections::BTreeMap<String, String>> =
            serde_json::from_str(cases).unwrap();
        assert!(cases.len() >= 15);
        for case in cases {
            assert_eq!(cleaned_name(&case["given"]), case["shown"], "{case:?}");
        }
        for (given, shown) in [
            ("", "file"),
            ("..", "file"),
            ("a/", "file"),
            ("a\nb", "a_b"),
            (" a.pdf ", "a.pdf"),
        ] {
            assert_eq!(cleaned_name(given), shown, "{given:?}");
        }
        assert!(cleaned_name(&"é".repeat(300)).len() <= MAX_NAME);
    }

    #[test]
    fn a_place_in_a_store_has_nothing_of_a_name_but_a_plain_extension() {
        let id = AttachmentId::from_bytes([7; 16]);
        let hex = "07".repeat(16);
        for (name, end) in [
            ("a.PDF", ".pdf"),
            (".htaccess", ""),
            ("a.tar.gz", ".gz"),
            ("a.b c", ""),
            ("a", ""),
        ] {
            assert_eq!(id.key(name), format!("{hex}{end}"), "{name}");
            assert_eq!(AttachmentId::of_key(&id.key(name)), Some(id));
        }
        assert_eq!(AttachmentId::of_key("../x"), None);
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn types_lose_their_parameters_and_an_invalid_one_is_unknown() {
        for (given, shown) in [
            (Some("Text/HTML; charset=utf-8"), "text/html"),
            (Some("image/svg+xml"), "image/svg+xml"),
            (Some("x"), "application/octet-stream"),
            (Some("a/b\r\nc: d"), "application/octet-stream"),
            (None, "application/octet-stream"),
        ] {
            assert_eq!(cleaned_type(given), shown, "{given:?}");
        }
    }
}
