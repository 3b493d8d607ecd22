//! An inbox that was put back from a backup.

/// The contents of an inbox that was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reopened {
    /// Number of events.
    pub events: u64,
    /// Number of deliveries that were open. They may have run since the backup was made, so each is in doubt now.
    pub deliveries: usize,
}
