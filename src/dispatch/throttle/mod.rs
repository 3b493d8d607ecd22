//! Throttle: caps and rates, in all and for each account, destination and source; what is paused; who rests.
//!
//! Promises: no cap is exceeded, whatever waits; a destination that is closed keeps no other waiting; one account's calls
//! change nothing for another account, and none takes the last places from the operator; the tables are bounded, however
//! many destinations callers name. The throttle is shared and outlives a configuration: what is in flight, resting or used
//! up stays so under the next one. Times and random numbers are arguments, so that tests do not wait.

mod closed;
mod in_flight;
mod pauses;
mod refused_key;
mod room;
mod rules;
mod state;
mod status;

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::breaker::BreakerState;
use super::keys::KeyRefusal;
use crate::limit::SharedRate;
use crate::model::{Account, Destination, Route};
use crate::telemetry::Metrics;
use crate::upstream::Budget;
use in_flight::KeyUse;
use state::{CallState, MAX_DESTINATIONS, TIDY, ThrottleState, called};

pub use closed::Closed;
pub(super) use in_flight::InFlight;
pub(super) use room::TakenByClaim;
pub(super) use rules::Rules;

/// The largest number of calls that try destinations which failed, while none of these calls succeeds.
const PROBES: usize = 8;

/// The counts of what is in flight, resting and used up.
#[derive(Debug)]
pub struct Throttle {
    table: Mutex<ThrottleState>,
    /// Notified when something that was closed may have opened otherwise than by time.
    opened: Notify,
    pub(super) budget: Budget,
    metrics: Arc<Metrics>,
}

impl Throttle {
    /// A throttle with nothing in flight. Requests that it lets through draw on `budget`.
    pub fn new(budget: Budget, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::new(ThrottleState::new()),
            opened: Notify::new(),
            budget,
            metrics,
        })
    }

    /// Waits until something that the last claim found closed may have opened, otherwise than by time.
    pub(super) async fn opened(&self) {
        self.opened.notified().await;
    }

    /// Notes that a budget is spent until a time, so that nothing that counts against it is begun. False if that was known.
    pub(super) fn spent(&self, budget: String, until: Instant) -> bool {
        let mut table = self.table();
        // A budget that is forgotten is found again by the next delivery that counts against it.
        if table.spent.len() >= MAX_DESTINATIONS
            && let Some(any) = table.spent.keys().next().cloned()
        {
            table.spent.remove(&any);
        }
        table
            .spent
            .insert(budget, until)
            .is_none_or(|before| until.saturating_duration_since(before) > TIDY)
    }

    /// Makes the loop look again at once, because the configuration has changed. A refused key may be another one now and is
    /// tried.
    pub fn changed(&self) {
        let now = tokio::time::Instant::now().into_std();
        let mut table = self.table();
        table.spent.clear();
        let each = table
            .destinations
            .values_mut()
            .filter_map(|entry| entry.key.as_mut());
        each.for_each(|refused| refused.hurry(now));
        if let Some(refused) = &mut table.key {
            refused.hurry(now);
        }
        drop(table);
        self.opened.notify_one();
    }

    /// The room for more deliveries in all.
    pub(super) fn room(&self, rules: &Rules, replicas: u32, now: Instant) -> usize {
        let mut table = self.table();
        table.closed = false;
        let room = table
            .closed_whole(rules, replicas, &self.budget, now)
            .unwrap_or(0);
        table.closed = room == 0;
        room
    }

    /// The room for more deliveries of a route, beside those that a claim has taken already.
    pub(super) fn open(
        &self,
        route: &Route,
        rules: &Rules,
        replicas: u32,
        taken: TakenByClaim,
        now: Instant,
    ) -> usize {
        let mut table = self.table();
        let room = table.room_of(route, rules, replicas, taken, now);
        table.closed |= room == 0;
        room
    }

    /// True if a call by this route would try a destination that failed.
    pub(super) fn is_probe(&self, route: &Route, now: Instant) -> bool {
        let table = self.table();
        table
            .destinations
            .get(&called(route))
            .is_some_and(|entry| entry.breaker.state(now) == BreakerState::HalfOpen)
    }

    /// The time at which the next thing that is closed opens by itself.
    pub(super) fn opens_at(&self, rules: &Rules, replicas: u32, now: Instant) -> Option<Instant> {
        let table = self.table();
        let ahead = |until: Option<Instant>| until.filter(|until| *until > now);
        let whole = rules
            .rate
            .and_then(|rate| table.bucket.opens_at(SharedRate::new(rate, replicas), now));
        let each = table
            .destinations
            .iter()
            .flat_map(|((_, destination), entry)| {
                let rate = rules.caps(destination).rate;
                let rate = rate
                    .and_then(|rate| entry.bucket.opens_at(SharedRate::new(rate, replicas), now));
                let key = ahead(entry.key.as_ref().and_then(KeyRefusal::next));
                [ahead(entry.rest), entry.breaker.opens_at(now), rate, key]
                    .into_iter()
                    .flatten()
            });
        let key = ahead(table.key.as_ref().and_then(KeyRefusal::next));
        [ahead(table.rest), key, whole, self.budget.opens_at(now)]
            .into_iter()
            .flatten()
            .chain(each)
            .min()
    }

    /// Counts a delivery of this route as in flight until its place is dropped.
    pub(super) fn enter(
        self: &Arc<Self>,
        route: Route,
        rules: &Rules,
        replicas: u32,
        now: Instant,
    ) -> InFlight {
        let mut table = self.table();
        table.tidy(now);
        table.in_flight += 1;
        *table.accounts.entry(route.account.clone()).or_default() += 1;
        *table.sources.entry(route.source.clone()).or_default() += 1;
        if let Some(rate) = rules.rate {
            table.bucket.take(SharedRate::new(rate, replicas), 1, now);
        }
        let rate = rules.caps(&route.destination).rate;
        let entry = table
            .destinations
            .entry(called(&route))
            .or_insert_with(|| CallState::new(now));
        entry.in_flight += 1;
        entry.touched = now;
        if let Some(rate) = rate {
            entry.bucket.take(SharedRate::new(rate, replicas), 1, now);
        }
        let begun = entry.breaker.begin(now);
        let tries_here = entry.key.as_mut().is_some_and(|refused| refused.begin(now));
        let shared = table
            .key
            .as_mut()
            .filter(|_| route.destination.kind.is_upstream() && rules.shares_key(&route.account));
        let tries_all = shared.is_some_and(|refused| refused.begin(now));
        table.probing[side(&route.account)] += usize::from(begun.probe);
        self.show(&table);
        self.metrics.in_flight(route.destination.kind.as_str(), 1);
        let key = Some(KeyUse {
            at: now,
            tries_here,
            tries_all,
        });
        InFlight {
            throttle: self.clone(),
            route,
            begun: Some(begun),
            key,
        }
    }

    /// Leaves a route's destination, or the upstream as a whole, alone until a time, as it asked. What it asks of other
    /// accounts than the operator's says nothing about the upstream as a whole.
    pub(super) fn rest(&self, route: &Route, whole: bool, until: Instant) {
        let mut table = self.table();
        let rest = if whole && route.account == Account::Operator {
            &mut table.rest
        } else {
            match table.destinations.get_mut(&called(route)) {
                Some(entry) => &mut entry.rest,
                None => return,
            }
        };
        *rest = Some(rest.map_or(until, |before| before.max(until)));
    }

    /// Calls a destination as before for every account, whatever it did or asked for. False if nothing kept it from being
    /// called.
    pub(super) fn call_again(&self, destination: &Destination, now: Instant) -> bool {
        let mut table = self.table();
        let table = &mut *table;
        let mut changed = table.rest.take().is_some_and(|until| until > now);
        let (mut known, probing, broken) = (false, &mut table.probing, &mut table.broken);
        let of_it = table
            .destinations
            .iter_mut()
            .filter(|((_, called), _)| called == destination);
        for ((account, _), entry) in of_it {
            known = true;
            let probes = matches!(
                (entry.breaker.room(0, now), entry.breaker.state(now)),
                (0, BreakerState::HalfOpen)
            );
            let was_open = entry.breaker.reset(now);
            let asked = entry.rest.take().is_some_and(|until| until > now);
            if let Some(refused) = &mut entry.key {
                refused.hurry(now);
                changed = true;
            }
            let of_side = &mut probing[side(account)];
            *of_side = of_side.saturating_sub(usize::from(probes));
            *broken = broken.saturating_sub(usize::from(was_open));
            changed |= was_open || asked;
        }
        if known {
            self.show(table);
            self.opened.notify_one();
        }
        changed
    }

    fn show(&self, table: &ThrottleState) {
        let probing = table.probing.iter().sum();
        self.metrics
            .breakers(table.broken.saturating_sub(probing), probing);
        let here = table
            .destinations
            .values()
            .filter(|entry| entry.key.is_some())
            .count();
        self.metrics
            .keys_refused(usize::from(table.key.is_some()), here);
    }

    // Counts only, changed in one go each: a panic leaves nothing half done.
    fn table(&self) -> MutexGuard<'_, ThrottleState> {
        self.table.lock()
    }
}

/// The index of the calls that try a destination which failed: foreign callers' apart from all others.
fn side(account: &Account) -> usize {
    usize::from(account.is_foreign())
}
