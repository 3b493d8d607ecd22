//! The inbox on PostgreSQL: any number of processes share it, and any of them may die.
//!
//! Each process is a replica with a row that it renews (`replica`); what it has under lease is its own as long as the
//! row holds, and free for the others after that, by the server's clock. Writing goes through queues that are drained
//! in batches (`writer`), so that many requests share a commit; leasing takes locked lanes and passes over those of
//! others (`claim`). Nothing here is lost with a connection: whatever may or may not have been committed is done again
//! so that it counts once.
//!
//! It needs a connection of its own to the server, or a pooler that gives it one for as long as it lasts.

#[macro_use]
mod repeat;

mod accept;
mod address;
mod attempt;
mod backlog;
mod backup;
mod browse;
mod claim;
mod database;
mod dedup;
mod due;
mod ending;
mod error;
mod files;
mod fill;
mod health;
mod insert;
mod job;
mod keep;
mod lane;
mod lease;
mod list;
mod naming;
mod notify;
mod operator;
mod overlap;
mod owe;
mod plan;
mod proof;
mod record;
mod replay;
mod replica;
mod returned;
mod routes;
mod row;
mod schema;
mod search;
mod settle;
mod spend;
mod sweep;
mod tls;
mod update;
mod upkeep;
mod waiting;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use self::address::Address;
use self::database::{Database, within};
use self::ending::Ending;
use self::error::DatabaseError;
use self::health::Health;
use self::record::RequestRecords;
use self::replay::Again;
use self::replica::Replica;
use self::returned::{Claimer, Dealt};
use self::writer::{QueuedWork, Writer};
use super::codec::Codec;
use super::fair::Shares;
use super::{InboxError, Replayed, Terms};
use crate::config::Secret;
use crate::model::{Roles, Timestamp};

/// Settlements that may wait for the writers; whoever has more waits for a place.
const ENDINGS: usize = 4096;

/// Writers of events, and writers of settlements. While one waits for the disk the next gathers.
const WRITERS: usize = 2;

/// Time between two measurements of the inbox.
const MEASURE: Duration = Duration::from_secs(10);

/// An inbox in a database.
pub struct PostgresInbox {
    codec: Codec,
    database: Arc<Database>,
    health: Arc<Health>,
    replica: Arc<Replica>,
    queues: RwLock<Option<Queues>>,
    waiting: Arc<AtomicUsize>,
    /// The places that claims gave of late, by account and source.
    shares: Arc<parking_lot::Mutex<Shares>>,
    options: PostgresOptions,
    /// They end by themselves when nobody can hand anything in any more.
    writers: Mutex<Vec<JoinHandle<()>>>,
    /// Go on until they are stopped.
    keepers: Vec<JoinHandle<()>>,
}

/// Options of the engine.
#[derive(Clone, Copy, Debug)]
pub struct PostgresOptions {
    /// Records that share a commit at most.
    pub batch: usize,
    /// Records that may wait for the writers.
    pub queue: usize,
    /// Time that the leases of a process that is heard of no more hold.
    pub lease: Duration,
    /// Number of connections to the database.
    pub connections: usize,
    /// True if bodies are searched by an index.
    pub search: bool,
    /// The size that it may reach, in bytes.
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
        Self::open_as(url, options, Roles::ALL, Codec::plain()).await
    }

    /// The same, with some roles only, and with a codec for what events say.
    pub async fn open_as(
        url: &Secret,
        options: PostgresOptions,
        roles: Roles,
        codec: Codec,
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
        let health = Arc::new(Health::default());
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
        let parts = WriterParts {
            batch: options.batch,
            codec: &codec,
            database: &database,
            health: &health,
        };
        start_writers(&mut writers, record_queue, &parts);
        start_writers(&mut writers, ending_queue, &parts);
        let mut keepers = vec![
            tokio::spawn(Arc::clone(&replica).run(Arc::clone(&database), Arc::clone(&health))),
            tokio::spawn(notify::run(
                Arc::clone(&database),
                Arc::clone(&health),
                Arc::clone(&replica),
            )),
        ];
        if options.search {
            keepers.push(tokio::spawn(search::run(Arc::clone(&database))));
        }
        if let Some(ceiling) = options.max_disk {
            keepers.push(tokio::spawn(measure(
                Arc::clone(&database),
                Arc::clone(&health),
                ceiling,
            )));
        }
        Ok(Self {
            codec,
            database,
            health,
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
        self.queues.read().clone().ok_or(InboxError::Closed)
    }

    /// Owes an event again.
    async fn owe_again(&self, again: &Again<'_>, now: Timestamp) -> Result<Replayed, InboxError> {
        let slot = database::slot();
        let replayed = writing!(self, "replay", |conn| {
            replay::replay(conn, slot, &self.codec, again, now)
        })?;
        self.health.tell(true, &[]);
        Ok(replayed)
    }

    /// Returns an error once the inbox is closed.
    fn is_open(&self) -> Result<(), InboxError> {
        if self.health.is_closed() {
            return Err(InboxError::Closed);
        }
        Ok(())
    }

    /// Leases, in a task that goes on when nobody waits for it any more; what nobody then takes goes back.
    async fn lease(
        &self,
        terms: Box<dyn Terms>,
        now: Timestamp,
    ) -> Result<Option<Dealt>, InboxError> {
        let (reply, dealt) = oneshot::channel();
        let claimer = Claimer {
            database: Arc::clone(&self.database),
            health: Arc::clone(&self.health),
            replica: Arc::clone(&self.replica),
            shares: Arc::clone(&self.shares),
            codec: self.codec.clone(),
            endings: self.queues()?.endings,
        };
        tokio::spawn(async move {
            let end = claimer.claim(terms, now).await;
            // Refused when whoever claimed has gone: then it is dropped here, and goes back.
            drop(reply.send(end));
        });
        match dealt.await {
            Ok(Ok(dealt)) => Ok(Some(dealt)),
            Ok(Err(_)) if self.health.is_closed() => Err(InboxError::Closed),
            Ok(Err(fault @ DatabaseError::Lost(_))) => {
                self.health.trouble(&fault.told("claim"));
                Ok(None)
            }
            Ok(Err(fault)) => Err(fault.told("claim")),
            Err(_) => Err(InboxError::Closed),
        }
    }
}

/// Starts the writers of a queue.
fn start_writers<W: writer::Work>(
    writers: &mut Vec<JoinHandle<()>>,
    queue: mpsc::Receiver<QueuedWork<W>>,
    parts: &WriterParts<'_>,
) {
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..WRITERS {
        let writer = Writer {
            queue: Arc::clone(&queue),
            batch: parts.batch.clamp(1, 1 << 16),
            codec: parts.codec.clone(),
            database: Arc::clone(parts.database),
            health: Arc::clone(parts.health),
        };
        writers.push(tokio::spawn(writer.run()));
    }
}

/// The parts that all writers share.
struct WriterParts<'a> {
    batch: usize,
    codec: &'a Codec,
    database: &'a Arc<Database>,
    health: &'a Arc<Health>,
}

/// Looks how large it has become, from time to time.
async fn measure(database: Arc<Database>, health: Arc<Health>, ceiling: u64) {
    loop {
        let usage = repeat!(database, Read, |conn| upkeep::measure(conn, Some(ceiling)));
        if let Ok(usage) = usage {
            health.set_full(usage.bytes.saturating_sub(usage.reusable) >= ceiling);
        }
        tokio::time::sleep(MEASURE).await;
    }
}
