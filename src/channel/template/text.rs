//! A template of text: parsing, and filling with the encoding of its place.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{FillError, Slot, SlotUse, TemplateNames, Values};
use crate::channel::path::text_of;

/// Characters that are escaped in a value of a path or a query.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The same for a token; those of one channel have a colon that must stay.
const TOKEN: &AsciiSet = &SEGMENT.remove(b':');
/// The same for a value whose slashes are kept.
const PATH: &AsciiSet = &SEGMENT.remove(b'/');

/// FillEncoding of a filled value by the place where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FillEncoding {
    /// Inside of a JSON text or a form, whose writer escapes it.
    Whole,
    /// In the path of a target.
    Path,
    /// In a header.
    Header,
}

/// A compiled template of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TextTemplate(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(SlotUse),
}

impl TextTemplate {
    /// Compiles a text. The error is a sentence.
    pub(crate) fn parse(text: &str, names: &TemplateNames<'_>) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut fixed = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            fixed.push_str(&rest[..at]);
            let (mark, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(mark) {
                fixed.push_str(mark);
                rest = after;
                continue;
            }
            let inner = (mark == "{").then(|| after.split_once('}')).flatten();
            let Some((name, after)) = inner else {
                return Err(format!(
                    "\"{}\" has a {mark} too many; write it twice to mean it",
                    text.escape_debug()
                ));
            };
            if !fixed.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut fixed)));
            }
            pieces.push(Piece::Value(names.slot(name)?));
            rest = after;
        }
        fixed.push_str(rest);
        if !fixed.is_empty() {
            pieces.push(Piece::Text(fixed));
        }
        Ok(Self(pieces))
    }

    /// The one value that the template is, and nothing beside it.
    pub(crate) fn as_slot(&self) -> Option<&SlotUse> {
        match self.0.as_slice() {
            [Piece::Value(of)] => Some(of),
            _ => None,
        }
    }

    /// True if nothing stands in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text, if the template names no values.
    pub(crate) fn as_fixed(&self) -> Option<String> {
        match self.0.as_slice() {
            [] => Some(String::new()),
            [Piece::Text(text)] => Some(text.clone()),
            _ => None,
        }
    }

    /// Values that the template names.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &SlotUse> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Value(of) => Some(of),
            Piece::Text(_) => None,
        })
    }

    /// The first value, if the template begins with it, and the template of the rest.
    pub(crate) fn split_first(&self) -> Option<(&SlotUse, Self)> {
        match self.0.split_first()? {
            (Piece::Value(first), rest) => Some((first, Self(rest.to_vec()))),
            (Piece::Text(_), _) => None,
        }
    }

    /// True if the template begins with this text.
    pub(crate) fn begins_with(&self, text: &str) -> bool {
        matches!(self.0.first(), Some(Piece::Text(first)) if first.starts_with(text))
    }

    /// True if one of these characters stands in its fixed text.
    pub(crate) fn has_fixed(&self, characters: &[char]) -> bool {
        self.0
            .iter()
            .any(|piece| matches!(piece, Piece::Text(text) if text.contains(characters)))
    }

    /// The text with its values filled in; nothing if it is one optional value that is absent.
    pub(crate) fn fill(
        &self,
        values: &dyn Values,
        part: usize,
        encoding: FillEncoding,
    ) -> Result<Option<String>, FillError> {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Value(of) => {
                    let name = || of.slot.name().to_owned();
                    let value = values.value(&of.slot, part);
                    match value.as_ref().map(text_of) {
                        Some(Some(text)) => {
                            let encoded = encode(&text, of, encoding);
                            filled.push_str(&encoded.ok_or_else(|| FillError::Unfit(name()))?);
                        }
                        Some(None) => return Err(FillError::Unfit(name())),
                        None if !of.is_optional => {
                            return Err(FillError::Missing(name()));
                        }
                        None if self.0.len() == 1 => return Ok(None),
                        None => {}
                    }
                }
            }
        }
        Ok(Some(filled))
    }

    /// The template with the names of secret values in place of them, for logs.
    pub(crate) fn shown(&self, values: &dyn Values, is_secret: &dyn Fn(&Slot) -> bool) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Value(of) if is_secret(&of.slot) => format!("{{{}}}", of.slot.name()),
            Piece::Value(of) => {
                let value = values.value(&of.slot, 0).as_ref().and_then(text_of);
                let encoded = value
                    .and_then(|text| encode(&text, of, FillEncoding::Path).map(Cow::into_owned));
                encoded.unwrap_or_default()
            }
        };
        self.0.iter().map(piece).collect()
    }
}

/// A value as its place takes it; nothing where it cannot stand there.
fn encode<'t>(text: &'t str, of: &SlotUse, encoding: FillEncoding) -> Option<Cow<'t, str>> {
    match encoding {
        FillEncoding::Whole => Some(Cow::Borrowed(text)),
        FillEncoding::Header => {
            let fits = !text.chars().any(char::is_control);
            fits.then_some(Cow::Borrowed(text))
        }
        FillEncoding::Path => {
            let is_up = |segment: &str| matches!(segment, "" | "." | "..");
            let (set, leads_up) = match (&of.slot, of.keeps_slashes) {
                (Slot::Token, _) => (TOKEN, is_up(text)),
                (_, true) => (PATH, text.split('/').any(is_up)),
                (_, false) => (SEGMENT, is_up(text)),
            };
            // Dots stay as they are in an encoded path, and readers of addresses follow them even where they are escaped.
            (!leads_up).then(|| Cow::Owned(utf8_percent_encode(text, set).to_string()))
        }
    }
}
