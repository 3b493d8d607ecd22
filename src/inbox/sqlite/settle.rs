//! Ending a lease; calling a delivery off.

use rusqlite::OptionalExtension;
use uuid::Uuid;

use super::sweep;
use super::writer::Transaction;
use crate::inbox::{Answer, Next, Settled, Settlement, cut};
use crate::model::{Account, Attempt, DeliveryId, DeliveryState, EventId, Timestamp};

/// How many tries of a delivery are kept.
const TRIES: u32 = 50;

/// How much of an answer is kept.
const MAX_RESULT: usize = 256 << 10;

/// The largest task object that is kept; a larger one is not kept at all, as half of it would be no JSON.
const MAX_TASK: usize = 1 << 20;

/// How much of a shorter text is kept.
const MAX_TEXT: usize = 4 << 10;

/// Ends a lease, if it still is one: the attempt, the delivery's state, the lane.
pub(super) fn settle(
    tx: &mut Transaction<'_>,
    settlement: &Settlement,
) -> rusqlite::Result<Settled> {
    let Settlement {
        id: _,
        key,
        lane,
        fence,
        attempt,
        next,
    } = settlement;
    let Some(HeldLease {
        lane: number,
        source,
        id,
        event,
        account,
    }) = leased(tx, *lane, *fence, *key)?
    else {
        return Ok(Settled::Stale);
    };
    let (state, later) = match next {
        Next::Delivered(answer) => (
            finish(tx, *key, DeliveryState::Delivered, Some(answer))?,
            None,
        ),
        Next::Dead(answer) => (
            finish(tx, *key, DeliveryState::Dead, answer.as_ref())?,
            None,
        ),
        Next::Unknown => {
            hold(tx, *key)?;
            (DeliveryState::Unknown, None)
        }
        Next::Retry { at, doubt, counted } => {
            put_back(
                tx,
                *key,
                if *counted {
                    Back::Nothing
                } else {
                    Back::Strike
                },
                *doubt,
            )?;
            (DeliveryState::Pending, Some(*at))
        }
        Next::Released { doubt } => {
            put_back(tx, *key, Back::Try, *doubt)?;
            (DeliveryState::Pending, None)
        }
    };
    insert_attempt(tx, *key, attempt, matches!(next, Next::Released { .. }))?;
    free_lane(tx, number, Some(later.unwrap_or(attempt.ended_at)))?;
    tx.count(&source, DeliveryState::Leased, -1);
    tx.count(&source, state, 1);
    if state.is_final() {
        tx.ended(id);
        for merged in merged(tx, *key)? {
            tx.ended(merged);
        }
    }
    if settlement.refuses_key() && account == Account::Foreign.to_string() {
        forget(tx, event)?;
    }
    Ok(Settled::Done)
}

/// What a stranger sent whose key the upstream refused is nothing to keep: the event goes with all that hangs on it, and
/// its files are nobody's from here on.
fn forget(tx: &mut Transaction<'_>, event: i64) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached(
            "UPDATE attachment INDEXED BY attachment_event SET expires_at = 0 WHERE event = ?1",
        )?
        .execute([event])?;
    sweep::remove(tx, &[event]).map(drop)
}

/// Those that end with a delivery because they went with it.
pub(super) fn merged(tx: &Transaction<'_>, leader: i64) -> rusqlite::Result<Vec<DeliveryId>> {
    tx.conn
        .prepare_cached(
            "SELECT e.id, d.number FROM delivery AS d INDEXED BY delivery_leader JOIN event AS e ON e.seq = d.event
             WHERE d.leader = ?1 AND d.state = 'merged'",
        )?
        .query_map([leader], |row| Ok(DeliveryId { event: EventId::from_bytes(row.get(0)?), number: row.get(1)? }))?
        .collect()
}

/// Undoes a claim that nobody saw. The lane keeps its place.
pub(super) fn give_back(
    tx: &mut Transaction<'_>,
    lane: Uuid,
    fence: i64,
    key: i64,
    doubt: Option<Timestamp>,
) -> rusqlite::Result<()> {
    let Some(HeldLease {
        lane: number,
        source,
        ..
    }) = leased(tx, lane, fence, key)?
    else {
        return Ok(());
    };
    put_back(tx, key, Back::Try, doubt)?;
    free_lane(tx, number, None)?;
    tx.count(&source, DeliveryState::Leased, -1);
    tx.count(&source, DeliveryState::Pending, 1);
    Ok(())
}

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
    erase_call(tx, key)?;
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
    tx.news();
    tx.ended(id);
    for merged in merged(tx, key)? {
        tx.ended(merged);
    }
    Ok(true)
}

/// What a lease that holds is of.
struct HeldLease {
    /// The lane's number.
    lane: i64,
    source: String,
    id: DeliveryId,
    /// The event's number.
    event: i64,
    account: String,
}

/// What is leased, if this lease of it still holds.
fn leased(
    tx: &Transaction<'_>,
    lane: Uuid,
    fence: i64,
    key: i64,
) -> rusqlite::Result<Option<HeldLease>> {
    tx.conn
        .prepare_cached(
            "SELECT l.id, e.source, e.id, d.number, e.seq, coalesce(r.account, '') FROM delivery AS d
                CROSS JOIN lane AS l ON l.id = d.lane JOIN event AS e ON e.seq = d.event
                LEFT JOIN route AS r ON r.id = d.route
             WHERE d.key = ?3 AND d.fence = ?2 AND l.delivery = ?3 AND l.lane = ?1",
        )?
        .query_row((lane.as_bytes(), fence, key), |row| {
            let id = DeliveryId { event: EventId::from_bytes(row.get(2)?), number: row.get(3)? };
            Ok(HeldLease { lane: row.get(0)?, source: row.get(1)?, id, event: row.get(4)?, account: row.get(5)? })
        })
        .optional()
}

fn finish(
    tx: &Transaction<'_>,
    key: i64,
    state: DeliveryState,
    answer: Option<&Answer>,
) -> rusqlite::Result<DeliveryState> {
    tx.conn
        .prepare_cached(
            "UPDATE delivery SET state = ?2, doubt = NULL, answer_status = ?3, answer_finished_at = ?4,
                    answer_result = ?5 WHERE key = ?1",
        )?
        .execute((
            key,
            state.as_str(),
            answer.map(|answer| cut(&answer.status, MAX_TEXT)),
            answer.and_then(|answer| answer.finished_at.as_deref()).map(|text| cut(text, MAX_TEXT)),
            answer.and_then(|answer| answer.result.as_deref()).map(|text| cut(text, MAX_RESULT)),
        ))?;
    if let Some(task) = answer
        .and_then(|answer| answer.task.as_ref())
        .filter(|task| task.len() <= MAX_TASK)
    {
        tx.conn
            .prepare_cached("INSERT OR REPLACE INTO task (delivery, task) VALUES (?1, ?2)")?
            .execute((key, task.as_ref()))?;
    }
    erase_call(tx, key)?;
    Ok(state)
}

/// Nobody needs a caller's own call, with its keys, any longer than its delivery lasts.
pub(super) fn erase_call(tx: &Transaction<'_>, key: i64) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached("DELETE FROM sealed WHERE delivery = ?1")?
        .execute([key])?;
    Ok(())
}

fn hold(tx: &Transaction<'_>, key: i64) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached("UPDATE delivery SET state = 'unknown' WHERE key = ?1")?
        .execute([key])?;
    Ok(())
}

/// What a delivery that goes back to its lane gets back.
#[derive(Clone, Copy)]
enum Back {
    Nothing,
    /// The try does not count against it.
    Strike,
    /// There was no try.
    Try,
}

/// Pending again, for a later try or as if this one had not been.
fn put_back(
    tx: &Transaction<'_>,
    key: i64,
    back: Back,
    doubt: Option<Timestamp>,
) -> rusqlite::Result<()> {
    let (attempts, strikes) = match back {
        Back::Nothing => (0, 0),
        Back::Strike => (0, 1),
        Back::Try => (1, 1),
    };
    tx.conn
        .prepare_cached(
            "UPDATE delivery SET state = 'pending', attempts = max(attempts - ?2, 0),
                    strikes = max(strikes - ?3, 0), doubt = ?4 WHERE key = ?1",
        )?
        .execute((key, attempts, strikes, doubt.map(Timestamp::millis)))?;
    Ok(())
}

/// Lets the lane's next delivery come, from the time that is said on or from when it was due before; without
/// one the lane goes.
fn free_lane(
    tx: &mut Transaction<'_>,
    lane: i64,
    ready_at: Option<Timestamp>,
) -> rusqlite::Result<()> {
    if let Some((_, route)) = next_pending(tx, lane)? {
        tx.conn
            .prepare_cached(
                "UPDATE lane SET delivery = NULL, ready_at = coalesce(?2, ready_at), route = ?3 WHERE id = ?1",
            )?
            .execute((lane, ready_at.map(Timestamp::millis), route))?;
    } else {
        tx.conn
            .prepare_cached("DELETE FROM lane WHERE id = ?1")?
            .execute([lane])?;
    }
    tx.news();
    Ok(())
}

/// A lane's first pending delivery, and its route.
pub(super) fn next_pending(
    tx: &Transaction<'_>,
    lane: i64,
) -> rusqlite::Result<Option<(i64, i64)>> {
    tx.conn
        .prepare_cached(
            "SELECT key, route FROM delivery INDEXED BY delivery_lane WHERE lane = ?1 AND state = 'pending'
             ORDER BY key LIMIT 1",
        )?
        .query_row([lane], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// Keeps a try, and lets the oldest go when there are too many. Tries that are not counted could be endless too.
pub(super) fn insert_attempt(
    tx: &Transaction<'_>,
    key: i64,
    attempt: &Attempt,
    uncounted: bool,
) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached(
            "INSERT INTO attempt (delivery, number, started_at, ended_at, result, status, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            key,
            attempt.number,
            attempt.started_at.millis(),
            attempt.ended_at.millis(),
            cut(&attempt.result, MAX_TEXT),
            attempt.status,
            cut(&attempt.detail, MAX_TEXT),
        ))?;
    if uncounted || attempt.number > TRIES {
        tx.conn
            .prepare_cached(
                "DELETE FROM attempt WHERE delivery = ?1 AND id <=
                    (SELECT id FROM attempt WHERE delivery = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute((key, TRIES))?;
    }
    Ok(())
}
