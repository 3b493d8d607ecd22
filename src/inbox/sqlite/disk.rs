//! Room on the disk: its measure, and the bound above which nothing more is kept.
//!
//! The bound is looked at before an event is taken, and only then: what is owed is claimed, settled and removed however
//! little room there is, so that there is more again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::schema::PAGE;
use crate::inbox::Usage;

/// Time that an answer holds.
const HOLDS: Duration = Duration::from_millis(100);

/// Pages that are given back in one turn of the writer.
const GIVE_BACK: i64 = 200;

/// Steps of that in one sweep, and the pause between two of them; the next sweep goes on.
pub(super) const STEPS: usize = 1000;
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// Free pages that are kept for what comes next, whatever their share.
const SPARE: i64 = (64 << 20) / PAGE;

/// The room of a file.
#[derive(Debug)]
pub(super) struct Disk {
    file: PathBuf,
    log: PathBuf,
    most: Option<u64>,
    least_free: u64,
    /// Pages in the file that hold nothing.
    free_pages: AtomicI64,
    full: AtomicBool,
    looked: Mutex<Option<Instant>>,
}

impl Disk {
    /// Of a file that may have `most` bytes and leaves `least_free` of its disk.
    pub(super) fn new(file: &Path, most: Option<u64>, least_free: u64) -> Self {
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        Self {
            file: file.to_owned(),
            log: log.into(),
            most,
            least_free,
            free_pages: AtomicI64::new(0),
            full: AtomicBool::new(false),
            looked: Mutex::new(None),
        }
    }

    /// True if nothing more is to be kept.
    pub(super) fn is_full(&self) -> bool {
        let mut looked = self.looked.lock();
        if looked.is_none_or(|at| at.elapsed() >= HOLDS) {
            *looked = Some(Instant::now());
            let usage = self.usage();
            let above = self
                .most
                .is_some_and(|most| usage.bytes.saturating_sub(usage.reusable) >= most);
            let full = above || self.free().is_some_and(|free| free < self.least_free);
            if full != self.full.swap(full, Ordering::Relaxed) {
                if full {
                    tracing::error!(
                        bytes = usage.bytes,
                        "the inbox has no room left, new events are refused"
                    );
                } else {
                    tracing::info!(bytes = usage.bytes, "the inbox has room again");
                }
            }
        }
        drop(looked);
        self.full.load(Ordering::Relaxed)
    }

    /// Measures the room.
    pub(super) fn usage(&self) -> Usage {
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |data| data.len());
        let free = self.free_pages.load(Ordering::Relaxed).max(0);
        let log = length(&self.log);
        Usage {
            bytes: length(&self.file).saturating_add(log),
            // The log keeps its length and is written over again and again; what is in it goes into the file.
            reusable: u64::try_from(free.saturating_mul(PAGE))
                .unwrap_or(0)
                .saturating_add(log),
            ceiling: self.most,
        }
    }

    /// Bytes that the disk has left for this user; none where nobody can tell.
    fn free(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.file).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Notes what the writer knows of its file.
    pub(super) fn note(&self, conn: &Connection) {
        let free = conn
            .prepare_cached("PRAGMA freelist_count")
            .and_then(|mut ask| ask.query_row([], |row| row.get(0)));
        if let Ok(free) = free {
            self.free_pages.store(free, Ordering::Relaxed);
        }
    }
}

/// Gives a few pages back to the disk where more than a quarter of them hold nothing. Whether there is more to do.
pub(super) fn give_back(conn: &Connection) -> rusqlite::Result<bool> {
    let number = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (pages, free) = (number("page_count")?, number("freelist_count")?);
    if free <= SPARE || free <= pages / 4 {
        return Ok(false);
    }
    // A file from before this was possible has nothing to give.
    if number("auto_vacuum")? != 2 {
        return Ok(false);
    }
    let mut step = conn.prepare(&format!("PRAGMA incremental_vacuum({GIVE_BACK})"))?;
    let mut rows = step.query([])?;
    while rows.next()?.is_some() {}
    Ok(true)
}
