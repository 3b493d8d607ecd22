//! Questions to the service that judges the requests of a source.
//!
//! If the service answers with an error, a redirect or not in time, the sender gets a 503 and may try again.

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::WebClient;
use crate::model::{OriginFault, Received, Refusal};
use crate::verify::{ForwardAuth, Prepared, ServiceVerdict};

/// Number of requests of a source that are shown at a time.
const AT_ONCE: usize = 32;

/// Turns of the questions of one source.
#[derive(Debug)]
pub(super) struct ServiceQuestions {
    turns: Semaphore,
}

impl Default for ServiceQuestions {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(AT_ONCE),
        }
    }
}

impl ServiceQuestions {
    /// Shows a request to the service. An error is a refusal with 503: the sender may try again.
    pub(super) async fn judgement(
        &self,
        service: &ForwardAuth,
        received: &Received,
        web: &dyn WebClient,
    ) -> Result<Prepared, Refusal> {
        self.verdict(service, received, web)
            .await
            .map(Prepared::of_service)
            .map_err(|what| {
                let cause = format!(
                    "{} did not say whether the request is good: {what}",
                    service.told()
                );
                Refusal::Origin(OriginFault::NotAttempted, cause).answered(503)
            })
    }

    async fn verdict(
        &self,
        service: &ForwardAuth,
        received: &Received,
        web: &dyn WebClient,
    ) -> Result<ServiceVerdict, String> {
        let end = Instant::now() + service.timeout;
        let turn = tokio::time::timeout_at(end, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err("too many other requests are being asked about".into());
        };
        let left = end.saturating_duration_since(Instant::now());
        let question = service.question(received)?;
        let asked = tokio::time::timeout_at(end, web.ask(question, left)).await;
        let (status, headers) =
            asked.unwrap_or_else(|_| Err("there was no answer in time".into()))?;
        service.verdict(status, &headers)
    }
}
