//! A text with marks over parts of it.

use std::ops::Range;

/// A mark over a part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) range: Range<usize>,
    pub(super) style: MarkStyle,
}

/// MarkStyle of a part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MarkStyle {
    Bold,
    Italic,
    Strike,
    /// Code within a line.
    Code,
    /// A block of code, in a language.
    Block(String),
    /// Lines of a quote.
    Quote,
    /// A text that leads to an address.
    Link(String),
}

/// A text with its marks, in order of their beginnings; of marks that begin together the longer one stands first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Styled {
    pub(super) text: String,
    pub(super) marks: Vec<Mark>,
}

impl Styled {
    /// A text without marks.
    pub(super) fn plain(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            marks: Vec::new(),
        }
    }

    /// Puts the marks in order, and drops those that cover nothing.
    pub(super) fn sorted(mut self) -> Self {
        self.marks.retain(|mark| !mark.range.is_empty());
        self.marks
            .sort_by_key(|mark| (mark.range.start, usize::MAX - mark.range.end));
        self
    }

    /// A part of the text, with the marks that reach into it.
    pub(super) fn slice(&self, range: Range<usize>, marks: &[Mark]) -> Self {
        let reaching = marks
            .iter()
            .filter(|mark| mark.range.start < range.end && mark.range.end > range.start);
        let marks = reaching.map(|mark| Mark {
            range: mark.range.start.max(range.start) - range.start
                ..mark.range.end.min(range.end) - range.start,
            style: mark.style.clone(),
        });
        let slice = Self {
            text: self.text[range.clone()].to_owned(),
            marks: marks.collect(),
        };
        slice.sorted()
    }

    /// This text with another one behind it.
    pub(super) fn followed_by(mut self, other: &Self) -> Self {
        let by = self.text.len();
        self.text.push_str(&other.text);
        self.marks.extend(other.marks.iter().map(|mark| Mark {
            range: mark.range.start + by..mark.range.end + by,
            style: mark.style.clone(),
        }));
        self
    }

    /// True if a place is inside of code.
    pub(super) fn is_code(&self, at: usize) -> bool {
        self.marks.iter().any(|mark| {
            matches!(mark.style, MarkStyle::Code | MarkStyle::Block(_)) && mark.range.contains(&at)
        })
    }
}
