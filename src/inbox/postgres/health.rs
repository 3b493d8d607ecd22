//! Health of the inbox in this process: whether the database can be had and takes events, and the notices for the other
//! processes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::inbox::InboxError;
use crate::inbox::bounds::AWAITED;
use crate::inbox::queue::{Trouble, Waiters};
use crate::model::DeliveryId;

/// Ends that wait to be told to other processes; of those beyond they find out by looking.
const MAX_TOLD: usize = 2_000;

/// Health of the inbox that all its parts in this process see.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Notified when something may have become due.
    pub(super) work_due: Notify,
    /// Callers of this process who wait for deliveries to end.
    pub(super) waiters: Waiters,
    /// Notified when there is something for the other processes.
    pub(super) outgoing: Notify,
    told: Mutex<Announcement>,
    trouble: Trouble,
    doubtful: Mutex<HashSet<i64>>,
    full: AtomicBool,
    closed: AtomicBool,
}

/// Notices to the other processes.
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
            self.work_due.notify_one();
        }
        self.waiters.notify(ended);
        if !news && ended.is_empty() {
            return;
        }
        let mut told = self.told.lock();
        told.news |= news;
        let room = MAX_TOLD.saturating_sub(told.ended.len());
        told.ended.extend(ended.iter().take(room));
        drop(told);
        self.outgoing.notify_one();
    }

    /// Takes what the others are to be told.
    pub(super) fn take_told(&self) -> Announcement {
        std::mem::take(&mut *self.told.lock())
    }

    /// Notes that the database cannot be had, or takes nothing; the log says it once.
    pub(super) fn trouble(&self, error: &InboxError) {
        if self.trouble.begins(error.clone()) {
            tracing::error!(cause = %error, "inbox cannot be reached or cannot keep events");
        }
    }

    /// Notes that the database took something.
    pub(super) fn recovered(&self) {
        if self.trouble.ends() {
            tracing::info!("inbox keeps events again");
            self.work_due.notify_one();
        }
    }

    /// True if the database did not take the last record that was handed in.
    pub(super) fn is_troubled(&self) -> bool {
        self.trouble.is_on()
    }

    /// Notes a lease whose settlement may be on disk or not.
    pub(super) fn doubt(&self, fence: i64) {
        let mut doubtful = self.doubtful.lock();
        if doubtful.len() < AWAITED {
            doubtful.insert(fence);
        }
    }

    /// True if a lease is one of those, which is then forgotten.
    pub(super) fn was_doubtful(&self, fence: i64) -> bool {
        self.doubtful.lock().remove(&fence)
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

    /// True if it has reached its ceiling.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Notes that it is closed.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.outgoing.notify_one();
    }

    /// True if it is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
