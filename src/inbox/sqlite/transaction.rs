//! A transaction of the writer: the connection, and the notes of what follows once it is on disk.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _};

use super::young::{Staged, Young};
use crate::model::{DeliveryId, DeliveryState, Route};

/// A transaction of the writer, as the work in it sees it.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    /// The connection, in a transaction.
    pub(super) conn: &'a Connection,
    /// The proofs of the last events, as they were before the turn.
    pub(super) young: &'a Young,
    /// The changes of this transaction to them.
    pub(super) staged: Staged,
    /// The last route that was asked for, and its number: most of a turn goes the same way.
    pub(super) route: Option<(Route, i64)>,
    counts: BTreeMap<(String, &'static str), i64>,
    told: Announcement,
}

/// The consequences of a transaction, once it is on disk.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// The notices to others.
    pub(super) told: Announcement,
    /// The changes of the proofs of the last events.
    pub(super) staged: Staged,
}

/// Notices to others, which follow once a transaction is on disk.
#[derive(Debug, Default)]
pub(super) struct Announcement {
    /// Something may have become due.
    pub(super) work_due: bool,
    /// Deliveries that have ended.
    pub(super) ended: Vec<DeliveryId>,
}

/// The state of a transaction beside the database, before a piece of work.
pub(super) struct Noted {
    counts: BTreeMap<(String, &'static str), i64>,
    staged: Staged,
}

impl<'a> Transaction<'a> {
    /// A transaction in which nothing has been done.
    pub(super) fn new(conn: &'a Connection, young: &'a Young) -> Self {
        Self {
            conn,
            young,
            staged: Staged::default(),
            route: None,
            counts: BTreeMap::new(),
            told: Announcement::default(),
        }
    }

    /// Notes that deliveries of a source came into a state (or left it: negative).
    pub(super) fn count(&mut self, source: &str, state: DeliveryState, by: i64) {
        *self
            .counts
            .entry((source.to_owned(), state.as_str()))
            .or_default() += by;
    }

    /// Deliveries of a source that are in a state, those of this turn among them.
    pub(super) fn counted(&self, source: &str, state: DeliveryState) -> rusqlite::Result<i64> {
        let kept: Option<i64> = self
            .conn
            .prepare_cached("SELECT count FROM counter WHERE source = ?1 AND state = ?2")?
            .query_row((source, state.as_str()), |row| row.get(0))
            .optional()?;
        let of_turn = self
            .counts
            .get(&(source.to_owned(), state.as_str()))
            .copied();
        Ok(kept.unwrap_or_default() + of_turn.unwrap_or_default())
    }

    /// Notes that something may have become due.
    pub(super) fn work_due(&mut self) {
        self.told.work_due = true;
    }

    /// Notes that a delivery has come to its end.
    pub(super) fn ended(&mut self, id: DeliveryId) {
        self.told.ended.push(id);
    }

    /// Writes what the work of the turn left to its end.
    pub(super) fn end(&mut self) -> rusqlite::Result<()> {
        self.write_counts()
    }

    /// Takes note of what a piece of work may change beside the database, so that it can be undone.
    pub(super) fn noted(&self) -> Noted {
        Noted {
            counts: self.counts.clone(),
            staged: self.staged.clone(),
        }
    }

    /// Undoes the changes of a piece of work beside the database.
    pub(super) fn undo(&mut self, before: Noted) {
        (self.counts, self.staged, self.route) = (before.counts, before.staged, None);
    }

    /// Ends the transaction, once it is on disk.
    pub(super) fn committed(self) -> Committed {
        Committed {
            told: self.told,
            staged: self.staged,
        }
    }

    fn write_counts(&mut self) -> rusqlite::Result<()> {
        let mut add = self.conn.prepare_cached(
            "INSERT INTO counter (source, state, count) VALUES (?1, ?2, ?3)
             ON CONFLICT (source, state) DO UPDATE SET count = count + excluded.count",
        )?;
        for ((source, state), by) in &self.counts {
            if *by != 0 {
                add.execute((source, state, by))?;
            }
        }
        Ok(())
    }
}
