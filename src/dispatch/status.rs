//! How destinations status, for operators.

use std::time::Duration;

use super::Dispatcher;
use super::breaker::BreakerState;
use super::keys::RefusedKey;
use super::throttle::Closed;
use crate::inbox::Pause;
use crate::model::{Account, Destination, Route, Timestamp};

/// How long a hold waits for what is about to be sent.
const SETTING_OUT: Duration = Duration::from_millis(250);

/// How a destination statuses that an account calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationStatus {
    /// Which.
    pub destination: Destination,
    /// Whose calls.
    pub account: Account,
    /// How it stands with its breaker.
    pub breaker: BreakerState,
    /// Since when it is called or left alone.
    pub since: Timestamp,
    /// How many of its last calls failed.
    pub failures: usize,
    /// How many calls are in flight.
    pub in_flight: usize,
    /// Why nothing is sent to it now.
    pub closed: Option<Closed>,
    /// Until when, where that is known.
    pub closed_until: Option<Timestamp>,
    /// When a call tries it again, while it is left alone.
    pub next_probe: Option<Timestamp>,
}

impl Dispatcher {
    /// How the destinations status of which this process knows anything, by name. Of one that is not among them nothing
    /// is known: it may be called.
    pub fn destinations(&self) -> Vec<DestinationStatus> {
        let (wall, now) = (self.clock.now(), tokio::time::Instant::now().into_std());
        let at = |instant: std::time::Instant| match instant.checked_duration_since(now) {
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

    /// Why nothing of a route is sent from here now, and until when where that is known.
    pub fn waits(&self, route: &Route) -> Option<(Closed, Option<Timestamp>)> {
        let (wall, now) = (self.clock.now(), tokio::time::Instant::now().into_std());
        let (why, until) = self
            .throttle
            .waits(route, &self.rules, self.replicas(), now)?;
        Some((
            why,
            until.map(|until| wall + until.saturating_duration_since(now)),
        ))
    }

    /// Which of the gateway's own keys the upstream refuses, and since when; the one that is shared by most first.
    pub fn refused_keys(&self) -> Vec<RefusedKey> {
        let (wall, now) = (self.clock.now(), tokio::time::Instant::now().into_std());
        let refused = self.throttle.refused_keys(&self.rules).into_iter();
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

    /// Holds something in this process at once, or lets it go; the inbox has been told. Returns when no run that the
    /// hold is about begins here any more: what was on its way to the upstream has been sent, as far as can be told.
    pub async fn hold(&self, what: &Pause, on: bool) {
        let setting_out = self.throttle.hold_here(what, on);
        if on {
            let _ = tokio::time::timeout(SETTING_OUT, setting_out.closed()).await;
        }
    }

    /// Calls a destination again at once, whatever it did or asked for. False: nothing kept it from being called.
    pub fn reset(&self, destination: &Destination) -> bool {
        self.throttle
            .reset(destination, tokio::time::Instant::now().into_std())
    }
}
