//! Orders of operators: replaying, calling a delivery off, settling by hand, pausing.

use async_trait::async_trait;
use rusqlite::OptionalExtension;

use super::attempt;
use super::lane::{make_lane, next_pending};
use super::transaction::Transaction;
use super::{SqliteInbox, replay, row, settle};
use crate::inbox::{Anew, InboxError, Operate, Pause, Replayed, Resolution};
use crate::model::{
    Attempt, DeliveryId, DeliveryState, Destination, EventId, NewDelivery, Timestamp,
};

/// Calls a pending delivery off. When it was its lane's head, what waited behind it waits no longer.
pub(super) fn cancel(
    tx: &mut Transaction<'_>,
    id: DeliveryId,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let found = tx
        .conn
        .prepare_cached(
            "SELECT d.key, d.lane, d.state, e.source FROM event AS e JOIN delivery AS d ON d.event = e.seq
             WHERE e.id = ?1 AND d.number = ?2",
        )?
        .query_row((id.event.as_bytes(), id.number), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?))
        })
        .optional()?;
    let Some((key, lane, state, source)) = found else {
        return Ok(false);
    };
    if state == DeliveryState::Unmappable.as_str() {
        // It stands in no lane, and nobody waits for it.
        tx.conn
            .prepare_cached("UPDATE delivery SET state = 'cancelled' WHERE key = ?1")?
            .execute([key])?;
        tx.count(&source, DeliveryState::Unmappable, -1);
        tx.count(&source, DeliveryState::Cancelled, 1);
        return Ok(true);
    }
    if state != DeliveryState::Pending.as_str() {
        return Ok(false);
    }
    let head = next_pending(tx, lane)?.is_some_and(|(head, _)| head == key);
    tx.conn
        .prepare_cached("UPDATE delivery SET state = 'cancelled' WHERE key = ?1")?
        .execute([key])?;
    settle::erase_call(tx, key)?;
    if head {
        // Under lease the lane's own settlement sees to it.
        if let Some((_, route)) = next_pending(tx, lane)? {
            tx.conn
                .prepare_cached(
                    "UPDATE lane SET ready_at = min(ready_at, ?2), route = ?3 WHERE id = ?1 AND delivery IS NULL",
                )?
                .execute((lane, now.millis(), route))?;
        } else {
            tx.conn
                .prepare_cached("DELETE FROM lane WHERE id = ?1 AND delivery IS NULL")?
                .execute([lane])?;
        }
    }
    tx.count(&source, DeliveryState::Pending, -1);
    tx.count(&source, DeliveryState::Cancelled, 1);
    tx.work_due();
    tx.ended(id);
    for merged in settle::merged(tx, key)? {
        tx.ended(merged);
    }
    Ok(true)
}

/// Settles what nobody could tell. False: it is not there, or is settled.
pub(super) fn resolve(
    tx: &mut Transaction<'_>,
    id: DeliveryId,
    how: Resolution,
    note: &str,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let found = tx
        .conn
        .prepare_cached(
            "SELECT d.key, d.destination, d.upstream_id, d.route, d.attempts, e.source, r.account
             FROM event AS e JOIN delivery AS d ON d.event = e.seq LEFT JOIN route AS r ON r.id = d.route
             WHERE e.id = ?1 AND d.number = ?2 AND d.state = 'unknown'",
        )?
        .query_row((id.event.as_bytes(), id.number), |row| {
            let names = (row.get::<_, String>(1)?, row.get::<_, String>(2)?);
            let of = (row.get::<_, i64>(3)?, row::account(row, 6)?);
            Ok((row.get::<_, i64>(0)?, names, of, row.get::<_, u32>(4)?, row.get::<_, String>(5)?))
        })
        .optional()?;
    let Some((key, (destination, upstream_id), (route, account), attempts, source)) = found else {
        return Ok(false);
    };
    let state = match how {
        Resolution::Delivered => DeliveryState::Delivered,
        Resolution::Dead => DeliveryState::Dead,
        Resolution::Again => DeliveryState::Pending,
    };
    if how == Resolution::Again {
        let Ok(to) = destination.parse::<Destination>() else {
            return Ok(false);
        };
        let lane = make_lane(tx, to.lane(&account, &upstream_id), route, now)?;
        tx.conn
            .prepare_cached(
                "UPDATE delivery SET state = 'pending', doubt = NULL, strikes = 0, lane = ?2 WHERE key = ?1",
            )?
            .execute((key, lane))?;
        // Its number is an old one, so it may be its lane's first now, and does not wait for what the one behind it
        // waits for. A lane under lease is seen to when that ends.
        if next_pending(tx, lane)?.is_some_and(|(first, _)| first == key) {
            tx.conn
                .prepare_cached(
                    "UPDATE lane SET route = ?2, ready_at = min(ready_at, ?3)
                     WHERE id = ?1 AND delivery IS NULL",
                )?
                .execute((lane, route, now.millis()))?;
        }
        tx.work_due();
    } else {
        tx.conn
            .prepare_cached("UPDATE delivery SET state = ?2, doubt = NULL WHERE key = ?1")?
            .execute((key, state.as_str()))?;
        settle::erase_call(tx, key)?;
        tx.ended(id);
        for merged in settle::merged(tx, key)? {
            tx.ended(merged);
        }
    }
    let attempt = Attempt {
        number: attempts,
        started_at: now,
        ended_at: now,
        result: "by_hand".into(),
        status: None,
        detail: note.to_owned(),
    };
    attempt::insert_attempt(tx, key, &attempt, true)?;
    tx.count(&source, DeliveryState::Unknown, -1);
    tx.count(&source, state, 1);
    Ok(true)
}

/// Holds, or lets go. False: it was so already.
pub(super) fn hold(
    tx: &mut Transaction<'_>,
    what: &Pause,
    on: bool,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let (kind, name) = match what {
        Pause::All => ("all", String::new()),
        Pause::Source(name) => ("source", name.clone()),
        Pause::Destination(destination) => ("destination", destination.to_string()),
    };
    let rows = if on {
        tx.conn
            .prepare_cached(
                "INSERT INTO hold (kind, name, since) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?
            .execute((kind, name, now.millis()))?
    } else {
        tx.conn
            .prepare_cached("DELETE FROM hold WHERE kind = ?1 AND name = ?2")?
            .execute((kind, name))?
    };
    tx.work_due();
    Ok(rows == 1)
}

/// Reads the pauses, each with its beginning.
pub(super) fn holds(conn: &rusqlite::Connection) -> rusqlite::Result<Vec<(Pause, Timestamp)>> {
    let mut statement =
        conn.prepare_cached("SELECT kind, name, since FROM hold ORDER BY kind, name")?;
    let mut rows = statement.query([])?;
    let mut holds = Vec::new();
    while let Some(row) = rows.next()? {
        let (kind, name) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
        let what = match kind.as_str() {
            "all" => Some(Pause::All),
            "source" => Some(Pause::Source(name)),
            _ => name.parse().ok().map(Pause::Destination),
        };
        holds.extend(
            what.map(|what| (what, Timestamp::from_millis(row.get(2).unwrap_or_default()))),
        );
    }
    Ok(holds)
}

#[async_trait]
impl Operate for SqliteInbox {
    async fn replay(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        now: Timestamp,
    ) -> Result<Replayed, InboxError> {
        self.has_room()?;
        self.write("replay", move |tx| replay::replay(tx, id, first, &to, now))
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
        self.has_room()?;
        let codec = self.codec.clone();
        self.write("replay", move |tx| {
            replay::replay_anew(tx, &codec, (id, first), &to, (&anew, now))
        })
        .await
    }

    async fn cancel(&self, id: DeliveryId, now: Timestamp) -> Result<bool, InboxError> {
        self.write("cancel", move |tx| cancel(tx, id, now)).await
    }

    async fn resolve(
        &self,
        id: DeliveryId,
        how: Resolution,
        note: &str,
        now: Timestamp,
    ) -> Result<bool, InboxError> {
        let note = note.to_owned();
        self.write("settle by hand", move |tx| resolve(tx, id, how, &note, now))
            .await
    }

    async fn set_paused(&self, what: &Pause, on: bool, now: Timestamp) -> Result<bool, InboxError> {
        let what = what.clone();
        self.write("hold", move |tx| hold(tx, &what, on, now)).await
    }

    async fn pauses(&self) -> Result<Vec<(Pause, Timestamp)>, InboxError> {
        self.readers.ask("read what is held", holds).await
    }
}
