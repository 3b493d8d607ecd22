//! The inbox of a configuration: opened by a process with some roles, or brought up to date and left.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use crate::config::{Config, Engine, Secret};
use crate::inbox::codec::Codec;
use crate::inbox::postgres::{PostgresInbox, PostgresOptions};
use crate::inbox::sqlite::{InboxFile, SqliteInbox, SqliteOptions};
use crate::inbox::{Inbox, Reopened, Upkeep as _};
use crate::model::{Roles, Timestamp};

/// The place of an inbox, which this process has.
pub(super) enum Place<'a> {
    /// A SQLite file, locked.
    File(InboxFile),
    /// A database, by its address.
    Database(&'a Secret),
}

/// Takes the place of the inbox. A file has one owner, so on SQLite a process has all the roles.
pub(super) async fn take_place(config: &Config, roles: Roles) -> anyhow::Result<Place<'_>> {
    match &config.inbox.engine {
        Engine::Sqlite(path) => {
            anyhow::ensure!(
                roles.are_all(),
                "an inbox in a SQLite file has one owner, which does everything: leave --roles out, or set inbox.url \
                 to a postgres:// address to have the roles in processes of their own"
            );
            let file = InboxFile::lock(path).await;
            Ok(Place::File(file.with_context(|| cannot_open(path))?))
        }
        Engine::Postgres(address) => Ok(Place::Database(address)),
    }
}

/// Opens the inbox at its place.
pub(super) async fn open(
    config: &Config,
    place: Place<'_>,
    roles: Roles,
    codec: Codec,
) -> anyhow::Result<Arc<dyn Inbox>> {
    match place {
        Place::File(file) => {
            let path = file.path().to_owned();
            let opened = SqliteInbox::open_file(file, sqlite_options(config), codec).await;
            Ok(Arc::new(opened.with_context(|| cannot_open(&path))?))
        }
        Place::Database(address) => {
            let options = PostgresOptions {
                batch: config.inbox.batch,
                queue: config.inbox.queue,
                lease: config.inbox.lease,
                connections: config.inbox.connections,
                search: config.inbox.search,
                max_disk: config.inbox.max_disk,
            };
            let opened = PostgresInbox::open_as(address, options, roles, codec).await;
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
            let inbox = SqliteInbox::open(path, sqlite_options(config))
                .await
                .with_context(|| cannot_open(path))
                .context("a running gateway has its file up to date already")?;
            inbox.close().await;
            Ok(())
        }
        Engine::Postgres(address) => PostgresInbox::migrate(address)
            .await
            .context("cannot bring the inbox on Postgres up to date"),
    }
}

/// Copies the inbox to a file, while a gateway may be running. Returns the size of the copy in bytes.
pub async fn back_up(config: &Config, copy: &Path) -> anyhow::Result<u64> {
    match &config.inbox.engine {
        Engine::Sqlite(path) => SqliteInbox::copy(path, copy)
            .await
            .with_context(|| format!("cannot copy the inbox {}", path.display())),
        Engine::Postgres(_) => anyhow::bail!(
            "the inbox is a Postgres database: back it up with pg_dump or with the server's own tools"
        ),
    }
}

/// Puts a copy in the place of the inbox, or takes over one that was put back by other means; marks what is open as in
/// doubt and pauses every run.
pub async fn restore(
    config: &Config,
    copy: Option<&Path>,
    now: Timestamp,
) -> anyhow::Result<Reopened> {
    match (&config.inbox.engine, copy) {
        (Engine::Sqlite(path), Some(copy)) => SqliteInbox::put_back(copy, path, now)
            .await
            .with_context(|| format!("cannot restore the inbox {}", path.display())),
        (Engine::Sqlite(path), None) => SqliteInbox::reopen(path, now)
            .await
            .with_context(|| format!("cannot mark the inbox {}", path.display())),
        (Engine::Postgres(address), None) => PostgresInbox::reopen(address, now)
            .await
            .context("cannot mark the inbox on Postgres"),
        (Engine::Postgres(_), Some(_)) => anyhow::bail!(
            "the inbox is a Postgres database: put it back with pg_restore, then run `sluicegate restore` without a file"
        ),
    }
}

fn sqlite_options(config: &Config) -> SqliteOptions {
    SqliteOptions {
        batch: config.inbox.batch,
        queue: config.inbox.queue,
        search: config.inbox.search,
        max_bytes: config.inbox.max_disk,
        min_free: config.inbox.min_free,
    }
}

fn cannot_open(path: &Path) -> String {
    format!("cannot open the inbox {}", path.display())
}
