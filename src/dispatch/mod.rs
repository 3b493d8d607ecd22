//! Sending what is owed: claim, send, judge, settle. How much at once, and how to stop.
//!
//! Promises: nothing is sent twice while its target can tell that it was received; no cap is exceeded, and what is closed
//! (`throttle`) is not claimed; a panic of one attempt affects that delivery alone; a process that lost its standing
//! breaks its calls off at once; a stop gives every lease back within the time that is allowed for it.

mod admission;
mod attempt;
mod backoff;
mod breaker;
mod claim_loop;
mod doubt;
mod follow;
mod keys;
pub mod replay;
mod report;
mod route;
mod run_identity;
mod settle;
mod status;
mod target;
mod throttle;
mod verdict;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::attachment::Files;
use crate::config::{self, Config, SourceMap};
use crate::inbox::seal::Sealer;
use crate::inbox::{Budgets, Claimed, Inbox, Next, ReplicaStatus};
use crate::limit::Share;
use crate::model::{Clock, DestinationKind, Route};
use crate::net::Client;
use crate::telemetry::{Metrics, SparseLines};
use crate::upstream::{Expected, Upstream};

use attempt::{DeliveryAttempt, broken_off};
use backoff::Backoff;
use target::{ChannelTarget, FileDelivery, UpstreamTarget};
use throttle::{InFlight, Rules};
use tokio_util::sync::CancellationToken;
use verdict::{Policy, RestRequest, Verdict};

pub use breaker::BreakerState;
pub use keys::RefusedKey;
pub use route::owed_delivery;
pub use status::DestinationStatus;
pub use target::{Advance, PrepareError, Shipment, Target};
pub use throttle::{Closed, Throttle};

/// Sends what is owed.
#[derive(Debug)]
pub struct Dispatcher {
    inbox: Arc<dyn Inbox>,
    sources: SourceMap,
    /// The target of agents and workflows.
    upstream: UpstreamTarget,
    /// The targets of other kinds of destination.
    targets: HashMap<DestinationKind, Arc<dyn Target>>,
    throttle: Arc<Throttle>,
    rules: Arc<Rules>,
    budgets: Budgets,
    metrics: Arc<Metrics>,
    /// Log lines of deliveries that are dead or in doubt: an upstream that refuses everything makes one for each event.
    lines: Arc<SparseLines>,
    clock: Clock,
    config: config::Dispatch,
    policy: Policy,
    /// The host and port of the upstream.
    server: String,
}

/// The parts that a dispatcher works with. They outlive a configuration.
#[derive(Clone, Debug)]
pub struct DispatcherParts {
    /// The inbox that deliveries are claimed from.
    pub inbox: Arc<dyn Inbox>,
    /// The seal of callers' calls.
    pub sealer: Arc<Sealer>,
    /// The counts of what is in flight, resting and used up.
    pub throttle: Arc<Throttle>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

/// A delivery that was let through, with its place.
struct Admitted {
    claimed: Claimed,
    /// The standing of this process when it was claimed.
    generation: i64,
    place: InFlight,
    expected: Option<Expected>,
}

impl Dispatcher {
    /// The dispatcher of a configuration.
    pub fn new(config: &Config, upstream: Upstream, parts: DispatcherParts) -> Self {
        let DispatcherParts {
            inbox,
            sealer,
            throttle,
            metrics,
            clock,
        } = parts;
        let sources = config.sources.clone();
        let files = FileDelivery::new(config, inbox.clone(), metrics.clone(), clock.clone());
        Self {
            inbox,
            upstream: UpstreamTarget::new(config, upstream, sealer, sources.clone(), files),
            sources,
            targets: HashMap::new(),
            throttle,
            rules: Arc::new(Rules::new(config)),
            budgets: Budgets::new(config),
            metrics,
            lines: SparseLines::new("deliveries that are dead or in doubt"),
            clock,
            config: config.dispatch.clone(),
            policy: policy(&config.dispatch),
            server: server(&config.upstream.base_url),
        }
    }

    /// The same dispatcher with a store, and with a client for files that channels keep. Without a store, an event that
    /// brought files is not delivered.
    #[must_use]
    pub fn with_files(mut self, files: Option<Arc<Files>>, client: Client) -> Self {
        let delivery = &mut self.upstream.files;
        (delivery.store, delivery.client) = (files, Some(client));
        self
    }

    /// The same dispatcher with the channels of its sources, which answers go back to.
    #[must_use]
    pub fn with_channels(mut self, config: &Config, client: Client, share: Share) -> Self {
        let channels = ChannelTarget::new(config, client, self.clock.clone(), share);
        let channels = Arc::new(channels);
        self.upstream.channels = Some(channels.clone());
        self.with_target(DestinationKind::Channel, channels)
    }

    /// The same dispatcher with a target for another kind of destination. Agents and workflows stay the upstream's.
    #[must_use]
    pub fn with_target(mut self, kind: DestinationKind, target: Arc<dyn Target>) -> Self {
        self.targets.insert(kind, target);
        self
    }

    fn target(&self, kind: DestinationKind) -> Option<&dyn Target> {
        if kind.is_upstream() {
            return Some(&self.upstream);
        }
        self.targets.get(&kind).map(|target| &**target)
    }

    /// Tries one delivery, judges it, settles it, counts it and logs it.
    async fn deliver(
        &self,
        admitted: Admitted,
        standing: watch::Receiver<ReplicaStatus>,
        hurry: CancellationToken,
    ) {
        let Admitted {
            claimed,
            generation,
            mut place,
            expected,
        } = admitted;
        let started_at = self.clock.now();
        let begun = Instant::now();
        let doubt = claimed.doubt.or(Some(started_at));
        let tried = AssertUnwindSafe(async {
            // An attempt looks at its lease first, so what has lost it before it began is in no doubt.
            tokio::select! {
                biased;
                verdict = self.attempt(&claimed, generation, expected, place.tries_key(), hurry) => verdict,
                () = lost(standing, generation) => broken_off(self, doubt),
            }
        });
        let verdict = tried.catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(delivery = %claimed.id, "a bug: the attempt panicked");
            let at = started_at + self.policy.backoff.wait(claimed.strikes, None, 1.0);
            let next = Next::Retry {
                at,
                doubt,
                counted: true,
            };
            let detail = "a bug in the gateway; see its log".to_owned();
            Verdict::unsent(next, "panicked", detail)
        });
        if let Some(rest) = verdict.rest {
            self.rest(&claimed.route(), rest);
        }
        self.report_to_breaker(&mut place, &claimed.destination, &verdict);
        self.report_key(&mut place, &claimed, &verdict);
        let took = begun.elapsed();
        self.metrics.attempt(&claimed.source, verdict.result, took);
        report::log(&claimed, &verdict, took, &self.lines);
        self.settle(&claimed, verdict, started_at).await;
        drop(place);
    }

    async fn attempt(
        &self,
        claimed: &Claimed,
        generation: i64,
        expected: Option<Expected>,
        tries_key: bool,
        hurry: CancellationToken,
    ) -> Verdict {
        let Some(target) = self.target(claimed.destination.kind) else {
            let detail = format!(
                "nothing sends to {} any more; configure it and replay the event",
                claimed.destination
            );
            return Verdict::unsent(Next::Dead(None), "target_gone", detail);
        };
        let channels = self.upstream.channels.as_ref();
        let _typing = channels
            .filter(|_| claimed.destination.kind.is_upstream())
            .and_then(|channels| channels.typing(claimed));
        let attempt = DeliveryAttempt {
            dispatcher: self,
            target,
            claimed,
            generation,
            source: self.sources.get(&claimed.source),
            hurry,
        };
        attempt.run(expected, tries_key).await
    }

    /// Leaves a destination, or the upstream altogether, alone for as long as it asked.
    fn rest(&self, route: &Route, rest: RestRequest) {
        let until = Instant::now() + rest.wait;
        let whole = rest.whole && route.destination.kind.is_upstream();
        self.throttle.rest(route, whole, until.into_std());
    }
}

fn policy(dispatch: &config::Dispatch) -> Policy {
    let longest = dispatch.backoff_max;
    Policy {
        backoff: Backoff {
            first: dispatch.backoff,
            longest,
        },
        longest_unsent: if dispatch.breaker.percent > 0 {
            dispatch.breaker.rest
        } else {
            longest
        },
        max_attempts: dispatch.max_attempts,
        give_up_after: dispatch.give_up_after,
        retry_failed_runs: false,
    }
}

/// The host and port of an address, without what may be a secret in it.
fn server(address: &http::Uri) -> String {
    match (address.host(), address.port_u16()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    }
}

/// Resolves when the leases of a standing are good no longer.
async fn lost(mut standing: watch::Receiver<ReplicaStatus>, generation: i64) {
    let is_lost = |now: &ReplicaStatus| !now.good || now.generation != generation;
    // A sender that is gone says nothing more.
    if standing.wait_for(is_lost).await.is_err() {
        std::future::pending::<()>().await;
    }
}
