//! Every metric's name, labels and meaning. Labels come from configuration and from our own words only, so that no
//! caller can make a new series.

use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::model::{Attachment, Outcome};

/// The counters of one gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    refused: IntCounterVec,
    accept: Histogram,
    attempts: IntCounterVec,
    attempt: HistogramVec,
    deliveries: IntCounterVec,
    /// Deliveries that are being sent now.
    pub in_flight: IntGauge,
    /// Public connections open now.
    pub connections: IntGauge,
    /// Public connections turned away at the door.
    pub connections_refused: IntCounter,
    kept: IntGaugeVec,
    files: IntCounterVec,
    file_bytes: IntCounterVec,
}

/// A metric's definition is fixed at compile time; one that cannot be registered is a bug that the first test shows.
const DEFINED: &str = "metric definitions are valid and registered once";

impl Metrics {
    /// All of them at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels).expect(DEFINED);
            registry.register(Box::new(metric.clone())).expect(DEFINED);
            metric
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help).expect(DEFINED);
            registry.register(Box::new(metric.clone())).expect(DEFINED);
            metric
        };
        let requests = counters(
            "sluicegate_requests_total",
            "Requests at sources, by what became of them",
            &["source", "outcome"],
        );
        let refused = counters(
            "sluicegate_refused_total",
            "Refused requests, by reason; source is empty where none was found",
            &["source", "reason"],
        );
        let attempts =
            counters("sluicegate_attempts_total", "Tries of deliveries, by what came of them", &["source", "result"]);
        let deliveries = counters(
            "sluicegate_deliveries_total",
            "Deliveries that reached a state which they do not leave by themselves",
            &["source", "state"],
        );
        let files = counters("sluicegate_files_total", "Files that came along and were kept", &["source"]);
        let file_bytes = counters("sluicegate_file_bytes_total", "Bytes of files that came along", &["source"]);
        let accept = Histogram::with_opts(
            HistogramOpts::new("sluicegate_accept_seconds", "From a request's head to its answer, for accepted events")
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0]),
        )
        .expect(DEFINED);
        registry.register(Box::new(accept.clone())).expect(DEFINED);
        let attempt = HistogramVec::new(
            HistogramOpts::new("sluicegate_attempt_seconds", "How long a try of a delivery took")
                .buckets(vec![0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1_500.0]),
            &["source"],
        )
        .expect(DEFINED);
        registry.register(Box::new(attempt.clone())).expect(DEFINED);
        let kept = IntGaugeVec::new(
            Opts::new(
                "sluicegate_inbox_deliveries",
                "Deliveries in the inbox, by state; final states since the start of the inbox",
            ),
            &["source", "state"],
        )
        .expect(DEFINED);
        registry.register(Box::new(kept.clone())).expect(DEFINED);
        let connections_refused = IntCounter::new(
            "sluicegate_connections_refused_total",
            "Public connections turned away because server.max_connections were open",
        )
        .expect(DEFINED);
        registry.register(Box::new(connections_refused.clone())).expect(DEFINED);
        Self {
            in_flight: gauge("sluicegate_deliveries_in_flight", "Deliveries that are being sent now"),
            connections: gauge("sluicegate_connections", "Public connections open now"),
            connections_refused,
            requests,
            refused,
            accept,
            attempts,
            attempt,
            deliveries,
            kept,
            files,
            file_bytes,
            registry,
        }
    }

    /// One request has ended.
    pub fn request(&self, source: &str, outcome: Outcome, took: Duration) {
        self.requests.with_label_values(&[source, outcome.as_str()]).inc();
        if outcome == Outcome::Accepted {
            self.accept.observe(took.as_secs_f64());
        }
    }

    /// Files of one request were kept.
    pub fn files(&self, source: &str, files: &[Attachment]) {
        self.files.with_label_values(&[source]).inc_by(files.len() as u64);
        self.file_bytes.with_label_values(&[source]).inc_by(files.iter().map(|file| file.size).sum());
    }

    /// One request was refused; counted beside [`Self::request`].
    pub fn refused(&self, source: &str, reason: &str) {
        self.refused.with_label_values(&[source, reason]).inc();
    }

    /// One try of a delivery has ended.
    pub fn attempt(&self, source: &str, result: &str, took: Duration) {
        self.attempts.with_label_values(&[source, result]).inc();
        self.attempt.with_label_values(&[source]).observe(took.as_secs_f64());
    }

    /// A delivery has reached a state which it does not leave by itself.
    pub fn delivery(&self, source: &str, state: &str) {
        self.deliveries.with_label_values(&[source, state]).inc();
    }

    /// How many deliveries of a source the inbox holds in a state; set when metrics are asked for.
    pub fn kept(&self, source: &str, state: &str, count: u64) {
        self.kept.with_label_values(&[source, state]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The Prometheus text form.
    pub fn text(&self) -> String {
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
        let text = metrics.text();
        assert!(text.contains(r#"sluicegate_requests_total{outcome="refused",source="triage"} 1"#), "{text}");
        assert!(text.contains(r#"sluicegate_refused_total{reason="stale",source="triage"} 1"#), "{text}");
        assert!(text.contains(r#"sluicegate_inbox_deliveries{source="triage",state="pending"} 7"#), "{text}");
    }
}
