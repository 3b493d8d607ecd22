//! What becomes of the turns of a conversation that waited behind each other, once the first of them can go.
//!
//! Decided on disk and for good: a retry sends the same group again. Only turns of one source to one destination that
//! stand next to each other are put together, so that order holds whatever is between.

use rusqlite::Row;

use super::claim::Head;
use super::writer::Turn;
use crate::model::{DeliveryId, EventId, Overlap, OverlapMode, State, Timestamp};

/// How many turns become one at most, and how many bytes their bodies may have.
const TOGETHER: usize = 100;
const BYTES: u64 = 4 << 20;

/// How many waiting turns are looked at in one go.
const LOOK: usize = 1000;

/// A turn that waits.
struct Waiting {
    key: i64,
    id: DeliveryId,
    received_at: Timestamp,
    bytes: u64,
    /// How many were dropped in its favour before.
    dropped: u32,
}

/// Goes by what a source says of turns that wait. Gives the one to send, if that is known now, and how many were
/// dropped.
pub(super) fn gather(
    turn: &mut Turn<'_>,
    lane: i64,
    head: Head,
    overlap: Overlap,
    now: Timestamp,
) -> rusqlite::Result<(Option<Head>, u64)> {
    let is_old = |at: Timestamp| overlap.age.is_some_and(|age| at + age < now);
    match overlap.mode {
        OverlapMode::Queue | OverlapMode::Reject => {
            if !is_old(head.received_at) || has_followers(turn, head.key)? {
                return Ok((Some(head), 0));
            }
            let mut list = waiting(turn, lane, &head, LOOK)?;
            let old = list.iter().take_while(|waiting| is_old(waiting.received_at)).count();
            let first = list.drain(old..).next();
            lead(turn, lane, head, first, &list, &[])
        }
        // It is decided already, and was given back unsent.
        _ if has_followers(turn, head.key)? => Ok((Some(head), 0)),
        OverlapMode::Latest => {
            let mut list = waiting(turn, lane, &head, LOOK)?;
            // With more than that behind them, none of these is the last.
            let last = if list.len() < LOOK { list.pop_if(|last| !is_old(last.received_at)) } else { None };
            lead(turn, lane, head, last, &list, &[])
        }
        OverlapMode::Collect => {
            let depth = overlap.depth.and_then(|depth| usize::try_from(depth).ok());
            let most = LOOK.saturating_add(depth.unwrap_or(0).min(LOOK));
            let mut list = waiting(turn, lane, &head, most)?;
            let beyond = match depth {
                // All that could be seen is followed by as many as may wait.
                Some(_) if list.len() == most => LOOK,
                Some(depth) => list.len().saturating_sub(depth),
                None => 0,
            };
            let old = list.iter().take_while(|waiting| is_old(waiting.received_at)).count();
            let mut rest = list.split_off(beyond.max(old).min(list.len()));
            let mut bytes = 0_u64;
            let fits = rest.iter().take(TOGETHER).take_while(|waiting| {
                bytes = bytes.saturating_add(waiting.bytes);
                bytes <= BYTES
            });
            let together = fits.count().max(1).min(rest.len());
            rest.truncate(together);
            let first = if rest.is_empty() { None } else { Some(rest.remove(0)) };
            lead(turn, lane, head, first, &list, &rest)
        }
    }
}

/// Puts one at the head, with those that go along, and drops others in its favour.
fn lead(
    turn: &mut Turn<'_>,
    lane: i64,
    head: Head,
    first: Option<Waiting>,
    dropped: &[Waiting],
    along: &[Waiting],
) -> rusqlite::Result<(Option<Head>, u64)> {
    let count = dropped.len() as u64;
    let Some(first) = first else {
        let all = drop_all(turn, &head.source, dropped, None)?;
        // Whatever comes next in the conversation speaks for them.
        turn.conn
            .prepare_cached(
                "UPDATE delivery SET dropped = dropped + ?2 WHERE key =
                    (SELECT key FROM delivery INDEXED BY delivery_lane WHERE lane = ?1 AND state = 'pending'
                     ORDER BY key LIMIT 1)",
            )?
            .execute((lane, all))?;
        return Ok((None, count));
    };
    let mut all = drop_all(turn, &head.source, dropped, Some(first.key))?;
    for waiting in along {
        end(turn, &head.source, waiting, State::Merged, Some(first.key))?;
        all = all.saturating_add(waiting.dropped);
    }
    if all > 0 {
        turn.conn
            .prepare_cached("UPDATE delivery SET dropped = dropped + ?2 WHERE key = ?1")?
            .execute((first.key, all))?;
    }
    if first.key == head.key {
        return Ok((Some(head), count));
    }
    let event = turn
        .conn
        .prepare_cached("SELECT event FROM delivery WHERE key = ?1")?
        .query_row([first.key], |row| row.get(0))?;
    Ok((Some(Head { key: first.key, event, strikes: 0, doubt: None, received_at: first.received_at, ..head }), count))
}

/// Whether others go with it.
fn has_followers(turn: &Turn<'_>, key: i64) -> rusqlite::Result<bool> {
    turn.conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM delivery INDEXED BY delivery_leader WHERE leader = ?1 AND leader IS NOT NULL
                AND state = 'merged')",
        )?
        .query_row([key], |row| row.get(0))
}

/// The turns that wait in a lane, from its head on, as far as they may be put together.
fn waiting(turn: &Turn<'_>, lane: i64, head: &Head, most: usize) -> rusqlite::Result<Vec<Waiting>> {
    let mut statement = turn.conn.prepare_cached(
        "SELECT d.key, e.id, d.number, e.received_at, length(b.body), d.dropped, d.route, d.sealed, d.attempts
         FROM delivery AS d INDEXED BY delivery_lane JOIN event AS e ON e.seq = d.event JOIN body AS b ON b.seq = d.event
         WHERE d.lane = ?1 AND d.state = 'pending' ORDER BY d.key",
    )?;
    let mut rows = statement.query([lane])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        let alike = row.get::<_, i64>(6)? == head.route && !row.get::<_, bool>(7)? && row.get::<_, u32>(8)? == 0;
        if !alike || list.len() == most {
            break;
        }
        list.push(Waiting::read(row)?);
    }
    Ok(list)
}

impl Waiting {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            key: row.get(0)?,
            id: DeliveryId { event: EventId::from_bytes(row.get(1)?), number: row.get(2)? },
            received_at: Timestamp::from_millis(row.get(3)?),
            bytes: row.get::<_, i64>(4)?.unsigned_abs(),
            dropped: row.get(5)?,
        })
    }
}

/// Drops them. How many that makes, with those that were dropped in their favour.
fn drop_all(turn: &mut Turn<'_>, source: &str, list: &[Waiting], leader: Option<i64>) -> rusqlite::Result<u32> {
    let mut count = 0_u32;
    for waiting in list {
        end(turn, source, waiting, State::Dropped, leader)?;
        count = count.saturating_add(1).saturating_add(waiting.dropped);
    }
    Ok(count)
}

/// Ends one that waited, for good.
fn end(
    turn: &mut Turn<'_>,
    source: &str,
    waiting: &Waiting,
    state: State,
    leader: Option<i64>,
) -> rusqlite::Result<()> {
    turn.conn.prepare_cached("UPDATE delivery SET state = ?2, leader = ?3 WHERE key = ?1")?.execute((
        waiting.key,
        state.as_str(),
        leader,
    ))?;
    turn.count(source, State::Pending, -1);
    turn.count(source, state, 1);
    if state == State::Dropped {
        turn.ended(waiting.id);
    }
    Ok(())
}
