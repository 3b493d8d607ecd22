//! Processes that share an inbox.

/// Standing of a process among those that share the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its leases are good, so it may call upstream. False: others may have taken its work over; calls in flight are
    /// to be broken off.
    pub good: bool,
    /// Number of its standing. A process that loses its standing comes back under another number; what it claimed before
    /// may be somebody else's.
    pub generation: i64,
    /// Number of processes, this one among them.
    pub replicas: u32,
}
