//! Reports about the end of an attempt: to the breaker, to the record of refused keys, and to the log.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Dispatcher;
use super::breaker::BreakerChange;
use super::keys::KeyChange;
use super::throttle::InFlight;
use super::verdict::Verdict;
use crate::inbox::{Claimed, Next};
use crate::model::Destination;
use crate::telemetry::SparseLines;

impl Dispatcher {
    /// Tells the breaker of the destination how the call ended.
    pub(super) fn report_to_breaker(
        &self,
        place: &mut InFlight,
        destination: &Destination,
        verdict: &Verdict,
    ) {
        let (now, replicas) = (Instant::now().into_std(), self.replicas());
        let detail = &verdict.detail;
        match place.tell(verdict.sign, &self.rules, replicas, now, fastrand::f64()) {
            BreakerChange::Opened => {
                let rest_s = self.rules.breaker.rest.as_secs_f64();
                tracing::error!(%destination, rest_s, detail, "its calls fail, it is left alone and tried now and then");
            }
            BreakerChange::Closed => tracing::info!(%destination, "it answers again"),
            BreakerChange::Reopened => tracing::debug!(%destination, detail, "it still fails"),
            BreakerChange::None => {}
        }
    }

    /// Notes whether the upstream took the gateway's own key.
    pub(super) fn report_key(&self, place: &mut InFlight, claimed: &Claimed, verdict: &Verdict) {
        if claimed.account.is_foreign() || !claimed.destination.kind.is_upstream() {
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
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Logs the end of an attempt.
pub(super) fn log(claimed: &Claimed, verdict: &Verdict, took: Duration, lines: &Arc<SparseLines>) {
    let (delivery, event) = (claimed.id, claimed.id.event);
    let (source, destination, attempt) = (&claimed.source, &claimed.destination, claimed.attempt);
    let (result, status, detail) = (verdict.result, verdict.status, &verdict.detail);
    let took_ms = millis(took);
    match &verdict.next {
        Next::Delivered(_) => {
            tracing::info!(%delivery, %event, source, %destination, attempt, result, took_ms, "delivered");
        }
        // A step of a delivery that takes several: it went well, or waits for its turn.
        Next::Retry { at, .. } if matches!(result, "sent" | "asked" | "paced" | "waits") => {
            tracing::debug!(%delivery, %event, source, %destination, attempt, result, status, detail, next_at = %at, took_ms, "goes on");
        }
        Next::Retry { at, .. } => {
            tracing::warn!(%delivery, %event, source, %destination, attempt, result, status, detail, retry_at = %at, took_ms, "attempt failed, will retry");
        }
        // All of them are in the inbox, and the metrics count them.
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
