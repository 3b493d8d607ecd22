//! A file that a payload names and a channel keeps.

use crate::model::attachment::cleaned_name;

/// A file that a payload names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The channel's id of it.
    pub id: String,
    /// Its name, where the payload has one.
    pub name: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) address: Option<String>,
}

impl NamedFile {
    /// Its name or else its id, cleaned.
    pub fn shown(&self) -> String {
        cleaned_name(self.name.as_deref().unwrap_or(&self.id))
    }

    /// The type that its sender gave it.
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }
}
