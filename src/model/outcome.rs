//! Outcome of a request. Every request ends in exactly one.

/// Outcome of a request at a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Kept, and owed to its destinations.
    Accepted,
    /// Known already; answered with the first one's id.
    Duplicate,
    /// Not kept: what proves it was used before. Answered as a duplicate, with the first one's id.
    Replayed,
    /// Kept, but not passed on: a filter said so.
    Filtered,
    /// Kept, but not passed on: it could not be mapped.
    Unmappable,
    /// A provider's challenge, answered at the edge.
    Challenged,
    /// Passed on to the upstream at once; not kept.
    Proxied,
    /// A caller was shown what became of its event, or what its call would become.
    Shown,
    /// Not accepted.
    Refused,
}

impl Outcome {
    /// A stable word for counters and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Replayed => "replayed",
            Self::Filtered => "filtered",
            Self::Unmappable => "unmappable",
            Self::Challenged => "challenged",
            Self::Proxied => "proxied",
            Self::Shown => "shown",
            Self::Refused => "refused",
        }
    }

    /// The word that whoever brought it hears. What was played again is a duplicate to its sender, and what could not be
    /// mapped is accepted: mending the mapping is the operator's matter.
    pub const fn told(self) -> &'static str {
        match self {
            Self::Replayed => Self::Duplicate.as_str(),
            Self::Unmappable => Self::Accepted.as_str(),
            other => other.as_str(),
        }
    }
}
