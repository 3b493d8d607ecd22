//! Why a mapping found what it found: told to whoever writes one, from the same steps that map events.

use super::Mapped;
use super::near::near;
use crate::model::{Name, Refusal};

/// What a mapping made of a request, and what it looked for in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What came of it.
    pub mapped: Result<Mapped, Refusal>,
    /// Configured paths that gave no value, in the order in which they were followed.
    pub notes: Vec<PathMiss>,
}

/// A configured path that gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMiss {
    /// The parameter, or `thread`.
    pub of: &'static str,
    /// The path as written.
    pub path: String,
    /// What stands at its end.
    pub miss: MissCause,
    /// A path like it that leads to a value, where it leads nowhere.
    pub near: Option<String>,
}

/// What stands at the end of a path that gave no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissCause {
    /// Nothing.
    Nowhere,
    /// Null.
    Null,
    /// A text of no length.
    Empty,
    /// A list or an object, where a text is wanted.
    Many,
}

/// Looks for paths like those that led nowhere.
pub(super) fn look_around(notes: &mut [PathMiss], document: &serde_json::Value) {
    for note in notes
        .iter_mut()
        .filter(|note| note.miss == MissCause::Nowhere)
    {
        note.near = near(document, &note.path);
    }
}

impl MissCause {
    /// Judges what a path leads to; none if it is a value.
    pub(super) fn of(raw: Option<&str>, name: Name) -> Option<Self> {
        match raw {
            None => Some(Self::Nowhere),
            Some("null") => Some(Self::Null),
            Some("\"\"") => Some(Self::Empty),
            Some(raw) if raw.starts_with(['{', '[']) && name != Name::Prompt => Some(Self::Many),
            Some(_) => None,
        }
    }

    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nowhere => "leads nowhere",
            Self::Null => "leads to null",
            Self::Empty => "leads to an empty text",
            Self::Many => "leads to a list or an object where a text is wanted",
        }
    }
}
