//! Definitions of the metrics: each with its name, its meaning and its labels, in one place.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// A definition is fixed at compile time; one that cannot be registered is a bug that the first test shows.
const DEFINED: &str = "metric definitions are valid and registered once";

/// The definition of a metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct MetricDefinition {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    /// Upper bounds of the buckets of a histogram, in seconds.
    buckets: &'static [f64],
}

const fn define(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> MetricDefinition {
    MetricDefinition {
        name,
        help,
        labels,
        buckets: &[],
    }
}

pub(super) const REQUESTS: MetricDefinition = define(
    "sluicegate_requests_total",
    "Requests at sources, by what became of them",
    &["source", "outcome"],
);

pub(super) const REFUSED: MetricDefinition = define(
    "sluicegate_refused_total",
    "Refused requests, by reason; source is empty where none was found",
    &["source", "reason"],
);

pub(super) const KEY_REQUESTS: MetricDefinition = define(
    "sluicegate_key_requests_total",
    "Requests with a key of the gateway's own, by the name of the key and what became of \
     them",
    &["key", "outcome"],
);

pub(super) const ACCEPT: MetricDefinition = MetricDefinition {
    buckets: &[
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
    ],
    ..define(
        "sluicegate_accept_seconds",
        "From a request's head to its answer, for accepted events",
        &[],
    )
};

pub(super) const ATTEMPTS: MetricDefinition = define(
    "sluicegate_attempts_total",
    "Tries of deliveries, by what came of them",
    &["source", "result"],
);

pub(super) const ATTEMPT: MetricDefinition = MetricDefinition {
    buckets: &[0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1_500.0],
    ..define(
        "sluicegate_attempt_seconds",
        "How long a try of a delivery took",
        &["source"],
    )
};

pub(super) const CLAIMED: MetricDefinition = define(
    "sluicegate_claimed_total",
    "Deliveries taken to be sent, by class and by whose they are: operator, key or \
     foreign",
    &["class", "account"],
);

pub(super) const DELIVERIES: MetricDefinition = define(
    "sluicegate_deliveries_total",
    "Deliveries that reached a state which they do not leave by themselves",
    &["source", "state"],
);

pub(super) const RECONCILED: MetricDefinition = define(
    "sluicegate_reconciled_total",
    "Events read in providers' own logs, by what became of them",
    &["source", "became"],
);

pub(super) const IN_FLIGHT: MetricDefinition = define(
    "sluicegate_deliveries_in_flight",
    "Deliveries that are being sent now, by kind of destination",
    &["kind"],
);

pub(super) const BREAKERS: MetricDefinition = define(
    "sluicegate_breaker_destinations",
    "Destinations that are left alone (open) or tried with one call (half_open)",
    &["state"],
);

pub(super) const BREAKER_OPENED: MetricDefinition = define(
    "sluicegate_breaker_opened_total",
    "How often a destination was left alone because its calls failed",
    &[],
);

pub(super) const KEYS_REFUSED: MetricDefinition = define(
    "sluicegate_upstream_key_refused",
    "Whether the upstream refuses the gateway's own key: for all (1), and at how many \
     destinations",
    &["of"],
);

pub(super) const HELD: MetricDefinition = define(
    "sluicegate_held",
    "What an operator holds: every run, sources, destinations",
    &["kind"],
);

pub(super) const CONNECTIONS: MetricDefinition =
    define("sluicegate_connections", "Public connections open now", &[]);

pub(super) const CONNECTIONS_REFUSED: MetricDefinition = define(
    "sluicegate_connections_refused_total",
    "Public connections turned away or ended: full, address (its share is taken), \
     proxy_header, handshake, misuse",
    &["reason"],
);

pub(super) const KEPT: MetricDefinition = define(
    "sluicegate_inbox_deliveries",
    "Deliveries in the inbox, by state; final states since the start of the inbox, but \
     dead, unknown and unmappable by the last delivery of each event (what was replayed \
     or removed since is closed)",
    &["source", "state"],
);

pub(super) const LOG_DROPPED: MetricDefinition = define(
    "sluicegate_log_lines_dropped_total",
    "Log lines dropped because standard error was not read",
    &[],
);

pub(super) const OPEN: MetricDefinition = define(
    "sluicegate_open_deliveries",
    "Events whose last delivery is dead or unknown: what needs an operator now",
    &["source", "state"],
);

pub(super) const OLDEST: MetricDefinition = define(
    "sluicegate_oldest_pending_seconds",
    "How long ago the oldest event came that has a pending delivery; 0 where nothing \
     waits",
    &["source"],
);

pub(super) const LAST_EVENT: MetricDefinition = define(
    "sluicegate_last_event_timestamp_seconds",
    "When the last event came, in seconds since 1970",
    &["source"],
);

pub(super) const DISK: MetricDefinition = define(
    "sluicegate_inbox_bytes",
    "Bytes of the inbox: used on disk, reusable within them, ceiling (none where it is \
     not there)",
    &["of"],
);

pub(super) const STANDING: MetricDefinition = define(
    "sluicegate_standing",
    "1 while this process may call upstream, 0 while others do its work",
    &[],
);

pub(super) const REPLICAS: MetricDefinition = define(
    "sluicegate_replicas",
    "Processes that share the inbox, this one among them",
    &[],
);

pub(super) const FILES: MetricDefinition = define(
    "sluicegate_files_total",
    "Files that came along and were kept",
    &["source"],
);

pub(super) const FILE_BYTES: MetricDefinition = define(
    "sluicegate_file_bytes_total",
    "Bytes of files that came along",
    &["source"],
);

pub(super) const BUILD: MetricDefinition = define(
    "sluicegate_build_info",
    "1, with the version of the program",
    &["version"],
);

impl MetricDefinition {
    /// A counter without labels.
    pub(super) fn counter(&self, registry: &Registry) -> IntCounter {
        registered(registry, IntCounter::new(self.name, self.help))
    }

    /// Counters, one for each value of the labels.
    pub(super) fn counters(&self, registry: &Registry) -> IntCounterVec {
        registered(registry, IntCounterVec::new(self.options(), self.labels))
    }

    /// A gauge without labels.
    pub(super) fn gauge(&self, registry: &Registry) -> IntGauge {
        registered(registry, IntGauge::new(self.name, self.help))
    }

    /// Gauges, one for each value of the labels.
    pub(super) fn gauges(&self, registry: &Registry) -> IntGaugeVec {
        registered(registry, IntGaugeVec::new(self.options(), self.labels))
    }

    /// A histogram without labels.
    pub(super) fn histogram(&self, registry: &Registry) -> Histogram {
        registered(registry, Histogram::with_opts(self.histogram_options()))
    }

    /// Histograms, one for each value of the labels.
    pub(super) fn histograms(&self, registry: &Registry) -> HistogramVec {
        let options = self.histogram_options();
        registered(registry, HistogramVec::new(options, self.labels))
    }

    fn options(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    fn histogram_options(&self) -> HistogramOpts {
        HistogramOpts::new(self.name, self.help).buckets(self.buckets.to_vec())
    }
}

/// A metric that is collected from now on.
fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect(DEFINED);
    registry.register(Box::new(metric.clone())).expect(DEFINED);
    metric
}
