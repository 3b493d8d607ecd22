//! Leasing what is due.
//!
//! A claim asks which routes have due lanes, some of each rank, deals its places to them on the terms given
//! (`inbox/fair.rs`), locks so many lanes, passing over
//! those that others have locked, and only then, in a statement of its own, reads each lane's first delivery: one that
//! was read together with the lock could be one that has been settled meanwhile. The cost is that of the lanes taken,
//! however much waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use bytes::Bytes;
use deadpool_postgres::{Client, Transaction};
use tokio_postgres::Row;
use uuid::Uuid;

use super::attachment;
use super::database::{Counts, change, rows};
use super::error::DatabaseError;
use super::health::held;
use super::overlap::{self, Waiting};
use super::routes;
use super::settle::delivery_id;
use crate::inbox::fair::{RANKS, ROUTES, Shares};
use crate::inbox::{Claimed, Merged, Terms};
use crate::model::{
    Attachment, DeliveryId, DeliveryState, Destination, Overlap, OverlapMode, Params, Route,
    Timestamp,
};

/// How many leases one claim gives at most.
pub(super) const MOST: usize = 1024;

/// How many bytes of events one claim gives at most, the one that passes the bound included.
const BYTES: i64 = 32 << 20;

/// The numbers of a rank's routes: so many bits of them.
pub(super) const RANK_BITS: i32 = 27;

/// How many times so many a claim looks at.
const LOOKS: usize = 64;

/// How many turns that wait in one lane a claim looks at.
const TURNS: i64 = 1000;

/// What is known of a lease before what goes with it is read.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) key: i64,
    pub(super) event: i64,
    pub(super) lane: Uuid,
    pub(super) fence: i64,
    pub(super) attempt: u32,
    pub(super) strikes: u32,
    pub(super) doubt: Option<Timestamp>,
    pub(super) at: Timestamp,
    pub(super) grouped: bool,
    pub(super) dropped: u32,
}

/// What a claim came to.
#[derive(Debug, Default)]
pub(super) struct Leased {
    /// [`crate::inbox::Claims::next_due`]
    pub(super) next_due: Option<Timestamp>,
    /// [`crate::inbox::Claims::dropped`]
    pub(super) dropped: Vec<(String, u64)>,
    /// The deliveries that came to their end on the way, or whose end is that of another now.
    pub(super) ended: Vec<DeliveryId>,
    /// Whether this replica is none any more.
    pub(super) expired: bool,
}

/// Leases due deliveries on the terms given. `leases` are filled before the commit: when its answer is lost, they are
/// those that may be on disk.
pub(super) async fn lease(
    conn: &mut Client,
    slot: i32,
    replica: i64,
    shares: &Mutex<Shares>,
    terms: &mut dyn Terms,
    now: Timestamp,
    leases: &mut Vec<Lease>,
) -> Result<Leased, DatabaseError> {
    terms.begin();
    let tx = conn.transaction().await?;
    if !is_alive(&tx, replica).await? {
        return Ok(Leased {
            expired: true,
            ..Leased::default()
        });
    }
    let room = terms.room().min(MOST);
    if room == 0 {
        return Ok(Leased::default());
    }
    let walked = held(shares).walked.clone();
    let DueRoutes {
        open,
        next_due,
        walked,
    } = open_routes(&tx, walked, terms, now).await?;
    if open.is_empty() {
        held(shares).walked = walked;
        return Ok(Leased {
            next_due,
            ..Leased::default()
        });
    }
    let dealt = {
        let mut shares = held(shares);
        shares.walked = walked;
        shares.deal(&open, terms, room)
    };
    let due: Vec<(i32, Route, usize)> = open
        .into_iter()
        .zip(dealt)
        .filter(|(_, most)| *most > 0)
        .map(|((number, route), most)| (number, route, most))
        .collect();
    // The terms go by what is taken, not by what was dealt.
    terms.begin();
    let lanes = lock_lanes(&tx, &due, room, now).await?;
    let heads = heads(&tx, &lanes).await?;
    let mut taking = ClaimPlan::default();
    for head in &heads {
        taking.consider(&tx, head, terms, now).await?;
    }
    taking.take(&tx, slot, replica, terms, now).await?;
    {
        let mut shares = held(shares);
        for (_, route, most) in &due {
            let taken = taking.took.get(route).copied().unwrap_or(0);
            shares.refund(route, terms, most.saturating_sub(taken));
        }
    }
    let next_due = next_due.filter(|_| taking.leases.is_empty());
    leases.append(&mut taking.leases);
    tx.commit().await?;
    let dropped = taking.by_source.into_iter().collect();
    Ok(Leased {
        next_due,
        dropped,
        ended: taking.ended,
        expired: false,
    })
}

/// Whether this replica's row still stands. It does until the transaction ends: who removes it has to wait.
async fn is_alive(tx: &Transaction<'_>, replica: i64) -> Result<bool, DatabaseError> {
    let sql = "SELECT FROM replica WHERE id = $1 AND expires_at > now() FOR KEY SHARE";
    Ok(!rows(tx, sql, &[&replica]).await?.is_empty())
}

/// What a look at the routes came to.
struct DueRoutes {
    /// Those that are due and open, with their numbers.
    open: Vec<(i32, Route)>,
    /// When the next of the others is due.
    next_due: Option<Timestamp>,
    /// Where the look ended in ranks that have more.
    walked: HashMap<i64, i64>,
}

/// What is left to look at of a rank.
struct Stretch {
    rank: i64,
    /// Where the look at it began, and where it has come to.
    start: i32,
    after: i32,
    until: i32,
    wrapped: bool,
    found: usize,
}

/// The first number of a rank's routes.
fn rank_begins(rank: i64) -> i32 {
    i32::try_from(rank << RANK_BITS).unwrap_or(i32::MAX)
}

/// The routes that are due and open, some of each rank; and when the next of the others is due. Begins in each rank
/// behind where the last claim ended that did not see all of it.
async fn open_routes(
    tx: &Transaction<'_>,
    mut walked: HashMap<i64, i64>,
    terms: &mut dyn Terms,
    now: Timestamp,
) -> Result<DueRoutes, DatabaseError> {
    let stretch = |rank: i64| {
        let start = walked
            .get(&rank)
            .and_then(|at| i32::try_from(*at).ok())
            .unwrap_or(rank_begins(rank));
        Stretch {
            rank,
            start,
            after: start,
            until: rank_begins(rank + 1) - 1,
            wrapped: false,
            found: 0,
        }
    };
    let mut stretches: Vec<Stretch> = (0..RANKS).map(stretch).collect();
    let (mut open, mut next_due) = (Vec::new(), None::<Timestamp>);
    for _ in 0..LOOKS {
        let mut seen = vec![0; stretches.len()];
        for (place, number, route, ready_at) in ready_routes(tx, &stretches).await? {
            let (Some(stretch), Some(seen)) = (stretches.get_mut(place), seen.get_mut(place))
            else {
                continue;
            };
            *seen += 1;
            stretch.after = stretch.after.max(number);
            let Some(route) = route.filter(|route| terms.open(route) > 0) else {
                continue;
            };
            if ready_at <= now {
                open.push((number, route));
                stretch.found += 1;
            } else {
                next_due = Some(next_due.map_or(ready_at, |before| before.min(ready_at)));
            }
        }
        let mut seen = seen.into_iter();
        stretches.retain_mut(|stretch| {
            let whole = seen.next().unwrap_or(0) < ROUTES;
            let begins = rank_begins(stretch.rank);
            if stretch.found >= ROUTES {
                walked.insert(stretch.rank, stretch.after.into());
                return false;
            }
            if whole && (stretch.wrapped || stretch.start == begins) {
                walked.remove(&stretch.rank);
                return false;
            }
            if whole {
                (stretch.after, stretch.until, stretch.wrapped) = (begins, stretch.start, true);
            }
            true
        });
        if stretches.is_empty() {
            break;
        }
    }
    for stretch in stretches {
        walked.insert(stretch.rank, stretch.after.into());
    }
    Ok(DueRoutes {
        open,
        next_due,
        walked,
    })
}

/// Of each stretch the next routes with lanes that are not leased, and when the first lane of each is ready. Goes from
/// route to route by the index, whatever stands in it between them.
async fn ready_routes(
    tx: &Transaction<'_>,
    stretches: &[Stretch],
) -> Result<Vec<(usize, i32, Option<Route>, Timestamp)>, DatabaseError> {
    let afters: Vec<i32> = stretches.iter().map(|stretch| stretch.after).collect();
    let untils: Vec<i32> = stretches.iter().map(|stretch| stretch.until).collect();
    let found = rows(
        tx,
        "SELECT n.place, x.route, x.source, x.destination, x.account, x.class, x.ready_at
         FROM unnest($1::integer[], $2::integer[]) WITH ORDINALITY AS n (after, until, place)
            CROSS JOIN LATERAL (
                WITH RECURSIVE r (route) AS (
                    (SELECT l.route FROM lane AS l WHERE l.delivery IS NULL AND l.route > n.after AND l.route <= n.until
                     ORDER BY l.route LIMIT 1)
                    UNION ALL
                    SELECT (SELECT l.route FROM lane AS l
                            WHERE l.delivery IS NULL AND l.route > r.route AND l.route <= n.until
                            ORDER BY l.route LIMIT 1) FROM r WHERE r.route IS NOT NULL
                )
                SELECT r.route, t.source, t.destination, t.account, t.class,
                       (SELECT l.ready_at FROM lane AS l WHERE l.delivery IS NULL AND l.route = r.route
                        ORDER BY l.ready_at, l.id LIMIT 1) AS ready_at
                FROM r JOIN route AS t ON t.id = r.route LIMIT $3
            ) AS x ORDER BY n.place",
        &[&afters, &untils, &i64::try_from(ROUTES).unwrap_or(i64::MAX)],
    )
    .await?;
    let mut ready = Vec::with_capacity(found.len());
    for row in found {
        let place = usize::try_from(row.try_get::<_, i64>(0)? - 1).unwrap_or(usize::MAX);
        let number = row.try_get(1)?;
        let route = routes::read(&row, 2).ok();
        if route.is_none() {
            tracing::error!(route = number, "a bug: a route cannot be read");
        }
        let ready_at = row.try_get::<_, Option<i64>>(6)?.unwrap_or(i64::MAX);
        ready.push((place, number, route, Timestamp::from_millis(ready_at)));
    }
    Ok(ready)
}

/// Locks due lanes, passing over those that somebody has locked. Returns their numbers and names, with their routes.
async fn lock_lanes(
    tx: &Transaction<'_>,
    due: &[(i32, Route, usize)],
    room: usize,
    now: Timestamp,
) -> Result<Vec<(i64, Uuid, Route, i32)>, DatabaseError> {
    let routes: Vec<i32> = due.iter().map(|(number, ..)| *number).collect();
    let shares: Vec<i64> = due
        .iter()
        .map(|(.., share)| i64::try_from(*share).unwrap_or(i64::MAX))
        .collect();
    let found = rows(
        tx,
        "SELECT l.id, l.lane, n.place FROM unnest($1::integer[], $2::bigint[]) WITH ORDINALITY AS n (route, most, place)
            CROSS JOIN LATERAL (
                SELECT l.id, l.lane FROM lane AS l
                WHERE l.delivery IS NULL AND l.route = n.route AND l.ready_at <= $3
                ORDER BY l.ready_at, l.id LIMIT n.most FOR UPDATE SKIP LOCKED
            ) AS l",
        &[&routes, &shares, &now.millis()],
    )
    .await?;
    let mut lanes = Vec::with_capacity(found.len().min(room));
    for row in found {
        let place = usize::try_from(row.try_get::<_, i64>(2)?).unwrap_or(0);
        if let Some((number, route, _)) = due.get(place.wrapping_sub(1)) {
            lanes.push((row.try_get(0)?, row.try_get(1)?, route.clone(), *number));
        }
    }
    Ok(lanes)
}

/// A lane that is locked, with its first pending delivery; none: a lane without work.
struct LaneHead {
    lane: i64,
    name: Uuid,
    route: Route,
    number: i32,
    first: Option<First>,
}

struct First {
    key: i64,
    event: i64,
    route: i32,
    attempts: u32,
    strikes: u32,
    doubt: Option<Timestamp>,
    sealed: bool,
    dropped: i32,
    bytes: i64,
    /// Whether others go with it already.
    leads: bool,
}

async fn heads(
    tx: &Transaction<'_>,
    lanes: &[(i64, Uuid, Route, i32)],
) -> Result<Vec<LaneHead>, DatabaseError> {
    let numbers: Vec<i64> = lanes.iter().map(|(lane, ..)| *lane).collect();
    let found = rows(
        tx,
        "SELECT d.key, d.event, d.route, d.attempts, d.strikes, d.doubt, d.sealed, d.dropped,
                (SELECT e.bytes FROM event AS e WHERE e.seq = d.event),
                EXISTS (SELECT FROM delivery AS m WHERE m.leader = d.key AND m.leader IS NOT NULL
                            AND m.state = 'merged')
         FROM unnest($1::bigint[]) WITH ORDINALITY AS n (lane, place)
            LEFT JOIN LATERAL (SELECT d.* FROM delivery AS d WHERE d.lane = n.lane AND d.state = 'pending'
                               ORDER BY d.key LIMIT 1) AS d ON true
         ORDER BY n.place",
        &[&numbers],
    )
    .await?;
    let head = |((lane, name, route, number), row): (&(i64, Uuid, Route, i32), Row)| -> Result<LaneHead, DatabaseError> {
        let first = match row.try_get::<_, Option<i64>>(0)? {
            None => None,
            Some(key) => Some(First {
                key,
                event: row.try_get(1)?,
                route: row.try_get(2)?,
                attempts: count(&row, 3)?,
                strikes: count(&row, 4)?,
                doubt: row.try_get::<_, Option<i64>>(5)?.map(Timestamp::from_millis),
                sealed: row.try_get(6)?,
                dropped: row.try_get(7)?,
                bytes: row.try_get::<_, Option<i64>>(8)?.unwrap_or(0),
                leads: row.try_get(9)?,
            }),
        };
        Ok(LaneHead { lane: *lane, name: *name, route: route.clone(), number: *number, first })
    };
    lanes.iter().zip(found).map(head).collect()
}

fn count(row: &Row, column: usize) -> Result<u32, DatabaseError> {
    Ok(u32::try_from(row.try_get::<_, i32>(column)?).unwrap_or_default())
}

/// What a claim is about to do.
#[derive(Default)]
struct ClaimPlan {
    leases: Vec<Lease>,
    lanes: Vec<i64>,
    took: BTreeMap<Route, usize>,
    bytes: i64,
    /// Lanes whose first delivery is another than was thought, or none.
    stirred: Vec<i64>,
    /// Deliveries that go nowhere or with another, and with which.
    passed: Vec<PassedOver>,
    /// How many were dropped in favour of a delivery.
    favoured: Vec<(i64, i64, i32)>,
    by_source: BTreeMap<String, u64>,
    merged: BTreeMap<String, i64>,
    ended: Vec<DeliveryId>,
}

struct PassedOver {
    lane: i64,
    key: i64,
    leader: Option<i64>,
    state: DeliveryState,
}

/// Deliveries of one lane that belong together and were never tried, oldest first.
struct LaneRun {
    waiting: Vec<Waiting>,
    /// Event, whether grouped and how many were dropped for it, of each.
    beside: HashMap<i64, (i64, i32)>,
    whole: bool,
}

impl ClaimPlan {
    /// Decides over one lane.
    async fn consider(
        &mut self,
        tx: &Transaction<'_>,
        head: &LaneHead,
        terms: &mut dyn Terms,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        let Some(first) = &head.first else {
            // It should not be there, and does no harm when it is gone.
            self.stirred.push(head.lane);
            return Ok(());
        };
        if first.route != head.number {
            self.stirred.push(head.lane);
            return Ok(());
        }
        if self.bytes >= BYTES {
            return Ok(());
        }
        let overlap = terms.overlap(&head.route.source);
        let plain = matches!(
            overlap,
            Overlap {
                mode: OverlapMode::Queue | OverlapMode::Reject,
                age: None,
                ..
            }
        );
        if plain || first.attempts > 0 || first.sealed || first.leads {
            self.push(
                head,
                first,
                first.key,
                first.event,
                first.leads,
                first.dropped,
                now,
            );
            return Ok(());
        }
        let run = run(tx, head, overlap).await?;
        let decision = overlap::decide(overlap, &run.waiting, run.whole, now);
        if decision.leader.is_none() && decision.dropped.is_empty() {
            return Ok(());
        }
        // Whoever goes out speaks for those that went nowhere, also for those of whom one of these was to speak.
        let inherited: i32 = decision
            .dropped
            .iter()
            .chain(&decision.merged)
            .filter_map(|key| run.beside.get(key))
            .map(|(_, dropped)| *dropped)
            .sum();
        let dropped =
            inherited.saturating_add(i32::try_from(decision.dropped.len()).unwrap_or(i32::MAX));
        let pass = |key: &i64, state| PassedOver {
            lane: head.lane,
            key: *key,
            leader: decision.leader,
            state,
        };
        self.passed.extend(
            decision
                .dropped
                .iter()
                .map(|key| pass(key, DeliveryState::Dropped)),
        );
        self.passed.extend(
            decision
                .merged
                .iter()
                .map(|key| pass(key, DeliveryState::Merged)),
        );
        if !decision.dropped.is_empty() {
            *self.by_source.entry(head.route.source.clone()).or_default() +=
                decision.dropped.len() as u64;
        }
        if !decision.merged.is_empty() {
            let merged = i64::try_from(decision.merged.len()).unwrap_or(i64::MAX);
            *self.merged.entry(head.route.source.clone()).or_default() += merged;
        }
        let Some(leader) = decision.leader else {
            // What comes after these is looked at by the next claim, which has to know how many they were.
            self.stirred.push(head.lane);
            let last = decision.dropped.last().copied().unwrap_or(first.key);
            self.favoured.push((head.lane, last, dropped));
            return Ok(());
        };
        let (event, own) = run.beside.get(&leader).copied().unwrap_or((first.event, 0));
        if dropped > 0 {
            self.favoured.push((head.lane, leader - 1, dropped));
        }
        self.bytes += run
            .waiting
            .iter()
            .filter(|one| decision.merged.contains(&one.key))
            .fold(0_i64, |sum, one| {
                sum.saturating_add(i64::try_from(one.bytes).unwrap_or(i64::MAX))
            });
        let grouped = !decision.merged.is_empty();
        self.push(
            head,
            first,
            leader,
            event,
            grouped,
            own.saturating_add(dropped),
            now,
        );
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "a lease")]
    fn push(
        &mut self,
        head: &LaneHead,
        first: &First,
        key: i64,
        event: i64,
        grouped: bool,
        dropped: i32,
        now: Timestamp,
    ) {
        // The one that goes is the first of the lane, or was never tried.
        let own = key == first.key;
        let (attempts, strikes) = if own {
            (first.attempts, first.strikes)
        } else {
            (0, 0)
        };
        self.bytes = self.bytes.saturating_add(first.bytes);
        *self.took.entry(head.route.clone()).or_default() += 1;
        self.lanes.push(head.lane);
        self.leases.push(Lease {
            key,
            event,
            lane: head.name,
            fence: 0,
            attempt: attempts.saturating_add(1),
            strikes: strikes.saturating_add(1),
            doubt: if own { first.doubt } else { None },
            at: now,
            grouped,
            dropped: u32::try_from(dropped).unwrap_or_default(),
        });
    }

    /// Does it.
    async fn take(
        &mut self,
        tx: &Transaction<'_>,
        slot: i32,
        replica: i64,
        terms: &mut dyn Terms,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        let mut counts = Counts::default();
        if !self.passed.is_empty() {
            self.ended = pass(tx, &self.passed).await?;
            favour(tx, &self.favoured).await?;
            for (source, dropped) in &self.by_source {
                let by = i64::try_from(*dropped).unwrap_or(i64::MAX);
                counts.add(source, DeliveryState::Pending, -by);
                counts.add(source, DeliveryState::Dropped, by);
            }
            for (source, by) in &self.merged {
                counts.add(source, DeliveryState::Pending, -by);
                counts.add(source, DeliveryState::Merged, *by);
            }
        }
        if !self.stirred.is_empty() {
            super::settle::free_lanes(tx, &self.stirred, &vec![None; self.stirred.len()]).await?;
        }
        if !self.leases.is_empty() {
            let keys: Vec<i64> = self.leases.iter().map(|lease| lease.key).collect();
            let (fences, ()) = tokio::try_join!(
                lease_lanes(tx, &self.lanes, &keys, replica),
                lease_deliveries(tx, &self.lanes, &keys, now),
            )?;
            for (lease, lane) in self.leases.iter_mut().zip(&self.lanes) {
                lease.fence = fences.get(lane).copied().ok_or_else(|| {
                    DatabaseError::Engine("a lane that was locked is gone".into())
                })?;
            }
        }
        for (route, count) in &self.took {
            terms.took(route, *count);
            let by = i64::try_from(*count).unwrap_or(i64::MAX);
            counts.add(&route.source, DeliveryState::Pending, -by);
            counts.add(&route.source, DeliveryState::Leased, by);
        }
        counts.write(tx, slot).await
    }
}

/// The first deliveries of a lane, as far as they belong to the first one.
async fn run(
    tx: &Transaction<'_>,
    head: &LaneHead,
    overlap: Overlap,
) -> Result<LaneRun, DatabaseError> {
    let most = TURNS + i64::from(overlap.depth.unwrap_or(0).min(100_000));
    let found = rows(
        tx,
        "SELECT d.key, d.event, d.route, d.attempts, d.sealed, d.dropped, e.received_at, e.bytes
         FROM (SELECT d.* FROM delivery AS d WHERE d.lane = $1 AND d.state = 'pending' ORDER BY d.key LIMIT $2) AS d
            JOIN event AS e ON e.seq = d.event ORDER BY d.key",
        &[&head.lane, &most],
    )
    .await?;
    let whole = i64::try_from(found.len()).is_ok_and(|count| count < most);
    let mut run = LaneRun {
        waiting: Vec::with_capacity(found.len()),
        beside: HashMap::new(),
        whole,
    };
    for row in found {
        let of_it = row.try_get::<_, i32>(2)? == head.number && row.try_get::<_, i32>(3)? == 0;
        if !of_it || row.try_get::<_, bool>(4)? {
            run.whole = true;
            break;
        }
        let key = row.try_get(0)?;
        run.beside.insert(key, (row.try_get(1)?, row.try_get(5)?));
        run.waiting.push(Waiting {
            key,
            received_at: Timestamp::from_millis(row.try_get(6)?),
            bytes: u64::try_from(row.try_get::<_, i64>(7)?).unwrap_or(0),
        });
    }
    Ok(run)
}

/// Writes what goes nowhere or with another. Returns all of it.
async fn pass(
    tx: &Transaction<'_>,
    passed: &[PassedOver],
) -> Result<Vec<DeliveryId>, DatabaseError> {
    let lanes: Vec<i64> = passed.iter().map(|one| one.lane).collect();
    let keys: Vec<i64> = passed.iter().map(|one| one.key).collect();
    let leaders: Vec<Option<i64>> = passed.iter().map(|one| one.leader).collect();
    let states: Vec<&str> = passed.iter().map(|one| one.state.as_str()).collect();
    let found = rows(
        tx,
        "UPDATE delivery AS d SET state = n.state, leader = n.leader
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS n (lane, key, leader, state), event AS e
         WHERE d.lane = n.lane AND d.key = n.key AND d.state IN ('pending', 'leased') AND e.seq = d.event
         RETURNING e.id, d.number",
        &[&lanes, &keys, &leaders, &states],
    )
    .await?;
    // Those that go with another have not ended; whoever waits for them is to wait for that one.
    found.iter().map(|row| delivery_id(row, 0, 1)).collect()
}

/// Notes how many were dropped, with the first delivery behind a number.
async fn favour(tx: &Transaction<'_>, favoured: &[(i64, i64, i32)]) -> Result<(), DatabaseError> {
    if favoured.is_empty() {
        return Ok(());
    }
    let lanes: Vec<i64> = favoured.iter().map(|(lane, ..)| *lane).collect();
    let keys: Vec<i64> = favoured.iter().map(|(_, key, _)| *key).collect();
    let counts: Vec<i32> = favoured.iter().map(|(.., count)| *count).collect();
    change(
        tx,
        "WITH n AS MATERIALIZED (
            SELECT n.lane, n.count, (SELECT d.key FROM delivery AS d WHERE d.lane = n.lane AND d.state = 'pending'
                                        AND d.key > n.after ORDER BY d.key LIMIT 1) AS key
            FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS n (lane, after, count)
         )
         UPDATE delivery AS d SET dropped = d.dropped + n.count
         FROM n WHERE d.lane = n.lane AND d.key = n.key AND d.state IN ('pending', 'leased')",
        &[&lanes, &keys, &counts],
    )
    .await
    .map(|_| ())
}

/// Notes leases with their lanes. Returns their numbers.
async fn lease_lanes(
    tx: &Transaction<'_>,
    lanes: &[i64],
    keys: &[i64],
    replica: i64,
) -> Result<HashMap<i64, i64>, DatabaseError> {
    let found = rows(
        tx,
        "UPDATE lane AS l SET delivery = n.key, owner = $3, fence = nextval('fence')
         FROM unnest($1::bigint[], $2::bigint[]) AS n (lane, key) WHERE l.id = n.lane RETURNING l.id, l.fence",
        &[&lanes, &keys, &replica],
    )
    .await?;
    found
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// Counts the tries, and notes the doubt.
async fn lease_deliveries(
    tx: &Transaction<'_>,
    lanes: &[i64],
    keys: &[i64],
    now: Timestamp,
) -> Result<(), DatabaseError> {
    change(
        tx,
        "UPDATE delivery AS d SET state = 'leased', attempts = d.attempts + 1, strikes = d.strikes + 1,
                                  doubt = coalesce(d.doubt, $3)
         FROM unnest($1::bigint[], $2::bigint[]) AS n (lane, key)
         WHERE d.lane = n.lane AND d.key = n.key AND d.state IN ('pending', 'leased')",
        &[&lanes, &keys, &now.millis()],
    )
    .await
    .map(|_| ())
}

/// Reads what goes with leases. What cannot be read comes back as its lease, with the cause.
pub(super) async fn fill(
    tx: &Transaction<'_>,
    leases: &[Lease],
) -> Result<(Vec<Claimed>, Vec<(Lease, String)>), DatabaseError> {
    let keys: Vec<i64> = leases.iter().map(|lease| lease.key).collect();
    let events: Vec<i64> = leases.iter().map(|lease| lease.event).collect();
    let found = rows(
        tx,
        "SELECT d.key, e.id, d.number, r.destination, d.upstream_id, e.source, e.event_type, e.thread, e.received_at,
                b.params, b.headers, b.body, d.sealed, s.call, r.account, r.class
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
    let mut files = attachment::of_events(tx, &[events, merged].concat()).await?;
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
        match one {
            Ok(one) => claimed.push(one),
            Err(cause) => unreadable.push((lease.clone(), cause)),
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
        id: delivery_id(row, 1, 2)?,
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

/// A caller's text, kept as bytes.
pub(super) fn text(row: &Row, column: usize) -> Result<Option<String>, DatabaseError> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

/// What goes with each of these, in order of arrival.
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
