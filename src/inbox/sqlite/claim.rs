//! Leasing what is due.
//!
//! The writer leases: narrow rows, a few statements a lane, the same cost however much waits. It looks at the routes
//! that have lanes, some of each rank (`fair.rs`), deals its places to them, and goes in each through the lanes that
//! are due longest; a route that is closed costs one look. What goes with a lease, body and all, is read after the
//! commit by a reader. On the way between the two nothing may get lost: a lease that nobody took, because the caller
//! gave up waiting or the reading failed, goes back to the writer by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;
use uuid::Uuid;

use super::lane::{LaneHead, head};
use super::returned::{Lease, Leases};
use super::routes::{DueRoutes, open_routes};
use super::transaction::Transaction;
use super::{SqliteInbox, browse, fill, overlap, settle};
use crate::inbox::bounds::{CLAIM_LEASES, END_POLL};
use crate::inbox::fair::Shares;
use crate::inbox::{
    ClaimBatch, Claimed, Deliver, DeliveryDetail, InboxError, Settled, Settlement, Terms, Turn,
};
use crate::model::{DeliveryId, DeliveryState, Route, Timestamp};

/// Times in one claim that the first delivery of a lane may turn out to go nowhere.
const HEADS: usize = 16;

/// After how many deliveries that waited behind others a claim ends with what it has; it would hold up the writer.
const WAITING: usize = 10_000;

/// The result of a claim.
#[derive(Debug, Default)]
pub(super) struct Leased {
    /// The leases.
    pub(super) leases: Vec<Lease>,
    /// The time when the next lane of an open route is due; said when there is no lease.
    pub(super) next_due: Option<Timestamp>,
    /// Deliveries that were dropped, by source.
    pub(super) dropped: BTreeMap<String, u64>,
    /// Deliveries that waited that were looked at.
    looked: usize,
}

/// Leases what is due, on these terms.
pub(super) fn lease(
    tx: &mut Transaction<'_>,
    terms: &mut dyn Terms,
    shares: &mut Shares,
    now: Timestamp,
) -> rusqlite::Result<Leased> {
    terms.begin();
    let mut claim = Leased::default();
    let mut room = terms.room().min(CLAIM_LEASES);
    if room == 0 {
        return Ok(claim);
    }
    let DueRoutes { mut open, next_due } = open_routes(tx, terms, shares, now)?;
    let any_open = !open.is_empty();
    let mut leased: Vec<(Route, usize)> = Vec::new();
    // What one has no use for is dealt again to the others.
    while room > 0 && !open.is_empty() {
        let dealt = shares.deal(&open, terms, room);
        let mut satisfied = Vec::with_capacity(open.len());
        for ((id, route), wanted) in open.iter().zip(dealt) {
            let before = claim.leases.len();
            lease_of(tx, *id, wanted, terms, now, &mut claim)?;
            let taken = claim.leases.len() - before;
            satisfied.push(wanted > 0 && taken == wanted);
            if taken < wanted {
                shares.refund(route, terms, wanted - taken);
            }
            if taken > 0 {
                leased.push((route.clone(), taken));
                room -= taken;
            }
        }
        let mut satisfied = satisfied.into_iter();
        open.retain(|_| satisfied.next().unwrap_or(false));
        // The terms go by what was taken, not by what was dealt.
        terms.begin();
        for (route, taken) in &leased {
            terms.took(route, *taken);
        }
    }
    if claim.leases.is_empty() {
        claim.next_due = next_due;
        if !claim.dropped.is_empty() || any_open {
            // What was dropped may have had something behind it.
            claim.next_due = Some(now);
        }
    }
    Ok(claim)
}

/// Leases up to `wanted` of a route's lanes.
fn lease_of(
    tx: &mut Transaction<'_>,
    route: i64,
    wanted: usize,
    terms: &dyn Terms,
    now: Timestamp,
    claim: &mut Leased,
) -> rusqlite::Result<()> {
    if wanted == 0 {
        return Ok(());
    }
    let due: Vec<(i64, Uuid)> = tx
        .conn
        .prepare_cached(
            "SELECT id, lane FROM lane INDEXED BY lane_ready WHERE delivery IS NULL AND route = ?1 AND ready_at <= ?2
             ORDER BY ready_at, id LIMIT ?3",
        )?
        .query_map((route, now.millis(), i64::try_from(wanted).unwrap_or(i64::MAX)), |row| {
            Ok((row.get(0)?, Uuid::from_bytes(row.get(1)?)))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (number, lane) in due {
        if claim.looked >= WAITING {
            break;
        }
        let Some(head) = first(tx, number, route, terms, now, claim)? else {
            continue;
        };
        let (attempt, strikes) = (
            head.attempts.saturating_add(1),
            head.strikes.saturating_add(1),
        );
        let fence = head.fence + 1;
        tx.conn
            .prepare_cached(
                "UPDATE delivery SET state = 'leased', attempts = ?2, strikes = ?3, doubt = coalesce(doubt, ?4),
                        fence = ?5 WHERE key = ?1",
            )?
            .execute((head.key, attempt, strikes, now.millis(), fence))?;
        tx.conn
            .prepare_cached("UPDATE lane SET delivery = ?2 WHERE id = ?1")?
            .execute((number, head.key))?;
        tx.count(&head.source, DeliveryState::Pending, -1);
        tx.count(&head.source, DeliveryState::Leased, 1);
        let LaneHead {
            key, event, doubt, ..
        } = head;
        claim.leases.push(Lease {
            key,
            event,
            lane,
            fence,
            attempt,
            strikes,
            doubt,
            at: now,
        });
    }
    Ok(())
}

/// The delivery that a lane is to send next, after what became of those that waited before it. None: it has none now,
/// or one of another route.
fn first(
    tx: &mut Transaction<'_>,
    lane: i64,
    route: i64,
    terms: &dyn Terms,
    now: Timestamp,
    claim: &mut Leased,
) -> rusqlite::Result<Option<LaneHead>> {
    for _ in 0..HEADS {
        let Some(head) = head(tx, lane)? else {
            // A lane whose last delivery was dropped, or one without work, which does no harm when it is gone.
            tx.conn
                .prepare_cached("DELETE FROM lane WHERE id = ?1")?
                .execute([lane])?;
            return Ok(None);
        };
        if head.route != route {
            tx.conn
                .prepare_cached("UPDATE lane SET route = ?2 WHERE id = ?1")?
                .execute((lane, head.route))?;
            tx.work_due();
            return Ok(None);
        }
        // What may have been sent is finished first, as it is.
        if head.attempts > 0 || head.fixed {
            return Ok(Some(head));
        }
        let overlap = terms.overlap(&head.source);
        let source = head.source.clone();
        let (first, dropped) = overlap::apply(tx, lane, head, overlap, now, &mut claim.looked)?;
        if dropped > 0 {
            *claim.dropped.entry(source).or_default() += dropped;
        }
        if first.is_some() {
            return Ok(first);
        }
    }
    Ok(None)
}

#[async_trait]
impl Deliver for SqliteInbox {
    async fn claim(&self, terms: Box<dyn Terms>, now: Timestamp) -> Result<ClaimBatch, InboxError> {
        let returned = self.returned.clone();
        let shares = Arc::clone(&self.shares);
        let mut terms = terms;
        let (leases, next_due, dropped) = self
            .write_and_wrap(
                "claim",
                move |tx| lease(tx, &mut *terms, &mut shares.lock(), now),
                move |found| {
                    (
                        Leases::new(found.leases, returned),
                        found.next_due,
                        found.dropped,
                    )
                },
            )
            .await?;
        let claims = ClaimBatch {
            claimed: Vec::new(),
            next_due,
            dropped: dropped.into_iter().collect(),
        };
        if leases.is_empty() {
            return Ok(claims);
        }
        let codec = self.codec.clone();
        let (claimed, dealt, mut leases) = self
            .readers
            .ask("read what was claimed", move |conn| {
                fill::fill(conn, &leases, &codec).map(|(claimed, dealt)| (claimed, dealt, leases))
            })
            .await?;
        leases.hand_over(dealt);
        Ok(ClaimBatch { claimed, ..claims })
    }

    async fn settle(&self, mut settlement: Settlement) -> Result<Settled, InboxError> {
        self.codec.close_settlement(&mut settlement)?;
        let codec = self.codec.clone();
        self.write("settle", move |tx| settle::settle(tx, &codec, &settlement))
            .await
    }

    async fn work_due(&self) {
        self.health.work_due.notified().await;
    }

    async fn earlier_turn(&self, claimed: &Claimed) -> Result<Option<Turn>, InboxError> {
        let key = claimed.clone();
        let mut found = self
            .readers
            .ask("find the turn before", move |conn| {
                browse::earlier_turn(conn, &key)
            })
            .await?;
        if let Some(turn) = &mut found {
            self.codec.open_turn(turn)?;
        }
        Ok(found)
    }

    async fn ended(&self, id: DeliveryId) -> Result<Option<DeliveryDetail>, InboxError> {
        let waiter = self.health.waiters.wait_for_end(id);
        loop {
            // Made before the look: an end that comes after it is told.
            let told = waiter.ended().map(Notify::notified);
            match self
                .readers
                .ask("look for an end", move |conn| browse::ended(conn, id))
                .await?
            {
                None => return Ok(None),
                Some(Some(mut detail)) => {
                    self.codec.open_delivery(&mut detail);
                    return Ok(Some(detail));
                }
                Some(None) => {}
            }
            let told = async {
                match told {
                    Some(told) => told.await,
                    None => std::future::pending().await,
                }
            };
            // Whatever went wrong with the telling, nobody waits much longer than is needed.
            let _ = tokio::time::timeout(END_POLL, told).await;
        }
    }
}
