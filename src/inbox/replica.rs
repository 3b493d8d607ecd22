//! Processes that share an inbox.

/// Standing of a process among those that share the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its leases are good, so it may call upstream. False: others may have taken its work over; calls in flight are
    /// to be broken off.
    pub good: bool,
    /// Number of processes, this one among them.
    pub replicas: u32,
}
