//! Events that came before, by their dedup keys.

use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::database::rows;
use super::error::DatabaseError;
use crate::model::{EventId, NewEvent};

/// The first one's id, of each. An id that is there itself is a commit whose answer was lost.
pub(super) async fn known<'a>(
    tx: &Transaction<'_>,
    events: impl Iterator<Item = &'a NewEvent>,
) -> Result<Vec<Option<EventId>>, DatabaseError> {
    let (mut sources, mut keys, mut ids) = (vec![], vec![], vec![]);
    for event in events {
        sources.push(event.source.as_str());
        keys.push(event.dedup.as_deref().map(str::as_bytes));
        ids.push(Uuid::from_bytes(*event.id.as_bytes()));
    }
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let found = rows(
        tx,
        "SELECT coalesce(
            (SELECT e.id FROM event AS e WHERE e.source = n.source AND e.dedup = n.dedup AND e.dedup IS NOT NULL),
            (SELECT e.id FROM event AS e WHERE e.id = n.id))
         FROM unnest($1::text[], $2::bytea[], $3::uuid[]) WITH ORDINALITY AS n (source, dedup, id, place)
         ORDER BY n.place",
        &[&sources, &keys, &ids],
    )
    .await?;
    let id = |row: &tokio_postgres::Row| -> Result<Option<EventId>, DatabaseError> {
        Ok(row
            .try_get::<_, Option<Uuid>>(0)?
            .map(|id| EventId::from_bytes(id.into_bytes())))
    };
    found.iter().map(id).collect()
}
