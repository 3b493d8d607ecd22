//! Events that are turned away: too much of their lane or of their source waits.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::database::rows;
use super::dedup::known;
use super::error::DatabaseError;
use super::lane::Locked;
use super::proof::Played;
use super::routes;
use crate::model::{Accepted, EventId, NewEvent, Route, Timestamp};

/// Says which events are turned away, being known or having too much ahead of them. Only asked where one of the batch
/// minds what is ahead of it. The events of one request do not stand in each other's way, and are turned away together.
pub(super) async fn judge(
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
    let limits = lane_limits(events, lanes);
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

/// The number of deliveries to count in each lane: one more than its events accept before them.
fn lane_limits(events: &[&NewEvent], lanes: &HashMap<Uuid, Locked>) -> HashMap<i64, i64> {
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
    limits
}

/// The deliveries that wait of those sources of a batch which have a bound on them.
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

    /// True if it is to be turned away.
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

/// Deliveries that wait or are in flight in each lane, counted up to a limit.
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
