//! Removing what is finished and kept long enough: a reader looks for it, the writer removes it, a little at a time.
//!
//! Events are kept for different times, so a look at all of them goes once for each time there is. It begins where the
//! last one for that time ended: what was found to be kept longer is not looked at again before a day has passed. What
//! was still owed is remembered and looked at by its number, up to a bound; the rest is found within the day as well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row};

use super::transaction::Transaction;
use super::{proof, search};
use crate::inbox::{Keep, KeepTimes};
use crate::model::Timestamp;

/// Events that are looked at before the next look begins.
const WINDOW: usize = 20_000;

/// After how long everything is looked at again.
const ANEW: Duration = Duration::from_secs(24 * 3600);

/// Events that that were still owed are remembered.
const REMEMBERED: usize = 10_000;

/// States of an event's deliveries, as bits. One that was merged is owed as long as the one it went with may go out
/// again, which takes it along.
const OWED: i64 = 1;
const DEAD: i64 = 2;
const FILTERED: i64 = 4;
const DELIVERED: i64 = 8;

/// Receipt and number of an event: where a look has come to.
type SweepCursor = (i64, i64);

/// Distance that the looks have come, by the time that events are kept.
#[derive(Debug, Default)]
pub(super) struct Walks {
    keep: Option<Keep>,
    begun: Timestamp,
    places: BTreeMap<Duration, SweepCursor>,
    owed: BTreeSet<i64>,
    /// The time when those that were owed were last looked at.
    again: Option<Timestamp>,
}

/// The beginning of one round of looks.
#[derive(Debug)]
pub(super) struct Round {
    /// The times that are looked for, and where each look begins.
    pub(super) walks: Vec<(Duration, SweepCursor)>,
    /// The events that were owed when they were passed, where it is time to look at them again.
    pub(super) owed: Vec<i64>,
}

impl Walks {
    /// Begins a round.
    pub(super) fn begin(&mut self, keep: &Keep, now: Timestamp) -> Round {
        if self.keep.as_ref() != Some(keep) || now.since(self.begun) > ANEW || now < self.begun {
            *self = Self {
                keep: Some(keep.clone()),
                begun: now,
                ..Self::default()
            };
        }
        let all = std::iter::once(&keep.usual).chain(keep.sources.values());
        let times: BTreeSet<Duration> = all
            .flat_map(|times| [times.delivered, times.dead, times.filtered])
            .filter(|time| *time < Duration::MAX)
            .collect();
        let place = |time: &Duration| {
            self.places
                .get(time)
                .copied()
                .unwrap_or((i64::MIN, i64::MIN))
        };
        let walks = times.iter().map(|time| (*time, place(time))).collect();
        let owed = if self.again == Some(now) {
            Vec::new()
        } else {
            self.owed.iter().copied().collect()
        };
        Round { walks, owed }
    }

    /// Notes where a look has come to, and what it passed that is owed.
    pub(super) fn passed(&mut self, time: Duration, place: SweepCursor, owed: &[i64]) {
        self.places.insert(time, place);
        let room = REMEMBERED.saturating_sub(self.owed.len());
        self.owed.extend(owed.iter().take(room));
    }

    /// Forgets events that are owed no more, and notes when all that were have been looked at.
    pub(super) fn forget(&mut self, events: &[i64], all_at: Option<Timestamp>) {
        for seq in events {
            self.owed.remove(seq);
        }
        self.again = all_at.or(self.again);
    }
}

/// The events that a look found.
#[derive(Debug, Default)]
pub(super) struct OldEvents {
    /// The events that can go.
    pub(super) events: Vec<i64>,
    /// Those that it passed which are old enough and still owed.
    pub(super) owed: Vec<i64>,
    /// Those that are kept longer.
    pub(super) kept: Vec<i64>,
    /// The place it has come to.
    pub(super) place: SweepCursor,
    /// True if everything that is old enough was seen.
    pub(super) whole: bool,
}

/// An event's place and source, whether it was filtered, and its deliveries as bits.
const COLUMNS: &str = "e.received_at, e.seq, e.source, e.filtered IS NOT NULL,
    (SELECT sum(DISTINCT CASE WHEN d.state IN ('pending', 'leased') THEN 1
                              WHEN d.state = 'merged' AND EXISTS (
                                SELECT 1 FROM delivery AS l WHERE l.key = d.leader
                                    AND l.state IN ('pending', 'leased', 'unknown')) THEN 1
                              WHEN d.state IN ('dead', 'unknown', 'unmappable') THEN 2
                              WHEN d.state IN ('cancelled', 'dropped') THEN 4
                              ELSE 8 END)
     FROM delivery AS d INDEXED BY delivery_event WHERE d.event = e.seq)";

/// Looks from a place on for up to `most` events that are kept `time` or shorter.
pub(super) fn look(
    conn: &Connection,
    keep: &Keep,
    (time, from): (Duration, SweepCursor),
    now: Timestamp,
    most: usize,
) -> rusqlite::Result<OldEvents> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM event AS e INDEXED BY event_received
         WHERE (e.received_at, e.seq) > (?1, ?2) AND e.received_at < ?3 ORDER BY e.received_at, e.seq"
    ))?;
    let mut rows = statement.query((from.0, from.1, (now - time).millis()))?;
    let mut found = OldEvents {
        place: from,
        ..OldEvents::default()
    };
    for _ in 0..WINDOW {
        if found.events.len() == most {
            return Ok(found);
        }
        let Some(row) = rows.next()? else {
            return Ok(OldEvents {
                whole: true,
                ..found
            });
        };
        found.place = (row.get(0)?, row.get(1)?);
        match kept(keep, row)? {
            None => found.owed.push(found.place.1),
            Some(kept) if kept <= time => found.events.push(found.place.1),
            Some(_) => {}
        }
    }
    Ok(found)
}

/// Looks again at events that were owed, up to `most` that can go.
pub(super) fn look_again(
    conn: &Connection,
    keep: &Keep,
    owed: &[i64],
    now: Timestamp,
    most: usize,
) -> rusqlite::Result<OldEvents> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM event AS e WHERE e.seq = ?1"
    ))?;
    let mut found = OldEvents::default();
    for seq in owed {
        if found.events.len() == most {
            return Ok(found);
        }
        let kept = statement
            .query_row([seq], |row| Ok((row.get::<_, i64>(0)?, kept(keep, row)?)))
            .optional()?;
        match kept {
            Some((_, None)) => {}
            Some((at, Some(kept))) if Timestamp::from_millis(at) < now - kept => {
                found.events.push(*seq)
            }
            // The look for its own time has not come to it yet.
            Some((_, Some(_))) | None => found.kept.push(*seq),
        }
    }
    Ok(OldEvents {
        whole: true,
        ..found
    })
}

/// Time that an event is kept: as long as any of its deliveries says. None: it is still owed.
fn kept(keep: &Keep, row: &Row<'_>) -> rusqlite::Result<Option<Duration>> {
    let times: &KeepTimes = keep
        .sources
        .get(row.get_ref(2)?.as_str()?)
        .unwrap_or(&keep.usual);
    let filtered = if row.get(3)? { FILTERED } else { 0 };
    let bits = row.get::<_, Option<i64>>(4)?.unwrap_or(0) | filtered;
    if bits & OWED != 0 {
        return Ok(None);
    }
    let kinds = [
        (DEAD, times.dead),
        (FILTERED, times.filtered),
        (DELIVERED, times.delivered),
    ];
    let longest = kinds
        .into_iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, time)| time)
        .max();
    Ok(Some(longest.unwrap_or(times.delivered)))
}

/// Removes events, except those that are owed again since they were found. What hangs on them goes with them.
pub(super) fn remove(tx: &mut Transaction<'_>, events: &[i64]) -> rusqlite::Result<usize> {
    let mut statement = tx.conn.prepare_cached(
        "DELETE FROM event WHERE seq = ?1 AND NOT EXISTS
            (SELECT 1 FROM delivery AS d INDEXED BY delivery_event
             WHERE d.event = ?1 AND (d.state IN ('pending', 'leased')
                OR d.state = 'merged' AND EXISTS (
                    SELECT 1 FROM delivery AS l WHERE l.key = d.leader AND l.state IN ('pending', 'leased', 'unknown'))))
         RETURNING proofs",
    )?;
    let mut gone = 0;
    for seq in events {
        let removed = statement
            .query_row([seq], |row| row.get::<_, Option<Vec<u8>>>(0))
            .optional()?;
        if let Some(proofs) = removed {
            search::remove(tx, *seq)?;
            proof::gone(tx, *seq, &proofs.unwrap_or_default())?;
            gone += 1;
        }
    }
    Ok(gone)
}
