//! A database that was put back: what is open in it may have run since, so nothing of it runs a second time.

use super::address::Address;
use super::{PostgresInbox, schema};
use crate::config::Secret;
use crate::inbox::InboxError;
use crate::inbox::backup::{MARGIN, Reopened};
use crate::model::Timestamp;

impl PostgresInbox {
    /// Brings the schema up to date, marks what is open as in doubt since its event came, and pauses every run. No
    /// gateway may be running.
    pub async fn reopen(url: &Secret, now: Timestamp) -> Result<Reopened, InboxError> {
        Self::migrate(url).await?;
        let failed = |cause: String| InboxError::Engine {
            doing: "restore",
            cause,
        };
        let address = Address::read(url).map_err(failed)?;
        let mut client = schema::connect(&address)
            .await
            .map_err(|fault| fault.told("restore"))?;
        let told = |error: tokio_postgres::Error| failed(error.to_string());
        let tx = client.transaction().await.map_err(told)?;
        tx.batch_execute("SET LOCAL search_path TO sluicegate")
            .await
            .map_err(told)?;
        let deliveries = tx
            .execute(
                "UPDATE delivery AS d SET doubt = coalesce(d.doubt, e.received_at - $1)
                 FROM event AS e WHERE e.seq = d.event AND d.state IN ('pending', 'leased')",
                &[&MARGIN],
            )
            .await
            .map_err(told)?;
        tx.execute(
            "INSERT INTO hold (what, held_at) VALUES ('all/', $1) ON CONFLICT DO NOTHING",
            &[&now.millis()],
        )
        .await
        .map_err(told)?;
        let events: i64 = tx
            .query_one("SELECT count(*) FROM event", &[])
            .await
            .map_err(told)?
            .get(0);
        tx.commit().await.map_err(told)?;
        Ok(Reopened {
            events: u64::try_from(events).unwrap_or_default(),
            deliveries: usize::try_from(deliveries).unwrap_or(usize::MAX),
        })
    }
}
