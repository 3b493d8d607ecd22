//! Getting it there: claim, send, judge, settle. How many at once, and how to stop.
//!
//! What is promised: nothing is called twice while the upstream can tell that it ran; no cap is passed, and what is
//! closed (`throttle.rs`) is not claimed; a panic of one attempt is that delivery's alone; a process that lost its standing
//! breaks its calls off at once; a stop gives every lease back within the time it is allowed.

mod admission;
mod attempt;
mod backoff;
mod breaker;
mod file;
mod keys;
pub mod replay;
mod run_identity;
mod status;
mod throttle;
mod verdict;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::attachment::Files;
use crate::config::{self, Config, Secret, SourceConfig};
use crate::inbox::seal::Sealer;
use crate::inbox::{Budgets, Claimed, Inbox, InboxError, Next, Settled, Settlement, Terms as _};
use crate::model::{Attempt, Clock, DeliveryState, Destination, Role, Route, Timestamp};
use crate::net::Client;
use crate::telemetry::{Metrics, SparseLines};
use crate::upstream::{Expected, Upstream};

use admission::Admission;
use backoff::Backoff;
use breaker::{BreakerChange, Sign};
use file::FileDelivery;
use keys::KeyChange;
use throttle::{InFlight, Rules};
use verdict::{Policy, RestRequest, Verdict};

pub use breaker::BreakerState;
pub use keys::RefusedKey;
pub use status::DestinationStatus;
pub use throttle::{Closed, Throttle};

/// Sends what is owed.
#[derive(Debug)]
pub struct Dispatcher {
    inbox: Arc<dyn Inbox>,
    upstream: Upstream,
    sealer: Arc<Sealer>,
    files: FileDelivery,
    sources: HashMap<String, SourceConfig>,
    throttle: Arc<Throttle>,
    rules: Arc<Rules>,
    budgets: Budgets,
    metrics: Arc<Metrics>,
    /// The lines of deliveries that are dead or in doubt: an upstream that refuses all makes as many as there are events.
    lines: Arc<SparseLines>,
    clock: Clock,
    config: config::Dispatch,
    policy: Policy,
    /// Where the upstream is, as it is told.
    server: String,
    /// The upstream keys of gateway keys, where they have one of their own.
    keys: HashMap<String, Option<Secret>>,
}

/// The longest time without a look at the inbox, whatever it says is due.
const LOOK: Duration = Duration::from_secs(5);

/// The same while something is held, or may be: how late an order to let it go may be heard.
const LOOK_AT_HOLDS: Duration = Duration::from_secs(1);

/// The shortest time between two looks: what is due by now and yet not given has its reasons, and asking again and
/// again would change none of them.
const PAUSE: Duration = Duration::from_millis(5);

/// How often the standing is looked at without being told that it changed.
const LOOK_AT_STANDING: Duration = Duration::from_millis(250);

/// What the loop remembers from one look to the next.
#[derive(Debug, Default)]
struct LoopState {
    /// When the holds were read.
    holds: Option<Instant>,
    /// Something has become of the inbox since.
    news: bool,
}

/// A delivery with what it was let through by.
struct Admitted {
    claimed: Claimed,
    place: InFlight,
    expected: Expected,
}

impl Dispatcher {
    /// The dispatcher of a configuration. `throttle` outlives it.
    pub fn new(
        config: &Config,
        inbox: Arc<dyn Inbox>,
        upstream: Upstream,
        sealer: Arc<Sealer>,
        throttle: Arc<Throttle>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        let longest = config.dispatch.backoff_max;
        let policy = Policy {
            backoff: Backoff {
                first: config.dispatch.backoff,
                longest,
            },
            longest_unsent: if config.dispatch.breaker.percent > 0 {
                config.dispatch.breaker.rest
            } else {
                longest
            },
            max_attempts: config.dispatch.max_attempts,
            give_up_after: config.dispatch.give_up_after,
            retry_failed_runs: false,
        };
        Self {
            inbox,
            upstream,
            sealer,
            files: FileDelivery::new(config),
            sources: config
                .sources
                .iter()
                .map(|source| (source.name.clone(), source.clone()))
                .collect(),
            throttle,
            rules: Arc::new(Rules::new(config)),
            budgets: Budgets::new(config),
            metrics,
            lines: SparseLines::new("deliveries that are dead or in doubt"),
            clock,
            config: config.dispatch.clone(),
            policy,
            server: server(&config.upstream.base_url),
            keys: config
                .keys
                .iter()
                .map(|key| (key.name.clone(), key.upstream_key.clone()))
                .collect(),
        }
    }

    /// The same with a store, and with a client for files that channels keep. Without a store, an event that brought
    /// files is not delivered.
    #[must_use]
    pub fn with_files(mut self, files: Option<Arc<Files>>, client: Client) -> Self {
        (self.files.store, self.files.client) = (files, Some(client));
        self
    }

    /// Works until `stop` is true, then gives what is in flight until `hurry` is true. Everything goes by the
    /// dispatcher of the moment, so that a new configuration holds from the next claim on.
    pub async fn run(
        current: Arc<ArcSwap<Self>>,
        mut stop: watch::Receiver<bool>,
        hurry: watch::Receiver<bool>,
    ) {
        let (tell, good) = watch::channel(true);
        let standing = tokio::spawn(watch_standing(current.load().inbox.clone(), tell));
        let mut attempts = JoinSet::new();
        let mut looked = LoopState::default();
        loop {
            let dispatcher = current.load_full();
            let claimed = tokio::select! {
                claimed = dispatcher.claim_or_wait(&mut looked, good.clone()) => claimed,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let dispatcher = current.load_full();
            // All have their places before the first is sent, and so before anything is claimed again.
            let admitted: Vec<Admitted> = claimed
                .into_iter()
                .map(|claimed| dispatcher.admit(claimed))
                .collect();
            for admitted in admitted {
                let (dispatcher, good, hurry) = (dispatcher.clone(), good.clone(), hurry.clone());
                attempts.spawn(async move { dispatcher.deliver(admitted, good, hurry).await });
            }
            while attempts.try_join_next().is_some() {}
        }
        while attempts.join_next().await.is_some() {}
        standing.abort();
    }

    /// The next deliveries, as many as there is room for. None: it has waited until there may be some.
    async fn claim_or_wait(
        &self,
        looked: &mut LoopState,
        mut good: watch::Receiver<bool>,
    ) -> Vec<Claimed> {
        if !self.inbox.replica_status().good || !*good.borrow() {
            tokio::select! {
                _ = good.wait_for(|good| *good) => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            // Told just now, or never: then the standing itself decides.
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
        let longest = if self.throttle.holds_any() {
            LOOK_AT_HOLDS
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

    /// What is due and open, and how long until there is more by the inbox's word.
    async fn claim(
        &self,
        looked: &mut LoopState,
        replicas: u32,
    ) -> Result<(Vec<Claimed>, Duration), InboxError> {
        if looked.news
            || looked
                .holds
                .is_none_or(|last| last.elapsed() >= LOOK_AT_HOLDS)
        {
            let changes = self.throttle.hold_changes();
            self.throttle.hold(
                self.inbox.pauses().await?.into_iter().map(|(hold, _)| hold),
                changes,
            );
            *looked = LoopState {
                holds: Some(Instant::now()),
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

    /// How many processes share the caps and rates, this one among them.
    fn replicas(&self) -> u32 {
        self.inbox.replicas_with(Role::Dispatch)
    }

    /// Gives a delivery its place.
    fn admit(&self, claimed: Claimed) -> Admitted {
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
        Admitted {
            claimed,
            place,
            expected: self.throttle.budget.expect(),
        }
    }

    /// One delivery: tried, judged, settled, counted, logged.
    async fn deliver(
        &self,
        admitted: Admitted,
        good: watch::Receiver<bool>,
        hurry: watch::Receiver<bool>,
    ) {
        let Admitted {
            claimed,
            mut place,
            expected,
        } = admitted;
        let started_at = self.clock.now();
        let begun = Instant::now();
        let doubt = claimed.doubt.or(Some(started_at));
        let tried = AssertUnwindSafe(async {
            tokio::select! {
                verdict = attempt::attempt(self, &claimed, expected, place.tries_key(), hurry) => verdict,
                () = turns_bad(good) => attempt::broken_off(self, doubt),
            }
        });
        let verdict = tried.catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(delivery = %claimed.id, "a bug: the attempt panicked");
            let at = started_at + self.policy.backoff.wait(claimed.strikes, None, 1.0);
            Verdict {
                next: Next::Retry {
                    at,
                    doubt,
                    counted: true,
                },
                result: "panicked",
                status: None,
                detail: "a bug in the gateway; see its log".to_owned(),
                sign: Sign::Nothing,
                asked: None,
            }
        });
        if let Some(asked) = verdict.asked {
            self.rest(&claimed.route(), asked);
        }
        self.tell(
            &mut place,
            &claimed.destination,
            verdict.sign,
            &verdict.detail,
        );
        self.tell_key(&mut place, &claimed, &verdict);
        self.metrics
            .attempt(&claimed.source, verdict.result, begun.elapsed());
        log(&claimed, &verdict, begun.elapsed(), &self.lines);
        self.settle(&claimed, verdict, started_at).await;
        drop(place);
    }

    /// Tells the breaker what came of a call.
    fn tell(&self, place: &mut InFlight, destination: &Destination, sign: Sign, detail: &str) {
        let now = Instant::now().into_std();
        match place.tell(sign, &self.rules, self.replicas(), now, fastrand::f64()) {
            BreakerChange::Opened => {
                let rest_s = self.rules.breaker.rest.as_secs_f64();
                tracing::error!(%destination, rest_s, detail, "its calls fail, it is left alone and tried now and then");
            }
            BreakerChange::Closed => tracing::info!(%destination, "it answers again"),
            BreakerChange::Reopened => tracing::debug!(%destination, detail, "it still fails"),
            BreakerChange::None => {}
        }
    }

    /// Notes what the upstream says of the gateway's own key.
    fn tell_key(&self, place: &mut InFlight, claimed: &Claimed, verdict: &Verdict) {
        if claimed.account.is_foreign() {
            return;
        }
        let (destination, setting) = (
            &claimed.destination,
            self.rules.key_setting(&claimed.account),
        );
        let (upstream, detail) = (&self.server, verdict.detail.as_str());
        let sign = verdict.key();
        match (
            place.tell_key(sign, detail, &self.rules, Instant::now().into_std()),
            verdict.status,
        ) {
            (KeyChange::Held, status) => tracing::error!(
                upstream,
                status,
                detail,
                "the upstream refused {setting}: all that goes there is held and nothing is lost; set the right key and \
                 reload, or have the upstream take this one; one call tries it now and then"
            ),
            (KeyChange::HeldTo, status) => tracing::error!(
                upstream, status, %destination, detail,
                "the upstream refused {setting} at this destination: what goes there is held and nothing is lost; have \
                 the upstream allow the key this agent, or correct the agent's id; one call tries it now and then"
            ),
            (KeyChange::Good, _) => {
                tracing::info!(upstream, %destination, "the upstream takes {setting} again, what was held goes on");
            }
            (KeyChange::None, _) => {}
        }
    }

    /// Leaves a destination, or the upstream altogether, alone for as long as was asked.
    fn rest(&self, route: &Route, asked: RestRequest) {
        let until = Instant::now() + asked.wait;
        self.throttle.rest(route, asked.whole, until.into_std());
    }

    /// Ends the lease. The inbox is ours alone or says who took the lease, so a failure is tried again until it ends.
    async fn settle(&self, claimed: &Claimed, verdict: Verdict, started_at: Timestamp) {
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
        };
        let mut wait = Duration::from_millis(50);
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
                // Closed for good: the next start finds the lease and the doubt.
                Err(InboxError::Closed) => return,
                Err(error) => {
                    tracing::error!(delivery = %claimed.id, %error, "cannot settle, trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(5));
                }
            }
        }
    }
}

/// Says whether this process's leases are good, whenever that changes.
async fn watch_standing(inbox: Arc<dyn Inbox>, tell: watch::Sender<bool>) {
    loop {
        let good = inbox.replica_status().good;
        tell.send_if_modified(|before| {
            let changed = *before != good;
            *before = good;
            changed
        });
        tokio::select! {
            () = inbox.replica_status_changed() => {}
            () = tokio::time::sleep(LOOK_AT_STANDING) => {}
        }
    }
}

/// Resolves when this process's leases are good no longer.
async fn turns_bad(mut good: watch::Receiver<bool>) {
    // A sender that is gone says nothing more.
    if good.wait_for(|good| !*good).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The host and port of an address, without what may be a secret in it.
fn server(address: &http::Uri) -> String {
    match (address.host(), address.port_u16()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn log(claimed: &Claimed, verdict: &Verdict, took: Duration, lines: &Arc<SparseLines>) {
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
        // Each of them stands in the inbox, and the metrics count all.
        Next::Dead(_) | Next::Unknown if !lines.admits() => {}
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
