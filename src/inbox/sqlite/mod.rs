//! The inbox on SQLite: one writer thread that commits in groups, readers beside it.
//!
//! One process has the file; a lock beside it (`<file>.lock`) says so. Everything that changes goes through the
//! writer's queue and shares commits; everything that only asks goes to a reader. The file has to lie on a local disk.

mod accept;
mod attempt;
mod backup;
mod browse;
#[cfg(test)]
mod bulk;
mod checkpoint;
mod claim;
mod disk;
mod error;
mod file;
mod files;
mod fill;
mod health;
mod job;
mod lane;
mod list;
mod naming;
mod operator;
mod overlap;
mod owe;
mod proof;
mod reader;
mod replay;
mod returned;
mod routes;
mod row;
mod schema;
mod search;
mod settle;
mod spend;
mod sweep;
mod transaction;
mod upkeep;
mod waiting;
mod work;
mod writer;
mod young;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use self::checkpoint::CheckpointSignal;
use self::disk::Disk;
pub use self::file::InboxFile;
use self::file::sync_folder;
use self::health::Health;
use self::lane::free_leases;
use self::reader::Readers;
use self::returned::Returned;
use self::sweep::Walks;
use self::transaction::Transaction;
use self::work::{QueuedWork, WriterMessage};
use self::writer::Writer;
use self::young::Young;
use super::InboxError;
use super::codec::Codec;
use super::fair::Shares;
use super::queue::QueueWeight;

/// An inbox in one SQLite file.
#[derive(Debug)]
pub struct SqliteInbox {
    codec: Codec,
    queue: Option<mpsc::Sender<WriterMessage>>,
    waiting: Arc<AtomicUsize>,
    returned: Returned,
    readers: Arc<Readers>,
    health: Arc<Health>,
    disk: Arc<Disk>,
    /// The places that claims gave of late, by account and source.
    shares: Arc<Mutex<Shares>>,
    walks: Mutex<Walks>,
    /// The task that fills the index of words, where bodies are searched by one.
    search: Option<AbortHandle>,
    threads: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
}

/// Options of the engine.
#[derive(Clone, Copy, Debug)]
pub struct SqliteOptions {
    /// Records that share a commit at most.
    pub batch: usize,
    /// Records that may wait for the writer.
    pub queue: usize,
    /// True if the words of bodies are put into an index.
    pub search: bool,
    /// The size that it may reach, in bytes.
    pub max_bytes: Option<u64>,
    /// Bytes of the disk that it leaves free.
    pub min_free: u64,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            batch: 512,
            queue: 4096,
            search: false,
            max_bytes: None,
            min_free: 0,
        }
    }
}

impl SqliteInbox {
    /// Opens an inbox whose rows are in clear, and makes the file where it is missing. Refused when another process has
    /// it open.
    pub async fn open(path: &Path, options: SqliteOptions) -> Result<Self, InboxError> {
        Self::open_file(InboxFile::lock(path).await?, options, Codec::plain()).await
    }

    /// Opens a file, brings its schema up to date, and frees the leases that a crash left.
    pub async fn open_file(
        file: InboxFile,
        options: SqliteOptions,
        codec: Codec,
    ) -> Result<Self, InboxError> {
        let opened = tokio::task::spawn_blocking(move || Self::open_blocking(file, options, codec));
        let failed = |cause: String| InboxError::Engine {
            doing: "open",
            cause,
        };
        let mut inbox = opened
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(failed)?;
        if options.search {
            let queue = inbox.queue()?.downgrade();
            let filling = tokio::spawn(search::fill(Arc::downgrade(&inbox.readers), queue));
            inbox.search = Some(filling.abort_handle());
        }
        Ok(inbox)
    }

    fn open_blocking(
        InboxFile { path, lock }: InboxFile,
        options: SqliteOptions,
        codec: Codec,
    ) -> Result<Self, String> {
        let path = path.as_path();
        let conn = schema::writer(path)?;
        free_leases(&conn)
            .map_err(|error| format!("leases of the last run cannot be freed: {error}"))?;
        let young = Young::read(&conn)
            .map_err(|error| format!("the proofs of the last events cannot be read: {error}"))?;
        // The file itself is on disk before anything is promised about what it holds.
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|error| error.to_string())?;
        sync_folder(path)?;
        let checkpointer = schema::checkpointer(path)?;
        let readers = Arc::new(Readers::open(path)?);
        let disk = Arc::new(Disk::new(path, options.max_bytes, options.min_free));
        disk.note(&conn);

        let (sender, queue) = mpsc::channel(options.queue.clamp(1, 1 << 20));
        let returned = Returned::new(sender.downgrade());
        let health = Arc::new(Health::new());
        let checkpoints = Arc::new(CheckpointSignal::new());
        let writer = Writer {
            conn,
            young,
            queue,
            batch: options.batch.clamp(1, 1 << 16),
            returned: returned.clone(),
            health: Arc::clone(&health),
            disk: Arc::clone(&disk),
            checkpoints: Arc::clone(&checkpoints),
            lock,
        };
        let threads = vec![
            thread("inbox-log", {
                let health = Arc::clone(&health);
                move || checkpoint::run(&checkpointer, &checkpoints, &health)
            })?,
            thread("inbox-writer", move || writer.run())?,
        ];
        Ok(Self {
            codec,
            queue: Some(sender),
            waiting: Arc::default(),
            returned,
            readers,
            health,
            disk,
            shares: Arc::default(),
            walks: Mutex::default(),
            search: None,
            threads: tokio::sync::Mutex::new(threads),
        })
    }

    /// Has something done by the writer, waiting for a place in its queue.
    async fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnMut(&mut Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, InboxError> {
        self.write_and_wrap(doing, work, |found| found).await
    }

    async fn write_and_wrap<T: Send + 'static, U: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnMut(&mut Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
        wrap: impl FnOnce(T) -> U + Send + 'static,
    ) -> Result<U, InboxError> {
        let (job, end) = QueuedWork::new(doing, QueueWeight::free(0), work, wrap);
        self.queue()?
            .send(WriterMessage::Work(Box::new(job)))
            .await
            .map_err(|_| InboxError::Closed)?;
        end.await.unwrap_or(Err(InboxError::Closed))
    }

    /// Removes old events, if there are any; how many went.
    async fn remove(&self, events: Vec<i64>) -> Result<usize, InboxError> {
        if events.is_empty() {
            return Ok(0);
        }
        self.write("sweep", move |tx| sweep::remove(tx, &events))
            .await
    }

    /// An error when nothing more is to be kept.
    fn has_room(&self) -> Result<(), InboxError> {
        if self.disk.is_full() {
            Err(InboxError::NoSpace)
        } else {
            Ok(())
        }
    }

    fn queue(&self) -> Result<&mpsc::Sender<WriterMessage>, InboxError> {
        self.queue.as_ref().ok_or(InboxError::Closed)
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, String> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(|error| format!("no thread: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use futures_util::future::join_all;
    use rusqlite::{Error, ffi};

    use super::*;
    use crate::inbox::{Accept as _, Browse as _, EventFilter, Upkeep as _};
    use crate::model::{Accepted, DeliveryState, EventId, NewEvent, Params, Strength, Timestamp};

    async fn opened() -> (tempfile::TempDir, SqliteInbox) {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions {
            queue: 512,
            ..SqliteOptions::default()
        };
        let inbox = SqliteInbox::open(&folder.path().join("inbox.db"), options)
            .await
            .unwrap();
        (folder, inbox)
    }

    pub(super) fn event(bytes: usize) -> NewEvent {
        NewEvent {
            id: EventId::new(),
            source: "s".into(),
            dedup: None,
            event_type: None,
            received_at: Timestamp::from_millis(1),
            strength: Strength::None,
            secret: None,
            proof: None,
            filtered: None,
            unmappable: None,
            thread: None,
            params: Params::default(),
            request_line: "POST /hooks/s".into(),
            headers: vec![],
            body: vec![b'x'; bytes].into(),
            attachments: vec![],
            most_ahead: None,
            backlog: None,
            deliveries: vec![],
        }
    }

    fn failure(code: i32) -> Error {
        Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_record_that_cannot_be_kept_refuses_only_itself() {
        let (_folder, inbox) = opened().await;
        let poison = inbox.write("poison", |tx| {
            tx.conn.execute("INSERT INTO probe VALUES (1, 1)", [])?;
            tx.count("s", DeliveryState::Dead, 1);
            tx.conn.execute("INSERT INTO probe VALUES (2, 1)", [])
        });
        let good = join_all((0..50).map(|_| inbox.accept(event(10))));
        let (poison, good) = tokio::join!(poison, good);
        assert!(matches!(poison, Err(InboxError::Record(_))), "{poison:?}");
        assert!(good.iter().all(|kept| matches!(kept, Ok(Accepted::New))));
        assert!(
            inbox.counts().await.unwrap().is_empty(),
            "nothing of it stays"
        );
        let probes = inbox.write("look", |tx| {
            tx.conn
                .query_row("SELECT count(*) FROM probe", [], |r| r.get::<_, i64>(0))
        });
        assert_eq!(probes.await.unwrap(), 0);
        assert!(inbox.ready().await.is_ok());
    }

    /// F5
    #[tokio::test(flavor = "multi_thread")]
    async fn f5_a_full_disk_refuses_and_is_forgotten_when_there_is_room() {
        let (_folder, inbox) = opened().await;
        let room = |pages: i64| {
            inbox.write("make room", move |tx| {
                tx.conn
                    .pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))
                    .and_then(|now| {
                        tx.conn.query_row(
                            &format!("PRAGMA max_page_count = {}", now + pages),
                            [],
                            |_| Ok(()),
                        )
                    })
            })
        };
        room(2).await.unwrap();
        assert!(matches!(
            inbox.accept(event(100_000)).await,
            Err(InboxError::NoSpace)
        ));
        assert!(inbox.health.is_troubled());
        room(1000).await.unwrap();
        assert_eq!(inbox.accept(event(100_000)).await.unwrap(), Accepted::New);
        assert!(!inbox.health.is_troubled());
        assert_eq!(
            inbox
                .events(&EventFilter {
                    limit: 9,
                    ..EventFilter::default()
                })
                .await
                .unwrap()
                .items
                .len(),
            1
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_probe_tells_whether_it_can_write_again() {
        let (_folder, inbox) = opened().await;
        let refused = inbox
            .write("write", |_| Err::<(), _>(failure(ffi::SQLITE_READONLY)))
            .await;
        assert!(matches!(
            refused,
            Err(InboxError::Engine { doing: "write", .. })
        ));
        assert!(inbox.health.is_troubled());
        inbox.ready().await.unwrap();
        assert!(!inbox.health.is_troubled());
    }

    /// F4
    #[tokio::test(flavor = "multi_thread")]
    async fn f4_a_failed_sync_stops_it_for_good() {
        let (folder, inbox) = opened().await;
        inbox.accept(event(1)).await.unwrap();
        let sync = inbox
            .write("sync", |_| Err::<(), _>(failure(ffi::SQLITE_IOERR_FSYNC)))
            .await;
        assert!(matches!(sync, Err(InboxError::Closed)), "{sync:?}");
        let cause = inbox.failed().await;
        assert!(cause.contains("I/O"), "{cause}");
        assert!(matches!(inbox.ready().await, Err(InboxError::Closed)));
        assert!(matches!(
            inbox.accept(event(1)).await,
            Err(InboxError::Closed)
        ));
        drop(inbox);
        let options = SqliteOptions {
            batch: 1,
            queue: 1,
            ..SqliteOptions::default()
        };
        let again = SqliteInbox::open(&folder.path().join("inbox.db"), options)
            .await
            .unwrap();
        assert_eq!(
            again
                .events(&EventFilter {
                    limit: 9,
                    ..EventFilter::default()
                })
                .await
                .unwrap()
                .items
                .len(),
            1
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn f20_a_panic_in_the_writer_is_told_and_nobody_waits_for_ever() {
        let (_folder, inbox) = opened().await;
        let gone = inbox.write::<()>("panic", |_| panic!("on purpose")).await;
        assert!(matches!(gone, Err(InboxError::Closed)));
        assert!(inbox.failed().await.contains("panicked"));
        assert!(matches!(
            inbox.accept(event(1)).await,
            Err(InboxError::Closed)
        ));
        inbox.close().await;
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn its_files_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, inbox) = opened().await;
        inbox.accept(event(1)).await.unwrap();
        let modes = fs::read_dir(folder.path()).unwrap().map(|file| {
            let file = file.unwrap();
            (
                file.file_name(),
                file.metadata().unwrap().permissions().mode() & 0o777,
            )
        });
        for (name, mode) in modes {
            assert_eq!(mode, 0o600, "{name:?}");
        }
    }
}
