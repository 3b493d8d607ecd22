//! Tries of deliveries: the last ones are kept.

use std::collections::HashSet;

use deadpool_postgres::Transaction;

use super::database::change;
use super::error::DatabaseError;
use crate::inbox::bounds::{KEPT_ATTEMPTS, MAX_TEXT, cut};
use crate::inbox::{Next, Settlement};

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
