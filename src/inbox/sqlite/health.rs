//! What the rest of the inbox may know of its writer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};

use super::writer::held;
use crate::inbox::InboxError;
use crate::model::DeliveryId;

/// How many deliveries are waited for at once with being told; whoever comes beyond that has to look.
const MAX_AWAITED: usize = 10_000;

/// How the writer fares.
#[derive(Debug)]
pub(super) struct Health {
    /// Announcement when something may have become due.
    pub(super) news: Notify,
    awaited: Arc<Mutex<HashMap<DeliveryId, Awaited>>>,
    failed: watch::Sender<Option<String>>,
    troubled: AtomicBool,
    trouble: Mutex<Option<InboxError>>,
    closed: AtomicBool,
}

impl Health {
    /// Of a writer that has not begun.
    pub(super) fn new() -> Self {
        Self {
            news: Notify::new(),
            awaited: Arc::default(),
            failed: watch::Sender::new(None),
            troubled: AtomicBool::new(false),
            trouble: Mutex::new(None),
            closed: AtomicBool::new(false),
        }
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

    /// Tells whoever waits that these have ended.
    pub(super) fn ended(&self, ids: &[DeliveryId]) {
        if ids.is_empty() {
            return;
        }
        let awaited = held(&self.awaited);
        for entry in ids.iter().filter_map(|id| awaited.get(id)) {
            entry.told.notify_waiters();
        }
    }

    /// Stops everything for good; the first cause stays.
    pub(super) fn fail(&self, cause: String) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                tracing::error!(cause, "inbox stopped for good");
                *failed = Some(cause);
            }
            first
        });
    }

    /// Why it has stopped for good, if it has.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// Waits until it has stopped for good.
    pub(super) async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        let cause = failed
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|cause| cause.clone());
        match cause {
            Some(cause) => cause,
            None => std::future::pending().await,
        }
    }

    /// Notes that the last commit failed, but the next may not.
    pub(super) fn trouble(&self, error: InboxError) {
        if !self.troubled.swap(true, Ordering::AcqRel) {
            tracing::error!(cause = %error, "inbox cannot keep events");
        }
        *held(&self.trouble) = Some(error);
    }

    /// Notes that a commit went well.
    pub(super) fn recovered(&self) {
        if self.troubled.load(Ordering::Acquire) {
            *held(&self.trouble) = None;
            self.troubled.store(false, Ordering::Release);
            tracing::info!("inbox keeps events again");
        }
    }

    /// What kept the last commit from going well.
    pub(super) fn troubled(&self) -> Option<InboxError> {
        if self.troubled.load(Ordering::Acquire) {
            held(&self.trouble).clone()
        } else {
            None
        }
    }

    /// Notes that the writer has ended.
    pub(super) fn closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether the writer has ended.
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
