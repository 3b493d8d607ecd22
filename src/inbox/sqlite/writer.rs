//! The one thread that writes.
//!
//! It takes what waits, up to a bound, does it in one transaction, commits, and only then answers; there is no timer:
//! while one commit syncs, the next group gathers. A group that fails is done again record by record, so that a record
//! which cannot be kept refuses only itself. A full disk refuses the group and the thread goes on. A failed sync is
//! the end: what a second sync would say is not to be believed, so nothing is written after it.

use std::fs::File;
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::checkpoint::{self, CheckpointSignal};
use super::disk::Disk;
use super::error::WriteError;
use super::health::Health;
use super::proof;
use super::returned::Returned;
use super::transaction::{Committed, Transaction};
use super::work::{Work, WriterMessage};
use super::young::Young;
use crate::inbox::InboxError;
use crate::inbox::bounds::BATCH_BYTES;

/// The writer, ready to run on its own thread.
pub(super) struct Writer {
    /// Its connection.
    pub(super) conn: Connection,
    /// The proofs of the last events.
    pub(super) young: Young,
    /// The queue.
    pub(super) queue: mpsc::Receiver<WriterMessage>,
    /// Records that share a commit at most.
    pub(super) batch: usize,
    /// Leases that nobody took.
    pub(super) returned: Returned,
    /// The health that others see.
    pub(super) health: Arc<Health>,
    /// The room on the disk.
    pub(super) disk: Arc<Disk>,
    /// The signals to the checkpointer.
    pub(super) checkpoints: Arc<CheckpointSignal>,
    /// The lock on the file; free when the writer has ended.
    pub(super) lock: File,
}

impl Writer {
    /// Works until it is told to close, everybody who could send is gone, or a sync failed.
    pub(super) fn run(mut self) {
        let _end = EndGuard {
            health: Arc::clone(&self.health),
            checkpoints: Arc::clone(&self.checkpoints),
        };
        let mut group: Vec<Box<dyn Work>> = Vec::with_capacity(self.batch);
        while let Some(first) = self.queue.blocking_recv() {
            let mut bytes = self.take(first, &mut group);
            while group.len() < self.batch && bytes < BATCH_BYTES {
                let Ok(next) = self.queue.try_recv() else {
                    break;
                };
                bytes = bytes.saturating_add(self.take(next, &mut group));
            }
            group.extend(self.returned.work());
            if self.health.failure().is_some() {
                break;
            }
            if !group.is_empty() {
                self.write_group(&mut group);
            }
            if self.health.failure().is_some() {
                break;
            }
            checkpoint::restart_when_large(&self.conn, &self.checkpoints);
        }
        self.queue.close();
        while let Ok(message) = self.queue.try_recv() {
            if let WriterMessage::Work(work) = message {
                group.push(work);
            }
        }
        for work in group.drain(..) {
            work.answer(Err(InboxError::Closed));
        }
        if self.health.failure().is_none() {
            // Nothing hangs on it: what is left in the log is read at the next start.
            let _ = self
                .conn
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        drop(self.conn);
        drop(self.lock);
    }

    fn take(&mut self, message: WriterMessage, group: &mut Vec<Box<dyn Work>>) -> usize {
        match message {
            WriterMessage::Work(work) => {
                let bytes = work.bytes();
                group.push(work);
                bytes
            }
            WriterMessage::Look => 0,
            WriterMessage::Close => {
                // What was handed in before still comes out of the queue; then it ends by itself.
                self.queue.close();
                0
            }
        }
    }

    /// Does a group in one transaction, and tells everybody in it how it ended.
    fn write_group(&mut self, group: &mut Vec<Box<dyn Work>>) {
        let before = self.conn.total_changes();
        let (ends, Committed { told, staged }) = match self.together(group) {
            Ok(done) => (None, done),
            Err(WriteError::Record(_) | WriteError::Engine(_)) => {
                let (ends, done) = self.one_by_one(group);
                (Some(ends), done)
            }
            Err(fault) => (
                Some(group.iter().map(|_| Err(fault.for_all())).collect()),
                Committed::default(),
            ),
        };
        self.young.commit(staged);
        let wrote = self.conn.total_changes() != before;
        self.take_note(ends.as_deref(), wrote);
        if wrote {
            self.disk.note(&self.conn);
        }
        match ends {
            None => group.drain(..).for_each(|work| work.answer(Ok(()))),
            Some(ends) => {
                for (work, end) in group.drain(..).zip(ends) {
                    let doing = work.doing();
                    work.answer(end.map_err(|fault| fault.told(doing)));
                }
            }
        }
        if told.work_due {
            self.health.work_due.notify_one();
        }
        self.health.waiters.notify(&told.ended);
        // After a failure too: a checkpoint may be what makes room in the log.
        if wrote || self.health.is_troubled() {
            self.checkpoints.written();
        }
    }

    /// Everything or nothing. Ok: committed, and what follows.
    fn together(&self, group: &mut [Box<dyn Work>]) -> Result<Committed, WriteError> {
        let mut tx = self
            .begin()
            .map_err(|error| WriteError::of(&error, false))?;
        let done = group
            .iter_mut()
            .try_for_each(|work| work.apply(&mut tx))
            .and_then(|()| proof::move_young(&mut tx))
            .and_then(|()| tx.end());
        if let Err(error) = done {
            self.roll_back();
            return Err(WriteError::of(&error, false));
        }
        self.commit()?;
        Ok(tx.committed())
    }

    /// Each for itself, still in one transaction.
    fn one_by_one(&self, group: &mut [Box<dyn Work>]) -> (Vec<Result<(), WriteError>>, Committed) {
        let mut tx = match self.begin() {
            Ok(tx) => tx,
            Err(error) => {
                let fault = WriteError::of(&error, false);
                return (
                    group.iter().map(|_| Err(fault.for_all())).collect(),
                    Committed::default(),
                );
            }
        };
        let mut ends = Vec::with_capacity(group.len());
        for work in group.iter_mut() {
            let before = tx.noted();
            let end = self
                .conn
                .execute_batch("SAVEPOINT one")
                .and_then(|()| work.apply(&mut tx));
            let undo = if end.is_ok() {
                "RELEASE one"
            } else {
                "ROLLBACK TO one; RELEASE one"
            };
            let undone = self.conn.execute_batch(undo);
            if end.is_err() {
                tx.undo(before);
            }
            // Some faults take the whole transaction with them, and the savepoint too.
            if let Err(error) = undone {
                let fault = WriteError::of(end.as_ref().err().unwrap_or(&error), false);
                self.roll_back();
                return (
                    group.iter().map(|_| Err(fault.for_all())).collect(),
                    Committed::default(),
                );
            }
            ends.push(end.map_err(|error| WriteError::of(&error, false)));
        }
        let done = proof::move_young(&mut tx)
            .and_then(|()| tx.end())
            .map_err(|error| WriteError::of(&error, false))
            .and_then(|()| self.commit());
        match done {
            Ok(()) => (ends, tx.committed()),
            Err(fault) => {
                self.roll_back();
                (
                    group.iter().map(|_| Err(fault.for_all())).collect(),
                    Committed::default(),
                )
            }
        }
    }

    fn begin(&self) -> rusqlite::Result<Transaction<'_>> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(Transaction::new(&self.conn, &self.young))
    }

    fn commit(&self) -> Result<(), WriteError> {
        let done = self
            .conn
            .prepare_cached("COMMIT")
            .and_then(|mut commit| commit.execute([]));
        done.map(|_| ()).map_err(|error| {
            self.roll_back();
            WriteError::of(&error, true)
        })
    }

    fn roll_back(&self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            self.health
                .fail(format!("a failed transaction could not be undone: {error}"));
        }
    }

    /// Remembers whether it can write, for the readiness probe; says it once in the log.
    fn take_note(&self, ends: Option<&[Result<(), WriteError>]>, wrote: bool) {
        let fault = ends.into_iter().flatten().find_map(|end| match end {
            Err(WriteError::Record(_)) | Ok(()) => None,
            Err(fault) => Some(fault),
        });
        match fault {
            Some(WriteError::Fatal(cause)) => self.health.fail(cause.clone()),
            Some(fault) => self.health.trouble(&fault.told("write")),
            None if wrote => self.health.recovered(),
            None => {}
        }
    }
}

/// Says how the thread ended, however it ended.
struct EndGuard {
    health: Arc<Health>,
    checkpoints: Arc<CheckpointSignal>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.health.fail("the writer panicked".into());
        }
        self.checkpoints.stop();
        self.health.closed();
    }
}
