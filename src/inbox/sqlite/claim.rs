//! Leasing what is due.
//!
//! The writer leases: narrow rows, a few statements a lane, the same cost however much waits. It looks at the routes that
//! have lanes, some of each rank (`fair.rs`), deals its places to them, and goes in each through the lanes that are due
//! longest; a route that is closed costs one look. What goes with a lease, body and all, is read after the commit by a reader. On
//! the way between the two nothing may get lost: a lease that nobody took, because the caller gave up waiting or the
//! reading failed, goes back to the writer by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::attachment;
use super::writer::{Transaction, Work, WriterMessage, held};
use super::{overlap, query, settle};
use crate::inbox::fair::{ROUTES, Shares};
use crate::inbox::{Claimed, InboxError, Merged, Next, Settlement, Terms};
use crate::model::{Attempt, DeliveryId, DeliveryState, EventId, Params, Route, Timestamp};

/// How many leases one claim gives at most.
pub(super) const MOST: usize = 1024;

/// How many bytes of bodies one claim gives at most, the one that passes the bound included.
const BODY_BYTES: usize = 32 << 20;

/// How many routes of a rank one claim looks at.
const LOOKS: usize = 4_096;

/// How soon it looks on when those were not all.
const SOON: Duration = Duration::from_secs(1);

/// How often a lane's first delivery may turn out to be none in one claim.
const HEADS: usize = 16;

/// After how many deliveries that waited behind others a claim ends with what it has; it would hold up the writer.
const WAITING: usize = 10_000;

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

/// What a claim came to.
#[derive(Debug, Default)]
pub(super) struct Leased {
    /// The leases.
    pub(super) leases: Vec<Lease>,
    /// When the next lane of an open route is due; said when there is no lease.
    pub(super) next_due: Option<Timestamp>,
    /// What was dropped, by source.
    pub(super) dropped: BTreeMap<String, u64>,
    /// How many deliveries that waited were looked at.
    looked: usize,
}

/// Leases what is due, on these terms.
pub(super) fn lease(
    tx: &mut Transaction<'_>,
    terms: &mut dyn Terms,
    shares: &mut Shares,
    now: Timestamp,
) -> rusqlite::Result<Leased> {
    terms.begin();
    let mut claim = Leased::default();
    let mut room = terms.room().min(MOST);
    if room == 0 {
        return Ok(claim);
    }
    let DueRoutes { mut open, next_due } = open_routes(tx, terms, shares, now)?;
    let any_open = !open.is_empty();
    let mut leased: Vec<(Route, usize)> = Vec::new();
    // What one has no use for is dealt again to the others.
    while room > 0 && !open.is_empty() {
        let dealt = shares.deal(&open, terms, room);
        let mut satisfied = Vec::with_capacity(open.len());
        for ((id, route), wanted) in open.iter().zip(dealt) {
            let before = claim.leases.len();
            lease_of(tx, *id, wanted, terms, now, &mut claim)?;
            let taken = claim.leases.len() - before;
            satisfied.push(wanted > 0 && taken == wanted);
            if taken < wanted {
                shares.refund(route, terms, wanted - taken);
            }
            if taken > 0 {
                leased.push((route.clone(), taken));
                room -= taken;
            }
        }
        let mut satisfied = satisfied.into_iter();
        open.retain(|_| satisfied.next().unwrap_or(false));
        // The terms go by what was taken, not by what was dealt.
        terms.begin();
        for (route, taken) in &leased {
            terms.took(route, *taken);
        }
    }
    if claim.leases.is_empty() {
        claim.next_due = next_due;
        if !claim.dropped.is_empty() || any_open {
            // What was dropped may have had something behind it.
            claim.next_due = Some(now);
        }
    }
    Ok(claim)
}

/// The first number of a rank's routes.
pub(super) const fn rank_begins(rank: i64) -> i64 {
    rank << 40
}

/// What a look at the routes came to.
struct DueRoutes {
    /// Those that have something due and are open, with their numbers.
    open: Vec<(i64, Route)>,
    /// When the first of an open one is due.
    next_due: Option<Timestamp>,
}

/// The routes that have something due and are open, some of each rank; and, where there are none, when the first of an
/// open one is due.
fn open_routes(
    tx: &Transaction<'_>,
    terms: &mut dyn Terms,
    shares: &mut Shares,
    now: Timestamp,
) -> rusqlite::Result<DueRoutes> {
    let mut walk = RouteWalk {
        tx,
        terms,
        now,
        open: Vec::new(),
        next_due: None,
    };
    let mut at = i64::MIN;
    // From rank to rank by the routes there are, so that ranks without any cost nothing.
    while let Some((first, ..)) = walk.next(at, i64::MAX)? {
        let rank = first >> 40;
        let (begins, ends) = (
            if rank == 0 {
                i64::MIN
            } else {
                rank_begins(rank) - 1
            },
            rank_begins(rank + 1) - 1,
        );
        // Where there were more than one look took in, the next begins behind it.
        let start = shares.walked.get(&rank).copied().unwrap_or(begins);
        let (mut looks, mut found) = (0, 0);
        let mut stopped = walk.stretch(start, ends, &mut looks, &mut found)?;
        if stopped.is_none() && start > begins {
            stopped = walk.stretch(begins, start, &mut looks, &mut found)?;
        }
        match stopped {
            Some(place) => {
                shares.walked.insert(rank, place);
                if found == 0 {
                    // So many, and none of them open and due: the next claim, soon, looks at those behind.
                    walk.is_due(now + SOON);
                }
            }
            None => {
                shares.walked.remove(&rank);
            }
        }
        at = ends;
    }
    Ok(DueRoutes {
        open: walk.open,
        next_due: walk.next_due,
    })
}

/// A look at the routes that have lanes which are not leased.
struct RouteWalk<'a, 'b> {
    tx: &'a Transaction<'b>,
    terms: &'a mut dyn Terms,
    now: Timestamp,
    open: Vec<(i64, Route)>,
    next_due: Option<Timestamp>,
}

impl RouteWalk<'_, '_> {
    /// The next route behind a number, up to another, and when its first lane is ready.
    fn next(
        &self,
        after: i64,
        until: i64,
    ) -> rusqlite::Result<Option<(i64, Timestamp, Option<Route>)>> {
        self.tx
            .conn
            .prepare_cached(
                "SELECT l.route, l.ready_at, r.source, r.destination, r.account, r.class
                 FROM lane AS l INDEXED BY lane_ready LEFT JOIN route AS r ON r.id = l.route
                 WHERE l.delivery IS NULL AND l.route > ?1 AND l.route <= ?2 ORDER BY l.route, l.ready_at LIMIT 1",
            )?
            .query_row([after, until], |row| {
                Ok((row.get(0)?, Timestamp::from_millis(row.get(1)?), query::route(row, 2)?))
            })
            .optional()
    }

    /// Takes up the open routes of a stretch. Some: it ended there, with as much as one claim takes or looks at.
    fn stretch(
        &mut self,
        after: i64,
        until: i64,
        looks: &mut usize,
        found: &mut usize,
    ) -> rusqlite::Result<Option<i64>> {
        let mut at = after;
        while at < until
            && let Some((id, ready_at, route)) = self.next(at, until)?
        {
            (at, *looks) = (id, *looks + 1);
            if let Some(route) = route.filter(|route| self.terms.open(route) > 0) {
                if ready_at > self.now {
                    self.is_due(ready_at);
                } else {
                    self.open.push((id, route));
                    *found += 1;
                }
            }
            if *found == ROUTES || *looks == LOOKS {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn is_due(&mut self, at: Timestamp) {
        self.next_due = Some(self.next_due.map_or(at, |due| due.min(at)));
    }
}

/// Leases up to `wanted` of a route's lanes.
fn lease_of(
    tx: &mut Transaction<'_>,
    route: i64,
    wanted: usize,
    terms: &dyn Terms,
    now: Timestamp,
    claim: &mut Leased,
) -> rusqlite::Result<()> {
    if wanted == 0 {
        return Ok(());
    }
    let due: Vec<(i64, Uuid)> = tx
        .conn
        .prepare_cached(
            "SELECT id, lane FROM lane INDEXED BY lane_ready WHERE delivery IS NULL AND route = ?1 AND ready_at <= ?2
             ORDER BY ready_at, id LIMIT ?3",
        )?
        .query_map((route, now.millis(), i64::try_from(wanted).unwrap_or(i64::MAX)), |row| {
            Ok((row.get(0)?, Uuid::from_bytes(row.get(1)?)))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (number, lane) in due {
        if claim.looked >= WAITING {
            break;
        }
        let Some(head) = first(tx, number, route, terms, now, claim)? else {
            continue;
        };
        let (attempt, strikes) = (
            head.attempts.saturating_add(1),
            head.strikes.saturating_add(1),
        );
        let fence = head.fence + 1;
        tx.conn
            .prepare_cached(
                "UPDATE delivery SET state = 'leased', attempts = ?2, strikes = ?3, doubt = coalesce(doubt, ?4),
                        fence = ?5 WHERE key = ?1",
            )?
            .execute((head.key, attempt, strikes, now.millis(), fence))?;
        tx.conn
            .prepare_cached("UPDATE lane SET delivery = ?2 WHERE id = ?1")?
            .execute((number, head.key))?;
        tx.count(&head.source, DeliveryState::Pending, -1);
        tx.count(&head.source, DeliveryState::Leased, 1);
        let LaneHead {
            key, event, doubt, ..
        } = head;
        claim.leases.push(Lease {
            key,
            event,
            lane,
            fence,
            attempt,
            strikes,
            doubt,
            at: now,
        });
    }
    Ok(())
}

/// The delivery that a lane is to send next, after what became of those that waited before it. None: it has none now,
/// or one of another route.
fn first(
    tx: &mut Transaction<'_>,
    lane: i64,
    route: i64,
    terms: &dyn Terms,
    now: Timestamp,
    claim: &mut Leased,
) -> rusqlite::Result<Option<LaneHead>> {
    for _ in 0..HEADS {
        let Some(head) = head(tx, lane)? else {
            // A lane whose last delivery was dropped, or one without work, which does no harm when it is gone.
            tx.conn
                .prepare_cached("DELETE FROM lane WHERE id = ?1")?
                .execute([lane])?;
            return Ok(None);
        };
        if head.route != route {
            tx.conn
                .prepare_cached("UPDATE lane SET route = ?2 WHERE id = ?1")?
                .execute((lane, head.route))?;
            tx.news();
            return Ok(None);
        }
        // What may have been sent is finished first, as it is.
        if head.attempts > 0 || head.sealed {
            return Ok(Some(head));
        }
        let overlap = terms.overlap(&head.source);
        let source = head.source.clone();
        let (first, dropped) = overlap::gather(tx, lane, head, overlap, now, &mut claim.looked)?;
        if dropped > 0 {
            *claim.dropped.entry(source).or_default() += dropped;
        }
        if first.is_some() {
            return Ok(first);
        }
    }
    Ok(None)
}

/// A lane's first pending delivery.
#[derive(Debug)]
pub(super) struct LaneHead {
    pub(super) key: i64,
    pub(super) event: i64,
    pub(super) attempts: u32,
    pub(super) strikes: u32,
    pub(super) doubt: Option<Timestamp>,
    pub(super) source: String,
    pub(super) route: i64,
    pub(super) sealed: bool,
    pub(super) received_at: Timestamp,
    pub(super) fence: i64,
}

fn head(tx: &Transaction<'_>, lane: i64) -> rusqlite::Result<Option<LaneHead>> {
    tx.conn
        .prepare_cached(
            "SELECT d.key, d.event, d.attempts, d.strikes, d.doubt, e.source, d.route, d.sealed, e.received_at,
                    d.fence
             FROM delivery AS d INDEXED BY delivery_lane JOIN event AS e ON e.seq = d.event
             WHERE d.lane = ?1 AND d.state = 'pending' ORDER BY d.key LIMIT 1",
        )?
        .query_row([lane], |row| {
            Ok(LaneHead {
                key: row.get(0)?,
                event: row.get(1)?,
                attempts: row.get(2)?,
                strikes: row.get(3)?,
                doubt: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
                source: row.get(5)?,
                route: row.get(6)?,
                sealed: row.get(7)?,
                received_at: Timestamp::from_millis(row.get(8)?),
                fence: row.get(9)?,
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
            Ok(one) => {
                let merged: usize = one.merged.iter().map(|merged| merged.body.len()).sum();
                bytes = bytes.saturating_add(
                    one.body.len() + one.sealed.as_ref().map_or(0, Bytes::len) + merged,
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
                    r.account, r.class
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
            Ok(Ok(Claimed {
                id: DeliveryId { event: EventId::from_bytes(row.get(3)?), number: row.get(0)? },
                key: lease.key,
                lane: lease.lane,
                fence: lease.fence,
                destination,
                account: query::account(row, 16)?,
                class: query::class(row, 17)?,
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
                attachments: if row.get(14)? { attachment::of_event(conn, lease.event)? } else { Vec::new() },
                sealed,
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

/// What goes with a delivery as one turn.
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
            params: query::json(row, 4)?,
            headers: query::json(row, 5)?,
            body: Bytes::from(row.get::<_, Vec<u8>>(6)?),
            attachments: attachment::of_event(conn, row.get(7)?)?,
        })
    })?
    .collect()
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
    bell: mpsc::WeakSender<WriterMessage>,
}

impl Returned {
    /// Empty; `bell` wakes the writer.
    pub(super) fn new(bell: mpsc::WeakSender<WriterMessage>) -> Self {
        Self {
            list: Arc::default(),
            bell,
        }
    }

    fn put(&self, returns: impl IntoIterator<Item = Return>) {
        let mut list = held(&self.list);
        list.extend(returns);
        if !list.is_empty()
            && let Some(bell) = self.bell.upgrade()
        {
            // When the queue is full the writer has a turn before it anyway.
            let _ = bell.try_send(WriterMessage::Look);
        }
    }

    /// What lies there, as work for the writer.
    pub(super) fn work(&self) -> impl Iterator<Item = Box<dyn Work>> + use<> {
        let list = std::mem::take(&mut *held(&self.list));
        let returned = self.clone();
        list.into_iter().map(move |what| -> Box<dyn Work> {
            Box::new(GiveBack {
                what,
                returned: returned.clone(),
            })
        })
    }
}

struct GiveBack {
    what: Return,
    returned: Returned,
}

impl Work for GiveBack {
    fn apply(&mut self, tx: &mut Transaction<'_>) -> rusqlite::Result<()> {
        match &self.what {
            Return::Untaken(lease) => {
                settle::give_back(tx, lease.lane, lease.fence, lease.key, lease.doubt)
            }
            Return::Unreadable(lease, cause) => {
                tracing::error!(
                    delivery = lease.key,
                    cause,
                    "delivery cannot be read and is dead"
                );
                let attempt = Attempt {
                    number: lease.attempt,
                    started_at: lease.at,
                    ended_at: lease.at,
                    result: "unreadable".into(),
                    status: None,
                    detail: cause.clone(),
                };
                let (key, lane, fence) = (lease.key, lease.lane, lease.fence);
                settle::settle(
                    tx,
                    &Settlement {
                        id: None,
                        key,
                        lane,
                        fence,
                        attempt,
                        next: Next::Dead(None),
                    },
                )
                .map(|_| ())
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
