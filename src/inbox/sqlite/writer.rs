//! The one thread that writes.
//!
//! It takes what waits, up to a bound, does it in one transaction, commits, and only then answers; there is no timer:
//! while one commit syncs, the next group gathers. A group that fails is done again record by record, so that a record
//! which cannot be kept refuses only itself. A full disk refuses the group and the thread goes on. A failed sync is
//! the end: what a second sync would say is not to be believed, so nothing is written after it.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::OptionalExtension as _;
use rusqlite::{Connection, ErrorCode, ffi};
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::{self, CheckpointSignal};
use super::claim::Returned;
use super::disk::Disk;
use super::health::Health;
use super::young::{Staged, Young};
use crate::inbox::InboxError;
use crate::model::{DeliveryId, DeliveryState, Route};

/// How many bytes of records share a commit at most, the one that passes the bound included.
const BATCH_BYTES: usize = 4 << 20;

/// Something to be done in a shared transaction.
pub(super) trait Work: Send {
    /// Does it. May be called again after a rollback.
    fn apply(&mut self, tx: &mut Transaction<'_>) -> rusqlite::Result<()>;
    /// How large its record is.
    fn bytes(&self) -> usize;
    /// Names the operation.
    fn doing(&self) -> &'static str;
    /// Tells who waits, after the commit or its failure.
    fn answer(self: Box<Self>, end: Result<(), InboxError>);
}

/// One turn of the writer, as the work in it sees it.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    /// The connection, in a transaction.
    pub(super) conn: &'a Connection,
    /// The proofs of the last events, as they were before the turn.
    pub(super) young: &'a Young,
    /// What the turn changes of them.
    pub(super) staged: Staged,
    /// The last route that was asked for, and its number: most of a turn goes the same way.
    pub(super) route: Option<(Route, i64)>,
    counts: BTreeMap<(String, &'static str), i64>,
    told: Announcement,
}

/// What follows once a turn is on disk.
#[derive(Debug, Default)]
struct Committed {
    told: Announcement,
    staged: Staged,
}

/// What is told to others once a turn is on disk.
#[derive(Debug, Default)]
struct Announcement {
    news: bool,
    ended: Vec<DeliveryId>,
}

impl Transaction<'_> {
    /// Notes that deliveries of a source came into a state (or left it: negative).
    pub(super) fn count(&mut self, source: &str, state: DeliveryState, by: i64) {
        *self
            .counts
            .entry((source.to_owned(), state.as_str()))
            .or_default() += by;
    }

    /// How many deliveries of a source are in a state, those of this turn among them.
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
    pub(super) fn news(&mut self) {
        self.told.news = true;
    }

    /// Notes that a delivery has come to its end.
    pub(super) fn ended(&mut self, id: DeliveryId) {
        self.told.ended.push(id);
    }

    /// Writes what the work of the turn left to its end.
    fn end(&mut self) -> rusqlite::Result<()> {
        let young = self.young;
        young.step(self)?;
        self.write_counts()
    }

    fn done(self) -> Committed {
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

/// A closure as [`Work`], with who waits for its end. What it found is wrapped only after the commit.
pub(super) struct QueuedWork<T, U, F, W> {
    doing: &'static str,
    work: F,
    wrap: W,
    found: Option<T>,
    reply: oneshot::Sender<Result<U, InboxError>>,
    weight: Weight,
}

impl<T, U, F: FnMut(&mut Transaction<'_>) -> rusqlite::Result<T>, W> QueuedWork<T, U, F, W> {
    /// A job and where its end will be told.
    pub(super) fn new(
        doing: &'static str,
        weight: Weight,
        work: F,
        wrap: W,
    ) -> (Self, oneshot::Receiver<Result<U, InboxError>>) {
        let (reply, end) = oneshot::channel();
        (
            Self {
                doing,
                work,
                wrap,
                found: None,
                reply,
                weight,
            },
            end,
        )
    }
}

impl<T, U, F, W> Work for QueuedWork<T, U, F, W>
where
    T: Send,
    U: Send,
    F: FnMut(&mut Transaction<'_>) -> rusqlite::Result<T> + Send,
    W: FnOnce(T) -> U + Send,
{
    fn apply(&mut self, tx: &mut Transaction<'_>) -> rusqlite::Result<()> {
        self.found = Some((self.work)(tx)?);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.weight.bytes
    }

    fn doing(&self) -> &'static str {
        self.doing
    }

    fn answer(self: Box<Self>, end: Result<(), InboxError>) {
        let Self {
            wrap,
            found,
            reply,
            weight,
            ..
        } = *self;
        drop(weight);
        let end = end.and_then(|()| found.ok_or(InboxError::Closed)).map(wrap);
        // Whoever asked may have gone; what was done stays done.
        let _ = reply.send(end);
    }
}

/// What a record weighs while it waits for the writer; so that a queue of large bodies is bounded too.
#[derive(Debug)]
pub(super) struct Weight {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Weight {
    /// Puts a record on the scales; none when too much lies there already. One record may always wait alone.
    pub(super) fn of(bytes: usize, all: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let before = all.fetch_add(bytes, Ordering::Relaxed);
        let weight = Self {
            bytes,
            all: Arc::clone(all),
        };
        (before == 0 || before.saturating_add(bytes) <= limit).then_some(weight)
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The writer, ready to run on its own thread.
pub(super) struct Writer {
    /// Its connection.
    pub(super) conn: Connection,
    /// The proofs of the last events.
    pub(super) young: Young,
    /// What waits.
    pub(super) queue: mpsc::Receiver<WriterMessage>,
    /// How many records share a commit at most.
    pub(super) batch: usize,
    /// Leases that nobody took.
    pub(super) returned: Returned,
    /// What others may know of it.
    pub(super) shared: Arc<Health>,
    /// How much room there is.
    pub(super) disk: Arc<Disk>,
    /// What the checkpointer is told.
    pub(super) pace: Arc<CheckpointSignal>,
    /// The lock on the file; free when the writer has ended.
    pub(super) lock: File,
}

/// What the writer is sent.
pub(super) enum WriterMessage {
    /// Do this.
    Work(Box<dyn Work>),
    /// Look for returned leases.
    Look,
    /// Finish what was handed in, and end.
    Close,
}

/// Why a group or a record failed.
#[derive(Debug, PartialEq)]
enum WriteError {
    NoSpace,
    Record(String),
    Engine(String),
    /// Nothing can be trusted any more.
    Fatal(String),
}

impl WriteError {
    fn of(error: &rusqlite::Error, committing: bool) -> Self {
        let cause = error.to_string();
        let rusqlite::Error::SqliteFailure(code, _) = error else {
            return match error {
                rusqlite::Error::ToSqlConversionFailure(_) | rusqlite::Error::NulError(_) => {
                    Self::Record(cause)
                }
                _ => Self::Engine(cause),
            };
        };
        match (code.code, code.extended_code) {
            // The shared index of the log lives on the same disk.
            (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => Self::NoSpace,
            (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => Self::Fatal(cause),
            (
                ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase,
                _,
            ) if committing => Self::Fatal(cause),
            (ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch, _) => {
                Self::Record(cause)
            }
            _ => Self::Engine(cause),
        }
    }

    fn told(&self, doing: &'static str) -> InboxError {
        match self {
            Self::NoSpace => InboxError::NoSpace,
            Self::Record(cause) => InboxError::Record(cause.clone()),
            Self::Engine(cause) => InboxError::Engine {
                doing,
                cause: cause.clone(),
            },
            Self::Fatal(_) => InboxError::Closed,
        }
    }

    /// The same fault for each of a group that failed as one; none of them is to blame, so no `Record` among them.
    fn for_all(&self) -> Self {
        match self {
            Self::NoSpace => Self::NoSpace,
            Self::Record(cause) | Self::Engine(cause) => Self::Engine(cause.clone()),
            Self::Fatal(cause) => Self::Fatal(cause.clone()),
        }
    }
}

impl Writer {
    /// Works until it is told to close, everybody who could send is gone, or a sync failed.
    pub(super) fn run(mut self) {
        let _end = EndGuard {
            shared: Arc::clone(&self.shared),
            pace: Arc::clone(&self.pace),
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
            if self.shared.failure().is_some() {
                break;
            }
            if !group.is_empty() {
                self.write_group(&mut group);
            }
            if self.shared.failure().is_some() {
                break;
            }
            checkpoint::restart_when_large(&self.conn, &self.pace);
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
        if self.shared.failure().is_none() {
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
        if told.news {
            self.shared.news.notify_one();
        }
        self.shared.ended(&told.ended);
        // After a failure too: a checkpoint may be what makes room in the log.
        if wrote || self.shared.troubled().is_some() {
            self.pace.written();
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
            .and_then(|()| tx.end());
        if let Err(error) = done {
            self.roll_back();
            return Err(WriteError::of(&error, false));
        }
        self.commit()?;
        Ok(tx.done())
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
            let (counts, staged) = (tx.counts.clone(), tx.staged.clone());
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
                (tx.counts, tx.staged, tx.route) = (counts, staged, None);
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
        let done = tx
            .end()
            .map_err(|error| WriteError::of(&error, false))
            .and_then(|()| self.commit());
        match done {
            Ok(()) => (ends, tx.done()),
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
        Ok(Transaction {
            conn: &self.conn,
            young: &self.young,
            staged: Staged::default(),
            route: None,
            counts: BTreeMap::new(),
            told: Announcement::default(),
        })
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
            self.shared
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
            Some(WriteError::Fatal(cause)) => self.shared.fail(cause.clone()),
            Some(fault) => self.shared.trouble(fault.told("write")),
            None if wrote => self.shared.recovered(),
            None => {}
        }
    }
}

/// Says how the thread ended, however it ended.
struct EndGuard {
    shared: Arc<Health>,
    pace: Arc<CheckpointSignal>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.fail("the writer panicked".into());
        }
        self.pace.stop();
        self.shared.closed();
    }
}

/// A lock whose holder cannot have left it half changed.
pub(super) fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
