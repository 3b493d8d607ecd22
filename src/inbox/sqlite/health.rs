//! Health of the writer: whether it can write, whether it has ended, and why.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, watch};

use crate::inbox::InboxError;
use crate::inbox::queue::{Trouble, Waiters};

/// State of the writer that the rest of the inbox may see.
#[derive(Debug)]
pub(super) struct Health {
    /// Notified when something may have become due.
    pub(super) work_due: Notify,
    /// Callers who wait for deliveries to end.
    pub(super) waiters: Waiters,
    failed: watch::Sender<Option<String>>,
    trouble: Trouble,
    closed: AtomicBool,
}

impl Health {
    /// Of a writer that has not begun.
    pub(super) fn new() -> Self {
        Self {
            work_due: Notify::new(),
            waiters: Waiters::default(),
            failed: watch::Sender::new(None),
            trouble: Trouble::default(),
            closed: AtomicBool::new(false),
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

    /// The cause, if it has stopped for good.
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
    pub(super) fn trouble(&self, error: &InboxError) {
        if self.trouble.begins(error.clone()) {
            tracing::error!(cause = %error, "inbox cannot keep events");
        }
    }

    /// Notes that a commit succeeded.
    pub(super) fn recovered(&self) {
        if self.trouble.ends() {
            tracing::info!("inbox keeps events again");
        }
    }

    /// True if the last commit failed.
    pub(super) fn is_troubled(&self) -> bool {
        self.trouble.is_on()
    }

    /// Notes that the writer has ended.
    pub(super) fn closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// True if the writer has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
