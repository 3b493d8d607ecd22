//! New deliveries: their rows, column by column, and their numbers.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::database::{Counts, change, rows};
use super::error::DatabaseError;
use super::lane::lock;
use super::routes;
use crate::inbox::bounds::{MAX_TEXT, cut};
use crate::inbox::codec::Codec;
use crate::inbox::{OwedDelivery, Settlement};
use crate::model::{DeliveryId, DeliveryState, EventId, NewDelivery, Timestamp};

/// Draws new numbers for deliveries.
pub(super) const KEYS: &str = "SELECT nextval('delivery_key') FROM generate_series(1, $1)";

/// The numbers of a new delivery.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeliveryRow {
    /// Its own number.
    pub(super) key: i64,
    /// The number of its event.
    pub(super) event: i64,
    /// Its id.
    pub(super) id: DeliveryId,
    /// The number of its route.
    pub(super) route: i32,
}

/// So many new numbers, rising.
pub(super) async fn draw(
    tx: &Transaction<'_>,
    sql: &str,
    count: usize,
) -> Result<Vec<i64>, DatabaseError> {
    if count == 0 {
        return Ok(vec![]);
    }
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    let mut numbers: Vec<i64> = rows(tx, sql, &[&count])
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    numbers.sort_unstable();
    Ok(numbers)
}

/// Deliveries about to be kept, column by column.
#[derive(Debug, Default)]
pub(super) struct Owing<'a> {
    keys: Vec<i64>,
    events: Vec<i64>,
    numbers: Vec<i32>,
    routes: Vec<i32>,
    lanes: Vec<i64>,
    upstream_ids: Vec<&'a [u8]>,
    turns: Vec<bool>,
    times: Vec<i64>,
    calls: Vec<Option<&'a [u8]>>,
}

impl<'a> Owing<'a> {
    /// Adds a delivery in a lane, which is ready from a time on.
    pub(super) fn push(
        &mut self,
        row: &DeliveryRow,
        lane: i64,
        delivery: &'a NewDelivery,
        ready_at: Timestamp,
    ) {
        let &DeliveryRow {
            key,
            event: seq,
            id,
            route,
        } = row;
        self.keys.push(key);
        self.events.push(seq);
        self.numbers
            .push(i32::try_from(id.number).unwrap_or(i32::MAX));
        self.routes.push(route);
        self.lanes.push(lane);
        self.upstream_ids.push(delivery.upstream_id.as_bytes());
        // An upstream id made from the delivery itself belongs to no other: it needs no place in the index of turns.
        self.turns
            .push(id.as_uuid().to_string() != delivery.upstream_id);
        self.times.push(ready_at.millis());
        self.calls.push(delivery.sealed.as_deref());
    }

    /// Route and time of the first delivery in each lane.
    pub(super) fn first(&self) -> HashMap<i64, (i32, i64)> {
        let mut first = HashMap::new();
        for ((lane, route), time) in self.lanes.iter().zip(&self.routes).zip(&self.times) {
            first.entry(*lane).or_insert((*route, *time));
        }
        first
    }

    /// Inserts the rows.
    pub(super) async fn insert(&self, tx: &Transaction<'_>) -> Result<(), DatabaseError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let sealed: Vec<bool> = self.calls.iter().map(Option::is_some).collect();
        change(
            tx,
            "INSERT INTO delivery (key, event, number, route, lane, upstream_id, turns, sealed, state)
             SELECT n.*, 'pending' FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::integer[], $5::bigint[],
                                               $6::bytea[], $7::boolean[], $8::boolean[]) AS n",
            &[
                &self.keys,
                &self.events,
                &self.numbers,
                &self.routes,
                &self.lanes,
                &self.upstream_ids,
                &self.turns,
                &sealed,
            ],
        )
        .await?;
        let (keys, calls): (Vec<i64>, Vec<&[u8]>) = self
            .keys
            .iter()
            .zip(&self.calls)
            .filter_map(|(key, call)| Some((*key, (*call)?)))
            .unzip();
        if keys.is_empty() {
            return Ok(());
        }
        let sql =
            "INSERT INTO sealed (delivery, call) SELECT * FROM unnest($1::bigint[], $2::bytea[])";
        change(tx, sql, &[&keys, &calls]).await.map(|_| ())
    }
}

/// Deliveries of events that could not be mapped, column by column, with the reasons. They have no lane, so nothing
/// takes them up.
#[derive(Debug, Default)]
pub(super) struct HeldBack<'a> {
    keys: Vec<i64>,
    events: Vec<i64>,
    numbers: Vec<i32>,
    routes: Vec<i32>,
    upstream_ids: Vec<&'a [u8]>,
    times: Vec<i64>,
    reasons: Vec<&'a [u8]>,
}

impl<'a> HeldBack<'a> {
    /// Adds a delivery, and the reason why its event could not be mapped.
    pub(super) fn push(
        &mut self,
        row: &DeliveryRow,
        delivery: &'a NewDelivery,
        (at, why): (Timestamp, &'a str),
    ) {
        let &DeliveryRow {
            key,
            event: seq,
            id,
            route,
        } = row;
        self.keys.push(key);
        self.events.push(seq);
        self.numbers
            .push(i32::try_from(id.number).unwrap_or(i32::MAX));
        self.routes.push(route);
        self.upstream_ids.push(delivery.upstream_id.as_bytes());
        self.times.push(at.millis());
        self.reasons.push(cut(why, MAX_TEXT).as_bytes());
    }

    /// Inserts the rows.
    pub(super) async fn insert(&self, tx: &Transaction<'_>) -> Result<(), DatabaseError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        change(
            tx,
            "INSERT INTO delivery (key, event, number, route, upstream_id, lane, turns, sealed, state)
             SELECT n.*, 0, false, false, 'unmappable' FROM unnest($1::bigint[], $2::bigint[], $3::integer[],
                                                                    $4::integer[], $5::bytea[]) AS n",
            &[&self.keys, &self.events, &self.numbers, &self.routes, &self.upstream_ids],
        )
        .await?;
        change(
            tx,
            "INSERT INTO attempt (delivery, fence, number, started_at, ended_at, result, detail)
             SELECT n.key, 0, 0, n.at, n.at, $4::bytea, n.reason FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])
                AS n (key, at, reason)",
            &[&self.keys, &self.times, &self.reasons, &DeliveryState::Unmappable.as_str().as_bytes()],
        )
        .await
        .map(|_| ())
    }
}

/// Keeps new deliveries of an event, numbered from `first` on. Returns them with their keys.
pub(super) async fn owe(
    tx: &Transaction<'_>,
    counts: &mut Counts,
    (event, seq, source): (EventId, i64, &str),
    (first, to): (u32, &[NewDelivery]),
    now: Timestamp,
) -> Result<Vec<(DeliveryId, i64)>, DatabaseError> {
    let routes = routes::numbers(tx, to.iter().map(|delivery| delivery.route(source))).await?;
    let mut wanted = BTreeMap::new();
    for delivery in to {
        wanted
            .entry(delivery.lane)
            .or_insert((routes::number(&routes, source, delivery)?, now.millis()));
    }
    let lanes = lock(tx, &wanted).await?;
    let keys = draw(tx, KEYS, to.len()).await?;
    let mut owing = Owing::default();
    let mut made = Vec::with_capacity(to.len());
    for ((number, delivery), key) in (first..).zip(to).zip(keys) {
        let id = DeliveryId { event, number };
        let lane = lanes
            .get(&delivery.lane)
            .ok_or_else(|| DatabaseError::Engine("a lane is missing".into()))?;
        let row = DeliveryRow {
            key,
            event: seq,
            id,
            route: routes::number(&routes, source, delivery)?,
        };
        owing.push(&row, lane.id, delivery, now);
        counts.add(source, DeliveryState::Pending, 1);
        made.push((id, key));
    }
    owing.insert(tx).await?;
    Ok(made)
}

/// Keeps the deliveries that answer those which are settled here, and whose leases held.
pub(super) async fn owe_answers(
    tx: &Transaction<'_>,
    counts: &mut Counts,
    codec: &Codec,
    settlements: &[&Settlement],
) -> Result<(), DatabaseError> {
    for settlement in settlements {
        // A record that cannot be read has no name, and no answer.
        if let Some(answered) = settlement.id.filter(|_| !settlement.owes.is_empty()) {
            let now = settlement.attempt.ended_at;
            owe_to(tx, counts, codec, answered, &settlement.owes, now).await?;
        }
    }
    Ok(())
}

async fn owe_to(
    tx: &Transaction<'_>,
    counts: &mut Counts,
    codec: &Codec,
    answered: DeliveryId,
    owed: &[OwedDelivery],
    now: Timestamp,
) -> Result<(), DatabaseError> {
    // Its row is locked, so that nobody else draws numbers for deliveries of the event meanwhile.
    let name = Uuid::from_bytes(*answered.event.as_bytes());
    let sql = "SELECT seq, source FROM event WHERE id = $1 FOR UPDATE";
    let found = rows(tx, sql, &[&name]).await?;
    let Some(event) = found.first() else {
        return Ok(());
    };
    let (seq, source): (i64, String) = (event.try_get(0)?, event.try_get(1)?);
    let sql = "SELECT max(number) + 1 FROM delivery WHERE event = $1";
    let first = rows(tx, sql, &[&seq]).await?;
    let first: i32 = first.first().map_or(Ok(0), |row| row.try_get(0))?;
    let first = u32::try_from(first).unwrap_or_default();
    let to: Vec<NewDelivery> = owed.iter().map(|owed| owed.delivery.clone()).collect();
    let made = owe(
        tx,
        counts,
        (answered.event, seq, &source),
        (first, &to),
        now,
    )
    .await?;
    let mut payloads = Vec::with_capacity(made.len());
    for ((id, _), owed) in made.iter().zip(owed) {
        payloads.push(closed(codec, *id, &owed.payload)?);
    }
    let keys: Vec<i64> = made.iter().map(|(_, key)| *key).collect();
    let number = i32::try_from(answered.number).unwrap_or(i32::MAX);
    let sql = "UPDATE delivery SET answers = $2 WHERE (key + 0) = ANY ($1)";
    change(tx, sql, &[&keys, &number]).await?;
    let payloads: Vec<&[u8]> = payloads.iter().map(AsRef::as_ref).collect();
    let sql =
        "INSERT INTO payload (delivery, payload) SELECT * FROM unnest($1::bigint[], $2::bytea[])";
    change(tx, sql, &[&keys, &payloads]).await.map(|_| ())
}

/// Writes how far deliveries that answer others have come. Other deliveries have no payload.
pub(super) async fn write_payloads(
    tx: &Transaction<'_>,
    codec: &Codec,
    settlements: &[&Settlement],
) -> Result<(), DatabaseError> {
    let (mut keys, mut payloads) = (Vec::new(), Vec::new());
    for settlement in settlements {
        if let (Some(id), Some(payload)) = (settlement.id, &settlement.progress) {
            keys.push(settlement.key);
            payloads.push(closed(codec, id, payload)?);
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let payloads: Vec<&[u8]> = payloads.iter().map(AsRef::as_ref).collect();
    let sql = "UPDATE payload AS p SET payload = n.payload
               FROM unnest($1::bigint[], $2::bytea[]) AS n (delivery, payload) WHERE p.delivery = n.delivery";
    change(tx, sql, &[&keys, &payloads]).await.map(|_| ())
}

fn closed<'a>(
    codec: &Codec,
    id: DeliveryId,
    payload: &'a Bytes,
) -> Result<Cow<'a, [u8]>, DatabaseError> {
    codec
        .close_payload(id, payload)
        .map_err(|error| DatabaseError::Engine(error.to_string()))
}
