//! The words of bodies, so that events are found by them: put into an index behind the events' backs, never while one
//! is being acknowledged.

use std::sync::Weak;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};
use tokio::sync::mpsc;

use super::reader::Readers;
use super::transaction::Transaction;
use super::work::{QueuedWork, WriterMessage};
use crate::inbox::InboxError;
use crate::inbox::queue::QueueWeight;

/// Bytes of a body that are put into the index.
const LONGEST: usize = 64 << 10;

/// Bodies that go into the index in one turn of the writer, and how many bytes of them.
const CHUNK: i64 = 100;
const BYTES: usize = 256 << 10;

/// Pause before new events are looked for.
const REST: Duration = Duration::from_secs(1);

/// Words to look for, in lower case.
pub(super) fn of(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_lowercase).collect()
}

/// The same as the index wants them: each as it stands, all of them somewhere.
pub(super) fn query(words: &[String]) -> String {
    words
        .iter()
        .map(|word| format!("\"{}\"", word.replace('"', "\"\"")))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The part of a body that can be searched.
pub(super) fn text(body: &[u8]) -> Option<&str> {
    let start = body.get(..LONGEST).unwrap_or(body);
    match std::str::from_utf8(start) {
        Ok(text) => Some(text),
        // Cut within a character.
        Err(error) if start.len() < body.len() && error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

/// Some events that are not in the index yet.
struct Unindexed {
    upto: i64,
    texts: Vec<(i64, String)>,
}

/// Fills the index in, until the inbox closes.
pub(super) async fn fill(readers: Weak<Readers>, queue: mpsc::WeakSender<WriterMessage>) {
    let mut said = false;
    loop {
        let Some(asked) = readers.upgrade() else {
            return;
        };
        let more = match step(&asked, &queue).await {
            Ok(more) => {
                said = false;
                more
            }
            Err(InboxError::Closed) => return,
            Err(error) => {
                if !said {
                    tracing::warn!(%error, "words of new events are not found for now");
                }
                said = true;
                false
            }
        };
        drop(asked);
        if !more {
            tokio::time::sleep(REST).await;
        }
    }
}

/// True if there may be more.
async fn step(
    readers: &Readers,
    queue: &mpsc::WeakSender<WriterMessage>,
) -> Result<bool, InboxError> {
    let Some(behind) = readers.ask("read what is to be searched", look).await? else {
        return Ok(false);
    };
    let weight = QueueWeight::free(0);
    let (job, end) = QueuedWork::new("index words", weight, move |tx| put(tx, &behind), |()| ());
    // The sender is not held while there is anything to wait for: the writer ends when the last one has gone.
    match queue
        .upgrade()
        .ok_or(InboxError::Closed)?
        .try_send(WriterMessage::Work(Box::new(job)))
    {
        Ok(()) => end.await.unwrap_or(Err(InboxError::Closed)).map(|()| true),
        Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
        Err(mpsc::error::TrySendError::Closed(_)) => Err(InboxError::Closed),
    }
}

fn look(conn: &Connection) -> rusqlite::Result<Option<Unindexed>> {
    let upto: i64 = conn
        .prepare_cached("SELECT seq FROM words_upto")?
        .query_row([], |row| row.get(0))?;
    let mut statement =
        conn.prepare_cached("SELECT seq, body FROM body WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let mut rows = statement.query((upto, CHUNK))?;
    let mut behind = Unindexed {
        upto,
        texts: Vec::new(),
    };
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        behind.upto = row.get(0)?;
        if let Some(text) = text(row.get_ref(1)?.as_blob()?) {
            bytes += text.len();
            behind.texts.push((behind.upto, text.to_owned()));
        }
        if bytes >= BYTES {
            break;
        }
    }
    Ok((behind.upto > upto).then_some(behind))
}

fn put(tx: &Transaction<'_>, behind: &Unindexed) -> rusqlite::Result<()> {
    let mut insert = tx.conn.prepare_cached(
        "INSERT INTO words (rowid, body) SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM event WHERE seq = ?1)
            AND ?1 > (SELECT seq FROM words_upto)",
    )?;
    for (seq, text) in &behind.texts {
        insert.execute((seq, text))?;
    }
    tx.conn
        .prepare_cached("UPDATE words_upto SET seq = max(seq, ?1)")?
        .execute([behind.upto])
        .map(|_| ())
}

/// Takes an event out of the index, if it is in it.
pub(super) fn remove(tx: &Transaction<'_>, seq: i64) -> rusqlite::Result<()> {
    let upto: Option<i64> = tx
        .conn
        .prepare_cached("SELECT seq FROM words_upto")?
        .query_row([], |row| row.get(0))
        .optional()?;
    if upto.is_some_and(|upto| seq <= upto) {
        tx.conn
            .prepare_cached("DELETE FROM words WHERE rowid = ?1")?
            .execute([seq])?;
    }
    Ok(())
}
