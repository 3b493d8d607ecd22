//! Leases that a claim makes.

use uuid::Uuid;

use crate::model::Timestamp;

/// A lease, before its event is read.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) key: i64,
    pub(super) event: i64,
    pub(super) lane: Uuid,
    pub(super) fence: i64,
    pub(super) attempt: u32,
    pub(super) strikes: u32,
    pub(super) doubt: Option<Timestamp>,
    pub(super) at: Timestamp,
    pub(super) grouped: bool,
    pub(super) dropped: u32,
}
