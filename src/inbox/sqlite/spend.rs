//! Budgets of runs: counted by day, all of a run's or none.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _};

use super::SqliteInbox;
use super::transaction::Transaction;
use crate::inbox::{CountRuns, InboxError, Spend, budget};

/// Counts one more run. Some: that budget is spent, and nothing was counted.
pub(super) fn spend(
    tx: &Transaction<'_>,
    day: i64,
    budgets: &[Spend],
) -> rusqlite::Result<Option<String>> {
    let mut look = tx
        .conn
        .prepare_cached("SELECT runs FROM spent WHERE day = ?1 AND budget = ?2")?;
    for Spend { budget, most } in budgets {
        let runs: Option<i64> = look.query_row((day, budget), |row| row.get(0)).optional()?;
        if u64::try_from(runs.unwrap_or_default()).unwrap_or_default() >= *most {
            return Ok(Some(budget.clone()));
        }
    }
    let mut count = tx.conn.prepare_cached(
        "INSERT INTO spent (day, budget, runs) VALUES (?1, ?2, 1) ON CONFLICT (day, budget) DO UPDATE SET runs = runs + 1",
    )?;
    for Spend { budget, .. } in budgets {
        count.execute((day, budget))?;
    }
    Ok(None)
}

/// Takes one run back.
pub(super) fn give_back(
    tx: &Transaction<'_>,
    day: i64,
    budgets: &[String],
) -> rusqlite::Result<()> {
    let mut uncount = tx.conn.prepare_cached(
        "UPDATE spent SET runs = runs - 1 WHERE day = ?1 AND budget = ?2 AND runs > 0",
    )?;
    for budget in budgets {
        uncount.execute((day, budget))?;
    }
    Ok(())
}

/// Reads the runs of a day by budget.
pub(super) fn spent(conn: &Connection, day: i64) -> rusqlite::Result<Vec<(String, u64)>> {
    conn.prepare_cached(
        "SELECT budget, runs FROM spent WHERE day = ?1 ORDER BY runs DESC, budget LIMIT 1000",
    )?
    .query_map([day], |row| {
        Ok((
            row.get(0)?,
            u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default(),
        ))
    })?
    .collect()
}

/// Forgets days that nobody asks for any more.
pub(super) fn forget(tx: &Transaction<'_>, today: i64) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached("DELETE FROM spent WHERE day < ?1")?
        .execute([today - budget::DAYS])
        .map(|_| ())
}

#[async_trait]
impl CountRuns for SqliteInbox {
    async fn spend(&self, day: i64, budgets: Vec<Spend>) -> Result<Option<String>, InboxError> {
        self.write("count a run", move |tx| spend(tx, day, &budgets))
            .await
    }

    async fn give_back(&self, day: i64, budgets: Vec<String>) -> Result<(), InboxError> {
        self.write("take a run back", move |tx| give_back(tx, day, &budgets))
            .await
    }

    async fn spent(&self, day: i64) -> Result<Vec<(String, u64)>, InboxError> {
        self.readers
            .ask("read budgets", move |conn| spent(conn, day))
            .await
    }
}
