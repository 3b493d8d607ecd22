//! This process's share of what is configured for all that share the inbox: limits on what comes in are divided among
//! the processes that take requests, the upstream's budget among those that call it. (Caps of destinations are the
//! dispatcher's own.) Whether an operator has stopped all runs is followed the same way, for calls that are passed on at
//! once; the dispatcher looks for itself.
//!
//! A process that has died counts until its lease has run out, so what the others have grows only when it is surely
//! gone. One that begins counts itself at once; the others learn of it within a quarter of a lease.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::Stopper;
use crate::inbox::{Inbox, Pause};
use crate::limit::Share;
use crate::model::Role;
use crate::upstream::Budget;

/// How often the number of processes, and whether runs are stopped, is looked at without word that it changed.
const LOOK: Duration = Duration::from_secs(1);

/// Divides among as many as there are now. True when what comes in is divided otherwise than before.
pub(super) fn take(share: &Share, budget: &Budget, inbox: &dyn Inbox) -> bool {
    let ingress = inbox.replicas_with(Role::Ingress);
    // Those that take requests call it too, for what is passed on. One that does both is counted twice, so at most all.
    let callers = ingress
        .saturating_add(inbox.replicas_with(Role::Dispatch))
        .min(inbox.replica_status().replicas);
    budget.share(callers);
    share.set(ingress)
}

/// Follows the number of processes, and the operator's word that no run is to begin, until it is stopped itself.
pub(super) async fn follow(share: Share, budget: Budget, stopper: Stopper, inbox: Arc<dyn Inbox>) {
    loop {
        // One that cannot be asked leaves it as it was.
        let orders = stopper.orders();
        if let Ok(holds) = inbox.pauses().await {
            stopper.read(holds.iter().any(|(hold, _)| *hold == Pause::All), orders);
        }
        if take(&share, &budget, &*inbox) {
            tracing::info!(
                processes = share.processes(),
                "limits are divided among so many processes"
            );
        }
        // A change between asking and waiting, and one in roles alone, is found by the next look.
        let _ = tokio::time::timeout(LOOK, inbox.replica_status_changed()).await;
    }
}
