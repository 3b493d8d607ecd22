//! Connections, and how something is done on one: within a time, in one transaction, again where it does no harm.

use std::collections::BTreeMap;
use std::time::Duration;

use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
    Timeouts, Transaction,
};
use futures_util::future::BoxFuture;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Socket};

use super::address::{Address, CONNECT};
use super::error::DatabaseError;
use super::repeat::{Access, pause};
use super::tls::{PostgresStream, PostgresTls};
use crate::inbox::InboxError;
use crate::model::DeliveryState;

/// Time that one piece of work may take, its waiting for locks included, before its connection is given up. The server
/// gives up before that.
const WORK: Duration = Duration::from_secs(20);

/// Time that somebody waits for a connection that others use.
const WAIT: Duration = Duration::from_secs(5);

/// Times that work is tried when others stand in its way.
const TRIES: u32 = 8;

/// Number of rows a counter has; see the schema.
const SLOTS: i32 = 32;

/// Settings of every session. A plan never depends on how full a table was when it was made, a transaction whose
/// client is frozen does not hold its locks for long, and no commit is answered before it is on disk.
const SESSION: &str = "
    SET search_path TO sluicegate;
    SET statement_timeout TO '15s';
    SET lock_timeout TO '5s';
    SET idle_in_transaction_session_timeout TO '10s';
    SET default_transaction_isolation TO 'read committed';
    SET plan_cache_mode TO force_generic_plan;
    SET enable_seqscan TO off;
    SET enable_hashjoin TO off;
    SET enable_mergejoin TO off;
    SET jit TO off;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// A connection with what reads from it.
pub(super) type DedicatedConnection = (
    tokio_postgres::Client,
    tokio_postgres::Connection<Socket, PostgresStream>,
);

/// The database.
pub(super) struct Database {
    address: Address,
    tls: PostgresTls,
    writes: Pool,
    reads: Pool,
    /// For the one thing that must not wait for the others.
    renewals: Pool,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

impl Database {
    /// Connects to nothing yet. `writes` and `reads` are how many connections there may be of each kind.
    pub(super) fn new(address: Address, writes: usize, reads: usize) -> Result<Self, String> {
        let tls = PostgresTls::new(address.verify, address.ca_file.as_deref())?;
        let pool = |size: usize| {
            let kept = ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            };
            Pool::builder(Manager::from_config(
                address.config.clone(),
                tls.clone(),
                kept,
            ))
            .max_size(size.max(1))
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(WAIT),
                create: Some(CONNECT),
                recycle: Some(CONNECT),
            })
            .post_create(Hook::async_fn(|conn, _| {
                Box::pin(async move {
                    conn.batch_execute(SESSION)
                        .await
                        .map_err(HookError::Backend)
                })
            }))
            .build()
            .map_err(|error| error.to_string())
        };
        Ok(Self {
            writes: pool(writes)?,
            reads: pool(reads)?,
            renewals: pool(1)?,
            tls,
            address,
        })
    }

    /// A connection outside of the pools, for what stays on one.
    pub(super) async fn alone(&self) -> Result<DedicatedConnection, DatabaseError> {
        let connecting = self.address.config.connect(self.tls.clone());
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(DatabaseError::Lost(format!(
                "no connection within {} s",
                CONNECT.as_secs()
            ))),
        }
    }

    /// A connection that writes; the pool gets it back, unless it turns out to be broken.
    pub(super) async fn writer(&self) -> Result<Client, DatabaseError> {
        Ok(self.writes.get().await?)
    }

    /// Does something on a writing connection. It is done again when others stood in its way, so it is all in one
    /// transaction.
    pub(super) async fn write<T: Send>(
        &self,
        work: impl for<'c> Fn(&'c mut Client) -> BoxFuture<'c, Result<T, DatabaseError>> + Send + Sync,
    ) -> Result<T, DatabaseError> {
        again(&self.writes, work).await
    }

    /// Does something as [`Database::write`] does, past everybody else.
    pub(super) async fn renew<T: Send>(
        &self,
        work: impl for<'c> Fn(&'c mut Client) -> BoxFuture<'c, Result<T, DatabaseError>> + Send + Sync,
    ) -> Result<T, DatabaseError> {
        again(&self.renewals, work).await
    }

    /// A connection for some work; the pool gets it back by [`give_back`].
    pub(super) async fn connection(&self, access: Access) -> Result<Client, DatabaseError> {
        let pool = match access {
            Access::Read => &self.reads,
            Access::Write => &self.writes,
        };
        Ok(pool.get().await?)
    }

    /// The error as the caller of the inbox gets it.
    pub(super) fn told(&self, error: DatabaseError, doing: &'static str) -> InboxError {
        if self.reads.is_closed() {
            InboxError::Closed
        } else {
            error.told(doing)
        }
    }

    /// Lets nobody ask or write any more.
    pub(super) fn close(&self) {
        self.writes.close();
        self.reads.close();
        self.renewals.close();
    }
}

async fn again<T: Send>(
    pool: &Pool,
    work: impl for<'c> Fn(&'c mut Client) -> BoxFuture<'c, Result<T, DatabaseError>> + Send + Sync,
) -> Result<T, DatabaseError> {
    let mut tries = 0;
    loop {
        let mut conn = pool.get().await?;
        let end = within(work(&mut conn)).await;
        give_back(conn, &end);
        tries += 1;
        match end {
            Err(DatabaseError::Again(_)) if tries < TRIES => pause(tries).await,
            end => return end,
        }
    }
}

/// Work, within its time.
pub(super) async fn within<T>(
    work: impl Future<Output = Result<T, DatabaseError>>,
) -> Result<T, DatabaseError> {
    match tokio::time::timeout(WORK, work).await {
        Ok(end) => end,
        Err(_) => Err(DatabaseError::Lost(format!(
            "no answer within {} s",
            WORK.as_secs()
        ))),
    }
}

/// Gives a connection back to its pool, or up.
pub(super) fn give_back<T>(conn: Client, end: &Result<T, DatabaseError>) {
    if conn.is_closed() || matches!(end, Err(fault) if fault.is_outage()) {
        drop(Object::take(conn));
    }
}

/// Rows, by a statement that this connection knows or learns.
pub(super) async fn rows(
    conn: &Transaction<'_>,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, DatabaseError> {
    let statement = conn.prepare_cached(sql).await?;
    Ok(conn.query(&statement, params).await?)
}

/// Executes a statement. Returns the number of rows it changed.
pub(super) async fn change(
    conn: &Transaction<'_>,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<u64, DatabaseError> {
    let statement = conn.prepare_cached(sql).await?;
    Ok(conn.execute(&statement, params).await?)
}

/// Deliveries of a source that came into a state (or left it: negative), in one transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(BTreeMap<(String, &'static str), i64>);

impl Counts {
    /// Notes a change.
    pub(super) fn add(&mut self, source: &str, state: DeliveryState, by: i64) {
        *self
            .0
            .entry((source.to_owned(), state.as_str()))
            .or_default() += by;
    }

    /// Notes that events need so many bytes more (or less).
    pub(super) fn add_bytes(&mut self, by: i64) {
        *self.0.entry((String::new(), "bytes")).or_default() += by;
    }

    /// Writes them, the last thing before a commit and in order: so nobody who has one of these rows waits for anything
    /// but the disk.
    pub(super) async fn write(
        &self,
        conn: &Transaction<'_>,
        slot: i32,
    ) -> Result<(), DatabaseError> {
        let (mut sources, mut states, mut counts) = (vec![], vec![], vec![]);
        for ((source, state), by) in self.0.iter().filter(|(_, by)| **by != 0) {
            sources.push(source.as_str());
            states.push(*state);
            counts.push(*by);
        }
        if counts.is_empty() {
            return Ok(());
        }
        change(
            conn,
            "INSERT INTO counter AS c (slot, source, state, count)
             SELECT $1, n.source, n.state, n.count FROM unnest($2::text[], $3::text[], $4::bigint[])
                WITH ORDINALITY AS n (source, state, count, place) ORDER BY n.place
             ON CONFLICT (slot, source, state) DO UPDATE SET count = c.count + excluded.count",
            &[&slot, &sources, &states, &counts],
        )
        .await
        .map(|_| ())
    }
}

/// The slot of somebody who counts.
pub(super) fn slot() -> i32 {
    fastrand::i32(0..SLOTS)
}
