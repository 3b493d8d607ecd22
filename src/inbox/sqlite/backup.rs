//! Copies of the file: one made while a gateway runs, and one put back so that nothing runs a second time.
//!
//! A copy is of one moment and is on disk when the call returns. What is put back is complete or not there: it is made
//! beside its place and renamed. Deliveries that were open at the time of the copy may have run since, so each is marked as
//! in doubt (the upstream is asked before it is sent) and every run is paused until an operator lets it go on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::file::{own_file, prepare_files, sync_folder};
use super::{SqliteInbox, schema};
use crate::inbox::InboxError;
use crate::inbox::backup::{MARGIN, Reopened};
use crate::model::Timestamp;

impl SqliteInbox {
    /// Copies the file as it stands now; a gateway that has it open goes on. The copy must not be there yet. Returns its
    /// size in bytes.
    pub async fn copy(path: &Path, copy: &Path) -> Result<u64, InboxError> {
        let (path, copy) = (path.to_owned(), copy.to_owned());
        blocking("back up", move || copy_blocking(&path, &copy)).await
    }

    /// Puts a copy in the place of an inbox that is not there, and marks what is open. It can be killed and run again.
    pub async fn put_back(
        copy: &Path,
        path: &Path,
        now: Timestamp,
    ) -> Result<Reopened, InboxError> {
        let (copy, path) = (copy.to_owned(), path.to_owned());
        blocking("restore", move || put_back_blocking(&copy, &path, now)).await
    }

    /// Marks what is open in a file that was put back by other means. No gateway may have it open.
    pub async fn reopen(path: &Path, now: Timestamp) -> Result<Reopened, InboxError> {
        let path = path.to_owned();
        blocking("restore", move || {
            if !path.exists() {
                return Err(format!("{}: there is no inbox", path.display()));
            }
            let _lock = prepare_files(&path)?;
            mark(&schema::writer(&path)?, now).map_err(|error| error.to_string())
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, InboxError> {
    let failed = |cause: String| InboxError::Engine { doing, cause };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(failed)
}

fn copy_blocking(path: &Path, copy: &Path) -> Result<u64, String> {
    let at = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    if copy.exists() {
        return Err(at(copy, &"is there already"));
    }
    if !path.exists() {
        return Err(at(path, &"there is no inbox"));
    }
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|error| at(path, &error))?;
    conn.busy_timeout(schema::BUSY)
        .map_err(|error| at(path, &error))?;
    let unfinished = with_ending(copy, ".part");
    remove(&unfinished)?;
    // Made here, so that nobody else may read it from the first byte on.
    own_file(&unfinished).map_err(|error| at(&unfinished, &error))?;
    let name = unfinished
        .to_str()
        .ok_or_else(|| at(copy, &"the name is not UTF-8"))?;
    // One snapshot, whatever is committed meanwhile.
    conn.execute("VACUUM INTO ?1", [name])
        .map_err(|error| at(copy, &error))?;
    let file = File::open(&unfinished).map_err(|error| at(&unfinished, &error))?;
    file.sync_all().map_err(|error| at(&unfinished, &error))?;
    let size = file
        .metadata()
        .map_err(|error| at(&unfinished, &error))?
        .len();
    fs::rename(&unfinished, copy).map_err(|error| at(copy, &error))?;
    sync_folder(copy)?;
    Ok(size)
}

fn put_back_blocking(copy: &Path, path: &Path, now: Timestamp) -> Result<Reopened, String> {
    let at = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    if fs::metadata(path).is_ok_and(|there| there.len() > 0) {
        return Err(at(
            path,
            &"there is an inbox already; move it away first, with its -wal and -shm files",
        ));
    }
    let source = File::open(copy).map_err(|error| at(copy, &error))?;
    let _lock = prepare_files(path)?;
    let unfinished = with_ending(path, ".part");
    for ending in [".part", ".part-wal", ".part-shm", "-wal", "-shm"] {
        remove(&with_ending(path, ending))?;
    }
    let mut file = own_file(&unfinished).map_err(|error| at(&unfinished, &error))?;
    std::io::copy(&mut &source, &mut file).map_err(|error| at(&unfinished, &error))?;
    file.sync_all().map_err(|error| at(&unfinished, &error))?;
    drop(file);
    let conn = schema::writer(&unfinished).map_err(|error| at(copy, &error))?;
    let sound: String = conn
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| at(copy, &error))?;
    if sound != "ok" {
        return Err(at(copy, &format!("the copy is damaged: {sound}")));
    }
    let reopened = mark(&conn, now).map_err(|error| at(copy, &error))?;
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(|error| at(&unfinished, &error))?;
    conn.close().map_err(|(_, error)| at(&unfinished, &error))?;
    File::open(&unfinished)
        .and_then(|file| file.sync_all())
        .map_err(|error| at(&unfinished, &error))?;
    fs::rename(&unfinished, path).map_err(|error| at(path, &error))?;
    sync_folder(path)?;
    Ok(reopened)
}

/// Marks what is open as in doubt since its event came, and pauses every run.
fn mark(conn: &Connection, now: Timestamp) -> rusqlite::Result<Reopened> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let deliveries = conn.execute(
        "UPDATE delivery INDEXED BY delivery_state
         SET doubt = coalesce(doubt, (SELECT received_at FROM event WHERE seq = delivery.event) - ?1)
         WHERE state <> 'delivered' AND state IN ('pending', 'leased')",
        [MARGIN],
    )?;
    conn.execute(
        "INSERT INTO hold (kind, name, since) VALUES ('all', '', ?1) ON CONFLICT DO NOTHING",
        [now.millis()],
    )?;
    let events: i64 = conn.query_row("SELECT count(*) FROM event", [], |row| row.get(0))?;
    conn.execute_batch("COMMIT")?;
    Ok(Reopened {
        events: u64::try_from(events).unwrap_or_default(),
        deliveries,
    })
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
