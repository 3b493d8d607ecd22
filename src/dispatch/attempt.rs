//! One attempt of a delivery, as a list of steps: prepare, resolve the doubt, send, follow, judge.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Dispatcher;
use super::breaker::Sign;
use super::target::{PrepareError, Shipment, Target};
use super::verdict::{Facts, Policy, Verdict, key_refused};
use crate::config::{Respond, SourceConfig};
use crate::inbox::{BudgetError, Claimed, CountedRun, Next};
use crate::model::{AttemptResult, Run, Timestamp};
use crate::upstream::Expected;
use tokio_util::sync::CancellationToken;

/// The time within which a call is written to the network if nothing is wrong with it.
const WRITTEN: Duration = Duration::from_millis(50);

/// One attempt of a claimed delivery.
pub(super) struct DeliveryAttempt<'a> {
    pub(super) dispatcher: &'a Dispatcher,
    pub(super) target: &'a dyn Target,
    pub(super) claimed: &'a Claimed,
    /// The standing of this process when it was claimed.
    pub(super) generation: i64,
    /// The configured source. A caller's own call needs none: everything that is sent is sealed with it.
    pub(super) source: Option<&'a SourceConfig>,
    /// True when the time for finishing work is over.
    pub(super) hurry: CancellationToken,
}

/// A delivery after it was sent, or after an earlier attempt of it was found to have been received.
pub(super) struct SentDelivery {
    pub(super) result: AttemptResult,
    /// The time since when it may have run without a known end, apart from this attempt.
    pub(super) doubt: Option<Timestamp>,
    pub(super) sent_at: Timestamp,
    /// It took as long as a run may take: that the end did not come is no sign of a broken service.
    pub(super) is_overdue: bool,
}

impl DeliveryAttempt<'_> {
    /// Tries the delivery once. `expected` is the request that was promised to the upstream's budget, if it goes there;
    /// `tries_key` is true if this attempt tries a key that the upstream refused.
    pub(super) async fn run(&self, expected: Option<Expected>, tries_key: bool) -> Verdict {
        if !self.has_lease() {
            return broken_off(self.dispatcher, self.claimed.doubt);
        }
        let mut verdict = if self.target.is_stepwise() {
            self.advance().await
        } else {
            let outcome = self.steps(expected, tries_key).await;
            outcome.unwrap_or_else(|early_end| early_end)
        };
        verdict.owes = self.target.owes(self.claimed, &verdict.next);
        verdict
    }

    /// One step of a delivery that takes several sends. What it runs out of time for may have been sent.
    async fn advance(&self) -> Verdict {
        let doubt = self.claimed.doubt;
        let Some(setting_out) = self.dispatcher.throttle.set_out(&self.claimed.route()) else {
            return paused(doubt);
        };
        let now = self.dispatcher.clock.now();
        tokio::select! {
            advance = written(self.target.advance(self.claimed), setting_out) => {
                Verdict::of_advance(advance)
            }
            () = self.stopped() => self.interrupted(doubt.or(Some(now))),
        }
    }

    async fn steps(&self, expected: Option<Expected>, tries_key: bool) -> Result<Verdict, Verdict> {
        let mut shipment = self.prepare().await?;
        if let Some(refused) = self.key_refusal(tries_key) {
            return Err(refused);
        }
        let has_own_key = shipment.has_own_key();
        let found = self
            .resolve_doubt(&*shipment)
            .await
            .map_err(|verdict| verdict.of_key(has_own_key))?;
        if !self.has_lease() {
            return Err(broken_off(self.dispatcher, self.claimed.doubt));
        }
        let sent = match found {
            Some(run) => {
                drop(expected);
                self.adopted(run)
            }
            None => self.send_once(&mut *shipment, expected).await?,
        };
        let sent = self.follow(&*shipment, sent).await?;
        Ok(self.judge(sent).of_key(has_own_key))
    }

    async fn prepare(&self) -> Result<Box<dyn Shipment + '_>, Verdict> {
        let doubt = self.claimed.doubt;
        let prepared = tokio::select! {
            prepared = self.target.prepare(self.claimed) => prepared,
            () = self.stopped() => return Err(self.interrupted(doubt)),
        };
        prepared.map_err(|error| match error {
            PrepareError::NotNow(why) => self.judge_unsent(why, doubt),
            PrepareError::Dead { result, detail } => {
                Verdict::unsent(Next::Dead(None), result, detail)
            }
        })
    }

    /// The verdict where the upstream has refused the gateway's key since the delivery was claimed.
    fn key_refusal(&self, tries_key: bool) -> Option<Verdict> {
        let (route, throttle) = (self.claimed.route(), &self.dispatcher.throttle);
        if tries_key
            || !self.uses_gateway_key()
            || !throttle.refuses_key(&route, &self.dispatcher.rules)
        {
            return None;
        }
        Some(Verdict::unsent(
            Next::Released {
                doubt: self.claimed.doubt,
            },
            "key_held",
            "the upstream refuses the gateway's own key; it was not sent".to_owned(),
        ))
    }

    /// The run that an earlier attempt has begun.
    fn adopted(&self, run: Run) -> SentDelivery {
        SentDelivery {
            result: AttemptResult::Ran(run),
            doubt: self.claimed.doubt,
            sent_at: self.dispatcher.clock.now(),
            is_overdue: false,
        }
    }

    /// Sends the delivery, unless an operator has paused it or a budget is spent.
    async fn send_once(
        &self,
        shipment: &mut (dyn Shipment + '_),
        expected: Option<Expected>,
    ) -> Result<SentDelivery, Verdict> {
        let dispatcher = self.dispatcher;
        if let Err(why) = shipment.complete().await {
            return Err(self.judge_unsent(why, None));
        }
        // A pause waits for this attempt from here on.
        let Some(setting_out) = dispatcher.throttle.set_out(&self.claimed.route()) else {
            return Err(paused(None));
        };
        let sent_at = dispatcher.clock.now();
        let counted = self.count_run(sent_at).await?;
        drop(expected);
        let begun = Instant::now();
        let result = tokio::select! {
            result = written(shipment.send(), setting_out) => result,
            () = self.stopped() => return Err(self.interrupted(Some(sent_at))),
        };
        if let Some(counted) = counted.filter(|_| result.did_not_run()) {
            counted.give_back(&*dispatcher.inbox).await;
        }
        let took_longest = shipment
            .longest_send()
            .is_some_and(|longest| begun.elapsed() >= longest);
        Ok(SentDelivery {
            is_overdue: took_longest && matches!(result, AttemptResult::Ambiguous(_)),
            result,
            doubt: None,
            sent_at,
        })
    }

    /// Counts the run that is about to begin. A destination of another kind than the upstream's runs nothing.
    async fn count_run(&self, now: Timestamp) -> Result<Option<CountedRun>, Verdict> {
        if !self.claimed.destination.kind.is_upstream() {
            return Ok(None);
        }
        let (dispatcher, claimed) = (self.dispatcher, self.claimed);
        dispatcher
            .budgets
            .spend(&*dispatcher.inbox, &claimed.route(), &claimed.params, now)
            .await
            .map(Some)
            .map_err(|why| self.judge_uncounted(why))
    }

    /// A spent budget keeps its deliveries waiting until tomorrow, or until a new configuration allows more. A user's
    /// budget keeps only that user's conversations waiting.
    fn judge_uncounted(&self, why: BudgetError) -> Verdict {
        let now = self.dispatcher.clock.now();
        let budget = match why {
            BudgetError::Spent(budget) => budget,
            BudgetError::Inbox(error) => {
                return self.judge_unsent(format!("the run cannot be counted: {error}"), None);
            }
        };
        let detail = format!("the budget {budget} of runs per day is spent");
        let next = if budget.starts_with("user/") {
            Next::Retry {
                at: now.tomorrow(),
                doubt: None,
                counted: false,
            }
        } else {
            let until = Instant::now() + now.tomorrow().since(now);
            if self.dispatcher.throttle.spent(budget, until.into_std()) {
                tracing::warn!(detail, until = %now.tomorrow(), "what waits for it is held; limits.runs_per_day says how many");
            }
            Next::Released { doubt: None }
        };
        Verdict::unsent(next, "budget_spent", detail)
    }

    /// A delivery that could not be sent for a reason on this side: an attempt like any other, but no sign about the
    /// destination.
    fn judge_unsent(&self, why: String, doubt: Option<Timestamp>) -> Verdict {
        let verdict = Verdict::of_result(
            AttemptResult::NotSent(why),
            self.facts(doubt),
            &self.policy(),
        );
        Verdict {
            sign: Sign::Nothing,
            ..verdict
        }
    }

    fn judge(&self, sent: SentDelivery) -> Verdict {
        let result = match sent.result {
            // A task that is shown to nobody need not be kept.
            AttemptResult::Ran(run) if !self.is_shown() => {
                AttemptResult::Ran(Run { task: None, ..run })
            }
            result => result,
        };
        if let AttemptResult::Refused {
            status: status @ (401 | 403),
            detail,
            ..
        } = &result
            && self.uses_gateway_key()
        {
            return key_refused(*status, detail, sent.doubt);
        }
        let facts = Facts {
            sent_at: sent.sent_at,
            ..self.facts(sent.doubt)
        };
        let verdict = Verdict::of_result(result, facts, &self.policy());
        let sign = if sent.is_overdue {
            Sign::Nothing
        } else {
            verdict.sign
        };
        Verdict { sign, ..verdict }
    }

    /// True if a caller may ask for the end of the run.
    fn is_shown(&self) -> bool {
        let responds = |source: &SourceConfig| source.respond != Respond::Ack;
        self.claimed.sealed.is_some() || self.source.is_none_or(responds)
    }

    /// True if the delivery is sent with a key of the gateway's own.
    pub(super) fn uses_gateway_key(&self) -> bool {
        self.claimed.destination.kind.is_upstream() && !self.claimed.account.is_foreign()
    }

    pub(super) fn facts(&self, doubt: Option<Timestamp>) -> Facts {
        let now = self.dispatcher.clock.now();
        Facts {
            strikes: self.claimed.strikes,
            received_at: self.claimed.received_at,
            now,
            doubt,
            sent_at: now,
            chance: fastrand::f64(),
        }
    }

    pub(super) fn policy(&self) -> Policy {
        Policy {
            retry_failed_runs: self.source.is_some_and(|source| source.retry_failed_runs),
            ..self.dispatcher.policy
        }
    }

    /// The program stops: the delivery is given back and due at once, with what is known of its being sent.
    pub(super) fn interrupted(&self, sent_at: Option<Timestamp>) -> Verdict {
        let next = Next::Retry {
            at: self.dispatcher.clock.now(),
            doubt: sent_at,
            counted: false,
        };
        let detail = "the gateway stopped while the run went on".to_owned();
        Verdict::unsent(next, "interrupted", detail)
    }

    /// True if this process still has the standing under which it claimed the delivery.
    pub(super) fn has_lease(&self) -> bool {
        let standing = self.dispatcher.inbox.replica_status();
        standing.good && standing.generation == self.generation
    }

    /// Resolves when the time for finishing work is over.
    pub(super) async fn stopped(&self) {
        self.hurry.cancelled().await;
    }
}

/// Another process may have the lease by now, so the end of what was sent is not waited for here. The delivery is settled
/// all the same: a lease that is still ours would be free for nobody else, and one that has passed on is not changed.
pub(super) fn broken_off(dispatcher: &Dispatcher, doubt: Option<Timestamp>) -> Verdict {
    let next = Next::Retry {
        at: dispatcher.clock.now(),
        doubt,
        counted: false,
    };
    let detail = "this process could not keep its leases; another may have taken the delivery over"
        .to_owned();
    Verdict::unsent(next, "broken_off", detail)
}

/// An operator paused it after it was claimed.
fn paused(doubt: Option<Timestamp>) -> Verdict {
    let detail = "an operator paused it before it was sent".to_owned();
    Verdict::unsent(Next::Released { doubt }, "paused", detail)
}

/// The end of a send. A pause need not wait for it longer than it takes to be written.
async fn written<T>(send: impl Future<Output = T>, setting_out: watch::Receiver<()>) -> T {
    let mut send = std::pin::pin!(send);
    if let Ok(ended) = tokio::time::timeout(WRITTEN, send.as_mut()).await {
        return ended;
    }
    drop(setting_out);
    send.await
}
