//! What the parts of the inbox tell each other within this process.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::inbox::InboxError;
use crate::model::DeliveryId;

/// How many deliveries are waited for at once with being told; whoever comes beyond that has to look.
const MAX_AWAITED: usize = 10_000;

/// How many ends wait to be told to other processes; of those beyond they find out by looking.
const MAX_TOLD: usize = 2_000;

/// How the inbox fares.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Announcement when something may have become due.
    pub(super) news: Notify,
    /// Announcement when there is something for the other processes.
    pub(super) outgoing: Notify,
    told: Mutex<Announcement>,
    awaited: Arc<Mutex<HashMap<DeliveryId, Awaited>>>,
    trouble: Mutex<Option<InboxError>>,
    doubtful: Mutex<HashSet<i64>>,
    full: AtomicBool,
    closed: AtomicBool,
}

/// What is for the other processes.
#[derive(Debug, Default)]
pub(super) struct Announcement {
    /// Something may have become due.
    pub(super) news: bool,
    /// These have ended.
    pub(super) ended: Vec<DeliveryId>,
}

impl Health {
    /// Tells everybody that something may have become due, and that these have ended.
    pub(super) fn tell(&self, news: bool, ended: &[DeliveryId]) {
        if news {
            self.news.notify_one();
        }
        self.ended(ended);
        if !news && ended.is_empty() {
            return;
        }
        let mut told = held(&self.told);
        told.news |= news;
        let room = MAX_TOLD.saturating_sub(told.ended.len());
        told.ended.extend(ended.iter().take(room));
        drop(told);
        self.outgoing.notify_one();
    }

    /// What the others are to be told, once.
    pub(super) fn take_told(&self) -> Announcement {
        std::mem::take(&mut *held(&self.told))
    }

    /// A place to wait for a delivery's end, taken before it is looked at, so that no end comes in between.
    pub(super) fn wait_for_end(&self, id: DeliveryId) -> Waiter {
        let mut awaited = held(&self.awaited);
        let told = if awaited.len() < MAX_AWAITED || awaited.contains_key(&id) {
            let entry = awaited.entry(id).or_default();
            entry.waiters += 1;
            Some(Arc::clone(&entry.told))
        } else {
            None
        };
        Waiter {
            id,
            told,
            awaited: Arc::clone(&self.awaited),
        }
    }

    /// Tells whoever waits in this process that these have ended.
    pub(super) fn ended(&self, ids: &[DeliveryId]) {
        if ids.is_empty() {
            return;
        }
        let awaited = held(&self.awaited);
        for entry in ids.iter().filter_map(|id| awaited.get(id)) {
            entry.told.notify_waiters();
        }
    }

    /// Notes that the database cannot be had, or takes nothing; said once in the log.
    pub(super) fn trouble(&self, error: InboxError) {
        let mut trouble = held(&self.trouble);
        if trouble.is_none() {
            tracing::error!(cause = %error, "inbox cannot be reached or cannot keep events");
        }
        *trouble = Some(error);
    }

    /// Notes that it took something.
    pub(super) fn recovered(&self) {
        if held(&self.trouble).take().is_some() {
            tracing::info!("inbox keeps events again");
            self.news.notify_one();
        }
    }

    /// What kept it from taking the last that was handed in.
    pub(super) fn troubled(&self) -> Option<InboxError> {
        held(&self.trouble).clone()
    }

    /// Notes a lease whose settlement may be on disk or not.
    pub(super) fn doubt(&self, fence: i64) {
        let mut doubtful = held(&self.doubtful);
        if doubtful.len() < MAX_AWAITED {
            doubtful.insert(fence);
        }
    }

    /// Whether a lease is one of those; it is forgotten.
    pub(super) fn was_doubtful(&self, fence: i64) -> bool {
        held(&self.doubtful).remove(&fence)
    }

    /// Notes whether it has reached its ceiling.
    pub(super) fn set_full(&self, full: bool) {
        if self.full.swap(full, Ordering::AcqRel) != full {
            if full {
                tracing::error!("inbox has reached max_disk and keeps no more events");
            } else {
                tracing::info!("inbox is below max_disk again");
            }
        }
    }

    /// Whether it has reached its ceiling.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Notes that it is closed.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.outgoing.notify_one();
    }

    /// Whether it is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

#[derive(Debug, Default)]
struct Awaited {
    told: Arc<Notify>,
    waiters: usize,
}

/// Somebody who waits for a delivery's end.
#[derive(Debug)]
pub(super) struct Waiter {
    id: DeliveryId,
    told: Option<Arc<Notify>>,
    awaited: Arc<Mutex<HashMap<DeliveryId, Awaited>>>,
}

impl Waiter {
    /// What is told of every end from now on; none where there was no place left.
    pub(super) fn told(&self) -> Option<&Notify> {
        self.told.as_deref()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.told.is_none() {
            return;
        }
        let mut awaited = held(&self.awaited);
        if let Some(entry) = awaited.get_mut(&self.id) {
            entry.waiters -= 1;
            if entry.waiters == 0 {
                awaited.remove(&self.id);
            }
        }
    }
}

/// A lock whose holder cannot have left it half changed.
pub(super) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
