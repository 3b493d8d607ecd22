//! Proofs that were used: looked up and written with the batch that uses them, or by themselves for a request that is
//! passed on.
//!
//! Rows are written in the order of the marks and after those of the events, so that two batches with the same proofs
//! do not wait for each other. A proof that another batch used in between has this one tried again, which finds it.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::{Client, Transaction};
use uuid::Uuid;

use super::database::{change, rows};
use super::error::DatabaseError;
use crate::inbox::bounds::SWEPT_PROOFS;
use crate::model::{Accepted, EventId, NewEvent, ProofMark, Timestamp, UsedProof};

/// The user of the proofs of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Played {
    /// An event that is kept.
    By(EventId),
    /// A request that was passed on.
    PassedOn,
    /// The event at this place of the same batch.
    With(usize),
}

/// The proofs of a batch that were used before.
#[derive(Debug, Default)]
pub(super) struct KnownProofs(HashMap<ProofMark, ProofRow>);

#[derive(Clone, Copy, Debug)]
struct ProofRow {
    event: Option<(i64, EventId)>,
    until: Option<i64>,
}

/// Looks the proofs of a batch up.
pub(super) async fn used(
    tx: &Transaction<'_>,
    events: &[&NewEvent],
) -> Result<KnownProofs, DatabaseError> {
    let marks: Vec<&[u8]> = marks(events).map(|mark| mark.0.as_slice()).collect();
    if marks.is_empty() {
        return Ok(KnownProofs::default());
    }
    let found = rows(
        tx,
        "SELECT p.mark, p.until, e.seq, e.id FROM proof AS p LEFT JOIN event AS e ON e.seq = p.event
         WHERE p.mark = ANY ($1)",
        &[&marks],
    )
    .await?;
    let mut used = HashMap::new();
    for row in &found {
        let mark: &[u8] = row.try_get(0)?;
        let Ok(mark) = mark.try_into() else { continue };
        let event: (Option<i64>, Option<Uuid>) = (row.try_get(2)?, row.try_get(3)?);
        let event = event
            .0
            .zip(event.1)
            .map(|(seq, id)| (seq, EventId::from_bytes(id.into_bytes())));
        used.insert(
            ProofMark(mark),
            ProofRow {
                event,
                until: row.try_get(1)?,
            },
        );
    }
    Ok(KnownProofs(used))
}

fn marks<'e>(events: &'e [&NewEvent]) -> impl Iterator<Item = &'e ProofMark> {
    events
        .iter()
        .filter_map(|event| event.proof.as_ref())
        .flat_map(|proof| &proof.marks)
}

impl KnownProofs {
    /// The row of a proof that counts as used.
    fn holds(&self, mark: &ProofMark, now: Timestamp) -> Option<ProofRow> {
        self.0
            .get(mark)
            .copied()
            .filter(|row| row.until.is_none_or(|until| until > now.millis()))
    }

    /// Finds the user of the proofs of each event; `None` where one of them is new, or nothing was proved.
    pub(super) fn played(&self, events: &[&NewEvent]) -> Vec<Option<Played>> {
        let mut first: HashMap<ProofMark, usize> = HashMap::new();
        let mut all = Vec::with_capacity(events.len());
        for (place, event) in events.iter().enumerate() {
            let marks = event.proof.as_ref().map_or(&[][..], |proof| &proof.marks);
            let mut played = None;
            for mark in marks {
                let by = match self.holds(mark, event.received_at) {
                    Some(ProofRow {
                        event: Some((_, id)),
                        ..
                    }) => Some(Played::By(id)),
                    Some(ProofRow { event: None, .. }) => Some(Played::PassedOn),
                    None => first.get(mark).copied().map(Played::With),
                };
                let Some(by) = by else {
                    played = None;
                    break;
                };
                played = played
                    .filter(|played| *played != Played::PassedOn)
                    .or(Some(by));
            }
            if played.is_none() {
                for mark in marks {
                    first.entry(*mark).or_insert(place);
                }
            }
            all.push(played);
        }
        all
    }

    /// Writes down what a batch used, and what came again. A sender that tries again signs again, and that signature is
    /// not to be good for a second run either.
    pub(super) async fn write(
        &self,
        tx: &Transaction<'_>,
        events: &[&NewEvent],
        answers: &[Option<Accepted>],
        kept: &HashMap<EventId, i64>,
    ) -> Result<(), DatabaseError> {
        let firsts = firsts(tx, answers, kept).await?;
        let mut new: BTreeMap<ProofMark, (i64, Option<i64>)> = BTreeMap::new();
        let mut noted: BTreeMap<i64, ReplayNote> = BTreeMap::new();
        let mut now = Timestamp::from_millis(i64::MAX);
        for (event, answer) in events.iter().zip(answers) {
            let first = match answer {
                Some(Accepted::New) => event.id,
                Some(Accepted::Duplicate(id) | Accepted::Replayed(id)) => *id,
                _ => continue,
            };
            let Some(seq) = kept.get(&first).or_else(|| firsts.get(&first)).copied() else {
                continue;
            };
            if matches!(answer, Some(Accepted::Replayed(_))) {
                noted.entry(seq).or_default().replayed(event.received_at);
                continue;
            }
            for (proof, mark) in event
                .proof
                .iter()
                .flat_map(|proof| proof.marks.iter().map(move |mark| (proof, mark)))
            {
                if self.holds(mark, event.received_at).is_some() || new.contains_key(mark) {
                    continue;
                }
                new.insert(*mark, (seq, proof.until.map(Timestamp::millis)));
                now = now.min(event.received_at);
                if *answer != Some(Accepted::New) {
                    noted
                        .entry(seq)
                        .or_default()
                        .marks
                        .extend_from_slice(&mark.0);
                }
            }
        }
        insert(tx, &new, now).await?;
        note(tx, &noted).await
    }
}

/// Notes for an event that was there before.
#[derive(Debug, Default)]
struct ReplayNote {
    replays: i64,
    last: i64,
    marks: Vec<u8>,
}

impl ReplayNote {
    fn replayed(&mut self, at: Timestamp) {
        self.replays += 1;
        self.last = self.last.max(at.millis());
    }
}

/// The numbers of the events that came before this batch.
async fn firsts(
    tx: &Transaction<'_>,
    answers: &[Option<Accepted>],
    kept: &HashMap<EventId, i64>,
) -> Result<HashMap<EventId, i64>, DatabaseError> {
    let ids = answers.iter().filter_map(|answer| match answer {
        Some(Accepted::Duplicate(id) | Accepted::Replayed(id)) if !kept.contains_key(id) => {
            Some(id)
        }
        _ => None,
    });
    let ids: Vec<Uuid> = ids.map(|id| Uuid::from_bytes(*id.as_bytes())).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let found = rows(tx, "SELECT id, seq FROM event WHERE id = ANY ($1)", &[&ids]).await?;
    found
        .iter()
        .map(|row| {
            Ok((
                EventId::from_bytes(row.try_get::<_, Uuid>(0)?.into_bytes()),
                row.try_get(1)?,
            ))
        })
        .collect()
}

async fn insert(
    tx: &Transaction<'_>,
    new: &BTreeMap<ProofMark, (i64, Option<i64>)>,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    if new.is_empty() {
        return Ok(());
    }
    let marks: Vec<&[u8]> = new.keys().map(|mark| mark.0.as_slice()).collect();
    let (events, untils): (Vec<i64>, Vec<Option<i64>>) = new.values().copied().unzip();
    let written = change(
        tx,
        "INSERT INTO proof AS p (mark, event, until)
         SELECT n.mark, n.event, n.until FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS n (mark, event, until)
         ORDER BY n.mark
         ON CONFLICT (mark) DO UPDATE SET event = excluded.event, until = excluded.until WHERE p.until <= $4::bigint",
        &[&marks, &events, &untils, &now.millis()],
    )
    .await?;
    if written == marks.len() as u64 {
        return Ok(());
    }
    Err(DatabaseError::Again(
        "a proof was used by another while an event with it came in".into(),
    ))
}

/// In the order of the events, so that two who note do not wait for each other.
async fn note(
    tx: &Transaction<'_>,
    noted: &BTreeMap<i64, ReplayNote>,
) -> Result<(), DatabaseError> {
    if noted.is_empty() {
        return Ok(());
    }
    let seqs: Vec<i64> = noted.keys().copied().collect();
    let locked = rows(
        tx,
        "SELECT seq FROM event WHERE seq = ANY ($1) ORDER BY seq FOR UPDATE",
        &[&seqs],
    )
    .await?;
    if locked.len() != seqs.len() {
        return Err(DatabaseError::Again(
            "an event was removed while a copy of it came in".into(),
        ));
    }
    let replays: Vec<i64> = noted.values().map(|note| note.replays).collect();
    let lasts: Vec<Option<i64>> = noted
        .values()
        .map(|note| (note.replays > 0).then_some(note.last))
        .collect();
    let marks: Vec<&[u8]> = noted.values().map(|note| note.marks.as_slice()).collect();
    change(
        tx,
        "UPDATE event AS e SET replays = e.replays + n.replays, replayed_at = greatest(e.replayed_at, n.last),
                proofs = nullif(coalesce(e.proofs, '') || n.marks, '')
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[]) AS n (seq, replays, last, marks)
         WHERE e.seq = n.seq",
        &[&seqs, &replays, &lasts, &marks],
    )
    .await
    .map(|_| ())
}

/// Uses up the proofs of a request that is passed on. False: they were used before.
pub(super) async fn pass_on(
    conn: &mut Client,
    proof: &UsedProof,
    now: Timestamp,
) -> Result<bool, DatabaseError> {
    let tx = conn.transaction().await?;
    let mut marks: Vec<&[u8]> = proof.marks.iter().map(|mark| mark.0.as_slice()).collect();
    marks.sort_unstable();
    marks.dedup();
    let written = change(
        &tx,
        "INSERT INTO proof AS p (mark, event, until) SELECT n.mark, NULL, $2::bigint FROM unnest($1::bytea[]) AS n (mark)
         ORDER BY n.mark
         ON CONFLICT (mark) DO UPDATE SET event = NULL, until = excluded.until WHERE p.until <= $3::bigint",
        &[&marks, &proof.until.map(Timestamp::millis), &now.millis()],
    )
    .await?;
    tx.commit().await?;
    Ok(marks.is_empty() || written > 0)
}

/// Takes back what a request used up that was to be passed on and reached nobody.
pub(super) async fn free(conn: &mut Client, marks: &[ProofMark]) -> Result<(), DatabaseError> {
    let tx = conn.transaction().await?;
    let marks: Vec<&[u8]> = marks.iter().map(|mark| mark.0.as_slice()).collect();
    change(
        &tx,
        "DELETE FROM proof WHERE mark = ANY ($1) AND event IS NULL",
        &[&marks],
    )
    .await?;
    Ok(tx.commit().await?)
}

/// Forgets the proofs of events that have gone.
pub(super) async fn gone(
    tx: &Transaction<'_>,
    events: &[i64],
    proofs: impl Iterator<Item = &Vec<u8>>,
) -> Result<(), DatabaseError> {
    let marks: Vec<&[u8]> = proofs.flat_map(|proofs| proofs.chunks_exact(32)).collect();
    if marks.is_empty() {
        return Ok(());
    }
    change(
        tx,
        "DELETE FROM proof WHERE mark = ANY ($1) AND event = ANY ($2)",
        &[&marks, &events],
    )
    .await
    .map(|_| ())
}

/// Forgets proofs of requests that were passed on, whose time is over. True: there may be more.
pub(super) async fn forget(conn: &mut Client, now: Timestamp) -> Result<bool, DatabaseError> {
    let tx = conn.transaction().await?;
    let gone = change(
        &tx,
        "DELETE FROM proof WHERE mark IN (SELECT mark FROM proof WHERE event IS NULL AND until <= $1
                                          ORDER BY until LIMIT $2 FOR UPDATE SKIP LOCKED)",
        &[&now.millis(), &SWEPT_PROOFS],
    )
    .await?;
    tx.commit().await?;
    Ok(i64::try_from(gone).is_ok_and(|gone| gone == SWEPT_PROOFS))
}

/// The marks of an event, as they stand with it.
pub(super) fn written(event: &NewEvent) -> Option<Vec<u8>> {
    event
        .proof
        .as_ref()
        .map(|proof| proof.marks.iter().flat_map(|mark| mark.0).collect())
}
