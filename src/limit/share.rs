//! Among how many processes a configured limit is divided. Each takes its part, and none asks the others.
//!
//! A limiter charges every request as many times as there are processes, so that a part follows their number at once
//! and nothing that was already used is forgotten.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Number of processes that share a limit. Clones share the number.
#[derive(Clone, Debug)]
pub struct Share(Arc<AtomicU32>);

impl Share {
    /// So many processes; 0 is 1.
    pub fn among(processes: u32) -> Self {
        Self(Arc::new(AtomicU32::new(processes.max(1))))
    }

    /// So many from now on; 0 is 1. True when it is another number than before.
    pub fn set(&self, processes: u32) -> bool {
        self.0.swap(processes.max(1), Ordering::Relaxed) != processes.max(1)
    }

    /// The number of processes.
    pub fn processes(&self) -> NonZeroU32 {
        NonZeroU32::new(self.0.load(Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
    }
}

impl Default for Share {
    /// One process, alone.
    fn default() -> Self {
        Self::among(1)
    }
}
