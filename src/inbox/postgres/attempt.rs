//! Tries of deliveries: the last ones are kept.

use std::collections::HashSet;

use deadpool_postgres::Transaction;

use super::database::change;
use super::database::rows;
use super::error::DatabaseError;
use super::row::text;
use crate::inbox::bounds::{KEPT_ATTEMPTS, MAX_TEXT, cut};
use crate::inbox::{Next, Settlement};
use crate::model::{Attempt, Timestamp};
use tokio_postgres::Row;

/// Keeps tries, and lets the oldest go when there are too many. Tries that are not counted could be endless too.
pub(super) async fn insert_attempts(
    tx: &Transaction<'_>,
    settlements: &[&Settlement],
) -> Result<(), DatabaseError> {
    if settlements.is_empty() {
        return Ok(());
    }
    let keys: Vec<i64> = settlements.iter().map(|one| one.key).collect();
    let fences: Vec<i64> = settlements.iter().map(|one| one.fence).collect();
    let numbers: Vec<i32> = settlements
        .iter()
        .map(|one| i32::try_from(one.attempt.number).unwrap_or(i32::MAX))
        .collect();
    let begun: Vec<i64> = settlements
        .iter()
        .map(|one| one.attempt.started_at.millis())
        .collect();
    let ended: Vec<i64> = settlements
        .iter()
        .map(|one| one.attempt.ended_at.millis())
        .collect();
    let results: Vec<&[u8]> = settlements
        .iter()
        .map(|one| cut(&one.attempt.result, MAX_TEXT).as_bytes())
        .collect();
    let statuses: Vec<Option<i32>> = settlements
        .iter()
        .map(|one| one.attempt.status.map(i32::from))
        .collect();
    let details: Vec<&[u8]> = settlements
        .iter()
        .map(|one| cut(&one.attempt.detail, MAX_TEXT).as_bytes())
        .collect();
    change(
        tx,
        "INSERT INTO attempt (delivery, fence, number, started_at, ended_at, result, status, detail)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::bigint[], $5::bigint[], $6::bytea[],
                              $7::integer[], $8::bytea[])",
        &[&keys, &fences, &numbers, &begun, &ended, &results, &statuses, &details],
    )
    .await?;
    let many: HashSet<i64> = settlements
        .iter()
        .filter(|one| {
            matches!(one.next, Next::Released { .. }) || one.attempt.number > KEPT_ATTEMPTS
        })
        .map(|one| one.key)
        .collect();
    if !many.is_empty() {
        prune_attempts(tx, &many.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// Lets the oldest tries of deliveries go.
pub(super) async fn prune_attempts(
    tx: &Transaction<'_>,
    keys: &[i64],
) -> Result<(), DatabaseError> {
    change(
        tx,
        "DELETE FROM attempt AS a USING unnest($1::bigint[]) AS n (key)
         WHERE a.delivery = n.key AND a.id + 0 <=
            (SELECT o.id FROM attempt AS o WHERE o.delivery = n.key ORDER BY o.id + 0 DESC LIMIT 1 OFFSET $2)",
        &[&keys, &i64::from(KEPT_ATTEMPTS)],
    )
    .await
    .map(|_| ())
}

/// The attempts of a delivery that are kept, in order.
pub(super) async fn tries(
    tx: &Transaction<'_>,
    delivery: i64,
) -> Result<Vec<Attempt>, DatabaseError> {
    let found = rows(
        tx,
        "SELECT number, started_at, ended_at, result, status, detail FROM attempt WHERE delivery = $1
         ORDER BY id + 0",
        &[&delivery],
    )
    .await?;
    let attempt = |row: &Row| -> Result<Attempt, DatabaseError> {
        Ok(Attempt {
            number: u32::try_from(row.try_get::<_, i32>(0)?).unwrap_or_default(),
            started_at: Timestamp::from_millis(row.try_get(1)?),
            ended_at: Timestamp::from_millis(row.try_get(2)?),
            result: text(row, 3)?.unwrap_or_default(),
            status: row
                .try_get::<_, Option<i32>>(4)?
                .and_then(|status| u16::try_from(status).ok()),
            detail: text(row, 5)?.unwrap_or_default(),
        })
    };
    found.iter().map(attempt).collect()
}
