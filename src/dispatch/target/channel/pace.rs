//! The pace of calls to channels: rates of a chat and of a token, each counted over all calls of a source.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::channel::{PaceLimit, WaitScope};
use crate::config::Rate;
use crate::limit::Share;
use crate::limit::keyed::Keyed;

/// Limiters by the name of the source and the number of the rule.
type RuleLimiters = HashMap<(String, String), Arc<Keyed<u64>>>;

/// Rates by the source and the number of the rule, each with a limiter for every chat or token.
pub(super) struct Paces {
    share: Share,
    rules: Mutex<RuleLimiters>,
    names: RandomState,
}

/// A wait of a call for its rate.
pub(super) struct PaceWait {
    pub(super) time: Duration,
    /// Calls that wait with it.
    pub(super) scope: WaitScope,
}

impl Paces {
    pub(super) fn new(share: Share) -> Self {
        Self {
            share,
            rules: Mutex::default(),
            names: RandomState::new(),
        }
    }

    /// Counts a call. The time that it has to wait, if it may not be made now.
    pub(super) fn wait(&self, source: &str, limits: &[PaceLimit]) -> Option<PaceWait> {
        limits.iter().find_map(|limit| {
            let limiter = self.limiter(source, limit);
            let key = self.names.hash_one(&limit.key);
            let over = limiter.check(&key).err()?;
            Some(PaceWait {
                time: over.reset,
                scope: limit.scope,
            })
        })
    }

    fn limiter(&self, source: &str, limit: &PaceLimit) -> Arc<Keyed<u64>> {
        let rate = rate(limit);
        let number = limit.key.split('/').next().unwrap_or_default();
        let mut rules = self.rules.lock();
        let limiter = rules
            .entry((source.to_owned(), number.to_owned()))
            .or_insert_with(|| Arc::new(Keyed::new(rate, self.share.clone())));
        limiter.clone()
    }
}

/// The rate of a limit. Without a number of calls at once, calls come one by one.
fn rate(limit: &PaceLimit) -> Rate {
    let count = limit.burst.unwrap_or(1).max(1);
    let per = limit
        .rate
        .per
        .mul_f64(f64::from(count) / f64::from(limit.rate.count.max(1)));
    Rate { count, per }
}
