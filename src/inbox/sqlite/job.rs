//! Work in bulk.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row};

use super::transaction::Transaction;
use super::{SqliteInbox, replay};
use crate::inbox::bounds::LISTED_JOBS;
use crate::inbox::codec::Codec;
use crate::inbox::{InboxError, Job, JobState, JobStep, Jobs, NewJob, Replayed};
use crate::model::Timestamp;

const JOB: &str = "id, filter, state, total, done, skipped, pace, cursor, started_at, changed_at";

/// Keeps a job. Those that ended long ago go.
pub(super) fn begin(tx: &Transaction<'_>, job: &NewJob, now: Timestamp) -> rusqlite::Result<Job> {
    tx.conn
        .prepare_cached(
            "DELETE FROM job WHERE state IN ('done', 'cancelled')
                AND id <= (SELECT id FROM job ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        )?
        .execute([LISTED_JOBS])?;
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
pub(super) fn list(conn: &rusqlite::Connection) -> rusqlite::Result<Vec<Job>> {
    conn.prepare_cached(&format!(
        "SELECT {JOB} FROM job ORDER BY id DESC LIMIT {LISTED_JOBS}"
    ))?
    .query_map([], read_job)?
    .collect()
}

/// Changes a job's state and pace. None: there is no such job.
pub(super) fn steer(
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
    tx.work_due();
    tx.conn
        .prepare_cached(&format!("SELECT {JOB} FROM job WHERE id = ?1"))?
        .query_row([id], read_job)
        .optional()
}

/// One step, with what it owes, or nothing at all.
pub(super) fn take_step(
    tx: &mut Transaction<'_>,
    codec: &Codec,
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
        if replay::next_number(tx, *event)?.is_some_and(|(_, next)| next != *first) {
            return Ok(None);
        }
    }
    let mut skipped = i64::try_from(step.skipped).unwrap_or(i64::MAX);
    for (event, first, to) in &step.owed {
        let replayed = match step.anew.get(event) {
            None => replay::replay(tx, *event, *first, to, now)?,
            Some(anew) => replay::replay_anew(tx, codec, (*event, *first), to, (anew, now))?,
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

#[async_trait]
impl Jobs for SqliteInbox {
    async fn begin_job(&self, job: NewJob, now: Timestamp) -> Result<Job, InboxError> {
        self.write("begin a job", move |tx| begin(tx, &job, now))
            .await
    }

    async fn jobs(&self) -> Result<Vec<Job>, InboxError> {
        self.readers.ask("list jobs", list).await
    }

    async fn steer_job(
        &self,
        id: i64,
        state: Option<JobState>,
        pace: Option<u32>,
        now: Timestamp,
    ) -> Result<Option<Job>, InboxError> {
        self.write("steer a job", move |tx| steer(tx, id, state, pace, now))
            .await
    }

    async fn step_job(&self, step: JobStep, now: Timestamp) -> Result<Option<Job>, InboxError> {
        if !step.owed.is_empty() {
            self.has_room()?;
        }
        let codec = self.codec.clone();
        self.write("step a job", move |tx| take_step(tx, &codec, &step, now))
            .await
    }
}
