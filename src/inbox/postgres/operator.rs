//! Orders of operators: replaying, calling a delivery off, settling by hand, pausing.

use std::str::FromStr as _;

use async_trait::async_trait;
use deadpool_postgres::{Client, Transaction};
use uuid::Uuid;

use super::attempt::prune_attempts;
use super::database::{Counts, change, rows};
use super::error::DatabaseError;
use super::lane::{first_pending, make_lane, stir};
use super::replay::Again;
use super::row::text;
use super::settle::erase_calls;
use super::{PostgresInbox, database, routes};
use crate::inbox::bounds::{MAX_TEXT, cut};
use crate::inbox::{Anew, InboxError, Operate, Pause, Replayed, Resolution};
use crate::model::{DeliveryId, DeliveryState, Destination, EventId, NewDelivery, Timestamp};

/// A delivery whose lane is locked.
struct LockedDelivery {
    key: i64,
    route: i32,
    source: String,
    state: DeliveryState,
    attempts: i32,
    /// The lane, where it has work.
    lane: Option<Lane>,
    name: Uuid,
}

struct Lane {
    id: i64,
    leased: bool,
}

/// Finds a delivery and locks its lane, and the event where the lane has no work: nobody else changes it meanwhile.
async fn find(
    tx: &Transaction<'_>,
    id: DeliveryId,
) -> Result<Option<LockedDelivery>, DatabaseError> {
    let event = Uuid::from_bytes(*id.event.as_bytes());
    let number = i32::try_from(id.number).unwrap_or(i32::MAX);
    let row = rows(
        tx,
        "SELECT r.destination, d.upstream_id, r.account, l.lane FROM event AS e JOIN delivery AS d ON d.event = e.seq
            JOIN route AS r ON r.id = d.route
            LEFT JOIN lane AS l ON d.state IN ('pending', 'leased') AND l.id = d.lane WHERE e.id = $1 AND d.number = $2 FOR UPDATE OF e",
        &[&event, &number],
    )
    .await?;
    let Some(row) = row.first() else {
        return Ok(None);
    };
    let destination = Destination::from_str(row.try_get(0)?)
        .map_err(|_| DatabaseError::Engine("a route's destination cannot be read".into()))?;
    // One that waits stands in a lane already, maybe one that was named before there were accounts.
    let name = match row.try_get(3)? {
        Some(name) => name,
        None => destination.lane(
            &routes::account(row, 2)?,
            &text(row, 1)?.unwrap_or_default(),
        ),
    };
    let sql = "SELECT id, delivery IS NOT NULL FROM lane WHERE lane = $1 FOR UPDATE";
    let lane = match rows(tx, sql, &[&name]).await?.first() {
        Some(row) => Some(Lane {
            id: row.try_get(0)?,
            leased: row.try_get(1)?,
        }),
        None => None,
    };
    // Read after the lock.
    let row = rows(
        tx,
        "SELECT d.key, d.route, e.source, d.state, d.attempts FROM event AS e JOIN delivery AS d ON d.event = e.seq
         WHERE e.id = $1 AND d.number = $2",
        &[&event, &number],
    )
    .await?;
    let Some(row) = row.first() else {
        return Ok(None);
    };
    let word: &str = row.try_get(3)?;
    Ok(Some(LockedDelivery {
        key: row.try_get(0)?,
        route: row.try_get(1)?,
        source: row.try_get(2)?,
        state: DeliveryState::parse(word)
            .ok_or_else(|| DatabaseError::Engine(format!("{word:?} is no state")))?,
        attempts: row.try_get(4)?,
        lane,
        name,
    }))
}

/// Calls a pending delivery off. When it was its lane's first, what waited behind it waits no longer.
pub(super) async fn cancel(
    conn: &mut Client,
    slot: i32,
    id: DeliveryId,
    now: Timestamp,
) -> Result<bool, DatabaseError> {
    let tx = conn.transaction().await?;
    let Some(found) = find(&tx, id).await? else {
        return Ok(false);
    };
    let mut counts = Counts::default();
    if found.state == DeliveryState::Unmappable {
        // It stands in no lane, and nobody waits for it.
        let sql =
            "UPDATE delivery SET state = 'cancelled' WHERE key + 0 = $1 AND state = 'unmappable'";
        let changed = change(&tx, sql, &[&found.key]).await? == 1;
        if changed {
            counts.add(&found.source, DeliveryState::Unmappable, -1);
            counts.add(&found.source, DeliveryState::Cancelled, 1);
            counts.write(&tx, slot).await?;
            tx.commit().await?;
        }
        return Ok(changed);
    }
    let (DeliveryState::Pending, Some(lane)) = (found.state, &found.lane) else {
        return Ok(false);
    };
    let first = first_pending(&tx, lane.id).await? == Some(found.key);
    change(
        &tx,
        "UPDATE delivery SET state = 'cancelled' WHERE lane = $1 AND key = $2 AND state IN ('pending', 'leased')",
        &[&lane.id, &found.key],
    )
    .await?;
    erase_calls(&tx, &[found.key]).await?;
    if first && !lane.leased {
        // Under lease the lane's own settlement sees to it.
        stir(&tx, lane.id, now).await?;
    }
    counts.add(&found.source, DeliveryState::Pending, -1);
    counts.add(&found.source, DeliveryState::Cancelled, 1);
    counts.write(&tx, slot).await?;
    tx.commit().await?;
    Ok(true)
}

/// Settles by hand what nobody could tell.
pub(super) async fn resolve(
    conn: &mut Client,
    slot: i32,
    id: DeliveryId,
    how: Resolution,
    (note, now): (&str, Timestamp),
) -> Result<bool, DatabaseError> {
    let tx = conn.transaction().await?;
    let Some(found) = find(&tx, id).await? else {
        return Ok(false);
    };
    if found.state != DeliveryState::Unknown {
        return Ok(false);
    }
    let state = match how {
        Resolution::Delivered => DeliveryState::Delivered,
        Resolution::Dead => DeliveryState::Dead,
        Resolution::Again => DeliveryState::Pending,
    };
    if how == Resolution::Again {
        let lane = match &found.lane {
            Some(lane) => lane.id,
            None => make_lane(&tx, found.name, found.route, now).await?,
        };
        change(
            &tx,
            "UPDATE delivery SET state = 'pending', lane = $2, doubt = NULL, strikes = 0 WHERE key + 0 = $1",
            &[&found.key, &lane],
        )
        .await?;
        if found.lane.as_ref().is_none_or(|lane| !lane.leased)
            && first_pending(&tx, lane).await? == Some(found.key)
        {
            stir(&tx, lane, now).await?;
        }
    } else {
        change(
            &tx,
            "UPDATE delivery SET state = $2, doubt = NULL WHERE key + 0 = $1",
            &[&found.key, &state.as_str()],
        )
        .await?;
        erase_calls(&tx, &[found.key]).await?;
    }
    change(
        &tx,
        "INSERT INTO attempt (delivery, fence, number, started_at, ended_at, result, detail)
         VALUES ($1, 0, $2, $3, $3, $4, $5)",
        &[
            &found.key,
            &found.attempts,
            &now.millis(),
            &&b"by_hand"[..],
            &cut(note, MAX_TEXT).as_bytes(),
        ],
    )
    .await?;
    prune_attempts(&tx, &[found.key]).await?;
    let mut counts = Counts::default();
    counts.add(&found.source, DeliveryState::Unknown, -1);
    counts.add(&found.source, state, 1);
    counts.write(&tx, slot).await?;
    tx.commit().await?;
    Ok(true)
}

/// Holds or lets go. False when it was so already.
pub(super) async fn set_paused(
    conn: &mut Client,
    what: &Pause,
    on: bool,
    now: Timestamp,
) -> Result<bool, DatabaseError> {
    let what = match what {
        Pause::All => "all/".to_owned(),
        Pause::Source(name) => format!("source/{name}"),
        Pause::Destination(destination) => format!("destination/{destination}"),
    };
    let tx = conn.transaction().await?;
    let changed = if on {
        let sql = "INSERT INTO hold (what, held_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        change(&tx, sql, &[&what, &now.millis()]).await?
    } else {
        change(&tx, "DELETE FROM hold WHERE what = $1", &[&what]).await?
    };
    tx.commit().await?;
    Ok(changed == 1)
}

/// Reads the pauses, each with its beginning.
pub(super) async fn pauses(conn: &mut Client) -> Result<Vec<(Pause, Timestamp)>, DatabaseError> {
    let tx = conn.transaction().await?;
    let mut holds = Vec::new();
    for row in rows(&tx, "SELECT what, held_at FROM hold ORDER BY what", &[]).await? {
        let what: &str = row.try_get(0)?;
        let hold = match what.split_once('/') {
            Some(("all", _)) => Pause::All,
            Some(("source", name)) => Pause::Source(name.to_owned()),
            Some(("destination", rest)) => match rest.parse() {
                Ok(destination) => Pause::Destination(destination),
                Err(_) => continue,
            },
            _ => continue,
        };
        holds.push((hold, Timestamp::from_millis(row.try_get(1)?)));
    }
    Ok(holds)
}

#[async_trait]
impl Operate for PostgresInbox {
    async fn replay(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        now: Timestamp,
    ) -> Result<Replayed, InboxError> {
        self.owe_again(
            &Again {
                event: id,
                first,
                to: &to,
                anew: None,
            },
            now,
        )
        .await
    }

    async fn replay_anew(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        anew: Anew,
        now: Timestamp,
    ) -> Result<Replayed, InboxError> {
        self.owe_again(
            &Again {
                event: id,
                first,
                to: &to,
                anew: Some(&anew),
            },
            now,
        )
        .await
    }

    async fn cancel(&self, id: DeliveryId, now: Timestamp) -> Result<bool, InboxError> {
        let slot = database::slot();
        let done = writing!(self, "cancel", |conn| cancel(conn, slot, id, now))?;
        if done {
            self.health.tell(true, &[id]);
        }
        Ok(done)
    }

    async fn resolve(
        &self,
        id: DeliveryId,
        how: Resolution,
        note: &str,
        now: Timestamp,
    ) -> Result<bool, InboxError> {
        let slot = database::slot();
        let done = writing!(self, "resolve", |conn| resolve(
            conn,
            slot,
            id,
            how,
            (note, now)
        ))?;
        if done {
            self.health.tell(true, &[id]);
        }
        Ok(done)
    }

    async fn set_paused(&self, what: &Pause, on: bool, now: Timestamp) -> Result<bool, InboxError> {
        let changed = writing!(self, "hold", |conn| set_paused(conn, what, on, now))?;
        self.health.tell(true, &[]);
        Ok(changed)
    }

    async fn pauses(&self) -> Result<Vec<(Pause, Timestamp)>, InboxError> {
        reading!(self, "read what is held", |conn| pauses(conn))
    }
}
