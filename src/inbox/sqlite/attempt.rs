//! Attempts of deliveries: the last ones are kept.

use rusqlite::Connection;

use super::transaction::Transaction;
use crate::inbox::bounds::{KEPT_ATTEMPTS, MAX_TEXT, cut};
use crate::model::{Attempt, Timestamp};

/// Keeps a try, and lets the oldest go when there are too many. Tries that are not counted could be endless too.
pub(super) fn insert_attempt(
    tx: &Transaction<'_>,
    key: i64,
    attempt: &Attempt,
    uncounted: bool,
) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached(
            "INSERT INTO attempt (delivery, number, started_at, ended_at, result, status, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            key,
            attempt.number,
            attempt.started_at.millis(),
            attempt.ended_at.millis(),
            cut(&attempt.result, MAX_TEXT),
            attempt.status,
            cut(&attempt.detail, MAX_TEXT),
        ))?;
    if uncounted || attempt.number > KEPT_ATTEMPTS {
        tx.conn
            .prepare_cached(
                "DELETE FROM attempt WHERE delivery = ?1 AND id <=
                    (SELECT id FROM attempt WHERE delivery = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute((key, KEPT_ATTEMPTS))?;
    }
    Ok(())
}

/// The attempts of a delivery that are kept, in order.
pub(super) fn tries(conn: &Connection, delivery: i64) -> rusqlite::Result<Vec<Attempt>> {
    conn.prepare_cached(
        "SELECT number, started_at, ended_at, result, status, detail FROM attempt WHERE delivery = ?1 ORDER BY id",
    )?
    .query_map([delivery], |row| {
        Ok(Attempt {
            number: row.get(0)?,
            started_at: Timestamp::from_millis(row.get(1)?),
            ended_at: Timestamp::from_millis(row.get(2)?),
            result: row.get(3)?,
            status: row.get(4)?,
            detail: row.get(5)?,
        })
    })?
    .collect()
}
