//! Schema of the file: it is brought up to date here, and connections are set up.
//!
//! A migration runs whole or not at all, and is never changed once it has shipped: `user_version` says how many ran.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// The oldest SQLite that may be used: before it, a checkpoint racing a commit could damage the file.
const OLDEST: i32 = 3_051_003;

/// Says that the file is one of ours ("slui"), so that another program's database is not taken for an inbox.
const APPLICATION_ID: i32 = 0x736c_7569;

/// The page size. Set before the first table, fixed afterwards.
pub(super) const PAGE: i64 = 8192;

/// Room for the pages of the file that the writer may hold, in MiB. It takes that only as the file grows: with a
/// million events waiting, less has it read the upper levels of its indexes again at every claim.
const CACHE: i64 = 40;

/// The size of the write-ahead log from which on the writer itself sees to it.
pub(super) const WAL_LIMIT: i64 = 64 << 20;

/// Every migration, in order.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/sqlite/0001_inbox.sql"),
    include_str!("../migrations/sqlite/0002_sealed_calls.sql"),
    include_str!("../migrations/sqlite/0003_routes.sql"),
    include_str!("../migrations/sqlite/0004_attachments.sql"),
    include_str!("../migrations/sqlite/0005_spent.sql"),
    include_str!("../migrations/sqlite/0006_accounts.sql"),
    include_str!("../migrations/sqlite/0007_upstream_ids.sql"),
    include_str!("../migrations/sqlite/0008_proofs.sql"),
    include_str!("../migrations/sqlite/0009_young_proofs.sql"),
    include_str!("../migrations/sqlite/0010_owed.sql"),
];

/// Time that a connection waits for a lock that somebody outside holds.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// Opens the connection that writes, and brings the schema up to date.
pub(super) fn writer(path: &Path) -> Result<Connection, String> {
    let found = rusqlite::version_number();
    if found < OLDEST {
        return Err(format!(
            "SQLite {} is too old: 3.51.3 or newer is needed",
            rusqlite::version()
        ));
    }
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(text)?;
    tune(&conn, CACHE).map_err(text)?;
    migrate(&conn)?;
    Ok(conn)
}

/// Opens the connection that only moves the log into the file.
pub(super) fn checkpointer(path: &Path) -> Result<Connection, String> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(text)?;
    tune(&conn, 1).map_err(text)?;
    Ok(conn)
}

/// Opens a connection that only reads.
pub(super) fn reader(path: &Path) -> Result<Connection, String> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(text)?;
    conn.execute_batch("PRAGMA cache_size = -2048; PRAGMA query_only = 1;")
        .map_err(text)?;
    Ok(conn)
}

fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    // No URI flag: a file name is a name, whatever characters it has. Each connection stays with one thread at a time.
    let conn = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY)?;
    // One that does not fit is parsed and planned each time; the writer has about 80.
    conn.set_prepared_statement_cache_capacity(128);
    // Plans do not look at bound values. Else, with partial indexes about, a cached statement is parsed and planned
    // again each time its values change, which costs more than running it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(conn)
}

/// Sets what a connection that writes needs; a cache of `cache` MiB.
fn tune(conn: &Connection, cache: i64) -> rusqlite::Result<()> {
    conn.pragma_update(None, "page_size", PAGE)?;
    // Pages can be given back; which, and when, is said in `disk`. Takes effect in a file that is still empty.
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR),
            Some("the file system cannot keep a write-ahead log: a local disk is needed".into()),
        ));
    }
    // FULL: NORMAL loses acknowledged events in a power cut. Checkpoints are run by us, never inside a commit.
    conn.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA fullfsync = 1; PRAGMA checkpoint_fullfsync = 1; PRAGMA foreign_keys = 1;
         PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {WAL_LIMIT}; PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = {};",
        -1024 * cache
    ))
}

fn migrate(conn: &Connection) -> Result<(), String> {
    let number = |name| {
        conn.pragma_query_value(None, name, |row| row.get::<_, i32>(0))
            .map_err(text)
    };
    let (id, done) = (number("application_id")?, number("user_version")?);
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(text)?;
    if id != APPLICATION_ID && (id != 0 || done != 0 || tables != 0) {
        return Err("the file is a database, but no inbox of ours".into());
    }
    let done = usize::try_from(done).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        return Err(format!(
            "the file was made by a newer version (schema {done}, known {})",
            MIGRATIONS.len()
        ));
    }
    for (at, sql) in MIGRATIONS.iter().enumerate().skip(done) {
        conn.execute_batch(&format!(
            "BEGIN IMMEDIATE; {sql}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}; COMMIT;",
            at + 1
        ))
        .map_err(|error| format!("migration {} failed: {error}", at + 1))?;
    }
    Ok(())
}

/// The migrations that made a file of an earlier schema.
#[cfg(test)]
pub(super) fn up_to(count: usize) -> String {
    let sql: String = MIGRATIONS.iter().take(count).copied().collect();
    format!("{sql} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {count};")
}

fn text(error: rusqlite::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.db");
        std::fs::File::create(&path).unwrap();
        (folder, path)
    }

    #[test]
    fn settings_that_durability_rests_on_are_in_force() {
        let (_folder, path) = file();
        let conn = writer(&path).unwrap();
        for (name, want) in [
            ("synchronous", 2),
            ("page_size", PAGE),
            ("foreign_keys", 1),
            ("wal_autocheckpoint", 0),
        ] {
            let found: i64 = conn
                .pragma_query_value(None, name, |row| row.get(0))
                .unwrap();
            assert_eq!(found, want, "{name}");
        }
        assert_eq!(
            conn.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))
                .unwrap(),
            "wal"
        );
        let reader = reader(&path).unwrap();
        for conn in [&conn, &reader] {
            assert!(
                conn.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG)
                    .unwrap(),
                "plans hold"
            );
        }
        assert!(reader.execute("DELETE FROM event", []).is_err());
    }

    #[test]
    fn an_inbox_of_the_first_version_is_brought_up_to_date_with_what_is_in_it() {
        let (_folder, path) = file();
        let old = Connection::open(&path).unwrap();
        old.execute_batch(&format!(
            "{}
             INSERT INTO event (id, source, received_at, strength) VALUES (x'00', 's', 1, 'none');
             INSERT INTO delivery (event, number, destination, lane, upstream_id, turns, state)
                VALUES (1, 0, 'agent/a', 1, 'u', 0, 'delivered');",
            up_to(1)
        ))
        .unwrap();
        drop(old);
        let conn = writer(&path).unwrap();
        let found = conn.query_row("SELECT upstream_id, sealed FROM delivery", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))
        });
        assert_eq!(found.unwrap(), ("u".into(), false));
        conn.execute("INSERT INTO sealed VALUES (1, x'00')", [])
            .unwrap();
        conn.execute("DELETE FROM event", []).unwrap();
        let left: i64 = conn
            .query_row("SELECT count(*) FROM sealed", [], |row| row.get(0))
            .unwrap();
        assert_eq!(left, 0, "it goes with its event");
    }

    #[test]
    fn s20_conversations_of_before_keep_their_names() {
        let (_folder, path) = file();
        let old = Connection::open(&path).unwrap();
        let former = "2f1acc6c-0d8b-5a54-9a5c-3d5e4b7a1c00";
        old.execute_batch(&format!(
            "{}
             INSERT INTO event (id, source, received_at, strength) VALUES (x'00', 's', 1, 'none');
             INSERT INTO delivery (event, number, destination, lane, upstream_id, turns, state) VALUES
                (1, 0, 'agent/a', 1, '{former}', 1, 'delivered'), (1, 1, 'agent/a', 1, '{former}', 1, 'dead'),
                (1, 2, 'agent/a', 1, 'as given', 1, 'dead'), (1, 3, 'agent/a', 1, '{}', 0, 'dead');",
            up_to(5),
            former.replace("2f", "3f"),
        ))
        .unwrap();
        drop(old);
        let conn = writer(&path).unwrap();
        let kept: Vec<String> = conn
            .prepare("SELECT upstream_id FROM former_thread")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(
            kept,
            [former],
            "a name of a delivery alone is no conversation's"
        );
    }

    #[test]
    fn a_strange_or_newer_file_is_left_alone() {
        let (_folder, path) = file();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE theirs (x)").unwrap();
        assert!(writer(&path).unwrap_err().contains("no inbox of ours"));
        drop(other);

        let (_folder, path) = file();
        writer(&path)
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        assert!(writer(&path).unwrap_err().contains("newer version"));
    }
}
