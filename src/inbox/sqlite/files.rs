//! Files that came along: what the inbox knows of them, and which of them can go.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row};

use super::SqliteInbox;
use super::transaction::Transaction;
use crate::inbox::bounds::PAGE;
use crate::inbox::{InboxError, KeepFiles, KeptAttachment, Page};
use crate::model::{Attachment, AttachmentId, EventId, Timestamp};

/// The columns of a list: seq first, then those that [`kept`] reads.
const COLUMNS: &str = "a.seq, a.id, a.name, a.content_type, a.size, a.sha256, a.key, a.expires_at, a.origin, a.source, e.id AS event";

/// Keeps files of an event, or of none.
pub(super) fn insert(
    tx: &Transaction<'_>,
    event: Option<i64>,
    source: &str,
    attachments: &[Attachment],
) -> rusqlite::Result<()> {
    insert_from(tx, event, 0, source, attachments)
}

/// Keeps more files of an event, behind those it has. False: there is no such event.
pub(super) fn add(
    tx: &Transaction<'_>,
    event: EventId,
    attachments: &[Attachment],
) -> rusqlite::Result<bool> {
    let found = tx
        .conn
        .prepare_cached(
            "SELECT e.seq, e.source, (SELECT coalesce(max(a.position) + 1, 0) FROM attachment AS a
                                      INDEXED BY attachment_event WHERE a.event = e.seq AND a.event IS NOT NULL)
             FROM event AS e WHERE e.id = ?1",
        )?
        .query_row([event.as_bytes()], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?)))
        .optional()?;
    let Some((seq, source, from)) = found else {
        return Ok(false);
    };
    insert_from(tx, Some(seq), from, &source, attachments)?;
    Ok(true)
}

fn insert_from(
    tx: &Transaction<'_>,
    event: Option<i64>,
    from: i64,
    source: &str,
    attachments: &[Attachment],
) -> rusqlite::Result<()> {
    let mut statement = tx.conn.prepare_cached(
        "INSERT INTO attachment (id, event, position, source, name, content_type, size, sha256, key, expires_at, origin)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    for (position, file) in (from..).zip(attachments) {
        statement.execute((
            file.id.as_bytes(),
            event,
            position,
            source,
            &file.name,
            &file.content_type,
            i64::try_from(file.size).unwrap_or(i64::MAX),
            file.sha256,
            &file.key,
            file.expires_at.millis(),
            &file.origin,
        ))?;
    }
    Ok(())
}

/// The files of an event, in the order they came.
pub(super) fn of_event(conn: &Connection, event: i64) -> rusqlite::Result<Vec<Attachment>> {
    conn.prepare_cached(
        "SELECT seq, id, name, content_type, size, sha256, key, expires_at, origin FROM attachment
         INDEXED BY attachment_event WHERE event = ?1 ORDER BY position",
    )?
    .query_map([event], attachment)?
    .collect()
}

/// Reads one file.
pub(super) fn one(conn: &Connection, id: AttachmentId) -> rusqlite::Result<Option<KeptAttachment>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM attachment AS a LEFT JOIN event AS e ON e.seq = a.event WHERE a.id = ?1"
    );
    conn.prepare_cached(&sql)?
        .query_row([id.as_bytes()], kept)
        .optional()
}

/// A page of files, newest first.
pub(super) fn page(
    conn: &Connection,
    cursor: Option<i64>,
    limit: usize,
) -> rusqlite::Result<Page<KeptAttachment>> {
    let limit = limit.clamp(1, PAGE);
    let sql = format!(
        "SELECT {COLUMNS} FROM attachment AS a LEFT JOIN event AS e ON e.seq = a.event
         WHERE a.seq < ?1 ORDER BY a.seq DESC LIMIT ?2"
    );
    let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut list = conn
        .prepare_cached(&sql)?
        .query_map((cursor.unwrap_or(i64::MAX), most), |row| {
            Ok((row.get::<_, i64>(0)?, kept(row)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let more = list.len() > limit;
    list.truncate(limit);
    let next = list.last().map(|(seq, _)| *seq).filter(|_| more);
    Ok(Page {
        items: list.into_iter().map(|(_, file)| file).collect(),
        next,
    })
}

/// Files that no event refers to and nobody holds a link to.
pub(super) fn gone(
    conn: &Connection,
    now: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<Attachment>> {
    conn.prepare_cached(
        "SELECT seq, id, name, content_type, size, sha256, key, expires_at, origin FROM attachment
         INDEXED BY attachment_loose WHERE event IS NULL AND expires_at < ?1 ORDER BY expires_at, seq LIMIT ?2",
    )?
    .query_map((now.millis(), i64::try_from(limit).unwrap_or(i64::MAX)), attachment)?
    .collect()
}

/// Those of these files that are known.
pub(super) fn known(
    conn: &Connection,
    ids: &[AttachmentId],
) -> rusqlite::Result<Vec<AttachmentId>> {
    let mut statement =
        conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM attachment WHERE id = ?1)")?;
    let mut known = Vec::new();
    for id in ids {
        if statement.query_row([id.as_bytes()], |row| row.get(0))? {
            known.push(*id);
        }
    }
    Ok(known)
}

/// Has the files of an event stay at least until a time.
pub(super) fn extend(
    tx: &Transaction<'_>,
    event: EventId,
    until: Timestamp,
) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached(
            "UPDATE attachment SET expires_at = max(expires_at, ?2)
             WHERE event = (SELECT seq FROM event WHERE id = ?1) AND event IS NOT NULL",
        )?
        .execute((event.as_bytes(), until.millis()))
        .map(|_| ())
}

/// Forgets files, whose bytes are gone.
pub(super) fn forget(tx: &Transaction<'_>, ids: &[AttachmentId]) -> rusqlite::Result<usize> {
    let mut statement = tx
        .conn
        .prepare_cached("DELETE FROM attachment WHERE id = ?1")?;
    ids.iter()
        .try_fold(0, |gone, id| Ok(gone + statement.execute([id.as_bytes()])?))
}

fn kept(row: &Row<'_>) -> rusqlite::Result<KeptAttachment> {
    Ok(KeptAttachment {
        attachment: attachment(row)?,
        source: row.get(9)?,
        event: row.get::<_, Option<[u8; 16]>>(10)?.map(EventId::from_bytes),
    })
}

/// Columns 1 to 8.
fn attachment(row: &Row<'_>) -> rusqlite::Result<Attachment> {
    Ok(Attachment {
        id: AttachmentId::from_bytes(row.get(1)?),
        name: row.get(2)?,
        content_type: row.get(3)?,
        size: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
        sha256: row.get(5)?,
        key: row.get(6)?,
        expires_at: Timestamp::from_millis(row.get(7)?),
        origin: row.get(8)?,
    })
}

#[async_trait]
impl KeepFiles for SqliteInbox {
    async fn keep_attachments(
        &self,
        source: &str,
        attachments: Vec<Attachment>,
    ) -> Result<(), InboxError> {
        let source = source.to_owned();
        self.write("keep files", move |tx| {
            insert(tx, None, &source, &attachments)
        })
        .await
    }

    async fn add_attachments(
        &self,
        event: EventId,
        attachments: Vec<Attachment>,
    ) -> Result<bool, InboxError> {
        self.write("keep files", move |tx| add(tx, event, &attachments))
            .await
    }

    async fn extend_attachments(&self, event: EventId, until: Timestamp) -> Result<(), InboxError> {
        self.write("keep files longer", move |tx| extend(tx, event, until))
            .await
    }

    async fn attachment(&self, id: AttachmentId) -> Result<Option<KeptAttachment>, InboxError> {
        self.readers
            .ask("read a file's entry", move |conn| one(conn, id))
            .await
    }

    async fn attachments(
        &self,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<Page<KeptAttachment>, InboxError> {
        self.readers
            .ask("list files", move |conn| page(conn, cursor, limit))
            .await
    }

    async fn attachments_gone(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Attachment>, InboxError> {
        self.readers
            .ask("find old files", move |conn| gone(conn, now, limit))
            .await
    }

    async fn attachments_known(
        &self,
        ids: Vec<AttachmentId>,
    ) -> Result<Vec<AttachmentId>, InboxError> {
        self.readers
            .ask("look files up", move |conn| known(conn, &ids))
            .await
    }

    async fn forget_attachments(&self, ids: Vec<AttachmentId>) -> Result<usize, InboxError> {
        self.write("forget files", move |tx| forget(tx, &ids)).await
    }
}
