//! What becomes of the turns of a conversation that waited behind each other, once the first of them can go.
//!
//! Decided on disk and for good: a retry sends the same group again. Only turns of one source to one destination that
//! stand next to each other are put together, so that order holds whatever is between. However many wait, little is
//! done at a time: those that cannot be the ones to go are dropped some at a time, and the count of them is handed on.

use rusqlite::Row;

use super::claim::LaneHead;
use super::settle;
use super::writer::Transaction;
use crate::model::{DeliveryId, DeliveryState, EventId, Overlap, OverlapMode, Timestamp};

/// How many turns become one at most, and how many bytes their bodies may have.
const TOGETHER: usize = 100;
const BYTES: u64 = 4 << 20;

/// How many waiting turns are dropped in one go.
const LOOK: usize = 1000;

/// A turn that waits.
struct WaitingDelivery {
    key: i64,
    event: i64,
    id: DeliveryId,
    received_at: Timestamp,
    bytes: u64,
    fence: i64,
    /// How many were dropped in its favour before.
    dropped: u32,
}

/// Goes by what a source says of turns that wait. Gives the one to send, if that is known now, and how many were
/// dropped. What was looked at is added to `looked`.
pub(super) fn gather(
    tx: &mut Transaction<'_>,
    lane: i64,
    head: LaneHead,
    overlap: Overlap,
    now: Timestamp,
    looked: &mut usize,
) -> rusqlite::Result<(Option<LaneHead>, u64)> {
    let is_old = |at: Timestamp| overlap.age.is_some_and(|age| at + age < now);
    let waits = matches!(overlap.mode, OverlapMode::Queue | OverlapMode::Reject);
    // The group of one that was given back unsent is decided already.
    if waits && !is_old(head.received_at) || has_merged(tx, head.key)? {
        return Ok((Some(head), 0));
    }
    // How many of the first are certainly too many.
    let beyond = match (overlap.mode, overlap.depth) {
        (OverlapMode::Collect, Some(depth)) => {
            let depth = usize::try_from(depth.max(1)).unwrap_or(usize::MAX);
            let count = count(tx, lane, &head, depth.saturating_add(LOOK))?;
            *looked += count / 4;
            count.saturating_sub(depth)
        }
        _ => 0,
    };
    let most = match overlap.mode {
        OverlapMode::Collect if overlap.age.is_none() => beyond + TOGETHER,
        OverlapMode::Collect => LOOK + TOGETHER,
        _ => LOOK,
    };
    let mut list = waiting(tx, lane, &head, most)?;
    *looked += list.len();
    let whole = list.len() < most;
    let old = list
        .iter()
        .take_while(|waiting| is_old(waiting.received_at))
        .count();
    match overlap.mode {
        OverlapMode::Queue | OverlapMode::Reject => {
            list.truncate(old);
            drop_all(tx, lane, &head, &list, None)?;
            Ok((None, list.len() as u64))
        }
        OverlapMode::Latest => {
            let last = list.pop();
            match last {
                Some(last) if whole && !is_old(last.received_at) => {
                    lead(tx, lane, head, &list, last, &[])
                }
                Some(last) if whole => {
                    list.push(last);
                    drop_all(tx, lane, &head, &list, None)?;
                    Ok((None, list.len() as u64))
                }
                // None of these is known to be the last.
                last => {
                    drop_all(tx, lane, &head, &list, last.as_ref())?;
                    Ok((None, list.len() as u64))
                }
            }
        }
        OverlapMode::Collect => {
            let mut rest = list.split_off(beyond.max(old).min(list.len()));
            let more = beyond >= LOOK || rest.is_empty() && !whole;
            if rest.is_empty() && more {
                rest.extend(list.pop());
            }
            if rest.is_empty() || more {
                drop_all(tx, lane, &head, &list, rest.first())?;
                return Ok((None, list.len() as u64));
            }
            let first = rest.remove(0);
            let mut bytes = first.bytes;
            let fits = rest.iter().take(TOGETHER - 1).take_while(|waiting| {
                bytes = bytes.saturating_add(waiting.bytes);
                bytes <= BYTES
            });
            let along = fits.count();
            lead(tx, lane, head, &list, first, &rest[..along])
        }
    }
}

/// Puts one at the head, with those that go along, and drops others in its favour.
fn lead(
    tx: &mut Transaction<'_>,
    lane: i64,
    head: LaneHead,
    dropped: &[WaitingDelivery],
    first: WaitingDelivery,
    along: &[WaitingDelivery],
) -> rusqlite::Result<(Option<LaneHead>, u64)> {
    drop_all(tx, lane, &head, dropped, Some(&first))?;
    let mut count = 0_u32;
    for waiting in along {
        end(
            tx,
            &head.source,
            waiting,
            DeliveryState::Merged,
            Some(first.key),
        )?;
        count = count.saturating_add(waiting.dropped);
    }
    speak_for(tx, first.key, count)?;
    let WaitingDelivery {
        key,
        event,
        received_at,
        fence,
        ..
    } = first;
    // Never tried, like all of these.
    Ok((
        Some(LaneHead {
            key,
            event,
            strikes: 0,
            doubt: None,
            received_at,
            fence,
            ..head
        }),
        dropped.len() as u64,
    ))
}

/// Whether others go with it.
fn has_merged(tx: &Transaction<'_>, key: i64) -> rusqlite::Result<bool> {
    tx.conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM delivery INDEXED BY delivery_leader WHERE leader = ?1 AND state = 'merged')",
        )?
        .query_row([key], |row| row.get(0))
}

/// How many turns wait in a lane, from its head on, as far as they may be put together; up to `most`.
fn count(tx: &Transaction<'_>, lane: i64, head: &LaneHead, most: usize) -> rusqlite::Result<usize> {
    let mut statement = tx.conn.prepare_cached(
        "SELECT route, sealed, attempts FROM delivery INDEXED BY delivery_lane
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

/// Whether a delivery may be put together with a lane's head, by its first columns.
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
) -> rusqlite::Result<Vec<WaitingDelivery>> {
    let mut statement = tx.conn.prepare_cached(
        "SELECT d.route, d.sealed, d.attempts, d.key, d.event, e.id, d.number, e.received_at, length(b.body), d.fence,
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
        list.push(WaitingDelivery {
            key: row.get(3)?,
            event: row.get(4)?,
            id: DeliveryId {
                event: EventId::from_bytes(row.get(5)?),
                number: row.get(6)?,
            },
            received_at: Timestamp::from_millis(row.get(7)?),
            bytes: row.get::<_, i64>(8)?.unsigned_abs(),
            fence: row.get(9)?,
            dropped: row.get(10)?,
        });
    }
    Ok(list)
}

/// Drops some, in favour of one or of whatever comes next in the conversation. That then knows how many they were.
fn drop_all(
    tx: &mut Transaction<'_>,
    lane: i64,
    head: &LaneHead,
    list: &[WaitingDelivery],
    in_favour_of: Option<&WaitingDelivery>,
) -> rusqlite::Result<()> {
    let mut count = 0_u32;
    for waiting in list {
        end(
            tx,
            &head.source,
            waiting,
            DeliveryState::Dropped,
            in_favour_of.map(|leader| leader.key),
        )?;
        count = count.saturating_add(1).saturating_add(waiting.dropped);
    }
    match in_favour_of {
        Some(leader) => speak_for(tx, leader.key, count),
        None => {
            settle::next_pending(tx, lane)?.map_or(Ok(()), |(next, _)| speak_for(tx, next, count))
        }
    }
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
    waiting: &WaitingDelivery,
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
