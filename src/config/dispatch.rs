//! `[dispatch]`: how much goes out at once and how fast, and when a destination is left alone.

use std::collections::HashMap;
use std::time::Duration;

use super::{Rate, Section, size};
use crate::model::Destination;

/// `[dispatch]`
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Most deliveries at the same time.
    pub concurrency: usize,
    /// Rate of all deliveries together.
    pub rate: Option<Rate>,
    /// Limits for each destination that is not among `destinations`.
    pub each_destination: Caps,
    /// Limits for single destinations (`[destinations."agent/ID"]`).
    pub destinations: HashMap<Destination, Caps>,
    /// Circuit breaker for a destination that fails.
    pub breaker: BreakerConfig,
    /// Most tries of a delivery that reaches the upstream.
    pub max_attempts: u32,
    /// The wait before the second try; doubled for each one after.
    pub backoff: Duration,
    /// The longest wait between two tries.
    pub backoff_max: Duration,
    /// Time for which an unreachable upstream is tried before a delivery is dead.
    pub give_up_after: Duration,
    /// Time for which an unfinished run is followed.
    pub follow_timeout: Duration,
}

/// Circuit breaker for a destination that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Of how many of the last calls.
    pub calls: usize,
    /// Percentage of calls that have to fail; 0 turns the breaker off.
    pub percent: usize,
    /// Time until the destination is tried again, with one call.
    pub rest: Duration,
}

/// Concurrency and rate of one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Most deliveries in flight.
    pub concurrency: Option<usize>,
    /// Rate of calls.
    pub rate: Option<Rate>,
}

/// Most calls of a destination that are remembered.
const MAX_BREAKER_CALLS: usize = 1_000;

impl Dispatch {
    pub(super) fn read(
        section: &Section<'_>,
        destinations: HashMap<Destination, Caps>,
    ) -> Option<Self> {
        let (concurrency, max_attempts) =
            (size(section, "concurrency"), size(section, "max_attempts"));
        let (backoff, backoff_max) = (section.duration("backoff"), section.duration("backoff_max"));
        let give_up_after = section.duration("give_up_after");
        let follow_timeout = section.duration("follow_timeout");
        let each_destination = Caps::read(section, "destination_concurrency", "destination_rate");
        let (rate, breaker) = (section.rate("rate"), BreakerConfig::read(section));
        Some(Self {
            concurrency: concurrency?,
            rate: rate.map(|rate| rate.value),
            each_destination,
            destinations,
            breaker: breaker?,
            max_attempts: u32::try_from(max_attempts?).unwrap_or(u32::MAX),
            backoff: backoff?.value,
            backoff_max: backoff_max?.value,
            give_up_after: give_up_after?.value,
            follow_timeout: follow_timeout?.value,
        })
    }
}

impl BreakerConfig {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let calls = size(section, "breaker_calls");
        if calls.is_some_and(|calls| calls > MAX_BREAKER_CALLS)
            && let Some(node) = section.node("breaker_calls")
        {
            let most = format!(
                "{} must be at most {MAX_BREAKER_CALLS}",
                section.path("breaker_calls")
            );
            section.problems().error(&node.place, most);
        }
        let percent = section.integer("breaker_percent");
        let rest = section.duration("breaker_rest");
        let percent = percent.and_then(|percent| match usize::try_from(percent.value) {
            Ok(whole) if whole <= 100 => Some(whole),
            _ => {
                section.problems().error_hint(
                    &percent.place,
                    "dispatch.breaker_percent is no share of a hundred",
                    "50 leaves a destination alone when half of its calls fail, 0 never does",
                );
                None
            }
        });
        Some(Self {
            calls: calls?,
            percent: percent?,
            rest: rest?.value,
        })
    }
}

impl Caps {
    pub(super) fn read(section: &Section<'_>, concurrency: &str, rate: &str) -> Self {
        Self {
            concurrency: size(section, concurrency),
            rate: section.rate(rate).map(|rate| rate.value),
        }
    }

    /// `[destinations."agent/ID"]`
    pub(super) fn read_all(root: &Section<'_>) -> HashMap<Destination, Self> {
        let Some(all) = root.section("destinations") else {
            return HashMap::new();
        };
        let mut destinations = HashMap::new();
        for (name, place) in all.keys() {
            let caps = all
                .section(name)
                .map(|section| Self::read(&section, "concurrency", "rate"));
            match name.parse::<Destination>() {
                Ok(destination) if destination.kind.is_upstream() => {
                    destinations.extend(caps.map(|caps| (destination, caps)));
                }
                _ => all.problems().error_hint(
                    place,
                    format!("\"{}\" is no destination", name.escape_debug()),
                    "write [destinations.\"agent/ID\"] or [destinations.\"workflow/ID\"]",
                ),
            }
        }
        destinations
    }
}
