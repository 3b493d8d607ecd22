//! What can be asked of the inbox. Every question goes by an index and looks at a bounded number of rows.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, types::Type};

use super::attachment;
use crate::inbox::{
    Answer, Claimed, Count, DeliveryDetail, EventDetail, EventFilter, EventSummary, Page, SealedCall, Turn as Before,
};
use crate::model::{Attempt, DeliveryId, Destination, EventId, State, Timestamp};

/// How many events a page has at most.
const PAGE: usize = 200;

/// How many events are looked at for one page. A page may so come out short, or empty, and still have a next.
const WINDOW: usize = 10_000;

/// How many deliveries of one event are shown.
const DELIVERIES: i64 = 1000;

/// How far arrival and receipt may be apart: a body may take its time after its head was read. Where a list is cut by
/// time, an event further out of order is not looked for.
const DISORDER: Duration = Duration::from_secs(3600);

/// When the next lane that is not leased becomes due.
pub(super) fn next_due(conn: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    conn.prepare_cached(
        "SELECT ready_at FROM lane INDEXED BY lane_ready WHERE delivery IS NULL ORDER BY ready_at LIMIT 1",
    )?
    .query_row([], |row| row.get(0).map(Timestamp::from_millis))
    .optional()
}

/// The last delivery before this one that reached the upstream under the same id.
pub(super) fn earlier_turn(conn: &Connection, claimed: &Claimed) -> rusqlite::Result<Option<Before>> {
    conn.prepare_cached(
        "SELECT b.params, b.headers, b.body, d.answer_status, d.answer_finished_at, d.answer_result
         FROM delivery AS d INDEXED BY delivery_turn JOIN body AS b ON b.seq = d.event
         WHERE d.turns = 1 AND d.upstream_id = ?1 AND d.key < ?2 AND d.destination = ?3 AND d.attempts > 0
           AND d.state IN ('delivered', 'dead', 'unknown')
         ORDER BY d.key DESC LIMIT 1",
    )?
    .query_row((&claimed.upstream_id, claimed.key, claimed.destination.to_string()), |row| {
        Ok(Before {
            params: json(row, 0)?,
            headers: json(row, 1)?,
            body: Bytes::from(row.get::<_, Vec<u8>>(2)?),
            answer: answer(row, 3, None)?,
        })
    })
    .optional()
}

/// A page of events, newest first.
pub(super) fn events(conn: &Connection, filter: &EventFilter) -> rusqlite::Result<Page<EventSummary>> {
    let limit = filter.limit.clamp(1, PAGE);
    let mut below = filter.cursor.unwrap_or(i64::MAX);
    if let Some(until) = filter.until {
        let Some(last) = last_before(conn, until + DISORDER)? else { return Ok(Page { items: vec![], next: None }) };
        below = below.min(last.saturating_add(1));
    }
    // Few deliveries are not delivered, so they have an index of their own; the others are found soon by looking.
    let listed = filter.state.filter(|state| *state != State::Delivered);
    let columns = "e.seq, e.id, e.source, e.event_type, e.dedup, e.thread, e.received_at, e.filtered";
    let (sql, key): (String, &dyn ToSql) = match (&listed, &filter.source) {
        (Some(state), _) => (
            format!(
                "SELECT {columns} FROM delivery AS d INDEXED BY delivery_state CROSS JOIN event AS e ON e.seq = d.event
                 WHERE d.state <> 'delivered' AND d.state = ?2 AND d.event < ?1 ORDER BY d.event DESC"
            ),
            &state.as_str() as &dyn ToSql,
        ),
        (None, Some(source)) => (
            format!(
                "SELECT {columns} FROM event AS e INDEXED BY event_source WHERE e.source = ?2 AND e.seq < ?1
                 ORDER BY e.seq DESC"
            ),
            source,
        ),
        (None, None) => {
            (format!("SELECT {columns} FROM event AS e WHERE e.seq < ?1 AND ?2 ORDER BY e.seq DESC"), &true)
        }
    };
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query((below, key))?;
    let mut items = Vec::new();
    let mut looked = 0;
    let mut last = None;
    while let Some(row) = rows.next()? {
        if items.len() == limit || looked == WINDOW {
            return Ok(Page { items, next: last });
        }
        looked += 1;
        let seq = row.get(0)?;
        if last.replace(seq) == Some(seq) {
            // An event with two such deliveries.
            continue;
        }
        let event = summary(row)?;
        if filter.since.is_some_and(|since| event.received_at < since - DISORDER) {
            break;
        }
        if fits(filter, &event) {
            let states = states(conn, seq)?;
            if filter.state.is_none_or(|state| states.contains(&state)) {
                items.push(EventSummary { states, ..event });
            }
        }
    }
    Ok(Page { items, next: None })
}

fn fits(filter: &EventFilter, event: &EventSummary) -> bool {
    filter.source.as_ref().is_none_or(|source| *source == event.source)
        && filter.filtered.is_none_or(|filtered| filtered == event.filtered.is_some())
        && filter.since.is_none_or(|since| event.received_at >= since)
        && filter.until.is_none_or(|until| event.received_at < until)
}

/// The number of the last event received before a time.
fn last_before(conn: &Connection, time: Timestamp) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(
        "SELECT seq FROM event INDEXED BY event_received WHERE received_at < ?1
         ORDER BY received_at DESC, seq DESC LIMIT 1",
    )?
    .query_row([time.millis()], |row| row.get(0))
    .optional()
}

/// Columns 1 to 7 of a list, its states still missing.
fn summary(row: &Row<'_>) -> rusqlite::Result<EventSummary> {
    Ok(EventSummary {
        id: EventId::from_bytes(row.get(1)?),
        source: row.get(2)?,
        event_type: row.get(3)?,
        dedup: row.get(4)?,
        thread: row.get(5)?,
        received_at: Timestamp::from_millis(row.get(6)?),
        filtered: row.get(7)?,
        states: Vec::new(),
    })
}

fn states(conn: &Connection, seq: i64) -> rusqlite::Result<Vec<State>> {
    conn.prepare_cached("SELECT state FROM delivery WHERE event = ?1 ORDER BY number LIMIT ?2")?
        .query_map((seq, DELIVERIES), |row| state(row, 0))?
        .collect()
}

/// One event with everything known of it.
pub(super) fn event(conn: &Connection, id: EventId) -> rusqlite::Result<Option<EventDetail>> {
    let found = conn
        .prepare_cached(
            "SELECT e.seq, e.id, e.source, e.event_type, e.dedup, e.thread, e.received_at, e.filtered,
                    e.strength, e.secret, b.request_line, b.params, b.headers, b.body
             FROM event AS e JOIN body AS b ON b.seq = e.seq WHERE e.id = ?1",
        )?
        .query_row([id.as_bytes()], |row| {
            let detail = EventDetail {
                summary: summary(row)?,
                strength: row.get(8)?,
                secret: row.get(9)?,
                request_line: row.get(10)?,
                params: json(row, 11)?,
                headers: json(row, 12)?,
                body: Bytes::from(row.get::<_, Vec<u8>>(13)?),
                attachments: Vec::new(),
                deliveries: Vec::new(),
            };
            Ok((row.get(0)?, detail))
        })
        .optional()?;
    let Some((seq, mut detail)) = found else { return Ok(None) };
    detail.attachments = attachment::of_event(conn, seq)?;
    detail.deliveries = deliveries(conn, seq, id, None)?;
    detail.summary.states = detail.deliveries.iter().map(|delivery| delivery.state).collect();
    Ok(Some(detail))
}

/// One delivery where it has ended; the outer none when there is none of that name, the inner one while it goes on.
pub(super) fn ended(conn: &Connection, id: DeliveryId) -> rusqlite::Result<Option<Option<DeliveryDetail>>> {
    let found = conn
        .prepare_cached(
            "SELECT d.event, d.state FROM event AS e JOIN delivery AS d ON d.event = e.seq
             WHERE e.id = ?1 AND d.number = ?2",
        )?
        .query_row((id.event.as_bytes(), id.number), |row| Ok((row.get::<_, i64>(0)?, state(row, 1)?)))
        .optional()?;
    match found {
        None => Ok(None),
        Some((_, state)) if !state.is_final() => Ok(Some(None)),
        // It cannot go back, so that it is still final where the rest is read.
        Some((seq, _)) => Ok(Some(deliveries(conn, seq, id.event, Some(id.number))?.pop())),
    }
}

/// The deliveries of an event, or the one of a number. Their task objects may be large: only of the last, or of the
/// one, it is read.
fn deliveries(
    conn: &Connection,
    seq: i64,
    event: EventId,
    number: Option<u32>,
) -> rusqlite::Result<Vec<DeliveryDetail>> {
    let mut statement = conn.prepare_cached(
        "SELECT d.key, d.number, d.destination, d.state, d.upstream_id, d.attempts, d.doubt,
                d.answer_status, d.answer_finished_at, d.answer_result,
                (SELECT ready_at FROM lane AS l WHERE l.id = d.lane AND l.delivery IS NULL),
                d.sealed, EXISTS (SELECT 1 FROM sealed AS s WHERE s.delivery = d.key), t.task
         FROM delivery AS d INDEXED BY delivery_event LEFT JOIN task AS t ON t.delivery =
                (SELECT key FROM delivery AS n INDEXED BY delivery_event
                 WHERE n.event = ?1 AND n.number = coalesce(?3, n.number) ORDER BY n.number DESC LIMIT 1)
                AND t.delivery = d.key
         WHERE d.event = ?1 AND d.number = coalesce(?3, d.number) ORDER BY d.number LIMIT ?2",
    )?;
    let mut rows = statement.query((seq, DELIVERIES, number))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        let state = state(row, 3)?;
        list.push(DeliveryDetail {
            id: DeliveryId { event, number: row.get(1)? },
            destination: destination(row, 2)?,
            state,
            upstream_id: row.get(4)?,
            attempts: row.get(5)?,
            due: time(row, 10)?.filter(|_| state == State::Pending),
            doubt: time(row, 6)?,
            answer: answer(row, 7, Some(13))?,
            sealed: match (row.get(11)?, row.get(12)?) {
                (false, _) => SealedCall::None,
                (true, true) => SealedCall::Kept,
                (true, false) => SealedCall::Erased,
            },
            tries: tries(conn, row.get(0)?)?,
        });
    }
    Ok(list)
}

fn tries(conn: &Connection, delivery: i64) -> rusqlite::Result<Vec<Attempt>> {
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

/// The kept counts, by source and in the order of a delivery's life.
pub(super) fn counts(conn: &Connection) -> rusqlite::Result<Vec<Count>> {
    let mut list = conn
        .prepare_cached("SELECT source, state, count FROM counter")?
        .query_map([], |row| {
            let count: i64 = row.get(2)?;
            Ok(Count { source: row.get(0)?, state: state(row, 1)?, count: u64::try_from(count).unwrap_or(0) })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let place = |count: &Count| State::ALL.iter().position(|state| *state == count.state);
    list.sort_by(|a, b| (&a.source, place(a)).cmp(&(&b.source, place(b))));
    Ok(list)
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

/// An answer from three columns: status, end, result; the task object, where it was asked for, from one of its own.
fn answer(row: &Row<'_>, column: usize, task: Option<usize>) -> rusqlite::Result<Option<Answer>> {
    let Some(status) = row.get(column)? else { return Ok(None) };
    let task = match task {
        Some(task) => row.get::<_, Option<Vec<u8>>>(task)?.map(Bytes::from),
        None => None,
    };
    Ok(Some(Answer { status, finished_at: row.get(column + 1)?, result: row.get(column + 2)?, task }))
}

fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<State> {
    let word: String = row.get(column)?;
    State::parse(&word).ok_or_else(|| strange(column, format!("{word:?} is no state")))
}

fn destination(row: &Row<'_>, column: usize) -> rusqlite::Result<Destination> {
    row.get::<_, String>(column)?.parse().map_err(|error| strange(column, format!("{error}")))
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(|error| strange(column, error.to_string()))
}

fn strange(column: usize, cause: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, cause.into())
}
