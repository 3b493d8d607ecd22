//! Ending leases, in batches.
//!
//! The lanes of a batch are locked first, by name alone and in order: a claim or a settlement that is still on its way
//! to disk is so waited for, and what is then read is how things stand.

use std::collections::HashMap;

use deadpool_postgres::{Client, Transaction};
use uuid::Uuid;

use super::attempt::insert_attempts;
use super::database::{Counts, change, rows};
use super::ending::Ending;
use super::error::DatabaseError;
use super::lane::free_lanes;
use super::owe::{owe_answers, write_payloads};
use super::row::delivery_id;
use super::sweep;
use super::update::{DeliveryUpdates, change_deliveries, keep_tasks};
use crate::inbox::codec::Codec;
use crate::inbox::{Settled, Settlement};
use crate::model::{Account, DeliveryId, DeliveryState};

/// Ends those leases of a batch that still hold, in one transaction. Returns what became of each, and the deliveries
/// that came to their end. `again`: the batch was handed in before, and may be on disk.
pub(super) async fn settle(
    conn: &mut Client,
    slot: i32,
    endings: &[&Ending],
    codec: &Codec,
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
    let ended = end(&tx, slot, codec, &held).await?;
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

/// Ends leases whose lanes are locked. Returns the deliveries that came to their end.
async fn end(
    tx: &Transaction<'_>,
    slot: i32,
    codec: &Codec,
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
    // Before the lanes are freed: a delivery that is owed may be the next one of such a lane.
    owe_answers(tx, &mut counts, codec, &attempts).await?;
    write_payloads(tx, codec, &attempts).await?;
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

/// Removes an event of a stranger whose key the upstream refused: it goes with all that hangs on it, and
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

/// Nobody needs a caller's own call, with its keys, any longer than its delivery lasts.
pub(super) async fn erase_calls(tx: &Transaction<'_>, keys: &[i64]) -> Result<(), DatabaseError> {
    if !keys.is_empty() {
        change(tx, "DELETE FROM sealed WHERE delivery = ANY ($1)", &[&keys]).await?;
    }
    Ok(())
}
