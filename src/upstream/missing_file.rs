//! Files of an event that are not sent with its run.

/// A file of an event that is not sent with the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingFile {
    /// Its number among the files of the call.
    pub number: usize,
    /// The reason, in words of the gateway alone: they stand in the system prompt.
    pub sentence: String,
    /// The name that its sender gave it.
    pub name: String,
}
