//! Owing an event again: new deliveries behind whatever its lanes hold already.

use bytes::Bytes;
use deadpool_postgres::{Client, Transaction};
use uuid::Uuid;

use super::database::{Counts, change, rows};
use super::error::DatabaseError;
use super::owe::owe;
use super::row::json;
use crate::inbox::codec::Codec;
use crate::inbox::{Anew, Replayed};
use crate::model::{DeliveryId, DeliveryState, EventId, NewDelivery, Timestamp};

/// An event that is owed again.
pub(super) struct Again<'a> {
    /// The event.
    pub(super) event: EventId,
    /// The number of the first new delivery.
    pub(super) first: u32,
    /// The new deliveries.
    pub(super) to: &'a [NewDelivery],
    /// The texts that its source makes of it now, where it could not be mapped before.
    pub(super) anew: Option<&'a Anew>,
}

/// Owes an event again, after whatever its lanes hold already.
pub(super) async fn replay(
    conn: &mut Client,
    slot: i32,
    codec: &Codec,
    again: &Again<'_>,
    now: Timestamp,
) -> Result<Replayed, DatabaseError> {
    let tx = conn.transaction().await?;
    let mut counts = Counts::default();
    let replayed = owe_again(&tx, &mut counts, codec, again, now).await?;
    counts.write(&tx, slot).await?;
    tx.commit().await?;
    Ok(replayed)
}

/// [`replay`] within a transaction.
pub(super) async fn owe_again(
    tx: &Transaction<'_>,
    counts: &mut Counts,
    codec: &Codec,
    again: &Again<'_>,
    now: Timestamp,
) -> Result<Replayed, DatabaseError> {
    let &Again {
        event: id,
        first,
        to,
        anew,
    } = again;
    // Its row is locked: nobody else replays or removes it meanwhile.
    let name = Uuid::from_bytes(*id.as_bytes());
    let event = rows(
        tx,
        "SELECT seq, source FROM event WHERE id = $1 FOR UPDATE",
        &[&name],
    )
    .await?;
    let Some(event) = event.first() else {
        return Ok(Replayed::NoEvent);
    };
    let (seq, source): (i64, String) = (event.try_get(0)?, event.try_get(1)?);
    let next = rows(
        tx,
        "SELECT coalesce(max(number) + 1, 0) FROM delivery WHERE event = $1",
        &[&seq],
    )
    .await?;
    let next: i32 = next.first().map_or(Ok(0), |row| row.try_get(0))?;
    if i64::from(next) != i64::from(first) {
        return Ok(Replayed::Moved);
    }
    if let Some(anew) = anew {
        let kept = kept_headers(tx, seq).await?;
        let anew = codec
            .close_anew(id, anew, &kept)
            .map_err(|error| DatabaseError::Engine(error.to_string()))?;
        write_anew(tx, counts, (seq, &source), &anew, to.is_empty()).await?;
    }
    let kept = kept_call(tx, seq).await?;
    let to: Vec<NewDelivery> = to
        .iter()
        .map(|delivery| NewDelivery {
            sealed: delivery.sealed.clone().or_else(|| kept.clone()),
            ..delivery.clone()
        })
        .collect();
    let made = owe(tx, counts, (id, seq, &source), (first, &to), now).await?;
    let made: Vec<DeliveryId> = made.into_iter().map(|(id, _)| id).collect();
    if !made.is_empty() {
        // One that is held may hold its call no longer: whoever looks after it now has it.
        change(
            tx,
            "DELETE FROM sealed AS s USING delivery AS d
             WHERE d.event = $1 AND d.number < $2 AND d.state = 'unknown' AND s.delivery = d.key",
            &[&seq, &next],
        )
        .await?;
    }
    Ok(Replayed::Made(made))
}

/// Reads the headers of an event as they are kept.
async fn kept_headers(
    tx: &Transaction<'_>,
    seq: i64,
) -> Result<Vec<(String, String)>, DatabaseError> {
    let found = rows(tx, "SELECT headers FROM body WHERE seq = $1", &[&seq]).await?;
    found.first().map_or(Ok(Vec::new()), |row| json(row, 0))
}

/// Writes what a source makes of an event that could not be mapped. Where nothing is owed, what waited for an operator
/// is cancelled.
async fn write_anew(
    tx: &Transaction<'_>,
    counts: &mut Counts,
    (seq, source): (i64, &str),
    anew: &Anew,
    owes_nothing: bool,
) -> Result<(), DatabaseError> {
    let unwritable = |error: serde_json::Error| DatabaseError::Engine(error.to_string());
    let params = serde_json::to_vec(&anew.params).map_err(unwritable)?;
    let headers = serde_json::to_vec(&anew.headers).map_err(unwritable)?;
    let (kind, thread) = (
        anew.event_type.as_deref().map(str::as_bytes),
        anew.thread.as_deref().map(str::as_bytes),
    );
    let sql = "UPDATE event SET event_type = $2, thread = $3, filtered = $4 WHERE seq = $1";
    change(tx, sql, &[&seq, &kind, &thread, &anew.filtered]).await?;
    let sql = "UPDATE body SET request_line = $2, params = $3, headers = $4 WHERE seq = $1";
    change(
        tx,
        sql,
        &[&seq, &anew.request_line.as_bytes(), &params, &headers],
    )
    .await?;
    if owes_nothing {
        let sql = "UPDATE delivery SET state = 'cancelled' WHERE event = $1 AND state || '' = 'unmappable'";
        let cancelled = i64::try_from(change(tx, sql, &[&seq]).await?).unwrap_or(i64::MAX);
        counts.add(source, DeliveryState::Unmappable, -cancelled);
        counts.add(source, DeliveryState::Cancelled, cancelled);
    }
    Ok(())
}

/// The sealed call of an event's last delivery, while it is there.
async fn kept_call(tx: &Transaction<'_>, seq: i64) -> Result<Option<Bytes>, DatabaseError> {
    let found = rows(
        tx,
        "SELECT s.call FROM (SELECT d.key FROM delivery AS d WHERE d.event = $1 AND d.answers IS NULL
                             ORDER BY d.number DESC LIMIT 1) AS d
            JOIN sealed AS s ON s.delivery = d.key",
        &[&seq],
    )
    .await?;
    Ok(found
        .first()
        .map(|row| row.try_get::<_, Vec<u8>>(0))
        .transpose()?
        .map(Bytes::from))
}
