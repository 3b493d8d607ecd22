//! Those who write: each takes what waits in a queue, up to a bound, does it in one transaction, and only then answers.
//!
//! A batch whose connection broke may be on disk or not. It is handed in again as it is, on another connection: events
//! are known by their ids and settlements by their leases, so doing it twice is doing it once. That is tried for a
//! while; then whoever waits is told that the inbox cannot be had. A batch that is refused is done again one by one, so
//! that a record which cannot be kept refuses only itself.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Client;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use super::database::{Database, give_back, slot, within};
use super::ending::Ending;
use super::error::DatabaseError;
use super::health::Health;
use super::keep;
use super::record::RequestRecords;
use super::repeat::pause;
use super::settle;
use crate::inbox::bounds::BATCH_BYTES;
use crate::inbox::codec::Codec;
use crate::inbox::queue::QueueWeight;
use crate::inbox::{InboxError, Settled};
use crate::model::{Accepted, DeliveryId};

/// Time that a batch which may be on disk is handed in again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time that a batch is tried at all.
const TRYING: Duration = Duration::from_secs(1);

/// Times that a batch is tried when others stand in its way.
const TRIES: u32 = 8;

/// Something that waits to be written.
pub(super) struct QueuedWork<W: Work> {
    work: W,
    since: Instant,
    reply: oneshot::Sender<Result<W::Answer, InboxError>>,
    weight: QueueWeight,
}

impl<W: Work> QueuedWork<W> {
    /// Something, and where its end will be told.
    pub(super) fn new(
        work: W,
        weight: QueueWeight,
    ) -> (Self, oneshot::Receiver<Result<W::Answer, InboxError>>) {
        let (reply, end) = oneshot::channel();
        (
            Self {
                work,
                since: Instant::now(),
                reply,
                weight,
            },
            end,
        )
    }

    fn answer(self, end: Result<W::Answer, InboxError>) {
        // Whoever asked may have gone; what was done stays done.
        let _ = self.reply.send(end);
    }
}

/// A kind of thing that is written.
pub(super) trait Work: Send + Sync + Sized + 'static {
    /// The answer for each record.
    type Answer: Send;

    /// Names the operation.
    const DOING: &'static str;

    /// Does a batch in one transaction; `again`: it was handed in before and may be on disk. Returns the answers in
    /// order, what has ended, and whether there are news.
    fn write<'a>(
        conn: &'a mut Client,
        slot: i32,
        codec: &'a Codec,
        batch: &'a [&'a Self],
        again: bool,
    ) -> BoxFuture<'a, Result<Wrote<Self>, DatabaseError>>;
}

/// The result of a batch.
pub(super) struct Wrote<W: Work> {
    answers: Vec<W::Answer>,
    ended: Vec<DeliveryId>,
    news: bool,
}

impl Work for RequestRecords {
    type Answer = Vec<Accepted>;

    const DOING: &'static str = "accept";

    fn write<'a>(
        conn: &'a mut Client,
        slot: i32,
        _: &'a Codec,
        batch: &'a [&'a Self],
        again: bool,
    ) -> BoxFuture<'a, Result<Wrote<Self>, DatabaseError>> {
        Box::pin(async move {
            let mut answers = keep::keep(conn, slot, batch).await?;
            for (id, answer) in batch
                .iter()
                .flat_map(|together| together.ids())
                .zip(answers.iter_mut().flatten())
            {
                // It is the first itself.
                if again && *answer == Accepted::Duplicate(id) {
                    *answer = Accepted::New;
                }
            }
            let news = answers
                .iter()
                .flatten()
                .any(|answer| *answer == Accepted::New);
            Ok(Wrote {
                answers,
                ended: vec![],
                news,
            })
        })
    }
}

impl Work for Ending {
    type Answer = Settled;

    const DOING: &'static str = "settle";

    fn write<'a>(
        conn: &'a mut Client,
        slot: i32,
        codec: &'a Codec,
        batch: &'a [&'a Self],
        again: bool,
    ) -> BoxFuture<'a, Result<Wrote<Self>, DatabaseError>> {
        Box::pin(async move {
            let (answers, ended) = settle::settle(conn, slot, batch, codec, again).await?;
            let news = answers.contains(&Settled::Done);
            Ok(Wrote {
                answers,
                ended,
                news,
            })
        })
    }
}

/// One of those who write.
pub(super) struct Writer<W: Work> {
    /// The queue of all writers of a kind.
    pub(super) queue: Arc<Mutex<mpsc::Receiver<QueuedWork<W>>>>,
    /// Records that share a commit at most.
    pub(super) batch: usize,
    /// The codec that closes what is written.
    pub(super) codec: Codec,
    /// The database that it writes to.
    pub(super) database: Arc<Database>,
    /// The health that others see.
    pub(super) health: Arc<Health>,
}

impl<W: Work> Writer<W> {
    /// Works until nobody can hand anything in any more.
    pub(super) async fn run(self) {
        let slot = slot();
        loop {
            let batch = self.take().await;
            if batch.is_empty() {
                return;
            }
            self.write(slot, batch).await;
        }
    }

    async fn take(&self) -> Vec<QueuedWork<W>> {
        let mut queue = self.queue.lock().await;
        let mut batch = Vec::new();
        let Some(first) = queue.recv().await else {
            return batch;
        };
        let mut bytes = first.weight.bytes;
        batch.push(first);
        while batch.len() < self.batch && bytes < BATCH_BYTES {
            let Ok(next) = queue.try_recv() else { break };
            bytes = bytes.saturating_add(next.weight.bytes);
            batch.push(next);
        }
        batch
    }

    async fn write(&self, slot: i32, mut batch: Vec<QueuedWork<W>>) {
        let mut sent = false;
        let mut tries = 0;
        loop {
            let end = self.attempt(slot, &batch, &mut sent).await;
            tries += 1;
            match end {
                Ok(wrote) => return self.answer(batch, wrote),
                Err(fault @ DatabaseError::Lost(_)) => {
                    self.health.trouble(&fault.clone().told(W::DOING));
                    let bound = if sent { PATIENCE } else { TRYING };
                    let (late, rest) = batch
                        .into_iter()
                        .partition(|item| item.since.elapsed() >= bound);
                    refuse(late, &fault);
                    batch = rest;
                    if batch.is_empty() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(50..150))).await;
                }
                Err(DatabaseError::Again(_)) if tries < TRIES => pause(tries).await,
                Err(fault @ DatabaseError::NoSpace) => {
                    self.health.trouble(&fault.clone().told(W::DOING));
                    return refuse(batch, &fault);
                }
                Err(fault) if batch.len() == 1 => {
                    if !matches!(fault, DatabaseError::Record(_)) {
                        self.health.trouble(&fault.clone().told(W::DOING));
                    }
                    return refuse(batch, &fault);
                }
                Err(_) => {
                    for item in batch {
                        Box::pin(self.write(slot, vec![item])).await;
                    }
                    return;
                }
            }
        }
    }

    async fn attempt(
        &self,
        slot: i32,
        batch: &[QueuedWork<W>],
        sent: &mut bool,
    ) -> Result<Wrote<W>, DatabaseError> {
        let mut conn = self.database.writer().await?;
        let works: Vec<&W> = batch.iter().map(|item| &item.work).collect();
        let end = within(W::write(&mut conn, slot, &self.codec, &works, *sent)).await;
        *sent |= matches!(end, Err(DatabaseError::Lost(_)));
        give_back(conn, &end);
        end
    }

    fn answer(&self, batch: Vec<QueuedWork<W>>, wrote: Wrote<W>) {
        self.health.recovered();
        for (item, answer) in batch.into_iter().zip(wrote.answers) {
            item.answer(Ok(answer));
        }
        self.health.tell(wrote.news, &wrote.ended);
    }
}

fn refuse<W: Work>(batch: Vec<QueuedWork<W>>, fault: &DatabaseError) {
    for item in batch {
        item.answer(Err(fault.clone().told(W::DOING)));
    }
}
