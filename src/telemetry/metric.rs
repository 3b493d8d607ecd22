//! Every metric's name, labels and meaning. Labels come from configuration and from our own words only, so that no
//! caller can make a new series.
//!
//! What adds up (`tests/it/pace.rs`): every accepted event, every one that could not be mapped, every replay and every
//! reply to a chat is one delivery in `sluicegate_inbox_deliveries`, whatever its state: accepted + unmappable + replayed = pending + leased +
//! delivered + dead + unknown + cancelled + merged + dropped + unmappable + closed (dead, unknown or unmappable once, and
//! replayed or removed since). Of these, `sluicegate_deliveries_total` counts what this process brought to a state that it
//! does not leave by itself (what operators settle or call off is counted in the inbox alone).

use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, TextEncoder,
};

use super::{definition, log};
use crate::model::{Account, Attachment, Class, Outcome};

/// The counters of one gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    refused: IntCounterVec,
    key_requests: IntCounterVec,
    accept: Histogram,
    attempts: IntCounterVec,
    attempt: HistogramVec,
    claimed: IntCounterVec,
    deliveries: IntCounterVec,
    reconciled: IntCounterVec,
    in_flight: IntGaugeVec,
    breakers: IntGaugeVec,
    /// Number of times that a destination was paused because it failed.
    pub breaker_opened: IntCounter,
    keys_refused: IntGaugeVec,
    held: IntGaugeVec,
    /// Public connections open now.
    pub connections: IntGauge,
    connections_refused: IntCounterVec,
    kept: IntGaugeVec,
    log_dropped: IntCounter,
    open: IntGaugeVec,
    oldest: IntGaugeVec,
    last_event: IntGaugeVec,
    disk: IntGaugeVec,
    standing: IntGauge,
    replicas: IntGauge,
    files: IntCounterVec,
    file_bytes: IntCounterVec,
}

/// Figures of a source that are read when metrics are collected.
#[derive(Debug)]
pub struct SourceGauges<'a> {
    /// Name of the source.
    pub source: &'a str,
    /// Number of its events that need an operator, by the state of their last delivery.
    pub open: [(&'static str, u64); 3],
    /// Age of its oldest waiting event, in seconds.
    pub oldest_pending_s: u64,
    /// Time of its last event, in seconds since 1970.
    pub last_event_s: Option<i64>,
}

impl Metrics {
    /// All of them at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let build = definition::BUILD.gauges(&registry);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            requests: definition::REQUESTS.counters(&registry),
            refused: definition::REFUSED.counters(&registry),
            key_requests: definition::KEY_REQUESTS.counters(&registry),
            accept: definition::ACCEPT.histogram(&registry),
            attempts: definition::ATTEMPTS.counters(&registry),
            attempt: definition::ATTEMPT.histograms(&registry),
            claimed: definition::CLAIMED.counters(&registry),
            deliveries: definition::DELIVERIES.counters(&registry),
            reconciled: definition::RECONCILED.counters(&registry),
            in_flight: definition::IN_FLIGHT.gauges(&registry),
            breakers: definition::BREAKERS.gauges(&registry),
            breaker_opened: definition::BREAKER_OPENED.counter(&registry),
            keys_refused: definition::KEYS_REFUSED.gauges(&registry),
            held: definition::HELD.gauges(&registry),
            connections: definition::CONNECTIONS.gauge(&registry),
            connections_refused: definition::CONNECTIONS_REFUSED.counters(&registry),
            kept: definition::KEPT.gauges(&registry),
            log_dropped: definition::LOG_DROPPED.counter(&registry),
            open: definition::OPEN.gauges(&registry),
            oldest: definition::OLDEST.gauges(&registry),
            last_event: definition::LAST_EVENT.gauges(&registry),
            disk: definition::DISK.gauges(&registry),
            standing: definition::STANDING.gauge(&registry),
            replicas: definition::REPLICAS.gauge(&registry),
            files: definition::FILES.counters(&registry),
            file_bytes: definition::FILE_BYTES.counters(&registry),
            registry,
        }
    }

    /// One request has ended.
    pub fn request(&self, source: &str, outcome: Outcome, took: Duration) {
        self.requests
            .with_label_values(&[source, outcome.as_str()])
            .inc();
        if outcome == Outcome::Accepted {
            self.accept.observe(took.as_secs_f64());
        }
    }

    /// One request with a key of the gateway's own has ended; counted beside [`Self::request`].
    pub fn key_request(&self, key: &str, outcome: Outcome) {
        self.key_requests
            .with_label_values(&[key, outcome.as_str()])
            .inc();
    }

    /// Files of one request were kept.
    pub fn files(&self, source: &str, files: &[Attachment]) {
        self.files
            .with_label_values(&[source])
            .inc_by(files.len() as u64);
        self.file_bytes
            .with_label_values(&[source])
            .inc_by(files.iter().map(|file| file.size).sum());
    }

    /// One request was refused; counted beside [`Self::request`].
    pub fn refused(&self, source: &str, reason: &str) {
        self.refused.with_label_values(&[source, reason]).inc();
    }

    /// One connection was turned away at the door.
    pub fn turned_away(&self, reason: &str) {
        self.connections_refused.with_label_values(&[reason]).inc();
    }

    /// One try of a delivery has ended.
    pub fn attempt(&self, source: &str, result: &str, took: Duration) {
        self.attempts.with_label_values(&[source, result]).inc();
        self.attempt
            .with_label_values(&[source])
            .observe(took.as_secs_f64());
    }

    /// A delivery is about to be sent.
    pub fn claimed(&self, account: &Account, class: Class) {
        // The names of keys may come and go.
        let account = match account {
            Account::Operator => "operator",
            Account::Key(_) => "key",
            Account::Foreign => "foreign",
        };
        self.claimed
            .with_label_values(&[class.as_str(), account])
            .inc();
    }

    /// So many deliveries have reached a state which they do not leave by themselves.
    pub fn deliveries(&self, source: &str, state: &str, count: u64) {
        if count > 0 {
            self.deliveries
                .with_label_values(&[source, state])
                .inc_by(count);
        }
    }

    /// So many more deliveries (or less) are being sent to destinations of a kind.
    pub fn in_flight(&self, kind: &str, more: i64) {
        self.in_flight.with_label_values(&[kind]).add(more);
    }

    /// Sets the number of paused destinations, and of those that are being tried.
    pub fn breakers(&self, open: usize, half_open: usize) {
        for (state, count) in [("open", open), ("half_open", half_open)] {
            self.breakers
                .with_label_values(&[state])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets whether the upstream refuses its key, and the number of destinations that refuse a key that others accept.
    pub fn keys_refused(&self, whole: usize, destinations: usize) {
        for (of, count) in [("all", whole), ("destination", destinations)] {
            self.keys_refused
                .with_label_values(&[of])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets the amount of a kind that is held.
    pub fn held(&self, kind: &str, count: usize) {
        self.held
            .with_label_values(&[kind])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// An event was read in a provider's own log.
    pub fn reconciled(&self, source: &str, became: &str) {
        self.reconciled.with_label_values(&[source, became]).inc();
    }

    /// Sets the number of a source's deliveries in a state, when metrics are collected.
    pub fn kept(&self, source: &str, state: &str, count: u64) {
        self.kept
            .with_label_values(&[source, state])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets the figures of all sources, when metrics are collected. Sources that are not named are removed.
    pub fn sources<'a>(&self, fares: impl Iterator<Item = SourceGauges<'a>>) {
        self.open.reset();
        self.oldest.reset();
        self.last_event.reset();
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for fare in fares {
            for (state, count) in fare.open {
                self.open
                    .with_label_values(&[fare.source, state])
                    .set(whole(count));
            }
            self.oldest
                .with_label_values(&[fare.source])
                .set(whole(fare.oldest_pending_s));
            if let Some(at) = fare.last_event_s {
                self.last_event.with_label_values(&[fare.source]).set(at);
            }
        }
    }

    /// Sets the disk space of the inbox, when metrics are collected.
    pub fn disk(&self, bytes: u64, reusable: u64, ceiling: Option<u64>) {
        for (of, bytes) in [
            ("used", Some(bytes)),
            ("reusable", Some(reusable)),
            ("ceiling", ceiling),
        ] {
            match bytes {
                Some(bytes) => {
                    self.disk
                        .with_label_values(&[of])
                        .set(i64::try_from(bytes).unwrap_or(i64::MAX));
                }
                // It may have been there before the configuration changed.
                None => drop(self.disk.remove_label_values(&[of])),
            }
        }
    }

    /// Sets the state of this process among those that share the inbox, when metrics are collected.
    pub fn standing(&self, good: bool, replicas: u32) {
        self.standing.set(good.into());
        self.replicas.set(replicas.into());
    }

    /// The Prometheus text form.
    pub fn text(&self) -> String {
        self.log_dropped
            .inc_by(log::dropped().saturating_sub(self.log_dropped.get()));
        let mut out = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            Ok(()) => String::from_utf8(out).unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be written");
                String::new()
            }
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_show_in_the_text() {
        let metrics = Metrics::new();
        metrics.request("triage", Outcome::Refused, Duration::ZERO);
        metrics.refused("triage", "stale");
        metrics.kept("triage", "pending", 7);
        metrics.disk(4096, 1024, None);
        metrics.standing(true, 3);
        metrics.deliveries("triage", "dropped", 2);
        metrics.deliveries("triage", "merged", 0);
        metrics.breakers(3, 1);
        let fare = SourceGauges {
            source: "triage",
            open: [("dead", 2), ("unknown", 0), ("unmappable", 0)],
            oldest_pending_s: 61,
            last_event_s: Some(1_800_000_000),
        };
        metrics.sources([fare].into_iter());
        let text = metrics.text();
        assert!(
            text.contains(r#"sluicegate_requests_total{outcome="refused",source="triage"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"sluicegate_refused_total{reason="stale",source="triage"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"sluicegate_deliveries_total{source="triage",state="dropped"} 2"#),
            "{text}"
        );
        assert!(!text.contains("merged"), "{text}");
        assert!(
            text.contains(r#"sluicegate_breaker_destinations{state="open"} 3"#),
            "{text}"
        );
        assert!(
            text.contains(r#"sluicegate_inbox_deliveries{source="triage",state="pending"} 7"#),
            "{text}"
        );
        assert!(
            text.contains(r#"sluicegate_inbox_bytes{of="used"} 4096"#),
            "{text}"
        );
        assert!(!text.contains(r#"of="ceiling""#), "{text}");
        for line in [
            r#"sluicegate_open_deliveries{source="triage",state="dead"} 2"#,
            r#"sluicegate_oldest_pending_seconds{source="triage"} 61"#,
            r#"sluicegate_last_event_timestamp_seconds{source="triage"} 1800000000"#,
            concat!(
                "sluicegate_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        metrics.sources(std::iter::empty());
        assert!(
            !metrics
                .text()
                .contains("sluicegate_oldest_pending_seconds{")
        );
        assert!(
            text.contains("sluicegate_standing 1") && text.contains("sluicegate_replicas 3"),
            "{text}"
        );
    }
}
