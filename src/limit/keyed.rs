//! A limiter per key, with a bounded number of keys: those that have been idle long enough to be like new are
//! forgotten, and in a flood of new keys the table starts afresh rather than grow.

use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

use super::limiter::{Built, Left};
use super::share::Share;
use crate::config::Rate;

/// Keys that a table holds at most.
const MAX_KEYS: usize = 100_000;

/// How many checks lie between two looks at the size of the table.
const LOOK_EVERY: usize = 1024;

type PerKey<K> = RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// A limiter per key.
pub struct Keyed<K: Hash + Eq + Clone> {
    rate: Rate,
    share: Share,
    built: ArcSwap<Built<PerKey<K>>>,
    checks: AtomicUsize,
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    /// A share of the same rate for every key.
    pub fn new(rate: Rate, share: Share) -> Self {
        let built = Built::new(rate, share.processes(), keyed);
        Self { rate, share, built: ArcSwap::from_pointee(built), checks: AtomicUsize::new(0) }
    }

    /// Counts one and says what is left; over the limit, when to come back.
    pub fn check(&self, key: &K) -> Result<Left, Left> {
        let processes = self.share.processes();
        let mut built = self.built.load();
        let look = self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY);
        if look && built.limiter.len() > MAX_KEYS {
            built.limiter.retain_recent();
        }
        if !built.fits(self.rate, processes) || look && built.limiter.len() > MAX_KEYS {
            self.built.store(Built::new(self.rate, processes, keyed).into());
            built = self.built.load();
        }
        match built.limiter.check_key_n(key, processes) {
            Ok(Ok(snapshot)) => Ok(Left::of(self.rate, processes, &snapshot)),
            Ok(Err(until)) => Err(Left::none(self.rate, until.wait_time_from(built.limiter.clock().now()))),
            // It is built so that one request always fits.
            Err(_) => Err(Left::none(self.rate, self.rate.per)),
        }
    }
}

fn keyed<K: Hash + Eq + Clone>(quota: Quota) -> PerKey<K> {
    RateLimiter::keyed(quota).with_middleware()
}

impl<K: Hash + Eq + Clone> fmt::Debug for Keyed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("rate", &self.rate).field("keys", &self.built.load().limiter.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn keys_do_not_share_and_the_table_is_bounded() {
        let keyed = Keyed::new(Rate { count: 1, per: Duration::from_secs(3600) }, Share::default());
        assert!(keyed.check(&1_u64).is_ok());
        assert!(keyed.check(&1).is_err());
        assert!(keyed.check(&2).is_ok());
        for key in 10..250_000 {
            let _ = keyed.check(&key);
        }
        assert!(keyed.built.load().limiter.len() <= MAX_KEYS + LOOK_EVERY);
    }

    #[test]
    fn each_key_has_this_process_s_share() {
        let keyed = Keyed::new(Rate { count: 6, per: Duration::from_secs(3600) }, Share::among(3));
        for key in [1_u64, 2] {
            assert!(keyed.check(&key).is_ok() && keyed.check(&key).is_ok() && keyed.check(&key).is_err());
        }
    }
}
