//! Plan of a claim: the deliveries that it leases, and those that go nowhere or with another.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::Transaction;

use super::database::{Counts, change, rows};
use super::error::DatabaseError;
use super::lane::{LaneHead, free_lanes};
use super::lease::Lease;
use super::overlap::{Favoured, LaneRun, PassedOver, favour, pass};
use crate::inbox::Terms;
use crate::inbox::bounds::CLAIM_BYTES;
use crate::inbox::overlap::{Decision, decide, is_queue};
use crate::model::{DeliveryId, DeliveryState, Route, Timestamp};

/// The plan of a claim.
#[derive(Default)]
pub(super) struct ClaimPlan {
    pub(super) leases: Vec<Lease>,
    lanes: Vec<i64>,
    pub(super) took: BTreeMap<Route, usize>,
    bytes: i64,
    /// Lanes whose first delivery is another than was thought, or none.
    stirred: Vec<i64>,
    /// Deliveries that go nowhere or with another, and with which.
    passed: Vec<PassedOver>,
    /// Deliveries that were dropped in favour of another.
    favoured: Vec<Favoured>,
    pub(super) by_source: BTreeMap<String, u64>,
    merged: BTreeMap<String, i64>,
    pub(super) ended: Vec<DeliveryId>,
}

/// A delivery that is about to be leased.
struct NextUp {
    key: i64,
    event: i64,
    bytes: i64,
    attempts: u32,
    strikes: u32,
    doubt: Option<Timestamp>,
    grouped: bool,
    dropped: i32,
}

impl ClaimPlan {
    /// Decides over one lane.
    pub(super) async fn consider(
        &mut self,
        tx: &Transaction<'_>,
        head: &LaneHead,
        terms: &mut dyn Terms,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        // A lane without work should not be there, and does no harm when it is gone.
        let Some(first) = head
            .first
            .as_ref()
            .filter(|first| first.route == head.number)
        else {
            self.stirred.push(head.lane);
            return Ok(());
        };
        if usize::try_from(self.bytes).is_ok_and(|bytes| bytes >= CLAIM_BYTES) {
            return Ok(());
        }
        let overlap = terms.overlap(&head.route.source);
        let is_next = is_queue(&overlap) && overlap.age.is_none();
        // What may have been sent is finished first, as it is; a group stays as it was decided.
        if is_next || first.attempts > 0 || first.fixed || first.leads {
            let next = NextUp {
                key: first.key,
                event: first.event,
                bytes: first.bytes,
                attempts: first.attempts,
                strikes: first.strikes,
                doubt: first.doubt,
                grouped: first.leads,
                dropped: first.dropped,
            };
            self.lease(head, &next, now);
            return Ok(());
        }
        let run = LaneRun::read(tx, head, overlap).await?;
        let decision = decide(overlap, &run.look(), now);
        if let Some(next) = self.pass_over(head, first.key, &run, &decision) {
            self.lease(head, &next, now);
        }
        Ok(())
    }

    /// Notes what a decision ends. Returns the delivery that goes.
    fn pass_over(
        &mut self,
        head: &LaneHead,
        first: i64,
        run: &LaneRun,
        decision: &Decision,
    ) -> Option<NextUp> {
        let leader = decision.leader.map(|place| run.rows[place]);
        for (places, state) in [
            (&decision.dropped, DeliveryState::Dropped),
            (&decision.merged, DeliveryState::Merged),
        ] {
            self.passed.extend(places.iter().map(|place| PassedOver {
                lane: head.lane,
                key: run.rows[*place].key,
                leader: leader.map(|leader| leader.key),
                state,
            }));
        }
        if !decision.dropped.is_empty() {
            *self.by_source.entry(head.route.source.clone()).or_default() +=
                decision.dropped.len() as u64;
        }
        if !decision.merged.is_empty() {
            let merged = i64::try_from(decision.merged.len()).unwrap_or(i64::MAX);
            *self.merged.entry(head.route.source.clone()).or_default() += merged;
        }
        // The delivery that goes speaks for those that were dropped, also for those of whom one of these was to speak.
        let inherited = decision
            .dropped
            .iter()
            .chain(&decision.merged)
            .fold(0_i32, |sum, place| {
                sum.saturating_add(run.rows[*place].dropped)
            });
        let dropped =
            inherited.saturating_add(i32::try_from(decision.dropped.len()).unwrap_or(i32::MAX));
        let speaker = leader.map_or(first, |leader| leader.key);
        if dropped > 0 {
            self.favoured.push(Favoured {
                lane: head.lane,
                after: speaker - 1,
                count: dropped,
            });
        }
        let Some(leader) = leader else {
            // The deliveries behind these are looked at by the next claim, which has to know how many these were.
            self.stirred.push(head.lane);
            return None;
        };
        let along = decision.merged.iter().map(|place| run.rows[*place].bytes);
        Some(NextUp {
            key: leader.key,
            event: leader.event,
            bytes: along.fold(leader.bytes, i64::saturating_add),
            attempts: 0,
            strikes: 0,
            doubt: None,
            grouped: !decision.merged.is_empty(),
            dropped: leader.dropped.saturating_add(dropped),
        })
    }

    fn lease(&mut self, head: &LaneHead, next: &NextUp, now: Timestamp) {
        self.bytes = self.bytes.saturating_add(next.bytes);
        *self.took.entry(head.route.clone()).or_default() += 1;
        self.lanes.push(head.lane);
        self.leases.push(Lease {
            key: next.key,
            event: next.event,
            lane: head.name,
            fence: 0,
            attempt: next.attempts.saturating_add(1),
            strikes: next.strikes.saturating_add(1),
            doubt: next.doubt,
            at: now,
            grouped: next.grouped,
            dropped: u32::try_from(next.dropped).unwrap_or_default(),
        });
    }

    /// Writes the plan.
    pub(super) async fn take(
        &mut self,
        tx: &Transaction<'_>,
        slot: i32,
        replica: i64,
        terms: &mut dyn Terms,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        let mut counts = Counts::default();
        if !self.passed.is_empty() {
            self.ended = pass(tx, &self.passed).await?;
            favour(tx, &self.favoured).await?;
            for (source, dropped) in &self.by_source {
                let by = i64::try_from(*dropped).unwrap_or(i64::MAX);
                counts.add(source, DeliveryState::Pending, -by);
                counts.add(source, DeliveryState::Dropped, by);
            }
            for (source, by) in &self.merged {
                counts.add(source, DeliveryState::Pending, -by);
                counts.add(source, DeliveryState::Merged, *by);
            }
        }
        if !self.stirred.is_empty() {
            free_lanes(tx, &self.stirred, &vec![None; self.stirred.len()]).await?;
        }
        if !self.leases.is_empty() {
            let keys: Vec<i64> = self.leases.iter().map(|lease| lease.key).collect();
            let (fences, ()) = tokio::try_join!(
                lease_lanes(tx, &self.lanes, &keys, replica),
                lease_deliveries(tx, &self.lanes, &keys, now),
            )?;
            for (lease, lane) in self.leases.iter_mut().zip(&self.lanes) {
                lease.fence = fences.get(lane).copied().ok_or_else(|| {
                    DatabaseError::Engine("a lane that was locked is gone".into())
                })?;
            }
        }
        for (route, count) in &self.took {
            terms.took(route, *count);
            let by = i64::try_from(*count).unwrap_or(i64::MAX);
            counts.add(&route.source, DeliveryState::Pending, -by);
            counts.add(&route.source, DeliveryState::Leased, by);
        }
        counts.write(tx, slot).await
    }
}

/// Notes leases with their lanes. Returns their numbers.
async fn lease_lanes(
    tx: &Transaction<'_>,
    lanes: &[i64],
    keys: &[i64],
    replica: i64,
) -> Result<HashMap<i64, i64>, DatabaseError> {
    let found = rows(
        tx,
        "UPDATE lane AS l SET delivery = n.key, owner = $3, fence = nextval('fence')
         FROM unnest($1::bigint[], $2::bigint[]) AS n (lane, key) WHERE l.id = n.lane RETURNING l.id, l.fence",
        &[&lanes, &keys, &replica],
    )
    .await?;
    found
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// Counts the tries, and notes the doubt.
async fn lease_deliveries(
    tx: &Transaction<'_>,
    lanes: &[i64],
    keys: &[i64],
    now: Timestamp,
) -> Result<(), DatabaseError> {
    change(
        tx,
        "UPDATE delivery AS d SET state = 'leased', attempts = d.attempts + 1, strikes = d.strikes + 1,
                                  doubt = coalesce(d.doubt, $3)
         FROM unnest($1::bigint[], $2::bigint[]) AS n (lane, key)
         WHERE d.lane = n.lane AND d.key = n.key AND d.state IN ('pending', 'leased')",
        &[&lanes, &keys, &now.millis()],
    )
    .await
    .map(|_| ())
}
