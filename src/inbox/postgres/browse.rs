//! Questions about what is kept, apart from lists of events.

use async_trait::async_trait;
use bytes::Bytes;
use deadpool_postgres::{Client, Transaction};
use uuid::Uuid;

use super::attempt::tries;
use super::database::rows;
use super::error::DatabaseError;
use super::list::{state, summary};
use super::row::{answer, delivery_id, json, text, time};
use super::{PostgresInbox, files, list, routes, waiting};
use crate::inbox::bounds::SHOWN_DELIVERIES;
use crate::inbox::{
    Browse, Claimed, Count, DeliveryDetail, EventDetail, EventFilter, EventSummary, InboxError,
    Page, SealedCall, SourceFare, Turn, WaitingDelivery,
};
use crate::model::{DeliveryId, DeliveryState, Destination, EventId, Timestamp};

/// The last delivery before this one that reached the upstream under the same id.
pub(super) async fn earlier_turn(
    conn: &mut Client,
    claimed: &Claimed,
) -> Result<Option<Turn>, DatabaseError> {
    let tx = conn.transaction().await?;
    let found = rows(
        &tx,
        "SELECT b.params, b.headers, b.body, d.answer_status, d.answer_finished_at, d.answer_result, e.id, d.number
         FROM delivery AS d JOIN route AS r ON r.id = d.route JOIN body AS b ON b.seq = d.event
            JOIN event AS e ON e.seq = d.event
         WHERE d.turns AND d.upstream_id = $1 AND (d.key + 0) < $2 AND r.destination = $3 AND d.attempts > 0
            AND d.state || '' IN ('delivered', 'dead', 'unknown')
         ORDER BY (d.key + 0) DESC LIMIT 1",
        &[&claimed.upstream_id.as_bytes(), &claimed.key, &claimed.destination.to_string()],
    )
    .await?;
    let Some(row) = found.first() else {
        return Ok(None);
    };
    Ok(Some(Turn {
        id: delivery_id(row, 6, 7)?,
        params: json(row, 0)?,
        headers: json(row, 1)?,
        body: Bytes::from(row.try_get::<_, Vec<u8>>(2)?),
        answer: answer(row, 3, None)?,
    }))
}

/// One event with everything known of it.
pub(super) async fn event(
    conn: &mut Client,
    id: EventId,
) -> Result<Option<EventDetail>, DatabaseError> {
    let tx = conn.transaction().await?;
    let found = rows(
        &tx,
        "SELECT e.seq, e.id, e.source, e.event_type, e.dedup, e.thread, e.received_at, e.filtered,
                e.strength, e.secret, b.request_line, b.params, b.headers, b.body, e.replays, e.replayed_at
         FROM event AS e JOIN body AS b ON b.seq = e.seq WHERE e.id = $1",
        &[&Uuid::from_bytes(*id.as_bytes())],
    )
    .await?;
    let Some(row) = found.first() else {
        return Ok(None);
    };
    let mut detail = EventDetail {
        summary: summary(row)?,
        strength: row.try_get(8)?,
        secret: row.try_get(9)?,
        request_line: text(row, 10)?.unwrap_or_default(),
        params: json(row, 11)?,
        headers: json(row, 12)?,
        body: Bytes::from(row.try_get::<_, Vec<u8>>(13)?),
        replays: u64::try_from(row.try_get::<_, i64>(14)?).unwrap_or_default(),
        replayed_at: row
            .try_get::<_, Option<i64>>(15)?
            .map(Timestamp::from_millis),
        attachments: files::of_events(&tx, &[row.try_get(0)?])
            .await?
            .into_values()
            .flatten()
            .collect(),
        deliveries: deliveries(&tx, row.try_get(0)?, id, None).await?,
    };
    detail.summary.states = detail
        .deliveries
        .iter()
        .map(|delivery| delivery.state)
        .collect();
    Ok(Some(detail))
}

/// State of a delivery whose end is waited for.
#[derive(Debug)]
pub(super) enum DeliveryEnd {
    /// There is no delivery of that name.
    Nothing,
    /// It goes on.
    NotYet,
    /// It went with another, which goes on.
    With(DeliveryId),
    /// It has ended.
    Is(Box<DeliveryDetail>),
}

/// The event of a source that has this dedup key.
pub(super) async fn known(
    conn: &mut Client,
    source: &str,
    dedup: &str,
) -> Result<Option<EventId>, DatabaseError> {
    let tx = conn.transaction().await?;
    let found = rows(
        &tx,
        "SELECT id FROM event WHERE source = $1 AND dedup = $2 AND dedup IS NOT NULL",
        &[&source, &dedup.as_bytes()],
    )
    .await?;
    let Some(row) = found.first() else {
        return Ok(None);
    };
    Ok(Some(EventId::from_bytes(
        *row.try_get::<_, Uuid>(0)?.as_bytes(),
    )))
}

/// Reads whether a delivery has ended, or the one that it went with.
pub(super) async fn ended(conn: &mut Client, id: DeliveryId) -> Result<DeliveryEnd, DatabaseError> {
    let tx = conn.transaction().await?;
    let number = i32::try_from(id.number).unwrap_or(i32::MAX);
    let found = rows(
        &tx,
        "SELECT d.event, d.state, l.state, le.id, l.number, l.event FROM event AS e JOIN delivery AS d ON d.event = e.seq
            LEFT JOIN delivery AS l ON d.state = 'merged' AND (l.key + 0) = d.leader
            LEFT JOIN event AS le ON le.seq = l.event
         WHERE e.id = $1 AND d.number = $2",
        &[&Uuid::from_bytes(*id.event.as_bytes()), &number],
    )
    .await?;
    let Some(row) = found.first() else {
        return Ok(DeliveryEnd::Nothing);
    };
    if !state(row, 1)?.is_final() {
        return Ok(DeliveryEnd::NotYet);
    }
    if row.try_get::<_, Option<&str>>(2)?.is_some() && !state(row, 2)?.is_final() {
        return Ok(DeliveryEnd::With(delivery_id(row, 3, 4)?));
    }
    // One that was merged ends as the one it went with did. It cannot go back, so that it is still final where the
    // rest is read.
    let (event, name, number) = if row.try_get::<_, Option<&str>>(2)?.is_some() {
        let leader = delivery_id(row, 3, 4)?;
        (
            row.try_get(5)?,
            leader.event,
            i32::try_from(leader.number).unwrap_or(i32::MAX),
        )
    } else {
        (row.try_get(0)?, id.event, number)
    };
    let detail = deliveries(&tx, event, name, Some(number)).await?.pop();
    Ok(detail.map_or(DeliveryEnd::Nothing, |detail| {
        DeliveryEnd::Is(Box::new(detail))
    }))
}

/// The deliveries of an event, or the one of a number. Their task objects may be large: only of the last, or of the
/// one, it is read.
async fn deliveries(
    tx: &Transaction<'_>,
    seq: i64,
    event: EventId,
    number: Option<i32>,
) -> Result<Vec<DeliveryDetail>, DatabaseError> {
    let found = rows(
        tx,
        "SELECT d.key, d.number, r.destination, d.state, d.upstream_id, d.attempts, d.doubt,
                d.answer_status, d.answer_finished_at, d.answer_result,
                (SELECT l.ready_at FROM lane AS l WHERE l.id = d.lane AND l.delivery IS NULL),
                d.sealed, EXISTS (SELECT FROM sealed AS s WHERE s.delivery = d.key),
                (SELECT t.task FROM task AS t WHERE t.delivery = d.key AND d.number =
                    (SELECT max(n.number) FROM delivery AS n
                     WHERE n.event = $1 AND CASE WHEN $3::integer IS NULL THEN n.answers IS NULL ELSE n.number = $3 END)),
                r.account, r.class, d.answers
         FROM delivery AS d JOIN route AS r ON r.id = d.route
         WHERE d.event = $1 AND ($3::integer IS NULL OR d.number = $3) ORDER BY d.number LIMIT $2",
        &[&seq, &SHOWN_DELIVERIES, &number],
    )
    .await?;
    let mut list = Vec::with_capacity(found.len());
    for row in &found {
        let state = state(row, 3)?;
        let number: i32 = row.try_get(1)?;
        let destination: &str = row.try_get(2)?;
        list.push(DeliveryDetail {
            id: DeliveryId {
                event,
                number: u32::try_from(number).unwrap_or_default(),
            },
            destination: destination
                .parse()
                .map_err(|error| DatabaseError::Engine(format!("{error}")))?,
            account: routes::account(row, 14)?,
            class: routes::class(row, 15)?,
            state,
            upstream_id: text(row, 4)?.unwrap_or_default(),
            attempts: u32::try_from(row.try_get::<_, i32>(5)?).unwrap_or_default(),
            due: time(row, 10)?.filter(|_| state == DeliveryState::Pending),
            doubt: time(row, 6)?,
            answer: answer(row, 7, Some(13))?,
            answers: row.try_get::<_, Option<i32>>(16)?.map(|number| DeliveryId {
                event,
                number: u32::try_from(number).unwrap_or_default(),
            }),
            sealed: match (row.try_get(11)?, row.try_get(12)?) {
                (false, _) => SealedCall::None,
                (true, true) => SealedCall::Kept,
                (true, false) => SealedCall::Erased,
            },
            tries: tries(tx, row.try_get(0)?).await?,
        });
    }
    Ok(list)
}

/// About how much disk a source's events and files take.
pub(super) async fn bytes_of(conn: &mut Client, source: &str) -> Result<u64, DatabaseError> {
    let tx = conn.transaction().await?;
    let found = rows(
        &tx,
        "SELECT (coalesce((SELECT sum(bytes) FROM event WHERE source = $1), 0)
               + coalesce((SELECT sum(size) FROM attachment WHERE source = $1), 0))::bigint",
        &[&source],
    )
    .await?;
    tx.commit().await?;
    let bytes = found
        .first()
        .map(|row| row.try_get::<_, i64>(0))
        .transpose()?;
    Ok(u64::try_from(bytes.unwrap_or_default()).unwrap_or(0))
}

pub(super) async fn counts(conn: &mut Client) -> Result<Vec<Count>, DatabaseError> {
    let tx = conn.transaction().await?;
    let found = rows(
        &tx,
        "SELECT source, state, sum(count)::bigint FROM counter WHERE source <> '' GROUP BY source, state",
        &[],
    )
    .await?;
    let mut list = Vec::with_capacity(found.len());
    for row in &found {
        let count = u64::try_from(row.try_get::<_, i64>(2)?).unwrap_or(0);
        list.push(Count {
            source: row.try_get(0)?,
            state: state(row, 1)?,
            count,
        });
    }
    let place = |count: &Count| {
        DeliveryState::ALL
            .iter()
            .position(|state| *state == count.state)
    };
    list.sort_by(|a, b| (&a.source, place(a)).cmp(&(&b.source, place(b))));
    Ok(list)
}

#[async_trait]
impl Browse for PostgresInbox {
    async fn events(&self, filter: &EventFilter) -> Result<Page<EventSummary>, InboxError> {
        let indexed = self.options.search;
        reading!(self, "list events", |conn| list::events(
            conn, filter, indexed
        ))
    }

    async fn count(&self, filter: &EventFilter, most: u64) -> Result<u64, InboxError> {
        let indexed = self.options.search;
        reading!(self, "count events", |conn| list::count(
            conn, filter, indexed, most
        ))
    }

    async fn event(&self, id: EventId) -> Result<Option<EventDetail>, InboxError> {
        let mut found = reading!(self, "read an event", |conn| event(conn, id))?;
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
        reading!(self, "look ids up", |conn| waiting::between(
            conn, from, to, most
        ))
    }

    async fn waiting(&self, events: Vec<EventId>) -> Result<Vec<WaitingDelivery>, InboxError> {
        reading!(self, "look up what is waited for", |conn| waiting::of(
            conn, &events
        ))
    }

    async fn source_fares(&self) -> Result<Vec<SourceFare>, InboxError> {
        reading!(self, "look at the sources", |conn| waiting::source_fares(
            conn
        ))
    }

    async fn destinations(&self) -> Result<Vec<Destination>, InboxError> {
        reading!(self, "list destinations", |conn| waiting::destinations(
            conn
        ))
    }

    async fn counts(&self) -> Result<Vec<Count>, InboxError> {
        reading!(self, "count", |conn| counts(conn))
    }
}
