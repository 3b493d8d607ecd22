//! Room for more calls: how many may be sent in all, for an account, and to a destination.

use std::time::Instant;

use super::super::breaker::BreakerState;
use super::rules::{Rules, share};
use super::state::ThrottleState;
use super::{Closed, side};
use crate::inbox::{Pause, budget};
use crate::limit::{Bucket, SharedRate};
use crate::model::{Account, Destination, DestinationKind, Route};
use crate::upstream::Budget;

/// The deliveries that a claim has taken already.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::dispatch) struct TakenByClaim {
    /// Those of the account, and those of all accounts but the operator's.
    pub(in crate::dispatch) account: usize,
    pub(in crate::dispatch) others: usize,
    /// Those of all accounts whose calls are made with the shared key.
    pub(in crate::dispatch) shared_key: usize,
    /// Those of the account to the destination.
    pub(in crate::dispatch) destination: usize,
    pub(in crate::dispatch) source: usize,
    pub(in crate::dispatch) probes: usize,
}

impl ThrottleState {
    /// The number of calls that there is room for in all, or the reason why there is no room.
    pub(super) fn closed_whole(
        &self,
        rules: &Rules,
        replicas: u32,
        upstream: &Budget,
        now: Instant,
    ) -> Result<usize, (Closed, Option<Instant>)> {
        if let Some(until) = self.rest.filter(|until| *until > now) {
            return Err((Closed::AllAskedToWait, Some(until)));
        }
        let places = share(rules.concurrency, replicas).saturating_sub(self.in_flight);
        let flow = rules.rate.map(|rate| SharedRate::new(rate, replicas));
        let rate = flow.map_or(usize::MAX, |flow| self.bucket.room(flow, now));
        let budgeted = upstream.room(now);
        match (places, rate, budgeted) {
            (0, ..) => Err((Closed::AllConcurrency, None)),
            (_, 0, _) => Err((
                Closed::AllRate,
                flow.and_then(|flow| self.bucket.opens_at(flow, now)),
            )),
            (.., 0) => Err((Closed::Budget, upstream.opens_at(now))),
            _ => Ok(places.min(rate).min(budgeted)),
        }
    }

    /// The same for an account's calls to a kind of destination.
    pub(super) fn closed_account(
        &self,
        (account, kind): (&Account, DestinationKind),
        rules: &Rules,
        replicas: u32,
        taken: TakenByClaim,
        now: Instant,
    ) -> Result<usize, (Closed, Option<Instant>)> {
        if let Some(until) = self.is_spent(|| budget::of_account(account).to_owned(), now) {
            return Err((Closed::Spent, Some(until)));
        }
        let tries = match self
            .key
            .as_ref()
            .filter(|_| kind.is_upstream() && rules.shares_key(account))
        {
            None => usize::MAX,
            Some(refused) => {
                let room = refused
                    .room(now)
                    .map_err(|until| (Closed::KeyRefused, until))?;
                match room.saturating_sub(taken.shared_key) {
                    0 => return Err((Closed::KeyRefused, None)),
                    room => room,
                }
            }
        };
        if *account == Account::Operator {
            return Ok(tries);
        }
        let of = |account: &Account| self.accounts.get(account).copied().unwrap_or_default();
        let others = self.in_flight.saturating_sub(of(&Account::Operator)) + taken.others;
        let room = rules
            .most_of_account(account, replicas)
            .saturating_sub(of(account) + taken.account);
        let room = room.min(rules.most_of_others(replicas).saturating_sub(others));
        if room == 0 {
            Err((Closed::Share, None))
        } else {
            Ok(room.min(tries))
        }
    }

    /// The same for an account's calls to one destination.
    pub(super) fn closed_to(
        &self,
        account: &Account,
        destination: &Destination,
        rules: &Rules,
        replicas: u32,
        taken: TakenByClaim,
        now: Instant,
    ) -> Result<usize, (Closed, Option<Instant>)> {
        if self.paused.contains(&Pause::All)
            || self
                .paused
                .contains(&Pause::Destination(destination.clone()))
        {
            return Err((Closed::Paused, None));
        }
        if let Some(until) = self.is_spent(|| budget::of_destination(account, destination), now) {
            return Err((Closed::Spent, Some(until)));
        }
        let most = rules.most(destination, replicas);
        let flow = rules
            .caps(destination)
            .rate
            .map(|rate| SharedRate::new(rate, replicas));
        let Some(entry) = self
            .destinations
            .get(&(account.clone(), destination.clone()))
        else {
            let rate = flow.map_or(usize::MAX, |flow| Bucket::default().room(flow, now));
            let room = most.min(rate).saturating_sub(taken.destination);
            return if room == 0 {
                Err((Closed::Concurrency, None))
            } else {
                Ok(room)
            };
        };
        let tries = match &entry.key {
            None => usize::MAX,
            Some(refused) => refused
                .room(now)
                .map_err(|until| (Closed::KeyRefused, until))?,
        };
        if tries.saturating_sub(taken.destination) == 0 {
            return Err((Closed::KeyRefused, None));
        }
        if let Some(until) = entry.rest.filter(|until| *until > now) {
            return Err((Closed::AskedToWait, Some(until)));
        }
        let places = most.saturating_sub(entry.in_flight + taken.destination);
        let rate = flow
            .map_or(usize::MAX, |flow| entry.bucket.room(flow, now))
            .saturating_sub(taken.destination);
        let breaker = if rules.breaker.percent == 0 {
            usize::MAX
        } else {
            let room = entry
                .breaker
                .room(entry.in_flight, now)
                .saturating_sub(taken.destination);
            match entry.breaker.state(now) {
                BreakerState::Open => return Err((Closed::Breaker, entry.breaker.opens_at(now))),
                BreakerState::HalfOpen => {
                    let side = side(account);
                    room.min(
                        self.most_probing[side].saturating_sub(self.probing[side] + taken.probes),
                    )
                }
                BreakerState::Closed => room,
            }
        };
        match (breaker, places, rate) {
            (0, ..) => Err((Closed::Probing, None)),
            (_, 0, _) => Err((Closed::Concurrency, None)),
            (.., 0) => Err((
                Closed::Rate,
                flow.and_then(|flow| entry.bucket.opens_at(flow, now)),
            )),
            _ => Ok(breaker.min(places).min(rate).min(tries)),
        }
    }

    pub(super) fn room_of(
        &self,
        route: &Route,
        rules: &Rules,
        replicas: u32,
        taken: TakenByClaim,
        now: Instant,
    ) -> usize {
        let spent = self.is_spent(|| budget::of_source(&route.source), now);
        if spent.is_some() || self.paused.contains(&Pause::Source(route.source.clone())) {
            return 0;
        }
        let in_flight = self.sources.get(&route.source).copied().unwrap_or_default();
        let of_source = rules
            .most_of_source(&route.source, replicas)
            .saturating_sub(in_flight + taken.source);
        let of_account = self
            .closed_account(
                (&route.account, route.destination.kind),
                rules,
                replicas,
                taken,
                now,
            )
            .unwrap_or(0);
        if of_account.min(of_source) == 0 {
            return 0;
        }
        let to = self
            .closed_to(
                &route.account,
                &route.destination,
                rules,
                replicas,
                taken,
                now,
            )
            .unwrap_or(0);
        to.min(of_source).min(of_account)
    }
}
