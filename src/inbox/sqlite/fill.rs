//! Events of leases: read by a reader after the commit, bodies and all.

use bytes::Bytes;
use rusqlite::Connection;

use super::returned::{Lease, Leases, Return};
use super::{files, row};
use crate::inbox::bounds::CLAIM_BYTES;
use crate::inbox::codec::{Codec, Unreadable};
use crate::inbox::{AnsweredDelivery, Claimed, Merged};
use crate::model::{DeliveryId, EventId, Params, Timestamp};

/// Reads what goes with leases, until the bound on bytes. The leases stay open until they are handed over: this may
/// run on after its caller has gone. Returns how many leases were dealt with.
pub(super) fn fill(
    conn: &Connection,
    leases: &Leases,
    codec: &Codec,
) -> rusqlite::Result<(Vec<Claimed>, usize)> {
    let mut claimed = Vec::with_capacity(leases.open.len());
    let (mut bytes, mut dealt) = (0_usize, 0);
    for lease in &leases.open {
        if bytes >= CLAIM_BYTES {
            break;
        }
        dealt += 1;
        let opened = read(conn, lease)?
            .map_err(Unreadable::damaged)
            .and_then(|mut one| codec.open_claimed(&mut one).map(|()| one));
        match opened {
            Ok(one) => {
                let merged: usize = one.merged.iter().map(|merged| merged.body.len()).sum();
                bytes = bytes.saturating_add(
                    one.body.len()
                        + one.answers.as_ref().map_or(0, |one| one.payload.len())
                        + one.sealed.as_ref().map_or(0, Bytes::len)
                        + merged,
                );
                claimed.push(one);
            }
            Err(cause) => leases
                .returned
                .put([Return::Unreadable(lease.clone(), cause)]),
        }
    }
    Ok((claimed, dealt))
}

/// The outer error is the engine's and may pass; the inner one is the record's and stays.
fn read(conn: &Connection, lease: &Lease) -> rusqlite::Result<Result<Claimed, String>> {
    let row = conn
        .prepare_cached(
            "SELECT d.number, d.destination, d.upstream_id, e.id, e.source, e.event_type, e.thread, e.received_at,
                    b.params, b.headers, b.body, d.sealed, s.call, d.dropped,
                    EXISTS (SELECT 1 FROM attachment AS a INDEXED BY attachment_event WHERE a.event = e.seq
                            AND a.event IS NOT NULL),
                    EXISTS (SELECT 1 FROM delivery AS m INDEXED BY delivery_leader
                            WHERE m.leader = d.key AND m.state = 'merged'),
                    r.account, r.class, d.answers,
                    CASE WHEN d.answers IS NOT NULL THEN (SELECT p.payload FROM payload AS p WHERE p.delivery = d.key) END
             FROM delivery AS d JOIN event AS e ON e.seq = d.event JOIN body AS b ON b.seq = d.event
                LEFT JOIN route AS r ON r.id = d.route
                LEFT JOIN sealed AS s ON s.delivery = d.key
             WHERE d.key = ?1 AND d.event = ?2",
        )?
        .query_row((lease.key, lease.event), |row| {
            let destination: String = row.get(1)?;
            let (params, headers): (String, String) = (row.get(8)?, row.get(9)?);
            let rest = destination.parse().map_err(|_| "its destination cannot be read".to_owned()).and_then(|to| {
                let params: Params = serde_json::from_str(&params).map_err(|error| error.to_string())?;
                let headers = serde_json::from_str(&headers).map_err(|error| error.to_string())?;
                Ok((to, params, headers))
            });
            let (destination, params, headers) = match rest {
                Ok(rest) => rest,
                Err(cause) => return Ok(Err(cause)),
            };
            let sealed = row.get::<_, Option<Vec<u8>>>(12)?.map(Bytes::from);
            if sealed.is_none() && row.get(11)? {
                return Ok(Err("the caller's own call is gone".into()));
            }
            let event = EventId::from_bytes(row.get(3)?);
            let answers = match row.get::<_, Option<u32>>(18)? {
                None => None,
                Some(number) => {
                    let Some(payload) = row.get::<_, Option<Vec<u8>>>(19)? else {
                        return Ok(Err("its payload is gone".into()));
                    };
                    let id = DeliveryId { event, number };
                    Some(AnsweredDelivery { id, payload: payload.into() })
                }
            };
            Ok(Ok(Claimed {
                id: DeliveryId { event, number: row.get(0)? },
                key: lease.key,
                lane: lease.lane,
                fence: lease.fence,
                destination,
                account: row::account(row, 16)?,
                class: row::class(row, 17)?,
                upstream_id: row.get(2)?,
                attempt: lease.attempt,
                strikes: lease.strikes,
                doubt: lease.doubt,
                source: row.get(4)?,
                event_type: row.get(5)?,
                thread: row.get(6)?,
                received_at: Timestamp::from_millis(row.get(7)?),
                params,
                headers,
                body: Bytes::from(row.get::<_, Vec<u8>>(10)?),
                attachments: if row.get(14)? { files::of_event(conn, lease.event)? } else { Vec::new() },
                sealed,
                answers,
                merged: if row.get(15)? { merged(conn, lease.key)? } else { Vec::new() },
                dropped: row.get(13)?,
            }))
        });
    match row {
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(Err("its event is gone".into())),
        Err(
            error @ (rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)),
        ) => Ok(Err(error.to_string())),
        other => other,
    }
}

/// Reads the events that go with a delivery as one turn.
fn merged(conn: &Connection, leader: i64) -> rusqlite::Result<Vec<Merged>> {
    conn.prepare_cached(
        "SELECT e.id, d.number, e.event_type, e.received_at, b.params, b.headers, b.body, e.seq
         FROM delivery AS d INDEXED BY delivery_leader JOIN event AS e ON e.seq = d.event JOIN body AS b ON b.seq = d.event
         WHERE d.leader = ?1 AND d.state = 'merged' ORDER BY d.key",
    )?
    .query_map([leader], |row| {
        Ok(Merged {
            id: DeliveryId { event: EventId::from_bytes(row.get(0)?), number: row.get(1)? },
            event_type: row.get(2)?,
            received_at: Timestamp::from_millis(row.get(3)?),
            params: row::json(row, 4)?,
            headers: row::json(row, 5)?,
            body: Bytes::from(row.get::<_, Vec<u8>>(6)?),
            attachments: files::of_event(conn, row.get(7)?)?,
        })
    })?
    .collect()
}
