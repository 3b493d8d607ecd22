//! How many requests are in work, and who is told to come back when there are too many: first whoever asks for what is
//! not there, then senders that try again by themselves, and only when nothing is left those that never do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::refuse;
use crate::model::Refusal;
use crate::source::Source;

/// The requests in work.
#[derive(Debug)]
pub struct Load {
    now: AtomicUsize,
    most: usize,
}

/// How much is lost when a request is turned away, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// Nothing answers at its path.
    Unknown,
    /// Its sender tries again.
    Retrying,
    /// Its sender never does.
    Once,
}

/// A request in work, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Load>);

impl Load {
    /// None yet, and at most so many.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { now: AtomicUsize::new(0), most })
    }

    /// Takes a request in, if there is room for one of its rank.
    pub(super) fn enter(self: &Arc<Self>, rank: Rank) -> Result<Slot, Refusal> {
        let bound = match rank {
            Rank::Unknown => self.most / 2,
            Rank::Retrying => self.most - self.most / 8,
            Rank::Once => self.most,
        };
        // Counted first and judged then, so that no two take the last place.
        let slot = Slot(self.clone());
        if self.now.fetch_add(1, Ordering::AcqRel) < bound.max(1) {
            Ok(slot)
        } else {
            Err(Refusal::Overloaded(refuse::retry_soon()))
        }
    }
}

impl Rank {
    /// The rank of a source's senders.
    pub(super) const fn of(source: &Source) -> Self {
        if source.sender_retries { Self::Retrying } else { Self::Once }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t42_unknown_paths_are_shed_first_and_senders_that_never_retry_last() {
        let load = Load::new(16);
        let mut slots: Vec<Slot> = (0..8).map(|_| load.enter(Rank::Unknown).unwrap()).collect();
        assert!(matches!(load.enter(Rank::Unknown), Err(Refusal::Overloaded(_))));
        slots.extend((8..14).map(|_| load.enter(Rank::Retrying).unwrap()));
        assert!(load.enter(Rank::Retrying).is_err());
        slots.extend((14..16).map(|_| load.enter(Rank::Once).unwrap()));
        assert!(load.enter(Rank::Once).is_err());
        slots.pop();
        assert!(load.enter(Rank::Once).is_ok());
        drop(slots);
        assert_eq!(load.now.load(Ordering::Acquire), 0);
    }
}
