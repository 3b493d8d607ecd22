//! The standing of destinations, for an operator.

use std::time::Instant;

use super::super::breaker::BreakerState;
use super::room::TakenByClaim;
use super::rules::Rules;
use super::{Closed, Throttle};
use crate::inbox::budget;
use crate::model::{Account, Destination, Route};

/// The standing of a destination that an account calls.
#[derive(Clone, Debug)]
pub(in crate::dispatch) struct CallStatus {
    pub(in crate::dispatch) destination: Destination,
    pub(in crate::dispatch) account: Account,
    pub(in crate::dispatch) breaker: BreakerState,
    pub(in crate::dispatch) since: Instant,
    pub(in crate::dispatch) failures: usize,
    pub(in crate::dispatch) in_flight: usize,
    /// The reason why nothing is sent to it, and the end of that where it is known.
    pub(in crate::dispatch) closed: Option<(Closed, Option<Instant>)>,
    pub(in crate::dispatch) next_probe: Option<Instant>,
}

impl Throttle {
    /// The reason why nothing of a route is sent, and the end of that where it is known.
    pub(in crate::dispatch) fn closed(
        &self,
        route: &Route,
        rules: &Rules,
        replicas: u32,
        now: Instant,
    ) -> Option<(Closed, Option<Instant>)> {
        let table = self.table();
        if table.is_paused(route) {
            return Some((Closed::Paused, None));
        }
        if let Some(until) = table.is_spent(|| budget::of_source(&route.source), now) {
            return Some((Closed::Spent, Some(until)));
        }
        let (account, none) = (&route.account, TakenByClaim::default());
        if let Err(why) = table.closed_account(
            (account, route.destination.kind),
            rules,
            replicas,
            none,
            now,
        ) {
            return Some(why);
        }
        if let Err(why) = table.closed_to(account, &route.destination, rules, replicas, none, now) {
            return Some(why);
        }
        let in_flight = table
            .sources
            .get(&route.source)
            .copied()
            .unwrap_or_default();
        if in_flight >= rules.most_of_source(&route.source, replicas) {
            return Some((Closed::SourceConcurrency, None));
        }
        table.closed_whole(rules, replicas, &self.budget, now).err()
    }

    /// The standing of every destination that anything is known about, by name.
    pub(in crate::dispatch) fn statuses(
        &self,
        rules: &Rules,
        replicas: u32,
        now: Instant,
    ) -> Vec<CallStatus> {
        let table = self.table();
        let whole = table.closed_whole(rules, replicas, &self.budget, now).err();
        let mut statuses: Vec<CallStatus> = table
            .destinations
            .iter()
            .map(|((account, destination), entry)| CallStatus {
                destination: destination.clone(),
                account: account.clone(),
                breaker: entry.breaker.state(now),
                since: entry.breaker.since,
                failures: entry.breaker.failures(),
                in_flight: entry.in_flight,
                closed: table
                    .closed_account(
                        (account, destination.kind),
                        rules,
                        replicas,
                        TakenByClaim::default(),
                        now,
                    )
                    .and_then(|_| {
                        table.closed_to(
                            account,
                            destination,
                            rules,
                            replicas,
                            TakenByClaim::default(),
                            now,
                        )
                    })
                    .err()
                    .or(whole),
                next_probe: entry.breaker.opens_at(now),
            })
            .collect();
        statuses.sort_by(|a, b| (&a.destination, &a.account).cmp(&(&b.destination, &b.account)));
        statuses
    }
}
