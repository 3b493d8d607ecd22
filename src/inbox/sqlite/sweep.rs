//! Removing what is finished and old: a reader looks for it, the writer removes it, a little at a time.

use rusqlite::Connection;

use super::writer::Turn;
use crate::model::Timestamp;

/// How many events go in one turn of the writer; more would hold up the requests behind it.
pub(super) const CHUNK: usize = 200;

/// How many events are looked at before the next look begins.
const WINDOW: usize = 20_000;

/// Where a look has come to: receipt and number of the last event it saw.
pub(super) type Place = (i64, i64);

/// What a look found.
#[derive(Debug)]
pub(super) struct Found {
    /// The events that can go.
    pub(super) events: Vec<i64>,
    /// Where to look on; none when everything that is old enough was seen.
    pub(super) next: Option<Place>,
}

/// Looks for up to `most` finished events received before a time, from a place on.
pub(super) fn look(conn: &Connection, before: Timestamp, from: Place, most: usize) -> rusqlite::Result<Found> {
    let mut statement = conn.prepare_cached(
        "SELECT e.received_at, e.seq, EXISTS (SELECT 1 FROM delivery AS d INDEXED BY delivery_event
                                             WHERE d.event = e.seq AND d.state IN ('pending', 'leased'))
         FROM event AS e INDEXED BY event_received
         WHERE (e.received_at, e.seq) > (?1, ?2) AND e.received_at < ?3 ORDER BY e.received_at, e.seq",
    )?;
    let mut rows = statement.query((from.0, from.1, before.millis()))?;
    let mut events = Vec::new();
    let mut place = from;
    for _ in 0..WINDOW {
        if events.len() == most {
            break;
        }
        let Some(row) = rows.next()? else { return Ok(Found { events, next: None }) };
        place = (row.get(0)?, row.get(1)?);
        if !row.get::<_, bool>(2)? {
            events.push(place.1);
        }
    }
    Ok(Found { events, next: Some(place) })
}

/// Removes events, except those that were replayed since they were found. What hangs on them goes with them.
pub(super) fn remove(turn: &Turn<'_>, events: &[i64]) -> rusqlite::Result<usize> {
    let mut statement = turn.conn.prepare_cached(
        "DELETE FROM event WHERE seq = ?1 AND NOT EXISTS
            (SELECT 1 FROM delivery AS d INDEXED BY delivery_event
             WHERE d.event = ?1 AND d.state IN ('pending', 'leased'))",
    )?;
    events.iter().try_fold(0, |gone, seq| Ok(gone + statement.execute([seq])?))
}
