//! Budgets of runs: counted by day, all of a run's or none. Rows are taken in the order of their names, so that two who
//! count do not wait for each other.

use async_trait::async_trait;
use deadpool_postgres::Client;

use super::PostgresInbox;
use super::database::{change, rows};
use super::error::DatabaseError;
use crate::inbox::{CountRuns, InboxError, Spend, budget};

/// Counts one more run. Some: that budget is spent, and nothing was counted. `budgets` is in the order of the names.
pub(super) async fn count(
    conn: &mut Client,
    day: i64,
    budgets: &[Spend],
) -> Result<Option<String>, DatabaseError> {
    let tx = conn.transaction().await?;
    for Spend { budget, most } in budgets {
        let most = i64::try_from(*most).unwrap_or(i64::MAX);
        let counted = change(
            &tx,
            "INSERT INTO spent AS s (day, budget, runs) SELECT $1, $2, 1 WHERE $3::bigint > 0
             ON CONFLICT (day, budget) DO UPDATE SET runs = s.runs + 1 WHERE s.runs < $3",
            &[&day, budget, &most],
        )
        .await?;
        if counted == 0 {
            tx.rollback().await?;
            return Ok(Some(budget.clone()));
        }
    }
    tx.commit().await?;
    Ok(None)
}

/// Takes one run back. `budgets` is in the order of the names.
pub(super) async fn take_back(
    conn: &mut Client,
    day: i64,
    budgets: &[String],
) -> Result<(), DatabaseError> {
    let tx = conn.transaction().await?;
    for budget in budgets {
        let sql = "UPDATE spent SET runs = runs - 1 WHERE day = $1 AND budget = $2 AND runs > 0";
        change(&tx, sql, &[&day, budget]).await?;
    }
    Ok(tx.commit().await?)
}

/// Reads the runs of a day by budget.
pub(super) async fn spent(
    conn: &mut Client,
    day: i64,
) -> Result<Vec<(String, u64)>, DatabaseError> {
    let tx = conn.transaction().await?;
    let sql = "SELECT budget, runs FROM spent WHERE day = $1 ORDER BY runs DESC, budget LIMIT 1000";
    let found = rows(&tx, sql, &[&day]).await?;
    found
        .iter()
        .map(|row| {
            Ok((
                row.try_get(0)?,
                u64::try_from(row.try_get::<_, i64>(1)?).unwrap_or_default(),
            ))
        })
        .collect()
}

/// Forgets days that nobody asks for any more.
pub(super) async fn forget(conn: &mut Client, today: i64) -> Result<(), DatabaseError> {
    let tx = conn.transaction().await?;
    change(
        &tx,
        "DELETE FROM spent WHERE day < $1",
        &[&(today - budget::DAYS)],
    )
    .await?;
    Ok(tx.commit().await?)
}

#[async_trait]
impl CountRuns for PostgresInbox {
    async fn spend(&self, day: i64, mut budgets: Vec<Spend>) -> Result<Option<String>, InboxError> {
        budgets.sort();
        writing!(self, "count a run", |conn| count(conn, day, &budgets))
    }

    async fn give_back(&self, day: i64, mut budgets: Vec<String>) -> Result<(), InboxError> {
        budgets.sort();
        writing!(self, "take a run back", |conn| take_back(
            conn, day, &budgets
        ))
    }

    async fn spent(&self, day: i64) -> Result<Vec<(String, u64)>, InboxError> {
        reading!(self, "read budgets", |conn| spent(conn, day))
    }
}
