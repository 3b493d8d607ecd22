//! This process among those that share the inbox: its row, renewed in time or lost; the leases of those that have gone.
//!
//! What is promised: a replica that could not renew its row for 0.7 of a lease stops, by the clock that only goes
//! forward, and others take its leases only when the whole has passed, by the server's clock. A row that ran out is
//! never renewed: whoever comes back is a new replica. Whether one has run out is decided by one row, locked, so that a
//! claim under way and the removal of its replica never pass each other by.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use deadpool_postgres::{Client, Transaction};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::database::{Counts, Database, change, rows, slot, within};
use super::error::DatabaseError;
use super::health::Health;
use super::lane::free_lanes;
use crate::inbox::ReplicaStatus;
use crate::model::{DeliveryState, Role, Roles};

/// Leases that are freed in one transaction.
const CHUNK: i64 = 200;

/// The standing of this process.
#[derive(Debug)]
pub(super) struct Replica {
    lease: Duration,
    /// The number of its row; 0: none.
    id: AtomicI64,
    roles: Roles,
    /// Number of processes when they were last counted.
    count: AtomicU32,
    /// And how many of those with each role.
    with_role: [AtomicU32; Role::ALL.len()],
    /// The time when the row was last surely good, and under which number.
    renewed: watch::Sender<Option<Instant>>,
    changed: watch::Sender<ReplicaStatus>,
}

impl Replica {
    /// Not registered yet.
    pub(super) fn new(lease: Duration, roles: Roles) -> Self {
        Self {
            lease,
            id: AtomicI64::new(0),
            roles,
            count: AtomicU32::new(1),
            with_role: Default::default(),
            renewed: watch::Sender::new(None),
            changed: watch::Sender::new(ReplicaStatus {
                good: false,
                generation: 0,
                replicas: 1,
            }),
        }
    }

    /// The number of its row.
    pub(super) fn id(&self) -> i64 {
        self.id.load(Ordering::Acquire)
    }

    /// [`crate::inbox::Replicas::replica_status`]
    pub(super) fn replica_status(&self) -> ReplicaStatus {
        let good = self
            .renewed
            .borrow()
            .is_some_and(|at| at.elapsed() < self.patience());
        ReplicaStatus {
            good,
            generation: self.id(),
            replicas: self.count.load(Ordering::Acquire).max(1),
        }
    }

    /// [`crate::inbox::Replicas::replicas_with`]
    pub(super) fn with(&self, role: Role) -> u32 {
        self.with_role[role as usize].load(Ordering::Acquire).max(1)
    }

    /// [`crate::inbox::Replicas::replica_status_changed`]
    pub(super) async fn changed(&self) {
        let before = self.replica_status();
        let mut changed = self.changed.subscribe();
        while self.replica_status() == before {
            // Too late is told by the clock alone, whatever has become of who renews.
            let renewed = *self.renewed.borrow();
            let late = async {
                match renewed.filter(|_| before.good) {
                    Some(at) => tokio::time::sleep_until(at + self.patience()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                told = changed.changed() => if told.is_err() {
                    // Only when the inbox goes does the sender, and then nothing changes any more.
                    std::future::pending::<()>().await;
                },
                () = late => {}
            }
        }
    }

    /// Notes that its row is gone.
    pub(super) fn lost(&self) {
        self.renewed.send_replace(None);
        self.publish();
    }

    fn publish(&self) {
        let now = self.replica_status();
        self.changed.send_if_modified(|before| {
            let differs = *before != now;
            if differs && before.good && !now.good {
                tracing::error!(
                    "this replica could not renew its leases and stops calling upstream"
                );
            } else if differs && !before.good && now.good {
                tracing::info!(
                    replica = self.id(),
                    replicas = now.replicas,
                    "replica has its leases"
                );
            }
            *before = now;
            differs
        });
    }

    fn patience(&self) -> Duration {
        self.lease.mul_f64(0.7)
    }

    /// Renews the row, or registers anew where it has run out.
    pub(super) async fn renew(&self, database: &Database) -> Result<(), DatabaseError> {
        // Counted from before it is asked for: however long the answer takes, the server's time begins later.
        let asked = Instant::now();
        let (id, lease, roles) = (self.id(), self.lease.as_secs_f64(), self.roles);
        let renewed = database
            .renew(move |conn| {
                Box::pin(async move {
                    let tx = conn.transaction().await?;
                    let kept = renew_row(&tx, id, lease).await?;
                    let id = if kept {
                        id
                    } else {
                        register(&tx, lease, roles).await?
                    };
                    let counts = count(&tx).await?;
                    tx.commit().await?;
                    Ok((id, counts))
                })
            })
            .await;
        match renewed {
            Ok((found, (count, with_role))) => {
                if found != id {
                    if id != 0 {
                        tracing::warn!(
                            replica = found,
                            before = id,
                            "this replica's leases had run out"
                        );
                    }
                    self.id.store(found, Ordering::Release);
                }
                for (known, count) in self.with_role.iter().zip(with_role) {
                    known.store(count, Ordering::Release);
                }
                self.count.store(count, Ordering::Release);
                self.renewed.send_replace(Some(asked));
                self.publish();
                Ok(())
            }
            Err(fault) => {
                self.publish();
                Err(fault)
            }
        }
    }

    /// Renews until it is stopped, says when it is too late, and frees what others left.
    pub(super) async fn run(self: Arc<Self>, database: Arc<Database>, health: Arc<Health>) {
        let every = self.lease / 4;
        loop {
            tokio::time::sleep(every).await;
            let renewing = tokio::time::timeout(self.lease, self.renew(&database));
            tokio::pin!(renewing);
            let end = loop {
                let left = self
                    .renewed
                    .borrow()
                    .map(|at| (at + self.patience()).duration_since(Instant::now()));
                tokio::select! {
                    end = &mut renewing => break end,
                    () = tokio::time::sleep(left.unwrap_or(self.lease).max(Duration::from_millis(10))) => self.publish(),
                }
            };
            match end {
                Ok(Ok(())) => health.recovered(),
                Ok(Err(fault)) => health.trouble(&fault.told("renew its leases")),
                Err(_) => health.trouble(
                    &DatabaseError::Lost("no answer in time".into()).told("renew its leases"),
                ),
            }
            if !self.replica_status().good {
                continue;
            }
            match reap(&database, None).await {
                Ok(0) => {}
                Ok(freed) => {
                    tracing::warn!(leases = freed, "leases of replicas that have gone are free");
                    health.tell(true, &[]);
                }
                Err(fault) => {
                    tracing::warn!(cause = ?fault, "leases of replicas that have gone were not freed")
                }
            }
        }
    }

    /// Gives back everything and takes its row away.
    pub(super) async fn leave(&self, database: &Database) -> Result<(), DatabaseError> {
        let id = self.id();
        if id == 0 {
            return Ok(());
        }
        // Given up and not lost: nobody has to be alarmed.
        self.renewed.send_replace(None);
        self.changed.send_replace(self.replica_status());
        reap(database, Some(id)).await?;
        Ok(())
    }
}

/// False: it has run out.
async fn renew_row(tx: &Transaction<'_>, id: i64, lease: f64) -> Result<bool, DatabaseError> {
    let sql = "UPDATE replica SET expires_at = now() + make_interval(secs => $2) WHERE id = $1 AND expires_at > now()";
    Ok(change(tx, sql, &[&id, &lease]).await? == 1)
}

async fn register(tx: &Transaction<'_>, lease: f64, roles: Roles) -> Result<i64, DatabaseError> {
    let made = rows(
        tx,
        "INSERT INTO replica (token, started_at, expires_at, roles)
         VALUES ($1, now(), now() + make_interval(secs => $2), $3) RETURNING id",
        &[&Uuid::new_v4(), &lease, &roles.to_string()],
    )
    .await?;
    made.first()
        .map_or(Err(DatabaseError::Engine("no row".into())), |row| {
            Ok(row.try_get(0)?)
        })
}

/// Counts the processes, and those with each role.
async fn count(tx: &Transaction<'_>) -> Result<(u32, [u32; Role::ALL.len()]), DatabaseError> {
    let mut with_role = [0; Role::ALL.len()];
    let found = rows(
        tx,
        "SELECT roles FROM replica WHERE expires_at > now()",
        &[],
    )
    .await?;
    for row in &found {
        let roles: &str = row.try_get(0)?;
        // A word that is not known here is of a newer version.
        for role in roles
            .split(',')
            .filter_map(|word| word.parse::<Role>().ok())
        {
            with_role[role as usize] += 1;
        }
    }
    Ok((u32::try_from(found.len()).unwrap_or(u32::MAX), with_role))
}

/// Frees the leases of replicas that have run out, or of the one named, and removes their rows. Returns how many leases
/// it freed.
pub(super) async fn reap(
    database: &Database,
    leaving: Option<i64>,
) -> Result<usize, DatabaseError> {
    let mut freed = 0;
    for owner in database
        .write(move |conn| Box::pin(async move { gone(conn, leaving).await }))
        .await?
    {
        loop {
            let (step, done) = database
                .write(move |conn| Box::pin(async move { free(conn, owner, leaving).await }))
                .await?;
            freed += step;
            if done {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    Ok(freed)
}

/// The replicas that have run out and still have a row or leases.
async fn gone(conn: &mut Client, leaving: Option<i64>) -> Result<Vec<i64>, DatabaseError> {
    let tx = conn.transaction().await?;
    let found = rows(
        &tx,
        "WITH RECURSIVE o (owner) AS (
            (SELECT l.owner FROM lane AS l WHERE l.delivery IS NOT NULL ORDER BY l.owner LIMIT 1)
            UNION ALL
            SELECT (SELECT l.owner FROM lane AS l WHERE l.delivery IS NOT NULL AND l.owner > o.owner
                    ORDER BY l.owner LIMIT 1) FROM o WHERE o.owner IS NOT NULL
         )
         SELECT g.id FROM (SELECT owner AS id FROM o WHERE owner IS NOT NULL UNION SELECT id FROM replica) AS g
         WHERE g.id = $1 OR NOT EXISTS (SELECT FROM replica AS r WHERE r.id = g.id AND r.expires_at > now())",
        &[&leaving],
    )
    .await?;
    Ok(found
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?)
}

/// Frees some leases of a replica that has run out, and removes its row with the last of them. Passes over what
/// somebody has locked. Returns how many it freed, and whether there is nothing more to do here now.
async fn free(
    conn: &mut Client,
    owner: i64,
    leaving: Option<i64>,
) -> Result<(usize, bool), DatabaseError> {
    let tx = conn.transaction().await?;
    // Whoever claims under this row has it locked; then there is nothing to be done now.
    let row = rows(
        &tx,
        "SELECT id FROM replica WHERE id = $1 AND (expires_at <= now() OR id = $2) FOR UPDATE SKIP LOCKED",
        &[&owner, &leaving],
    )
    .await?;
    if row.is_empty()
        && !rows(&tx, "SELECT FROM replica WHERE id = $1", &[&owner])
            .await?
            .is_empty()
    {
        return Ok((0, true));
    }
    let locked = rows(
        &tx,
        "SELECT id, delivery FROM lane WHERE owner = $1 AND delivery IS NOT NULL LIMIT $2 FOR UPDATE SKIP LOCKED",
        &[&owner, &CHUNK],
    )
    .await?;
    let lanes: Vec<i64> = locked
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let keys: Vec<i64> = locked
        .iter()
        .map(|row| row.try_get(1))
        .collect::<Result<_, _>>()?;
    // The try stays counted, and the doubt stays: nobody knows whether it ran.
    let found = rows(
        &tx,
        "UPDATE delivery AS d SET state = 'pending'
         FROM unnest($1::bigint[], $2::bigint[]) AS n (lane, key), event AS e
         WHERE d.lane = n.lane AND d.key = n.key AND d.state IN ('pending', 'leased') AND e.seq = d.event
         RETURNING e.source",
        &[&lanes, &keys],
    )
    .await?;
    free_lanes(&tx, &lanes, &vec![None; lanes.len()]).await?;
    let mut counts = Counts::default();
    for row in &found {
        let source: &str = row.try_get(0)?;
        counts.add(source, DeliveryState::Leased, -1);
        counts.add(source, DeliveryState::Pending, 1);
    }
    let whole = i64::try_from(lanes.len()).is_ok_and(|count| count < CHUNK);
    if whole {
        change(
            &tx,
            "DELETE FROM replica WHERE id = $1 AND NOT EXISTS
                (SELECT FROM lane AS l WHERE l.owner = $1 AND l.delivery IS NOT NULL)",
            &[&owner],
        )
        .await?;
    }
    counts.write(&tx, slot()).await?;
    tx.commit().await?;
    Ok((lanes.len(), whole))
}

/// [`Replica::renew`] with a bound; for the start.
pub(super) async fn first(replica: &Replica, database: &Database) -> Result<(), DatabaseError> {
    within(replica.renew(database)).await
}
