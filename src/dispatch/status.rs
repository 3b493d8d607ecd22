//! The standing of destinations and keys, and an operator's orders about them.

use std::time::{Duration, Instant};

use super::Dispatcher;
use super::breaker::BreakerState;
use super::keys::RefusedKey;
use super::throttle::Closed;
use crate::inbox::Pause;
use crate::model::{Account, Destination, Route, Timestamp};

/// The longest time that a pause waits for what is about to be sent.
const SETTING_OUT: Duration = Duration::from_millis(250);

/// The standing of a destination that an account calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationStatus {
    /// The destination.
    pub destination: Destination,
    /// The account whose calls these are.
    pub account: Account,
    /// The state of its breaker.
    pub breaker: BreakerState,
    /// The time since when the breaker is in this state.
    pub since: Timestamp,
    /// The number of failures among its last calls.
    pub failures: usize,
    /// The number of calls in flight.
    pub in_flight: usize,
    /// The reason why nothing is sent to it now.
    pub closed: Option<Closed>,
    /// The end of that, where it is known.
    pub closed_until: Option<Timestamp>,
    /// The time of the next call that tries it, while it is left alone.
    pub next_probe: Option<Timestamp>,
}

impl Dispatcher {
    /// The standing of the destinations that this process knows anything about, by name. Any other may be called.
    pub fn destinations(&self) -> Vec<DestinationStatus> {
        let (wall, now) = (self.clock.now(), tokio::time::Instant::now().into_std());
        let at = |instant: Instant| match instant.checked_duration_since(now) {
            Some(ahead) => wall + ahead,
            None => wall - now.saturating_duration_since(instant),
        };
        let statuses = self.throttle.statuses(&self.rules, self.replicas(), now);
        statuses
            .into_iter()
            .map(|status| DestinationStatus {
                destination: status.destination,
                account: status.account,
                breaker: status.breaker,
                since: at(status.since),
                failures: status.failures,
                in_flight: status.in_flight,
                closed: status.closed.map(|(why, _)| why),
                closed_until: status.closed.and_then(|(_, until)| until).map(at),
                next_probe: status.next_probe.map(at),
            })
            .collect()
    }

    /// The reason why nothing of a route is sent from here now, and the end of that where it is known.
    pub fn waits(&self, route: &Route) -> Option<(Closed, Option<Timestamp>)> {
        let (wall, now) = (self.clock.now(), tokio::time::Instant::now().into_std());
        let replicas = self.replicas();
        let (why, until) = self.throttle.closed(route, &self.rules, replicas, now)?;
        let at = |until: Instant| wall + until.saturating_duration_since(now);
        Some((why, until.map(at)))
    }

    /// The keys of the gateway's own that the upstream refuses; the one that is shared by most first.
    pub fn refused_keys(&self) -> Vec<RefusedKey> {
        let (wall, now) = (self.clock.now(), tokio::time::Instant::now().into_std());
        let refused = self.throttle.key_refusals(&self.rules).into_iter();
        refused
            .map(|(destination, account, refused)| RefusedKey {
                setting: self.rules.key_setting(&account),
                destination,
                account,
                since: wall - now.saturating_duration_since(refused.since),
                next_try: refused
                    .next()
                    .map(|at| wall + at.saturating_duration_since(now)),
                status: refused.status,
                detail: refused.detail,
            })
            .collect()
    }

    /// The host and port of the upstream.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Pauses something in this process at once, or resumes it, after the inbox has kept the order. Returns when no run
    /// that the pause is about begins here any more: what was on its way to the upstream has been sent, as far as can be
    /// told.
    pub async fn pause(&self, what: &Pause, on: bool) {
        let setting_out = self.throttle.pause_here(what, on);
        if on {
            let _ = tokio::time::timeout(SETTING_OUT, setting_out.closed()).await;
        }
    }

    /// Calls a destination again at once, whatever it did or asked for. False if nothing kept it from being called.
    pub fn reset(&self, destination: &Destination) -> bool {
        let now = tokio::time::Instant::now().into_std();
        self.throttle.call_again(destination, now)
    }
}
