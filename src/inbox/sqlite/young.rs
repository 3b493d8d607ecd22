//! Proofs of the last events, which are not in the index of proofs yet.
//!
//! A proof's mark is random, so the index would change a page of its own for each event, and every page that changes is
//! written with the commit. The marks stand with their event in any case. They are put into the index later: sorted,
//! and one stretch of it after the other, so that many marks share a page. Until then they are looked up here; after
//! a restart they are read from the events.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;

use rusqlite::Connection;

use crate::model::{ProofMark, Timestamp};

/// Marks that are gathered before they go into the index.
const GATHERED: usize = if cfg!(test) { 100 } else { 16_384 };

/// The use of a proof by an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProofUse {
    /// The event's number.
    pub(super) event: i64,
    /// The time when the proof may be used again; none while the event is kept.
    pub(super) until: Option<Timestamp>,
    /// The time when the event came.
    pub(super) at: Timestamp,
}

impl ProofUse {
    fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

/// The proofs that are not in the index, of events that are on disk.
#[derive(Debug, Default)]
pub(super) struct Young {
    gathered: HashMap<ProofMark, ProofUse>,
    /// Those that go into the index now, in its order.
    moving: BTreeMap<ProofMark, ProofUse>,
    /// The last event that has a mark in `moving` or had one.
    moved_to: i64,
    /// The last event of all.
    last: i64,
}

/// Changes of a transaction to it, which hold if it is committed.
#[derive(Clone, Debug, Default)]
pub(super) struct Staged {
    used: HashMap<ProofMark, ProofUse>,
    /// Marks of events that the turn removed.
    gone: HashSet<(ProofMark, i64)>,
    moved: Vec<ProofMark>,
}

impl Staged {
    /// Number of marks that the turn used up.
    pub(super) fn used(&self) -> usize {
        self.used.len()
    }

    /// True if the turn removed the event that used a mark.
    pub(super) fn is_gone(&self, mark: ProofMark, event: i64) -> bool {
        self.gone.contains(&(mark, event))
    }

    /// Notes that a mark is in the index.
    pub(super) fn moved(&mut self, mark: ProofMark) {
        self.moved.push(mark);
    }

    /// Notes that an event uses a proof up.
    pub(super) fn uses(&mut self, mark: ProofMark, by: ProofUse) {
        self.used.insert(mark, by);
    }

    /// Notes that an event has gone, and frees its proof.
    pub(super) fn frees(&mut self, mark: ProofMark, event: i64) {
        if self.used.get(&mark).is_some_and(|by| by.event == event) {
            self.used.remove(&mark);
        }
        self.gone.insert((mark, event));
    }
}

impl Young {
    /// Reads what the last run did not put into the index.
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let mut young = Self::default();
        let mut events = conn.prepare(
            "SELECT seq, received_at, proofs_until, proofs FROM event
             WHERE seq > (SELECT event FROM proof_place) AND proofs IS NOT NULL ORDER BY seq",
        )?;
        let mut rows = events.query([])?;
        while let Some(row) = rows.next()? {
            let by = ProofUse {
                event: row.get(0)?,
                at: Timestamp::from_millis(row.get(1)?),
                until: row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis),
            };
            for mark in marks(row.get_ref(3)?.as_blob()?) {
                // One that held when this event came stays with the event that had it.
                let first = young
                    .gathered
                    .get(&mark)
                    .is_some_and(|first| first.holds(by.at));
                if !first {
                    young.gathered.insert(mark, by);
                }
            }
            young.last = by.event;
        }
        Ok(young)
    }

    /// The event that uses a proof, where that is known here.
    pub(super) fn used(&self, staged: &Staged, mark: ProofMark, now: Timestamp) -> Option<i64> {
        if let Some(by) = staged.used.get(&mark).filter(|by| by.holds(now)) {
            return Some(by.event);
        }
        [self.gathered.get(&mark), self.moving.get(&mark)]
            .into_iter()
            .flatten()
            .find(|by| by.holds(now) && !staged.gone.contains(&(mark, by.event)))
            .map(|by| by.event)
    }

    /// The next marks on their way into the index, no more than `most`; true if they are the last.
    pub(super) fn next(
        &self,
        most: usize,
    ) -> (impl Iterator<Item = (&ProofMark, &ProofUse)>, bool) {
        (self.moving.iter().take(most), most >= self.moving.len())
    }

    /// The last event whose marks are in the index once all that are on their way have arrived.
    pub(super) const fn moved_to(&self) -> i64 {
        self.moved_to
    }

    /// Takes over what a committed turn changed.
    pub(super) fn commit(&mut self, staged: Staged) {
        for mark in staged.moved {
            self.moving.remove(&mark);
        }
        for (mark, event) in staged.gone {
            if self.gathered.get(&mark).is_some_and(|by| by.event == event) {
                self.gathered.remove(&mark);
            }
            if self.moving.get(&mark).is_some_and(|by| by.event == event) {
                self.moving.remove(&mark);
            }
        }
        for (mark, by) in staged.used {
            self.last = self.last.max(by.event);
            self.gathered.insert(mark, by);
        }
        if self.moving.is_empty() && self.gathered.len() >= GATHERED {
            self.moving = mem::take(&mut self.gathered).into_iter().collect();
            self.moved_to = self.last;
        }
    }
}

/// The marks that stand with an event.
pub(super) fn marks(proofs: &[u8]) -> impl Iterator<Item = ProofMark> + '_ {
    proofs
        .as_chunks::<32>()
        .0
        .iter()
        .map(|mark| ProofMark(*mark))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;
    use std::time::Duration;

    use sha2::{Digest as _, Sha256};

    use crate::inbox::sqlite::{SqliteInbox, SqliteOptions, tests::event};
    use crate::inbox::{Accept as _, Keep, KeepTimes, Upkeep as _};
    use crate::model::{Accepted, EventId, NewEvent, ProofMark, Timestamp, UsedProof};

    /// A mark as random as a digest, and the same in each run.
    fn mark(number: u64) -> ProofMark {
        ProofMark(Sha256::digest(number.to_be_bytes()).into())
    }

    fn proved(number: u64, until: Option<i64>, now: i64) -> NewEvent {
        let until = until.map(Timestamp::from_millis);
        let proof = Some(UsedProof {
            marks: vec![mark(number)],
            until,
        });
        NewEvent {
            proof,
            received_at: Timestamp::from_millis(now),
            ..event(1)
        }
    }

    async fn open(path: &Path) -> SqliteInbox {
        SqliteInbox::open(path, SqliteOptions::default())
            .await
            .unwrap()
    }

    async fn indexed(inbox: &SqliteInbox) -> i64 {
        let count = "SELECT count(*) FROM proof";
        inbox
            .write("look", move |tx| {
                tx.conn.query_row(count, [], |row| row.get(0))
            })
            .await
            .unwrap()
    }

    /// Each proof of the numbers is used, by the event with this id.
    async fn all_used(inbox: &SqliteInbox, first: &[EventId], now: i64) {
        for (number, id) in (0..).zip(first) {
            assert_eq!(
                inbox.accept(proved(number, None, now)).await.unwrap(),
                Accepted::Replayed(*id),
                "{number}"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_proof_is_known_before_it_is_in_the_index_and_after_and_through_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.db");
        let mut inbox = open(&path).await;
        let mut ids = Vec::new();
        for round in 0..4 {
            for number in round * 90..(round + 1) * 90 {
                let event = proved(number, None, 5);
                ids.push(event.id);
                assert_eq!(
                    inbox.accept(event).await.unwrap(),
                    Accepted::New,
                    "{number}"
                );
            }
            all_used(&inbox, &ids, 6).await;
            drop(inbox);
            inbox = open(&path).await;
            all_used(&inbox, &ids, 7).await;
        }
        let indexed_now = indexed(&inbox).await;
        assert!(
            (100..360).contains(&indexed_now),
            "some are in the index, some are not: {indexed_now}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_proof_is_free_again_when_its_event_has_gone_or_its_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.db");
        let mut inbox = open(&path).await;
        for round in 0..3_i64 {
            // Some are in the index, some on their way, some gathered.
            for number in 0..250 {
                let taken = inbox
                    .accept(proved(number, None, 10 + 10 * round))
                    .await
                    .unwrap();
                assert_eq!(taken, Accepted::New, "{number} in round {round}");
            }
            let times = Duration::from_millis(1);
            let usual = KeepTimes {
                delivered: times,
                dead: times,
                filtered: times,
            };
            let keep = Keep {
                usual,
                sources: HashMap::new(),
            };
            while inbox
                .sweep(&keep, Timestamp::from_millis(15 + 10 * round), 100)
                .await
                .unwrap()
                > 0
            {}
            assert_eq!(indexed(&inbox).await, 0);
            if round == 1 {
                drop(inbox);
                inbox = open(&path).await;
            }
        }
        for (round, now) in [(0, 100), (1, 200), (2, 300)] {
            for number in 0..250 {
                let taken = inbox
                    .accept(proved(number, Some(now + 100), now))
                    .await
                    .unwrap();
                assert_eq!(taken, Accepted::New, "{number} in window {round}");
                let again = inbox
                    .accept(proved(number, Some(now + 150), now + 99))
                    .await
                    .unwrap();
                assert!(
                    matches!(again, Accepted::Replayed(_)),
                    "{number} in window {round}: {again:?}"
                );
            }
            drop(inbox);
            inbox = open(&path).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_undone_uses_no_proof_up() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = open(&folder.path().join("inbox.db")).await;
        for number in 0..300 {
            let poison = inbox.write("poison", |tx| {
                tx.conn.execute("INSERT INTO probe VALUES (2, 1)", [])
            });
            let (poison, kept) = tokio::join!(poison, inbox.accept(proved(number, None, 1)));
            assert!(poison.is_err());
            assert_eq!(kept.unwrap(), Accepted::New, "{number}");
            let again = inbox.accept(proved(number, None, 2)).await.unwrap();
            assert!(matches!(again, Accepted::Replayed(_)), "{number}");
        }
    }
}
