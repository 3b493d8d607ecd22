//! Keeping an event and what it owes; owing it again.

use std::borrow::Cow;

use bytes::Bytes;
use rusqlite::OptionalExtension;
use uuid::Uuid;

use super::attachment;
use super::claim::rank_begins;
use super::proof;
use super::settle;
use super::writer::Transaction;
use crate::inbox::{Anew, InboxError, Replayed, fair};
use crate::model::{
    Accepted, Account, Attempt, Backlog, DeliveryId, DeliveryState, EventId, NewDelivery, NewEvent,
    Timestamp, UsedProof,
};

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
        Ok(Self {
            event,
            params,
            headers,
        })
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
        self.event
            .deliveries
            .iter()
            .filter_map(|delivery| delivery.sealed.as_ref().map(Bytes::len))
            .sum()
    }
}

/// Keeps the events of one request: all of them or none. What is known already stays as it is.
pub(super) fn keep_all(
    tx: &mut Transaction<'_>,
    records: &[Record],
) -> rusqlite::Result<Vec<Accepted>> {
    let first = match records {
        [] => return Ok(Vec::new()),
        [record] => return keep(tx, record).map(|accepted| vec![accepted]),
        [first, ..] => &first.event,
    };
    let replays = proof::used(tx, first.proof.as_ref(), first.received_at)?.is_some();
    if !replays && let Some(turned_away) = turned_away(tx, records)? {
        // Before anything is written: else the proofs of a request that is not kept would count as used.
        return Ok(vec![turned_away; records.len()]);
    }
    let mut all = Vec::with_capacity(records.len());
    for record in records {
        let event = &record.event;
        let came_before =
            replays || proof::used(tx, event.proof.as_ref(), event.received_at)?.is_some();
        if !came_before && insert(tx, record)? {
            all.push(Accepted::New);
            continue;
        }
        let again = match again(tx, event)? {
            // An item that was put into a request whose proof was used.
            None if replays => replayed(tx, event, first.proof.as_ref())?,
            again => again,
        };
        all.push(again.ok_or(rusqlite::Error::QueryReturnedNoRows)?);
    }
    Ok(all)
}

/// Why the events of a request are turned away together. They do not stand in each other's way.
fn turned_away(tx: &mut Transaction<'_>, records: &[Record]) -> rusqlite::Result<Option<Accepted>> {
    for Record { event, .. } in records {
        if event.most_ahead.is_none() && event.backlog.is_none() {
            continue;
        }
        if known(tx, event)?.is_some()
            || proof::used(tx, event.proof.as_ref(), event.received_at)?.is_some()
        {
            continue;
        }
        if let Some(most) = event.most_ahead
            && is_busy(tx, event, most)?
        {
            return Ok(Some(Accepted::Busy));
        }
        if let (Some(backlog), Some(first)) = (event.backlog, event.deliveries.first())
            && is_behind(tx, event, backlog, first)?
        {
            return Ok(Some(Accepted::Behind));
        }
    }
    Ok(None)
}

/// Keeps it, unless it is known or comes while its lane is busy and is not to wait.
pub(super) fn keep(tx: &mut Transaction<'_>, record: &Record) -> rusqlite::Result<Accepted> {
    let event = &record.event;
    if let Some(most) = event.most_ahead
        && is_busy(tx, event, most)?
    {
        // A double of the one that keeps the lane busy is a double first.
        return Ok(again(tx, event)?.unwrap_or(Accepted::Busy));
    }
    if let (Some(backlog), Some(first)) = (event.backlog, event.deliveries.first())
        && is_behind(tx, event, backlog, first)?
    {
        return Ok(again(tx, event)?.unwrap_or(Accepted::Behind));
    }
    if proof::used(tx, event.proof.as_ref(), event.received_at)?.is_some() || !insert(tx, record)? {
        return again(tx, event)?.ok_or(rusqlite::Error::QueryReturnedNoRows);
    }
    Ok(Accepted::New)
}

/// Writes an event with all that hangs on it. False: it is there already.
fn insert(tx: &mut Transaction<'_>, record: &Record) -> rusqlite::Result<bool> {
    let event = &record.event;
    if !insert_event(tx, event)? {
        return Ok(false);
    }
    let seq = tx.conn.last_insert_rowid();
    proof::keep(tx, seq, event);
    insert_body(tx, seq, record, &event.body)?;
    if !event.attachments.is_empty() {
        attachment::insert(tx, Some(seq), &event.source, &event.attachments)?;
    }
    for (number, delivery) in (0..).zip(&event.deliveries) {
        let id = DeliveryId {
            event: event.id,
            number,
        };
        match &event.unmappable {
            None => owe(tx, seq, id, delivery, &event.source, event.received_at)?,
            Some(why) => hold_back(
                tx,
                seq,
                id,
                delivery,
                &event.source,
                (event.received_at, why),
            )?,
        }
    }
    Ok(true)
}

/// What is said to an event that came before, by its key or by its proof; none: it did not.
fn again(tx: &Transaction<'_>, event: &NewEvent) -> rusqlite::Result<Option<Accepted>> {
    if let Some(first) = known(tx, event)? {
        proof::add(tx, first, event)?;
        return Ok(Some(Accepted::Duplicate(first)));
    }
    replayed(tx, event, event.proof.as_ref())
}

/// What is said to an event whose proof was used before; none: it was not.
fn replayed(
    tx: &Transaction<'_>,
    event: &NewEvent,
    proof: Option<&UsedProof>,
) -> rusqlite::Result<Option<Accepted>> {
    let used = proof::used(tx, proof, event.received_at)?;
    Ok(match used {
        None => None,
        Some(Some((seq, first))) => {
            proof::replayed(tx, seq, event.received_at)?;
            Some(Accepted::Replayed(first))
        }
        // What used it was passed on: there is no event to name.
        Some(None) => Some(Accepted::Replayed(event.id)),
    })
}

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
    (id, first): (EventId, u32),
    to: &[NewDelivery],
    anew: &Anew,
    now: Timestamp,
) -> rusqlite::Result<Replayed> {
    let replayed = replay(tx, id, first, to, now)?;
    let (Replayed::Made(_), Some((seq, _))) = (&replayed, next_number(tx, id)?) else {
        return Ok(replayed);
    };
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
            "SELECT s.call FROM (SELECT key FROM delivery WHERE event = ?1 ORDER BY number DESC LIMIT 1) AS d
                JOIN sealed AS s ON s.delivery = d.key",
        )?
        .query_row([seq], |row| row.get::<_, Vec<u8>>(0).map(Bytes::from))
        .optional()
}

/// False: the id, or the source and dedup key, stand there already.
fn insert_event(tx: &Transaction<'_>, event: &NewEvent) -> rusqlite::Result<bool> {
    let rows = tx
        .conn
        .prepare_cached(
            "INSERT INTO event (id, source, dedup, event_type, thread, received_at, strength, secret, filtered, proofs,
                                proofs_until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING",
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
            proof::written(event),
            event.proof.as_ref().and_then(|proof| proof.until).map(Timestamp::millis),
        ))?;
    Ok(rows == 1)
}

fn insert_body(
    tx: &Transaction<'_>,
    seq: i64,
    record: &Record,
    body: &Bytes,
) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached("INSERT INTO body (seq, request_line, params, headers, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute((seq, &record.event.request_line, &record.params, &record.headers, body.as_ref()))?;
    Ok(())
}

/// Whether one of its lanes has more than so many deliveries that wait or are in flight. A lane's row is there exactly
/// as long as it has any.
fn is_busy(tx: &Transaction<'_>, event: &NewEvent, most: u32) -> rusqlite::Result<bool> {
    let mut lane = tx
        .conn
        .prepare_cached("SELECT id, delivery IS NOT NULL FROM lane WHERE lane = ?1")?;
    let mut waiting = tx.conn.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM delivery INDEXED BY delivery_lane WHERE lane = ?1 AND state = 'pending'
         LIMIT ?2)",
    )?;
    for delivery in &event.deliveries {
        let found = lane
            .query_row([delivery.lane.as_bytes()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()?;
        let Some((id, leased)) = found else { continue };
        let most = i64::from(most);
        let ahead = if most == 0 {
            1
        } else {
            leased + waiting.query_row((id, most + 1), |row| row.get::<_, i64>(0))?
        };
        if ahead > most {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether too much of its source waits, or for too long. Counts that are kept, and one look into an index.
fn is_behind(
    tx: &mut Transaction<'_>,
    event: &NewEvent,
    backlog: Backlog,
    delivery: &NewDelivery,
) -> rusqlite::Result<bool> {
    if let Some(most) = backlog.most
        && tx.counted(&event.source, DeliveryState::Pending)?
            >= i64::try_from(most).unwrap_or(i64::MAX)
    {
        return Ok(true);
    }
    let Some(age) = backlog.age else {
        return Ok(false);
    };
    let route = route(
        tx,
        &event.source,
        &delivery.destination.to_string(),
        delivery,
    )?;
    let oldest: Option<i64> = tx
        .conn
        .prepare_cached(
            "SELECT ready_at FROM lane INDEXED BY lane_ready WHERE delivery IS NULL AND route = ?1
             ORDER BY ready_at LIMIT 1",
        )?
        .query_row([route], |row| row.get(0))
        .optional()?;
    Ok(oldest.is_some_and(|oldest| event.received_at.since(Timestamp::from_millis(oldest)) > age))
}

/// The first one's id. An id that is there itself is a commit whose answer was lost.
fn known(tx: &Transaction<'_>, event: &NewEvent) -> rusqlite::Result<Option<EventId>> {
    tx.conn
        .prepare_cached(
            "SELECT id FROM event WHERE source = ?1 AND dedup = ?2 AND dedup IS NOT NULL
             UNION ALL SELECT id FROM event WHERE id = ?3 LIMIT 1",
        )?
        .query_row((&event.source, &event.dedup, event.id.as_bytes()), |row| {
            row.get(0).map(EventId::from_bytes)
        })
        .optional()
}

/// One delivery, and its lane where that has no work yet. A lane that waits for a later try goes on waiting.
fn owe(
    tx: &mut Transaction<'_>,
    seq: i64,
    id: DeliveryId,
    delivery: &NewDelivery,
    source: &str,
    ready_at: Timestamp,
) -> rusqlite::Result<()> {
    // An upstream id made from the delivery itself belongs to no other: it needs no place in the index of turns.
    let turns = id.as_uuid().to_string() != delivery.upstream_id;
    let destination = delivery.destination.to_string();
    let route = route(tx, source, &destination, delivery)?;
    let lane = lane(tx, delivery.lane, route, ready_at)?;
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
    if let Some(call) = &delivery.sealed {
        let key = tx.conn.last_insert_rowid();
        tx.conn
            .prepare_cached("INSERT INTO sealed (delivery, call) VALUES (?1, ?2)")?
            .execute((key, call.as_ref()))?;
    }
    tx.count(source, DeliveryState::Pending, 1);
    tx.news();
    Ok(())
}

/// One delivery of an event that could not be mapped, with the reason: it has no lane, so nothing takes it up.
fn hold_back(
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
    settle::insert_attempt(tx, key, &attempt, false)?;
    tx.count(source, state, 1);
    Ok(())
}

/// The number of a delivery's route.
fn route(
    tx: &mut Transaction<'_>,
    source: &str,
    destination: &str,
    delivery: &NewDelivery,
) -> rusqlite::Result<i64> {
    if let Some((last, id)) = &tx.route
        && last.source == source
        && (&last.destination, &last.account, last.class)
            == (&delivery.destination, &delivery.account, delivery.class)
    {
        return Ok(*id);
    }
    let id = find_route(tx, source, destination, delivery)?;
    tx.route = Some((delivery.route(source), id));
    Ok(id)
}

/// Looks a route up, and makes it where it is new.
fn find_route(
    tx: &Transaction<'_>,
    source: &str,
    destination: &str,
    delivery: &NewDelivery,
) -> rusqlite::Result<i64> {
    let route = (
        source,
        destination,
        account(&delivery.account),
        delivery.class.as_str(),
    );
    let known = tx
        .conn
        .prepare_cached("SELECT id FROM route WHERE source = ?1 AND destination = ?2 AND account = ?3 AND class = ?4")?
        .query_row((route.0, route.1, route.2.as_ref(), route.3), |row| row.get(0))
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    let rank = fair::rank(&delivery.account, delivery.class);
    let (begins, ends) = (rank_begins(rank), rank_begins(rank + 1));
    tx.conn
        .prepare_cached(
            "INSERT INTO route (id, source, destination, account, class)
             VALUES (1 + coalesce((SELECT max(id) FROM route WHERE id >= ?5 AND id < ?6), ?5), ?1, ?2, ?3, ?4)
             RETURNING id",
        )?
        .query_row((route.0, route.1, route.2.as_ref(), route.3, begins, ends), |row| row.get(0))
}

/// An account's word; the usual one costs nothing.
fn account(account: &Account) -> Cow<'static, str> {
    match account {
        Account::Operator => Cow::Borrowed("operator"),
        other => Cow::Owned(other.to_string()),
    }
}

/// The number of a lane, which is made where it has no work yet. `route` is that of the delivery it is asked for.
pub(super) fn lane(
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
