//! Counters of the stand-in.

use std::collections::BTreeMap;

use serde::Serialize;

/// Most agents and workflows that are counted one by one.
const MAX_COUNTED: usize = 1_000;

/// Counters since the start or since `DELETE /_stub/runs`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Stats {
    /// Requests to the API, whatever became of them.
    pub(super) requests: u64,
    /// Runs begun.
    pub(super) runs: u64,
    /// Runs that have ended.
    pub(super) ended: u64,
    /// Runs going on now.
    pub(super) running: u64,
    /// The most that went on at once.
    pub(super) max_running: u64,
    /// The same, by agent or workflow; of the first thousand that were called.
    pub(super) max_running_by: BTreeMap<String, u64>,
    #[serde(skip)]
    pub(super) running_by: BTreeMap<String, u64>,
    /// Runs begun while another of the same id went on. A well-behaved caller has none.
    pub(super) overlaps: u64,
    /// Runs of an id and a text that had run before.
    pub(super) duplicates: u64,
    /// Faults, by their word.
    pub(super) faults: BTreeMap<String, u64>,
    /// Answers, by status.
    pub(super) answers: BTreeMap<u16, u64>,
}

impl Stats {
    /// Counts a run that begins.
    pub(super) fn begin(&mut self, destination: &str) {
        self.runs += 1;
        self.running += 1;
        self.max_running = self.max_running.max(self.running);
        if self.max_running_by.len() < MAX_COUNTED || self.max_running_by.contains_key(destination)
        {
            let running = self.running_by.entry(destination.to_owned()).or_default();
            *running += 1;
            let most = self
                .max_running_by
                .entry(destination.to_owned())
                .or_default();
            *most = (*most).max(*running);
        }
    }

    /// Counts a run that ends.
    pub(super) fn end(&mut self, destination: &str) {
        self.running = self.running.saturating_sub(1);
        self.ended += 1;
        if let Some(running) = self.running_by.get_mut(destination) {
            *running = running.saturating_sub(1);
        }
    }
}
