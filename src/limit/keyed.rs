//! A limiter per key, with a bounded number of keys: those that have been idle long enough to be like new are
//! forgotten, and in a flood of new keys the table starts afresh rather than grow.

use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Keys that a table holds at most.
const MAX_KEYS: usize = 100_000;

/// How many checks lie between two looks at the size of the table.
const LOOK_EVERY: usize = 1024;

/// A limiter per key.
pub struct Keyed<K: Hash + Eq + Clone> {
    quota: Quota,
    limiter: arc_swap::ArcSwap<DefaultKeyedRateLimiter<K>>,
    checks: AtomicUsize,
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    /// The same quota for every key.
    pub fn new(quota: Quota) -> Self {
        Self { quota, limiter: arc_swap::ArcSwap::from_pointee(RateLimiter::keyed(quota)), checks: AtomicUsize::new(0) }
    }

    /// Counts one; over the limit, says how long to wait.
    pub fn check(&self, key: &K) -> Result<(), Duration> {
        let limiter = self.limiter.load();
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY) && limiter.len() > MAX_KEYS {
            limiter.retain_recent();
            if limiter.len() > MAX_KEYS {
                self.limiter.store(RateLimiter::keyed(self.quota).into());
            }
        }
        limiter.check_key(key).map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for Keyed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("quota", &self.quota).field("keys", &self.limiter.load().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn keys_do_not_share_and_the_table_is_bounded() {
        let keyed = Keyed::new(Quota::per_hour(NonZeroU32::MIN));
        assert!(keyed.check(&1_u64).is_ok());
        assert!(keyed.check(&1).is_err());
        assert!(keyed.check(&2).is_ok());
        for key in 10..250_000 {
            let _ = keyed.check(&key);
        }
        assert!(keyed.limiter.load().len() <= MAX_KEYS + LOOK_EVERY);
    }
}
