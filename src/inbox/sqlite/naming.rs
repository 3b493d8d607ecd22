//! Names of conversations at the upstream: the secret that they are made with.

use rusqlite::Connection;
use uuid::Uuid;

use super::transaction::Transaction;
use crate::inbox::OWN_SECRET;
use crate::model::UpstreamIds;

/// The kept secret; this one from now on, where no secret is kept.
pub(super) fn secret(tx: &mut Transaction<'_>, fresh: [u8; 32]) -> rusqlite::Result<[u8; 32]> {
    tx.conn
        .prepare_cached(
            "INSERT INTO own_secret (name, secret) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute((OWN_SECRET, fresh))?;
    tx.conn
        .prepare_cached("SELECT secret FROM own_secret WHERE name = ?1")?
        .query_row([OWN_SECRET], |row| row.get(0))
}

/// The names of conversations of before there was a secret, added to it.
pub(super) fn ids(conn: &Connection, secret: &[u8; 32]) -> rusqlite::Result<UpstreamIds> {
    let mut statement = conn.prepare("SELECT upstream_id FROM former_thread")?;
    let former = statement
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(UpstreamIds::new(
        secret,
        former.iter().filter_map(|id| Uuid::try_parse(id).ok()),
    ))
}
