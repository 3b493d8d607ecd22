//! Limit on uploads at once.
//!
//! Promises: the drop-in and the sources have the same number of places each, and neither takes those of the other.
//! Unknown callers get at most a quarter of the places from one address, and three quarters in all; the rest is for callers
//! that were proved lately, or that show a key that is known to be good.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::recent::Recent;
use super::refuse;
use crate::model::{Refusal, bucket};

/// Time for which an address counts as known after a proved upload.
const KNOWN: Duration = Duration::from_secs(24 * 3600);

/// Number of known addresses that are remembered, in each of two halves.
const HALF: usize = 4096;

/// The places of both kinds of doors.
#[derive(Debug)]
pub struct UploadLimit {
    sources: Arc<Pool>,
    dropin: Arc<Pool>,
    /// Source and address of uploads that were proved.
    known: Mutex<Recent<u64>>,
    names: RandomState,
}

#[derive(Debug)]
struct Pool {
    most: usize,
    taken: Mutex<Uploads>,
}

#[derive(Debug, Default)]
struct Uploads {
    whole: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct UploadPermit {
    pool: Arc<Pool>,
    address: IpAddr,
}

impl UploadLimit {
    /// A limit of this many places each.
    pub fn new(most: usize) -> Arc<Self> {
        let pool = || {
            Arc::new(Pool {
                most: most.max(1),
                taken: Mutex::default(),
            })
        };
        let known = Mutex::new(Recent::new(KNOWN, HALF));
        Arc::new(Self {
            sources: pool(),
            dropin: pool(),
            known,
            names: RandomState::new(),
        })
    }

    /// One at a source.
    pub(super) fn at_source(&self, source: &str, address: IpAddr) -> Result<UploadPermit, Refusal> {
        let is_known = self
            .known
            .lock()
            .holds(&self.name(source, address), Instant::now());
        self.sources.take(address, is_known)
    }

    /// One at the drop-in. `is_known`: its caller shows a key that is known to be good.
    pub(super) fn at_dropin(
        &self,
        address: IpAddr,
        is_known: bool,
    ) -> Result<UploadPermit, Refusal> {
        self.dropin.take(address, is_known)
    }

    /// An upload from this address was proved at this source.
    pub(super) fn proved(&self, source: &str, address: IpAddr) {
        let name = self.name(source, address);
        self.known.lock().keep(name, Instant::now());
    }

    fn name(&self, source: &str, address: IpAddr) -> u64 {
        self.names.hash_one((source, bucket(address)))
    }
}

impl Pool {
    fn take(self: &Arc<Self>, address: IpAddr, is_known: bool) -> Result<UploadPermit, Refusal> {
        let address = bucket(address);
        let mut taken = self.taken.lock();
        let Uploads { whole, by_address } = &mut *taken;
        let mine = by_address.get(&address).copied().unwrap_or(0);
        let (all, each) = match is_known {
            true => (self.most, self.most),
            false => (self.most - self.most / 4, (self.most / 4).max(1)),
        };
        if *whole >= all || mine >= each {
            return Err(Refusal::Overloaded(refuse::retry_soon()));
        }
        *whole += 1;
        by_address.insert(address, mine + 1);
        Ok(UploadPermit {
            pool: self.clone(),
            address,
        })
    }
}

impl Drop for UploadPermit {
    fn drop(&mut self) {
        let mut taken = self.pool.taken.lock();
        taken.whole -= 1;
        if let Some(mine) = taken.by_address.get_mut(&self.address) {
            *mine -= 1;
            if *mine == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[test]
    fn s14_strangers_leave_places_to_whoever_is_known() {
        let places = UploadLimit::new(32);
        let fill = |number: u8| {
            let take = || places.at_source("s", address(number)).ok();
            std::iter::from_fn(take).collect::<Vec<_>>()
        };
        let mut held = fill(1);
        assert_eq!(held.len(), 8, "a quarter");
        held.extend((2..200).flat_map(fill));
        assert_eq!(held.len(), 24, "three quarters");
        places.proved("s", address(200));
        assert!(places.at_source("other", address(200)).is_err());
        held.extend(fill(200));
        assert_eq!(held.len(), 32);
        assert!(
            places.at_dropin(address(1), false).is_ok(),
            "the drop-in has its own"
        );
        drop(held);
        let taken = places.sources.taken.lock();
        assert_eq!((taken.whole, taken.by_address.len()), (0, 0));
    }

    #[test]
    fn one_place_is_one_for_anybody() {
        let places = UploadLimit::new(1);
        let one = places.at_dropin(address(1), false).unwrap();
        assert!(places.at_dropin(address(2), true).is_err());
        drop(one);
        assert!(places.at_dropin(address(2), false).is_ok());
    }
}
