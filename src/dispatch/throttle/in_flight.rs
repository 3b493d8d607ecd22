//! A delivery in flight: its place in every count, given back when it is dropped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::super::breaker::{BreakerChange, CallPermit, Sign};
use super::rules::{Rules, share};
use super::state::called;
use super::{PROBES, Throttle, side};
use crate::model::Route;

/// A delivery in flight.
#[derive(Debug)]
pub(in crate::dispatch) struct InFlight {
    pub(super) throttle: Arc<Throttle>,
    pub(super) route: Route,
    /// The permit of the breaker; `None` after the end of the call was reported.
    pub(super) begun: Option<CallPermit>,
    /// The use of the key; `None` after the upstream's word on it was reported.
    pub(super) key: Option<KeyUse>,
}

/// The use of a key by one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyUse {
    pub(super) at: Instant,
    /// True if it tries a key that is refused, at its destination or everywhere.
    pub(super) tries_here: bool,
    pub(super) tries_all: bool,
}

impl InFlight {
    /// True if it tries a key that is refused.
    pub(in crate::dispatch) fn tries_key(&self) -> bool {
        self.key
            .is_some_and(|shown| shown.tries_here || shown.tries_all)
    }

    /// Reports how the call ended. The place stays taken.
    pub(in crate::dispatch) fn tell(
        &mut self,
        sign: Sign,
        rules: &Rules,
        replicas: u32,
        now: Instant,
        chance: f64,
    ) -> BreakerChange {
        let Some(begun) = self.begun.take() else {
            return BreakerChange::None;
        };
        let mut table = self.throttle.table();
        let side = side(&self.route.account);
        let most = rules
            .most(&self.route.destination, replicas)
            .min(share(rules.concurrency, replicas));
        let Some(entry) = table.destinations.get_mut(&called(&self.route)) else {
            return BreakerChange::None;
        };
        let was_probing = begun.probe && entry.breaker.is_probed_by(begun);
        let change = entry
            .breaker
            .end(begun, sign, &rules.breaker, most, now, chance);
        if was_probing {
            table.probing[side] = table.probing[side].saturating_sub(1);
        }
        match change {
            BreakerChange::None => {}
            BreakerChange::Opened => {
                table.broken += 1;
                self.throttle.metrics.breaker_opened.inc();
            }
            BreakerChange::Reopened => table.most_probing[side] = PROBES,
            BreakerChange::Closed => {
                table.broken = table.broken.saturating_sub(1);
                // The upstream is back: the others need not wait for long.
                table.most_probing[side] = table.most_probing[side]
                    .saturating_mul(2)
                    .min(share(rules.concurrency, replicas).max(PROBES));
            }
        }
        self.throttle.show(&table);
        if std::mem::take(&mut table.closed) {
            self.throttle.opened.notify_one();
        }
        change
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut table = self.throttle.table();
        if let Some(shown) = self.key.take() {
            table.abandon_key(&self.route, shown, tokio::time::Instant::now().into_std());
        }
        table.in_flight = table.in_flight.saturating_sub(1);
        leave(&mut table.sources, &self.route.source);
        leave(&mut table.accounts, &self.route.account);
        let mut probing = false;
        if let Some(entry) = table.destinations.get_mut(&called(&self.route)) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
            if let Some(begun) = self
                .begun
                .take()
                .filter(|begun| entry.breaker.is_probed_by(*begun))
            {
                entry.breaker.abandon(begun);
                probing = true;
            }
        }
        let of_side = &mut table.probing[side(&self.route.account)];
        *of_side = of_side.saturating_sub(usize::from(probing));
        self.throttle.show(&table);
        self.throttle
            .metrics
            .in_flight(self.route.destination.kind.as_str(), -1);
        if std::mem::take(&mut table.closed) {
            self.throttle.opened.notify_one();
        }
    }
}

/// Counts one fewer.
fn leave<K: std::hash::Hash + Eq>(table: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = table.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            table.remove(key);
        }
    }
}
