//! This process's share of the limits on what comes in: they are divided among the processes that take requests.
//!
//! A process that has died counts until its lease has run out, so what the others have grows only when it is surely
//! gone. One that begins counts itself at once; the others learn of it within a quarter of a lease.

use std::sync::Arc;
use std::time::Duration;

use crate::inbox::Inbox;
use crate::limit::Share;
use crate::model::Role;

/// How often the number of processes is looked at without word that it changed.
const LOOK: Duration = Duration::from_secs(2);

/// Divides among as many as there are now. True when that is another number than before.
pub(super) fn take(share: &Share, inbox: &dyn Inbox) -> bool {
    share.set(inbox.replicas_with(Role::Ingress))
}

/// Follows the number of processes until it is stopped.
pub(super) async fn follow(share: Share, inbox: Arc<dyn Inbox>) {
    loop {
        if take(&share, &*inbox) {
            tracing::info!(processes = share.processes(), "limits are divided among so many processes");
        }
        // A change between asking and waiting, and one in roles alone, is found by the next look.
        let _ = tokio::time::timeout(LOOK, inbox.standing_changed()).await;
    }
}
