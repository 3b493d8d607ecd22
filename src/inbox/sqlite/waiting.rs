//! Waiting deliveries, and the state of sources. Every statement goes by an index and is bounded.

use rusqlite::{Connection, OptionalExtension};

use super::attempt::tries;
use super::row::{account, class, destination};
use crate::inbox::bounds::{DESTINATIONS, WAITING_EVENTS};
use crate::inbox::waiting::{self, LOOKED_AT};
use crate::inbox::{SourceFare, WaitingDelivery};
use crate::model::{DeliveryId, DeliveryState, Destination, EventId, Route, Timestamp};

/// Events that are looked at, and how many deliveries of each.
const DELIVERIES: i64 = 100;

/// The events whose ids lie between two.
pub(super) fn between(
    conn: &Connection,
    from: EventId,
    to: EventId,
    most: usize,
) -> rusqlite::Result<Vec<EventId>> {
    conn.prepare_cached("SELECT id FROM event WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT ?3")?
        .query_map((from.as_bytes(), to.as_bytes(), bound(most)), |row| {
            row.get(0).map(EventId::from_bytes)
        })?
        .collect()
}

/// Finds what the pending deliveries of these events wait for.
pub(super) fn of(conn: &Connection, events: &[EventId]) -> rusqlite::Result<Vec<WaitingDelivery>> {
    let mut list = Vec::new();
    for id in events.iter().take(WAITING_EVENTS) {
        let mut statement = conn.prepare_cached(
            "SELECT d.key, d.number, l.ready_at, l.delivery,
                    (SELECT f.key FROM delivery AS f INDEXED BY delivery_lane
                     WHERE f.lane = d.lane AND f.state = 'pending' ORDER BY f.key LIMIT 1),
                    e.source, d.destination, r.account, r.class
             FROM event AS e CROSS JOIN delivery AS d INDEXED BY delivery_event ON d.event = e.seq
                LEFT JOIN lane AS l ON l.id = d.lane LEFT JOIN route AS r ON r.id = d.route
             WHERE e.id = ?1 AND d.state = 'pending' ORDER BY d.number LIMIT ?2",
        )?;
        let mut rows = statement.query((id.as_bytes(), DELIVERIES))?;
        while let Some(row) = rows.next()? {
            let key: i64 = row.get(0)?;
            let leased: Option<i64> = row.get(3)?;
            let first = leased.or(row.get(4)?).filter(|first| *first != key);
            let behind = match first {
                Some(first) => name(conn, first)?,
                None => None,
            };
            let ready: Option<i64> = row.get(2)?;
            list.push(WaitingDelivery {
                id: DeliveryId {
                    event: *id,
                    number: row.get(1)?,
                },
                route: Route {
                    source: row.get(5)?,
                    destination: destination(row, 6)?,
                    account: account(row, 7)?,
                    class: class(row, 8)?,
                },
                due: ready
                    .filter(|_| behind.is_none())
                    .map(Timestamp::from_millis),
                behind,
                last: tries(conn, key)?.pop(),
            });
        }
    }
    Ok(list)
}

/// The name of the delivery of a key.
fn name(conn: &Connection, key: i64) -> rusqlite::Result<Option<DeliveryId>> {
    conn.prepare_cached("SELECT e.id, d.number FROM delivery AS d JOIN event AS e ON e.seq = d.event WHERE d.key = ?1")?
        .query_row([key], |row| Ok(DeliveryId { event: EventId::from_bytes(row.get(0)?), number: row.get(1)? }))
        .optional()
}

/// Reads how each source fares.
pub(super) fn source_fares(conn: &Connection) -> rusqlite::Result<Vec<SourceFare>> {
    // From one source to the next by the index, however many events each has.
    let last = pairs(
        conn,
        "WITH RECURSIVE s (source) AS (
            SELECT min(source) FROM event INDEXED BY event_source
            UNION ALL
            SELECT (SELECT min(n.source) FROM event AS n INDEXED BY event_source WHERE n.source > s.source)
            FROM s WHERE s.source IS NOT NULL)
         SELECT s.source, (SELECT e.received_at FROM event AS e INDEXED BY event_source
                           WHERE e.source = s.source ORDER BY e.seq DESC LIMIT 1)
         FROM s WHERE s.source IS NOT NULL LIMIT ?1",
        DESTINATIONS,
    )?;
    let oldest = pairs(
        conn,
        "SELECT e.source, min(e.received_at) FROM (
            SELECT event FROM delivery INDEXED BY delivery_state
            WHERE state <> 'delivered' AND state = 'pending' ORDER BY event LIMIT ?1) AS d
         CROSS JOIN event AS e ON e.seq = d.event GROUP BY e.source",
        LOOKED_AT,
    )?;
    let mut open = Vec::new();
    for state in DeliveryState::ALL
        .into_iter()
        .filter(|state| state.needs_attention())
    {
        let counted = conn
            .prepare_cached(
                "SELECT e.source, count(*) FROM (
                    SELECT event, number FROM delivery INDEXED BY delivery_state
                    WHERE state <> 'delivered' AND state = ?2 ORDER BY event DESC LIMIT ?1) AS d
                 CROSS JOIN event AS e ON e.seq = d.event
                 WHERE NOT EXISTS (SELECT 1 FROM delivery AS n INDEXED BY delivery_event
                                   WHERE n.event = d.event AND n.number > d.number)
                 GROUP BY e.source",
            )?
            .query_map((bound(LOOKED_AT), state.as_str()), |row| {
                Ok((row.get(0)?, state, row.get(1)?))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        open.extend(counted);
    }
    Ok(waiting::fares(last, oldest, open))
}

/// The destinations that anything was ever owed to.
pub(super) fn destinations(conn: &Connection) -> rusqlite::Result<Vec<Destination>> {
    conn.prepare_cached("SELECT DISTINCT destination FROM route ORDER BY destination LIMIT ?1")?
        .query_map([bound(DESTINATIONS)], |row| destination(row, 0))?
        .collect()
}

fn pairs(conn: &Connection, sql: &str, most: usize) -> rusqlite::Result<Vec<(String, i64)>> {
    conn.prepare_cached(sql)?
        .query_map([bound(most)], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn bound(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
