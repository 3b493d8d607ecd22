//! Whether an operator has stopped every run, for calls that are passed on at once and wait for no dispatcher.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The operator's word in this process. Copies are of one.
#[derive(Clone, Debug, Default)]
pub struct Stopper {
    stopped: Arc<AtomicBool>,
    /// How often it was said here.
    orders: Arc<Mutex<u64>>,
}

impl Stopper {
    /// What is asked before a call is passed on.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.stopped.clone()
    }

    /// An operator says so here.
    pub(super) fn order(&self, stop: bool) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        *orders += 1;
        self.stopped.store(stop, Ordering::Relaxed);
    }

    /// How often it was said here: for whoever is about to read it from the inbox.
    pub fn orders(&self) -> u64 {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was read from the inbox. It is older than an order that was given here meanwhile.
    pub fn read(&self, stop: bool, orders: u64) {
        let now = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if *now == orders {
            self.stopped.store(stop, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_an_order_does_not_undo_it() {
        let stopper = Stopper::default();
        let flag = stopper.flag();
        let before = stopper.orders();
        stopper.order(true);
        stopper.read(false, before);
        assert!(flag.load(Ordering::Relaxed));
        stopper.read(false, stopper.orders());
        assert!(!flag.load(Ordering::Relaxed));
    }
}
