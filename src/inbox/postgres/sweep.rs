//! Removing what is finished and old, a little at a time. Any number of replicas may do it at once: each passes over
//! what another has locked.

use std::time::Duration;

use deadpool_postgres::{Client, Transaction};
use tokio_postgres::Row;

use super::database::{Counts, change, rows, slot};
use super::error::DatabaseError;
use super::{files, proof};
use crate::inbox::bounds::DISORDER;
use crate::inbox::{Keep, KeepTimes};
use crate::model::{DeliveryState, Timestamp};

/// Events that are looked at together.
const WINDOW: i64 = 1000;

/// The place that a look has come to: receipt and number of the last event it saw.
pub(super) type SweepCursor = (i64, i64);

/// Whose events are looked at.
#[derive(Clone, Debug)]
pub(super) enum Whose {
    /// Of this source, which says itself how long.
    Source(String),
    /// Of all sources but these.
    Others(Vec<String>),
}

/// The events that a look found.
#[derive(Debug)]
pub(super) struct OldEvents {
    /// The events that can go.
    pub(super) events: Vec<i64>,
    /// The place to look on from; `None` when everything that is old enough was seen.
    pub(super) next: Option<SweepCursor>,
}

/// Every list of events that is kept in a way of its own.
pub(super) fn lists(keep: &Keep) -> Vec<(Whose, KeepTimes)> {
    let mut lists: Vec<(Whose, KeepTimes)> = keep
        .sources
        .iter()
        .map(|(source, times)| (Whose::Source(source.clone()), *times))
        .collect();
    lists.push((
        Whose::Others(keep.sources.keys().cloned().collect()),
        keep.usual,
    ));
    lists
}

/// Looks through some events from a place on, for those that are finished and kept long enough.
pub(super) async fn look(
    conn: &mut Client,
    whose: &Whose,
    times: &KeepTimes,
    now: Timestamp,
    from: SweepCursor,
) -> Result<OldEvents, DatabaseError> {
    let tx = conn.transaction().await?;
    let before = now - times.delivered.min(times.dead).min(times.filtered);
    let columns =
        "e.received_at, e.seq, ARRAY (SELECT d.state FROM delivery AS d WHERE d.event = e.seq),
                   EXISTS (SELECT FROM delivery AS d JOIN delivery AS l ON (l.key + 0) = d.leader
                           WHERE d.event = e.seq AND d.state || '' = 'merged'
                            AND l.state || '' IN ('pending', 'leased', 'unknown'))";
    let found = match whose {
        Whose::Others(named) => {
            let sql = format!(
                "SELECT {columns} FROM event AS e WHERE (e.received_at, e.seq) > ($1, $2) AND e.received_at < $3
                    AND e.source <> ALL ($4) ORDER BY e.received_at, e.seq LIMIT $5"
            );
            rows(
                &tx,
                &sql,
                &[&from.0, &from.1, &before.millis(), &named, &WINDOW],
            )
            .await?
        }
        // In order of arrival, as far as receipt can be out of it.
        Whose::Source(source) => {
            let sql = format!(
                "SELECT {columns} FROM event AS e WHERE e.source = $1 AND (e.seq + 0) > $2
                 ORDER BY (e.seq + 0) LIMIT $3"
            );
            rows(&tx, &sql, &[&source, &from.1, &WINDOW]).await?
        }
    };
    let mut events = Vec::new();
    let mut place = None;
    for row in &found {
        let (received_at, seq): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        if Timestamp::from_millis(received_at) >= before + DISORDER {
            place = None;
            break;
        }
        place = Some((received_at, seq));
        if !row.try_get::<_, bool>(3)? && is_over(row, times, now)? {
            events.push(seq);
        }
    }
    let whole = i64::try_from(found.len()).is_ok_and(|count| count < WINDOW);
    Ok(OldEvents {
        events,
        next: place.filter(|_| !whole),
    })
}

/// True if an event is finished and kept long enough: the longest that fits one of its deliveries.
fn is_over(row: &Row, times: &KeepTimes, now: Timestamp) -> Result<bool, DatabaseError> {
    let words: Vec<&str> = row.try_get(2)?;
    let mut longest = if words.is_empty() {
        times.filtered
    } else {
        Duration::ZERO
    };
    for word in words {
        longest = longest.max(match DeliveryState::parse(word) {
            Some(DeliveryState::Delivered | DeliveryState::Merged) => times.delivered,
            Some(DeliveryState::Dead | DeliveryState::Unknown | DeliveryState::Unmappable) => {
                times.dead
            }
            Some(DeliveryState::Cancelled | DeliveryState::Dropped) => times.filtered,
            Some(DeliveryState::Pending | DeliveryState::Leased) | None => return Ok(false),
        });
    }
    Ok(Timestamp::from_millis(row.try_get(0)?) < now - longest)
}

/// Removes events with all that hangs on them, except those that were replayed since they were found and those that
/// somebody has locked.
pub(super) async fn remove(conn: &mut Client, events: &[i64]) -> Result<usize, DatabaseError> {
    let tx = conn.transaction().await?;
    let sql = "SELECT seq FROM event WHERE seq = ANY ($1) FOR UPDATE SKIP LOCKED";
    let locked: Vec<i64> = rows(&tx, sql, &[&events])
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    if locked.is_empty() {
        return Ok(0);
    }
    // Read after the lock.
    let removed = rows(
        &tx,
        "DELETE FROM event AS e USING unnest($1::bigint[]) AS n (seq)
         WHERE e.seq = n.seq AND NOT EXISTS (SELECT FROM delivery AS d
                                             WHERE d.event = e.seq AND d.state || '' IN ('pending', 'leased'))
         RETURNING e.seq, e.bytes, e.proofs",
        &[&locked],
    )
    .await?;
    let mut counts = Counts::default();
    let gone = erase(&tx, &removed, &mut counts).await?;
    counts.write(&tx, slot()).await?;
    tx.commit().await?;
    Ok(gone)
}

/// Removes what hangs on events that were removed: of each its number and its bytes.
pub(super) async fn erase(
    tx: &Transaction<'_>,
    removed: &[Row],
    counts: &mut Counts,
) -> Result<usize, DatabaseError> {
    let gone: Vec<i64> = removed
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let deliveries = rows(
        tx,
        "DELETE FROM delivery WHERE event = ANY ($1) RETURNING key",
        &[&gone],
    )
    .await?;
    let keys: Vec<i64> = deliveries
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let proofs: Vec<Option<Vec<u8>>> = removed
        .iter()
        .map(|row| row.try_get(2))
        .collect::<Result<_, _>>()?;
    proof::gone(tx, &gone, proofs.iter().flatten()).await?;
    files::free(tx, &gone).await?;
    for sql in [
        "DELETE FROM body WHERE seq = ANY ($1)",
        "DELETE FROM words WHERE seq = ANY ($1)",
    ] {
        change(tx, sql, &[&gone]).await?;
    }
    for sql in [
        "DELETE FROM sealed WHERE delivery = ANY ($1)",
        "DELETE FROM task WHERE delivery = ANY ($1)",
        "DELETE FROM payload WHERE delivery = ANY ($1)",
        "DELETE FROM attempt WHERE delivery = ANY ($1)",
    ] {
        change(tx, sql, &[&keys]).await?;
    }
    for row in removed {
        counts.add_bytes(-row.try_get::<_, i64>(1)?);
    }
    Ok(gone.len())
}
