//! Following a run that has not ended: asking the service at growing intervals until it ends.

use std::time::Duration;

use super::attempt::{DeliveryAttempt, SentDelivery};
use super::run_identity::{RunOwner, owner_of};
use super::target::Shipment;
use super::verdict::{RestRequest, Verdict};
use crate::model::{AttemptResult, Lookup, Run, Timestamp};

/// The shortest and the longest wait between two questions.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// The number of times a service may say that it does not know a run which it has accepted, before it is believed.
const MOST_NOT_FOUND: u32 = 3;

impl DeliveryAttempt<'_> {
    /// Follows a run to its end, or for as long as the operator allows.
    pub(super) async fn follow(
        &self,
        shipment: &dyn Shipment,
        sent: SentDelivery,
    ) -> Result<SentDelivery, Verdict> {
        let AttemptResult::Ran(run) = sent.result else {
            return Ok(sent);
        };
        let since = sent.doubt.unwrap_or(sent.sent_at);
        let run = if run.status.is_final() {
            run
        } else {
            let last = self.last_state(shipment, run, since).await;
            last.ok_or_else(|| self.interrupted(Some(since)))?
        };
        Ok(SentDelivery {
            result: AttemptResult::Ran(run),
            ..sent
        })
    }

    /// The last state of a run that was seen. `None`: the program stops, or the lease is lost.
    async fn last_state(
        &self,
        shipment: &dyn Shipment,
        mut run: Run,
        since: Timestamp,
    ) -> Option<Run> {
        let dispatcher = self.dispatcher;
        let mut wait = FIRST_WAIT;
        let mut not_found = 0_u32;
        // A run that was only started may not show yet in a conversation's record.
        let may_show_earlier = shipment.is_started_only()
            && self.claimed.thread.is_some()
            && self.target.has_record_per_conversation();
        let earlier = match may_show_earlier {
            true => self.earlier_message().await.ok(),
            false => None,
        };
        while !run.status.is_final()
            && dispatcher.clock.now().since(since) < dispatcher.config.follow_timeout
        {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stopped() => return None,
            }
            wait = (wait * 3 / 2).min(LONGEST_WAIT);
            if !self.has_lease() {
                return None;
            }
            let lookup = tokio::select! {
                lookup = shipment.look_up() => lookup,
                () = self.stopped() => return None,
            };
            match lookup {
                Lookup::Found(now) => {
                    let owner = earlier
                        .as_ref()
                        .map(|earlier| owner_of(&now, earlier.beside(shipment.text(), since)));
                    if owner != Some(RunOwner::Earlier) {
                        run = now;
                    }
                }
                Lookup::NotFound => {
                    not_found += 1;
                    if not_found >= MOST_NOT_FOUND {
                        break;
                    }
                }
                Lookup::Unsupported(_) => break,
                Lookup::Failed {
                    status,
                    retry_after,
                    ..
                } => {
                    wait = wait.max(retry_after.unwrap_or_default());
                    if let Some(rest) = RestRequest::of(status, retry_after) {
                        let rest = rest.of_key(shipment.has_own_key());
                        dispatcher.rest(&self.claimed.route(), rest);
                    }
                }
            }
        }
        Some(run)
    }
}
