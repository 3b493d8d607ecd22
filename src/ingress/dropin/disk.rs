//! How much disk the drop-in's calls take, of what is allowed to callers whose keys are not the gateway's own.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::NAME;
use crate::inbox::Inbox;
use crate::intake::inbox_refusal;
use crate::model::Refusal;

/// How long a measurement is good; what is kept in the meantime is added to it.
const LOOK: Duration = Duration::from_secs(60);

/// A share of the disk.
#[derive(Debug)]
pub(super) struct DiskShare {
    most: u64,
    /// When it was measured last, and how much was taken then and since.
    measured: Mutex<Option<(Instant, u64)>>,
}

impl DiskShare {
    /// So much.
    pub(super) fn new(most: u64) -> Self {
        Self {
            most,
            measured: Mutex::default(),
        }
    }

    /// Takes so much of it, if there is room.
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
