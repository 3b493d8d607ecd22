//! Leasing what is due.
//!
//! A claim asks which routes have due lanes, some of each rank, deals its places to them on the terms given
//! (`inbox/fair.rs`), locks so many lanes, passing over
//! those that others have locked, and only then, in a statement of its own, reads each lane's first delivery: one that
//! was read together with the lock could be one that has been settled meanwhile. The cost is that of the lanes taken,
//! however much waits.

use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Client, Transaction};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::PostgresInbox;
use super::browse::{self, DeliveryEnd};
use super::database::rows;
use super::due::{DueRoutes, open_routes};
use super::ending::Ending;
use super::error::DatabaseError;
use super::lane::{heads, lock_lanes};
use super::lease::Lease;
use super::plan::ClaimPlan;
use super::writer::QueuedWork;
use crate::inbox::bounds::{CLAIM_LEASES, END_POLL};
use crate::inbox::fair::Shares;
use crate::inbox::queue::{QueueWeight, Waiter};
use crate::inbox::{
    ClaimBatch, Claimed, Deliver, DeliveryDetail, InboxError, Replicas as _, Settled, Settlement,
    Terms, Turn,
};
use crate::model::{DeliveryId, Route, Timestamp};

/// The result of a claim.
#[derive(Debug, Default)]
pub(super) struct Leased {
    /// [`crate::inbox::ClaimBatch::next_due`]
    pub(super) next_due: Option<Timestamp>,
    /// [`crate::inbox::ClaimBatch::dropped`]
    pub(super) dropped: Vec<(String, u64)>,
    /// The deliveries that came to their end on the way, or whose end is that of another now.
    pub(super) ended: Vec<DeliveryId>,
    /// True if this replica's row has expired.
    pub(super) expired: bool,
}

/// The process that claims.
pub(super) struct Claimant<'a> {
    /// The slot of its counters.
    pub(super) slot: i32,
    /// Its number among the replicas.
    pub(super) replica: i64,
    /// The shares of those that have something due.
    pub(super) shares: &'a Mutex<Shares>,
}

/// Leases due deliveries on the terms given. `leases` are filled before the commit: when its answer is lost, they are
/// those that may be on disk.
pub(super) async fn lease(
    conn: &mut Client,
    claimant: &Claimant<'_>,
    terms: &mut dyn Terms,
    now: Timestamp,
    leases: &mut Vec<Lease>,
) -> Result<Leased, DatabaseError> {
    let &Claimant {
        slot,
        replica,
        shares,
    } = claimant;
    terms.begin();
    let tx = conn.transaction().await?;
    if !is_alive(&tx, replica).await? {
        return Ok(Leased {
            expired: true,
            ..Leased::default()
        });
    }
    let room = terms.room().min(CLAIM_LEASES);
    if room == 0 {
        return Ok(Leased::default());
    }
    let walked = shares.lock().walked.clone();
    let DueRoutes {
        open,
        next_due,
        walked,
    } = open_routes(&tx, walked, terms, now).await?;
    if open.is_empty() {
        shares.lock().walked = walked;
        return Ok(Leased {
            next_due,
            ..Leased::default()
        });
    }
    let dealt = {
        let mut shares = shares.lock();
        shares.walked = walked;
        shares.deal(&open, terms, room)
    };
    let due: Vec<(i32, Route, usize)> = open
        .into_iter()
        .zip(dealt)
        .filter(|(_, most)| *most > 0)
        .map(|((number, route), most)| (number, route, most))
        .collect();
    // The terms go by what is taken, not by what was dealt.
    terms.begin();
    let lanes = lock_lanes(&tx, &due, room, now).await?;
    let heads = heads(&tx, lanes).await?;
    let mut taking = ClaimPlan::default();
    for head in &heads {
        taking.consider(&tx, head, terms, now).await?;
    }
    taking.take(&tx, slot, replica, terms, now).await?;
    {
        let mut shares = shares.lock();
        for (_, route, most) in &due {
            let taken = taking.took.get(route).copied().unwrap_or(0);
            shares.refund(route, terms, most.saturating_sub(taken));
        }
    }
    let next_due = next_due.filter(|_| taking.leases.is_empty());
    leases.append(&mut taking.leases);
    tx.commit().await?;
    let dropped = taking.by_source.into_iter().collect();
    Ok(Leased {
        next_due,
        dropped,
        ended: taking.ended,
        expired: false,
    })
}

/// True if this replica's row still stands. It does until the transaction ends: who removes it has to wait.
async fn is_alive(tx: &Transaction<'_>, replica: i64) -> Result<bool, DatabaseError> {
    let sql = "SELECT FROM replica WHERE id = $1 AND expires_at > now() FOR KEY SHARE";
    Ok(!rows(tx, sql, &[&replica]).await?.is_empty())
}

#[async_trait]
impl Deliver for PostgresInbox {
    async fn claim(&self, terms: Box<dyn Terms>, now: Timestamp) -> Result<ClaimBatch, InboxError> {
        if self.health.is_closed() {
            return Err(InboxError::Closed);
        }
        if terms.room() == 0 || !self.replica_status().good {
            return Ok(ClaimBatch::default());
        }
        match self.lease(terms, now).await? {
            Some(mut dealt) => {
                dealt.leases.hand_over();
                Ok(dealt.claims)
            }
            // The database is away. Said once in the log; whoever claims is told of its return.
            None => {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(200..500))).await;
                Ok(ClaimBatch::default())
            }
        }
    }

    async fn settle(&self, mut settlement: Settlement) -> Result<Settled, InboxError> {
        self.codec.close_settlement(&mut settlement)?;
        let queue = self.queues()?.endings;
        let fence = settlement.fence;
        let ending = Ending::Settled(Box::new(settlement), self.health.was_doubtful(fence));
        let weight =
            QueueWeight::of(ending.bytes(), &self.waiting, usize::MAX).ok_or(InboxError::Closed)?;
        let (item, end) = QueuedWork::new(ending, weight);
        queue.send(item).await.map_err(|_| InboxError::Closed)?;
        drop(queue);
        let settled = end.await.unwrap_or(Err(InboxError::Closed));
        if matches!(settled, Err(InboxError::Engine { .. })) {
            self.health.doubt(fence);
        }
        settled
    }

    async fn work_due(&self) {
        self.health.work_due.notified().await;
    }

    async fn earlier_turn(&self, claimed: &Claimed) -> Result<Option<Turn>, InboxError> {
        let mut found = reading!(self, "find the turn before", |conn| {
            browse::earlier_turn(conn, claimed)
        })?;
        if let Some(turn) = &mut found {
            self.codec.open_turn(turn)?;
        }
        Ok(found)
    }

    async fn ended(&self, id: DeliveryId) -> Result<Option<DeliveryDetail>, InboxError> {
        let waiter = self.health.waiters.wait_for_end(id);
        let mut with: Option<(DeliveryId, Waiter)> = None;
        loop {
            // Made before the look: an end that comes after it is told.
            let told = waiter.ended().map(Notify::notified);
            let with_told = with
                .as_ref()
                .and_then(|(_, waiter)| waiter.ended().map(Notify::notified));
            let leader = match reading!(self, "look for an end", |conn| browse::ended(conn, id))? {
                DeliveryEnd::Nothing => return Ok(None),
                DeliveryEnd::Is(mut detail) => {
                    self.codec.open_delivery(&mut detail);
                    return Ok(Some(*detail));
                }
                DeliveryEnd::NotYet => None,
                DeliveryEnd::With(leader) => Some(leader),
            };
            if leader.is_some() && leader != with.as_ref().map(|(id, _)| *id) {
                drop(with_told);
                with = leader.map(|leader| (leader, self.health.waiters.wait_for_end(leader)));
                continue;
            }
            let told = async {
                match (told, with_told) {
                    (Some(told), None) | (None, Some(told)) => told.await,
                    (Some(own), Some(with)) => {
                        tokio::select! { () = own => {}, () = with => {} }
                    }
                    (None, None) => std::future::pending().await,
                }
            };
            // Whatever went wrong with the telling, nobody waits much longer than is needed.
            let _ = tokio::time::timeout(END_POLL, told).await;
        }
    }
}
