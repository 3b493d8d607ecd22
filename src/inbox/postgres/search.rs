//! The words of bodies, for whoever searches: filled behind the events, never on the way of one.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Client;

use super::database::{Database, change, rows};
use super::error::DatabaseError;

/// Bodies that are read together.
const CHUNK: i64 = 100;

/// Bytes of a body that are searched.
const BODY: i32 = 128 << 10;

/// Pause when there was nothing to do.
const PAUSE: Duration = Duration::from_secs(1);

/// Distance behind the last number that was seen, over which it looks for events whose commit came late.
const LATE: i64 = 5_000;

/// The advisory lock of the replica that fills; its value has no meaning but must never change.
const TURN: i64 = 0x534c_5543_574f_5244;

/// Fills until it is stopped. Of several replicas one does it at a time.
pub(super) async fn run(database: Arc<Database>) {
    let mut said = false;
    loop {
        match database.write(|conn| Box::pin(fill(conn))).await {
            Ok(true) => said = false,
            Ok(false) => tokio::time::sleep(PAUSE).await,
            Err(fault) => {
                if !said {
                    tracing::warn!(cause = ?fault, "words of new events are not found for now");
                }
                said = true;
                tokio::time::sleep(PAUSE * 5).await;
            }
        }
    }
}

/// Takes some bodies' words in. False: there were fewer than could have been taken.
async fn fill(conn: &mut Client) -> Result<bool, DatabaseError> {
    let tx = conn.transaction().await?;
    let mine = rows(&tx, "SELECT pg_try_advisory_xact_lock($1)", &[&TURN]).await?;
    if mine
        .first()
        .is_none_or(|row| row.try_get(0).ok() != Some(true))
    {
        return Ok(false);
    }
    let found = rows(
        &tx,
        "SELECT b.seq, substring(b.body FROM 1 FOR $2) FROM body AS b
         WHERE b.seq > (SELECT u.seq - $3 FROM words_until AS u WHERE u.id = 1)
            AND NOT EXISTS (SELECT FROM words AS w WHERE w.seq = b.seq)
         ORDER BY b.seq LIMIT $1",
        &[&CHUNK, &BODY, &LATE],
    )
    .await?;
    let mut seqs = Vec::with_capacity(found.len());
    let mut texts = Vec::with_capacity(found.len());
    for row in &found {
        seqs.push(row.try_get::<_, i64>(0)?);
        texts.push(String::from_utf8_lossy(row.try_get(1)?).replace('\0', " "));
    }
    let Some(last) = seqs.last() else {
        return Ok(false);
    };
    change(
        &tx,
        "INSERT INTO words (seq, words) SELECT n.seq, to_tsvector('simple', n.body)
         FROM unnest($1::bigint[], $2::text[]) AS n (seq, body) ON CONFLICT DO NOTHING",
        &[&seqs, &texts],
    )
    .await?;
    change(
        &tx,
        "UPDATE words_until SET seq = greatest(seq, $1) WHERE id = 1",
        &[last],
    )
    .await?;
    tx.commit().await?;
    Ok(i64::try_from(seqs.len()).is_ok_and(|count| count == CHUNK))
}
