//! Load shedding: bounds on the requests in work and on their wait for the inbox. Requests at unknown paths are refused
//! first, then requests of senders that try again by themselves, and last requests of senders that never do.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::refuse;
use crate::intake::CommitQueue;
use crate::model::{Refusal, bucket};
use crate::source::Source;

/// The requests in work.
#[derive(Debug)]
pub struct LoadShed {
    now: AtomicUsize,
    most: usize,
    /// The requests that came when half of the places were taken, by address.
    late: Mutex<HashMap<IpAddr, usize>>,
    queue: Arc<CommitQueue>,
}

/// Loss when a request is refused, the least first.
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
pub(super) struct LoadPermit {
    load: Arc<LoadShed>,
    /// The caller's address, where that is counted.
    late: Option<IpAddr>,
}

impl LoadShed {
    /// Load shedding with at most this many requests in work.
    pub fn new(most: usize, queue: Arc<CommitQueue>) -> Arc<Self> {
        Arc::new(Self {
            now: AtomicUsize::new(0),
            most,
            late: Mutex::default(),
            queue,
        })
    }

    /// Takes a request in, if there is room for one of its rank.
    pub(super) fn enter(self: &Arc<Self>, rank: Rank, peer: IpAddr) -> Result<LoadPermit, Refusal> {
        self.enter_at(rank, peer, Instant::now())
    }

    /// Takes a request in that will not wait for the inbox, if there is room for one of its rank.
    pub(super) fn enter_beside(
        self: &Arc<Self>,
        rank: Rank,
        peer: IpAddr,
    ) -> Result<LoadPermit, Refusal> {
        self.slot(rank.bound(self.most), peer)
    }

    fn enter_at(
        self: &Arc<Self>,
        rank: Rank,
        peer: IpAddr,
        now: Instant,
    ) -> Result<LoadPermit, Refusal> {
        if self.queue.wait(now) >= rank.patience() {
            return Err(full());
        }
        self.slot(rank.bound(self.most), peer)
    }

    /// The last eighth of the places is not for an address that has an eighth of all: one connection can have a hundred
    /// requests in work.
    fn slot(self: &Arc<Self>, bound: usize, peer: IpAddr) -> Result<LoadPermit, Refusal> {
        // Counted first and judged then, so that no two take the last place.
        let mut slot = LoadPermit {
            load: self.clone(),
            late: None,
        };
        let before = self.now.fetch_add(1, Ordering::AcqRel);
        if before >= bound.max(1) {
            return Err(full());
        }
        if before >= self.most / 2 {
            let address = bucket(peer);
            let mut late = self.late.lock();
            let mine = late.entry(address).or_default();
            if before >= bound - bound / 8 && *mine >= self.most / 8 {
                return Err(full());
            }
            *mine += 1;
            slot.late = Some(address);
        }
        Ok(slot)
    }
}

impl Rank {
    /// The rank of a source's senders.
    pub(super) const fn of(source: &Source) -> Self {
        if source.sender_retries {
            Self::Retrying
        } else {
            Self::Once
        }
    }

    /// The number of requests in work below which one more of this rank is taken in.
    const fn bound(self, most: usize) -> usize {
        match self {
            Self::Unknown => most / 2,
            Self::Retrying => most - most / 8,
            Self::Once => most,
        }
    }

    /// The wait for the inbox below which one more request of this rank is taken in.
    const fn patience(self) -> Duration {
        match self {
            Self::Unknown => Duration::from_millis(100),
            Self::Retrying => Duration::from_millis(250),
            Self::Once => Duration::from_secs(1),
        }
    }
}

fn full() -> Refusal {
    Refusal::Overloaded(refuse::retry_soon())
}

impl Drop for LoadPermit {
    fn drop(&mut self) {
        if let Some(address) = self.late {
            let mut late = self.load.late.lock();
            if let Some(mine) = late.get_mut(&address) {
                *mine -= 1;
                if *mine == 0 {
                    late.remove(&address);
                }
            }
        }
        self.load.now.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::SHORT_QUEUE;

    fn address(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[test]
    fn t42_unknown_paths_are_shed_first_and_senders_that_never_retry_last() {
        let load = LoadShed::new(16, CommitQueue::new());
        let enter = |rank, number| load.enter(rank, address(number));
        let mut slots: Vec<LoadPermit> = (0..8).map(|_| enter(Rank::Unknown, 0).unwrap()).collect();
        assert!(matches!(
            enter(Rank::Unknown, 0),
            Err(Refusal::Overloaded(_))
        ));
        slots.extend((8..14).map(|number| enter(Rank::Retrying, number).unwrap()));
        assert!(enter(Rank::Retrying, 14).is_err());
        slots.extend((14..16).map(|number| enter(Rank::Once, number).unwrap()));
        assert!(enter(Rank::Once, 16).is_err());
        slots.pop();
        assert!(enter(Rank::Once, 16).is_ok());
        drop(slots);
        assert_eq!(load.now.load(Ordering::Acquire), 0);
        assert!(load.late.lock().is_empty());
    }

    #[test]
    fn s11_the_last_places_are_not_for_an_address_that_has_many() {
        let load = LoadShed::new(64, CommitQueue::new());
        let take = |number| load.enter(Rank::Once, address(number)).ok();
        let one: Vec<LoadPermit> = std::iter::from_fn(|| take(1)).collect();
        assert_eq!(one.len(), 56);
        let other: Vec<LoadPermit> = std::iter::from_fn(|| take(2)).collect();
        assert_eq!(other.len(), 8);
        drop(one);
        assert!(take(1).is_some());
    }

    #[test]
    fn t42_a_long_queue_that_moves_slowly_takes_no_more_and_a_short_one_does() {
        let load = LoadShed::new(8192, CommitQueue::new());
        let queue = &load.queue;
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let ranks = [Rank::Unknown, Rank::Retrying, Rank::Once];
        let may = |now| ranks.map(|rank| load.enter_at(rank, address(1), now).is_ok());
        (1..SHORT_QUEUE).for_each(|_| queue.enter(at(0)));
        assert_eq!(may(at(60_000)), [true; 3], "few wait, however long");
        queue.enter(at(60_000));
        assert_eq!(
            may(at(60_000)),
            [false; 3],
            "nothing has moved for a minute"
        );
        assert!(
            load.enter_beside(Rank::Retrying, address(1)).is_ok(),
            "what is passed on waits for no inbox"
        );
        (0..SHORT_QUEUE).for_each(|_| queue.leave(at(0), at(60_000)));
        assert_eq!(may(at(60_000)), [true; 3]);

        (0..SHORT_QUEUE + 100).for_each(|_| queue.enter(at(70_000)));
        assert_eq!(may(at(70_010)), [true; 3], "they have just come");
        for (now, expected) in [
            (90, [true; 3]),
            (150, [false, true, true]),
            (350, [false, false, true]),
        ] {
            queue.leave(at(70_000), at(70_000 + now));
            assert_eq!(may(at(70_000 + now)), expected, "{now} ms");
        }
        assert_eq!(may(at(71_400)), [false; 3]);
        (0..98).for_each(|_| queue.leave(at(70_000), at(71_400)));
        assert_eq!(may(at(71_400)), [true; 3], "it is short again");
    }
}
