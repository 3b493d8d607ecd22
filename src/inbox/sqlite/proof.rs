//! Proofs that were used: looked up and written with the event that used them, or by themselves for a request that is
//! passed on. Those of the last events are not in the index yet, see `young`.

use rusqlite::OptionalExtension as _;

use super::transaction::Transaction;
use super::young::{ProofUse, marks};
use crate::inbox::bounds::SWEPT_PROOFS;
use crate::model::{EventId, NewEvent, ProofMark, Timestamp, UsedProof};

/// Marks that a turn puts into the index at least, while some are on their way there.
const STEP: usize = 32;

/// Finds the event that used the proofs of this one before; the inner `None` where that was passed on. `None` where one of them is
/// new, or nothing was proved.
pub(super) fn used(
    tx: &Transaction<'_>,
    proof: Option<&UsedProof>,
    now: Timestamp,
) -> rusqlite::Result<Option<Option<(i64, EventId)>>> {
    let Some(proof) = proof.filter(|proof| !proof.marks.is_empty()) else {
        return Ok(None);
    };
    let mut look = tx.conn.prepare_cached(
        "SELECT event FROM proof WHERE mark = ?1 AND (until IS NULL OR until > ?2)",
    )?;
    let mut first = None;
    for mark in &proof.marks {
        let found = match tx.young.used(&tx.staged, *mark, now) {
            Some(event) => Some(Some(event)),
            None => look
                .query_row((mark.0.as_slice(), now.millis()), |row| row.get(0))
                .optional()?,
        };
        let Some(event) = found else { return Ok(None) };
        first = first.or(event);
    }
    let Some(seq) = first else {
        return Ok(Some(None));
    };
    tx.conn
        .prepare_cached("SELECT id FROM event WHERE seq = ?1")?
        .query_row([seq], |row| row.get(0).map(EventId::from_bytes))
        .optional()
        .map(|id| Some(id.map(|id| (seq, id))))
}

/// Notes that an event came again.
pub(super) fn replayed(tx: &Transaction<'_>, seq: i64, now: Timestamp) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached(
            "UPDATE event SET replays = replays + 1, replayed_at = max(coalesce(replayed_at, 0), ?2) WHERE seq = ?1",
        )?
        .execute((seq, now.millis()))
        .map(|_| ())
}

/// Uses up the proofs of an event that is being kept.
pub(super) fn keep(tx: &mut Transaction<'_>, seq: i64, event: &NewEvent) {
    let Some(proof) = &event.proof else { return };
    for mark in &proof.marks {
        // Of several, one may be another event's already: it stays with that one.
        if tx
            .young
            .used(&tx.staged, *mark, event.received_at)
            .is_none()
        {
            tx.staged.uses(
                *mark,
                ProofUse {
                    event: seq,
                    until: proof.until,
                    at: event.received_at,
                },
            );
        }
    }
}

/// Adds the proofs of another request with the same event: a sender that tries again signs again, and that signature is
/// not to be good for a second run either.
pub(super) fn add(tx: &Transaction<'_>, first: EventId, event: &NewEvent) -> rusqlite::Result<()> {
    let Some(proof) = &event.proof else {
        return Ok(());
    };
    let found = tx
        .conn
        .prepare_cached("SELECT seq, proofs FROM event WHERE id = ?1")?
        .query_row([first.as_bytes()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<Vec<u8>>>(1)?))
        })
        .optional()?;
    let Some((seq, proofs)) = found else {
        return Ok(());
    };
    let mut proofs = proofs.unwrap_or_default();
    let before = proofs.len();
    for mark in &proof.marks {
        if tx
            .young
            .used(&tx.staged, *mark, event.received_at)
            .is_none()
            && write(tx, *mark, Some(seq), proof.until, event.received_at)?
        {
            proofs.extend_from_slice(&mark.0);
        }
    }
    if proofs.len() > before {
        tx.conn
            .prepare_cached("UPDATE event SET proofs = ?2 WHERE seq = ?1")?
            .execute((seq, proofs))?;
    }
    Ok(())
}

/// Writes a proof into the index, unless it counts as used there.
pub(super) fn write(
    tx: &Transaction<'_>,
    mark: ProofMark,
    event: Option<i64>,
    until: Option<Timestamp>,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let written = tx
        .conn
        .prepare_cached(
            "INSERT INTO proof (mark, event, until) VALUES (?1, ?2, ?3)
             ON CONFLICT (mark) DO UPDATE SET event = excluded.event, until = excluded.until WHERE until <= ?4",
        )?
        .execute((mark.0.as_slice(), event, until.map(Timestamp::millis), now.millis()))?;
    Ok(written == 1)
}

/// Uses up the proofs of a request that is passed on. False: they were used before.
pub(super) fn pass_on(
    tx: &Transaction<'_>,
    proof: &UsedProof,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    if used(tx, Some(proof), now)?.is_some() {
        return Ok(false);
    }
    for mark in &proof.marks {
        write(tx, *mark, None, proof.until, now)?;
    }
    Ok(true)
}

/// Takes back what a request used up that was to be passed on and reached nobody.
pub(super) fn free(tx: &Transaction<'_>, marks: &[ProofMark]) -> rusqlite::Result<()> {
    let mut free = tx
        .conn
        .prepare_cached("DELETE FROM proof WHERE mark = ?1 AND event IS NULL")?;
    for mark in marks {
        free.execute([mark.0.as_slice()])?;
    }
    Ok(())
}

/// Forgets the proofs of an event that has gone.
pub(super) fn gone(tx: &mut Transaction<'_>, seq: i64, proofs: &[u8]) -> rusqlite::Result<()> {
    let mut forget = tx
        .conn
        .prepare_cached("DELETE FROM proof WHERE mark = ?1 AND event = ?2")?;
    for mark in marks(proofs) {
        tx.staged.frees(mark, seq);
        forget.execute((mark.0.as_slice(), seq))?;
    }
    Ok(())
}

/// Forgets proofs of requests that were passed on, whose time is over. True: there may be more.
pub(super) fn forget(tx: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<bool> {
    let gone = tx
        .conn
        .prepare_cached(
            "DELETE FROM proof WHERE mark IN
                (SELECT mark FROM proof INDEXED BY proof_until WHERE event IS NULL AND until <= ?1 LIMIT ?2)",
        )?
        .execute((now.millis(), SWEPT_PROOFS))?;
    Ok(i64::try_from(gone).is_ok_and(|gone| gone == SWEPT_PROOFS))
}

/// The marks of an event, as they stand with it.
pub(super) fn written(event: &NewEvent) -> Option<Vec<u8>> {
    event
        .proof
        .as_ref()
        .map(|proof| proof.marks.iter().flat_map(|mark| mark.0).collect())
}

/// Puts the next marks of young events into the index: twice as many as the turn used up, so that it comes to an end.
pub(super) fn move_young(tx: &mut Transaction<'_>) -> rusqlite::Result<()> {
    let young = tx.young;
    let (marks, are_last) = young.next(STEP.max(2 * tx.staged.used()));
    let mut moved = false;
    for (mark, by) in marks {
        if !tx.staged.is_gone(*mark, by.event) {
            write(tx, *mark, Some(by.event), by.until, by.at)?;
        }
        tx.staged.moved(*mark);
        moved = true;
    }
    if moved && are_last {
        tx.conn
            .prepare_cached("UPDATE proof_place SET event = ?1")?
            .execute([young.moved_to()])?;
    }
    Ok(())
}
