//! Leases on their way to their claimer: those that it never gets go back by themselves.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::claim::{self, Claimant};
use super::database::{self, Database, within};
use super::ending::Ending;
use super::error::DatabaseError;
use super::fill;
use super::health::Health;
use super::lease::Lease;
use super::repeat::pause;
use super::replica::Replica;
use super::writer::QueuedWork;
use crate::inbox::codec::{Codec, Unreadable};
use crate::inbox::fair::Shares;
use crate::inbox::queue::QueueWeight;
use crate::inbox::{ClaimBatch, Next, Settlement, Terms};
use crate::model::{Attempt, Timestamp};

/// Attempts of a claim when others stand in its way.
const TRIES: u32 = 8;

/// The parts that a claim needs; it goes on when its caller has gone.
pub(super) struct Claimer {
    /// The database.
    pub(super) database: Arc<Database>,
    /// The health of the inbox.
    pub(super) health: Arc<Health>,
    /// This process.
    pub(super) replica: Arc<Replica>,
    /// The shares of those that have something due.
    pub(super) shares: Arc<Mutex<Shares>>,
    /// The codec that opens events.
    pub(super) codec: Codec,
    /// The queue of leases that end.
    pub(super) endings: mpsc::Sender<QueuedWork<Ending>>,
}

/// The result of a claim, before it is handed over.
pub(super) struct Dealt {
    /// The deliveries.
    pub(super) claims: ClaimBatch,
    /// Their leases.
    pub(super) leases: Leases,
}

impl Claimer {
    /// Claims, and reads the events of the leases.
    pub(super) async fn claim(
        &self,
        mut terms: Box<dyn Terms>,
        now: Timestamp,
    ) -> Result<Dealt, DatabaseError> {
        let (leased, mut leases) = self.lease(terms.as_mut(), now).await?;
        if leased.expired {
            self.replica.lost();
        }
        self.health.recovered();
        self.health.tell(false, &leased.ended);
        let mut claims = ClaimBatch {
            claimed: vec![],
            next_due: leased.next_due,
            dropped: leased.dropped,
        };
        if !leases.open.is_empty() {
            let list = Arc::new(leases.open.clone());
            let (claimed, unreadable) = self
                .database
                .write(|conn| {
                    let (list, codec) = (Arc::clone(&list), self.codec.clone());
                    Box::pin(
                        async move { fill::fill(&conn.transaction().await?, &list, &codec).await },
                    )
                })
                .await?;
            for (lease, why) in unreadable {
                leases.bury(&lease, why);
            }
            claims.claimed = claimed;
        }
        Ok(Dealt { claims, leases })
    }

    async fn lease(
        &self,
        terms: &mut dyn Terms,
        now: Timestamp,
    ) -> Result<(claim::Leased, Leases), DatabaseError> {
        let slot = database::slot();
        let mut tries = 0;
        loop {
            tries += 1;
            let mut leases = Leases {
                open: Vec::new(),
                endings: self.endings.clone(),
            };
            let mut conn = self.database.writer().await?;
            let claimant = Claimant {
                slot,
                replica: self.replica.id(),
                shares: &self.shares,
            };
            let work = claim::lease(&mut conn, &claimant, terms, now, &mut leases.open);
            let end = within(work).await;
            database::give_back(conn, &end);
            match end {
                Ok(leased) => return Ok((leased, leases)),
                Err(DatabaseError::Again(_)) if tries < TRIES => {
                    leases.open.clear();
                    pause(tries).await;
                }
                Err(fault) => {
                    if !fault.is_outage() {
                        // Surely undone.
                        leases.open.clear();
                    }
                    return Err(fault);
                }
            }
        }
    }
}

/// Leases on their way to whoever claimed. Those still in it when it is dropped go back.
pub(super) struct Leases {
    open: Vec<Lease>,
    endings: mpsc::Sender<QueuedWork<Ending>>,
}

impl Leases {
    /// Hands all of them over for good.
    pub(super) fn hand_over(&mut self) {
        self.open.clear();
    }

    /// Ends a lease on a record that cannot be read again; it will not be tried for ever.
    fn bury(&mut self, lease: &Lease, Unreadable { result, cause }: Unreadable) {
        tracing::error!(
            delivery = lease.key,
            cause,
            "delivery cannot be read and is dead"
        );
        self.open.retain(|open| open.key != lease.key);
        let settlement = Settlement {
            id: None,
            key: lease.key,
            lane: lease.lane,
            fence: lease.fence,
            attempt: Attempt {
                number: lease.attempt,
                started_at: lease.at,
                ended_at: lease.at,
                result: result.to_owned(),
                status: None,
                detail: cause,
            },
            next: Next::Dead(None),
            owes: Vec::new(),
            progress: None,
        };
        end_all(
            vec![Ending::Settled(Box::new(settlement), true)],
            self.endings.clone(),
        );
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let untaken = self.open.drain(..).map(|lease| Ending::Untaken {
            key: lease.key,
            lane: lease.lane,
            fence: lease.fence,
            doubt: lease.doubt,
        });
        end_all(untaken.collect(), self.endings.clone());
    }
}

/// Ends leases that nobody else will, and tries until it is done. Not when the inbox closes: that frees them all.
fn end_all(endings: Vec<Ending>, queue: mpsc::Sender<QueuedWork<Ending>>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    if endings.is_empty() {
        return;
    }
    let queue = queue.downgrade();
    runtime.spawn(async move {
        let mut left = endings;
        let mut wait = Duration::from_millis(50);
        while !left.is_empty() {
            let Some(queue) = queue.upgrade() else { return };
            let mut replies = Vec::with_capacity(left.len());
            for ending in &left {
                let (item, reply) = QueuedWork::new(ending.clone(), QueueWeight::free(64));
                if queue.send(item).await.is_err() {
                    return;
                }
                replies.push(reply);
            }
            drop(queue);
            let mut again = Vec::new();
            for (ending, reply) in left.into_iter().zip(replies) {
                if !matches!(reply.await, Ok(Ok(_))) {
                    again.push(ending);
                }
            }
            left = again;
            if !left.is_empty() {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
        }
    });
}
