//! The schema: its versions, how it is brought up to date, and what a server has to be like.

use std::time::Duration;

use tokio_postgres::Client;

use super::address::Address;
use super::error::DatabaseError;
use super::tls::PostgresTls;

/// The schema's versions, in order; the first is version 1.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/postgres/0001_inbox.sql"),
    include_str!("../migrations/postgres/0002_attachments.sql"),
    include_str!("../migrations/postgres/0003_spent.sql"),
    include_str!("../migrations/postgres/0004_accounts.sql"),
    include_str!("../migrations/postgres/0005_upstream_ids.sql"),
    include_str!("../migrations/postgres/0006_proofs.sql"),
    include_str!("../migrations/postgres/0007_route_numbers.sql"),
    include_str!("../migrations/postgres/0008_owed.sql"),
];

/// The advisory lock by which migrations take turns; its value has no meaning but must never change.
const TURN: i64 = 0x534c_5543_4749_5445;

/// The first server version that has what is used here.
const OLDEST: i32 = 130_000;

/// Brings the schema up to date. Several at once wait for each other; one that is killed leaves whole versions behind.
pub(super) async fn migrate(client: &mut Client) -> Result<(), DatabaseError> {
    check_server_version(client).await?;
    // Held until this connection ends, however it ends.
    client
        .execute("SELECT pg_advisory_lock($1)", &[&TURN])
        .await?;
    let begun = client.transaction().await?;
    begun
        .batch_execute(
            "CREATE SCHEMA IF NOT EXISTS sluicegate;
             CREATE TABLE IF NOT EXISTS sluicegate.schema_version (
                 version    integer     PRIMARY KEY,
                 applied_at timestamptz NOT NULL DEFAULT now()
             )",
        )
        .await?;
    begun.commit().await?;
    let found = version(client).await?.unwrap_or(0);
    for (number, migration) in (1..).zip(MIGRATIONS).filter(|(number, _)| *number > found) {
        let step = client.transaction().await?;
        // A change of the schema does not stand in front of everybody else for long.
        step.batch_execute("SET LOCAL lock_timeout TO '10s'; SET LOCAL search_path TO sluicegate")
            .await?;
        step.batch_execute(migration).await?;
        step.execute(
            "INSERT INTO sluicegate.schema_version (version) VALUES ($1)",
            &[&number],
        )
        .await?;
        step.commit().await?;
        tracing::info!(version = number, "inbox schema brought up to date");
    }
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&TURN])
        .await?;
    Ok(())
}

/// Refuses a server or a schema that nothing can be promised on.
pub(super) async fn check(client: &Client, r#unsafe: bool) -> Result<(), DatabaseError> {
    check_server_version(client).await?;
    check_durability(client, r#unsafe).await?;
    let newest = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    match version(client).await? {
        None => Err(DatabaseError::Engine(
            "the database has no inbox yet: run `sluicegate migrate`".into(),
        )),
        Some(found) if found < newest => Err(DatabaseError::Engine(format!(
            "the inbox has schema version {found} and this program needs {newest}: run `sluicegate migrate`"
        ))),
        Some(found) if found > newest => Err(DatabaseError::Engine(format!(
            "the inbox has schema version {found} and this program knows up to {newest}: it was made by a newer version"
        ))),
        Some(_) => Ok(()),
    }
}

async fn version(client: &Client) -> Result<Option<i32>, DatabaseError> {
    let there = client
        .query_one(
            "SELECT to_regclass('sluicegate.schema_version') IS NOT NULL",
            &[],
        )
        .await?;
    if !there.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    Ok(client
        .query_one("SELECT max(version) FROM sluicegate.schema_version", &[])
        .await?
        .try_get(0)?)
}

async fn check_server_version(client: &Client) -> Result<(), DatabaseError> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int, version()",
            &[],
        )
        .await?;
    if row.try_get::<_, i32>(0)? < OLDEST {
        let found: String = row.try_get(1)?;
        return Err(DatabaseError::Engine(format!(
            "PostgreSQL 13 or newer is needed, the server says: {found}"
        )));
    }
    Ok(())
}

/// A yes is kept only on a server that waits for its disk.
async fn check_durability(client: &Client, r#unsafe: bool) -> Result<(), DatabaseError> {
    let settings = client
        .query(
            "SELECT name, setting FROM pg_settings WHERE setting = 'off'
                AND name IN ('synchronous_commit', 'fsync', 'full_page_writes') ORDER BY name",
            &[],
        )
        .await?;
    for row in settings {
        let name: String = row.try_get(0)?;
        if !r#unsafe {
            return Err(DatabaseError::Engine(format!(
                "the server has {name} = off and would lose events that were accepted; set it to on (for trying out, \
                 ?sluicegate_unsafe=1 in the address takes it as it is)"
            )));
        }
        tracing::warn!(
            setting = name,
            "the database server may lose accepted events: this setting is off"
        );
    }
    Ok(())
}

/// A connection for one piece of work, with its own reader.
pub(super) async fn connect(address: &Address) -> Result<Client, DatabaseError> {
    let tls = PostgresTls::new(address.verify, address.ca_file.as_deref())
        .map_err(DatabaseError::Engine)?;
    let connecting = address.config.connect(tls);
    let (client, connection) = tokio::time::timeout(Duration::from_secs(10), connecting)
        .await
        .map_err(|_| DatabaseError::Lost("no connection within 10 s".into()))??;
    tokio::spawn(connection);
    Ok(client)
}
