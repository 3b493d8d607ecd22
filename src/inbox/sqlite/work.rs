//! Work for the writer: anything that is done in a transaction which it shares with others.

use tokio::sync::oneshot;

use super::transaction::Transaction;
use crate::inbox::InboxError;
use crate::inbox::queue::QueueWeight;

/// Something to be done in a shared transaction.
pub(super) trait Work: Send {
    /// Does it. May be called again after a rollback.
    fn apply(&mut self, tx: &mut Transaction<'_>) -> rusqlite::Result<()>;
    /// Size of its record.
    fn bytes(&self) -> usize;
    /// Names the operation.
    fn doing(&self) -> &'static str;
    /// Tells who waits, after the commit or its failure.
    fn answer(self: Box<Self>, end: Result<(), InboxError>);
}

/// A closure as [`Work`], with who waits for its end. What it found is wrapped only after the commit.
pub(super) struct QueuedWork<T, U, F, W> {
    doing: &'static str,
    work: F,
    wrap: W,
    found: Option<T>,
    reply: oneshot::Sender<Result<U, InboxError>>,
    weight: QueueWeight,
}

impl<T, U, F: FnMut(&mut Transaction<'_>) -> rusqlite::Result<T>, W> QueuedWork<T, U, F, W> {
    /// A job and where its end will be told.
    pub(super) fn new(
        doing: &'static str,
        weight: QueueWeight,
        work: F,
        wrap: W,
    ) -> (Self, oneshot::Receiver<Result<U, InboxError>>) {
        let (reply, end) = oneshot::channel();
        (
            Self {
                doing,
                work,
                wrap,
                found: None,
                reply,
                weight,
            },
            end,
        )
    }
}

impl<T, U, F, W> Work for QueuedWork<T, U, F, W>
where
    T: Send,
    U: Send,
    F: FnMut(&mut Transaction<'_>) -> rusqlite::Result<T> + Send,
    W: FnOnce(T) -> U + Send,
{
    fn apply(&mut self, tx: &mut Transaction<'_>) -> rusqlite::Result<()> {
        self.found = Some((self.work)(tx)?);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.weight.bytes
    }

    fn doing(&self) -> &'static str {
        self.doing
    }

    fn answer(self: Box<Self>, end: Result<(), InboxError>) {
        let Self {
            wrap,
            found,
            reply,
            weight,
            ..
        } = *self;
        drop(weight);
        let end = end.and_then(|()| found.ok_or(InboxError::Closed)).map(wrap);
        // Whoever asked may have gone; what was done stays done.
        let _ = reply.send(end);
    }
}

/// A message to the writer.
pub(super) enum WriterMessage {
    /// Do this.
    Work(Box<dyn Work>),
    /// Look for returned leases.
    Look,
    /// Finish what was handed in, and end.
    Close,
}
