//! What the rest of the inbox may know of its writer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, watch};

use super::writer::held;
use crate::inbox::InboxError;

/// How the writer fares.
#[derive(Debug)]
pub(super) struct Shared {
    /// Told when something may have become due.
    pub(super) news: Notify,
    failed: watch::Sender<Option<String>>,
    troubled: AtomicBool,
    trouble: Mutex<Option<InboxError>>,
    closed: AtomicBool,
}

impl Shared {
    /// Of a writer that has not begun.
    pub(super) fn new() -> Self {
        Self {
            news: Notify::new(),
            failed: watch::Sender::new(None),
            troubled: AtomicBool::new(false),
            trouble: Mutex::new(None),
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

    /// Why it has stopped for good, if it has.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// Waits until it has stopped for good.
    pub(super) async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        let cause = failed.wait_for(Option::is_some).await.ok().and_then(|cause| cause.clone());
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
        if self.troubled.load(Ordering::Acquire) { held(&self.trouble).clone() } else { None }
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
