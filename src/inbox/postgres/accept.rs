//! Keeping events: they are handed to a writer, which keeps them in batches (`keep`).

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::proof::{self};
use super::record::RequestRecords;
use super::writer::QueuedWork;
use super::{PostgresInbox, browse};
use crate::inbox::bounds::QUEUE_BYTES;
use crate::inbox::queue::{QueueWeight, full};
use crate::inbox::{Accept, InboxError};
use crate::model::{Accepted, EventId, NewEvent, ProofMark, Timestamp, UsedProof};

#[async_trait]
impl Accept for PostgresInbox {
    async fn accept_all(&self, mut events: Vec<NewEvent>) -> Result<Vec<Accepted>, InboxError> {
        let queue = self.queues()?.records;
        if self.health.is_full() {
            return Err(InboxError::NoSpace);
        }
        self.codec.close_events(&mut events)?;
        let together = RequestRecords::new(events)?;
        let weight =
            QueueWeight::of(together.bytes(), &self.waiting, QUEUE_BYTES).ok_or_else(full)?;
        let (item, end) = QueuedWork::new(together, weight);
        // Whoever calls from outside is told at once that we are full; everybody else waits for a place.
        queue.try_send(item).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => full(),
            mpsc::error::TrySendError::Closed(_) => InboxError::Closed,
        })?;
        drop(queue);
        end.await.unwrap_or(Err(InboxError::Closed))
    }

    async fn known(&self, source: &str, dedup: &str) -> Result<Option<EventId>, InboxError> {
        reading!(self, "look a dedup key up", |conn| browse::known(
            conn, source, dedup
        ))
    }

    async fn use_proof(&self, proof: UsedProof, now: Timestamp) -> Result<bool, InboxError> {
        writing!(self, "use a proof up", |conn| proof::pass_on(
            conn, &proof, now
        ))
    }

    async fn free_proof(&self, marks: Vec<ProofMark>) -> Result<(), InboxError> {
        writing!(self, "give a proof back", |conn| proof::free(conn, &marks))
    }
}
