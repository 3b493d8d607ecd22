//! Refused keys as the throttle records them: of the upstream as a whole, and of an account at a destination.

use std::time::{Duration, Instant};

use super::super::keys::{KeyChange, KeyRefusal, KeySign, LATER, refuse};
use super::Throttle;
use super::in_flight::{InFlight, KeyUse};
use super::rules::Rules;
use super::state::{ThrottleState, called};
use crate::model::{Account, Destination, Route};

impl Throttle {
    /// True if the key of a route is refused, so that only a call that tries it may be made.
    pub(in crate::dispatch) fn refuses_key(&self, route: &Route, rules: &Rules) -> bool {
        let table = self.table();
        (table.key.is_some() && rules.shares_key(&route.account))
            || table
                .destinations
                .get(&called(route))
                .is_some_and(|entry| entry.key.is_some())
    }

    /// The keys that are refused: the shared one, and those of accounts at single destinations.
    pub(in crate::dispatch) fn key_refusals(
        &self,
        rules: &Rules,
    ) -> Vec<(Option<Destination>, Account, KeyRefusal)> {
        let table = self.table();
        let of_all = table
            .key
            .iter()
            .map(|refused| (None, Account::Operator, refused.clone()));
        let said = |account: &Account, refused: &KeyRefusal| {
            table.key.is_some() && refused.status == 401 && rules.shares_key(account)
        };
        let here = table
            .destinations
            .iter()
            .filter_map(|((account, to), entry)| {
                let refused = entry
                    .key
                    .as_ref()
                    .filter(|refused| !said(account, refused))?;
                Some((Some(to.clone()), account.clone(), refused.clone()))
            });
        let mut list: Vec<_> = of_all.chain(here).collect();
        list.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        list
    }
}

impl ThrottleState {
    /// Lets another call try a key: the one that tried it ended without a word on it.
    pub(super) fn abandon_key(&mut self, route: &Route, shown: KeyUse, now: Instant) {
        let here = self
            .destinations
            .get_mut(&called(route))
            .and_then(|entry| entry.key.as_mut());
        if let Some(refused) = here.filter(|_| shown.tries_here) {
            refused.abandon(now);
        }
        if let Some(refused) = self.key.as_mut().filter(|_| shown.tries_all) {
            refused.abandon(now);
        }
    }

    /// Notes that the upstream took a key. A call that began before the key was refused says nothing about it.
    pub(super) fn key_is_good(
        &mut self,
        route: &Route,
        shown: KeyUse,
        rules: &Rules,
        now: Instant,
    ) -> KeyChange {
        let shares = rules.shares_key(&route.account);
        let newer = |refused: &KeyRefusal| refused.since <= shown.at;
        let mut change = KeyChange::None;
        if let Some(entry) = self.destinations.get_mut(&called(route))
            && entry.key.as_ref().is_none_or(newer)
        {
            entry.key_refused = None;
            if entry.key.take().is_some() {
                change = KeyChange::Good;
            }
        }
        if shares && self.key.as_ref().is_none_or(newer) {
            self.key_good = Some(now);
            if self.key.take().is_some() {
                change = KeyChange::Good;
                // What was refused as the key itself is tried again at once.
                for ((account, _), entry) in &mut self.destinations {
                    if rules.shares_key(account) {
                        entry.key.take_if(|refused| refused.status == 401);
                    }
                }
            }
        }
        change
    }
}

impl InFlight {
    /// Reports what the attempt says about the key that it was made with.
    pub(in crate::dispatch) fn tell_key(
        &mut self,
        sign: KeySign,
        detail: &str,
        rules: &Rules,
        now: Instant,
    ) -> KeyChange {
        let Some(shown) = self.key.take() else {
            return KeyChange::None;
        };
        let mut table = self.throttle.table();
        let shares = rules.shares_key(&self.route.account);
        let change = match sign {
            KeySign::Nothing => {
                table.abandon_key(&self.route, shown, now);
                KeyChange::None
            }
            KeySign::Good => table.key_is_good(&self.route, shown, rules, now),
            KeySign::Refused(status) => {
                let good = table.key_good;
                let Some(entry) = table.destinations.get_mut(&called(&self.route)) else {
                    return KeyChange::None;
                };
                // One that was taken elsewhere since it was refused here is good, and not for this destination.
                let only_here =
                    status != 401 || !shares || entry.key_refused.is_some_and(|at| good > Some(at));
                entry.key_refused = (status == 401).then_some(now).or(entry.key_refused);
                let new_here = refuse(
                    &mut entry.key,
                    shown.tries_here,
                    (status, detail),
                    LATER,
                    now,
                );
                if only_here {
                    if let Some(refused) = table.key.as_mut().filter(|_| shown.tries_all) {
                        refused.abandon(now);
                    }
                    if new_here {
                        KeyChange::HeldTo
                    } else {
                        KeyChange::None
                    }
                } else if refuse(
                    &mut table.key,
                    shown.tries_all,
                    (status, detail),
                    Duration::ZERO,
                    now,
                ) {
                    KeyChange::Held
                } else {
                    KeyChange::None
                }
            }
        };
        self.throttle.show(&table);
        if change != KeyChange::None || std::mem::take(&mut table.closed) {
            self.throttle.opened.notify_one();
        }
        change
    }
}
