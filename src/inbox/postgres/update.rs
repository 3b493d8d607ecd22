//! Changes of deliveries whose leases end, column by column.

use deadpool_postgres::Transaction;
use tokio_postgres::Row;

use super::database::{change, rows};
use super::ending::Ending;
use super::error::DatabaseError;
use crate::inbox::bounds::{MAX_RESULT, MAX_TASK, MAX_TEXT, cut};
use crate::inbox::transition::{DoubtChange, Transition};
use crate::model::Timestamp;

/// Changes of deliveries, column by column.
#[derive(Default)]
pub(super) struct DeliveryUpdates<'a> {
    pub(super) keys: Vec<i64>,
    pub(super) lanes: Vec<i64>,
    states: Vec<&'static str>,
    tries: Vec<i32>,
    strikes: Vec<i32>,
    keep_doubt: Vec<bool>,
    doubts: Vec<Option<i64>>,
    pub(super) ends: Vec<bool>,
    statuses: Vec<Option<&'a [u8]>>,
    finished: Vec<Option<&'a [u8]>>,
    results: Vec<Option<&'a [u8]>>,
    /// The time when the lane is ready; none: from when it was.
    pub(super) times: Vec<Option<i64>>,
    tasks: (Vec<i64>, Vec<&'a [u8]>),
}

impl<'a> DeliveryUpdates<'a> {
    /// Adds the change of one lease that ends.
    pub(super) fn push(&mut self, ending: &'a Ending, lane: i64) {
        let change = match ending {
            Ending::Untaken { doubt, .. } => Transition::untaken(*doubt),
            Ending::Settled(settlement, _) => {
                Transition::of(&settlement.next, settlement.attempt.ended_at)
            }
        };
        let (keep_doubt, doubt) = match change.doubt {
            DoubtChange::Stays => (true, None),
            DoubtChange::Is(doubt) => (false, doubt),
        };
        let answer = change.answer;
        self.keys.push(ending.key());
        self.lanes.push(lane);
        self.states.push(change.state.as_str());
        self.tries.push(change.attempts.into());
        self.strikes.push(change.strikes.into());
        self.keep_doubt.push(keep_doubt);
        self.doubts.push(doubt.map(Timestamp::millis));
        self.ends.push(change.ends());
        self.statuses
            .push(answer.map(|answer| cut(&answer.status, MAX_TEXT).as_bytes()));
        self.finished.push(
            answer
                .and_then(|answer| answer.finished_at.as_deref())
                .map(|text| cut(text, MAX_TEXT).as_bytes()),
        );
        self.results.push(
            answer
                .and_then(|answer| answer.result.as_deref())
                .map(|text| cut(text, MAX_RESULT).as_bytes()),
        );
        self.times.push(change.ready_at.map(Timestamp::millis));
        if let Some(task) = answer
            .and_then(|answer| answer.task.as_ref())
            .filter(|task| task.len() <= MAX_TASK)
        {
            self.tasks.0.push(ending.key());
            self.tasks.1.push(task);
        }
    }
}

/// Writes the changes. Returns the deliveries, with their states and sources.
pub(super) async fn change_deliveries(
    tx: &Transaction<'_>,
    changes: &DeliveryUpdates<'_>,
) -> Result<Vec<Row>, DatabaseError> {
    rows(
        tx,
        "UPDATE delivery AS d SET
            state = n.state,
            attempts = greatest(d.attempts - n.tries, 0),
            strikes = greatest(d.strikes - n.strikes, 0),
            doubt = CASE WHEN n.keep_doubt THEN d.doubt ELSE n.doubt END,
            answer_status = CASE WHEN n.ends THEN n.status ELSE d.answer_status END,
            answer_finished_at = CASE WHEN n.ends THEN n.finished_at ELSE d.answer_finished_at END,
            answer_result = CASE WHEN n.ends THEN n.result ELSE d.answer_result END
         FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::integer[], $5::integer[], $6::boolean[],
                     $7::bigint[], $8::boolean[], $9::bytea[], $10::bytea[], $11::bytea[])
            AS n (key, lane, state, tries, strikes, keep_doubt, doubt, ends, status, finished_at, result),
            event AS e
         WHERE d.lane = n.lane AND d.key = n.key AND d.state IN ('pending', 'leased') AND e.seq = d.event
         RETURNING e.id, d.number, d.state, e.source",
        &[
            &changes.keys,
            &changes.lanes,
            &changes.states,
            &changes.tries,
            &changes.strikes,
            &changes.keep_doubt,
            &changes.doubts,
            &changes.ends,
            &changes.statuses,
            &changes.finished,
            &changes.results,
        ],
    )
    .await
}

/// Keeps task objects.
pub(super) async fn keep_tasks(
    tx: &Transaction<'_>,
    changes: &DeliveryUpdates<'_>,
) -> Result<(), DatabaseError> {
    let (keys, tasks) = &changes.tasks;
    if !keys.is_empty() {
        let sql =
            "INSERT INTO task (delivery, task) SELECT * FROM unnest($1::bigint[], $2::bytea[])
                   ON CONFLICT (delivery) DO UPDATE SET task = excluded.task";
        change(tx, sql, &[keys, tasks]).await?;
    }
    Ok(())
}
