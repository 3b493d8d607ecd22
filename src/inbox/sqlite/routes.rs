//! Routes: their numbers, and the look at those that have something due.

use std::borrow::Cow;
use std::time::Duration;

use rusqlite::OptionalExtension;

use super::row;
use super::transaction::Transaction;
use crate::inbox::Terms;
use crate::inbox::fair::{self, ROUTES, Shares};
use crate::model::{Account, NewDelivery, Route, Timestamp};

/// Number of routes of a rank one claim looks at.
const LOOKS: usize = 4_096;

/// Time until it looks on when those were not all.
const SOON: Duration = Duration::from_secs(1);

/// The number of a delivery's route.
pub(super) fn route(
    tx: &mut Transaction<'_>,
    source: &str,
    destination: &str,
    delivery: &NewDelivery,
) -> rusqlite::Result<i64> {
    if let Some((last, id)) = &tx.route
        && last.source == source
        && (&last.destination, &last.account, last.class)
            == (&delivery.destination, &delivery.account, delivery.class)
    {
        return Ok(*id);
    }
    let id = find_route(tx, source, destination, delivery)?;
    tx.route = Some((delivery.route(source), id));
    Ok(id)
}

/// Looks a route up, and makes it where it is new.
fn find_route(
    tx: &Transaction<'_>,
    source: &str,
    destination: &str,
    delivery: &NewDelivery,
) -> rusqlite::Result<i64> {
    let route = (
        source,
        destination,
        account(&delivery.account),
        delivery.class.as_str(),
    );
    let known = tx
        .conn
        .prepare_cached("SELECT id FROM route WHERE source = ?1 AND destination = ?2 AND account = ?3 AND class = ?4")?
        .query_row((route.0, route.1, route.2.as_ref(), route.3), |row| row.get(0))
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    let rank = fair::rank(&delivery.account, delivery.class);
    let (begins, ends) = (rank_begins(rank), rank_begins(rank + 1));
    tx.conn
        .prepare_cached(
            "INSERT INTO route (id, source, destination, account, class)
             VALUES (1 + coalesce((SELECT max(id) FROM route WHERE id >= ?5 AND id < ?6), ?5), ?1, ?2, ?3, ?4)
             RETURNING id",
        )?
        .query_row((route.0, route.1, route.2.as_ref(), route.3, begins, ends), |row| row.get(0))
}

/// An account's word; the usual one costs nothing.
fn account(account: &Account) -> Cow<'static, str> {
    match account {
        Account::Operator => Cow::Borrowed("operator"),
        other => Cow::Owned(other.to_string()),
    }
}

/// The first number of a rank's routes.
const fn rank_begins(rank: i64) -> i64 {
    rank << 40
}

/// The result of a look at the routes.
pub(super) struct DueRoutes {
    /// Those that have something due and are open, with their numbers.
    pub(super) open: Vec<(i64, Route)>,
    /// The time when the first of an open one is due.
    pub(super) next_due: Option<Timestamp>,
}

/// The routes that have something due and are open, some of each rank; and, where there are none, when the first of an
/// open one is due.
pub(super) fn open_routes(
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
                Ok((row.get(0)?, Timestamp::from_millis(row.get(1)?), row::route(row, 2)?))
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
