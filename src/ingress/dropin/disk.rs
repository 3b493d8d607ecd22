//! Disk that the drop-in's calls take, of the share of callers whose keys are not the gateway's own.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::NAME;
use crate::inbox::Inbox;
use crate::model::Refusal;
use crate::run::inbox_refusal;

/// Time that a measurement is good for; what is kept in the meantime is added to it.
const LOOK: Duration = Duration::from_secs(60);

/// A share of the disk.
#[derive(Debug)]
pub(super) struct DiskShare {
    most: u64,
    /// The time of the last measurement, and the bytes taken then and since.
    measured: Mutex<Option<(Instant, u64)>>,
}

impl DiskShare {
    /// A share of this many bytes.
    pub(super) fn new(most: u64) -> Self {
        Self {
            most,
            measured: Mutex::default(),
        }
    }

    /// Takes this many bytes of it, if there is room.
    pub(super) async fn take(&self, inbox: &dyn Inbox, bytes: u64) -> Result<(), Refusal> {
        let mut measured = self.measured.lock().await;
        let (at, taken) = match *measured {
            Some((at, taken)) if at.elapsed() < LOOK => (at, taken),
            _ => (
                Instant::now(),
                inbox.bytes_of(NAME).await.map_err(inbox_refusal)?,
            ),
        };
        let wanted = taken.saturating_add(bytes);
        let is_full = wanted > self.most;
        *measured = Some((at, if is_full { taken } else { wanted }));
        if is_full {
            Err(Refusal::Overloaded(LOOK))
        } else {
            Ok(())
        }
    }
}
