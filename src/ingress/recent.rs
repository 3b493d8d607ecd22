//! Names that were seen lately: each is remembered for a while, and a bounded number of them.
//!
//! They are kept in two halves. The older half is dropped whole when the younger is full, so no half is ever searched.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Names for a while.
#[derive(Debug)]
pub(super) struct Recent<K> {
    time: Duration,
    half: usize,
    young: HashMap<K, Instant>,
    old: HashMap<K, Instant>,
}

impl<K: Hash + Eq> Recent<K> {
    /// Remembers each for `time`, and twice `half` of them at most.
    pub(super) fn new(time: Duration, half: usize) -> Self {
        Self {
            time,
            half,
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    /// Remembers a name from now on.
    pub(super) fn keep(&mut self, name: K, now: Instant) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, now + self.time);
    }

    /// True if a name is remembered.
    pub(super) fn holds(&self, name: &K, now: Instant) -> bool {
        self.young
            .get(name)
            .or_else(|| self.old.get(name))
            .is_some_and(|until| *until > now)
    }

    /// Forgets a name.
    pub(super) fn remove(&mut self, name: &K) {
        self.young.remove(name);
        self.old.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_ends() {
        let time = Duration::from_secs(300);
        let (mut recent, now) = (Recent::new(time, 1000), Instant::now());
        (0..100_000).for_each(|number| recent.keep(number, now));
        assert!(recent.young.len() + recent.old.len() <= 2000);
        assert!(recent.holds(&99_999, now) && !recent.holds(&1, now));
        assert!(!recent.holds(&99_999, now + time));
        recent.remove(&99_999);
        assert!(!recent.holds(&99_999, now));
    }
}
