//! What operators do: settling by hand, holding, and jobs in bulk.

use rusqlite::{OptionalExtension, Row};

use super::accept;
use super::query;
use super::settle;
use super::writer::Transaction;
use crate::inbox::{Job, JobState, JobStep, NewJob, Pause, Replayed, Resolution};
use crate::model::{Attempt, DeliveryId, DeliveryState, Destination, Timestamp};

/// How many jobs are told of.
const JOBS: i64 = 100;

const JOB: &str = "id, filter, state, total, done, skipped, pace, cursor, started_at, changed_at";

/// Settles what nobody could tell. False: it is not there, or is settled.
pub(super) fn resolve(
    tx: &mut Transaction<'_>,
    id: DeliveryId,
    how: Resolution,
    note: &str,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let found = tx
        .conn
        .prepare_cached(
            "SELECT d.key, d.destination, d.upstream_id, d.route, d.attempts, e.source, r.account
             FROM event AS e JOIN delivery AS d ON d.event = e.seq LEFT JOIN route AS r ON r.id = d.route
             WHERE e.id = ?1 AND d.number = ?2 AND d.state = 'unknown'",
        )?
        .query_row((id.event.as_bytes(), id.number), |row| {
            let names = (row.get::<_, String>(1)?, row.get::<_, String>(2)?);
            let of = (row.get::<_, i64>(3)?, query::account(row, 6)?);
            Ok((row.get::<_, i64>(0)?, names, of, row.get::<_, u32>(4)?, row.get::<_, String>(5)?))
        })
        .optional()?;
    let Some((key, (destination, upstream_id), (route, account), attempts, source)) = found else {
        return Ok(false);
    };
    let state = match how {
        Resolution::Delivered => DeliveryState::Delivered,
        Resolution::Dead => DeliveryState::Dead,
        Resolution::Again => DeliveryState::Pending,
    };
    if how == Resolution::Again {
        let Ok(to) = destination.parse::<Destination>() else {
            return Ok(false);
        };
        let lane = accept::lane(tx, to.lane(&account, &upstream_id), route, now)?;
        tx.conn
            .prepare_cached(
                "UPDATE delivery SET state = 'pending', doubt = NULL, strikes = 0, lane = ?2 WHERE key = ?1",
            )?
            .execute((key, lane))?;
        // Its number is an old one, so it may be its lane's first now, and does not wait for what the one behind it
        // waits for. A lane under lease is seen to when that ends.
        if settle::next_pending(tx, lane)?.is_some_and(|(first, _)| first == key) {
            tx.conn
                .prepare_cached(
                    "UPDATE lane SET route = ?2, ready_at = min(ready_at, ?3)
                     WHERE id = ?1 AND delivery IS NULL",
                )?
                .execute((lane, route, now.millis()))?;
        }
        tx.news();
    } else {
        tx.conn
            .prepare_cached("UPDATE delivery SET state = ?2, doubt = NULL WHERE key = ?1")?
            .execute((key, state.as_str()))?;
        settle::erase_call(tx, key)?;
        tx.ended(id);
        for merged in settle::merged(tx, key)? {
            tx.ended(merged);
        }
    }
    let attempt = Attempt {
        number: attempts,
        started_at: now,
        ended_at: now,
        result: "by_hand".into(),
        status: None,
        detail: note.to_owned(),
    };
    settle::insert_attempt(tx, key, &attempt, true)?;
    tx.count(&source, DeliveryState::Unknown, -1);
    tx.count(&source, state, 1);
    Ok(true)
}

/// Holds, or lets go. False: it was so already.
pub(super) fn hold(
    tx: &mut Transaction<'_>,
    what: &Pause,
    on: bool,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let (kind, name) = match what {
        Pause::All => ("all", String::new()),
        Pause::Source(name) => ("source", name.clone()),
        Pause::Destination(destination) => ("destination", destination.to_string()),
    };
    let rows = if on {
        tx.conn
            .prepare_cached(
                "INSERT INTO hold (kind, name, since) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?
            .execute((kind, name, now.millis()))?
    } else {
        tx.conn
            .prepare_cached("DELETE FROM hold WHERE kind = ?1 AND name = ?2")?
            .execute((kind, name))?
    };
    tx.news();
    Ok(rows == 1)
}

/// What is held, and since when.
pub(super) fn holds(conn: &rusqlite::Connection) -> rusqlite::Result<Vec<(Pause, Timestamp)>> {
    let mut statement =
        conn.prepare_cached("SELECT kind, name, since FROM hold ORDER BY kind, name")?;
    let mut rows = statement.query([])?;
    let mut holds = Vec::new();
    while let Some(row) = rows.next()? {
        let (kind, name) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
        let what = match kind.as_str() {
            "all" => Some(Pause::All),
            "source" => Some(Pause::Source(name)),
            _ => name.parse().ok().map(Pause::Destination),
        };
        holds.extend(
            what.map(|what| (what, Timestamp::from_millis(row.get(2).unwrap_or_default()))),
        );
    }
    Ok(holds)
}

/// Keeps a job. Those that ended long ago go.
pub(super) fn begin_job(
    tx: &Transaction<'_>,
    job: &NewJob,
    now: Timestamp,
) -> rusqlite::Result<Job> {
    tx.conn
        .prepare_cached(
            "DELETE FROM job WHERE state IN ('done', 'cancelled')
                AND id <= (SELECT id FROM job ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        )?
        .execute([JOBS])?;
    tx.conn
        .prepare_cached(&format!(
            "INSERT INTO job (filter, state, total, pace, started_at, changed_at)
             VALUES (?1, 'running', ?2, ?3, ?4, ?4) RETURNING {JOB}"
        ))?
        .query_row(
            (
                &job.filter,
                i64::try_from(job.total).unwrap_or(i64::MAX),
                job.pace,
                now.millis(),
            ),
            read_job,
        )
}

/// The last jobs, newest first.
pub(super) fn jobs(conn: &rusqlite::Connection) -> rusqlite::Result<Vec<Job>> {
    conn.prepare_cached(&format!(
        "SELECT {JOB} FROM job ORDER BY id DESC LIMIT {JOBS}"
    ))?
    .query_map([], read_job)?
    .collect()
}

/// Changes a job's state and pace. None: there is no such job.
pub(super) fn steer_job(
    tx: &mut Transaction<'_>,
    id: i64,
    state: Option<JobState>,
    pace: Option<u32>,
    now: Timestamp,
) -> rusqlite::Result<Option<Job>> {
    tx.conn
        .prepare_cached(
            "UPDATE job SET state = coalesce(?2, state), pace = coalesce(?3, pace), changed_at = ?4
             WHERE id = ?1 AND state NOT IN ('done', 'cancelled')",
        )?
        .execute((id, state.map(JobState::as_str), pace, now.millis()))?;
    tx.news();
    tx.conn
        .prepare_cached(&format!("SELECT {JOB} FROM job WHERE id = ?1"))?
        .query_row([id], read_job)
        .optional()
}

/// One step, with what it owes, or nothing at all.
pub(super) fn step_job(
    tx: &mut Transaction<'_>,
    step: &JobStep,
    now: Timestamp,
) -> rusqlite::Result<Option<Job>> {
    let stands = tx
        .conn
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM job WHERE id = ?1 AND state = 'running' AND cursor IS ?2)")?
        .query_row((step.id, step.from), |row| row.get::<_, bool>(0))?;
    if !stands {
        return Ok(None);
    }
    // All of them first: a step is done whole or not at all.
    let mut done = 0_i64;
    for (event, first, _) in &step.owed {
        if accept::next_number(tx, *event)?.is_some_and(|(_, next)| next != *first) {
            return Ok(None);
        }
    }
    let mut skipped = i64::try_from(step.skipped).unwrap_or(i64::MAX);
    for (event, first, to) in &step.owed {
        let replayed = match step.anew.get(event) {
            None => accept::replay(tx, *event, *first, to, now)?,
            Some(anew) => accept::replay_anew(tx, (*event, *first), to, anew, now)?,
        };
        match replayed {
            Replayed::Made(_) => done += 1,
            // Swept since it was listed.
            Replayed::NoEvent | Replayed::Moved => skipped += 1,
        }
    }
    let state = if step.ended {
        JobState::Done
    } else {
        JobState::Running
    };
    tx.conn
        .prepare_cached(&format!(
            "UPDATE job SET cursor = ?2, done = done + ?3, skipped = skipped + ?4, state = ?5, changed_at = ?6
             WHERE id = ?1 RETURNING {JOB}"
        ))?
        .query_row((step.id, step.to, done, skipped, state.as_str(), now.millis()), read_job)
        .optional()
}

fn read_job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let state: String = row.get(2)?;
    Ok(Job {
        id: row.get(0)?,
        filter: row.get(1)?,
        state: JobState::parse(&state).unwrap_or(JobState::Paused),
        total: row.get::<_, i64>(3)?.unsigned_abs(),
        done: row.get::<_, i64>(4)?.unsigned_abs(),
        skipped: row.get::<_, i64>(5)?.unsigned_abs(),
        pace: row.get(6)?,
        cursor: row.get(7)?,
        started_at: Timestamp::from_millis(row.get(8)?),
        changed_at: Timestamp::from_millis(row.get(9)?),
    })
}
