//! Questions about what is kept. Every question goes by an index and looks at a bounded number of rows.

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use super::attempt::tries;
use super::list::summary;
use super::row::{account, answer, class, destination, json, state, time};
use super::{SqliteInbox, files, list, waiting};
use crate::inbox::bounds::SHOWN_DELIVERIES;
use crate::inbox::{
    Browse, Claimed, Count, DeliveryDetail, EventDetail, EventFilter, EventSummary, InboxError,
    Page, SealedCall, SourceFare, Turn, WaitingDelivery,
};
use crate::model::{DeliveryId, DeliveryState, Destination, EventId, Timestamp};

/// The last delivery before this one that reached the upstream under the same id.
pub(super) fn earlier_turn(conn: &Connection, claimed: &Claimed) -> rusqlite::Result<Option<Turn>> {
    conn.prepare_cached(
        "SELECT b.params, b.headers, b.body, d.answer_status, d.answer_finished_at, d.answer_result, e.id, d.number
         FROM delivery AS d INDEXED BY delivery_turn JOIN body AS b ON b.seq = d.event JOIN event AS e ON e.seq = d.event
         WHERE d.turns = 1 AND d.upstream_id = ?1 AND d.key < ?2 AND d.destination = ?3 AND d.attempts > 0
           AND d.state IN ('delivered', 'dead', 'unknown')
         ORDER BY d.key DESC LIMIT 1",
    )?
    .query_row((&claimed.upstream_id, claimed.key, claimed.destination.to_string()), |row| {
        Ok(Turn {
            id: DeliveryId { event: EventId::from_bytes(row.get(6)?), number: row.get(7)? },
            params: json(row, 0)?,
            headers: json(row, 1)?,
            body: Bytes::from(row.get::<_, Vec<u8>>(2)?),
            answer: answer(row, 3, None)?,
        })
    })
    .optional()
}

/// One event with everything known of it.
pub(super) fn event(conn: &Connection, id: EventId) -> rusqlite::Result<Option<EventDetail>> {
    let found = conn
        .prepare_cached(
            "SELECT e.seq, e.id, e.source, e.event_type, e.dedup, e.thread, e.received_at, e.filtered,
                    e.strength, e.secret, b.request_line, b.params, b.headers, b.body, e.replays, e.replayed_at
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
                replays: u64::try_from(row.get::<_, i64>(14)?).unwrap_or_default(),
                replayed_at: row.get::<_, Option<i64>>(15)?.map(Timestamp::from_millis),
                attachments: Vec::new(),
                deliveries: Vec::new(),
            };
            Ok((row.get(0)?, detail))
        })
        .optional()?;
    let Some((seq, mut detail)) = found else {
        return Ok(None);
    };
    detail.attachments = files::of_event(conn, seq)?;
    detail.deliveries = deliveries(conn, seq, id, None)?;
    detail.summary.states = detail
        .deliveries
        .iter()
        .map(|delivery| delivery.state)
        .collect();
    Ok(Some(detail))
}

/// The event of a source that has this dedup key.
pub(super) fn known(
    conn: &Connection,
    source: &str,
    dedup: &str,
) -> rusqlite::Result<Option<EventId>> {
    conn.prepare_cached(
        "SELECT id FROM event WHERE source = ?1 AND dedup = ?2 AND dedup IS NOT NULL",
    )?
    .query_row((source, dedup), |row| row.get(0).map(EventId::from_bytes))
    .optional()
}

/// One delivery where it has ended; the outer `None` if there is no such delivery, the inner one while it goes on.
pub(super) fn ended(
    conn: &Connection,
    id: DeliveryId,
) -> rusqlite::Result<Option<Option<DeliveryDetail>>> {
    let found = conn
        .prepare_cached(
            "SELECT d.event, d.state, d.leader FROM event AS e JOIN delivery AS d ON d.event = e.seq
             WHERE e.id = ?1 AND d.number = ?2",
        )?
        .query_row((id.event.as_bytes(), id.number), |row| {
            Ok((row.get::<_, i64>(0)?, state(row, 1)?, row.get::<_, Option<i64>>(2)?))
        })
        .optional()?;
    if let Some((_, DeliveryState::Merged, Some(leader))) = found {
        let leader = conn
            .prepare_cached(
                "SELECT e.id, d.number FROM delivery AS d JOIN event AS e ON e.seq = d.event WHERE d.key = ?1",
            )?
            .query_row([leader], |row| Ok(DeliveryId { event: EventId::from_bytes(row.get(0)?), number: row.get(1)? }))
            .optional()?;
        if let Some(leader) = leader {
            return ended(conn, leader);
        }
    }
    match found.map(|(seq, state, _)| (seq, state)) {
        None => Ok(None),
        Some((_, state)) if !state.is_final() => Ok(Some(None)),
        // Meanwhile an operator may have it sent again.
        Some((seq, _)) => {
            let detail = deliveries(conn, seq, id.event, Some(id.number))?.pop();
            Ok(Some(detail.filter(|detail| detail.state.is_final())))
        }
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
                d.sealed, EXISTS (SELECT 1 FROM sealed AS s WHERE s.delivery = d.key), t.task, r.account, r.class,
                d.answers
         FROM delivery AS d INDEXED BY delivery_event LEFT JOIN route AS r ON r.id = d.route LEFT JOIN task AS t ON t.delivery =
                (SELECT key FROM delivery AS n INDEXED BY delivery_event
                 WHERE n.event = ?1 AND n.number = coalesce(?3, n.number) AND (?3 IS NOT NULL OR n.answers IS NULL)
                 ORDER BY n.number DESC LIMIT 1)
                AND t.delivery = d.key
         WHERE d.event = ?1 AND d.number = coalesce(?3, d.number) ORDER BY d.number LIMIT ?2",
    )?;
    let mut rows = statement.query((seq, SHOWN_DELIVERIES, number))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        let state = state(row, 3)?;
        list.push(DeliveryDetail {
            id: DeliveryId {
                event,
                number: row.get(1)?,
            },
            destination: destination(row, 2)?,
            account: account(row, 14)?,
            class: class(row, 15)?,
            state,
            upstream_id: row.get(4)?,
            attempts: row.get(5)?,
            due: time(row, 10)?.filter(|_| state == DeliveryState::Pending),
            doubt: time(row, 6)?,
            answer: answer(row, 7, Some(13))?,
            answers: row
                .get::<_, Option<u32>>(16)?
                .map(|number| DeliveryId { event, number }),
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

/// About how much disk a source's events and files take. Bodies are measured without being read.
pub(super) fn bytes_of(conn: &Connection, source: &str) -> rusqlite::Result<u64> {
    let events =
        "SELECT coalesce(sum(octet_length(b.body) + octet_length(b.params) + octet_length(b.headers) + 1024), 0)
                  FROM event AS e INDEXED BY event_source JOIN body AS b ON b.seq = e.seq WHERE e.source = ?1";
    let files = "SELECT coalesce(sum(size), 0) FROM attachment WHERE source = ?1";
    let sum = |sql: &str| {
        conn.prepare_cached(sql)?
            .query_row([source], |row| row.get::<_, i64>(0))
    };
    Ok(u64::try_from(sum(events)?.saturating_add(sum(files)?)).unwrap_or(0))
}

pub(super) fn counts(conn: &Connection) -> rusqlite::Result<Vec<Count>> {
    let mut list = conn
        .prepare_cached("SELECT source, state, count FROM counter")?
        .query_map([], |row| {
            let count: i64 = row.get(2)?;
            Ok(Count {
                source: row.get(0)?,
                state: state(row, 1)?,
                count: u64::try_from(count).unwrap_or(0),
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let place = |count: &Count| {
        DeliveryState::ALL
            .iter()
            .position(|state| *state == count.state)
    };
    list.sort_by(|a, b| (&a.source, place(a)).cmp(&(&b.source, place(b))));
    Ok(list)
}

#[async_trait]
impl Browse for SqliteInbox {
    async fn events(&self, filter: &EventFilter) -> Result<Page<EventSummary>, InboxError> {
        let (filter, indexed) = (filter.clone(), self.search.is_some());
        self.readers
            .ask("list events", move |conn| {
                list::events(conn, &filter, indexed)
            })
            .await
    }

    async fn count(&self, filter: &EventFilter, most: u64) -> Result<u64, InboxError> {
        let (mut filter, indexed) = (filter.clone(), self.search.is_some());
        let mut count = 0;
        // A window at a time, so that others get a reader in between and the log is not held.
        while count < most {
            let (asked, left) = (filter.clone(), most - count);
            let counting = move |conn: &Connection| list::count(conn, &asked, indexed, left);
            let (more, next) = self.readers.ask("count events", counting).await?;
            count += more;
            filter.cursor = next;
            if next.is_none() {
                break;
            }
        }
        Ok(count)
    }

    async fn event(&self, id: EventId) -> Result<Option<EventDetail>, InboxError> {
        let mut found = self
            .readers
            .ask("read an event", move |conn| event(conn, id))
            .await?;
        if let Some(detail) = &mut found {
            self.codec.open_detail(detail)?;
        }
        Ok(found)
    }

    async fn between(
        &self,
        from: EventId,
        to: EventId,
        most: usize,
    ) -> Result<Vec<EventId>, InboxError> {
        self.readers
            .ask("look ids up", move |conn| {
                waiting::between(conn, from, to, most)
            })
            .await
    }

    async fn waiting(&self, events: Vec<EventId>) -> Result<Vec<WaitingDelivery>, InboxError> {
        self.readers
            .ask("look up what is waited for", move |conn| {
                waiting::of(conn, &events)
            })
            .await
    }

    async fn source_fares(&self) -> Result<Vec<SourceFare>, InboxError> {
        self.readers
            .ask("look at the sources", waiting::source_fares)
            .await
    }

    async fn destinations(&self) -> Result<Vec<Destination>, InboxError> {
        self.readers
            .ask("list destinations", waiting::destinations)
            .await
    }

    async fn counts(&self) -> Result<Vec<Count>, InboxError> {
        self.readers.ask("count", counts).await
    }
}
