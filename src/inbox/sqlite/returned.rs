//! Leases that their claimer never had: they go back to the writer by themselves.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::settle;
use super::transaction::Transaction;
use super::work::{Work, WriterMessage};
use crate::inbox::codec::{Codec, Unreadable};
use crate::inbox::{InboxError, Next, Settlement};
use crate::model::{Attempt, Timestamp};

/// A lease, as the writer knows it.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) key: i64,
    pub(super) event: i64,
    pub(super) lane: Uuid,
    pub(super) fence: i64,
    pub(super) attempt: u32,
    pub(super) strikes: u32,
    pub(super) doubt: Option<Timestamp>,
    pub(super) at: Timestamp,
}

/// Leases on their way to whoever claimed. Those still in it when it is dropped go back.
#[derive(Debug)]
pub(super) struct Leases {
    pub(super) open: Vec<Lease>,
    pub(super) returned: Returned,
}

impl Leases {
    /// Of a commit that has been made.
    pub(super) fn new(open: Vec<Lease>, returned: Returned) -> Self {
        Self { open, returned }
    }

    /// True if no lease is left.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Hands the first `count` over for good.
    pub(super) fn hand_over(&mut self, count: usize) {
        self.open.drain(..count.min(self.open.len()));
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.returned.put(self.open.drain(..).map(Return::Untaken));
    }
}

/// A lease that its claimer never had.
#[derive(Clone, Debug)]
pub(super) enum Return {
    /// As if it had not been claimed; its lane keeps its place.
    Untaken(Lease),
    /// The record cannot be read again; it will not be tried for ever.
    Unreadable(Lease, Unreadable),
}

/// The place where such leases lie until the writer's next turn.
#[derive(Clone, Debug)]
pub(super) struct Returned {
    list: Arc<Mutex<Vec<Return>>>,
    bell: mpsc::WeakSender<WriterMessage>,
}

impl Returned {
    /// Empty; `bell` wakes the writer.
    pub(super) fn new(bell: mpsc::WeakSender<WriterMessage>) -> Self {
        Self {
            list: Arc::default(),
            bell,
        }
    }

    /// Puts leases there, and wakes the writer.
    pub(super) fn put(&self, returns: impl IntoIterator<Item = Return>) {
        let mut list = self.list.lock();
        list.extend(returns);
        if !list.is_empty()
            && let Some(bell) = self.bell.upgrade()
        {
            // When the queue is full the writer has a turn before it anyway.
            let _ = bell.try_send(WriterMessage::Look);
        }
    }

    /// Takes what lies there, as work for the writer.
    pub(super) fn work(&self) -> impl Iterator<Item = Box<dyn Work>> + use<> {
        let list = std::mem::take(&mut *self.list.lock());
        let returned = self.clone();
        list.into_iter().map(move |what| -> Box<dyn Work> {
            Box::new(GiveBack {
                what,
                returned: returned.clone(),
            })
        })
    }
}

struct GiveBack {
    what: Return,
    returned: Returned,
}

impl Work for GiveBack {
    fn apply(&mut self, tx: &mut Transaction<'_>) -> rusqlite::Result<()> {
        match &self.what {
            Return::Untaken(lease) => {
                settle::give_back(tx, lease.lane, lease.fence, lease.key, lease.doubt)
            }
            Return::Unreadable(lease, Unreadable { result, cause }) => {
                tracing::error!(
                    delivery = lease.key,
                    cause,
                    "delivery cannot be read and is dead"
                );
                let attempt = Attempt {
                    number: lease.attempt,
                    started_at: lease.at,
                    ended_at: lease.at,
                    result: (*result).to_owned(),
                    status: None,
                    detail: cause.clone(),
                };
                let (key, lane, fence) = (lease.key, lease.lane, lease.fence);
                settle::settle(
                    tx,
                    &Codec::plain(),
                    &Settlement {
                        id: None,
                        key,
                        lane,
                        fence,
                        attempt,
                        next: Next::Dead(None),
                        owes: Vec::new(),
                        progress: None,
                    },
                )
                .map(|_| ())
            }
        }
    }

    fn bytes(&self) -> usize {
        0
    }

    fn doing(&self) -> &'static str {
        "take back a lease"
    }

    fn answer(self: Box<Self>, end: Result<(), InboxError>) {
        // Nobody else will free the lane, so it is tried until it goes. Without the bell: the next turn is soon enough,
        // and a full disk is no reason to spin.
        if let Err(InboxError::NoSpace | InboxError::Engine { .. }) = end {
            self.returned.list.lock().push(self.what);
        }
    }
}
