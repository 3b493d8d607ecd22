//! The record of what is in flight, resting, refused and used up. It is bounded, however many destinations callers name.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::super::breaker::{Breaker, BreakerState};
use super::super::keys::KeyRefusal;
use super::PROBES;
use crate::inbox::Pause;
use crate::limit::Bucket;
use crate::model::{Account, Destination, Route};

/// The time for which an idle destination is remembered.
const IDLE: Duration = Duration::from_secs(600);

/// The largest number of destinations that are remembered, apart from those with calls in flight.
pub(super) const MAX_DESTINATIONS: usize = 10_000;

/// The time between two searches for idle destinations.
pub(super) const TIDY: Duration = Duration::from_secs(60);

/// An account and a destination that it calls: one account's calls change nothing for another's.
pub(super) type Called = (Account, Destination);

/// The account and the destination of a route.
pub(super) fn called(route: &Route) -> Called {
    (route.account.clone(), route.destination.clone())
}

/// The record of everything that is counted.
#[derive(Debug)]
pub(super) struct ThrottleState {
    pub(super) destinations: HashMap<Called, CallState>,
    /// Calls in flight, by account.
    pub(super) accounts: HashMap<Account, usize>,
    /// Calls in flight, by source.
    pub(super) sources: HashMap<String, usize>,
    pub(super) in_flight: usize,
    pub(super) bucket: Bucket,
    /// The end of the rest that the upstream as a whole asked for.
    pub(super) rest: Option<Instant>,
    /// The refusal of `upstream.api_key`, and the time at which the upstream last took it.
    pub(super) key: Option<KeyRefusal>,
    pub(super) key_good: Option<Instant>,
    pub(super) paused: HashSet<Pause>,
    /// The number of changes to `paused` by an operator in this process.
    pub(super) pause_changes: u64,
    /// Every run that is about to begin has a receiver of it; a pause puts another in its place.
    pub(super) setting_out: watch::Sender<()>,
    /// The budgets of runs that are spent, with the time until which they are.
    pub(super) spent: HashMap<String, Instant>,
    /// The calls in flight that try a destination which failed, and the largest number of them; foreign callers' apart from
    /// all others.
    pub(super) probing: [usize; 2],
    pub(super) most_probing: [usize; 2],
    /// Destinations whose breaker is not closed.
    pub(super) broken: usize,
    /// True if the last claim found something closed.
    pub(super) closed: bool,
    pub(super) tidied: Option<Instant>,
}

/// The record of one destination as an account calls it.
#[derive(Debug)]
pub(super) struct CallState {
    pub(super) in_flight: usize,
    pub(super) breaker: Breaker,
    pub(super) bucket: Bucket,
    /// The end of the rest that it asked for.
    pub(super) rest: Option<Instant>,
    /// The refusal of the account's key here, and the time at which the key itself was last refused, if it was not taken
    /// since.
    pub(super) key: Option<KeyRefusal>,
    pub(super) key_refused: Option<Instant>,
    pub(super) touched: Instant,
}

impl CallState {
    pub(super) fn new(now: Instant) -> Self {
        let (breaker, bucket) = (Breaker::new(now), Bucket::default());
        Self {
            in_flight: 0,
            breaker,
            bucket,
            rest: None,
            key: None,
            key_refused: None,
            touched: now,
        }
    }

    /// True if nothing would be lost by forgetting it.
    fn is_idle(&self, now: Instant) -> bool {
        self.in_flight == 0
            && self.key.is_none()
            && self.rest.is_none_or(|until| until <= now)
            && self.bucket.is_full(now)
            && self.breaker.state(now) == BreakerState::Closed
            && now.saturating_duration_since(self.touched) >= IDLE
    }
}

impl ThrottleState {
    /// A record of nothing.
    pub(super) fn new() -> Self {
        Self {
            destinations: HashMap::new(),
            accounts: HashMap::new(),
            sources: HashMap::new(),
            in_flight: 0,
            bucket: Bucket::default(),
            rest: None,
            key: None,
            key_good: None,
            paused: HashSet::new(),
            pause_changes: 0,
            setting_out: watch::Sender::new(()),
            spent: HashMap::new(),
            probing: [0; 2],
            most_probing: [PROBES; 2],
            broken: 0,
            closed: false,
            tidied: None,
        }
    }

    pub(super) fn is_paused(&self, route: &Route) -> bool {
        !self.paused.is_empty()
            && (self.paused.contains(&Pause::All)
                || self.paused.contains(&Pause::Source(route.source.clone()))
                || self
                    .paused
                    .contains(&Pause::Destination(route.destination.clone())))
    }

    pub(super) fn is_spent(
        &self,
        budget: impl FnOnce() -> String,
        now: Instant,
    ) -> Option<Instant> {
        let until = if self.spent.is_empty() {
            None
        } else {
            self.spent.get(&budget()).copied()
        };
        until.filter(|until| *until > now)
    }

    /// Forgets idle destinations; if there are too many, those that were called longest ago.
    pub(super) fn tidy(&mut self, now: Instant) {
        let due = self
            .tidied
            .is_none_or(|last| now.saturating_duration_since(last) >= TIDY);
        if !due && self.destinations.len() < MAX_DESTINATIONS {
            return;
        }
        self.tidied = Some(now);
        self.spent.retain(|_, until| *until > now);
        self.destinations.retain(|_, entry| !entry.is_idle(now));
        if self.destinations.len() >= MAX_DESTINATIONS {
            // Foreign callers name any destination they like: theirs are forgotten first while they are half of all.
            let foreign = self
                .destinations
                .keys()
                .filter(|(account, _)| account.is_foreign())
                .count();
            let only_foreign = foreign >= MAX_DESTINATIONS / 2;
            let may_go = |account: &Account, entry: &CallState| {
                entry.in_flight == 0 && (account.is_foreign() || !only_foreign)
            };
            let resting = self
                .destinations
                .iter()
                .filter(|((account, _), entry)| may_go(account, entry));
            let mut ages: Vec<Instant> = resting.map(|(_, entry)| entry.touched).collect();
            ages.sort_unstable();
            let edge = ages.get(ages.len() / 2).copied();
            self.destinations.retain(|(account, _), entry| {
                !may_go(account, entry) || edge.is_some_and(|edge| entry.touched > edge)
            });
            let broken = |entry: &&CallState| entry.breaker.state(now) != BreakerState::Closed;
            self.broken = self.destinations.values().filter(broken).count();
        }
    }
}
