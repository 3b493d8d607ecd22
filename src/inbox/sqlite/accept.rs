//! Keeping an event and what it owes; owing it again.

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::OptionalExtension;
use tokio::sync::mpsc;

use super::owe::{hold_back, owe};
use super::routes::route;
use super::transaction::Transaction;
use super::work::{QueuedWork, WriterMessage};
use super::{SqliteInbox, browse, files, proof};
use crate::inbox::bounds::QUEUE_BYTES;
use crate::inbox::queue::{QueueWeight, full};
use crate::inbox::{Accept, InboxError};
use crate::model::{
    Accepted, Backlog, DeliveryId, DeliveryState, EventId, NewDelivery, NewEvent, ProofMark,
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

/// The reason to turn the events of a request away together. They do not stand in each other's way.
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
        files::insert(tx, Some(seq), &event.source, &event.attachments)?;
    }
    for (number, delivery) in (0..).zip(&event.deliveries) {
        let id = DeliveryId {
            event: event.id,
            number,
        };
        match &event.unmappable {
            None => {
                owe(tx, seq, id, delivery, &event.source, event.received_at)?;
            }
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

/// The answer to an event that came before, by its key or by its proof; `None` if it did not.
fn again(tx: &Transaction<'_>, event: &NewEvent) -> rusqlite::Result<Option<Accepted>> {
    if let Some(first) = known(tx, event)? {
        proof::add(tx, first, event)?;
        return Ok(Some(Accepted::Duplicate(first)));
    }
    replayed(tx, event, event.proof.as_ref())
}

/// The answer to an event whose proof was used before; `None` if it was not.
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

/// True if one of its lanes has more than so many deliveries that wait or are in flight. A lane's row is there exactly
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

/// True if too much of its source waits, or for too long. Reads counts that are kept, and looks into an index once.
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

#[async_trait]
impl Accept for SqliteInbox {
    async fn accept_all(&self, mut events: Vec<NewEvent>) -> Result<Vec<Accepted>, InboxError> {
        self.has_room()?;
        self.codec.close_events(&mut events)?;
        let records: Vec<_> = events
            .into_iter()
            .map(Record::new)
            .collect::<Result<_, _>>()?;
        let bytes = records.iter().map(Record::bytes).sum();
        let weight = QueueWeight::of(bytes, &self.waiting, QUEUE_BYTES).ok_or_else(full)?;
        let (job, end) = QueuedWork::new(
            "accept",
            weight,
            move |tx| keep_all(tx, &records),
            |accepted| accepted,
        );
        // Whoever calls from outside is told at once that we are full; everybody else waits for a place.
        self.queue()?
            .try_send(WriterMessage::Work(Box::new(job)))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => full(),
                mpsc::error::TrySendError::Closed(_) => InboxError::Closed,
            })?;
        end.await.unwrap_or(Err(InboxError::Closed))
    }

    async fn known(&self, source: &str, dedup: &str) -> Result<Option<EventId>, InboxError> {
        let (source, dedup) = (source.to_owned(), dedup.to_owned());
        self.readers
            .ask("look a dedup key up", move |conn| {
                browse::known(conn, &source, &dedup)
            })
            .await
    }

    async fn use_proof(&self, proof: UsedProof, now: Timestamp) -> Result<bool, InboxError> {
        self.has_room()?;
        self.write("use a proof up", move |tx| proof::pass_on(tx, &proof, now))
            .await
    }

    async fn free_proof(&self, marks: Vec<ProofMark>) -> Result<(), InboxError> {
        self.write("give a proof back", move |tx| proof::free(tx, &marks))
            .await
    }
}
