//! The inbox on PostgreSQL: any number of processes share it, and any of them may die.
//!
//! Each process is a replica with a row that it renews (`replica`); what it has under lease is its own as long as the
//! row holds, and free for the others after that, by the server's clock. Writing goes through queues that are drained
//! in batches (`writer`), so that many requests share a commit; leasing takes locked lanes and passes over those of
//! others (`claim`). Nothing here is lost with a connection: whatever may or may not have been committed is done again
//! so that it counts once.
//!
//! It needs a connection of its own to the server, or a pooler that gives it one for as long as it lasts.

mod accept;
mod address;
mod attachment;
mod claim;
mod database;
mod error;
mod health;
mod job;
mod list;
mod naming;
mod notify;
mod operator;
mod overlap;
mod proof;
mod query;
mod replica;
mod routes;
mod schema;
mod search;
mod settle;
mod spend;
mod sweep;
mod tls;
mod waiting;
mod writer;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use self::accept::RequestRecords;
use self::address::Address;
use self::claim::Lease;
use self::database::{Database, within};
use self::error::DatabaseError;
use self::health::Health;
use self::query::DeliveryEnd;
use self::replica::Replica;
use self::settle::Ending;
use self::writer::{QueuedWork, Weight, Writer};
use super::fair::Shares;
use super::{
    Anew, ClaimBatch, Claimed, Count, DeliveryDetail, EventDetail, EventFilter, EventSummary,
    Inbox, InboxError, Job, JobState, JobStep, Keep, KeptAttachment, NewJob, Next, Page, Pause,
    Replayed, ReplicaStatus, Resolution, Settled, Settlement, SourceFare, Spend, Terms, Turn,
    Usage, WaitingDelivery,
};
use crate::config::Secret;
use crate::model::{
    Accepted, Attachment, AttachmentId, Attempt, DeliveryId, Destination, EventId, NewDelivery,
    NewEvent, ProofMark, Role, Roles, Timestamp, UpstreamIds, UsedProof,
};

/// How many bytes of records may wait for the writers.
const QUEUE_BYTES: usize = 128 << 20;

/// How many settlements may wait for the writers; whoever has more waits for a place.
const ENDINGS: usize = 4096;

/// How many write events, and how many settlements, at once. While one waits for the disk the next gathers.
const WRITERS: usize = 2;

/// How often somebody who waits for a delivery's end looks for it without having been told.
const LOOK: Duration = Duration::from_secs(1);

/// How often it is looked how large the inbox has become.
const MEASURE: Duration = Duration::from_secs(10);

/// How long closing waits for each part of it.
const CLOSING: Duration = Duration::from_secs(10);

/// How often a claim is tried when others stand in its way.
const TRIES: u32 = 8;

/// An inbox in a database.
pub struct PostgresInbox {
    database: Arc<Database>,
    shared: Arc<Health>,
    replica: Arc<Replica>,
    queues: RwLock<Option<Queues>>,
    waiting: Arc<AtomicUsize>,
    /// What claims took of late, by whom.
    shares: Arc<std::sync::Mutex<Shares>>,
    options: PostgresOptions,
    /// DeliveryEnd by themselves when nobody can hand anything in any more.
    writers: Mutex<Vec<JoinHandle<()>>>,
    /// Go on until they are stopped.
    keepers: Vec<JoinHandle<()>>,
}

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub struct PostgresOptions {
    /// How many records share a commit at most.
    pub batch: usize,
    /// How many may wait for the writers.
    pub queue: usize,
    /// How long the leases of a process that is heard of no more hold.
    pub lease: Duration,
    /// How many connections there are to the database.
    pub connections: usize,
    /// Whether bodies are searched by an index.
    pub search: bool,
    /// How large it may become.
    pub max_disk: Option<u64>,
}

#[derive(Clone)]
struct Queues {
    records: mpsc::Sender<QueuedWork<RequestRecords>>,
    endings: mpsc::Sender<QueuedWork<Ending>>,
}

impl std::fmt::Debug for PostgresInbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresInbox")
            .field("replica", &self.replica.id())
            .finish_non_exhaustive()
    }
}

impl PostgresInbox {
    /// Connects, and becomes one of the replicas, with every role. Refused when the schema is not the one that is known
    /// here, or when the server does not keep what it says yes to.
    pub async fn open(url: &Secret, options: PostgresOptions) -> Result<Self, InboxError> {
        Self::open_as(url, options, Roles::ALL).await
    }

    /// The same, with some roles only.
    pub async fn open_as(
        url: &Secret,
        options: PostgresOptions,
        roles: Roles,
    ) -> Result<Self, InboxError> {
        let failed = |cause: String| InboxError::Engine {
            doing: "open",
            cause,
        };
        let address = Address::read(url).map_err(failed)?;
        let client = schema::connect(&address)
            .await
            .map_err(|fault| fault.told("open"))?;
        within(schema::check(&client, address.r#unsafe))
            .await
            .map_err(|fault| fault.told("open"))?;
        drop(client);
        // One listens, one renews; of the others most write.
        let left = options.connections.max(6) - 2;
        let reads = (left / 3).max(1);
        let database = Arc::new(Database::new(address, left - reads, reads).map_err(failed)?);
        let shared = Arc::new(Health::default());
        let replica = Arc::new(Replica::new(
            options.lease.max(Duration::from_millis(100)),
            roles,
        ));
        replica::first(&replica, &database)
            .await
            .map_err(|fault| fault.told("open"))?;
        tracing::info!(
            replica = replica.id(),
            replicas = replica.replica_status().replicas,
            "inbox open"
        );

        let (records, record_queue) = mpsc::channel(options.queue.clamp(1, 1 << 20));
        let (endings, ending_queue) = mpsc::channel(ENDINGS);
        let mut writers = Vec::new();
        write(
            &mut writers,
            record_queue,
            options.batch,
            &database,
            &shared,
        );
        write(
            &mut writers,
            ending_queue,
            options.batch,
            &database,
            &shared,
        );
        let mut keepers = vec![
            tokio::spawn(Arc::clone(&replica).run(Arc::clone(&database), Arc::clone(&shared))),
            tokio::spawn(notify::run(
                Arc::clone(&database),
                Arc::clone(&shared),
                Arc::clone(&replica),
            )),
        ];
        if options.search {
            keepers.push(tokio::spawn(search::run(Arc::clone(&database))));
        }
        if let Some(ceiling) = options.max_disk {
            keepers.push(tokio::spawn(measure(
                Arc::clone(&database),
                Arc::clone(&shared),
                ceiling,
            )));
        }
        Ok(Self {
            database,
            shared,
            replica,
            queues: RwLock::new(Some(Queues { records, endings })),
            waiting: Arc::default(),
            shares: Arc::default(),
            options,
            writers: Mutex::new(writers),
            keepers,
        })
    }

    /// Brings the schema up to date. Several at once wait for each other, and one that is killed can be run again.
    pub async fn migrate(url: &Secret) -> Result<(), InboxError> {
        let failed = |cause: String| InboxError::Engine {
            doing: "migrate",
            cause,
        };
        let address = Address::read(url).map_err(failed)?;
        let mut client = schema::connect(&address)
            .await
            .map_err(|fault| fault.told("migrate"))?;
        schema::migrate(&mut client)
            .await
            .map_err(|fault| fault.told("migrate"))
    }

    /// Stops renewing, as a process that is frozen would, and lets its row run out. For tests of what others then do.
    #[doc(hidden)]
    pub fn freeze(&self) {
        if let Some(renewing) = self.keepers.first() {
            renewing.abort();
        }
    }

    fn queues(&self) -> Result<Queues, InboxError> {
        self.queues
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or(InboxError::Closed)
    }

    async fn read<T: Send>(
        &self,
        doing: &'static str,
        work: impl for<'c> Fn(
            &'c mut deadpool_postgres::Client,
        ) -> BoxFuture<'c, Result<T, DatabaseError>>
        + Send
        + Sync,
    ) -> Result<T, InboxError> {
        self.database.read(doing, work).await
    }

    async fn write<T: Send>(
        &self,
        doing: &'static str,
        work: impl for<'c> Fn(
            &'c mut deadpool_postgres::Client,
        ) -> BoxFuture<'c, Result<T, DatabaseError>>
        + Send
        + Sync,
    ) -> Result<T, InboxError> {
        if self.shared.is_closed() {
            return Err(InboxError::Closed);
        }
        self.database
            .write(work)
            .await
            .map_err(|fault| fault.told(doing))
    }

    /// Leases, in a task that goes on when nobody waits for it any more; what nobody then takes goes back.
    async fn lease(
        &self,
        terms: Box<dyn Terms>,
        now: Timestamp,
    ) -> Result<Option<Dealt>, InboxError> {
        let (reply, dealt) = oneshot::channel();
        let (database, shared) = (Arc::clone(&self.database), Arc::clone(&self.shared));
        let (replica, shares) = (Arc::clone(&self.replica), Arc::clone(&self.shares));
        let endings = self.queues()?.endings;
        tokio::spawn(async move {
            let end = deal(&database, &shared, &replica, &shares, terms, now, endings).await;
            // Refused when whoever claimed has gone: then it is dropped here, and goes back.
            drop(reply.send(end));
        });
        match dealt.await {
            Ok(Ok(dealt)) => Ok(Some(dealt)),
            Ok(Err(_)) if self.shared.is_closed() => Err(InboxError::Closed),
            Ok(Err(fault @ DatabaseError::Lost(_))) => {
                self.shared.trouble(fault.told("claim"));
                Ok(None)
            }
            Ok(Err(fault)) => Err(fault.told("claim")),
            Err(_) => Err(InboxError::Closed),
        }
    }
}

/// What a claim brought, before it is handed over.
struct Dealt {
    claims: ClaimBatch,
    open: Leases,
}

async fn deal(
    database: &Arc<Database>,
    shared: &Health,
    replica: &Replica,
    shares: &std::sync::Mutex<Shares>,
    mut terms: Box<dyn Terms>,
    now: Timestamp,
    endings: mpsc::Sender<QueuedWork<Ending>>,
) -> Result<Dealt, DatabaseError> {
    let slot = database::slot();
    let mut tries = 0;
    let leased = loop {
        tries += 1;
        let mut open = Leases {
            open: Vec::new(),
            endings: endings.clone(),
        };
        let mut conn = database.writer().await?;
        let id = replica.id();
        let end = within(claim::lease(
            &mut conn,
            slot,
            id,
            shares,
            terms.as_mut(),
            now,
            &mut open.open,
        ))
        .await;
        database::give_back(conn, &end);
        match end {
            Ok(leased) => break (leased, open),
            Err(DatabaseError::Again(_)) if tries < TRIES => {
                open.open.clear();
                database::pause(tries).await;
            }
            Err(fault) => {
                if !fault.is_outage() {
                    // Surely undone.
                    open.open.clear();
                }
                return Err(fault);
            }
        }
    };
    let (leased, mut open) = leased;
    if leased.expired {
        replica.lost();
    }
    shared.recovered();
    shared.tell(false, &leased.ended);
    let mut claims = ClaimBatch {
        claimed: vec![],
        next_due: leased.next_due,
        dropped: leased.dropped,
    };
    if !open.open.is_empty() {
        let list = Arc::new(open.open.clone());
        let (claimed, unreadable) = database
            .write(|conn| {
                let list = Arc::clone(&list);
                Box::pin(async move { claim::fill(&conn.transaction().await?, &list).await })
            })
            .await?;
        for (lease, cause) in unreadable {
            open.bury(&lease, cause);
        }
        claims.claimed = claimed;
    }
    Ok(Dealt { claims, open })
}

/// Leases on their way to whoever claimed. Those still in it when it is dropped go back.
struct Leases {
    open: Vec<Lease>,
    endings: mpsc::Sender<QueuedWork<Ending>>,
}

impl Leases {
    /// Ends a lease of which what was kept cannot be read again; it will not be tried for ever.
    fn bury(&mut self, lease: &Lease, cause: String) {
        tracing::error!(
            delivery = lease.key,
            cause,
            "delivery cannot be read and is dead"
        );
        self.open.retain(|open| open.key != lease.key);
        let attempt = Attempt {
            number: lease.attempt,
            started_at: lease.at,
            ended_at: lease.at,
            result: "unreadable".into(),
            status: None,
            detail: cause,
        };
        let (key, lane, fence) = (lease.key, lease.lane, lease.fence);
        let settlement = Settlement {
            id: None,
            key,
            lane,
            fence,
            attempt,
            next: Next::Dead(None),
        };
        end_all(
            vec![Ending::Settled(Box::new(settlement), true)],
            self.endings.clone(),
        );
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let untaken = self.open.drain(..).map(|lease| Ending::Untaken {
            key: lease.key,
            lane: lease.lane,
            fence: lease.fence,
            doubt: lease.doubt,
        });
        end_all(untaken.collect(), self.endings.clone());
    }
}

/// Ends leases that nobody else will, and tries until it is done. Not when the inbox closes: that frees them all.
fn end_all(endings: Vec<Ending>, queue: mpsc::Sender<QueuedWork<Ending>>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    if endings.is_empty() {
        return;
    }
    let queue = queue.downgrade();
    runtime.spawn(async move {
        let mut left = endings;
        let mut wait = Duration::from_millis(50);
        while !left.is_empty() {
            let Some(queue) = queue.upgrade() else { return };
            let mut replies = Vec::with_capacity(left.len());
            for ending in &left {
                let Some(weight) = Weight::of(64, &Arc::default(), usize::MAX) else {
                    return;
                };
                let (item, reply) = QueuedWork::new(ending.clone(), weight);
                if queue.send(item).await.is_err() {
                    return;
                }
                replies.push(reply);
            }
            drop(queue);
            let mut again = Vec::new();
            for (ending, reply) in left.into_iter().zip(replies) {
                if !matches!(reply.await, Ok(Ok(_))) {
                    again.push(ending);
                }
            }
            left = again;
            if !left.is_empty() {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
        }
    });
}

fn write<W: writer::Work>(
    writers: &mut Vec<JoinHandle<()>>,
    queue: mpsc::Receiver<QueuedWork<W>>,
    batch: usize,
    database: &Arc<Database>,
    shared: &Arc<Health>,
) {
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..WRITERS {
        let writer = Writer {
            queue: Arc::clone(&queue),
            batch: batch.clamp(1, 1 << 16),
            database: Arc::clone(database),
            shared: Arc::clone(shared),
        };
        writers.push(tokio::spawn(writer.run()));
    }
}

/// Looks how large it has become, from time to time.
async fn measure(database: Arc<Database>, shared: Arc<Health>, ceiling: u64) {
    loop {
        let usage = database
            .read("measure", |conn| {
                Box::pin(query::usage(conn, Some(ceiling)))
            })
            .await;
        if let Ok(usage) = usage {
            shared.set_full(usage.bytes.saturating_sub(usage.reusable) >= ceiling);
        }
        tokio::time::sleep(MEASURE).await;
    }
}

/// Full, with a time to come back that is not everybody's.
fn full() -> InboxError {
    InboxError::Full(Duration::from_millis(fastrand::u64(1000..3000)))
}

#[async_trait]
impl Inbox for PostgresInbox {
    async fn accept_all(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, InboxError> {
        let queue = self.queues()?.records;
        if self.shared.is_full() {
            return Err(InboxError::NoSpace);
        }
        let together = RequestRecords::new(events)?;
        let weight = Weight::of(together.bytes(), &self.waiting, QUEUE_BYTES).ok_or_else(full)?;
        let (item, end) = QueuedWork::new(together, weight);
        // Whoever calls from outside is told at once that we are full; everybody else waits for a place.
        queue.try_send(item).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => full(),
            mpsc::error::TrySendError::Closed(_) => InboxError::Closed,
        })?;
        drop(queue);
        end.await.unwrap_or(Err(InboxError::Closed))
    }

    async fn claim(&self, terms: Box<dyn Terms>, now: Timestamp) -> Result<ClaimBatch, InboxError> {
        if self.shared.is_closed() {
            return Err(InboxError::Closed);
        }
        if terms.room() == 0 || !self.replica_status().good {
            return Ok(ClaimBatch::default());
        }
        match self.lease(terms, now).await? {
            Some(mut dealt) => {
                dealt.open.open.clear();
                Ok(dealt.claims)
            }
            // The database is away. Said once in the log; whoever claims is told of its return.
            None => {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(200..500))).await;
                Ok(ClaimBatch::default())
            }
        }
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, InboxError> {
        let queue = self.queues()?.endings;
        let fence = settlement.fence;
        let ending = Ending::Settled(Box::new(settlement), self.shared.was_doubtful(fence));
        let weight =
            Weight::of(ending.bytes(), &self.waiting, usize::MAX).ok_or(InboxError::Closed)?;
        let (item, end) = QueuedWork::new(ending, weight);
        queue.send(item).await.map_err(|_| InboxError::Closed)?;
        drop(queue);
        let settled = end.await.unwrap_or(Err(InboxError::Closed));
        if matches!(settled, Err(InboxError::Engine { .. })) {
            self.shared.doubt(fence);
        }
        settled
    }

    async fn work_due(&self) {
        self.shared.news.notified().await;
    }

    async fn earlier_turn(&self, claimed: &Claimed) -> Result<Option<Turn>, InboxError> {
        let claimed = Arc::new(claimed.clone());
        self.read("find the turn before", |conn| {
            let claimed = Arc::clone(&claimed);
            Box::pin(async move { query::earlier_turn(conn, &claimed).await })
        })
        .await
    }

    async fn events(&self, filter: &EventFilter) -> Result<Page<EventSummary>, InboxError> {
        let (filter, indexed) = (Arc::new(filter.clone()), self.options.search);
        self.read("list events", |conn| {
            let filter = Arc::clone(&filter);
            Box::pin(async move { list::events(conn, &filter, indexed).await })
        })
        .await
    }

    async fn count(&self, filter: &EventFilter, most: u64) -> Result<u64, InboxError> {
        let (filter, indexed) = (Arc::new(filter.clone()), self.options.search);
        self.read("count events", |conn| {
            let filter = Arc::clone(&filter);
            Box::pin(async move { list::count(conn, &filter, indexed, most).await })
        })
        .await
    }

    async fn event(&self, id: EventId) -> Result<Option<EventDetail>, InboxError> {
        self.read("read an event", |conn| Box::pin(query::event(conn, id)))
            .await
    }

    async fn between(
        &self,
        from: EventId,
        to: EventId,
        most: usize,
    ) -> Result<Vec<EventId>, InboxError> {
        self.read("look ids up", |conn| {
            Box::pin(waiting::between(conn, from, to, most))
        })
        .await
    }

    async fn waiting(&self, events: Vec<EventId>) -> Result<Vec<WaitingDelivery>, InboxError> {
        let events = Arc::new(events);
        self.read("look up what is waited for", |conn| {
            let events = Arc::clone(&events);
            Box::pin(async move { waiting::of(conn, &events).await })
        })
        .await
    }

    async fn source_fares(&self) -> Result<Vec<SourceFare>, InboxError> {
        self.read("look at the sources", |conn| {
            Box::pin(waiting::source_fares(conn))
        })
        .await
    }

    async fn destinations(&self) -> Result<Vec<Destination>, InboxError> {
        self.read("list destinations", |conn| {
            Box::pin(waiting::destinations(conn))
        })
        .await
    }

    async fn known(&self, source: &str, dedup: &str) -> Result<Option<EventId>, InboxError> {
        let names = Arc::new((source.to_owned(), dedup.to_owned()));
        self.read("look a dedup key up", |conn| {
            let names = Arc::clone(&names);
            Box::pin(async move { query::known(conn, &names.0, &names.1).await })
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
        let (to, slot) = (Arc::new(to), database::slot());
        let replayed = self
            .write("replay", |conn| {
                let to = Arc::clone(&to);
                Box::pin(
                    async move { accept::replay(conn, slot, id, first, (&to, None), now).await },
                )
            })
            .await?;
        self.shared.tell(true, &[]);
        Ok(replayed)
    }

    async fn replay_anew(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        anew: Anew,
        now: Timestamp,
    ) -> Result<Replayed, InboxError> {
        let (what, slot) = (Arc::new((to, anew)), database::slot());
        let replayed = self
            .write("replay", |conn| {
                let what = Arc::clone(&what);
                Box::pin(async move {
                    accept::replay(conn, slot, id, first, (&what.0, Some(&what.1)), now).await
                })
            })
            .await?;
        self.shared.tell(true, &[]);
        Ok(replayed)
    }

    async fn cancel(&self, id: DeliveryId, now: Timestamp) -> Result<bool, InboxError> {
        let slot = database::slot();
        let done = self
            .write("cancel", |conn| {
                Box::pin(operator::cancel(conn, slot, id, now))
            })
            .await?;
        if done {
            self.shared.tell(true, &[id]);
        }
        Ok(done)
    }

    async fn resolve(
        &self,
        id: DeliveryId,
        how: Resolution,
        note: &str,
        now: Timestamp,
    ) -> Result<bool, InboxError> {
        let (note, slot) = (Arc::<str>::from(note), database::slot());
        let done = self
            .write("resolve", |conn| {
                let note = Arc::clone(&note);
                Box::pin(async move { operator::resolve(conn, slot, id, how, &note, now).await })
            })
            .await?;
        if done {
            self.shared.tell(true, &[id]);
        }
        Ok(done)
    }

    async fn set_paused(&self, what: &Pause, on: bool, now: Timestamp) -> Result<bool, InboxError> {
        let what = Arc::new(what.clone());
        let changed = self
            .write("hold", |conn| {
                let what = Arc::clone(&what);
                Box::pin(async move { operator::hold(conn, &what, on, now).await })
            })
            .await?;
        self.shared.tell(true, &[]);
        Ok(changed)
    }

    async fn pauses(&self) -> Result<Vec<(Pause, Timestamp)>, InboxError> {
        self.read("read what is held", |conn| Box::pin(operator::holds(conn)))
            .await
    }

    async fn begin_job(&self, job: NewJob, now: Timestamp) -> Result<Job, InboxError> {
        let job = Arc::new(job);
        self.write("begin a job", |conn| {
            let job = Arc::clone(&job);
            Box::pin(async move { job::begin(conn, &job, now).await })
        })
        .await
    }

    async fn jobs(&self) -> Result<Vec<Job>, InboxError> {
        self.read("list jobs", |conn| Box::pin(job::list(conn)))
            .await
    }

    async fn steer_job(
        &self,
        id: i64,
        state: Option<JobState>,
        pace: Option<u32>,
        now: Timestamp,
    ) -> Result<Option<Job>, InboxError> {
        self.write("steer a job", |conn| {
            Box::pin(job::steer(conn, id, state, pace, now))
        })
        .await
    }

    async fn step_job(&self, step: JobStep, now: Timestamp) -> Result<Option<Job>, InboxError> {
        let (step, slot) = (Arc::new(step), database::slot());
        let job = self
            .write("take a job on", |conn| {
                let step = Arc::clone(&step);
                Box::pin(async move { job::step(conn, slot, &step, now).await })
            })
            .await?;
        self.shared.tell(true, &[]);
        Ok(job)
    }

    async fn ended(&self, id: DeliveryId) -> Result<Option<DeliveryDetail>, InboxError> {
        let waiter = self.shared.wait_for_end(id);
        let mut with: Option<(DeliveryId, health::Waiter)> = None;
        loop {
            // Made before the look: an end that comes after it is told.
            let told = waiter.told().map(Notify::notified);
            let with_told = with
                .as_ref()
                .and_then(|(_, waiter)| waiter.told().map(Notify::notified));
            let leader = match self
                .read("look for an end", |conn| Box::pin(query::ended(conn, id)))
                .await?
            {
                DeliveryEnd::Nothing => return Ok(None),
                DeliveryEnd::Is(detail) => return Ok(Some(*detail)),
                DeliveryEnd::NotYet => None,
                DeliveryEnd::With(leader) => Some(leader),
            };
            if leader.is_some() && leader != with.as_ref().map(|(id, _)| *id) {
                drop(with_told);
                with = leader.map(|leader| (leader, self.shared.wait_for_end(leader)));
                continue;
            }
            let told = async {
                match (told, with_told) {
                    (Some(told), None) | (None, Some(told)) => told.await,
                    (Some(own), Some(with)) => {
                        tokio::select! { () = own => {}, () = with => {} }
                    }
                    (None, None) => std::future::pending().await,
                }
            };
            // Whatever went wrong with the telling, nobody waits much longer than is needed.
            let _ = tokio::time::timeout(LOOK, told).await;
        }
    }

    async fn counts(&self) -> Result<Vec<Count>, InboxError> {
        self.read("count", |conn| Box::pin(query::counts(conn)))
            .await
    }

    async fn sweep(&self, keep: &Keep, now: Timestamp, limit: usize) -> Result<usize, InboxError> {
        let mut gone = 0;
        for (whose, times) in sweep::lists(keep) {
            let whose = Arc::new(whose);
            let mut from = Some((i64::MIN, i64::MIN));
            while let Some(place) = from.filter(|_| gone < limit) {
                let found = self
                    .read("find old events", |conn| {
                        let whose = Arc::clone(&whose);
                        Box::pin(async move { sweep::look(conn, &whose, &times, now, place).await })
                    })
                    .await?;
                for chunk in found.events.chunks(sweep::CHUNK) {
                    let chunk = Arc::<[i64]>::from(&chunk[..chunk.len().min(limit - gone)]);
                    gone += self
                        .write("sweep", |conn| {
                            let chunk = Arc::clone(&chunk);
                            Box::pin(async move { sweep::remove(conn, &chunk).await })
                        })
                        .await?;
                }
                from = found.next;
            }
        }
        self.write("forget old budgets", |conn| {
            Box::pin(spend::forget(conn, now.day()))
        })
        .await?;
        while self
            .write("forget old proofs", |conn| {
                Box::pin(proof::forget(conn, now))
            })
            .await?
        {}
        Ok(gone)
    }

    async fn spend(&self, day: i64, mut budgets: Vec<Spend>) -> Result<Option<String>, InboxError> {
        budgets.sort();
        let budgets = Arc::new(budgets);
        self.write("count a run", |conn| {
            let budgets = Arc::clone(&budgets);
            Box::pin(async move { spend::spend(conn, day, &budgets).await })
        })
        .await
    }

    async fn give_back(&self, day: i64, mut budgets: Vec<String>) -> Result<(), InboxError> {
        budgets.sort();
        let budgets = Arc::new(budgets);
        self.write("take a run back", |conn| {
            let budgets = Arc::clone(&budgets);
            Box::pin(async move { spend::give_back(conn, day, &budgets).await })
        })
        .await
    }

    async fn use_proof(&self, proof: UsedProof, now: Timestamp) -> Result<bool, InboxError> {
        let proof = Arc::new(proof);
        self.write("use a proof up", |conn| {
            let proof = Arc::clone(&proof);
            Box::pin(async move { proof::pass_on(conn, &proof, now).await })
        })
        .await
    }

    async fn free_proof(&self, marks: Vec<ProofMark>) -> Result<(), InboxError> {
        let marks = Arc::new(marks);
        self.write("give a proof back", |conn| {
            let marks = Arc::clone(&marks);
            Box::pin(async move { proof::free(conn, &marks).await })
        })
        .await
    }

    async fn spent(&self, day: i64) -> Result<Vec<(String, u64)>, InboxError> {
        self.read("read budgets", |conn| Box::pin(spend::spent(conn, day)))
            .await
    }

    async fn bytes_of(&self, source: &str) -> Result<u64, InboxError> {
        let source = source.to_owned();
        self.read("measure a source", |conn| {
            Box::pin(query::bytes_of(conn, source.clone()))
        })
        .await
    }

    async fn keep_attachments(
        &self,
        source: &str,
        attachments: Vec<Attachment>,
    ) -> Result<(), InboxError> {
        let kept = Arc::new((source.to_owned(), attachments));
        self.write("keep files", |conn| {
            let kept = Arc::clone(&kept);
            Box::pin(async move { attachment::keep(conn, &kept.0, &kept.1).await })
        })
        .await
    }

    async fn add_attachments(
        &self,
        event: EventId,
        attachments: Vec<Attachment>,
    ) -> Result<bool, InboxError> {
        let files = Arc::new(attachments);
        self.write("keep files", |conn| {
            let files = Arc::clone(&files);
            Box::pin(async move { attachment::add(conn, event, &files).await })
        })
        .await
    }

    async fn extend_attachments(&self, event: EventId, until: Timestamp) -> Result<(), InboxError> {
        self.write("keep files longer", |conn| {
            Box::pin(attachment::extend(conn, event, until))
        })
        .await
    }

    async fn attachment(&self, id: AttachmentId) -> Result<Option<KeptAttachment>, InboxError> {
        self.read("read a file's entry", |conn| {
            Box::pin(attachment::one(conn, id))
        })
        .await
    }

    async fn attachments(
        &self,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<Page<KeptAttachment>, InboxError> {
        self.read("list files", |conn| {
            Box::pin(attachment::page(conn, cursor, limit))
        })
        .await
    }

    async fn attachments_gone(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Attachment>, InboxError> {
        self.read("find old files", |conn| {
            Box::pin(attachment::gone(conn, now, limit))
        })
        .await
    }

    async fn attachments_known(
        &self,
        ids: Vec<AttachmentId>,
    ) -> Result<Vec<AttachmentId>, InboxError> {
        let ids = Arc::new(ids);
        self.read("look files up", |conn| {
            let ids = Arc::clone(&ids);
            Box::pin(async move { attachment::known(conn, &ids).await })
        })
        .await
    }

    async fn forget_attachments(&self, ids: Vec<AttachmentId>) -> Result<usize, InboxError> {
        let ids = Arc::new(ids);
        self.write("forget files", |conn| {
            let ids = Arc::clone(&ids);
            Box::pin(async move { attachment::forget(conn, &ids).await })
        })
        .await
    }

    async fn usage(&self) -> Result<Usage, InboxError> {
        let ceiling = self.options.max_disk;
        self.read("measure", |conn| Box::pin(query::usage(conn, ceiling)))
            .await
    }

    fn replica_status(&self) -> ReplicaStatus {
        self.replica.replica_status()
    }

    fn replicas_with(&self, role: Role) -> u32 {
        self.replica.with(role)
    }

    async fn replica_status_changed(&self) {
        self.replica.changed().await;
    }

    async fn upstream_ids(&self) -> Result<UpstreamIds, InboxError> {
        let fresh = UpstreamIds::fresh_secret();
        self.write("make a secret", move |conn| {
            Box::pin(async move { naming::ids(conn, &fresh).await })
        })
        .await
    }

    async fn ready(&self) -> Result<(), InboxError> {
        if self.shared.is_closed() {
            return Err(InboxError::Closed);
        }
        if self.shared.is_full() {
            return Err(InboxError::NoSpace);
        }
        // One that could not renew its row may be cut off without having been told so by any failure yet.
        if self.shared.troubled().is_none() && self.replica_status().good {
            return Ok(());
        }
        self.write("write", |conn| Box::pin(query::probe(conn)))
            .await?;
        self.shared.recovered();
        Ok(())
    }

    async fn failed(&self) -> String {
        // A database that is away comes back, and nothing that was promised is lost meanwhile.
        std::future::pending().await
    }

    async fn close(&self) {
        self.shared.close();
        self.queues
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        for mut writer in std::mem::take(&mut *self.writers.lock().await) {
            if tokio::time::timeout(CLOSING, &mut writer).await.is_err() {
                tracing::error!("inbox closed before everything that was handed in was written");
                writer.abort();
            }
        }
        for keeper in &self.keepers {
            keeper.abort();
        }
        match tokio::time::timeout(CLOSING, self.replica.leave(&self.database)).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                tracing::warn!(cause = ?fault, "leases were not given back and run out by themselves")
            }
            Err(_) => {
                tracing::warn!("leases were not given back in time and run out by themselves")
            }
        }
        self.database.close();
    }
}

/// Without [`Inbox::close`]: as if the process had been killed, except that what was handed in is finished.
impl Drop for PostgresInbox {
    fn drop(&mut self) {
        for keeper in &self.keepers {
            keeper.abort();
        }
    }
}
