//! The inbox of a configuration: opened by a process with some roles, or brought up to date and left.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use crate::config::{Config, Engine};
use crate::inbox::Inbox;
use crate::inbox::postgres::{PostgresInbox, PostgresOptions};
use crate::inbox::sqlite::{SqliteInbox, SqliteOptions};
use crate::model::Roles;

/// Opens the inbox. A file has one owner, so on SQLite a process has all the roles.
pub(super) async fn open(config: &Config, roles: Roles) -> anyhow::Result<Arc<dyn Inbox>> {
    match &config.inbox.engine {
        Engine::Sqlite(path) => {
            anyhow::ensure!(
                roles.are_all(),
                "an inbox in a SQLite file has one owner, which does everything: leave --roles out, or set inbox.url \
                 to a postgres:// address to have the roles in processes of their own"
            );
            Ok(Arc::new(file(config, path).await?))
        }
        Engine::Postgres(address) => {
            let options = PostgresOptions {
                batch: config.inbox.batch,
                queue: config.inbox.queue,
                lease: config.inbox.lease,
                connections: config.inbox.connections,
                search: config.inbox.search,
                max_disk: config.inbox.max_disk,
            };
            let opened = PostgresInbox::open_as(address, options, roles).await;
            Ok(Arc::new(
                opened.context("cannot open the inbox on Postgres")?,
            ))
        }
    }
}

/// Brings the inbox's schema up to date. Can be killed and run again.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    match &config.inbox.engine {
        Engine::Sqlite(path) => {
            let inbox = file(config, path)
                .await
                .context("a running gateway has its file up to date already")?;
            inbox.close().await;
            Ok(())
        }
        Engine::Postgres(address) => PostgresInbox::migrate(address)
            .await
            .context("cannot bring the inbox on Postgres up to date"),
    }
}

async fn file(config: &Config, path: &Path) -> anyhow::Result<SqliteInbox> {
    let options = SqliteOptions {
        batch: config.inbox.batch,
        queue: config.inbox.queue,
        search: config.inbox.search,
        max_bytes: config.inbox.max_disk,
        min_free: config.inbox.min_free,
    };
    SqliteInbox::open(path, options)
        .await
        .with_context(|| format!("cannot open the inbox {}", path.display()))
}
