//! Names of conversations at the upstream: the secret that they are made with.

use deadpool_postgres::Client;
use uuid::Uuid;

use super::database::{change, rows};
use super::error::DatabaseError;
use crate::inbox::OWN_SECRET;
use crate::model::UpstreamIds;

/// The kept secret, or this one from now on where no secret is kept, and the names of conversations of before.
pub(super) async fn ids(conn: &mut Client, fresh: &[u8; 32]) -> Result<UpstreamIds, DatabaseError> {
    let tx = conn.transaction().await?;
    let insert = "INSERT INTO own_secret (name, secret) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    change(&tx, insert, &[&OWN_SECRET, &fresh.as_slice()]).await?;
    tx.commit().await?;
    // Another process may have made it at the same time: what is committed counts.
    let tx = conn.transaction().await?;
    let found = rows(
        &tx,
        "SELECT secret FROM own_secret WHERE name = $1",
        &[&OWN_SECRET],
    )
    .await?;
    let secret: Vec<u8> = found
        .first()
        .ok_or_else(|| DatabaseError::Engine("the inbox has no secret".into()))?
        .try_get(0)?;
    let secret = secret
        .try_into()
        .map_err(|_| DatabaseError::Engine("the inbox's secret is not one of 32 bytes".into()))?;
    let former = rows(&tx, "SELECT upstream_id FROM former_thread", &[]).await?;
    let former = former
        .iter()
        .map(|row| row.try_get::<_, Vec<u8>>(0))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(UpstreamIds::new(
        &secret,
        former
            .iter()
            .filter_map(|id| Uuid::try_parse_ascii(id).ok()),
    ))
}
