//! Which configuration holds: how often one was loaded, since when it holds, and what of it holds after a restart only.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::model::Timestamp;

/// What is known of the configuration that holds. It outlives each.
#[derive(Debug)]
pub struct Loaded {
    started_at: Timestamp,
    now: Mutex<LoadedView>,
}

/// The same, to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LoadedView {
    /// 1 is the one that the process was started with; each that took another's place counts on.
    pub(super) generation: u64,
    /// Since when it holds.
    pub(super) loaded_at: Timestamp,
    /// Settings that have changed since the start and hold after a restart only.
    pub(super) restart_for: Vec<&'static str>,
}

impl Loaded {
    /// The first one holds.
    pub fn new(now: Timestamp) -> Self {
        let first = LoadedView { generation: 1, loaded_at: now, restart_for: Vec::new() };
        Self { started_at: now, now: Mutex::new(first) }
    }

    /// Since when the process runs.
    pub(super) const fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Another one holds from now on, but for these settings.
    pub fn next(&self, now: Timestamp, restart_for: Vec<&'static str>) {
        let mut loaded = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        *loaded = LoadedView { generation: loaded.generation + 1, loaded_at: now, restart_for };
    }

    /// What is known.
    pub(super) fn view(&self) -> LoadedView {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
