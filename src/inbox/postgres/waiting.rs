//! Waiting deliveries, and the state of sources. Every statement goes by an index and is bounded.

use deadpool_postgres::{Client, Transaction};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::attempt::tries;
use super::database::rows;
use super::error::DatabaseError;
use super::routes;
use crate::inbox::bounds::{DESTINATIONS, WAITING_EVENTS};
use crate::inbox::waiting::{self, LOOKED_AT};
use crate::inbox::{SourceFare, WaitingDelivery};
use crate::model::{DeliveryId, DeliveryState, Destination, EventId, Timestamp};

/// Events that are looked at, and how many deliveries in all.
const DELIVERIES: i64 = 2_000;

/// The events whose ids lie between two.
pub(super) async fn between(
    conn: &mut Client,
    from: EventId,
    to: EventId,
    most: usize,
) -> Result<Vec<EventId>, DatabaseError> {
    let tx = conn.transaction().await?;
    let (from, to) = (
        Uuid::from_bytes(*from.as_bytes()),
        Uuid::from_bytes(*to.as_bytes()),
    );
    let sql = "SELECT id FROM event WHERE id >= $1 AND id <= $2 ORDER BY id LIMIT $3";
    let found = rows(&tx, sql, &[&from, &to, &bound(most)]).await?;
    found
        .iter()
        .map(|row| Ok(event_id(row.try_get(0)?)))
        .collect()
}

/// Finds what the pending deliveries of these events wait for.
pub(super) async fn of(
    conn: &mut Client,
    events: &[EventId],
) -> Result<Vec<WaitingDelivery>, DatabaseError> {
    let tx = conn.transaction().await?;
    let ids: Vec<Uuid> = events
        .iter()
        .take(WAITING_EVENTS)
        .map(|id| Uuid::from_bytes(*id.as_bytes()))
        .collect();
    // What is under lease, or else the first that waits, goes before the others of a lane.
    let found = rows(
        &tx,
        "SELECT d.key, e.id, d.number, e.source, r.destination, r.account, r.class, l.ready_at, be.id, b.number
         FROM event AS e JOIN delivery AS d ON d.event = e.seq JOIN route AS r ON r.id = d.route
            LEFT JOIN lane AS l ON l.id = d.lane
            LEFT JOIN LATERAL (
                SELECT coalesce(l.delivery, (SELECT f.key FROM delivery AS f
                    WHERE f.lane = d.lane AND f.state = 'pending' ORDER BY f.key LIMIT 1)) AS key
            ) AS first ON true
            LEFT JOIN delivery AS b ON (b.key + 0) = first.key AND first.key <> d.key
            LEFT JOIN event AS be ON be.seq = b.event
         WHERE e.id = ANY ($1) AND d.state = 'pending' ORDER BY e.seq, d.number LIMIT $2",
        &[&ids, &DELIVERIES],
    )
    .await?;
    let mut list = Vec::with_capacity(found.len());
    for row in &found {
        let behind = match row.try_get::<_, Option<Uuid>>(8)? {
            Some(event) => Some(delivery_id(event, row.try_get(9)?)),
            None => None,
        };
        let ready: Option<i64> = row.try_get(7)?;
        list.push(WaitingDelivery {
            id: delivery_id(row.try_get(1)?, row.try_get(2)?),
            route: routes::read(row, 3)?,
            due: ready
                .filter(|_| behind.is_none())
                .map(Timestamp::from_millis),
            behind,
            last: tries(&tx, row.try_get(0)?).await?.pop(),
        });
    }
    Ok(list)
}

/// Reads how each source fares.
pub(super) async fn source_fares(conn: &mut Client) -> Result<Vec<SourceFare>, DatabaseError> {
    let tx = conn.transaction().await?;
    // From one source to the next by the index, however many events each has.
    let last = pairs(
        &tx,
        "WITH RECURSIVE s (source) AS (
            (SELECT e.source FROM event AS e ORDER BY e.source LIMIT 1)
            UNION ALL
            SELECT (SELECT e.source FROM event AS e WHERE e.source > s.source ORDER BY e.source LIMIT 1)
            FROM s WHERE s.source IS NOT NULL
         )
         SELECT s.source, (SELECT e.received_at FROM event AS e
                           WHERE e.source = s.source ORDER BY (e.seq + 0) DESC LIMIT 1)
         FROM s WHERE s.source IS NOT NULL LIMIT $1",
        &[&bound(DESTINATIONS)],
    )
    .await?;
    let oldest = pairs(
        &tx,
        "SELECT e.source, min(e.received_at) FROM (
            SELECT (d.event + 0) AS seq FROM delivery AS d WHERE d.state = 'pending' AND d.state <> 'delivered'
            ORDER BY (d.event + 0) LIMIT $1) AS d
         JOIN event AS e ON e.seq = d.seq GROUP BY e.source",
        &[&bound(LOOKED_AT)],
    )
    .await?;
    let mut open = Vec::new();
    for state in DeliveryState::ALL
        .into_iter()
        .filter(|state| state.needs_attention())
    {
        let counted = pairs(
            &tx,
            "SELECT e.source, count(*) FROM (
                SELECT (d.event + 0) AS seq, d.number FROM delivery AS d
                WHERE d.state = $2 AND d.state <> 'delivered' ORDER BY (d.event + 0) DESC LIMIT $1) AS d
             JOIN event AS e ON e.seq = d.seq
             WHERE NOT EXISTS (SELECT FROM delivery AS n WHERE n.event = d.seq AND n.number > d.number)
             GROUP BY e.source",
            &[&bound(LOOKED_AT), &state.as_str()],
        )
        .await?;
        open.extend(
            counted
                .into_iter()
                .map(|(source, count)| (source, state, count)),
        );
    }
    Ok(waiting::fares(last, oldest, open))
}

/// The destinations that anything was ever owed to.
pub(super) async fn destinations(conn: &mut Client) -> Result<Vec<Destination>, DatabaseError> {
    let tx = conn.transaction().await?;
    let sql = "SELECT DISTINCT destination FROM route ORDER BY destination LIMIT $1";
    rows(&tx, sql, &[&bound(DESTINATIONS)])
        .await?
        .iter()
        .map(|row| destination(row, 0))
        .collect()
}

async fn pairs(
    tx: &Transaction<'_>,
    sql: &str,
    with: &[&(dyn ToSql + Sync)],
) -> Result<Vec<(String, i64)>, DatabaseError> {
    rows(tx, sql, with)
        .await?
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

fn destination(row: &Row, column: usize) -> Result<Destination, DatabaseError> {
    row.try_get::<_, &str>(column)?
        .parse()
        .map_err(|error| DatabaseError::Engine(format!("{error}")))
}

fn event_id(id: Uuid) -> EventId {
    EventId::from_bytes(id.into_bytes())
}

fn delivery_id(event: Uuid, number: i32) -> DeliveryId {
    DeliveryId {
        event: event_id(event),
        number: u32::try_from(number).unwrap_or_default(),
    }
}

fn bound(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
