//! Answers of agents as messages of chats: read as Markdown once, written in the dialect of a channel, and cut into
//! messages that the channel takes.
//!
//! Promises: every word arrives; no message is longer than the limit in the unit of the channel; no text makes markup that
//! the channel refuses; a text notifies nobody and runs no command, unless the caller allows mentions of users. Each cut
//! moves on, and the time grows with the length of the text.
//!
//! ```
//! use sluicegate::render::{Dialect, MessageLimits, Rendering, LengthUnit};
//!
//! let rendering = Rendering {
//!     dialect: Dialect::Telegram,
//!     limits: MessageLimits { length: 4096, unit: LengthUnit::Utf16, is_after_parsing: true, entities: Some(100), parts: 6 },
//!     mentions: false,
//! };
//! let parts = rendering.parts("**Done.** See [the log](https://example.com/log).");
//! assert_eq!(parts[0].text, "Done. See the log.");
//! assert_eq!(parts[0].entities[0]["type"], "bold");
//! ```

mod cut;
mod dialect;
mod entities;
mod lines;
mod markdown;
mod styled;
mod table;
#[cfg(test)]
mod tests;
mod write;

pub use dialect::Dialect;
use serde_json::Value;
use styled::Styled;

/// LengthUnit in which a channel counts the length of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthUnit {
    /// Units of UTF-16.
    Utf16,
    /// Code points.
    Chars,
    /// Bytes of UTF-8.
    Bytes,
}

impl LengthUnit {
    /// The length of a text in this unit.
    pub fn length(self, text: &str) -> usize {
        match self {
            Self::Utf16 => text.encode_utf16().count(),
            Self::Chars => text.chars().count(),
            Self::Bytes => text.len(),
        }
    }
}

/// Bounds on the messages of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    /// Length of one message.
    pub length: usize,
    /// LengthUnit of the length.
    pub unit: LengthUnit,
    /// True if the channel counts the text without its markup.
    pub is_after_parsing: bool,
    /// Most marks of one message.
    pub entities: Option<usize>,
    /// Most messages.
    pub parts: usize,
}

/// The way in which answers are written for one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rendering {
    /// The dialect.
    pub dialect: Dialect,
    /// The bounds.
    pub limits: MessageLimits,
    /// True if users may be notified. Groups and everybody never are.
    pub mentions: bool,
}

/// One message of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderedPart {
    /// The text as it is sent.
    pub text: String,
    /// The same words without markup.
    pub plain: String,
    /// Marks of the text, in the form of Telegram's Bot API.
    pub entities: Vec<Value>,
    /// The text as HTML, for channels that take both.
    pub html: Option<String>,
    /// Markdown from which the same part can be made again.
    pub source: String,
}

/// Sentence at the end of the last message of an answer that is too long.
const REST_IS_LEFT_OUT: &str =
    "\n\n(The rest of the answer is left out: it is too long for this chat.)";

impl Rendering {
    /// The messages of an answer. An answer that needs more than the limits allow ends with a sentence that says so.
    pub fn parts(&self, markdown: &str) -> Vec<RenderedPart> {
        let styled = markdown::read(markdown);
        let (mut pieces, is_whole) = cut::cut(&styled, self, self.limits.parts.max(1));
        if !is_whole && let Some(last) = pieces.pop() {
            pieces.push(self.ended(&last));
        }
        let written = pieces.iter().map(|piece| self.part(piece));
        written
            .filter(|part| !part.plain.trim().is_empty())
            .collect()
    }

    /// The same part, cut to a smaller length.
    pub fn smaller(&self, source: &str, length: usize) -> Vec<RenderedPart> {
        let limits = MessageLimits {
            length,
            parts: usize::MAX,
            ..self.limits
        };
        Self { limits, ..*self }.parts(source)
    }

    /// The last piece with the sentence that the rest is left out.
    fn ended(&self, last: &Styled) -> Styled {
        let sentence = Styled::plain(REST_IS_LEFT_OUT);
        let room = self.limits.length.saturating_sub(REST_IS_LEFT_OUT.len());
        let limits = MessageLimits {
            length: room,
            ..self.limits
        };
        let (mut pieces, _) = cut::cut(last, &Self { limits, ..*self }, 1);
        match pieces.pop().filter(|_| room > 0) {
            Some(piece) => piece.followed_by(&sentence),
            None => last.clone(),
        }
    }

    fn part(&self, piece: &Styled) -> RenderedPart {
        let written = write::write(piece, self.dialect, self.mentions);
        RenderedPart {
            text: written.text,
            plain: write::plain(piece, self.dialect, self.mentions),
            entities: written.entities,
            html: written.html,
            source: write::write(piece, Dialect::Markdown, true).text,
        }
    }
}
