//! Removing what is finished and kept long enough: a reader looks for it, the writer removes it, a little at a time.
//!
//! Events are kept for different times, so a look at all of them goes once for each time there is. It begins where the
//! last one for that time ended: what was found to be kept longer is not looked at again before a day has passed.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::Connection;

use super::words;
use super::writer::Turn;
use crate::inbox::{Keep, KeepTimes};
use crate::model::Timestamp;

/// How many events go in one turn of the writer; more would hold up the requests behind it.
pub(super) const CHUNK: usize = 200;

/// How many events are looked at before the next look begins.
const WINDOW: usize = 20_000;

/// After how long everything is looked at again.
const ANEW: Duration = Duration::from_secs(24 * 3600);

/// What an event's deliveries are, as bits. One that was merged is owed as long as the one it went with may go out
/// again, which takes it along.
const OWED: i64 = 1;
const DEAD: i64 = 2;
const FILTERED: i64 = 4;
const DELIVERED: i64 = 8;

/// Receipt and number of an event: where a look has come to.
type Place = (i64, i64);

/// How far the looks have come, by the time that events are kept.
#[derive(Debug, Default)]
pub(super) struct Walks {
    begun: Timestamp,
    places: BTreeMap<Duration, Place>,
}

impl Walks {
    /// The times that are looked for, and where each look begins.
    pub(super) fn begin(&mut self, keep: &Keep, now: Timestamp) -> Vec<(Duration, Place)> {
        if now.since(self.begun) > ANEW || now < self.begun {
            *self = Self { begun: now, places: BTreeMap::new() };
        }
        let all = std::iter::once(&keep.usual).chain(keep.sources.values());
        let mut times: Vec<Duration> = all
            .flat_map(|times| [times.delivered, times.dead, times.filtered])
            .filter(|time| *time < Duration::MAX)
            .collect();
        times.sort_unstable();
        times.dedup();
        times.into_iter().map(|time| (time, self.places.get(&time).copied().unwrap_or((i64::MIN, i64::MIN)))).collect()
    }

    /// Notes where a look has come to.
    pub(super) fn end(&mut self, time: Duration, place: Place) {
        self.places.insert(time, place);
    }
}

/// What a look found.
#[derive(Debug)]
pub(super) struct Found {
    /// The events that can go.
    pub(super) events: Vec<i64>,
    /// Where the next look may begin: before the first event that is still owed.
    pub(super) place: Place,
    /// Where this one goes on; none when everything that is old enough was seen.
    pub(super) next: Option<Place>,
}

/// Looks from a place on for up to `most` events that are kept `time` or shorter.
pub(super) fn look(
    conn: &Connection,
    keep: &Keep,
    (time, from): (Duration, Place),
    now: Timestamp,
    most: usize,
) -> rusqlite::Result<Found> {
    let mut statement = conn.prepare_cached(
        "SELECT e.received_at, e.seq, e.source, e.filtered IS NOT NULL,
            (SELECT sum(DISTINCT CASE WHEN d.state IN ('pending', 'leased') THEN 1
                                      WHEN d.state = 'merged' AND (SELECT l.state IN ('pending', 'leased', 'unknown')
                                                                   FROM delivery AS l WHERE l.key = d.leader) THEN 1
                                      WHEN d.state IN ('dead', 'unknown') THEN 2
                                      WHEN d.state IN ('cancelled', 'dropped') THEN 4 ELSE 8 END)
             FROM delivery AS d INDEXED BY delivery_event WHERE d.event = e.seq)
         FROM event AS e INDEXED BY event_received
         WHERE (e.received_at, e.seq) > (?1, ?2) AND e.received_at < ?3 ORDER BY e.received_at, e.seq",
    )?;
    let mut rows = statement.query((from.0, from.1, (now - time).millis()))?;
    let mut found = Found { events: Vec::new(), place: from, next: None };
    let (mut at, mut owed) = (from, false);
    for _ in 0..WINDOW {
        if found.events.len() == most {
            break;
        }
        let Some(row) = rows.next()? else { return Ok(Found { next: None, ..found }) };
        at = (row.get(0)?, row.get(1)?);
        let mut bits = row.get::<_, Option<i64>>(4)?.unwrap_or(0);
        if row.get(3)? {
            bits |= FILTERED;
        }
        owed |= bits & OWED != 0;
        if !owed {
            found.place = at;
        }
        let source = row.get_ref(2)?.as_str()?;
        if bits & OWED == 0 && kept(keep.sources.get(source).unwrap_or(&keep.usual), bits) <= time {
            found.events.push(at.1);
        }
    }
    Ok(Found { next: Some(at), ..found })
}

/// How long an event with such deliveries is kept: as long as any of them says.
fn kept(times: &KeepTimes, bits: i64) -> Duration {
    let kinds = [(DEAD, times.dead), (FILTERED, times.filtered), (DELIVERED, times.delivered)];
    kinds.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, time)| time).max().unwrap_or(times.delivered)
}

/// Removes events, except those that were replayed since they were found. What hangs on them goes with them.
pub(super) fn remove(turn: &Turn<'_>, events: &[i64]) -> rusqlite::Result<usize> {
    let mut statement = turn.conn.prepare_cached(
        "DELETE FROM event WHERE seq = ?1 AND NOT EXISTS
            (SELECT 1 FROM delivery AS d INDEXED BY delivery_event
             WHERE d.event = ?1 AND d.state IN ('pending', 'leased'))",
    )?;
    let mut gone = 0;
    for seq in events {
        if statement.execute([seq])? > 0 {
            words::remove(turn, *seq)?;
            gone += 1;
        }
    }
    Ok(gone)
}
