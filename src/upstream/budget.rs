//! How many requests the upstream may get: runs and questions for runs draw on one budget, each waiting for its turn.

use std::time::Duration;

use crate::config::Rate;
use crate::limit::{Limiter, Share};

/// A budget; without a rate there is always a turn.
#[derive(Debug)]
pub(super) struct Budget(Option<Limiter>);

impl Budget {
    /// This process's share of a rate. The whole count may go at once, and comes back evenly.
    pub(super) fn new(rate: Option<Rate>, share: Share) -> Self {
        Self(rate.map(|rate| Limiter::new(rate, share)))
    }

    /// Waits for a turn, and takes it. Whoever gives up waiting has taken none.
    pub(super) async fn turn(&self) {
        let Some(limiter) = &self.0 else { return };
        while let Err(wait) = limiter.check() {
            // A little more, so that those who wait do not all come back at the same moment.
            let more = Duration::from_micros(fastrand::u64(0..20_000));
            tokio::time::sleep(wait + more).await;
        }
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
        let budget = Budget::new(Some(Rate { count: 2, per: Duration::from_millis(400) }), Share::default());
        assert!(!waits(&budget).await && !waits(&budget).await);
        assert!(waits(&budget).await, "the third is over it");
        budget.turn().await;
        let none = Budget::new(None, Share::default());
        for _ in 0..1000 {
            none.turn().await;
        }
    }
}
