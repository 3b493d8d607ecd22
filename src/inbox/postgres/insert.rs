//! Rows of new events, and all that hangs on them.

use std::collections::HashMap;

use deadpool_postgres::Transaction;
use futures_util::future::try_join_all;
use futures_util::{FutureExt as _, TryFutureExt as _};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::database::{Counts, change, rows};
use super::error::DatabaseError;
use super::lane::Locked;
use super::owe::{DeliveryRow, HeldBack, Owing};
use super::record::Record;
use super::{files, proof, routes};
use crate::model::{DeliveryId, DeliveryState, Route};

/// Lanes and routes of a batch, by name.
pub(super) struct Places<'a> {
    /// The lanes, locked.
    pub(super) lanes: &'a HashMap<Uuid, Locked>,
    /// The numbers of the routes.
    pub(super) routes: &'a HashMap<Route, i32>,
}

/// Inserts all that hangs on events that were inserted: bodies, files, deliveries, lanes. `keys` are the numbers of the
/// deliveries.
pub(super) async fn insert_rest(
    tx: &Transaction<'_>,
    kept: &[(&Record, i64)],
    keys: Vec<i64>,
    &Places { lanes, routes }: &Places<'_>,
    counts: &mut Counts,
) -> Result<(), DatabaseError> {
    let (mut owing, mut held_back) = (Owing::default(), HeldBack::default());
    let mut keys = keys.into_iter();
    for (record, seq) in kept {
        let event = &record.event;
        counts.add_bytes(i64::try_from(record.bytes()).unwrap_or(i64::MAX));
        for ((number, delivery), key) in (0..).zip(&event.deliveries).zip(&mut keys) {
            let id = DeliveryId {
                event: event.id,
                number,
            };
            let row = DeliveryRow {
                key,
                event: *seq,
                id,
                route: routes::number(routes, &event.source, delivery)?,
            };
            if let Some(why) = &event.unmappable {
                held_back.push(&row, delivery, (event.received_at, why));
                counts.add(&event.source, DeliveryState::Unmappable, 1);
                continue;
            }
            let lane = lanes
                .get(&delivery.lane)
                .ok_or_else(|| DatabaseError::Engine("a lane is missing".into()))?;
            owing.push(&row, lane.id, delivery, event.received_at);
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
    let mut files = files::Rows::default();
    for (record, seq) in kept {
        files.add(Some(*seq), &record.event.source, &record.event.attachments);
    }
    try_join_all([
        insert_bodies(tx, kept).boxed(),
        files.insert(tx).boxed(),
        owing.insert(tx).boxed(),
        held_back.insert(tx).boxed(),
        remove_lanes(tx, &idle).boxed(),
        move_lanes(tx, &moved).boxed(),
    ])
    .await
    .map(|_| ())
}

/// Inserts those events of a batch that stand there neither by id nor by source and key. In order of key, so that two
/// batches with the same keys do not wait for each other. Returns the numbers that were inserted.
pub(super) async fn insert_events(
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
