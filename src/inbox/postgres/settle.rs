//! Ending leases, in batches.
//!
//! The lanes of a batch are locked first, by name alone and in order: a claim or a settlement that is still on its way
//! to disk is so waited for, and what is then read is how things stand.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::{Client, Transaction};
use uuid::Uuid;

use super::database::{Counts, change, rows};
use super::error::DatabaseError;
use super::sweep;
use crate::inbox::{Next, Settled, Settlement, cut};
use crate::model::{Account, DeliveryId, DeliveryState, EventId, Timestamp};

/// How many tries of a delivery are kept.
const TRIES: i64 = 50;

/// How much of an answer is kept.
const MAX_RESULT: usize = 256 << 10;

/// The largest task object that is kept; a larger one is not kept at all, as half of it would be no JSON.
const MAX_TASK: usize = 1 << 20;

/// How much of a shorter text is kept.
pub(super) const MAX_TEXT: usize = 4 << 10;

/// A lease about to end.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// As whoever had it says. True: it was handed in before, and may be on disk.
    Settled(Box<Settlement>, bool),
    /// As if it had not been claimed: nobody saw it. Its lane keeps its place.
    Untaken {
        /// [`Settlement::key`]
        key: i64,
        /// [`Settlement::lane`]
        lane: Uuid,
        /// [`Settlement::fence`]
        fence: i64,
        /// The doubt before the claim.
        doubt: Option<Timestamp>,
    },
}

impl Ending {
    fn key(&self) -> i64 {
        match self {
            Self::Settled(settlement, _) => settlement.key,
            Self::Untaken { key, .. } => *key,
        }
    }

    fn lane(&self) -> Uuid {
        match self {
            Self::Settled(settlement, _) => settlement.lane,
            Self::Untaken { lane, .. } => *lane,
        }
    }

    fn fence(&self) -> i64 {
        match self {
            Self::Settled(settlement, _) => settlement.fence,
            Self::Untaken { fence, .. } => *fence,
        }
    }

    /// About how much is written for it.
    pub(super) fn bytes(&self) -> usize {
        let Self::Settled(settlement, _) = self else {
            return 64;
        };
        let answer = match &settlement.next {
            Next::Delivered(answer) | Next::Dead(Some(answer)) => Some(answer),
            _ => None,
        };
        256 + settlement.attempt.detail.len().min(MAX_TEXT)
            + answer.map_or(0, |answer| {
                let result = answer
                    .result
                    .as_ref()
                    .map_or(0, |text| text.len().min(MAX_RESULT));
                result
                    + answer
                        .task
                        .as_ref()
                        .map_or(0, |task| task.len().min(MAX_TASK))
            })
    }
}

/// Ends those leases of a batch that still hold, in one transaction. Returns what became of each, and the deliveries
/// that came to their end. `again`: the batch was handed in before, and may be on disk.
pub(super) async fn settle(
    conn: &mut Client,
    slot: i32,
    endings: &[&Ending],
    again: bool,
) -> Result<(Vec<Settled>, Vec<DeliveryId>), DatabaseError> {
    let tx = conn.transaction().await?;
    let mut names: Vec<Uuid> = endings.iter().map(|ending| ending.lane()).collect();
    names.sort_unstable();
    names.dedup();
    let mut leases = lock_lanes(&tx, &names).await?;
    let mut settled = Vec::with_capacity(endings.len());
    let mut held: Vec<(&Ending, i64)> = Vec::new();
    let mut stale = Vec::new();
    for (place, &ending) in endings.iter().enumerate() {
        let is_held =
            |lease: &HeldLease| lease.fence == ending.fence() && lease.delivery == ending.key();
        if leases.get(&ending.lane()).is_some_and(is_held) {
            let lease = leases.remove(&ending.lane());
            held.extend(lease.map(|lease| (ending, lease.lane)));
            settled.push(Settled::Done);
        } else {
            settled.push(Settled::Stale);
            if let Ending::Settled(settlement, before) = ending
                && (*before || again)
            {
                stale.push((place, settlement.as_ref()));
            }
        }
    }
    for place in answered_before(&tx, &stale).await? {
        settled[place] = Settled::Done;
    }
    let ended = end(&tx, slot, &held).await?;
    tx.commit().await?;
    Ok((settled, ended))
}

struct HeldLease {
    lane: i64,
    delivery: i64,
    fence: i64,
}

async fn lock_lanes(
    tx: &Transaction<'_>,
    names: &[Uuid],
) -> Result<HashMap<Uuid, HeldLease>, DatabaseError> {
    let found = rows(
        tx,
        "SELECT lane, id, delivery, fence FROM lane WHERE lane = ANY ($1) ORDER BY lane FOR UPDATE",
        &[&names],
    )
    .await?;
    let mut leases = HashMap::with_capacity(found.len());
    for row in found {
        if let Some(delivery) = row.try_get(2)? {
            leases.insert(
                row.try_get(0)?,
                HeldLease {
                    lane: row.try_get(1)?,
                    delivery,
                    fence: row.try_get(3)?,
                },
            );
        }
    }
    Ok(leases)
}

/// Settlements that are on disk already, the same to the time: the commit was made and its answer lost.
async fn answered_before(
    tx: &Transaction<'_>,
    stale: &[(usize, &Settlement)],
) -> Result<Vec<usize>, DatabaseError> {
    if stale.is_empty() {
        return Ok(vec![]);
    }
    let places: Vec<i64> = stale
        .iter()
        .map(|(place, _)| i64::try_from(*place).unwrap_or(0))
        .collect();
    let keys: Vec<i64> = stale.iter().map(|(_, settlement)| settlement.key).collect();
    let fences: Vec<i64> = stale
        .iter()
        .map(|(_, settlement)| settlement.fence)
        .collect();
    let starts: Vec<i64> = stale
        .iter()
        .map(|(_, settlement)| settlement.attempt.started_at.millis())
        .collect();
    let ends: Vec<i64> = stale
        .iter()
        .map(|(_, settlement)| settlement.attempt.ended_at.millis())
        .collect();
    let found = rows(
        tx,
        "SELECT n.place FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
            AS n (place, key, fence, started_at, ended_at)
         WHERE EXISTS (SELECT FROM attempt AS a WHERE a.delivery = n.key AND a.fence = n.fence
                        AND a.started_at = n.started_at AND a.ended_at = n.ended_at)",
        &[&places, &keys, &fences, &starts, &ends],
    )
    .await?;
    found
        .iter()
        .map(|row| Ok(usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0)))
        .collect()
}

/// What becomes of deliveries, column by column.
#[derive(Default)]
struct DeliveryUpdates<'a> {
    keys: Vec<i64>,
    lanes: Vec<i64>,
    states: Vec<&'static str>,
    tries: Vec<i32>,
    strikes: Vec<i32>,
    keep_doubt: Vec<bool>,
    doubts: Vec<Option<i64>>,
    ends: Vec<bool>,
    statuses: Vec<Option<&'a [u8]>>,
    finished: Vec<Option<&'a [u8]>>,
    results: Vec<Option<&'a [u8]>>,
    /// When the lane is ready; none: from when it was.
    times: Vec<Option<i64>>,
    tasks: (Vec<i64>, Vec<&'a [u8]>),
}

impl<'a> DeliveryUpdates<'a> {
    fn push(&mut self, ending: &'a Ending, lane: i64) {
        let (mut tries, mut strikes, mut keep_doubt, mut doubt, mut answer, mut time) =
            (0, 0, false, None, None, None);
        let state = match ending {
            Ending::Untaken { doubt: before, .. } => {
                (tries, strikes, doubt) = (1, 1, *before);
                DeliveryState::Pending
            }
            Ending::Settled(settlement, _) => {
                time = Some(settlement.attempt.ended_at);
                match &settlement.next {
                    Next::Delivered(last) => {
                        answer = Some(last);
                        DeliveryState::Delivered
                    }
                    Next::Dead(last) => {
                        answer = last.as_ref();
                        DeliveryState::Dead
                    }
                    Next::Unknown => {
                        keep_doubt = true;
                        DeliveryState::Unknown
                    }
                    Next::Retry {
                        at,
                        doubt: since,
                        counted,
                    } => {
                        (time, doubt, strikes) = (Some(*at), *since, i32::from(!counted));
                        DeliveryState::Pending
                    }
                    Next::Released { doubt: before } => {
                        (tries, strikes, doubt) = (1, 1, *before);
                        DeliveryState::Pending
                    }
                }
            }
        };
        self.keys.push(ending.key());
        self.lanes.push(lane);
        self.states.push(state.as_str());
        self.tries.push(tries);
        self.strikes.push(strikes);
        self.keep_doubt.push(keep_doubt);
        self.doubts.push(doubt.map(Timestamp::millis));
        self.ends.push(matches!(
            state,
            DeliveryState::Delivered | DeliveryState::Dead
        ));
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
        self.times.push(time.map(Timestamp::millis));
        if let Some(task) = answer
            .and_then(|answer| answer.task.as_ref())
            .filter(|task| task.len() <= MAX_TASK)
        {
            self.tasks.0.push(ending.key());
            self.tasks.1.push(task);
        }
    }
}

/// Ends leases whose lanes are locked. Returns the deliveries that came to their end.
async fn end(
    tx: &Transaction<'_>,
    slot: i32,
    held: &[(&Ending, i64)],
) -> Result<Vec<DeliveryId>, DatabaseError> {
    if held.is_empty() {
        return Ok(vec![]);
    }
    let mut changes = DeliveryUpdates::default();
    for (ending, lane) in held {
        changes.push(ending, *lane);
    }
    let attempts: Vec<&Settlement> = held
        .iter()
        .filter_map(|(ending, _)| match ending {
            Ending::Settled(settlement, _) => Some(settlement.as_ref()),
            Ending::Untaken { .. } => None,
        })
        .collect();
    let gone: Vec<i64> = changes
        .keys
        .iter()
        .zip(&changes.ends)
        .filter_map(|(key, ends)| ends.then_some(*key))
        .collect();
    let mut counts = Counts::default();
    let mut ended = Vec::new();
    let changed = change_deliveries(tx, &changes).await?;
    tokio::try_join!(
        keep_tasks(tx, &changes),
        erase_calls(tx, &gone),
        insert_attempts(tx, &attempts),
        free_lanes(tx, &changes.lanes, &changes.times),
    )?;
    for row in &changed {
        let (word, source): (String, String) = (row.try_get(2)?, row.try_get(3)?);
        let state = DeliveryState::parse(&word)
            .ok_or_else(|| DatabaseError::Engine(format!("{word:?} is no state")))?;
        counts.add(&source, DeliveryState::Leased, -1);
        counts.add(&source, state, 1);
        if state.is_final() {
            ended.push(delivery_id(row, 0, 1)?);
        }
    }
    forget(tx, &attempts, &mut counts).await?;
    counts.write(tx, slot).await?;
    Ok(ended)
}

/// What a stranger sent whose key the upstream refused is nothing to keep: the event goes with all that hangs on it, and
/// its files are nobody's from here on.
async fn forget(
    tx: &Transaction<'_>,
    settlements: &[&Settlement],
    counts: &mut Counts,
) -> Result<(), DatabaseError> {
    let keys: Vec<i64> = settlements
        .iter()
        .filter(|one| one.refuses_key())
        .map(|one| one.key)
        .collect();
    if keys.is_empty() {
        return Ok(());
    }
    let events = "SELECT d.event FROM delivery AS d JOIN route AS r ON r.id = d.route
                  WHERE d.key = ANY ($1) AND r.account = $2";
    let found = rows(tx, events, &[&keys, &Account::Foreign.to_string()]).await?;
    let events: Vec<i64> = found
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    change(
        tx,
        "UPDATE attachment SET expires_at = 0 WHERE event = ANY ($1)",
        &[&events],
    )
    .await?;
    let removed = rows(
        tx,
        "DELETE FROM event WHERE seq = ANY ($1) RETURNING seq, bytes, proofs",
        &[&events],
    )
    .await?;
    sweep::erase(tx, &removed, counts).await.map(drop)
}

async fn change_deliveries(
    tx: &Transaction<'_>,
    changes: &DeliveryUpdates<'_>,
) -> Result<Vec<tokio_postgres::Row>, DatabaseError> {
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

async fn keep_tasks(
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

/// Nobody needs a caller's own call, with its keys, any longer than its delivery lasts.
pub(super) async fn erase_calls(tx: &Transaction<'_>, keys: &[i64]) -> Result<(), DatabaseError> {
    if !keys.is_empty() {
        change(tx, "DELETE FROM sealed WHERE delivery = ANY ($1)", &[&keys]).await?;
    }
    Ok(())
}

/// Keeps tries, and lets the oldest go when there are too many. Tries that are not counted could be endless too.
async fn insert_attempts(
    tx: &Transaction<'_>,
    settlements: &[&Settlement],
) -> Result<(), DatabaseError> {
    if settlements.is_empty() {
        return Ok(());
    }
    let keys: Vec<i64> = settlements.iter().map(|one| one.key).collect();
    let fences: Vec<i64> = settlements.iter().map(|one| one.fence).collect();
    let numbers: Vec<i32> = settlements
        .iter()
        .map(|one| i32::try_from(one.attempt.number).unwrap_or(i32::MAX))
        .collect();
    let begun: Vec<i64> = settlements
        .iter()
        .map(|one| one.attempt.started_at.millis())
        .collect();
    let ended: Vec<i64> = settlements
        .iter()
        .map(|one| one.attempt.ended_at.millis())
        .collect();
    let results: Vec<&[u8]> = settlements
        .iter()
        .map(|one| cut(&one.attempt.result, MAX_TEXT).as_bytes())
        .collect();
    let statuses: Vec<Option<i32>> = settlements
        .iter()
        .map(|one| one.attempt.status.map(i32::from))
        .collect();
    let details: Vec<&[u8]> = settlements
        .iter()
        .map(|one| cut(&one.attempt.detail, MAX_TEXT).as_bytes())
        .collect();
    change(
        tx,
        "INSERT INTO attempt (delivery, fence, number, started_at, ended_at, result, status, detail)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::bigint[], $5::bigint[], $6::bytea[],
                              $7::integer[], $8::bytea[])",
        &[&keys, &fences, &numbers, &begun, &ended, &results, &statuses, &details],
    )
    .await?;
    let many: HashSet<i64> = settlements
        .iter()
        .filter(|one| {
            matches!(one.next, Next::Released { .. }) || i64::from(one.attempt.number) > TRIES
        })
        .map(|one| one.key)
        .collect();
    if !many.is_empty() {
        prune_attempts(tx, &many.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// Lets the oldest tries of deliveries go.
pub(super) async fn prune_attempts(
    tx: &Transaction<'_>,
    keys: &[i64],
) -> Result<(), DatabaseError> {
    change(
        tx,
        "DELETE FROM attempt AS a USING unnest($1::bigint[]) AS n (key)
         WHERE a.delivery = n.key AND a.id + 0 <=
            (SELECT o.id FROM attempt AS o WHERE o.delivery = n.key ORDER BY o.id + 0 DESC LIMIT 1 OFFSET $2)",
        &[&keys, &TRIES],
    )
    .await
    .map(|_| ())
}

/// Lets the lanes' next deliveries come, from a time on or from when they were due before; a lane without one goes.
/// Read anew, after what this transaction did to its deliveries.
pub(super) async fn free_lanes(
    tx: &Transaction<'_>,
    lanes: &[i64],
    times: &[Option<i64>],
) -> Result<(), DatabaseError> {
    change(
        tx,
        "WITH n AS MATERIALIZED (
            SELECT n.id, n.ready_at, (SELECT d.route FROM delivery AS d WHERE d.lane = n.id AND d.state = 'pending'
                                      ORDER BY d.key LIMIT 1) AS route
            FROM unnest($1::bigint[], $2::bigint[]) AS n (id, ready_at)
         ), gone AS (
            DELETE FROM lane AS l USING n WHERE l.id = n.id AND n.route IS NULL
         )
         UPDATE lane AS l SET delivery = NULL, owner = NULL, ready_at = coalesce(n.ready_at, l.ready_at),
                              route = n.route
         FROM n WHERE l.id = n.id AND n.route IS NOT NULL",
        &[&lanes, &times],
    )
    .await
    .map(|_| ())
}

/// A delivery's name from two columns.
pub(super) fn delivery_id(
    row: &tokio_postgres::Row,
    event: usize,
    number: usize,
) -> Result<DeliveryId, DatabaseError> {
    let (event, number): (Uuid, i32) = (row.try_get(event)?, row.try_get(number)?);
    Ok(DeliveryId {
        event: EventId::from_bytes(event.into_bytes()),
        number: u32::try_from(number).unwrap_or_default(),
    })
}
