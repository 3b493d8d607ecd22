//! Ending a lease; calling a delivery off.

use rusqlite::OptionalExtension;
use uuid::Uuid;

use super::attempt::insert_attempt;
use super::lane::free_lane;
use super::owe::{owe_answers, write_payload};
use super::sweep;
use super::transaction::Transaction;
use crate::inbox::bounds::{MAX_RESULT, MAX_TASK, MAX_TEXT, cut};
use crate::inbox::codec::Codec;
use crate::inbox::transition::{DoubtChange, Transition};
use crate::inbox::{Next, Settled, Settlement};
use crate::model::{Account, DeliveryId, DeliveryState, EventId, Timestamp};

/// Ends a lease, if it still is one: the attempt, the delivery's state, the lane.
pub(super) fn settle(
    tx: &mut Transaction<'_>,
    codec: &Codec,
    settlement: &Settlement,
) -> rusqlite::Result<Settled> {
    let Settlement {
        id: _,
        key,
        lane,
        fence,
        attempt,
        next,
        owes,
        progress,
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
    let change = Transition::of(next, attempt.ended_at);
    write(tx, *key, &change)?;
    insert_attempt(tx, *key, attempt, matches!(next, Next::Released { .. }))?;
    if let Some(payload) = progress {
        write_payload(tx, codec, *key, id, payload)?;
    }
    owe_answers(tx, codec, id, (event, &source), owes, attempt.ended_at)?;
    free_lane(tx, number, change.ready_at)?;
    tx.count(&source, DeliveryState::Leased, -1);
    tx.count(&source, change.state, 1);
    if change.state.is_final() {
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

/// Removes an event of a stranger whose key the upstream refused: it goes with all that hangs on it, and
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
    let change = Transition::untaken(doubt);
    write(tx, key, &change)?;
    free_lane(tx, number, change.ready_at)?;
    tx.count(&source, DeliveryState::Leased, -1);
    tx.count(&source, change.state, 1);
    Ok(())
}

/// The delivery under a lease that holds.
struct HeldLease {
    /// The lane's number.
    lane: i64,
    source: String,
    id: DeliveryId,
    /// The event's number.
    event: i64,
    account: String,
}

/// Finds the delivery under a lease, if the lease still holds.
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

/// Writes the change of a delivery's row.
fn write(tx: &Transaction<'_>, key: i64, change: &Transition<'_>) -> rusqlite::Result<()> {
    if change.ends() {
        return finish(tx, key, change);
    }
    let (doubt_stays, doubt) = match change.doubt {
        DoubtChange::Stays => (true, None),
        DoubtChange::Is(doubt) => (false, doubt.map(Timestamp::millis)),
    };
    tx.conn
        .prepare_cached(
            "UPDATE delivery SET state = ?2, attempts = max(attempts - ?3, 0), strikes = max(strikes - ?4, 0),
                    doubt = CASE WHEN ?5 THEN doubt ELSE ?6 END WHERE key = ?1",
        )?
        .execute((
            key,
            change.state.as_str(),
            change.attempts,
            change.strikes,
            doubt_stays,
            doubt,
        ))?;
    Ok(())
}

/// Writes the end of a delivery, with the upstream's last word.
fn finish(tx: &Transaction<'_>, key: i64, change: &Transition<'_>) -> rusqlite::Result<()> {
    let answer = change.answer;
    tx.conn
        .prepare_cached(
            "UPDATE delivery SET state = ?2, doubt = NULL, answer_status = ?3, answer_finished_at = ?4,
                    answer_result = ?5 WHERE key = ?1",
        )?
        .execute((
            key,
            change.state.as_str(),
            answer.map(|answer| cut(&answer.status, MAX_TEXT)),
            answer
                .and_then(|answer| answer.finished_at.as_deref())
                .map(|text| cut(text, MAX_TEXT)),
            answer
                .and_then(|answer| answer.result.as_deref())
                .map(|text| cut(text, MAX_RESULT)),
        ))?;
    if let Some(task) = answer
        .and_then(|answer| answer.task.as_ref())
        .filter(|task| task.len() <= MAX_TASK)
    {
        tx.conn
            .prepare_cached("INSERT OR REPLACE INTO task (delivery, task) VALUES (?1, ?2)")?
            .execute((key, task.as_ref()))?;
    }
    erase_call(tx, key)
}

/// Erases a caller's own call: with its keys, it is not needed any longer than its delivery lasts.
pub(super) fn erase_call(tx: &Transaction<'_>, key: i64) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached("DELETE FROM sealed WHERE delivery = ?1")?
        .execute([key])?;
    Ok(())
}
