//! Settling a delivery: ending its lease with the verdict of the attempt.

use std::time::Duration;

use super::Dispatcher;
use super::verdict::Verdict;
use crate::inbox::{Claimed, InboxError, Next, Settled, Settlement};
use crate::model::{Attempt, DeliveryState, Timestamp};

/// The shortest and the longest wait after a failure to settle.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

impl Dispatcher {
    /// Ends the lease. The inbox is ours alone or says who took the lease, so a failure is tried again until it ends.
    pub(super) async fn settle(&self, claimed: &Claimed, verdict: Verdict, started_at: Timestamp) {
        let state = match &verdict.next {
            Next::Delivered(_) => Some(DeliveryState::Delivered),
            Next::Dead(_) => Some(DeliveryState::Dead),
            Next::Unknown => Some(DeliveryState::Unknown),
            Next::Retry { .. } | Next::Released { .. } => None,
        };
        let settlement = Settlement {
            id: Some(claimed.id),
            key: claimed.key,
            lane: claimed.lane,
            fence: claimed.fence,
            attempt: Attempt {
                number: claimed.attempt,
                started_at,
                ended_at: self.clock.now(),
                result: verdict.result.to_owned(),
                status: verdict.status,
                detail: verdict.detail,
            },
            next: verdict.next,
            owes: verdict.owes,
            progress: verdict.progress,
        };
        let mut wait = FIRST_WAIT;
        loop {
            match self.inbox.settle(settlement.clone()).await {
                Ok(Settled::Done) => {
                    if let Some(state) = state {
                        self.metrics.deliveries(&claimed.source, state.as_str(), 1);
                    }
                    return;
                }
                Ok(Settled::Stale) => {
                    tracing::warn!(delivery = %claimed.id, "settled too late: the lease had passed on");
                    return;
                }
                // The inbox is closed for good: the next start finds the lease and the doubt.
                Err(InboxError::Closed) => return,
                Err(error) => {
                    tracing::error!(delivery = %claimed.id, %error, "cannot settle, trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }
}
