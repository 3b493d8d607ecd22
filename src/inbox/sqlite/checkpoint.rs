//! Moving the write-ahead log into the file.
//!
//! A thread of its own does it every 50 ms while there are commits, without holding anybody up. Under load that alone
//! never reaches the log's end, and only at its end can the log begin anew; so past a bound the writer, between two
//! commits, waits for the rest once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, ErrorCode, ffi};

use super::health::Health;
use super::schema::{BUSY, PAGE, WAL_LIMIT};

/// Pause between two rounds.
const REST: Duration = Duration::from_millis(50);

/// Time that the writer waits for readers that still need the log.
const PATIENCE: Duration = Duration::from_millis(100);

/// The log's frames at its bound.
const FRAMES: i64 = WAL_LIMIT / PAGE;

/// Signals between the writer and the checkpointer.
#[derive(Debug)]
pub(super) struct CheckpointSignal {
    signs: Mutex<Signs>,
    changed: Condvar,
    /// The log's length in frames, at the last round.
    frames: AtomicI64,
    /// The length from which on the writer sees to it.
    bound: AtomicI64,
}

#[derive(Debug, Default)]
struct Signs {
    written: bool,
    stop: bool,
}

impl CheckpointSignal {
    /// Nothing written yet.
    pub(super) fn new() -> Self {
        Self {
            signs: Mutex::default(),
            changed: Condvar::new(),
            frames: AtomicI64::new(0),
            bound: AtomicI64::new(FRAMES),
        }
    }

    /// Says that there was a commit.
    pub(super) fn written(&self) {
        let mut signs = self.signs.lock();
        if !signs.written {
            signs.written = true;
            self.changed.notify_all();
        }
    }

    /// Ends the checkpointer.
    pub(super) fn stop(&self) {
        self.signs.lock().stop = true;
        self.changed.notify_all();
    }

    /// Waits for a commit. False: stop.
    fn wait(&self) -> bool {
        let mut signs = self.signs.lock();
        self.changed
            .wait_while(&mut signs, |signs| !signs.written && !signs.stop);
        signs.written = false;
        !signs.stop
    }

    fn rest(&self) {
        let mut signs = self.signs.lock();
        self.changed
            .wait_while_for(&mut signs, |signs| !signs.stop, REST);
    }
}

/// The checkpointer's thread.
pub(super) fn run(conn: &Connection, signal: &CheckpointSignal, health: &Arc<Health>) {
    while signal.wait() {
        match round(conn, "PRAGMA wal_checkpoint(PASSIVE)") {
            Ok((_, frames)) => signal.frames.store(frames, Ordering::Relaxed),
            Err(error) if is_lost(&error) => {
                health.fail(format!("a checkpoint failed: {error}"));
                return;
            }
            // A full disk or a lock held from outside: the log keeps everything, the next round tries again.
            Err(error) => tracing::debug!(cause = %error, "checkpoint put off"),
        }
        signal.rest();
    }
}

/// Lets the log begin anew when it has grown past its bound. Called by the writer, between two commits.
pub(super) fn restart_when_large(conn: &Connection, signal: &CheckpointSignal) {
    let frames = signal.frames.load(Ordering::Relaxed);
    if frames < signal.bound.load(Ordering::Relaxed) {
        return;
    }
    let done = conn
        .busy_timeout(PATIENCE)
        .and_then(|()| round(conn, "PRAGMA wal_checkpoint(RESTART)"));
    if let Err(error) = conn.busy_timeout(BUSY) {
        tracing::debug!(cause = %error, "busy timeout not set");
    }
    let bound = match done {
        Ok((false, _)) => {
            signal.frames.store(0, Ordering::Relaxed);
            FRAMES
        }
        // Somebody still reads old pages: not again before it has grown by an eighth of the bound.
        Ok((true, _)) | Err(_) => frames.saturating_add(FRAMES / 8),
    };
    signal.bound.store(bound, Ordering::Relaxed);
}

/// One checkpoint: whether it was held up, and the log's length in frames.
fn round(conn: &Connection, pragma: &str) -> rusqlite::Result<(bool, i64)> {
    conn.query_row(pragma, [], |row| {
        Ok((row.get::<_, i64>(0)? != 0, row.get(1)?))
    })
}

/// True if the disk said that it did not keep what it was given.
fn is_lost(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(code, _) => {
            code.code == ErrorCode::SystemIoFailure
                && code.extended_code != ffi::SQLITE_IOERR_SHMSIZE
        }
        _ => false,
    }
}
