//! Leasing what is due.
//!
//! The writer leases: narrow rows, a few statements a lane, the same cost however much waits. What goes with a lease,
//! body and all, is read after the commit by a reader. On the way between the two nothing may get lost: a lease that
//! nobody took, because the caller gave up waiting or the reading failed, goes back to the writer by itself.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::attachment;
use super::settle;
use super::writer::{Message, Turn, Work, held};
use crate::inbox::{Claimed, InboxError, Next, Settlement};
use crate::model::{Attempt, DeliveryId, EventId, Params, State, Timestamp};

/// How many leases one claim gives at most.
pub(super) const MOST: usize = 1024;

/// How many bytes of bodies one claim gives at most, the one that passes the bound included.
const BODY_BYTES: usize = 32 << 20;

/// What the writer knows of a lease.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    key: i64,
    event: i64,
    lane: Uuid,
    fence: i64,
    attempt: u32,
    strikes: u32,
    doubt: Option<Timestamp>,
    at: Timestamp,
}

/// Leases up to `limit` due deliveries, oldest lane first, one a lane.
pub(super) fn lease(turn: &mut Turn<'_>, limit: usize, now: Timestamp) -> rusqlite::Result<Vec<Lease>> {
    let mut leases = Vec::new();
    for (number, lane) in due_lanes(turn, limit, now)? {
        let Some(Head { key, event, attempts, strikes, doubt, source }) = head(turn, number)? else {
            // A lane without work; it should not be there, and does no harm when it is gone.
            turn.conn.prepare_cached("DELETE FROM lane WHERE id = ?1")?.execute([number])?;
            continue;
        };
        let (attempt, strikes) = (attempts.saturating_add(1), strikes.saturating_add(1));
        turn.conn
            .prepare_cached(
                "UPDATE delivery SET state = 'leased', attempts = ?2, strikes = ?3, doubt = coalesce(doubt, ?4)
                 WHERE key = ?1",
            )?
            .execute((key, attempt, strikes, now.millis()))?;
        let fence = turn
            .conn
            .prepare_cached("UPDATE lane SET delivery = ?2, fence = fence + 1 WHERE id = ?1 RETURNING fence")?
            .query_row((number, key), |row| row.get(0))?;
        turn.count(&source, State::Pending, -1);
        turn.count(&source, State::Leased, 1);
        leases.push(Lease { key, event, lane, fence, attempt, strikes, doubt, at: now });
    }
    Ok(leases)
}

fn due_lanes(turn: &Turn<'_>, limit: usize, now: Timestamp) -> rusqlite::Result<Vec<(i64, Uuid)>> {
    turn.conn
        .prepare_cached(
            "SELECT id, lane FROM lane INDEXED BY lane_ready WHERE delivery IS NULL AND ready_at <= ?1
             ORDER BY ready_at, id LIMIT ?2",
        )?
        .query_map((now.millis(), i64::try_from(limit).unwrap_or(i64::MAX)), |row| {
            Ok((row.get(0)?, Uuid::from_bytes(row.get(1)?)))
        })?
        .collect()
}

/// A lane's first pending delivery.
struct Head {
    key: i64,
    event: i64,
    attempts: u32,
    strikes: u32,
    doubt: Option<Timestamp>,
    source: String,
}

fn head(turn: &Turn<'_>, lane: i64) -> rusqlite::Result<Option<Head>> {
    turn.conn
        .prepare_cached(
            "SELECT d.key, d.event, d.attempts, d.strikes, d.doubt, e.source
             FROM delivery AS d INDEXED BY delivery_lane JOIN event AS e ON e.seq = d.event
             WHERE d.lane = ?1 AND d.state = 'pending' ORDER BY d.key LIMIT 1",
        )?
        .query_row([lane], |row| {
            Ok(Head {
                key: row.get(0)?,
                event: row.get(1)?,
                attempts: row.get(2)?,
                strikes: row.get(3)?,
                doubt: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
                source: row.get(5)?,
            })
        })
        .optional()
}

/// Leases on their way to whoever claimed. Those still in it when it is dropped go back.
#[derive(Debug)]
pub(super) struct Leases {
    open: Vec<Lease>,
    returned: Returned,
}

impl Leases {
    /// Of a commit that has been made.
    pub(super) fn new(open: Vec<Lease>, returned: Returned) -> Self {
        Self { open, returned }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Hands the first `count` over for good.
    pub(super) fn hand_over(&mut self, count: usize) {
        self.open.drain(..count.min(self.open.len()));
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.returned.put(self.open.drain(..).map(Return::Untaken));
    }
}

/// Reads what goes with leases, until the bound on bytes. The leases stay open until they are handed over: this may
/// run on after its caller has gone. Returns how many leases were dealt with.
pub(super) fn fill(conn: &Connection, leases: &Leases) -> rusqlite::Result<(Vec<Claimed>, usize)> {
    let mut claimed = Vec::with_capacity(leases.open.len());
    let (mut bytes, mut dealt) = (0_usize, 0);
    for lease in &leases.open {
        if bytes >= BODY_BYTES {
            break;
        }
        dealt += 1;
        match read(conn, lease)? {
            Ok(mut one) => {
                one.attachments = attachment::of_event(conn, lease.event)?;
                bytes = bytes.saturating_add(one.body.len() + one.sealed.as_ref().map_or(0, Bytes::len));
                claimed.push(one);
            }
            Err(cause) => leases.returned.put([Return::Unreadable(lease.clone(), cause)]),
        }
    }
    Ok((claimed, dealt))
}

/// The outer error is the engine's and may pass; the inner one is the record's and stays.
fn read(conn: &Connection, lease: &Lease) -> rusqlite::Result<Result<Claimed, String>> {
    let row = conn
        .prepare_cached(
            "SELECT d.number, d.destination, d.upstream_id, e.id, e.source, e.event_type, e.thread, e.received_at,
                    b.params, b.headers, b.body, d.sealed, s.call
             FROM delivery AS d JOIN event AS e ON e.seq = d.event JOIN body AS b ON b.seq = d.event
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
            Ok(Ok(Claimed {
                id: DeliveryId { event: EventId::from_bytes(row.get(3)?), number: row.get(0)? },
                key: lease.key,
                lane: lease.lane,
                fence: lease.fence,
                destination,
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
                attachments: Vec::new(),
                sealed,
            }))
        });
    match row {
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(Err("its event is gone".into())),
        Err(error @ (rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..))) => {
            Ok(Err(error.to_string()))
        }
        other => other,
    }
}

/// A lease that its claimer never had.
#[derive(Clone, Debug)]
enum Return {
    /// As if it had not been claimed; its lane keeps its place.
    Untaken(Lease),
    /// What was kept cannot be read again; it will not be tried for ever.
    Unreadable(Lease, String),
}

/// Where such leases lie until the writer's next turn.
#[derive(Clone, Debug)]
pub(super) struct Returned {
    list: Arc<Mutex<Vec<Return>>>,
    bell: mpsc::WeakSender<Message>,
}

impl Returned {
    /// Empty; `bell` wakes the writer.
    pub(super) fn new(bell: mpsc::WeakSender<Message>) -> Self {
        Self { list: Arc::default(), bell }
    }

    fn put(&self, returns: impl IntoIterator<Item = Return>) {
        let mut list = held(&self.list);
        list.extend(returns);
        if !list.is_empty()
            && let Some(bell) = self.bell.upgrade()
        {
            // When the queue is full the writer has a turn before it anyway.
            let _ = bell.try_send(Message::Look);
        }
    }

    /// What lies there, as work for the writer.
    pub(super) fn work(&self) -> impl Iterator<Item = Box<dyn Work>> + use<> {
        let list = std::mem::take(&mut *held(&self.list));
        let returned = self.clone();
        list.into_iter().map(move |what| -> Box<dyn Work> { Box::new(GiveBack { what, returned: returned.clone() }) })
    }
}

struct GiveBack {
    what: Return,
    returned: Returned,
}

impl Work for GiveBack {
    fn apply(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<()> {
        match &self.what {
            Return::Untaken(lease) => settle::give_back(turn, lease.lane, lease.fence, lease.key, lease.doubt),
            Return::Unreadable(lease, cause) => {
                tracing::error!(delivery = lease.key, cause, "delivery cannot be read and is dead");
                let attempt = Attempt {
                    number: lease.attempt,
                    started_at: lease.at,
                    ended_at: lease.at,
                    result: "unreadable".into(),
                    status: None,
                    detail: cause.clone(),
                };
                let (key, lane, fence) = (lease.key, lease.lane, lease.fence);
                settle::settle(turn, &Settlement { key, lane, fence, attempt, next: Next::Dead(None) }).map(|_| ())
            }
        }
    }

    fn bytes(&self) -> usize {
        0
    }

    fn doing(&self) -> &'static str {
        "take back a lease"
    }

    fn answer(self: Box<Self>, end: Result<(), InboxError>) {
        // Nobody else will free the lane, so it is tried until it goes. Without the bell: the next turn is soon enough,
        // and a full disk is no reason to spin.
        if let Err(InboxError::NoSpace | InboxError::Engine { .. }) = end {
            held(&self.returned.list).push(self.what);
        }
    }
}
