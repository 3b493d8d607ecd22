//! Upkeep of the database: what is old goes, room is measured, and the inbox closes.

use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::Client;

use super::database::rows;
use super::error::DatabaseError;
use super::{PostgresInbox, browse, naming, proof, spend, sweep};
use crate::inbox::bounds::SWEPT_EVENTS;
use crate::inbox::{InboxError, Keep, ReplicaStatus, Replicas, Upkeep, Usage};
use crate::model::{Role, Timestamp, UpstreamIds};

/// Time that closing waits for each part of it.
const CLOSING: Duration = Duration::from_secs(10);

/// Measures the room that the inbox has on the disk. What removed events leave behind is used again; how much that
/// is, is reckoned from what the others need.
pub(super) async fn measure(
    conn: &mut Client,
    ceiling: Option<u64>,
) -> Result<Usage, DatabaseError> {
    let tx = conn.transaction().await?;
    let found = rows(
        &tx,
        "SELECT (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class AS c
                 WHERE c.relnamespace = 'sluicegate'::regnamespace AND c.relkind = 'r'),
                (SELECT coalesce(sum(count), 0)::bigint FROM counter WHERE source = '')",
        &[],
    )
    .await?;
    let row = found
        .first()
        .ok_or_else(|| DatabaseError::Engine("no row".into()))?;
    let size =
        |column| Ok::<_, DatabaseError>(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or(0));
    let (bytes, needed) = (size(0)?, size(1)?);
    Ok(Usage {
        bytes,
        reusable: bytes.saturating_sub(needed.max(1 << 20).saturating_mul(2)),
        ceiling,
    })
}

/// Writes something, to see whether the database takes it.
pub(super) async fn probe(conn: &mut Client) -> Result<(), DatabaseError> {
    let tx = conn.transaction().await?;
    super::database::change(&tx, "UPDATE words_until SET seq = seq WHERE id = 1", &[]).await?;
    tx.commit().await?;
    Ok(())
}

#[async_trait]
impl Upkeep for PostgresInbox {
    async fn sweep(&self, keep: &Keep, now: Timestamp, limit: usize) -> Result<usize, InboxError> {
        let mut gone = 0;
        for (whose, times) in sweep::lists(keep) {
            let mut from = Some((i64::MIN, i64::MIN));
            while let Some(place) = from.filter(|_| gone < limit) {
                let found = reading!(self, "find old events", |conn| {
                    sweep::look(conn, &whose, &times, now, place)
                })?;
                for chunk in found.events.chunks(SWEPT_EVENTS) {
                    let chunk = &chunk[..chunk.len().min(limit - gone)];
                    gone += writing!(self, "sweep", |conn| sweep::remove(conn, chunk))?;
                }
                from = found.next;
            }
        }
        writing!(self, "forget old budgets", |conn| {
            spend::forget(conn, now.day())
        })?;
        while writing!(self, "forget old proofs", |conn| proof::forget(conn, now))? {}
        Ok(gone)
    }

    async fn usage(&self) -> Result<Usage, InboxError> {
        let ceiling = self.options.max_disk;
        reading!(self, "measure", |conn| measure(conn, ceiling))
    }

    async fn bytes_of(&self, source: &str) -> Result<u64, InboxError> {
        reading!(self, "measure a source", |conn| browse::bytes_of(
            conn, source
        ))
    }

    async fn upstream_ids(&self) -> Result<UpstreamIds, InboxError> {
        let fresh = UpstreamIds::fresh_secret();
        writing!(self, "make a secret", |conn| naming::ids(conn, &fresh))
    }

    async fn ready(&self) -> Result<(), InboxError> {
        if self.health.is_closed() {
            return Err(InboxError::Closed);
        }
        if self.health.is_full() {
            return Err(InboxError::NoSpace);
        }
        // One that could not renew its row may be cut off without having been told so by any failure yet.
        if !self.health.is_troubled() && self.replica_status().good {
            return Ok(());
        }
        writing!(self, "write", |conn| probe(conn))?;
        self.health.recovered();
        Ok(())
    }

    async fn failed(&self) -> String {
        // A database that is away comes back, and nothing that was promised is lost meanwhile.
        std::future::pending().await
    }

    async fn close(&self) {
        self.health.close();
        self.queues.write().take();
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

#[async_trait]
impl Replicas for PostgresInbox {
    fn replica_status(&self) -> ReplicaStatus {
        self.replica.replica_status()
    }

    fn replicas_with(&self, role: Role) -> u32 {
        self.replica.with(role)
    }

    async fn replica_status_changed(&self) {
        self.replica.changed().await;
    }
}

/// Without [`Upkeep::close`]: as if the process had been killed, except that what was handed in is finished.
impl Drop for PostgresInbox {
    fn drop(&mut self) {
        for keeper in &self.keepers {
            keeper.abort();
        }
    }
}
