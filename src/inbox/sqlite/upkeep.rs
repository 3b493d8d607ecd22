//! Upkeep of the file: what is old goes, room is measured and given back, and the inbox closes.

use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use rusqlite::Connection;

use super::work::WriterMessage;
use super::{SqliteInbox, browse, disk, naming, proof, spend, sweep};
use crate::inbox::bounds::SWEPT_EVENTS;
use crate::inbox::{InboxError, Keep, ReplicaStatus, Replicas, Upkeep, Usage};
use crate::model::{Role, Timestamp, UpstreamIds};

#[async_trait]
impl Upkeep for SqliteInbox {
    async fn sweep(&self, keep: &Keep, now: Timestamp, limit: usize) -> Result<usize, InboxError> {
        let mut gone = 0;
        let round = self.walks.lock().begin(keep, now);
        for (time, begin) in round.walks {
            let (mut from, mut whole) = (begin, false);
            while !whole && gone < limit {
                let (keep, most) = (keep.clone(), SWEPT_EVENTS.min(limit - gone));
                let look =
                    move |conn: &Connection| sweep::look(conn, &keep, (time, from), now, most);
                let found = self.readers.ask("find old events", look).await?;
                (from, whole) = (found.place, found.whole);
                gone += self.remove(found.events).await?;
                self.walks.lock().passed(time, from, &found.owed);
            }
        }
        let mut owed = round.owed;
        while !owed.is_empty() && gone < limit {
            let (keep, most) = (keep.clone(), SWEPT_EVENTS.min(limit - gone));
            let look = move |conn: &Connection| {
                sweep::look_again(conn, &keep, &owed, now, most).map(|found| (found, owed))
            };
            let (found, looked) = self.readers.ask("find old events", look).await?;
            gone += self.remove(found.events.clone()).await?;
            // Those that went are not found the next time, and forgotten then.
            self.walks
                .lock()
                .forget(&found.kept, found.whole.then_some(now));
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

    async fn usage(&self) -> Result<Usage, InboxError> {
        let disk = Arc::clone(&self.disk);
        let asked = tokio::task::spawn_blocking(move || disk.usage());
        asked.await.map_err(|error| InboxError::Engine {
            doing: "measure",
            cause: error.to_string(),
        })
    }

    async fn bytes_of(&self, source: &str) -> Result<u64, InboxError> {
        let source = source.to_owned();
        self.readers
            .ask("measure a source", move |conn| {
                browse::bytes_of(conn, &source)
            })
            .await
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
        if self.health.is_closed() || self.health.failure().is_some() {
            return Err(InboxError::Closed);
        }
        self.has_room()?;
        if !self.health.is_troubled() {
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
        self.health.failed().await
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

#[async_trait]
impl Replicas for SqliteInbox {
    fn replica_status(&self) -> ReplicaStatus {
        ReplicaStatus {
            good: true,
            generation: 0,
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
}

/// Without [`Upkeep::close`]: what was handed in is finished all the same, and the file is free afterwards.
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
