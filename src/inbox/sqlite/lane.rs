//! Lanes: the rows that say which delivery of a conversation is next, and from when on.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::transaction::Transaction;
use crate::model::{DeliveryState, Timestamp};

/// A lane's first pending delivery.
#[derive(Debug)]
pub(super) struct LaneHead {
    pub(super) key: i64,
    pub(super) event: i64,
    pub(super) attempts: u32,
    pub(super) strikes: u32,
    pub(super) doubt: Option<Timestamp>,
    pub(super) source: String,
    pub(super) route: i64,
    /// True if it goes out as it is, whatever waits behind it: it is sealed, or answers another delivery.
    pub(super) fixed: bool,
    pub(super) received_at: Timestamp,
    pub(super) fence: i64,
}

/// Reads the first pending delivery of a lane.
pub(super) fn head(tx: &Transaction<'_>, lane: i64) -> rusqlite::Result<Option<LaneHead>> {
    tx.conn
        .prepare_cached(
            "SELECT d.key, d.event, d.attempts, d.strikes, d.doubt, e.source, d.route, d.sealed OR d.answers IS NOT NULL,
                    e.received_at,
                    d.fence
             FROM delivery AS d INDEXED BY delivery_lane JOIN event AS e ON e.seq = d.event
             WHERE d.lane = ?1 AND d.state = 'pending' ORDER BY d.key LIMIT 1",
        )?
        .query_row([lane], |row| {
            Ok(LaneHead {
                key: row.get(0)?,
                event: row.get(1)?,
                attempts: row.get(2)?,
                strikes: row.get(3)?,
                doubt: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
                source: row.get(5)?,
                route: row.get(6)?,
                fixed: row.get(7)?,
                received_at: Timestamp::from_millis(row.get(8)?),
                fence: row.get(9)?,
            })
        })
        .optional()
}

/// Lets the lane's next delivery come, from the time that is said on or from when it was due before; without
/// one the lane goes.
pub(super) fn free_lane(
    tx: &mut Transaction<'_>,
    lane: i64,
    ready_at: Option<Timestamp>,
) -> rusqlite::Result<()> {
    if let Some((_, route)) = next_pending(tx, lane)? {
        tx.conn
            .prepare_cached(
                "UPDATE lane SET delivery = NULL, ready_at = coalesce(?2, ready_at), route = ?3 WHERE id = ?1",
            )?
            .execute((lane, ready_at.map(Timestamp::millis), route))?;
    } else {
        tx.conn
            .prepare_cached("DELETE FROM lane WHERE id = ?1")?
            .execute([lane])?;
    }
    tx.work_due();
    Ok(())
}

/// A lane's first pending delivery, and its route.
pub(super) fn next_pending(
    tx: &Transaction<'_>,
    lane: i64,
) -> rusqlite::Result<Option<(i64, i64)>> {
    tx.conn
        .prepare_cached(
            "SELECT key, route FROM delivery INDEXED BY delivery_lane WHERE lane = ?1 AND state = 'pending'
             ORDER BY key LIMIT 1",
        )?
        .query_row([lane], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// The number of a lane, which is made where it has no work yet. `route` is that of the delivery it is asked for.
pub(super) fn make_lane(
    tx: &Transaction<'_>,
    name: Uuid,
    route: i64,
    ready_at: Timestamp,
) -> rusqlite::Result<i64> {
    let name = name.as_bytes();
    let made = tx
        .conn
        .prepare_cached(
            "INSERT INTO lane (lane, ready_at, route) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?
        .execute((name, ready_at.millis(), route))?;
    if made == 1 {
        return Ok(tx.conn.last_insert_rowid());
    }
    tx.conn
        .prepare_cached("SELECT id FROM lane WHERE lane = ?1")?
        .query_row([name], |row| row.get(0))
}

/// Frees the leases of the last run, so that its deliveries can be claimed again. Their doubt stays: nobody knows
/// whether they ran.
pub(super) fn free_leases(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let mut freed = BTreeMap::<String, i64>::new();
    let next = "SELECT d.key, d.lane, e.source FROM delivery AS d INDEXED BY delivery_state
                JOIN event AS e ON e.seq = d.event WHERE d.state <> 'delivered' AND d.state = 'leased' LIMIT 1";
    while let Some((key, lane, source)) = conn
        .prepare_cached(next)?
        .query_row([], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, String>(2)?,
            ))
        })
        .optional()?
    {
        conn.prepare_cached("UPDATE delivery SET state = 'pending' WHERE key = ?1")?
            .execute([key])?;
        conn.prepare_cached("UPDATE lane SET delivery = NULL WHERE id = ?1")?
            .execute([lane])?;
        *freed.entry(source).or_default() += 1;
    }
    for (source, count) in freed {
        for (state, by) in [
            (DeliveryState::Leased, -count),
            (DeliveryState::Pending, count),
        ] {
            conn.execute(
                "UPDATE counter SET count = count + ?3 WHERE source = ?1 AND state = ?2",
                (&source, state.as_str(), by),
            )?;
        }
    }
    conn.execute_batch("COMMIT")
}
