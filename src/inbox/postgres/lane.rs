//! Lanes: the rows that say which delivery of a conversation is next, and from when on.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use uuid::Uuid;

use super::database::{change, rows};
use super::error::DatabaseError;
use super::routes;
use crate::model::{NewEvent, Route, Timestamp};

/// Locks due lanes, passing over those that somebody has locked. Returns their numbers and names, with their routes.
pub(super) async fn lock_lanes(
    tx: &Transaction<'_>,
    due: &[(i32, Route, usize)],
    room: usize,
    now: Timestamp,
) -> Result<Vec<LockedLane>, DatabaseError> {
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
            lanes.push(LockedLane {
                id: row.try_get(0)?,
                name: row.try_get(1)?,
                route: route.clone(),
                number: *number,
            });
        }
    }
    Ok(lanes)
}

/// A lane that a claim has locked.
pub(super) struct LockedLane {
    id: i64,
    name: Uuid,
    route: Route,
    number: i32,
}

/// A lane that is locked, with its first pending delivery; none: a lane without work.
pub(super) struct LaneHead {
    pub(super) lane: i64,
    pub(super) name: Uuid,
    pub(super) route: Route,
    pub(super) number: i32,
    pub(super) first: Option<First>,
}

/// The first pending delivery of a lane.
pub(super) struct First {
    pub(super) key: i64,
    pub(super) event: i64,
    pub(super) route: i32,
    pub(super) attempts: u32,
    pub(super) strikes: u32,
    pub(super) doubt: Option<Timestamp>,
    /// True if it goes out as it is, whatever waits behind it: it is sealed, or answers another delivery.
    pub(super) fixed: bool,
    pub(super) dropped: i32,
    pub(super) bytes: i64,
    /// True if others go with it already.
    pub(super) leads: bool,
}

/// Reads the first pending delivery of each of these lanes.
pub(super) async fn heads(
    tx: &Transaction<'_>,
    lanes: Vec<LockedLane>,
) -> Result<Vec<LaneHead>, DatabaseError> {
    let numbers: Vec<i64> = lanes.iter().map(|lane| lane.id).collect();
    let found = rows(
        tx,
        "SELECT d.key, d.event, d.route, d.attempts, d.strikes, d.doubt, d.sealed OR d.answers IS NOT NULL, d.dropped,
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
    let head = |(lane, row): (LockedLane, Row)| -> Result<LaneHead, DatabaseError> {
        let first = match row.try_get::<_, Option<i64>>(0)? {
            None => None,
            Some(key) => Some(First {
                key,
                event: row.try_get(1)?,
                route: row.try_get(2)?,
                attempts: count(&row, 3)?,
                strikes: count(&row, 4)?,
                doubt: row
                    .try_get::<_, Option<i64>>(5)?
                    .map(Timestamp::from_millis),
                fixed: row.try_get(6)?,
                dropped: row.try_get(7)?,
                bytes: row.try_get::<_, Option<i64>>(8)?.unwrap_or(0),
                leads: row.try_get(9)?,
            }),
        };
        Ok(LaneHead {
            lane: lane.id,
            name: lane.name,
            route: lane.route,
            number: lane.number,
            first,
        })
    };
    lanes.into_iter().zip(found).map(head).collect()
}

fn count(row: &Row, column: usize) -> Result<u32, DatabaseError> {
    Ok(u32::try_from(row.try_get::<_, i32>(column)?).unwrap_or_default())
}

/// Lets the lanes' next deliveries come, from a time on or from when they were due before; a lane without one goes.
/// Read anew, after what this transaction did to its deliveries.
pub(super) async fn free_lanes(
    tx: &Transaction<'_>,
    lanes: &[i64],
    times: &[Option<i64>],
) -> Result<(), DatabaseError> {
    change(
        tx,
        "WITH n AS MATERIALIZED (
            SELECT n.id, n.ready_at, (SELECT d.route FROM delivery AS d WHERE d.lane = n.id AND d.state = 'pending'
                                      ORDER BY d.key LIMIT 1) AS route
            FROM unnest($1::bigint[], $2::bigint[]) AS n (id, ready_at)
         ), gone AS (
            DELETE FROM lane AS l USING n WHERE l.id = n.id AND n.route IS NULL
         )
         UPDATE lane AS l SET delivery = NULL, owner = NULL, ready_at = coalesce(n.ready_at, l.ready_at),
                              route = n.route
         FROM n WHERE l.id = n.id AND n.route IS NOT NULL",
        &[&lanes, &times],
    )
    .await
    .map(|_| ())
}

/// A lane that has no work yet; another may have made it meanwhile.
pub(super) async fn make_lane(
    tx: &Transaction<'_>,
    name: Uuid,
    route: i32,
    now: Timestamp,
) -> Result<i64, DatabaseError> {
    let made = rows(
        tx,
        "INSERT INTO lane (lane, route, ready_at) VALUES ($1, $2, $3)
         ON CONFLICT (lane) DO UPDATE SET lane = excluded.lane RETURNING id",
        &[&name, &route, &now.millis()],
    )
    .await?;
    made.first()
        .map_or(Err(DatabaseError::Engine("no row".into())), |row| {
            Ok(row.try_get(0)?)
        })
}

/// Finds the first pending delivery of a lane.
pub(super) async fn first_pending(
    tx: &Transaction<'_>,
    lane: i64,
) -> Result<Option<i64>, DatabaseError> {
    let sql = "SELECT key FROM delivery WHERE lane = $1 AND state = 'pending' ORDER BY key LIMIT 1";
    Ok(rows(tx, sql, &[&lane])
        .await?
        .first()
        .map(|row| row.try_get(0))
        .transpose()?)
}

/// Has a lane that is not leased and has another first delivery than before go by that, now at the latest; one without
/// goes.
pub(super) async fn stir(
    tx: &Transaction<'_>,
    lane: i64,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    change(
        tx,
        "UPDATE lane SET ready_at = least(ready_at, $2) WHERE id = $1",
        &[&lane, &now.millis()],
    )
    .await?;
    free_lanes(tx, &[lane], &[None]).await
}

/// A lane that is locked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Locked {
    /// Its number.
    pub(super) id: i64,
    /// True if it had no work before.
    pub(super) made: bool,
    pub(super) route: i32,
    pub(super) ready_at: i64,
}

/// Locks the lanes of a batch, in order, and makes those that have no work yet. A lane that waits for a later try goes
/// on waiting.
pub(super) async fn lock_lanes_of(
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

/// Locks lanes, in order of name, and makes those that have no work yet.
pub(super) async fn lock(
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
    let lane = |row: &Row| -> Result<(Uuid, Locked), DatabaseError> {
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
