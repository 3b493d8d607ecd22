//! Kinds of doors, as far as their log lines and the words of their refusals differ.

use std::sync::Arc;

/// A door of the public listener, as far as doors differ in their log lines and in the words of a refusal.
pub(super) enum Door {
    /// Sources, and all paths that no other door answers.
    Source,
    /// The stand-in for the hosted webhook.
    DropIn,
    /// A prefix that is passed through, with the name that counters and logs give it.
    Prefix(Arc<str>),
    /// Links to files.
    File,
}

/// The name of a door in counters and log lines.
pub(super) enum DoorLabel {
    None,
    DropIn,
    Prefix(Arc<str>),
}

/// The words of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wording {
    /// A sentence, a code and the request's id.
    Source,
    /// The hosted webhook's own.
    Hosted,
}

impl Door {
    pub(super) const fn wording(&self) -> Wording {
        match self {
            Self::DropIn => Wording::Hosted,
            Self::Source | Self::Prefix(_) | Self::File => Wording::Source,
        }
    }

    pub(super) fn label(&self) -> DoorLabel {
        match self {
            Self::Source | Self::File => DoorLabel::None,
            Self::DropIn => DoorLabel::DropIn,
            Self::Prefix(label) => DoorLabel::Prefix(label.clone()),
        }
    }

    /// Text that is logged in place of the path, where the path holds a key.
    pub(super) const fn masked_path(&self) -> Option<&'static str> {
        match self {
            Self::File => Some("/files/***"),
            Self::Source | Self::DropIn | Self::Prefix(_) => None,
        }
    }
}

impl DoorLabel {
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::DropIn => Some(super::dropin::NAME),
            Self::Prefix(label) => Some(label),
        }
    }
}
