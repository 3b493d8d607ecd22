//! The inbox on SQLite: one writer thread that commits in groups, readers beside it.
//!
//! One process has the file; a lock beside it (`<file>.lock`) says so. Everything that changes goes through the
//! writer's queue and shares commits; everything that only asks goes to a reader. The file has to lie on a local disk.

mod accept;
mod attachment;
#[cfg(test)]
mod bulk;
mod checkpoint;
mod claim;
mod disk;
mod health;
mod list;
mod naming;
mod operator;
mod overlap;
mod proof;
mod query;
mod reader;
mod schema;
mod search;
mod settle;
mod spend;
mod sweep;
mod waiting;
mod writer;
mod young;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use self::checkpoint::CheckpointSignal;
use self::claim::{Leases, Returned};
use self::disk::Disk;
use self::health::Health;
use self::reader::Readers;
use self::sweep::Walks;
use self::writer::{QueuedWork, Transaction, Weight, Writer, WriterMessage, held};
use self::young::Young;
use super::fair::Shares;
use super::{
    self as inbox, Anew, ClaimBatch, Claimed, Count, DeliveryDetail, EventDetail, EventFilter,
    EventSummary, Inbox, InboxError, JobState, JobStep, Keep, KeptAttachment, NewJob, Page, Pause,
    Replayed, ReplicaStatus, Resolution, Settled, Settlement, SourceFare, Spend, Terms,
    Turn as Before, Usage, WaitingDelivery,
};
use crate::model::{
    Accepted, Attachment, AttachmentId, DeliveryId, DeliveryState, Destination, EventId,
    NewDelivery, NewEvent, ProofMark, Role, Timestamp, UpstreamIds, UsedProof,
};

/// How many bytes of records may wait for the writer.
const QUEUE_BYTES: usize = 128 << 20;

/// How often somebody who waits for a delivery's end looks for it without having been told.
const LOOK: Duration = Duration::from_secs(1);

/// An inbox in one SQLite file.
#[derive(Debug)]
pub struct SqliteInbox {
    queue: Option<mpsc::Sender<WriterMessage>>,
    waiting: Arc<AtomicUsize>,
    returned: Returned,
    readers: Arc<Readers>,
    shared: Arc<Health>,
    disk: Arc<Disk>,
    /// What claims took of late, by whom.
    shares: Arc<Mutex<Shares>>,
    walks: Mutex<Walks>,
    /// Whether words of bodies are found by an index, and what fills it.
    search: Option<AbortHandle>,
    threads: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
}

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub struct SqliteOptions {
    /// How many records share a commit at most.
    pub batch: usize,
    /// How many may wait for the writer.
    pub queue: usize,
    /// Whether the words of bodies are put into an index.
    pub search: bool,
    /// How large it may become.
    pub max_bytes: Option<u64>,
    /// How much of the disk it leaves free.
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
    /// Opens the file, makes it where it is missing, brings its schema up to date, frees leases that a crash left.
    /// Refused when another process has it open.
    pub async fn open(path: &Path, options: SqliteOptions) -> Result<Self, InboxError> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || Self::open_blocking(&path, options));
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

    fn open_blocking(path: &Path, options: SqliteOptions) -> Result<Self, String> {
        let lock = prepare_files(path)?;
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
        let shared = Arc::new(Health::new());
        let pace = Arc::new(CheckpointSignal::new());
        let writer = Writer {
            conn,
            young,
            queue,
            batch: options.batch.clamp(1, 1 << 16),
            returned: returned.clone(),
            shared: Arc::clone(&shared),
            disk: Arc::clone(&disk),
            pace: Arc::clone(&pace),
            lock,
        };
        let threads = vec![
            thread("inbox-log", {
                let shared = Arc::clone(&shared);
                move || checkpoint::run(&checkpointer, &pace, &shared)
            })?,
            thread("inbox-writer", move || writer.run())?,
        ];
        Ok(Self {
            queue: Some(sender),
            waiting: Arc::default(),
            returned,
            readers,
            shared,
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
        let weight = Weight::of(0, &self.waiting, usize::MAX).ok_or(InboxError::Closed)?;
        let (job, end) = QueuedWork::new(doing, weight, work, wrap);
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

#[async_trait]
impl Inbox for SqliteInbox {
    async fn accept_all(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, InboxError> {
        self.has_room()?;
        let records: Vec<_> = events
            .into_iter()
            .map(accept::Record::new)
            .collect::<Result<_, _>>()?;
        let bytes = records.iter().map(accept::Record::bytes).sum();
        let weight = Weight::of(bytes, &self.waiting, QUEUE_BYTES).ok_or_else(full)?;
        let (job, end) = QueuedWork::new(
            "accept",
            weight,
            move |tx| accept::keep_all(tx, &records),
            |accepted| accepted,
        );
        // Whoever calls from outside is told at once that we are full; everybody else waits for a place.
        self.queue()?
            .try_send(WriterMessage::Work(Box::new(job)))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => full(),
                mpsc::error::TrySendError::Closed(_) => InboxError::Closed,
            })?;
        end.await.unwrap_or(Err(InboxError::Closed))
    }

    async fn claim(&self, terms: Box<dyn Terms>, now: Timestamp) -> Result<ClaimBatch, InboxError> {
        let returned = self.returned.clone();
        let shares = Arc::clone(&self.shares);
        let mut terms = terms;
        let (leases, next_due, dropped) = self
            .write_and_wrap(
                "claim",
                move |tx| claim::lease(tx, &mut *terms, &mut held(&shares), now),
                move |found| {
                    (
                        Leases::new(found.leases, returned),
                        found.next_due,
                        found.dropped,
                    )
                },
            )
            .await?;
        let claims = ClaimBatch {
            claimed: Vec::new(),
            next_due,
            dropped: dropped.into_iter().collect(),
        };
        if leases.is_empty() {
            return Ok(claims);
        }
        let (claimed, dealt, mut leases) = self
            .readers
            .ask("read what was claimed", move |conn| {
                claim::fill(conn, &leases).map(|(claimed, dealt)| (claimed, dealt, leases))
            })
            .await?;
        leases.hand_over(dealt);
        Ok(ClaimBatch { claimed, ..claims })
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, InboxError> {
        self.write("settle", move |tx| settle::settle(tx, &settlement))
            .await
    }

    async fn work_due(&self) {
        self.shared.news.notified().await;
    }

    async fn earlier_turn(&self, claimed: &Claimed) -> Result<Option<Before>, InboxError> {
        let key = claimed.clone();
        self.readers
            .ask("find the turn before", move |conn| {
                query::earlier_turn(conn, &key)
            })
            .await
    }

    async fn events(&self, filter: &EventFilter) -> Result<Page<EventSummary>, InboxError> {
        let (filter, indexed) = (filter.clone(), self.search.is_some());
        self.readers
            .ask("list events", move |conn| {
                list::events(conn, &filter, indexed)
            })
            .await
    }

    async fn count(&self, filter: &EventFilter, most: u64) -> Result<u64, InboxError> {
        let (mut filter, indexed) = (filter.clone(), self.search.is_some());
        let mut count = 0;
        // A window at a time, so that others get a reader in between and the log is not held.
        while count < most {
            let (asked, left) = (filter.clone(), most - count);
            let counting = move |conn: &Connection| list::count(conn, &asked, indexed, left);
            let (more, next) = self.readers.ask("count events", counting).await?;
            count += more;
            filter.cursor = next;
            if next.is_none() {
                break;
            }
        }
        Ok(count)
    }

    async fn event(&self, id: EventId) -> Result<Option<EventDetail>, InboxError> {
        self.readers
            .ask("read an event", move |conn| query::event(conn, id))
            .await
    }

    async fn between(
        &self,
        from: EventId,
        to: EventId,
        most: usize,
    ) -> Result<Vec<EventId>, InboxError> {
        self.readers
            .ask("look ids up", move |conn| {
                waiting::between(conn, from, to, most)
            })
            .await
    }

    async fn waiting(&self, events: Vec<EventId>) -> Result<Vec<WaitingDelivery>, InboxError> {
        self.readers
            .ask("look up what is waited for", move |conn| {
                waiting::of(conn, &events)
            })
            .await
    }

    async fn source_fares(&self) -> Result<Vec<SourceFare>, InboxError> {
        self.readers
            .ask("look at the sources", waiting::source_fares)
            .await
    }

    async fn destinations(&self) -> Result<Vec<Destination>, InboxError> {
        self.readers
            .ask("list destinations", waiting::destinations)
            .await
    }

    async fn known(&self, source: &str, dedup: &str) -> Result<Option<EventId>, InboxError> {
        let (source, dedup) = (source.to_owned(), dedup.to_owned());
        self.readers
            .ask("look a dedup key up", move |conn| {
                query::known(conn, &source, &dedup)
            })
            .await
    }

    async fn replay(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        now: Timestamp,
    ) -> Result<Replayed, InboxError> {
        self.has_room()?;
        self.write("replay", move |tx| accept::replay(tx, id, first, &to, now))
            .await
    }

    async fn replay_anew(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        anew: Anew,
        now: Timestamp,
    ) -> Result<Replayed, InboxError> {
        self.has_room()?;
        self.write("replay", move |tx| {
            accept::replay_anew(tx, (id, first), &to, &anew, now)
        })
        .await
    }

    async fn cancel(&self, id: DeliveryId, now: Timestamp) -> Result<bool, InboxError> {
        self.write("cancel", move |tx| settle::cancel(tx, id, now))
            .await
    }

    async fn resolve(
        &self,
        id: DeliveryId,
        how: Resolution,
        note: &str,
        now: Timestamp,
    ) -> Result<bool, InboxError> {
        let note = note.to_owned();
        self.write("settle by hand", move |tx| {
            operator::resolve(tx, id, how, &note, now)
        })
        .await
    }

    async fn set_paused(&self, what: &Pause, on: bool, now: Timestamp) -> Result<bool, InboxError> {
        let what = what.clone();
        self.write("hold", move |tx| operator::hold(tx, &what, on, now))
            .await
    }

    async fn pauses(&self) -> Result<Vec<(Pause, Timestamp)>, InboxError> {
        self.readers.ask("read what is held", operator::holds).await
    }

    async fn begin_job(&self, job: NewJob, now: Timestamp) -> Result<inbox::Job, InboxError> {
        self.write("begin a job", move |tx| operator::begin_job(tx, &job, now))
            .await
    }

    async fn jobs(&self) -> Result<Vec<inbox::Job>, InboxError> {
        self.readers.ask("list jobs", operator::jobs).await
    }

    async fn steer_job(
        &self,
        id: i64,
        state: Option<JobState>,
        pace: Option<u32>,
        now: Timestamp,
    ) -> Result<Option<inbox::Job>, InboxError> {
        self.write("steer a job", move |tx| {
            operator::steer_job(tx, id, state, pace, now)
        })
        .await
    }

    async fn step_job(
        &self,
        step: JobStep,
        now: Timestamp,
    ) -> Result<Option<inbox::Job>, InboxError> {
        if !step.owed.is_empty() {
            self.has_room()?;
        }
        self.write("step a job", move |tx| operator::step_job(tx, &step, now))
            .await
    }

    async fn ended(&self, id: DeliveryId) -> Result<Option<DeliveryDetail>, InboxError> {
        let waiter = self.shared.wait_for_end(id);
        loop {
            // Made before the look: an end that comes after it is told.
            let told = waiter.told().map(Notify::notified);
            match self
                .readers
                .ask("look for an end", move |conn| query::ended(conn, id))
                .await?
            {
                None => return Ok(None),
                Some(Some(detail)) => return Ok(Some(detail)),
                Some(None) => {}
            }
            let told = async {
                match told {
                    Some(told) => told.await,
                    None => std::future::pending().await,
                }
            };
            // Whatever went wrong with the telling, nobody waits much longer than is needed.
            let _ = tokio::time::timeout(LOOK, told).await;
        }
    }

    async fn counts(&self) -> Result<Vec<Count>, InboxError> {
        self.readers.ask("count", query::counts).await
    }

    async fn sweep(&self, keep: &Keep, now: Timestamp, limit: usize) -> Result<usize, InboxError> {
        let mut gone = 0;
        let round = held(&self.walks).begin(keep, now);
        for (time, begin) in round.walks {
            let (mut from, mut whole) = (begin, false);
            while !whole && gone < limit {
                let (keep, most) = (keep.clone(), sweep::CHUNK.min(limit - gone));
                let look =
                    move |conn: &Connection| sweep::look(conn, &keep, (time, from), now, most);
                let found = self.readers.ask("find old events", look).await?;
                (from, whole) = (found.place, found.whole);
                gone += self.remove(found.events).await?;
                held(&self.walks).passed(time, from, &found.owed);
            }
        }
        let mut owed = round.owed;
        while !owed.is_empty() && gone < limit {
            let (keep, most) = (keep.clone(), sweep::CHUNK.min(limit - gone));
            let look = move |conn: &Connection| {
                sweep::look_again(conn, &keep, &owed, now, most).map(|found| (found, owed))
            };
            let (found, looked) = self.readers.ask("find old events", look).await?;
            gone += self.remove(found.events.clone()).await?;
            // Those that went are not found the next time, and forgotten then.
            held(&self.walks).forget(&found.kept, found.whole.then_some(now));
            // What could not be looked at comes after the last that can go.
            owed = match found.events.last() {
                Some(last) if !found.whole => looked.into_iter().filter(|seq| seq > last).collect(),
                _ => Vec::new(),
            };
        }
        for _ in 0..disk::STEPS {
            if gone >= limit
                || !self
                    .write("give pages back", |tx| disk::give_back(tx.conn))
                    .await?
            {
                break;
            }
            // Requests that came meanwhile have the next turn.
            tokio::time::sleep(disk::PAUSE).await;
        }
        self.write("forget old budgets", move |tx| spend::forget(tx, now.day()))
            .await?;
        while self
            .write("forget old proofs", move |tx| proof::forget(tx, now))
            .await?
        {}
        Ok(gone)
    }

    async fn spend(&self, day: i64, budgets: Vec<Spend>) -> Result<Option<String>, InboxError> {
        self.write("count a run", move |tx| spend::spend(tx, day, &budgets))
            .await
    }

    async fn give_back(&self, day: i64, budgets: Vec<String>) -> Result<(), InboxError> {
        self.write("take a run back", move |tx| {
            spend::give_back(tx, day, &budgets)
        })
        .await
    }

    async fn use_proof(&self, proof: UsedProof, now: Timestamp) -> Result<bool, InboxError> {
        self.has_room()?;
        self.write("use a proof up", move |tx| proof::pass_on(tx, &proof, now))
            .await
    }

    async fn free_proof(&self, marks: Vec<ProofMark>) -> Result<(), InboxError> {
        self.write("give a proof back", move |tx| proof::free(tx, &marks))
            .await
    }

    async fn spent(&self, day: i64) -> Result<Vec<(String, u64)>, InboxError> {
        self.readers
            .ask("read budgets", move |conn| spend::spent(conn, day))
            .await
    }

    async fn bytes_of(&self, source: &str) -> Result<u64, InboxError> {
        let source = source.to_owned();
        self.readers
            .ask("measure a source", move |conn| {
                query::bytes_of(conn, &source)
            })
            .await
    }

    async fn keep_attachments(
        &self,
        source: &str,
        attachments: Vec<Attachment>,
    ) -> Result<(), InboxError> {
        let source = source.to_owned();
        self.write("keep files", move |tx| {
            attachment::insert(tx, None, &source, &attachments)
        })
        .await
    }

    async fn add_attachments(
        &self,
        event: EventId,
        attachments: Vec<Attachment>,
    ) -> Result<bool, InboxError> {
        self.write("keep files", move |tx| {
            attachment::add(tx, event, &attachments)
        })
        .await
    }

    async fn extend_attachments(&self, event: EventId, until: Timestamp) -> Result<(), InboxError> {
        self.write("keep files longer", move |tx| {
            attachment::extend(tx, event, until)
        })
        .await
    }

    async fn attachment(&self, id: AttachmentId) -> Result<Option<KeptAttachment>, InboxError> {
        self.readers
            .ask("read a file's entry", move |conn| attachment::one(conn, id))
            .await
    }

    async fn attachments(
        &self,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<Page<KeptAttachment>, InboxError> {
        self.readers
            .ask("list files", move |conn| {
                attachment::page(conn, cursor, limit)
            })
            .await
    }

    async fn attachments_gone(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Attachment>, InboxError> {
        self.readers
            .ask("find old files", move |conn| {
                attachment::gone(conn, now, limit)
            })
            .await
    }

    async fn attachments_known(
        &self,
        ids: Vec<AttachmentId>,
    ) -> Result<Vec<AttachmentId>, InboxError> {
        self.readers
            .ask("look files up", move |conn| attachment::known(conn, &ids))
            .await
    }

    async fn forget_attachments(&self, ids: Vec<AttachmentId>) -> Result<usize, InboxError> {
        self.write("forget files", move |tx| attachment::forget(tx, &ids))
            .await
    }

    async fn usage(&self) -> Result<Usage, InboxError> {
        let disk = Arc::clone(&self.disk);
        let asked = tokio::task::spawn_blocking(move || disk.usage());
        asked.await.map_err(|error| InboxError::Engine {
            doing: "measure",
            cause: error.to_string(),
        })
    }

    fn replica_status(&self) -> ReplicaStatus {
        ReplicaStatus {
            good: true,
            replicas: 1,
        }
    }

    fn replicas_with(&self, _: Role) -> u32 {
        1
    }

    async fn replica_status_changed(&self) {
        // The file is this process's alone.
        std::future::pending().await
    }

    async fn upstream_ids(&self) -> Result<UpstreamIds, InboxError> {
        let fresh = UpstreamIds::fresh_secret();
        let secret = self
            .write("make a secret", move |tx| naming::secret(tx, fresh))
            .await?;
        self.readers
            .ask("read the names of conversations", move |conn| {
                naming::ids(conn, &secret)
            })
            .await
    }

    async fn ready(&self) -> Result<(), InboxError> {
        if self.shared.is_closed() || self.shared.failure().is_some() {
            return Err(InboxError::Closed);
        }
        self.has_room()?;
        if self.shared.troubled().is_none() {
            return Ok(());
        }
        self.write("write", |tx| {
            tx.conn
                .prepare_cached("INSERT INTO probe VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET beat = beat + 1")?
                .execute([])
                .map(|_| ())
        })
        .await
    }

    async fn failed(&self) -> String {
        self.shared.failed().await
    }

    async fn close(&self) {
        if let Some(filling) = &self.search {
            filling.abort();
        }
        let mut threads = self.threads.lock().await;
        if let Ok(queue) = self.queue() {
            // Refused when the writer has ended, which is what was wanted.
            let _ = queue.send(WriterMessage::Close).await;
        }
        self.readers.close().await;
        let ending = std::mem::take(&mut *threads);
        if let Err(error) = tokio::task::spawn_blocking(move || join(ending)).await {
            tracing::error!(cause = %error, "inbox threads not joined");
        }
    }
}

/// Without [`Inbox::close`]: what was handed in is finished all the same, and the file is free afterwards.
impl Drop for SqliteInbox {
    fn drop(&mut self) {
        if let Some(filling) = &self.search {
            filling.abort();
        }
        self.queue = None;
        join(std::mem::take(self.threads.get_mut()));
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("an inbox thread panicked");
        }
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, String> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(|error| format!("no thread: {error}"))
}

/// Full, with a time to come back that is not everybody's.
fn full() -> InboxError {
    InboxError::Full(Duration::from_millis(fastrand::u64(1000..3000)))
}

/// Makes the folder and the file, for their owner only, and takes the lock.
fn prepare_files(path: &Path) -> Result<File, String> {
    let at = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).map_err(|error| at(folder, error))?;
    }
    let beside = beside(path);
    let lock = own_file(&beside).map_err(|error| at(&beside, error))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => format!("{} is open in another process", path.display()),
        TryLockError::Error(error) => at(&beside, error),
    })?;
    own_file(path).map_err(|error| at(path, error))?;
    Ok(lock)
}

fn own_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// Makes the file's name as durable as what is in it, and its folder's too.
fn sync_folder(path: &Path) -> Result<(), String> {
    let path = path
        .canonicalize()
        .map_err(|error| format!("{}: {error}", path.display()))?;
    for folder in path.ancestors().skip(1).take(2) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        // A parent that may not be read is not ours and was there before.
        match synced {
            Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => {
                return Err(format!("{}: {error}", folder.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Makes what the last run had in flight claimable again. Its doubt stays: nobody knows whether it ran.
fn free_leases(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let mut freed = std::collections::BTreeMap::<String, i64>::new();
    let next = "SELECT d.key, d.lane, e.source FROM delivery AS d INDEXED BY delivery_state
                JOIN event AS e ON e.seq = d.event WHERE d.state <> 'delivered' AND d.state = 'leased' LIMIT 1";
    while let Some((key, lane, source)) = conn
        .prepare_cached(next)?
        .query_row([], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, String>(2)?,
            ))
        })
        .optional()?
    {
        conn.prepare_cached("UPDATE delivery SET state = 'pending' WHERE key = ?1")?
            .execute([key])?;
        conn.prepare_cached("UPDATE lane SET delivery = NULL WHERE id = ?1")?
            .execute([lane])?;
        *freed.entry(source).or_default() += 1;
    }
    for (source, count) in freed {
        for (state, by) in [
            (DeliveryState::Leased, -count),
            (DeliveryState::Pending, count),
        ] {
            conn.execute(
                "UPDATE counter SET count = count + ?3 WHERE source = ?1 AND state = ?2",
                (&source, state.as_str(), by),
            )?;
        }
    }
    conn.execute_batch("COMMIT")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use futures_util::future::join_all;
    use rusqlite::{Error, ffi};

    use super::*;
    use crate::model::{Params, Strength};

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
        assert!(inbox.shared.troubled().is_some());
        room(1000).await.unwrap();
        assert_eq!(inbox.accept(event(100_000)).await.unwrap(), Accepted::New);
        assert!(inbox.shared.troubled().is_none());
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
        assert!(inbox.shared.troubled().is_some());
        inbox.ready().await.unwrap();
        assert!(inbox.shared.troubled().is_none());
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

    #[test]
    fn a_queue_of_large_bodies_is_bounded() {
        let all = Arc::new(AtomicUsize::new(0));
        let alone = Weight::of(QUEUE_BYTES * 2, &all, QUEUE_BYTES).unwrap();
        assert!(Weight::of(1, &all, QUEUE_BYTES).is_none());
        drop(alone);
        assert!(Weight::of(1, &all, QUEUE_BYTES).is_some());
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
