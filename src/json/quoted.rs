//! The content of a JSON string, as it is spelled and with its escapes decoded.

use std::borrow::Cow;

/// Content of a JSON string, between its quotes.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a> {
    /// The content as the text spells it, with its escapes.
    pub inner: &'a str,
    escaped: bool,
}

impl<'a> Quoted<'a> {
    pub(super) const fn new(inner: &'a str, escaped: bool) -> Self {
        Self { inner, escaped }
    }

    /// The content with its escapes decoded.
    pub fn text(&self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.inner);
        }
        let mut text = String::with_capacity(self.inner.len());
        let mut rest = self.inner;
        while let Some((plain, escape)) = rest.split_once('\\') {
            text.push_str(plain);
            let mut chars = escape.chars();
            match chars.next() {
                Some('b') => text.push('\u{8}'),
                Some('f') => text.push('\u{c}'),
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some('t') => text.push('\t'),
                Some('u') => {
                    let (character, after) = unicode(escape);
                    text.push(character);
                    rest = after;
                    continue;
                }
                Some(other) => text.push(other),
                None => {}
            }
            rest = chars.as_str();
        }
        text.push_str(rest);
        Cow::Owned(text)
    }
}

/// Decodes `uXXXX`, or two of them that make one character; returns the character and the text behind it. The scan has
/// checked the digits. Half a surrogate pair becomes U+FFFD.
fn unicode(escape: &str) -> (char, &str) {
    let unit = |from: usize| {
        escape
            .get(from..from + 4)
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
            .unwrap_or(0)
    };
    let (code, length) = match unit(1) {
        high @ 0xd800..=0xdbff if escape.get(5..7) == Some("\\u") => match unit(7) {
            low @ 0xdc00..=0xdfff => (0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00), 11),
            _ => (high, 5),
        },
        code => (code, 5),
    };
    (
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
        escape.get(length..).unwrap_or(""),
    )
}
