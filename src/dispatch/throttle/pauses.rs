//! Pauses by an operator, as this process knows them, and the runs that a pause waits for.

use tokio::sync::watch;

use super::Throttle;
use super::state::ThrottleState;
use crate::inbox::Pause;
use crate::model::Route;

impl Throttle {
    /// The number of changes by an operator in this process. Asked for before the pauses are read from the inbox.
    pub(in crate::dispatch) fn pause_changes(&self) -> u64 {
        self.table().pause_changes
    }

    /// Takes the pauses that were read from the inbox. If an operator has changed one here since `changes` was asked
    /// for, what was read may be older than that and is ignored.
    pub(in crate::dispatch) fn set_pauses(
        &self,
        pauses: impl IntoIterator<Item = Pause>,
        changes: u64,
    ) {
        let mut table = self.table();
        if table.pause_changes == changes {
            table.paused = pauses.into_iter().collect();
            self.show_paused(&table);
        }
    }

    /// Pauses something in this process, or resumes it. The sender that is returned is closed when every run that was
    /// about to begin has begun or will not.
    pub(in crate::dispatch) fn pause_here(&self, what: &Pause, on: bool) -> watch::Sender<()> {
        let mut table = self.table();
        table.pause_changes += 1;
        match on {
            true => drop(table.paused.insert(what.clone())),
            false => drop(table.paused.remove(what)),
        }
        self.show_paused(&table);
        self.opened.notify_one();
        std::mem::replace(&mut table.setting_out, watch::Sender::new(()))
    }

    /// Notes that a run of this route is about to begin, until the receiver is dropped. `None`: an operator has paused it.
    pub(in crate::dispatch) fn set_out(&self, route: &Route) -> Option<watch::Receiver<()>> {
        let table = self.table();
        (!table.is_paused(route)).then(|| table.setting_out.subscribe())
    }

    fn show_paused(&self, table: &ThrottleState) {
        let count = |is: fn(&Pause) -> bool| table.paused.iter().filter(|pause| is(pause)).count();
        self.metrics
            .held("all", count(|pause| matches!(pause, Pause::All)));
        self.metrics
            .held("source", count(|pause| matches!(pause, Pause::Source(_))));
        self.metrics.held(
            "destination",
            count(|pause| matches!(pause, Pause::Destination(_))),
        );
    }

    /// True if anything is paused.
    pub(in crate::dispatch) fn has_pauses(&self) -> bool {
        !self.table().paused.is_empty()
    }
}
