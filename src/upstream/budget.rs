//! How many requests the upstream may get: runs and questions for runs draw on one budget, each waiting for its turn.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::config::Rate;

/// A budget; without a rate there is always a turn.
pub(super) struct Budget(Option<DefaultDirectRateLimiter>);

impl Budget {
    /// The budget of a rate. The whole count may go at once, and comes back evenly.
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self(rate.map(|rate| {
            let count = NonZeroU32::new(rate.count).unwrap_or(NonZeroU32::MIN);
            let quota = Quota::with_period(rate.per / count.get());
            RateLimiter::direct(quota.map_or_else(|| Quota::per_second(count), |quota| quota.allow_burst(count)))
        }))
    }

    /// Waits for a turn, and takes it. Whoever gives up waiting has taken none.
    pub(super) async fn turn(&self) {
        let Some(limiter) = &self.0 else { return };
        while let Err(until) = limiter.check() {
            let wait = until.wait_time_from(DefaultClock::default().now());
            // A little more, so that those who wait do not all come back at the same moment.
            let more = Duration::from_micros(fastrand::u64(0..20_000));
            tokio::time::sleep(wait + more).await;
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Budget" } else { "Budget(none)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waits(budget: &Budget) -> bool {
        tokio::time::timeout(Duration::from_millis(50), budget.turn()).await.is_err()
    }

    #[tokio::test]
    async fn turns_beyond_the_budget_wait_and_come() {
        let budget = Budget::new(Some(Rate { count: 2, per: Duration::from_millis(400) }));
        assert!(!waits(&budget).await && !waits(&budget).await);
        assert!(waits(&budget).await, "the third is over it");
        budget.turn().await;
        let none = Budget::new(None);
        for _ in 0..1000 {
            none.turn().await;
        }
    }
}
