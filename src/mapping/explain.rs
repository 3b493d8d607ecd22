//! Explanations for authors of a mapping, made by the same steps that map events.

use super::Mapped;
use super::near::near;
use crate::model::{Name, Refusal};

/// Result of a mapping, with the configured paths that found no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The mapped event, or the refusal.
    pub mapped: Result<Mapped, Refusal>,
    /// Paths that found no value, in the order in which they were followed.
    pub notes: Vec<PathMiss>,
}

/// A configured path that found no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMiss {
    /// The parameter, or `thread`.
    pub of: &'static str,
    /// The path as written.
    pub path: String,
    /// Reason why there is no value.
    pub miss: MissCause,
    /// A similar path that leads to a value, for a path that leads nowhere.
    pub near: Option<String>,
}

/// Reason why a path found no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissCause {
    /// The document has no such place.
    Nowhere,
    /// The value is null.
    Null,
    /// The value is an empty text.
    Empty,
    /// The value is a list or an object, where a text is wanted.
    Many,
}

/// Adds a similar path to each path that led nowhere.
pub(super) fn look_around(notes: &mut [PathMiss], document: &serde_json::Value) {
    for note in notes
        .iter_mut()
        .filter(|note| note.miss == MissCause::Nowhere)
    {
        note.near = near(document, &note.path);
    }
}

impl MissCause {
    /// Judges the piece that a path leads to; returns nothing for a value.
    pub(super) fn of(raw: Option<&str>, name: Name) -> Option<Self> {
        match raw {
            None => Some(Self::Nowhere),
            Some("null") => Some(Self::Null),
            Some("\"\"") => Some(Self::Empty),
            Some(raw) if raw.starts_with(['{', '[']) && name != Name::Prompt => Some(Self::Many),
            Some(_) => None,
        }
    }

    /// The cause as words that follow the path in a sentence.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nowhere => "leads nowhere",
            Self::Null => "leads to null",
            Self::Empty => "leads to an empty text",
            Self::Many => "leads to a list or an object where a text is wanted",
        }
    }
}
