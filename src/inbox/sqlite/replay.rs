//! Owing an event again: new deliveries behind whatever its lanes hold already.

use bytes::Bytes;
use rusqlite::OptionalExtension;

use super::owe::owe;
use super::row::json;
use super::transaction::Transaction;
use crate::inbox::codec::Codec;
use crate::inbox::{Anew, Replayed};
use crate::model::{DeliveryId, DeliveryState, EventId, NewDelivery, Timestamp};

/// Owes an event again, after whatever its lanes hold already.
pub(super) fn replay(
    tx: &mut Transaction<'_>,
    id: EventId,
    first: u32,
    to: &[NewDelivery],
    now: Timestamp,
) -> rusqlite::Result<Replayed> {
    let Some((seq, next)) = next_number(tx, id)? else {
        return Ok(Replayed::NoEvent);
    };
    if next != first {
        return Ok(Replayed::Moved);
    }
    let source: String = tx
        .conn
        .prepare_cached("SELECT source FROM event WHERE seq = ?1")?
        .query_row([seq], |row| row.get(0))?;
    let kept = kept_call(tx, seq)?;
    let mut made = Vec::with_capacity(to.len());
    for (number, delivery) in (first..).zip(to) {
        let id = DeliveryId { event: id, number };
        let sealed = delivery.sealed.clone().or_else(|| kept.clone());
        owe(
            tx,
            seq,
            id,
            &NewDelivery {
                sealed,
                ..delivery.clone()
            },
            &source,
            now,
        )?;
        made.push(id);
    }
    if !made.is_empty() {
        // One that is held may hold its call no longer: whoever looks after it now has it.
        tx.conn
            .prepare_cached(
                "DELETE FROM sealed WHERE delivery IN
                    (SELECT key FROM delivery WHERE event = ?1 AND number < ?2 AND state = 'unknown')",
            )?
            .execute((seq, first))?;
    }
    Ok(Replayed::Made(made))
}

/// The same with what a source makes of an event that could not be mapped. Where nothing is owed, what waited for an
/// operator is cancelled.
pub(super) fn replay_anew(
    tx: &mut Transaction<'_>,
    codec: &Codec,
    (id, first): (EventId, u32),
    to: &[NewDelivery],
    (anew, now): (&Anew, Timestamp),
) -> rusqlite::Result<Replayed> {
    let replayed = replay(tx, id, first, to, now)?;
    let (Replayed::Made(_), Some((seq, _))) = (&replayed, next_number(tx, id)?) else {
        return Ok(replayed);
    };
    let kept: Vec<(String, String)> = tx
        .conn
        .prepare_cached("SELECT headers FROM body WHERE seq = ?1")?
        .query_row([seq], |row| json(row, 0))?;
    let anew = codec
        .close_anew(id, anew, &kept)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let unwritable =
        |error: serde_json::Error| rusqlite::Error::ToSqlConversionFailure(Box::new(error));
    let params = serde_json::to_string(&anew.params).map_err(unwritable)?;
    let headers = serde_json::to_string(&anew.headers).map_err(unwritable)?;
    tx.conn
        .prepare_cached(
            "UPDATE event SET event_type = ?2, thread = ?3, filtered = ?4 WHERE seq = ?1",
        )?
        .execute((seq, &anew.event_type, &anew.thread, &anew.filtered))?;
    tx.conn
        .prepare_cached(
            "UPDATE body SET request_line = ?2, params = ?3, headers = ?4 WHERE seq = ?1",
        )?
        .execute((seq, &anew.request_line, params, headers))?;
    if to.is_empty() {
        let source: String = tx
            .conn
            .prepare_cached("SELECT source FROM event WHERE seq = ?1")?
            .query_row([seq], |row| row.get(0))?;
        let cancelled = tx
            .conn
            .prepare_cached(
                "UPDATE delivery SET state = 'cancelled' WHERE event = ?1 AND state = 'unmappable'",
            )?
            .execute([seq])?;
        let cancelled = i64::try_from(cancelled).unwrap_or(i64::MAX);
        tx.count(&source, DeliveryState::Unmappable, -cancelled);
        tx.count(&source, DeliveryState::Cancelled, cancelled);
    }
    Ok(replayed)
}

/// An event's place, and the number that its next delivery will have.
pub(super) fn next_number(
    tx: &Transaction<'_>,
    id: EventId,
) -> rusqlite::Result<Option<(i64, u32)>> {
    tx.conn
        .prepare_cached(
            "SELECT e.seq, coalesce((SELECT max(number) + 1 FROM delivery WHERE event = e.seq), 0)
             FROM event AS e WHERE e.id = ?1",
        )?
        .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// The sealed call of an event's last delivery, while it is there.
fn kept_call(tx: &Transaction<'_>, seq: i64) -> rusqlite::Result<Option<Bytes>> {
    tx.conn
        .prepare_cached(
            "SELECT s.call FROM (SELECT key FROM delivery WHERE event = ?1 AND answers IS NULL
                            ORDER BY number DESC LIMIT 1) AS d
                JOIN sealed AS s ON s.delivery = d.key",
        )?
        .query_row([seq], |row| row.get::<_, Vec<u8>>(0).map(Bytes::from))
        .optional()
}
