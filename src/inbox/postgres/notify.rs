//! Notices between processes: that something may have become due, and what has ended.
//!
//! It is only a hint, sent after the fact on a connection of its own, a few times a second at most, and not at all by a
//! process that is alone. Whoever waits looks by itself from time to time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use futures_util::stream::poll_fn;
use tokio_postgres::{AsyncMessage, Client};

use super::database::Database;
use super::error::DatabaseError;
use super::health::Health;
use super::replica::Replica;
use crate::model::DeliveryId;

/// Shortest time between two notices to the others.
const PACE: Duration = Duration::from_millis(20);

/// Time between two looks for what nobody told of.
const LOOK: Duration = Duration::from_secs(1);

/// Ends that are told in one message; a message has at most 8,000 bytes.
const ENDS: usize = 150;

/// The channel.
const CHANNEL: &str = "sluicegate";

/// Tells and listens until it is stopped; connects again when the connection breaks.
pub(super) async fn run(database: Arc<Database>, health: Arc<Health>, replica: Arc<Replica>) {
    let look = async {
        loop {
            tokio::time::sleep(LOOK).await;
            health.work_due.notify_one();
        }
    };
    let talk = async {
        loop {
            if let Err(fault) = talk(&database, &health, &replica).await {
                tracing::debug!(cause = ?fault, "no news from other replicas for now");
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::join!(look, talk);
}

async fn talk(
    database: &Database,
    health: &Health,
    replica: &Replica,
) -> Result<(), DatabaseError> {
    let (client, mut connection) = database.alone().await?;
    let mut messages = std::pin::pin!(poll_fn(move |cx| connection.poll_message(cx)));
    let hear = async {
        while let Some(message) = messages.try_next().await? {
            if let AsyncMessage::Notification(told) = message {
                hear(health, told.payload());
            }
        }
        Err::<(), DatabaseError>(DatabaseError::Lost("the connection for news ended".into()))
    };
    let tell = async {
        client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
        // What was told before this is not heard of any more.
        health.work_due.notify_one();
        loop {
            health.outgoing.notified().await;
            let told = health.take_told();
            if replica.replica_status().replicas > 1 {
                tell(&client, &told.ended).await?;
            }
            tokio::time::sleep(PACE).await;
        }
    };
    tokio::select! {
        end = hear => end,
        end = tell => end,
    }
}

async fn tell(client: &Client, ended: &[DeliveryId]) -> Result<(), DatabaseError> {
    if ended.is_empty() {
        client
            .execute("SELECT pg_notify($1, '')", &[&CHANNEL])
            .await?;
    }
    for some in ended.chunks(ENDS) {
        let names: Vec<String> = some.iter().map(ToString::to_string).collect();
        client
            .execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &names.join(" ")])
            .await?;
    }
    Ok(())
}

fn hear(health: &Health, payload: &str) {
    // Names that cannot be read are of a version that is not known here.
    let ended: Vec<DeliveryId> = payload
        .split_whitespace()
        .filter_map(|name| name.parse().ok())
        .collect();
    health.waiters.notify(&ended);
    health.work_due.notify_one();
}
