//! Keeping an event and what it owes; owing it again.

use bytes::Bytes;
use rusqlite::OptionalExtension;

use super::attachment;
use super::writer::Turn;
use crate::inbox::InboxError;
use crate::model::{Accepted, DeliveryId, EventId, NewDelivery, NewEvent, State, Timestamp};

/// An event with its lists written out, which is done before the writer has it.
#[derive(Debug)]
pub(super) struct Record {
    event: NewEvent,
    params: String,
    headers: String,
}

impl Record {
    /// Writes the lists out.
    pub(super) fn new(event: NewEvent) -> Result<Self, InboxError> {
        let unwritable = |error: serde_json::Error| InboxError::Record(error.to_string());
        let params = serde_json::to_string(&event.params).map_err(unwritable)?;
        let headers = serde_json::to_string(&event.headers).map_err(unwritable)?;
        Ok(Self { event, params, headers })
    }

    /// About how much of the disk it needs.
    pub(super) fn bytes(&self) -> usize {
        self.event.body.len()
            + self.params.len()
            + self.headers.len()
            + self.event.request_line.len()
            + self.sealed()
            + self.event.attachments.len() * 512
            + 512
    }
}

impl Record {
    fn sealed(&self) -> usize {
        self.event.deliveries.iter().filter_map(|delivery| delivery.sealed.as_ref().map(Bytes::len)).sum()
    }
}

/// Keeps it, unless it is known or comes while its lane is busy and is not to wait.
pub(super) fn keep(turn: &mut Turn<'_>, record: &Record) -> rusqlite::Result<Accepted> {
    let event = &record.event;
    if event.reject_if_busy && is_busy(turn, event)? {
        // A double of the one that keeps the lane busy is a double first.
        return Ok(known(turn, event)?.map_or(Accepted::Busy, Accepted::Duplicate));
    }
    if !insert_event(turn, event)? {
        return known(turn, event)?.map(Accepted::Duplicate).ok_or(rusqlite::Error::QueryReturnedNoRows);
    }
    let seq = turn.conn.last_insert_rowid();
    insert_body(turn, seq, record, &event.body)?;
    if !event.attachments.is_empty() {
        attachment::insert(turn, Some(seq), &event.source, &event.attachments)?;
    }
    for (number, delivery) in (0..).zip(&event.deliveries) {
        let id = DeliveryId { event: event.id, number };
        owe(turn, seq, id, delivery, &event.source, event.received_at)?;
    }
    Ok(Accepted::New)
}

/// Owes an event again, after whatever its lanes hold already.
pub(super) fn replay(
    turn: &mut Turn<'_>,
    id: EventId,
    to: &[NewDelivery],
    now: Timestamp,
) -> rusqlite::Result<Option<Vec<DeliveryId>>> {
    let Some((seq, source)) = turn
        .conn
        .prepare_cached("SELECT seq, source FROM event WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
        .optional()?
    else {
        return Ok(None);
    };
    let first: u32 = turn
        .conn
        .prepare_cached("SELECT coalesce(max(number) + 1, 0) FROM delivery WHERE event = ?1")?
        .query_row([seq], |row| row.get(0))?;
    let kept = kept_call(turn, seq)?;
    let mut made = Vec::with_capacity(to.len());
    for (number, delivery) in (first..).zip(to) {
        let id = DeliveryId { event: id, number };
        let sealed = delivery.sealed.clone().or_else(|| kept.clone());
        owe(turn, seq, id, &NewDelivery { sealed, ..delivery.clone() }, &source, now)?;
        made.push(id);
    }
    if !made.is_empty() {
        // One that is held may hold its call no longer: whoever looks after it now has it.
        turn.conn
            .prepare_cached(
                "DELETE FROM sealed WHERE delivery IN
                    (SELECT key FROM delivery WHERE event = ?1 AND number < ?2 AND state = 'unknown')",
            )?
            .execute((seq, first))?;
    }
    Ok(Some(made))
}

/// The sealed call of an event's last delivery, while it is there.
fn kept_call(turn: &Turn<'_>, seq: i64) -> rusqlite::Result<Option<Bytes>> {
    turn.conn
        .prepare_cached(
            "SELECT s.call FROM (SELECT key FROM delivery WHERE event = ?1 ORDER BY number DESC LIMIT 1) AS d
                JOIN sealed AS s ON s.delivery = d.key",
        )?
        .query_row([seq], |row| row.get::<_, Vec<u8>>(0).map(Bytes::from))
        .optional()
}

/// False: the id, or the source and dedup key, stand there already.
fn insert_event(turn: &Turn<'_>, event: &NewEvent) -> rusqlite::Result<bool> {
    let rows = turn
        .conn
        .prepare_cached(
            "INSERT INTO event (id, source, dedup, event_type, thread, received_at, strength, secret, filtered)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
        )?
        .execute((
            event.id.as_bytes(),
            &event.source,
            &event.dedup,
            &event.event_type,
            &event.thread,
            event.received_at.millis(),
            event.strength.as_str(),
            &event.secret,
            &event.filtered,
        ))?;
    Ok(rows == 1)
}

fn insert_body(turn: &Turn<'_>, seq: i64, record: &Record, body: &Bytes) -> rusqlite::Result<()> {
    turn.conn
        .prepare_cached("INSERT INTO body (seq, request_line, params, headers, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute((seq, &record.event.request_line, &record.params, &record.headers, body.as_ref()))?;
    Ok(())
}

/// Whether one of its lanes has work: a lane's row is there exactly as long.
fn is_busy(turn: &Turn<'_>, event: &NewEvent) -> rusqlite::Result<bool> {
    let mut statement = turn.conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM lane WHERE lane = ?1)")?;
    for delivery in &event.deliveries {
        if statement.query_row([delivery.lane.as_bytes()], |row| row.get(0))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The first one's id. An id that is there itself is a commit whose answer was lost.
fn known(turn: &Turn<'_>, event: &NewEvent) -> rusqlite::Result<Option<EventId>> {
    turn.conn
        .prepare_cached(
            "SELECT id FROM event WHERE source = ?1 AND dedup = ?2 AND dedup IS NOT NULL
             UNION ALL SELECT id FROM event WHERE id = ?3 LIMIT 1",
        )?
        .query_row((&event.source, &event.dedup, event.id.as_bytes()), |row| row.get(0).map(EventId::from_bytes))
        .optional()
}

/// One delivery, and its lane where that has no work yet. A lane that waits for a later try goes on waiting.
fn owe(
    turn: &mut Turn<'_>,
    seq: i64,
    id: DeliveryId,
    delivery: &NewDelivery,
    source: &str,
    ready_at: Timestamp,
) -> rusqlite::Result<()> {
    // An upstream id made from the delivery itself belongs to no other: it needs no place in the index of turns.
    let turns = id.as_uuid().to_string() != delivery.upstream_id;
    let lane = lane(turn, delivery, ready_at)?;
    turn.conn
        .prepare_cached(
            "INSERT INTO delivery (event, number, destination, lane, upstream_id, turns, sealed, state)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'pending')",
        )?
        .execute((
            seq,
            id.number,
            delivery.destination.to_string(),
            lane,
            &delivery.upstream_id,
            turns,
            delivery.sealed.is_some(),
        ))?;
    if let Some(call) = &delivery.sealed {
        let key = turn.conn.last_insert_rowid();
        turn.conn
            .prepare_cached("INSERT INTO sealed (delivery, call) VALUES (?1, ?2)")?
            .execute((key, call.as_ref()))?;
    }
    turn.count(source, State::Pending, 1);
    turn.news();
    Ok(())
}

/// The number of a delivery's lane.
fn lane(turn: &Turn<'_>, delivery: &NewDelivery, ready_at: Timestamp) -> rusqlite::Result<i64> {
    let name = delivery.lane.as_bytes();
    let made = turn
        .conn
        .prepare_cached("INSERT INTO lane (lane, ready_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute((name, ready_at.millis()))?;
    if made == 1 {
        return Ok(turn.conn.last_insert_rowid());
    }
    turn.conn.prepare_cached("SELECT id FROM lane WHERE lane = ?1")?.query_row([name], |row| row.get(0))
}
