//! An inbox that was put back from a backup.

/// The contents of an inbox that was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reopened {
    /// Number of events.
    pub events: u64,
    /// Number of deliveries that were open. They may have run since the backup was made, so each is in doubt now.
    pub deliveries: usize,
}

/// Time before an event came from which its open delivery is in doubt, in milliseconds. Clocks may differ: a record of the
/// upstream counts as earlier than the delivery only if it is surely so.
pub(super) const MARGIN: i64 = 120_000;
