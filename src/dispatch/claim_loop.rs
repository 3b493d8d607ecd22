//! The loop of a dispatcher: claim what is due and open, start an attempt for each, wait for what comes next.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::admission::Admission;
use super::{Admitted, Dispatcher};
use crate::inbox::{Claimed, Inbox, InboxError, ReplicaStatus, Terms as _};
use crate::model::{DeliveryState, Role};
use tokio_util::sync::CancellationToken;

/// The longest time without a look at the inbox, whatever it says is due.
const LOOK: Duration = Duration::from_secs(5);

/// The same while something is paused: an order to resume it is noticed at most this much later.
const LOOK_AT_PAUSES: Duration = Duration::from_secs(1);

/// The shortest time between two looks: a delivery that is due and was not given has a reason for it, which asking again
/// would not change.
const PAUSE: Duration = Duration::from_millis(5);

/// The time between two looks at the standing where no change is reported.
const LOOK_AT_STANDING: Duration = Duration::from_millis(250);

/// The loop's memory from one look to the next.
#[derive(Debug, Default)]
struct LoopState {
    /// The time at which the pauses were read.
    pauses_read: Option<Instant>,
    /// True if the inbox has reported a change since.
    news: bool,
}

impl Dispatcher {
    /// Works until `stop` is true, then lets what is in flight end until `hurry` is true. Every claim goes by the
    /// dispatcher of the moment, so that a new configuration counts from the next claim on.
    pub async fn run(
        current: Arc<ArcSwap<Self>>,
        stop: CancellationToken,
        hurry: CancellationToken,
    ) {
        let (tell, standing) = watch::channel(current.load().inbox.replica_status());
        let watched = tokio::spawn(watch_standing(current.load().inbox.clone(), tell));
        let mut attempts = JoinSet::new();
        let mut looked = LoopState::default();
        loop {
            let dispatcher = current.load_full();
            // Before the claim: one whose answer comes so late that the process has another standing by then is not good.
            let generation = dispatcher.inbox.replica_status().generation;
            let claimed = tokio::select! {
                claimed = dispatcher.claim_or_wait(&mut looked, standing.clone()) => claimed,
                () = stop.cancelled() => break,
            };
            let dispatcher = current.load_full();
            // All have their places before the first is sent, and so before anything is claimed again.
            let admitted: Vec<Admitted> = claimed
                .into_iter()
                .map(|claimed| dispatcher.admit(claimed, generation))
                .collect();
            for admitted in admitted {
                let (dispatcher, standing) = (dispatcher.clone(), standing.clone());
                let hurry = hurry.clone();
                attempts.spawn(async move { dispatcher.deliver(admitted, standing, hurry).await });
            }
            while attempts.try_join_next().is_some() {}
        }
        while attempts.join_next().await.is_some() {}
        watched.abort();
    }

    /// The next deliveries, as many as there is room for. Without any it has waited until there may be some.
    async fn claim_or_wait(
        &self,
        looked: &mut LoopState,
        mut standing: watch::Receiver<ReplicaStatus>,
    ) -> Vec<Claimed> {
        if !self.inbox.replica_status().good || !standing.borrow().good {
            tokio::select! {
                _ = standing.wait_for(|standing| standing.good) => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            // It changed just now, or never: then the standing itself decides.
            tokio::time::sleep(PAUSE).await;
            return Vec::new();
        }
        let replicas = self.replicas();
        let wait = match self.claim(looked, replicas).await {
            Ok((claimed, _)) if !claimed.is_empty() => return claimed,
            Ok((_, due)) => due,
            Err(error) => {
                tracing::error!(%error, "cannot claim deliveries");
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Vec::new();
            }
        };
        let opens_at = self
            .throttle
            .opens_at(&self.rules, replicas, Instant::now().into_std());
        let opens = opens_at.map_or(LOOK, |at| {
            at.saturating_duration_since(Instant::now().into_std())
        });
        let longest = if self.throttle.has_pauses() {
            LOOK_AT_PAUSES
        } else {
            LOOK
        };
        let wait = wait.min(opens).min(longest).max(PAUSE);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.inbox.work_due() => looked.news = true,
            () = self.throttle.opened() => {}
        }
        Vec::new()
    }

    /// The deliveries that are due and open, and the time until more are due.
    async fn claim(
        &self,
        looked: &mut LoopState,
        replicas: u32,
    ) -> Result<(Vec<Claimed>, Duration), InboxError> {
        if looked.news
            || looked
                .pauses_read
                .is_none_or(|last| last.elapsed() >= LOOK_AT_PAUSES)
        {
            let changes = self.throttle.pause_changes();
            self.throttle.set_pauses(
                self.inbox
                    .pauses()
                    .await?
                    .into_iter()
                    .map(|(pause, _)| pause),
                changes,
            );
            *looked = LoopState {
                pauses_read: Some(Instant::now()),
                news: false,
            };
        }
        let offer = Admission::new(
            self.throttle.clone(),
            self.rules.clone(),
            replicas,
            Instant::now().into_std(),
        );
        if offer.room() == 0 {
            return Ok((Vec::new(), LOOK));
        }
        let claims = self.inbox.claim(Box::new(offer), self.clock.now()).await?;
        for (source, count) in &claims.dropped {
            self.metrics
                .deliveries(source, DeliveryState::Dropped.as_str(), *count);
            tracing::info!(source, count, "turns that waited were dropped");
        }
        let due = claims
            .next_due
            .map_or(LOOK, |due| due.since(self.clock.now()));
        Ok((claims.claimed, due))
    }

    /// The number of processes that share the caps and rates, this one included.
    pub(super) fn replicas(&self) -> u32 {
        self.inbox.replicas_with(Role::Dispatch)
    }

    /// Counts a claimed delivery as in flight.
    fn admit(&self, claimed: Claimed, generation: i64) -> Admitted {
        if claimed.attempt == 1 {
            let merged = u64::try_from(claimed.merged.len()).unwrap_or(u64::MAX);
            self.metrics
                .deliveries(&claimed.source, DeliveryState::Merged.as_str(), merged);
        }
        let route = claimed.route();
        self.metrics.claimed(&route.account, route.class);
        let place = self.throttle.enter(
            route,
            &self.rules,
            self.replicas(),
            Instant::now().into_std(),
        );
        let is_upstream = claimed.destination.kind.is_upstream();
        Admitted {
            claimed,
            generation,
            place,
            expected: is_upstream.then(|| self.throttle.budget.expect()),
        }
    }
}

/// Reports the standing of this process, whenever it changes.
async fn watch_standing(inbox: Arc<dyn Inbox>, tell: watch::Sender<ReplicaStatus>) {
    loop {
        let standing = inbox.replica_status();
        tell.send_if_modified(|before| {
            let changed = *before != standing;
            *before = standing;
            changed
        });
        tokio::select! {
            () = inbox.replica_status_changed() => {}
            () = tokio::time::sleep(LOOK_AT_STANDING) => {}
        }
    }
}
