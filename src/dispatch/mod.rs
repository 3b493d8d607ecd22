//! Getting it there: claim, send, judge, settle. How many at once, and how to stop.
//!
//! What is promised: nothing is called twice while the upstream can tell that it ran; a panic of one attempt is that
//! delivery's alone; a stop gives every lease back within the time it is allowed.

mod attempt;
mod backoff;
mod turn;
mod verdict;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::attachment::Files;
use crate::config::{self, Config, SourceConfig};
use crate::inbox::seal::Sealer;
use crate::inbox::{Claimed, Inbox, Next, Settled, Settlement};
use crate::model::{Attempt, Clock, State, Timestamp};
use crate::telemetry::Metrics;
use crate::upstream::Upstream;

use backoff::Backoff;
use verdict::{Policy, Verdict};

/// Sends what is owed.
#[derive(Debug)]
pub struct Dispatcher {
    inbox: Arc<dyn Inbox>,
    upstream: Upstream,
    sealer: Arc<Sealer>,
    files: Option<Arc<Files>>,
    sources: HashMap<String, SourceConfig>,
    metrics: Arc<Metrics>,
    clock: Clock,
    config: config::Dispatch,
    policy: Policy,
    /// Until when the upstream asked to be left alone.
    rest: Mutex<Option<Instant>>,
}

/// Deliveries claimed in one go at most.
const CLAIM: usize = 128;

/// The longest time without a look at the inbox, whatever it says is due.
const LOOK: Duration = Duration::from_secs(5);

/// The longest rest after a "come back later"; the delivery itself waits as long as it was told.
const LONGEST_REST: Duration = Duration::from_secs(60);

impl Dispatcher {
    /// The dispatcher of a configuration. Without `files` an event that has some is not delivered.
    pub fn new(
        config: &Config,
        inbox: Arc<dyn Inbox>,
        upstream: Upstream,
        sealer: Arc<Sealer>,
        files: Option<Arc<Files>>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Arc<Self> {
        let policy = Policy {
            backoff: Backoff { first: config.dispatch.backoff, longest: config.dispatch.backoff_max },
            max_attempts: config.dispatch.max_attempts,
            give_up_after: config.dispatch.give_up_after,
            retry_failed_runs: false,
        };
        Arc::new(Self {
            inbox,
            upstream,
            sealer,
            files,
            sources: config.sources.iter().map(|source| (source.name.clone(), source.clone())).collect(),
            metrics,
            clock,
            config: config.dispatch.clone(),
            policy,
            rest: Mutex::new(None),
        })
    }

    /// Works until `stop` is true, then gives what is in flight until `hurry` is true. Every delivery is sent by the
    /// dispatcher of the moment, so that a new configuration holds from the next one on; only how many are in flight
    /// at once is settled at the start.
    pub async fn run(current: Arc<ArcSwap<Self>>, mut stop: watch::Receiver<bool>, hurry: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(current.load().config.concurrency));
        let mut attempts = JoinSet::new();
        loop {
            let waiting = current.load_full();
            let claimed = tokio::select! {
                claimed = waiting.claim(&places) => claimed,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let dispatcher = current.load_full();
            for claimed in claimed {
                // `claim` asked for no more than there are places.
                let Ok(place) = places.clone().acquire_owned().await else { break };
                let (dispatcher, hurry) = (dispatcher.clone(), hurry.clone());
                attempts.spawn(async move {
                    dispatcher.deliver(claimed, hurry).await;
                    drop(place);
                });
            }
            while attempts.try_join_next().is_some() {}
        }
        while attempts.join_next().await.is_some() {}
    }

    /// The next deliveries, as many as there are places for. Waits until there is a place and something is due.
    async fn claim(&self, places: &Semaphore) -> Vec<Claimed> {
        loop {
            if let Ok(place) = places.acquire().await {
                drop(place);
            }
            let rest = *self.rest.lock().await;
            if let Some(until) = rest.filter(|until| *until > Instant::now()) {
                tokio::time::sleep_until(until).await;
                continue;
            }
            let wait = match self.inbox.claim(places.available_permits().min(CLAIM), self.clock.now()).await {
                Ok(claimed) if !claimed.is_empty() => return claimed,
                Ok(_) => match self.inbox.next_due().await {
                    Ok(due) => due.map_or(LOOK, |due| due.since(self.clock.now())).min(LOOK),
                    Err(error) => {
                        tracing::error!(%error, "cannot ask the inbox what is due");
                        Duration::from_secs(1)
                    }
                },
                Err(error) => {
                    tracing::error!(%error, "cannot claim deliveries");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.inbox.news() => {}
            }
        }
    }

    /// One delivery: tried, judged, settled, counted, logged.
    async fn deliver(&self, claimed: Claimed, hurry: watch::Receiver<bool>) {
        let started_at = self.clock.now();
        let begun = Instant::now();
        self.metrics.in_flight.inc();
        let tried = AssertUnwindSafe(attempt::attempt(self, &claimed, hurry)).catch_unwind().await;
        self.metrics.in_flight.dec();
        let verdict = tried.unwrap_or_else(|_| {
            tracing::error!(delivery = %claimed.id, "a bug: the attempt panicked");
            let at = started_at + self.policy.backoff.wait(claimed.strikes, None, 1.0);
            let result = "panicked";
            let next = Next::Retry { at, doubt: claimed.doubt.or(Some(started_at)), counted: true };
            Verdict { next, result, status: None, detail: "a bug in the gateway; see its log".to_owned() }
        });
        self.rest_if_asked(&verdict).await;
        self.metrics.attempt(&claimed.source, verdict.result, begun.elapsed());
        log(&claimed, &verdict, begun.elapsed());
        self.settle(&claimed, verdict, started_at).await;
    }

    /// Ends the lease. The inbox is ours alone or says who took the lease, so a failure is tried again until it ends.
    async fn settle(&self, claimed: &Claimed, verdict: Verdict, started_at: Timestamp) {
        let state = match &verdict.next {
            Next::Delivered(_) => Some(State::Delivered),
            Next::Dead(_) => Some(State::Dead),
            Next::Unknown => Some(State::Unknown),
            Next::Retry { .. } | Next::Released { .. } => None,
        };
        let settlement = Settlement {
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
        };
        let mut wait = Duration::from_millis(50);
        loop {
            match self.inbox.settle(settlement.clone()).await {
                Ok(Settled::Done) => {
                    if let Some(state) = state {
                        self.metrics.delivery(&claimed.source, state.as_str());
                    }
                    return;
                }
                Ok(Settled::Stale) => {
                    tracing::warn!(delivery = %claimed.id, "settled too late: the lease had passed on");
                    return;
                }
                // Closed for good: the next start finds the lease and the doubt.
                Err(crate::inbox::InboxError::Closed) => return,
                Err(error) => {
                    tracing::error!(delivery = %claimed.id, %error, "cannot settle, trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(5));
                }
            }
        }
    }

    /// Leaves the upstream alone for as long as it asked.
    async fn rest_if_asked(&self, verdict: &Verdict) {
        if let (Some(429 | 503), Next::Retry { at, .. }) = (verdict.status, &verdict.next) {
            let until = Instant::now() + at.since(self.clock.now()).min(LONGEST_REST);
            let mut rest = self.rest.lock().await;
            *rest = Some(rest.map_or(until, |before| before.max(until)));
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn log(claimed: &Claimed, verdict: &Verdict, took: Duration) {
    let (delivery, event) = (claimed.id, claimed.id.event);
    let (source, destination, attempt) = (&claimed.source, &claimed.destination, claimed.attempt);
    let (result, status, detail) = (verdict.result, verdict.status, &verdict.detail);
    let took_ms = millis(took);
    match &verdict.next {
        Next::Delivered(_) => {
            tracing::info!(%delivery, %event, source, %destination, attempt, result, took_ms, "delivered");
        }
        Next::Retry { at, .. } => {
            tracing::warn!(%delivery, %event, source, %destination, attempt, result, status, detail, retry_at = %at, took_ms, "attempt failed, will retry");
        }
        Next::Dead(_) => {
            tracing::error!(%delivery, %event, source, %destination, attempt, result, status, detail, took_ms, "delivery is dead");
        }
        Next::Unknown => {
            tracing::error!(%delivery, %event, source, %destination, attempt, result, status, detail, took_ms, "nobody can tell whether it ran, held for an operator");
        }
        Next::Released { .. } => {
            tracing::info!(%delivery, %event, source, %destination, attempt, result, "released");
        }
    }
}
