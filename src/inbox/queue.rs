//! Parts that the queues of both engines share: the weight of what waits, the callers who wait for an end, the last
//! trouble, and the answer to a caller who comes while the queue is full.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::InboxError;
use super::bounds::AWAITED;
use crate::model::DeliveryId;

/// Weight of a record while it waits for a writer, so that a queue of large bodies is bounded too. Dropping it takes
/// the record's bytes off the sum.
#[derive(Debug)]
pub(super) struct QueueWeight {
    /// Bytes of the record.
    pub(super) bytes: usize,
    all: Option<Arc<AtomicUsize>>,
}

impl QueueWeight {
    /// Adds a record's bytes to the sum of all that wait; `None` when they would pass the limit. One record may always
    /// wait alone.
    pub(super) fn of(bytes: usize, all: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let before = all.fetch_add(bytes, Ordering::Relaxed);
        let weight = Self {
            bytes,
            all: Some(Arc::clone(all)),
        };
        (before == 0 || before.saturating_add(bytes) <= limit).then_some(weight)
    }

    /// Weight of work that counts against no limit.
    pub(super) const fn free(bytes: usize) -> Self {
        Self { bytes, all: None }
    }
}

impl Drop for QueueWeight {
    fn drop(&mut self) {
        if let Some(all) = &self.all {
            all.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// The error for a full queue, with a time to come back that differs from caller to caller.
pub(super) fn full() -> InboxError {
    InboxError::Full(Duration::from_millis(fastrand::u64(1000..3000)))
}

/// Callers of this process who wait for deliveries to end.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    awaited: Arc<Mutex<HashMap<DeliveryId, Awaited>>>,
}

#[derive(Debug, Default)]
struct Awaited {
    ended: Arc<Notify>,
    waiters: usize,
}

impl Waiters {
    /// Registers a caller for a delivery's end. Done before the delivery is looked at, so that no end comes in between.
    pub(super) fn wait_for_end(&self, id: DeliveryId) -> Waiter {
        let mut awaited = self.awaited.lock();
        let ended = if awaited.len() < AWAITED || awaited.contains_key(&id) {
            let entry = awaited.entry(id).or_default();
            entry.waiters += 1;
            Some(Arc::clone(&entry.ended))
        } else {
            None
        };
        Waiter {
            id,
            ended,
            awaited: Arc::clone(&self.awaited),
        }
    }

    /// Notifies the callers who wait for one of these deliveries.
    pub(super) fn notify(&self, ids: &[DeliveryId]) {
        if ids.is_empty() {
            return;
        }
        let awaited = self.awaited.lock();
        for entry in ids.iter().filter_map(|id| awaited.get(id)) {
            entry.ended.notify_waiters();
        }
    }
}

/// A caller who waits for a delivery's end. Dropping it ends the wait.
#[derive(Debug)]
pub(super) struct Waiter {
    id: DeliveryId,
    ended: Option<Arc<Notify>>,
    awaited: Arc<Mutex<HashMap<DeliveryId, Awaited>>>,
}

impl Waiter {
    /// The notice of every end from now on; `None` where too many callers wait already.
    pub(super) fn ended(&self) -> Option<&Notify> {
        self.ended.as_deref()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.ended.is_none() {
            return;
        }
        let mut awaited = self.awaited.lock();
        if let Some(entry) = awaited.get_mut(&self.id) {
            entry.waiters -= 1;
            if entry.waiters == 0 {
                awaited.remove(&self.id);
            }
        }
    }
}

/// The reason why the last write failed, while no later one succeeded.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    last: Mutex<Option<InboxError>>,
}

impl Trouble {
    /// Notes a failed write. True if the write before it succeeded, so that the log says it once.
    pub(super) fn begins(&self, error: InboxError) -> bool {
        self.last.lock().replace(error).is_none()
    }

    /// Notes a write that succeeded. True if the write before it failed.
    pub(super) fn ends(&self) -> bool {
        self.last.lock().take().is_some()
    }

    /// True if the last write failed.
    pub(super) fn is_on(&self) -> bool {
        self.last.lock().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::bounds::QUEUE_BYTES;
    use crate::model::EventId;

    #[test]
    fn a_queue_of_large_bodies_is_bounded() {
        let all = Arc::new(AtomicUsize::new(0));
        let alone = QueueWeight::of(QUEUE_BYTES * 2, &all, QUEUE_BYTES).unwrap();
        assert!(QueueWeight::of(1, &all, QUEUE_BYTES).is_none());
        drop(alone);
        assert!(QueueWeight::of(1, &all, QUEUE_BYTES).is_some());
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn callers_beyond_the_bound_have_to_look_and_a_place_is_free_again_when_one_leaves() {
        let waiters = Waiters::default();
        let id = |number| DeliveryId {
            event: EventId::from_bytes([7; 16]),
            number,
        };
        let most = u32::try_from(AWAITED).unwrap();
        let mut all: Vec<Waiter> = (0..most).map(|n| waiters.wait_for_end(id(n))).collect();
        assert!(waiters.wait_for_end(id(most)).ended().is_none());
        assert!(
            waiters.wait_for_end(id(0)).ended().is_some(),
            "a delivery that somebody waits for already takes no further place"
        );
        all.pop();
        assert!(waiters.wait_for_end(id(most)).ended().is_some());
    }

    #[test]
    fn trouble_is_said_once_when_it_begins_and_once_when_it_ends() {
        let trouble = Trouble::default();
        assert!(!trouble.ends());
        assert!(trouble.begins(InboxError::NoSpace) && trouble.is_on());
        assert!(!trouble.begins(InboxError::Closed));
        assert!(trouble.ends() && !trouble.is_on());
        assert!(!trouble.ends());
    }
}
