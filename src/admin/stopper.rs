//! The switch by which an operator stops calls that are passed on at once. Other runs wait in the dispatcher, which
//! knows the hold itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The switch of this process. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stopper {
    stopped: Arc<AtomicBool>,
    /// Number of orders in this process.
    orders: Arc<Mutex<u64>>,
}

impl Stopper {
    /// Gives the flag that is read before a call is passed on.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.stopped.clone()
    }

    /// Sets the switch by an order of an operator in this process.
    pub(super) fn order(&self, stop: bool) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        *orders += 1;
        self.stopped.store(stop, Ordering::Relaxed);
    }

    /// Gives the number of orders so far, for a reader of the inbox to pass to [`Stopper::read`].
    pub fn orders(&self) -> u64 {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the switch as it was read from the inbox, unless an order was given here after `orders` was read.
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
