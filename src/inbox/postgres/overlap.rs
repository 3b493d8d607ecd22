//! Overlap policy applied to a lane: the turns that wait behind its first one are read, decided over
//! ([`crate::inbox::overlap`]), and ended where they go nowhere or with another.

use deadpool_postgres::Transaction;

use super::database::{change, rows};
use super::error::DatabaseError;
use super::lane::LaneHead;
use super::row::delivery_id;
use crate::inbox::bounds::WAITING_TURNS;
use crate::inbox::overlap::{LaneView, WaitingTurn};
use crate::model::{DeliveryId, DeliveryState, Overlap, Timestamp};

/// A delivery that goes nowhere or with another.
pub(super) struct PassedOver {
    /// The number of its lane.
    pub(super) lane: i64,
    /// Its number.
    pub(super) key: i64,
    /// The delivery that it goes with, or in whose favour it is dropped.
    pub(super) leader: Option<i64>,
    /// Its state from now on.
    pub(super) state: DeliveryState,
}

/// Deliveries that were dropped in favour of another, which is to know their number.
pub(super) struct Favoured {
    /// The number of the lane.
    pub(super) lane: i64,
    /// The other is the first one that waits in the lane behind this number.
    pub(super) after: i64,
    /// Number of deliveries that were dropped.
    pub(super) count: i32,
}

/// Deliveries of one lane that belong together and were never tried, oldest first.
pub(super) struct LaneRun {
    /// The deliveries, as the policy sees them.
    turns: Vec<WaitingTurn>,
    /// Their rows, in the same order.
    pub(super) rows: Vec<RunRow>,
    whole: bool,
}

/// Row of a delivery in a run.
#[derive(Clone, Copy)]
pub(super) struct RunRow {
    /// Its number.
    pub(super) key: i64,
    /// The number of its event.
    pub(super) event: i64,
    /// The size of its event.
    pub(super) bytes: i64,
    /// Number of deliveries that were dropped in its favour before.
    pub(super) dropped: i32,
}

impl LaneRun {
    /// Reads the first deliveries of a lane, as far as they belong to the first one.
    pub(super) async fn read(
        tx: &Transaction<'_>,
        head: &LaneHead,
        overlap: Overlap,
    ) -> Result<Self, DatabaseError> {
        let most = i64::try_from(WAITING_TURNS).unwrap_or(i64::MAX)
            + i64::from(overlap.depth.unwrap_or(0).min(100_000));
        let found = rows(
            tx,
            "SELECT d.key, d.event, d.route, d.attempts, d.sealed OR d.answers IS NOT NULL, d.dropped, e.received_at, e.bytes
             FROM (SELECT d.* FROM delivery AS d WHERE d.lane = $1 AND d.state = 'pending' ORDER BY d.key LIMIT $2) AS d
                JOIN event AS e ON e.seq = d.event ORDER BY d.key",
            &[&head.lane, &most],
        )
        .await?;
        let mut run = Self {
            turns: Vec::with_capacity(found.len()),
            rows: Vec::with_capacity(found.len()),
            whole: i64::try_from(found.len()).is_ok_and(|count| count < most),
        };
        for row in found {
            let belongs =
                row.try_get::<_, i32>(2)? == head.number && row.try_get::<_, i32>(3)? == 0;
            if !belongs || row.try_get::<_, bool>(4)? {
                run.whole = true;
                break;
            }
            let bytes = row.try_get(7)?;
            run.rows.push(RunRow {
                key: row.try_get(0)?,
                event: row.try_get(1)?,
                bytes,
                dropped: row.try_get(5)?,
            });
            run.turns.push(WaitingTurn {
                received_at: Timestamp::from_millis(row.try_get(6)?),
                bytes: u64::try_from(bytes).unwrap_or(0),
            });
        }
        Ok(run)
    }

    /// The run as the policy looks at it.
    pub(super) fn look(&self) -> LaneView<'_> {
        LaneView {
            turns: &self.turns,
            in_all: self.turns.len(),
            counted_all: self.whole,
        }
    }
}

/// Writes what goes nowhere or with another. Returns all of it.
pub(super) async fn pass(
    tx: &Transaction<'_>,
    passed: &[PassedOver],
) -> Result<Vec<DeliveryId>, DatabaseError> {
    let lanes: Vec<i64> = passed.iter().map(|one| one.lane).collect();
    let keys: Vec<i64> = passed.iter().map(|one| one.key).collect();
    let leaders: Vec<Option<i64>> = passed.iter().map(|one| one.leader).collect();
    let states: Vec<&str> = passed.iter().map(|one| one.state.as_str()).collect();
    let found = rows(
        tx,
        "UPDATE delivery AS d SET state = n.state, leader = n.leader
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS n (lane, key, leader, state), event AS e
         WHERE d.lane = n.lane AND d.key = n.key AND d.state IN ('pending', 'leased') AND e.seq = d.event
         RETURNING e.id, d.number",
        &[&lanes, &keys, &leaders, &states],
    )
    .await?;
    // Those that go with another have not ended; whoever waits for them is to wait for that one.
    found.iter().map(|row| delivery_id(row, 0, 1)).collect()
}

/// Notes how many were dropped, with the first delivery behind a number.
pub(super) async fn favour(
    tx: &Transaction<'_>,
    favoured: &[Favoured],
) -> Result<(), DatabaseError> {
    if favoured.is_empty() {
        return Ok(());
    }
    let lanes: Vec<i64> = favoured.iter().map(|one| one.lane).collect();
    let keys: Vec<i64> = favoured.iter().map(|one| one.after).collect();
    let counts: Vec<i32> = favoured.iter().map(|one| one.count).collect();
    change(
        tx,
        "WITH n AS MATERIALIZED (
            SELECT n.lane, n.count, (SELECT d.key FROM delivery AS d WHERE d.lane = n.lane AND d.state = 'pending'
                                        AND d.key > n.after ORDER BY d.key LIMIT 1) AS key
            FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS n (lane, after, count)
         )
         UPDATE delivery AS d SET dropped = d.dropped + n.count
         FROM n WHERE d.lane = n.lane AND d.key = n.key AND d.state IN ('pending', 'leased')",
        &[&lanes, &keys, &counts],
    )
    .await
    .map(|_| ())
}
