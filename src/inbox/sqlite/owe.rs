//! New deliveries: those that an event owes, and those that answer a delivery which is settled.

use std::borrow::Cow;

use bytes::Bytes;

use super::attempt;
use super::lane::make_lane;
use super::routes::route;
use super::transaction::Transaction;
use crate::inbox::OwedDelivery;
use crate::inbox::codec::Codec;
use crate::model::{Attempt, DeliveryId, DeliveryState, NewDelivery, Timestamp};

/// One delivery, and its lane where that has no work yet. A lane that waits for a later try goes on waiting.
pub(super) fn owe(
    tx: &mut Transaction<'_>,
    seq: i64,
    id: DeliveryId,
    delivery: &NewDelivery,
    source: &str,
    ready_at: Timestamp,
) -> rusqlite::Result<i64> {
    // An upstream id made from the delivery itself belongs to no other: it needs no place in the index of turns.
    let turns = id.as_uuid().to_string() != delivery.upstream_id;
    let destination = delivery.destination.to_string();
    let route = route(tx, source, &destination, delivery)?;
    let lane = make_lane(tx, delivery.lane, route, ready_at)?;
    tx.conn
        .prepare_cached(
            "INSERT INTO delivery (event, number, destination, route, lane, upstream_id, turns, sealed, state)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'pending')",
        )?
        .execute((
            seq,
            id.number,
            &destination,
            route,
            lane,
            &delivery.upstream_id,
            turns,
            delivery.sealed.is_some(),
        ))?;
    let key = tx.conn.last_insert_rowid();
    if let Some(call) = &delivery.sealed {
        tx.conn
            .prepare_cached("INSERT INTO sealed (delivery, call) VALUES (?1, ?2)")?
            .execute((key, call.as_ref()))?;
    }
    tx.count(source, DeliveryState::Pending, 1);
    tx.work_due();
    Ok(key)
}

/// Keeps the deliveries that answer one which is settled. `event` and `source` are those of the settled delivery.
pub(super) fn owe_answers(
    tx: &mut Transaction<'_>,
    codec: &Codec,
    answered: DeliveryId,
    (event, source): (i64, &str),
    owed: &[OwedDelivery],
    now: Timestamp,
) -> rusqlite::Result<()> {
    if owed.is_empty() {
        return Ok(());
    }
    let first: u32 = tx
        .conn
        .prepare_cached("SELECT max(number) + 1 FROM delivery WHERE event = ?1")?
        .query_row([event], |row| row.get(0))?;
    for (number, OwedDelivery { delivery, payload }) in (first..).zip(owed) {
        let id = DeliveryId {
            event: answered.event,
            number,
        };
        let key = owe(tx, event, id, delivery, source, now)?;
        let payload = closed(codec, id, payload)?;
        tx.conn
            .prepare_cached("UPDATE delivery SET answers = ?2 WHERE key = ?1")?
            .execute((key, answered.number))?;
        tx.conn
            .prepare_cached("INSERT INTO payload (delivery, payload) VALUES (?1, ?2)")?
            .execute((key, payload))?;
    }
    Ok(())
}

/// Writes how far a delivery that answers another one has come. Other deliveries have no payload.
pub(super) fn write_payload(
    tx: &Transaction<'_>,
    codec: &Codec,
    key: i64,
    id: DeliveryId,
    payload: &Bytes,
) -> rusqlite::Result<()> {
    let payload = closed(codec, id, payload)?;
    tx.conn
        .prepare_cached("UPDATE payload SET payload = ?2 WHERE delivery = ?1")?
        .execute((key, payload))?;
    Ok(())
}

fn closed<'a>(
    codec: &Codec,
    id: DeliveryId,
    payload: &'a Bytes,
) -> rusqlite::Result<Cow<'a, [u8]>> {
    codec
        .close_payload(id, payload)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// One delivery of an event that could not be mapped, with the reason: it has no lane, so nothing takes it up.
pub(super) fn hold_back(
    tx: &mut Transaction<'_>,
    seq: i64,
    id: DeliveryId,
    delivery: &NewDelivery,
    source: &str,
    (at, why): (Timestamp, &str),
) -> rusqlite::Result<()> {
    let destination = delivery.destination.to_string();
    let route = route(tx, source, &destination, delivery)?;
    let state = DeliveryState::Unmappable;
    tx.conn
        .prepare_cached(
            "INSERT INTO delivery (event, number, destination, route, lane, upstream_id, turns, sealed, state)
             VALUES (?1, ?2, ?3, ?4, 0, ?5, 0, 0, ?6)",
        )?
        .execute((seq, id.number, &destination, route, &delivery.upstream_id, state.as_str()))?;
    let key = tx.conn.last_insert_rowid();
    let (result, detail) = (state.as_str().to_owned(), why.to_owned());
    let attempt = Attempt {
        number: 0,
        started_at: at,
        ended_at: at,
        result,
        status: None,
        detail,
    };
    attempt::insert_attempt(tx, key, &attempt, false)?;
    tx.count(source, state, 1);
    Ok(())
}
