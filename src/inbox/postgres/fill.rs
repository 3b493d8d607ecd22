//! Events of leases: read after the commit, bodies and all.

use std::collections::HashMap;

use bytes::Bytes;
use deadpool_postgres::Transaction;
use tokio_postgres::Row;

use super::database::rows;
use super::error::DatabaseError;
use super::lease::Lease;
use super::row::{delivery_id, text};
use super::{files, routes};
use crate::inbox::codec::{Codec, Unreadable};
use crate::inbox::{AnsweredDelivery, Claimed, Merged};
use crate::model::{Attachment, DeliveryId, Destination, Params, Timestamp};

/// Reads what goes with leases. What cannot be read comes back as its lease, with the cause.
pub(super) async fn fill(
    tx: &Transaction<'_>,
    leases: &[Lease],
    codec: &Codec,
) -> Result<(Vec<Claimed>, Vec<(Lease, Unreadable)>), DatabaseError> {
    let keys: Vec<i64> = leases.iter().map(|lease| lease.key).collect();
    let events: Vec<i64> = leases.iter().map(|lease| lease.event).collect();
    let found = rows(
        tx,
        "SELECT d.key, e.id, d.number, r.destination, d.upstream_id, e.source, e.event_type, e.thread, e.received_at,
                b.params, b.headers, b.body, d.sealed, s.call, r.account, r.class, d.answers,
                CASE WHEN d.answers IS NOT NULL
                    THEN (SELECT p.payload FROM payload AS p WHERE p.delivery = d.key) END
         FROM unnest($1::bigint[], $2::bigint[]) AS n (key, event)
            JOIN delivery AS d ON d.key + 0 = n.key JOIN route AS r ON r.id = d.route
            JOIN event AS e ON e.seq = n.event JOIN body AS b ON b.seq = n.event
            LEFT JOIN sealed AS s ON s.delivery = n.key",
        &[&keys, &events],
    )
    .await?;
    let mut found: HashMap<i64, Row> = found
        .into_iter()
        .map(|row| Ok((row.try_get(0)?, row)))
        .collect::<Result<_, DatabaseError>>()?;
    let leaders: Vec<i64> = leases
        .iter()
        .filter(|lease| lease.grouped)
        .map(|lease| lease.key)
        .collect();
    let mut groups = groups(tx, &leaders).await?;
    let merged = groups
        .values()
        .flatten()
        .map(|row| row.try_get::<_, i64>(8))
        .collect::<Result<Vec<_>, _>>()?;
    let mut files = files::of_events(tx, &[events, merged].concat()).await?;
    let (mut claimed, mut unreadable) = (Vec::with_capacity(leases.len()), Vec::new());
    for lease in leases {
        let one = match found.remove(&lease.key) {
            None => Err("its event is gone".into()),
            Some(row) => read(
                lease,
                &row,
                groups.remove(&lease.key).unwrap_or_default(),
                &mut files,
            )?,
        };
        let opened = one
            .map_err(Unreadable::damaged)
            .and_then(|mut one: Claimed| codec.open_claimed(&mut one).map(|()| one));
        match opened {
            Ok(one) => claimed.push(one),
            Err(why) => unreadable.push((lease.clone(), why)),
        }
    }
    Ok((claimed, unreadable))
}

/// The outer error is the engine's and may pass; the inner one is the record's and stays.
fn read(
    lease: &Lease,
    row: &Row,
    merged: Vec<Row>,
    files: &mut FilesByEvent,
) -> Result<Result<Claimed, String>, DatabaseError> {
    let sealed = row.try_get::<_, Option<Vec<u8>>>(13)?.map(Bytes::from);
    if sealed.is_none() && row.try_get(12)? {
        return Ok(Err("the caller's own call is gone".into()));
    }
    let id = delivery_id(row, 1, 2)?;
    let answers = match row.try_get::<_, Option<i32>>(16)? {
        None => None,
        Some(number) => {
            let Some(payload) = row.try_get::<_, Option<Vec<u8>>>(17)? else {
                return Ok(Err("its payload is gone".into()));
            };
            Some(AnsweredDelivery {
                id: DeliveryId {
                    event: id.event,
                    number: u32::try_from(number).unwrap_or_default(),
                },
                payload: payload.into(),
            })
        }
    };
    let destination: String = row.try_get(3)?;
    let Ok(destination) = destination.parse::<Destination>() else {
        return Ok(Err("its destination cannot be read".into()));
    };
    let (params, headers) = match lists(row, 9, 10)? {
        Ok(lists) => lists,
        Err(cause) => return Ok(Err(cause)),
    };
    let mut group = Vec::with_capacity(merged.len());
    for row in merged {
        let (params, headers) = match lists(&row, 5, 6)? {
            Ok(lists) => lists,
            Err(cause) => return Ok(Err(cause)),
        };
        group.push(Merged {
            id: delivery_id(&row, 1, 2)?,
            event_type: text(&row, 3)?,
            received_at: Timestamp::from_millis(row.try_get(4)?),
            params,
            headers,
            body: Bytes::from(row.try_get::<_, Vec<u8>>(7)?),
            attachments: files.remove(&row.try_get(8)?).unwrap_or_default(),
        });
    }
    Ok(Ok(Claimed {
        id,
        key: lease.key,
        lane: lease.lane,
        fence: lease.fence,
        destination,
        account: routes::account(row, 14)?,
        class: routes::class(row, 15)?,
        upstream_id: text(row, 4)?.unwrap_or_default(),
        attempt: lease.attempt,
        strikes: lease.strikes,
        doubt: lease.doubt,
        source: row.try_get(5)?,
        event_type: text(row, 6)?,
        thread: text(row, 7)?,
        received_at: Timestamp::from_millis(row.try_get(8)?),
        params,
        headers,
        body: Bytes::from(row.try_get::<_, Vec<u8>>(11)?),
        attachments: files.remove(&lease.event).unwrap_or_default(),
        sealed,
        answers,
        merged: group,
        dropped: lease.dropped,
    }))
}

/// The files of each event.
type FilesByEvent = HashMap<i64, Vec<Attachment>>;

type Lists = (Params, Vec<(String, String)>);

fn lists(row: &Row, params: usize, headers: usize) -> Result<Result<Lists, String>, DatabaseError> {
    let (params, headers): (&[u8], &[u8]) = (row.try_get(params)?, row.try_get(headers)?);
    Ok(serde_json::from_slice(params)
        .and_then(|params| Ok((params, serde_json::from_slice(headers)?)))
        .map_err(|error| error.to_string()))
}

/// Reads the events that go with each of these, in order of arrival.
async fn groups(
    tx: &Transaction<'_>,
    leaders: &[i64],
) -> Result<HashMap<i64, Vec<Row>>, DatabaseError> {
    let mut groups: HashMap<i64, Vec<Row>> = HashMap::new();
    if leaders.is_empty() {
        return Ok(groups);
    }
    let found = rows(
        tx,
        "SELECT d.leader, e.id, d.number, e.event_type, e.received_at, b.params, b.headers, b.body, d.event
         FROM unnest($1::bigint[]) AS n (leader)
            JOIN delivery AS d ON d.leader = n.leader AND d.leader IS NOT NULL AND d.state = 'merged'
            JOIN event AS e ON e.seq = d.event JOIN body AS b ON b.seq = d.event
         ORDER BY d.key",
        &[&leaders],
    )
    .await?;
    for row in found {
        groups.entry(row.try_get(0)?).or_default().push(row);
    }
    Ok(groups)
}
