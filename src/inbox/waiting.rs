//! Pending deliveries and what they wait for, and how sources fare: what an operator asks of an inbox beside lists.

use super::EventFilter;
use crate::model::{Attempt, DeliveryId, DeliveryState, Route, Timestamp};

/// Rows that are looked at to find what is oldest, or how much needs an operator. Beyond it numbers are at least as
/// large as they say.
pub const LOOKED_AT: usize = 10_000;

/// A pending delivery, and what the inbox knows of why it has not gone out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingDelivery {
    /// Its name.
    pub id: DeliveryId,
    /// Its route.
    pub route: Route,
    /// The delivery of its conversation that goes before it.
    pub behind: Option<DeliveryId>,
    /// The time when it is due, where nothing goes before it.
    pub due: Option<Timestamp>,
    /// Its last try, where it had one.
    pub last: Option<Attempt>,
}

/// State of a source's events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFare {
    /// Its name.
    pub source: String,
    /// The time when its last event came.
    pub last_event: Option<Timestamp>,
    /// The time when the oldest of its events came that have a pending delivery.
    pub oldest_pending: Option<Timestamp>,
    /// Number of its events whose last delivery is dead.
    pub dead: u64,
    /// Number of its events that could not be mapped and have not been replayed since.
    pub unmappable: u64,
    /// Number of its events of whose last delivery nobody can tell whether it ran.
    pub unknown: u64,
}

impl EventFilter {
    /// True if an event fits whose last delivery is in this state.
    pub(super) fn fits_last(&self, last: Option<DeliveryState>) -> bool {
        self.state.is_none_or(|wanted| last == Some(wanted))
            && self
                .open
                .is_none_or(|open| open == last.is_some_and(DeliveryState::needs_attention))
    }
}

/// The fares by source, from three lists of parts of them.
pub(super) fn fares(
    last: Vec<(String, i64)>,
    oldest: Vec<(String, i64)>,
    open: Vec<(String, DeliveryState, i64)>,
) -> Vec<SourceFare> {
    let mut fares = std::collections::BTreeMap::<String, SourceFare>::new();
    for (source, at) in last {
        fares.entry(source).or_default().last_event = Some(Timestamp::from_millis(at));
    }
    for (source, at) in oldest {
        fares.entry(source).or_default().oldest_pending = Some(Timestamp::from_millis(at));
    }
    for (source, state, count) in open {
        let fare = fares.entry(source).or_default();
        let count = count.unsigned_abs();
        match state {
            DeliveryState::Unknown => fare.unknown += count,
            DeliveryState::Unmappable => fare.unmappable += count,
            _ => fare.dead += count,
        }
    }
    fares
        .into_iter()
        .map(|(source, fare)| SourceFare { source, ..fare })
        .collect()
}
