//! Progress of a request's body that is passed on as it comes, and the fault that ended it.

use std::error::Error;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Progress of a request's body on its way to an upstream.
#[derive(Debug)]
pub(super) struct BodyProgress {
    begun: Instant,
    /// Milliseconds after `begun` at which the last piece went up.
    last: AtomicU64,
    bytes: AtomicU64,
    /// True once the body has come to its end.
    is_whole: AtomicBool,
    fault: OnceLock<BodyFault>,
}

/// Cause of a request's body that did not go up whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFault {
    /// The body is larger than this.
    TooLarge(u64),
    /// The body stood still.
    Slow,
    /// The body broke off.
    Broken,
}

impl BodyProgress {
    pub(super) const fn new(begun: Instant) -> Self {
        Self {
            begun,
            last: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            is_whole: AtomicBool::new(false),
            fault: OnceLock::new(),
        }
    }

    /// The time at which the last piece went up, or the request began.
    pub(super) fn last(&self) -> Instant {
        self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Relaxed)
    }

    /// The body has come to its end.
    pub(super) fn end(&self) {
        self.is_whole.store(true, Ordering::Relaxed);
    }

    pub(super) fn fault(&self) -> Option<BodyFault> {
        self.fault.get().copied()
    }

    pub(super) fn moved(&self, count: u64) -> u64 {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
        self.bytes.fetch_add(count, Ordering::Relaxed) + count
    }

    /// The first fault is the one that counts.
    pub(super) fn fail(&self, fault: BodyFault) -> Box<dyn Error + Send + Sync> {
        let _ = self.fault.set(fault);
        match fault {
            BodyFault::TooLarge(_) => "the body is too large",
            BodyFault::Slow => "the body stood still",
            BodyFault::Broken => "the body broke off",
        }
        .into()
    }
}
