//! Work in bulk: a step and what it owes are one transaction, under the lock of the job's row.

use async_trait::async_trait;
use deadpool_postgres::{Client, Transaction};
use tokio_postgres::Row;

use super::database::{Counts, change, rows};
use super::error::DatabaseError;
use super::replay::{Again, owe_again};
use super::row::text;
use super::{PostgresInbox, database};
use crate::inbox::bounds::LISTED_JOBS;
use crate::inbox::codec::Codec;
use crate::inbox::{InboxError, Job, JobState, JobStep, Jobs, NewJob, Replayed};
use crate::model::Timestamp;

/// Jobs that are kept; the oldest that have ended go.
const KEPT: i64 = 1000;

const COLUMNS: &str =
    "id, filter, state, total, done, skipped, pace, cursor, started_at, changed_at";

/// Keeps a job, running.
pub(super) async fn begin(
    conn: &mut Client,
    job: &NewJob,
    now: Timestamp,
) -> Result<Job, DatabaseError> {
    let tx = conn.transaction().await?;
    let made = rows(
        &tx,
        &format!(
            "INSERT INTO job (filter, state, total, pace, started_at, changed_at) VALUES ($1, 'running', $2, $3, $4, $4)
             RETURNING {COLUMNS}"
        ),
        &[&job.filter.as_bytes(), &i64::try_from(job.total).unwrap_or(i64::MAX), &i64::from(job.pace), &now.millis()],
    )
    .await?;
    change(
        &tx,
        "DELETE FROM job WHERE state IN ('done', 'cancelled')
            AND id <= (SELECT o.id FROM job AS o ORDER BY o.id DESC LIMIT 1 OFFSET $1)",
        &[&KEPT],
    )
    .await?;
    let job = made
        .first()
        .map_or_else(|| Err(DatabaseError::Engine("no row".into())), read)?;
    tx.commit().await?;
    Ok(job)
}

/// The last jobs, newest first.
pub(super) async fn list(conn: &mut Client) -> Result<Vec<Job>, DatabaseError> {
    let tx = conn.transaction().await?;
    let sql = format!("SELECT {COLUMNS} FROM job ORDER BY id DESC LIMIT $1");
    rows(&tx, &sql, &[&LISTED_JOBS])
        .await?
        .iter()
        .map(read)
        .collect()
}

/// Changes a job's state and pace.
pub(super) async fn steer(
    conn: &mut Client,
    id: i64,
    state: Option<JobState>,
    pace: Option<u32>,
    now: Timestamp,
) -> Result<Option<Job>, DatabaseError> {
    let tx = conn.transaction().await?;
    let Some(job) = locked(&tx, id).await? else {
        return Ok(None);
    };
    if job.state.is_final() {
        return Ok(Some(job));
    }
    let changed = rows(
        &tx,
        &format!("UPDATE job SET state = $2, pace = $3, changed_at = $4 WHERE id = $1 RETURNING {COLUMNS}"),
        &[&id, &state.unwrap_or(job.state).as_str(), &i64::from(pace.unwrap_or(job.pace)), &now.millis()],
    )
    .await?;
    let job = changed.first().map(read).transpose()?;
    tx.commit().await?;
    Ok(job)
}

/// Takes a job one step on.
pub(super) async fn take_step(
    conn: &mut Client,
    slot: i32,
    codec: &Codec,
    step: &JobStep,
    now: Timestamp,
) -> Result<Option<Job>, DatabaseError> {
    let tx = conn.transaction().await?;
    let Some(job) = locked(&tx, step.id).await? else {
        return Ok(None);
    };
    if job.state != JobState::Running || job.cursor != step.from {
        return Ok(None);
    }
    let mut counts = Counts::default();
    let (mut done, mut skipped) = (0_i64, i64::try_from(step.skipped).unwrap_or(i64::MAX));
    for (event, first, to) in &step.owed {
        let again = Again {
            event: *event,
            first: *first,
            to,
            anew: step.anew.get(event),
        };
        match owe_again(&tx, &mut counts, codec, &again, now).await? {
            Replayed::Made(_) => done += 1,
            Replayed::Moved => return Ok(None),
            // Swept since it was listed.
            Replayed::NoEvent => skipped = skipped.saturating_add(1),
        }
    }
    let state = if step.ended {
        JobState::Done
    } else {
        JobState::Running
    };
    let changed = rows(
        &tx,
        &format!(
            "UPDATE job SET state = $2, cursor = $3, done = done + $4, skipped = skipped + $5, changed_at = $6
             WHERE id = $1 RETURNING {COLUMNS}"
        ),
        &[&step.id, &state.as_str(), &step.to, &done, &skipped, &now.millis()],
    )
    .await?;
    let job = changed.first().map(read).transpose()?;
    counts.write(&tx, slot).await?;
    tx.commit().await?;
    Ok(job)
}

async fn locked(tx: &Transaction<'_>, id: i64) -> Result<Option<Job>, DatabaseError> {
    let sql = format!("SELECT {COLUMNS} FROM job WHERE id = $1 FOR UPDATE");
    rows(tx, &sql, &[&id]).await?.first().map(read).transpose()
}

fn read(row: &Row) -> Result<Job, DatabaseError> {
    let number =
        |column| Ok::<_, DatabaseError>(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or(0));
    let word: &str = row.try_get(2)?;
    Ok(Job {
        id: row.try_get(0)?,
        filter: text(row, 1)?.unwrap_or_default(),
        state: JobState::parse(word)
            .ok_or_else(|| DatabaseError::Engine(format!("{word:?} is no state of a job")))?,
        total: number(3)?,
        done: number(4)?,
        skipped: number(5)?,
        pace: u32::try_from(number(6)?).unwrap_or(u32::MAX),
        cursor: row.try_get(7)?,
        started_at: Timestamp::from_millis(row.try_get(8)?),
        changed_at: Timestamp::from_millis(row.try_get(9)?),
    })
}

#[async_trait]
impl Jobs for PostgresInbox {
    async fn begin_job(&self, job: NewJob, now: Timestamp) -> Result<Job, InboxError> {
        writing!(self, "begin a job", |conn| begin(conn, &job, now))
    }

    async fn jobs(&self) -> Result<Vec<Job>, InboxError> {
        reading!(self, "list jobs", |conn| list(conn))
    }

    async fn steer_job(
        &self,
        id: i64,
        state: Option<JobState>,
        pace: Option<u32>,
        now: Timestamp,
    ) -> Result<Option<Job>, InboxError> {
        writing!(self, "steer a job", |conn| steer(
            conn, id, state, pace, now
        ))
    }

    async fn step_job(&self, step: JobStep, now: Timestamp) -> Result<Option<Job>, InboxError> {
        let slot = database::slot();
        let job = writing!(self, "take a job on", |conn| take_step(
            conn,
            slot,
            &self.codec,
            &step,
            now
        ))?;
        self.health.tell(true, &[]);
        Ok(job)
    }
}
