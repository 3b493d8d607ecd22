//! Keeping events and what they owe, in batches; owing an event again.
//!
//! A batch is one transaction, in an order that lets several writers work side by side: first the lanes are locked, in
//! order of name; then come the events, in order of key; then all that hangs on them; the counters last. The numbers of
//! deliveries are drawn while their lanes are locked, so that in a lane their order is that of the commits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use bytes::Bytes;
use deadpool_postgres::{Client, Transaction};
use futures_util::future::try_join_all;
use futures_util::{FutureExt as _, TryFutureExt as _};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::database::{Counts, change, rows};
use super::error::DatabaseError;
use super::proof::{self, Played};
use super::settle::MAX_TEXT;
use super::{attachment, routes};
use crate::inbox::{Anew, InboxError, Replayed, cut};
use crate::model::{
    Accepted, DeliveryId, DeliveryState, EventId, NewDelivery, NewEvent, Route, Timestamp,
};

/// What rows and their places in indexes need beside what is in them, about.
const OVERHEAD: usize = 1024;

/// New numbers for events, and for deliveries.
const SEQS: &str = "SELECT nextval('event_seq') FROM generate_series(1, $1)";
const KEYS: &str = "SELECT nextval('delivery_key') FROM generate_series(1, $1)";

/// An event with its lists written out, which is done before a writer has it.
#[derive(Debug)]
pub(super) struct Record {
    event: NewEvent,
    params: Vec<u8>,
    headers: Vec<u8>,
}

impl Record {
    /// Writes the lists out.
    pub(super) fn new(event: NewEvent) -> Result<Self, InboxError> {
        let unwritable = |error: serde_json::Error| InboxError::Record(error.to_string());
        let params = serde_json::to_vec(&event.params).map_err(unwritable)?;
        let headers = serde_json::to_vec(&event.headers).map_err(unwritable)?;
        Ok(Self {
            event,
            params,
            headers,
        })
    }

    /// About how much of the disk it needs.
    pub(super) fn bytes(&self) -> usize {
        let sealed = self
            .event
            .deliveries
            .iter()
            .filter_map(|delivery| delivery.sealed.as_ref().map(Bytes::len));
        self.event.body.len()
            + self.params.len()
            + self.headers.len()
            + self.event.request_line.len()
            + sealed.sum::<usize>()
            + OVERHEAD
    }
}

/// The events of one request: all of them are kept, or none.
#[derive(Debug)]
pub(super) struct RequestRecords(Vec<Record>);

impl RequestRecords {
    /// Writes the lists out.
    pub(super) fn new(events: Vec<NewEvent>) -> Result<Self, InboxError> {
        events
            .into_iter()
            .map(Record::new)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// About how much of the disk they need.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(Record::bytes).sum()
    }

    /// Their names.
    pub(super) fn ids(&self) -> impl Iterator<Item = EventId> + '_ {
        self.0.iter().map(|record| record.event.id)
    }
}

/// Keeps what can be kept of a batch of requests, in one transaction, and says of each event what became of it.
pub(super) async fn keep(
    conn: &mut Client,
    slot: i32,
    requests: &[&RequestRecords],
) -> Result<Vec<Vec<Accepted>>, DatabaseError> {
    let batch: Vec<&Record> = requests.iter().flat_map(|together| &together.0).collect();
    let mut from = 0;
    let spans: Vec<Range<usize>> = requests
        .iter()
        .map(|together| {
            let span = from..from + together.0.len();
            from = span.end;
            span
        })
        .collect();
    let answers = keep_batch(conn, slot, &batch, &spans).await?;
    Ok(spans
        .into_iter()
        .map(|span| answers[span].to_vec())
        .collect())
}

/// A span is the places of the events of one request.
async fn keep_batch(
    conn: &mut Client,
    slot: i32,
    batch: &[&Record],
    spans: &[Range<usize>],
) -> Result<Vec<Accepted>, DatabaseError> {
    let events: Vec<&NewEvent> = batch.iter().map(|record| &record.event).collect();
    let tx = conn.transaction().await?;
    let routes = routes::numbers(&tx, events.iter().flat_map(|event| event_routes(event))).await?;
    let lanes = lock_lanes(&tx, &events, &routes).await?;
    let used = proof::used(&tx, &events).await?;
    let mut played = used.played(&events);
    let mut verdicts = judge(&tx, &events, spans, &played, &lanes, &routes).await?;
    for span in spans {
        let Some(replayed) = played.get(span.start).copied().flatten() else {
            continue;
        };
        for (verdict, played) in verdicts[span.clone()]
            .iter_mut()
            .zip(&mut played[span.clone()])
        {
            // The proof of the first is that of the request: an item that was put into it is no news.
            played.get_or_insert(replayed);
            // One that came before is that first, whatever keeps its lane busy or its source behind.
            if matches!(verdict, Some(Accepted::Busy | Accepted::Behind)) {
                *verdict = None;
            }
        }
    }
    let open = |place: &usize| verdicts[*place].is_none() && played[*place].is_none();
    let chosen: Vec<usize> = (0..events.len()).filter(open).collect();
    let owed = chosen
        .iter()
        .map(|place| events[*place].deliveries.len())
        .sum();
    let (seqs, keys) = tokio::try_join!(draw(&tx, SEQS, chosen.len()), draw(&tx, KEYS, owed))?;
    let fresh = insert_events(&tx, batch, &chosen, &seqs).await?;

    let mut answers = verdicts;
    let mut kept = Vec::new();
    let mut known_ones = Vec::new();
    for (place, seq) in chosen.into_iter().zip(seqs) {
        if fresh.contains_key(&seq) {
            answers[place] = Some(Accepted::New);
            kept.push((batch[place], seq));
        } else {
            known_ones.push(place);
        }
    }
    let found = known(&tx, known_ones.iter().map(|place| events[*place])).await?;
    for (place, id) in known_ones.into_iter().zip(found) {
        // Gone again since: a sweep was quicker.
        let id = id.ok_or_else(|| {
            DatabaseError::Again("an event was removed while a copy of it came in".into())
        })?;
        answers[place] = Some(Accepted::Duplicate(id));
    }
    let again: Vec<usize> = (0..events.len())
        .filter(|place| answers[*place].is_none() && played[*place].is_some())
        .collect();
    let found = known(&tx, again.iter().map(|place| events[*place])).await?;
    for (place, known) in again.into_iter().zip(found) {
        answers[place] = match (known, played[place]) {
            (Some(id), _) => Some(Accepted::Duplicate(id)),
            (None, Some(Played::By(id))) => Some(Accepted::Replayed(id)),
            // What used the proof was passed on: there is no event to name.
            (None, Some(Played::PassedOn)) => Some(Accepted::Replayed(events[place].id)),
            (None, Some(Played::With(first))) => after(&events, &answers, first, place),
            (None, None) => None,
        };
    }

    let mut counts = Counts::default();
    let (mut owing, mut held_back) = (Owing::default(), HeldBack::default());
    let mut keys = keys.into_iter();
    for (record, seq) in &kept {
        let event = &record.event;
        counts.add_bytes(i64::try_from(record.bytes()).unwrap_or(i64::MAX));
        for ((number, delivery), key) in (0..).zip(&event.deliveries).zip(&mut keys) {
            let id = DeliveryId {
                event: event.id,
                number,
            };
            let route = routes::number(&routes, &event.source, delivery)?;
            if let Some(why) = &event.unmappable {
                held_back.push(key, *seq, id, route, delivery, (event.received_at, why));
                counts.add(&event.source, DeliveryState::Unmappable, 1);
                continue;
            }
            let lane = lanes
                .get(&delivery.lane)
                .ok_or_else(|| DatabaseError::Engine("a lane is missing".into()))?;
            owing.push(key, *seq, id, lane.id, route, delivery, event.received_at);
            counts.add(&event.source, DeliveryState::Pending, 1);
        }
    }
    let (made, first) = (lanes.values().filter(|lane| lane.made), owing.first());
    // A lane made for an event that is a double after all.
    let idle: Vec<i64> = made
        .clone()
        .map(|lane| lane.id)
        .filter(|id| !first.contains_key(id))
        .collect();
    let moved: Vec<(i64, i32, i64)> = made
        .filter_map(|lane| {
            let (route, ready_at) = first.get(&lane.id)?;
            ((lane.route, lane.ready_at) != (*route, *ready_at))
                .then_some((lane.id, *route, *ready_at))
        })
        .collect();
    let mut files = attachment::Rows::default();
    for (record, seq) in &kept {
        files.add(Some(*seq), &record.event.source, &record.event.attachments);
    }
    try_join_all([
        insert_bodies(&tx, &kept).boxed(),
        files.insert(&tx).boxed(),
        owing.insert(&tx).boxed(),
        held_back.insert(&tx).boxed(),
        remove_lanes(&tx, &idle).boxed(),
        move_lanes(&tx, &moved).boxed(),
    ])
    .await?;
    used.write(
        &tx,
        &events,
        &answers,
        &kept
            .iter()
            .map(|(record, seq)| (record.event.id, *seq))
            .collect(),
    )
    .await?;
    counts.write(&tx, slot).await?;
    tx.commit().await?;
    answers
        .into_iter()
        .map(|answer| answer.ok_or_else(|| DatabaseError::Engine("an event has no answer".into())))
        .collect()
}

/// What is said to an event that has its proof from an earlier one of its batch.
fn after(
    events: &[&NewEvent],
    answers: &[Option<Accepted>],
    first: usize,
    place: usize,
) -> Option<Accepted> {
    let is_double = events[place].dedup.is_some() && events[place].dedup == events[first].dedup;
    Some(match answers[first]? {
        Accepted::New if is_double => Accepted::Duplicate(events[first].id),
        Accepted::New => Accepted::Replayed(events[first].id),
        Accepted::Duplicate(id) | Accepted::Replayed(id) if is_double => Accepted::Duplicate(id),
        Accepted::Duplicate(id) | Accepted::Replayed(id) => Accepted::Replayed(id),
        turned_away @ (Accepted::Busy | Accepted::Behind) => turned_away,
    })
}

fn event_routes(event: &NewEvent) -> impl Iterator<Item = Route> + '_ {
    event
        .deliveries
        .iter()
        .map(|delivery| delivery.route(&event.source))
}

/// A lane that is locked.
#[derive(Clone, Copy, Debug)]
struct Locked {
    id: i64,
    /// Whether it had no work before.
    made: bool,
    route: i32,
    ready_at: i64,
}

/// Locks the lanes of a batch, in order, and makes those that have no work yet. A lane that waits for a later try goes
/// on waiting.
async fn lock_lanes(
    tx: &Transaction<'_>,
    events: &[&NewEvent],
    routes: &HashMap<Route, i32>,
) -> Result<HashMap<Uuid, Locked>, DatabaseError> {
    let mut wanted = BTreeMap::new();
    for event in events.iter().filter(|event| event.unmappable.is_none()) {
        for delivery in &event.deliveries {
            let route = routes::number(routes, &event.source, delivery)?;
            wanted
                .entry(delivery.lane)
                .or_insert((route, event.received_at.millis()));
        }
    }
    lock(tx, &wanted).await
}

async fn lock(
    tx: &Transaction<'_>,
    wanted: &BTreeMap<Uuid, (i32, i64)>,
) -> Result<HashMap<Uuid, Locked>, DatabaseError> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let names: Vec<Uuid> = wanted.keys().copied().collect();
    let routes: Vec<i32> = wanted.values().map(|(route, _)| *route).collect();
    let times: Vec<i64> = wanted.values().map(|(_, ready_at)| *ready_at).collect();
    let found = rows(
        tx,
        "INSERT INTO lane AS l (lane, route, ready_at)
         SELECT n.lane, n.route, n.ready_at FROM unnest($1::uuid[], $2::integer[], $3::bigint[])
            AS n (lane, route, ready_at) ORDER BY n.lane
         ON CONFLICT (lane) DO UPDATE SET lane = excluded.lane
         RETURNING l.lane, l.id, l.xmax = 0, l.route, l.ready_at",
        &[&names, &routes, &times],
    )
    .await?;
    let lane = |row: &tokio_postgres::Row| -> Result<(Uuid, Locked), DatabaseError> {
        let locked = Locked {
            id: row.try_get(1)?,
            made: row.try_get(2)?,
            route: row.try_get(3)?,
            ready_at: row.try_get(4)?,
        };
        Ok((row.try_get(0)?, locked))
    };
    found.iter().map(lane).collect()
}

/// Says which events are turned away, being known or having too much ahead of them. Only asked where one of the batch
/// minds what is ahead of it. The events of one request do not stand in each other's way, and are turned away together.
async fn judge(
    tx: &Transaction<'_>,
    events: &[&NewEvent],
    spans: &[Range<usize>],
    played: &[Option<Played>],
    lanes: &HashMap<Uuid, Locked>,
    routes: &HashMap<Route, i32>,
) -> Result<Vec<Option<Accepted>>, DatabaseError> {
    let mut verdicts = vec![None; events.len()];
    if events
        .iter()
        .all(|event| event.most_ahead.is_none() && event.backlog.is_none())
    {
        return Ok(verdicts);
    }
    let mut behind = BacklogCheck::look(tx, events, routes).await?;
    let mut limits: HashMap<i64, i64> = HashMap::new();
    for event in events {
        let Some(most) = event.most_ahead else {
            continue;
        };
        for lane in event
            .deliveries
            .iter()
            .filter_map(|delivery| lanes.get(&delivery.lane))
        {
            let limit = limits.entry(lane.id).or_default();
            *limit = (*limit).max(i64::from(most) + 1);
        }
    }
    let (known, mut ahead) =
        tokio::try_join!(known(tx, events.iter().copied()), ahead(tx, &limits))?;
    let mut first: HashMap<(&str, &str), EventId> = HashMap::new();
    for span in spans {
        let mut turned_away = None;
        let mut fresh = Vec::new();
        for place in span.clone() {
            let event = events[place];
            let key = event
                .dedup
                .as_deref()
                .map(|dedup| (event.source.as_str(), dedup));
            // A double of the one that keeps the lane busy is a double first.
            if let Some(id) = known[place].or_else(|| first.get(&key?).copied()) {
                verdicts[place] = Some(Accepted::Duplicate(id));
                continue;
            }
            let of_event = event
                .deliveries
                .iter()
                .filter_map(|delivery| lanes.get(&delivery.lane));
            let most = event.most_ahead.map(i64::from);
            // What an earlier item of a list says of its proof says nothing of the lane.
            let minds = span.len() == 1 || played[place].is_none();
            if minds
                && most.is_some_and(|most| {
                    of_event
                        .clone()
                        .any(|lane| ahead.get(&lane.id).is_some_and(|n| *n > most))
                })
            {
                turned_away = turned_away.or(Some(Accepted::Busy));
            } else if minds && behind.is_behind(event, routes)? {
                turned_away = turned_away.or(Some(Accepted::Behind));
            }
            fresh.push((key, event, of_event));
        }
        if turned_away.is_some() {
            verdicts[span.clone()].fill(turned_away);
            continue;
        }
        for (key, event, lanes) in fresh {
            if let Some(key) = key {
                first.entry(key).or_insert(event.id);
            }
            behind.add(event);
            for lane in lanes {
                *ahead.entry(lane.id).or_default() += 1;
            }
        }
    }
    Ok(verdicts)
}

/// What waits of the sources of a batch that have a bound on it.
#[derive(Default)]
struct BacklogCheck {
    waiting: HashMap<String, i64>,
    oldest: HashMap<i32, Timestamp>,
}

impl BacklogCheck {
    async fn look(
        tx: &Transaction<'_>,
        events: &[&NewEvent],
        routes: &HashMap<Route, i32>,
    ) -> Result<Self, DatabaseError> {
        let bounded = || events.iter().filter(|event| event.backlog.is_some());
        let sources: BTreeSet<&str> = bounded().map(|event| event.source.as_str()).collect();
        if sources.is_empty() {
            return Ok(Self::default());
        }
        let sources: Vec<&str> = sources.into_iter().collect();
        let mut numbers = BTreeSet::new();
        for event in bounded() {
            for delivery in &event.deliveries {
                numbers.insert(routes::number(routes, &event.source, delivery)?);
            }
        }
        let numbers: Vec<i32> = numbers.into_iter().collect();
        let waiting = "SELECT source, sum(count)::bigint FROM counter WHERE source = ANY($1) AND state = 'pending'
                       GROUP BY source";
        let oldest = "SELECT n.route, l.ready_at FROM unnest($1::integer[]) AS n (route)
                        CROSS JOIN LATERAL (SELECT l.ready_at FROM lane AS l
                            WHERE l.delivery IS NULL AND l.route = n.route ORDER BY l.ready_at, l.id LIMIT 1) AS l";
        let waiting = rows(tx, waiting, &[&sources]).await?;
        let oldest = rows(tx, oldest, &[&numbers]).await?;
        let time = |row: &tokio_postgres::Row| {
            Ok((row.try_get(0)?, Timestamp::from_millis(row.try_get(1)?)))
        };
        Ok(Self {
            waiting: waiting
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect::<Result<_, DatabaseError>>()?,
            oldest: oldest
                .iter()
                .map(time)
                .collect::<Result<_, DatabaseError>>()?,
        })
    }

    /// Whether it is to be turned away.
    fn is_behind(
        &self,
        event: &NewEvent,
        routes: &HashMap<Route, i32>,
    ) -> Result<bool, DatabaseError> {
        let (Some(backlog), Some(first)) = (event.backlog, event.deliveries.first()) else {
            return Ok(false);
        };
        let waiting = self.waiting.get(&event.source).copied().unwrap_or_default();
        if backlog
            .most
            .is_some_and(|most| waiting >= i64::try_from(most).unwrap_or(i64::MAX))
        {
            return Ok(true);
        }
        let oldest = self
            .oldest
            .get(&routes::number(routes, &event.source, first)?);
        let late = |age| oldest.is_some_and(|oldest| event.received_at.since(*oldest) > age);
        Ok(backlog.age.is_some_and(late))
    }

    /// It waits with the others.
    fn add(&mut self, event: &NewEvent) {
        if event.backlog.is_some() {
            *self.waiting.entry(event.source.clone()).or_default() +=
                i64::try_from(event.deliveries.len()).unwrap_or(i64::MAX);
        }
    }
}

/// How many deliveries wait or are in flight in each lane, counted up to a limit.
async fn ahead(
    tx: &Transaction<'_>,
    limits: &HashMap<i64, i64>,
) -> Result<HashMap<i64, i64>, DatabaseError> {
    let (lanes, limits): (Vec<i64>, Vec<i64>) = limits.iter().unzip();
    let found = rows(
        tx,
        "SELECT n.lane, (SELECT count(*) FROM (SELECT FROM delivery AS d
                            WHERE d.lane = n.lane AND d.state IN ('pending', 'leased') LIMIT n.most) AS w)
         FROM unnest($1::bigint[], $2::bigint[]) AS n (lane, most)",
        &[&lanes, &limits],
    )
    .await?;
    found
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// The first one's id, of each. An id that is there itself is a commit whose answer was lost.
async fn known<'a>(
    tx: &Transaction<'_>,
    events: impl Iterator<Item = &'a NewEvent>,
) -> Result<Vec<Option<EventId>>, DatabaseError> {
    let (mut sources, mut keys, mut ids) = (vec![], vec![], vec![]);
    for event in events {
        sources.push(event.source.as_str());
        keys.push(event.dedup.as_deref().map(str::as_bytes));
        ids.push(Uuid::from_bytes(*event.id.as_bytes()));
    }
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let found = rows(
        tx,
        "SELECT coalesce(
            (SELECT e.id FROM event AS e WHERE e.source = n.source AND e.dedup = n.dedup AND e.dedup IS NOT NULL),
            (SELECT e.id FROM event AS e WHERE e.id = n.id))
         FROM unnest($1::text[], $2::bytea[], $3::uuid[]) WITH ORDINALITY AS n (source, dedup, id, place)
         ORDER BY n.place",
        &[&sources, &keys, &ids],
    )
    .await?;
    let id = |row: &tokio_postgres::Row| -> Result<Option<EventId>, DatabaseError> {
        Ok(row
            .try_get::<_, Option<Uuid>>(0)?
            .map(|id| EventId::from_bytes(id.into_bytes())))
    };
    found.iter().map(id).collect()
}

/// So many new numbers, rising.
async fn draw(tx: &Transaction<'_>, sql: &str, count: usize) -> Result<Vec<i64>, DatabaseError> {
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

/// Inserts those events of a batch that stand there neither by id nor by source and key. In order of key, so that two
/// batches with the same keys do not wait for each other. Returns the numbers that were inserted.
async fn insert_events(
    tx: &Transaction<'_>,
    batch: &[&Record],
    chosen: &[usize],
    seqs: &[i64],
) -> Result<HashMap<i64, ()>, DatabaseError> {
    if chosen.is_empty() {
        return Ok(HashMap::new());
    }
    let of = || chosen.iter().map(|place| &batch[*place].event);
    let ids: Vec<Uuid> = of()
        .map(|event| Uuid::from_bytes(*event.id.as_bytes()))
        .collect();
    let times: Vec<i64> = of().map(|event| event.received_at.millis()).collect();
    let bytes: Vec<i64> = chosen
        .iter()
        .map(|place| i64::try_from(batch[*place].bytes()).unwrap_or(i64::MAX))
        .collect();
    let sources: Vec<&str> = of().map(|event| event.source.as_str()).collect();
    let keys: Vec<Option<&[u8]>> = of()
        .map(|event| event.dedup.as_deref().map(str::as_bytes))
        .collect();
    let types: Vec<Option<&[u8]>> = of()
        .map(|event| event.event_type.as_deref().map(str::as_bytes))
        .collect();
    let threads: Vec<Option<&[u8]>> = of()
        .map(|event| event.thread.as_deref().map(str::as_bytes))
        .collect();
    let strengths: Vec<&str> = of().map(|event| event.strength.as_str()).collect();
    let secrets: Vec<Option<&str>> = of().map(|event| event.secret.as_deref()).collect();
    let filtered: Vec<Option<&str>> = of().map(|event| event.filtered.as_deref()).collect();
    let proofs: Vec<Option<Vec<u8>>> = of().map(proof::written).collect();
    let found = rows(
        tx,
        "INSERT INTO event (seq, id, received_at, bytes, source, dedup, event_type, thread, strength, secret, filtered,
                            proofs)
         SELECT n.* FROM unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::bytea[],
                                $7::bytea[], $8::bytea[], $9::text[], $10::text[], $11::text[], $12::bytea[])
            AS n (seq, id, received_at, bytes, source, dedup, event_type, thread, strength, secret, filtered, proofs)
         ORDER BY n.source COLLATE \"C\", n.dedup, n.seq
         ON CONFLICT DO NOTHING RETURNING seq",
        &[&seqs, &ids, &times, &bytes, &sources, &keys, &types, &threads, &strengths, &secrets, &filtered, &proofs],
    )
    .await?;
    found.iter().map(|row| Ok((row.try_get(0)?, ()))).collect()
}

async fn insert_bodies(tx: &Transaction<'_>, kept: &[(&Record, i64)]) -> Result<(), DatabaseError> {
    if kept.is_empty() {
        return Ok(());
    }
    let seqs: Vec<i64> = kept.iter().map(|(_, seq)| *seq).collect();
    let lines: Vec<&[u8]> = kept
        .iter()
        .map(|(record, _)| record.event.request_line.as_bytes())
        .collect();
    let params: Vec<&[u8]> = kept
        .iter()
        .map(|(record, _)| record.params.as_slice())
        .collect();
    let headers: Vec<&[u8]> = kept
        .iter()
        .map(|(record, _)| record.headers.as_slice())
        .collect();
    let bodies: Vec<&[u8]> = kept
        .iter()
        .map(|(record, _)| record.event.body.as_ref())
        .collect();
    let params: [&(dyn ToSql + Sync); 5] = [&seqs, &lines, &params, &headers, &bodies];
    change(
        tx,
        "INSERT INTO body (seq, request_line, params, headers, body)
         SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[])",
        &params,
    )
    .map_ok(|_| ())
    .await
}

async fn remove_lanes(tx: &Transaction<'_>, idle: &[i64]) -> Result<(), DatabaseError> {
    if idle.is_empty() {
        return Ok(());
    }
    change(tx, "DELETE FROM lane WHERE id = ANY ($1)", &[&idle])
        .await
        .map(|_| ())
}

async fn move_lanes(tx: &Transaction<'_>, moved: &[(i64, i32, i64)]) -> Result<(), DatabaseError> {
    if moved.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = moved.iter().map(|(id, ..)| *id).collect();
    let routes: Vec<i32> = moved.iter().map(|(_, route, _)| *route).collect();
    let times: Vec<i64> = moved.iter().map(|(.., ready_at)| *ready_at).collect();
    change(
        tx,
        "UPDATE lane AS l SET route = n.route, ready_at = n.ready_at
         FROM unnest($1::bigint[], $2::integer[], $3::bigint[]) AS n (id, route, ready_at) WHERE l.id = n.id",
        &[&ids, &routes, &times],
    )
    .await
    .map(|_| ())
}

/// Deliveries about to be kept, column by column.
#[derive(Debug, Default)]
struct Owing<'a> {
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
    #[expect(clippy::too_many_arguments, reason = "a row")]
    fn push(
        &mut self,
        key: i64,
        seq: i64,
        id: DeliveryId,
        lane: i64,
        route: i32,
        delivery: &'a NewDelivery,
        ready_at: Timestamp,
    ) {
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
    fn first(&self) -> HashMap<i64, (i32, i64)> {
        let mut first = HashMap::new();
        for ((lane, route), time) in self.lanes.iter().zip(&self.routes).zip(&self.times) {
            first.entry(*lane).or_insert((*route, *time));
        }
        first
    }

    async fn insert(&self, tx: &Transaction<'_>) -> Result<(), DatabaseError> {
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
struct HeldBack<'a> {
    keys: Vec<i64>,
    events: Vec<i64>,
    numbers: Vec<i32>,
    routes: Vec<i32>,
    upstream_ids: Vec<&'a [u8]>,
    times: Vec<i64>,
    reasons: Vec<&'a [u8]>,
}

impl<'a> HeldBack<'a> {
    fn push(
        &mut self,
        key: i64,
        seq: i64,
        id: DeliveryId,
        route: i32,
        delivery: &'a NewDelivery,
        (at, why): (Timestamp, &'a str),
    ) {
        self.keys.push(key);
        self.events.push(seq);
        self.numbers
            .push(i32::try_from(id.number).unwrap_or(i32::MAX));
        self.routes.push(route);
        self.upstream_ids.push(delivery.upstream_id.as_bytes());
        self.times.push(at.millis());
        self.reasons.push(cut(why, MAX_TEXT).as_bytes());
    }

    async fn insert(&self, tx: &Transaction<'_>) -> Result<(), DatabaseError> {
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

/// Owes an event again, after whatever its lanes hold already.
pub(super) async fn replay(
    conn: &mut Client,
    slot: i32,
    id: EventId,
    first: u32,
    (to, anew): (&[NewDelivery], Option<&Anew>),
    now: Timestamp,
) -> Result<Replayed, DatabaseError> {
    let tx = conn.transaction().await?;
    let mut counts = Counts::default();
    let replayed = owe_again(&tx, &mut counts, id, first, (to, anew), now).await?;
    counts.write(&tx, slot).await?;
    tx.commit().await?;
    Ok(replayed)
}

/// [`replay`] within a transaction.
pub(super) async fn owe_again(
    tx: &Transaction<'_>,
    counts: &mut Counts,
    id: EventId,
    first: u32,
    (to, anew): (&[NewDelivery], Option<&Anew>),
    now: Timestamp,
) -> Result<Replayed, DatabaseError> {
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
        write_anew(tx, counts, (seq, &source), anew, to.is_empty()).await?;
    }
    let kept = kept_call(tx, seq).await?;
    let to: Vec<NewDelivery> = to
        .iter()
        .map(|delivery| NewDelivery {
            sealed: delivery.sealed.clone().or_else(|| kept.clone()),
            ..delivery.clone()
        })
        .collect();
    let routes = routes::numbers(tx, to.iter().map(|delivery| delivery.route(&source))).await?;
    let mut wanted = BTreeMap::new();
    for delivery in &to {
        wanted
            .entry(delivery.lane)
            .or_insert((routes::number(&routes, &source, delivery)?, now.millis()));
    }
    let lanes = lock(tx, &wanted).await?;
    let keys = draw(tx, KEYS, to.len()).await?;
    let mut owing = Owing::default();
    let mut made = Vec::with_capacity(to.len());
    for ((number, delivery), key) in (first..).zip(&to).zip(keys) {
        let id = DeliveryId { event: id, number };
        let lane = lanes
            .get(&delivery.lane)
            .ok_or_else(|| DatabaseError::Engine("a lane is missing".into()))?;
        owing.push(
            key,
            seq,
            id,
            lane.id,
            routes::number(&routes, &source, delivery)?,
            delivery,
            now,
        );
        counts.add(&source, DeliveryState::Pending, 1);
        made.push(id);
    }
    owing.insert(tx).await?;
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
        "SELECT s.call FROM (SELECT d.key FROM delivery AS d WHERE d.event = $1 ORDER BY d.number DESC LIMIT 1) AS d
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
