//! Overlap policy applied to a lane: the turns that wait behind its first one are read, decided over
//! ([`crate::inbox::overlap`]), and ended where they go nowhere or with another.
//!
//! However many wait, little is done at a time: those that cannot be the ones to go are dropped some at a time, and the
//! count of them is handed on to the turn that goes.

use rusqlite::Row;

use super::lane::{LaneHead, next_pending};
use super::transaction::Transaction;
use crate::inbox::overlap::{
    Decision, LaneView, WaitingTurn, decide, is_queue, is_too_old, turns_to_count, turns_to_read,
};
use crate::model::{DeliveryId, DeliveryState, EventId, Overlap, Timestamp};

/// A turn that waits, with its row.
struct WaitingRow {
    key: i64,
    event: i64,
    id: DeliveryId,
    turn: WaitingTurn,
    fence: i64,
    /// Number of turns that were dropped in its favour before.
    dropped: u32,
}

/// Ends the turns of a lane that go nowhere or with another. Returns the one to send, if that is known now, and the
/// number of turns that were dropped. The number of turns that were looked at is added to `looked`.
pub(super) fn apply(
    tx: &mut Transaction<'_>,
    lane: i64,
    head: LaneHead,
    overlap: Overlap,
    now: Timestamp,
    looked: &mut usize,
) -> rusqlite::Result<(Option<LaneHead>, u64)> {
    let is_next = is_queue(&overlap) && !is_too_old(&overlap, head.received_at, now);
    // The group of one that was given back unsent is decided already.
    if is_next || has_merged(tx, head.key)? {
        return Ok((Some(head), 0));
    }
    let to_count = turns_to_count(&overlap);
    let counted = match to_count {
        Some(most) => count(tx, lane, &head, most)?,
        None => 0,
    };
    let to_read = turns_to_read(&overlap, counted);
    let waiting = waiting(tx, lane, &head, to_read)?;
    *looked += counted / 4 + waiting.len();
    let turns: Vec<WaitingTurn> = waiting.iter().map(|waiting| waiting.turn).collect();
    let (in_all, counted_all) = match to_count {
        Some(most) => (counted, counted < most),
        None => (turns.len(), turns.len() < to_read),
    };
    let look = LaneView {
        turns: &turns,
        in_all,
        counted_all,
    };
    let decision = decide(overlap, &look, now);
    let leader = write(tx, lane, head, &waiting, &decision)?;
    Ok((leader, decision.dropped.len() as u64))
}

/// Writes a decision. Returns the turn that goes, which was never tried, like all of these.
fn write(
    tx: &mut Transaction<'_>,
    lane: i64,
    head: LaneHead,
    waiting: &[WaitingRow],
    decision: &Decision,
) -> rusqlite::Result<Option<LaneHead>> {
    let leader = decision.leader.map(|place| &waiting[place]);
    let leader_key = leader.map(|leader| leader.key);
    // The turn that goes speaks for those that were dropped, also for those of whom one of these was to speak.
    let mut spoken_for = 0_u32;
    for place in &decision.dropped {
        let turn = &waiting[*place];
        end(tx, &head.source, turn, DeliveryState::Dropped, leader_key)?;
        spoken_for = spoken_for.saturating_add(1).saturating_add(turn.dropped);
    }
    for place in &decision.merged {
        let turn = &waiting[*place];
        end(tx, &head.source, turn, DeliveryState::Merged, leader_key)?;
        spoken_for = spoken_for.saturating_add(turn.dropped);
    }
    let Some(leader) = leader else {
        if let Some((next, _)) = next_pending(tx, lane)? {
            speak_for(tx, next, spoken_for)?;
        }
        return Ok(None);
    };
    speak_for(tx, leader.key, spoken_for)?;
    Ok(Some(LaneHead {
        key: leader.key,
        event: leader.event,
        strikes: 0,
        doubt: None,
        received_at: leader.turn.received_at,
        fence: leader.fence,
        ..head
    }))
}

/// True if others go with it.
fn has_merged(tx: &Transaction<'_>, key: i64) -> rusqlite::Result<bool> {
    tx.conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM delivery INDEXED BY delivery_leader WHERE leader = ?1 AND state = 'merged')",
        )?
        .query_row([key], |row| row.get(0))
}

/// Turns that wait in a lane, from its head on, as far as they may be put together; up to `most`.
fn count(tx: &Transaction<'_>, lane: i64, head: &LaneHead, most: usize) -> rusqlite::Result<usize> {
    let mut statement = tx.conn.prepare_cached(
        "SELECT route, sealed OR answers IS NOT NULL, attempts FROM delivery INDEXED BY delivery_lane
         WHERE lane = ?1 AND state = 'pending' ORDER BY key",
    )?;
    let mut rows = statement.query([lane])?;
    let mut count = 0;
    while count < most
        && let Some(row) = rows.next()?
        && is_alike(row, head)?
    {
        count += 1;
    }
    Ok(count)
}

/// True if a delivery may be put together with a lane's head, by its first columns.
fn is_alike(row: &Row<'_>, head: &LaneHead) -> rusqlite::Result<bool> {
    Ok(
        row.get::<_, i64>(0)? == head.route
            && !row.get::<_, bool>(1)?
            && row.get::<_, u32>(2)? == 0,
    )
}

/// The turns that wait in a lane, from its head on, as far as they may be put together.
fn waiting(
    tx: &Transaction<'_>,
    lane: i64,
    head: &LaneHead,
    most: usize,
) -> rusqlite::Result<Vec<WaitingRow>> {
    let mut statement = tx.conn.prepare_cached(
        "SELECT d.route, d.sealed OR d.answers IS NOT NULL, d.attempts, d.key, d.event, e.id, d.number, e.received_at, length(b.body), d.fence,
                d.dropped
         FROM delivery AS d INDEXED BY delivery_lane JOIN event AS e ON e.seq = d.event JOIN body AS b ON b.seq = d.event
         WHERE d.lane = ?1 AND d.state = 'pending' ORDER BY d.key",
    )?;
    let mut rows = statement.query([lane])?;
    let mut list = Vec::new();
    while list.len() < most
        && let Some(row) = rows.next()?
        && is_alike(row, head)?
    {
        list.push(WaitingRow {
            key: row.get(3)?,
            event: row.get(4)?,
            id: DeliveryId {
                event: EventId::from_bytes(row.get(5)?),
                number: row.get(6)?,
            },
            turn: WaitingTurn {
                received_at: Timestamp::from_millis(row.get(7)?),
                bytes: row.get::<_, i64>(8)?.unsigned_abs(),
            },
            fence: row.get(9)?,
            dropped: row.get(10)?,
        });
    }
    Ok(list)
}

/// Notes with a delivery that so many more were dropped in its favour.
fn speak_for(tx: &Transaction<'_>, key: i64, count: u32) -> rusqlite::Result<()> {
    if count > 0 {
        tx.conn
            .prepare_cached("UPDATE delivery SET dropped = dropped + ?2 WHERE key = ?1")?
            .execute((key, count))?;
    }
    Ok(())
}

/// Ends one that waited, for good.
fn end(
    tx: &mut Transaction<'_>,
    source: &str,
    waiting: &WaitingRow,
    state: DeliveryState,
    leader: Option<i64>,
) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached("UPDATE delivery SET state = ?2, leader = ?3 WHERE key = ?1")?
        .execute((waiting.key, state.as_str(), leader))?;
    tx.count(source, DeliveryState::Pending, -1);
    tx.count(source, state, 1);
    if state == DeliveryState::Dropped {
        tx.ended(waiting.id);
    }
    Ok(())
}
