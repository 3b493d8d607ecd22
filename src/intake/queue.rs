//! Events on their way to the inbox: how many they are, and how long they wait for their commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Number of events that may wait for the inbox however long that takes: a disk that hesitates is no reason to refuse
/// requests.
pub(crate) const SHORT_QUEUE: usize = 512;

/// Requests whose events are not committed yet.
#[derive(Debug)]
pub struct CommitQueue {
    length: AtomicUsize,
    /// Origin of the two times below.
    epoch: Instant,
    /// Time at which the last one left, or the first one joined an empty queue; microseconds since `epoch`.
    moved: AtomicU64,
    /// Time that the last one to leave had waited; zero since the queue was empty; microseconds.
    wait: AtomicU64,
}

/// A place in the queue, held until the commit has ended.
#[derive(Debug)]
pub struct QueuedEvents<'q>(&'q CommitQueue, Instant);

impl CommitQueue {
    /// Makes an empty queue.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            length: AtomicUsize::new(0),
            epoch: Instant::now(),
            moved: AtomicU64::new(0),
            wait: AtomicU64::new(0),
        })
    }

    /// Puts the events of one request in the queue.
    pub fn join(&self) -> QueuedEvents<'_> {
        let now = Instant::now();
        self.enter(now);
        QueuedEvents(self, now)
    }

    /// Estimates how long events that come now would wait; zero while the queue is short.
    pub fn wait(&self, now: Instant) -> Duration {
        if self.length.load(Ordering::Acquire) < SHORT_QUEUE {
            return Duration::ZERO;
        }
        let standing = self
            .at(now)
            .saturating_sub(self.moved.load(Ordering::Acquire));
        Duration::from_micros(standing.max(self.wait.load(Ordering::Acquire)))
    }

    pub(crate) fn enter(&self, now: Instant) {
        if self.length.fetch_add(1, Ordering::AcqRel) == 0 {
            self.moved.store(self.at(now), Ordering::Release);
            self.wait.store(0, Ordering::Release);
        }
    }

    pub(crate) fn leave(&self, since: Instant, now: Instant) {
        self.moved.store(self.at(now), Ordering::Release);
        self.wait.store(
            micros(now.saturating_duration_since(since)),
            Ordering::Release,
        );
        self.length.fetch_sub(1, Ordering::AcqRel);
    }

    fn at(&self, time: Instant) -> u64 {
        micros(time.saturating_duration_since(self.epoch))
    }
}

impl Drop for QueuedEvents<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1, Instant::now());
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
