//! Files that came along: what the inbox knows of them, and which of them can go.

use std::collections::HashMap;

use async_trait::async_trait;
use deadpool_postgres::{Client, Transaction};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::PostgresInbox;
use super::database::{change, rows};
use super::error::DatabaseError;
use super::row::text;
use crate::inbox::bounds::PAGE;
use crate::inbox::{InboxError, KeepFiles, KeptAttachment, Page};
use crate::model::{Attachment, AttachmentId, EventId, Timestamp};

/// Files on their way into the table, column by column.
#[derive(Default)]
pub(super) struct Rows<'a> {
    events: Vec<Option<i64>>,
    positions: Vec<i32>,
    sources: Vec<&'a str>,
    files: Vec<&'a Attachment>,
}

impl<'a> Rows<'a> {
    /// Adds the files of an event, or of none, in their order.
    pub(super) fn add(&mut self, event: Option<i64>, source: &'a str, files: &'a [Attachment]) {
        self.add_from(event, 0, source, files);
    }

    fn add_from(
        &mut self,
        event: Option<i64>,
        from: i32,
        source: &'a str,
        files: &'a [Attachment],
    ) {
        for (position, file) in (from..).zip(files) {
            self.events.push(event);
            self.positions.push(position);
            self.sources.push(source);
            self.files.push(file);
        }
    }

    /// Writes them. A file that stands there already came with a commit whose answer was lost.
    pub(super) async fn insert(&self, tx: &Transaction<'_>) -> Result<(), DatabaseError> {
        if self.files.is_empty() {
            return Ok(());
        }
        let of = || self.files.iter();
        let ids: Vec<Uuid> = of()
            .map(|file| Uuid::from_bytes(*file.id.as_bytes()))
            .collect();
        let names: Vec<&[u8]> = of().map(|file| file.name.as_bytes()).collect();
        let types: Vec<&[u8]> = of().map(|file| file.content_type.as_bytes()).collect();
        let sizes: Vec<i64> = of()
            .map(|file| i64::try_from(file.size).unwrap_or(i64::MAX))
            .collect();
        let digests: Vec<&[u8]> = of().map(|file| file.sha256.as_slice()).collect();
        let keys: Vec<&str> = of().map(|file| file.key.as_str()).collect();
        let times: Vec<i64> = of().map(|file| file.expires_at.millis()).collect();
        let origins: Vec<Option<&[u8]>> = of()
            .map(|file| file.origin.as_deref().map(str::as_bytes))
            .collect();
        let (events, positions, sources) = (&self.events, &self.positions, &self.sources);
        let params: [&(dyn ToSql + Sync); 11] = [
            &ids, events, positions, sources, &names, &types, &sizes, &digests, &keys, &times,
            &origins,
        ];
        change(
            tx,
            "INSERT INTO attachment (id, event, position, source, name, content_type, size, sha256, key, expires_at, origin)
             SELECT n.* FROM unnest($1::uuid[], $2::bigint[], $3::integer[], $4::text[], $5::bytea[], $6::bytea[],
                                    $7::bigint[], $8::bytea[], $9::text[], $10::bigint[], $11::bytea[])
                AS n (id, event, position, source, name, content_type, size, sha256, key, expires_at, origin)
             ON CONFLICT (id) DO NOTHING",
            &params,
        )
        .await
        .map(|_| ())
    }
}

/// Keeps files of no event.
pub(super) async fn keep(
    conn: &mut Client,
    source: &str,
    files: &[Attachment],
) -> Result<(), DatabaseError> {
    let tx = conn.transaction().await?;
    let mut rows = Rows::default();
    rows.add(None, source, files);
    rows.insert(&tx).await?;
    Ok(tx.commit().await?)
}

/// Keeps more files of an event, behind those it has. False: there is no such event.
pub(super) async fn add(
    conn: &mut Client,
    event: EventId,
    files: &[Attachment],
) -> Result<bool, DatabaseError> {
    let tx = conn.transaction().await?;
    // Locked, so that a sweep does not pass between.
    let found = rows(
        &tx,
        "SELECT e.seq, e.source, (SELECT coalesce(max(a.position) + 1, 0) FROM attachment AS a
                                  WHERE a.event = e.seq AND a.event IS NOT NULL)
         FROM event AS e WHERE e.id = $1 FOR UPDATE",
        &[&Uuid::from_bytes(*event.as_bytes())],
    )
    .await?;
    let Some(row) = found.first() else {
        return Ok(false);
    };
    let source: String = row.try_get(1)?;
    let mut rows = Rows::default();
    rows.add_from(Some(row.try_get(0)?), row.try_get(2)?, &source, files);
    rows.insert(&tx).await?;
    tx.commit().await?;
    Ok(true)
}

/// The files of events, each event's in the order they came.
pub(super) async fn of_events(
    tx: &Transaction<'_>,
    events: &[i64],
) -> Result<HashMap<i64, Vec<Attachment>>, DatabaseError> {
    let found = rows(
        tx,
        "SELECT a.seq, a.id, a.name, a.content_type, a.size, a.sha256, a.key, a.expires_at, a.origin, a.event
         FROM unnest($1::bigint[]) AS n (event) JOIN attachment AS a ON a.event = n.event AND a.event IS NOT NULL
         ORDER BY a.event, a.position",
        &[&events],
    )
    .await?;
    let mut files: HashMap<i64, Vec<Attachment>> = HashMap::new();
    for row in &found {
        files
            .entry(row.try_get(9)?)
            .or_default()
            .push(attachment(row)?);
    }
    Ok(files)
}

/// Reads one file.
pub(super) async fn one(
    conn: &mut Client,
    id: AttachmentId,
) -> Result<Option<KeptAttachment>, DatabaseError> {
    let tx = conn.transaction().await?;
    let sql =
        "SELECT a.seq, a.id, a.name, a.content_type, a.size, a.sha256, a.key, a.expires_at, a.origin, a.source, e.id
               FROM attachment AS a LEFT JOIN event AS e ON e.seq = a.event WHERE a.id = $1";
    rows(&tx, sql, &[&Uuid::from_bytes(*id.as_bytes())])
        .await?
        .first()
        .map(kept)
        .transpose()
}

/// A page of files, newest first.
pub(super) async fn page(
    conn: &mut Client,
    cursor: Option<i64>,
    limit: usize,
) -> Result<Page<KeptAttachment>, DatabaseError> {
    let tx = conn.transaction().await?;
    let limit = limit.clamp(1, PAGE);
    let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut found = rows(
        &tx,
        "SELECT a.seq, a.id, a.name, a.content_type, a.size, a.sha256, a.key, a.expires_at, a.origin, a.source, e.id
         FROM attachment AS a LEFT JOIN event AS e ON e.seq = a.event
         WHERE a.seq < $1 ORDER BY a.seq DESC LIMIT $2",
        &[&cursor.unwrap_or(i64::MAX), &most],
    )
    .await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = match found.last() {
        Some(last) if more => Some(last.try_get(0)?),
        _ => None,
    };
    Ok(Page {
        items: found.iter().map(kept).collect::<Result<_, _>>()?,
        next,
    })
}

/// Files that no event refers to and nobody holds a link to.
pub(super) async fn gone(
    conn: &mut Client,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Attachment>, DatabaseError> {
    let tx = conn.transaction().await?;
    rows(
        &tx,
        "SELECT seq, id, name, content_type, size, sha256, key, expires_at, origin FROM attachment
         WHERE event IS NULL AND expires_at < $1 ORDER BY expires_at, (seq + 0) LIMIT $2",
        &[&now.millis(), &i64::try_from(limit).unwrap_or(i64::MAX)],
    )
    .await?
    .iter()
    .map(attachment)
    .collect()
}

/// Those of these files that are known.
pub(super) async fn known(
    conn: &mut Client,
    ids: &[AttachmentId],
) -> Result<Vec<AttachmentId>, DatabaseError> {
    let tx = conn.transaction().await?;
    let found = rows(
        &tx,
        "SELECT id FROM attachment WHERE id = ANY ($1)",
        &[&uuids(ids)],
    )
    .await?;
    found
        .iter()
        .map(|row| {
            Ok(AttachmentId::from_bytes(
                row.try_get::<_, Uuid>(0)?.into_bytes(),
            ))
        })
        .collect()
}

/// Has the files of an event stay at least until a time.
pub(super) async fn extend(
    conn: &mut Client,
    event: EventId,
    until: Timestamp,
) -> Result<(), DatabaseError> {
    let tx = conn.transaction().await?;
    change(
        &tx,
        "UPDATE attachment SET expires_at = greatest(expires_at, $2)
         WHERE event = (SELECT seq FROM event WHERE id = $1) AND event IS NOT NULL",
        &[&Uuid::from_bytes(*event.as_bytes()), &until.millis()],
    )
    .await?;
    Ok(tx.commit().await?)
}

/// Frees the files of events that go.
pub(super) async fn free(tx: &Transaction<'_>, events: &[i64]) -> Result<(), DatabaseError> {
    let sql = "UPDATE attachment SET event = NULL WHERE event = ANY ($1) AND event IS NOT NULL";
    change(tx, sql, &[&events]).await.map(|_| ())
}

/// Forgets files, whose bytes are gone.
pub(super) async fn forget(
    conn: &mut Client,
    ids: &[AttachmentId],
) -> Result<usize, DatabaseError> {
    let tx = conn.transaction().await?;
    let gone = change(
        &tx,
        "DELETE FROM attachment WHERE id = ANY ($1)",
        &[&uuids(ids)],
    )
    .await?;
    tx.commit().await?;
    Ok(usize::try_from(gone).unwrap_or(usize::MAX))
}

fn uuids(ids: &[AttachmentId]) -> Vec<Uuid> {
    ids.iter()
        .map(|id| Uuid::from_bytes(*id.as_bytes()))
        .collect()
}

fn kept(row: &Row) -> Result<KeptAttachment, DatabaseError> {
    let event: Option<Uuid> = row.try_get(10)?;
    Ok(KeptAttachment {
        attachment: attachment(row)?,
        source: row.try_get(9)?,
        event: event.map(|id| EventId::from_bytes(id.into_bytes())),
    })
}

/// Columns 1 to 8.
fn attachment(row: &Row) -> Result<Attachment, DatabaseError> {
    let digest: &[u8] = row.try_get(5)?;
    Ok(Attachment {
        id: AttachmentId::from_bytes(row.try_get::<_, Uuid>(1)?.into_bytes()),
        name: text(row, 2)?.unwrap_or_default(),
        content_type: text(row, 3)?.unwrap_or_default(),
        size: u64::try_from(row.try_get::<_, i64>(4)?).unwrap_or(0),
        sha256: digest
            .try_into()
            .map_err(|_| DatabaseError::Engine("a file's digest cannot be read".into()))?,
        key: row.try_get(6)?,
        expires_at: Timestamp::from_millis(row.try_get(7)?),
        origin: text(row, 8)?,
    })
}

#[async_trait]
impl KeepFiles for PostgresInbox {
    async fn keep_attachments(
        &self,
        source: &str,
        attachments: Vec<Attachment>,
    ) -> Result<(), InboxError> {
        writing!(self, "keep files", |conn| keep(conn, source, &attachments))
    }

    async fn add_attachments(
        &self,
        event: EventId,
        attachments: Vec<Attachment>,
    ) -> Result<bool, InboxError> {
        writing!(self, "keep files", |conn| add(conn, event, &attachments))
    }

    async fn extend_attachments(&self, event: EventId, until: Timestamp) -> Result<(), InboxError> {
        writing!(self, "keep files longer", |conn| extend(conn, event, until))
    }

    async fn attachment(&self, id: AttachmentId) -> Result<Option<KeptAttachment>, InboxError> {
        reading!(self, "read a file's entry", |conn| one(conn, id))
    }

    async fn attachments(
        &self,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<Page<KeptAttachment>, InboxError> {
        reading!(self, "list files", |conn| page(conn, cursor, limit))
    }

    async fn attachments_gone(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Attachment>, InboxError> {
        reading!(self, "find old files", |conn| gone(conn, now, limit))
    }

    async fn attachments_known(
        &self,
        ids: Vec<AttachmentId>,
    ) -> Result<Vec<AttachmentId>, InboxError> {
        reading!(self, "look files up", |conn| known(conn, &ids))
    }

    async fn forget_attachments(&self, ids: Vec<AttachmentId>) -> Result<usize, InboxError> {
        writing!(self, "forget files", |conn| forget(conn, &ids))
    }
}
