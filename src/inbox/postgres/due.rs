//! The look at the routes that have something due: some of each rank, by the index of lanes.

use std::collections::HashMap;

use deadpool_postgres::Transaction;

use super::database::rows;
use super::error::DatabaseError;
use super::routes::{self, RANK_BITS};
use crate::inbox::Terms;
use crate::inbox::fair::{RANKS, ROUTES};
use crate::model::{Route, Timestamp};

/// Number of looks, each at so many routes of every rank, that one claim takes at most.
const LOOKS: usize = 64;

/// The result of a look at the routes.
pub(super) struct DueRoutes {
    /// Those that are due and open, with their numbers.
    pub(super) open: Vec<(i32, Route)>,
    /// The time when the next of the others is due.
    pub(super) next_due: Option<Timestamp>,
    /// The place where the look ended in ranks that have more.
    pub(super) walked: HashMap<i64, i64>,
}

/// The part of a rank that is left to look at.
struct Stretch {
    rank: i64,
    /// The place where the look at it began, and the place it has come to.
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
pub(super) async fn open_routes(
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
