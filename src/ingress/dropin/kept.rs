//! Calls that must not be lost, or that wait for the message before them: deliveries like any other, each with its
//! caller's call, sealed. Only calls whose key is proved are made this way.

use bytes::Bytes;

use super::NAME;
use super::call::Calling;
use super::once::Once;
use crate::config::RunMode;
use crate::ingress::request_log::RequestLog;
use crate::ingress::staged::PlacedFiles;
use crate::ingress::task::task_of;
use crate::intake::Receipt;
use crate::model::{
    Class, DeliveryId, DeliveryState, EventId, Name, NewDelivery, NewEvent, Outcome, Refusal,
    Strength,
};
use crate::upstream::Call;
use crate::upstream::hosted;

/// Result of a call that was made by way of the inbox.
pub(super) struct DurableEnd {
    /// The event that was kept, now or by the same call before.
    pub(super) event: EventId,
    /// `Accepted` for a new event, `Duplicate` for an earlier one.
    pub(super) outcome: Outcome,
    /// The finished task; absent for a caller that does not wait.
    pub(super) task: Option<Bytes>,
}

impl Calling<'_> {
    /// Keeps the call. `wait` waits for its end, within the time that a run may take.
    pub(super) async fn durable(
        &self,
        files: PlacedFiles,
        log: &RequestLog,
        wait: bool,
    ) -> Result<DurableEnd, Refusal> {
        self.take_disk(&files).await?;
        let delivery = DeliveryId {
            event: EventId::new(),
            number: 0,
        };
        let owed = self.owed(delivery, wait)?;
        let call = self.call;
        let files = files.into_files();
        let notes = self
            .once
            .as_ref()
            .map(|once| once.notes(call, &files))
            .unwrap_or_default();
        let event = NewEvent {
            id: delivery.event,
            source: NAME.to_owned(),
            dedup: self.once.as_ref().map(|once| once.dedup.clone()),
            event_type: None,
            received_at: log.at,
            strength: Strength::Token,
            secret: None,
            proof: None,
            filtered: None,
            unmappable: None,
            thread: call.params.get(Name::TaskId).map(str::to_owned),
            params: call.params.clone(),
            // What is kept in clear has neither the key nor the user's tokens in it.
            request_line: format!("{} {}", log.method(), log.path()),
            headers: notes.clone(),
            body: call.extra.clone().unwrap_or_default().into(),
            attachments: files,
            deliveries: vec![owed],
            most_ahead: (!self.dropin.config.waits_for_its_turn).then_some(0),
            backlog: None,
        };
        let Receipt { outcome, event } = self.ingress.intake.accept_one(event).await?;
        if outcome == Outcome::Duplicate {
            self.is_same(event, &notes).await?;
        }
        let task = if wait {
            Some(self.end(DeliveryId { event, number: 0 }).await?)
        } else {
            None
        };
        Ok(DurableEnd {
            event,
            outcome,
            task,
        })
    }

    /// Refuses the call if the event with its idempotency key is of another call.
    async fn is_same(&self, event: EventId, notes: &[(String, String)]) -> Result<(), Refusal> {
        let kept = self
            .ingress
            .intake
            .inbox
            .event(event)
            .await
            .map_err(|error| Refusal::Inbox(error.to_string()))?;
        match kept {
            Some(kept) if Once::is_of(&kept.headers, notes) => Ok(()),
            Some(_) => Err(Refusal::OtherCall),
            // It went in this very moment; the next try begins anew.
            None => Err(Refusal::Busy),
        }
    }

    /// The delivery that a call is, with the upstream `id` chosen before it is made.
    fn owed(&self, delivery: DeliveryId, wait: bool) -> Result<NewDelivery, Refusal> {
        let (call, config, destination) = (self.call, &self.dropin.config, self.destination());
        let named = call.id.as_deref().or_else(|| call.params.get(Name::TaskId));
        let upstream_id = named.map_or_else(|| delivery.as_uuid().to_string(), str::to_owned);
        let run = if wait { RunMode::Call } else { RunMode::Async };
        let marks = self.ingress.sealer.marks();
        let body = hosted::body(call, config, Some(&upstream_id), delivery.event, marks);
        let key = Some(self.caller.key.clone());
        let made = Call {
            path: hosted::path(call, run),
            body,
            timeout: None,
            key,
            run,
        };
        let sealed = made.to_sealed(&self.ingress.sealer, delivery.event);
        let sealed =
            sealed.map_err(|error| Refusal::Internal(format!("cannot seal the call: {error}")))?;
        let account = self.caller.account.clone();
        let lane = destination.lane(&account, &upstream_id);
        let class = if wait {
            Class::Interactive
        } else {
            Class::Normal
        };
        Ok(NewDelivery {
            lane,
            destination,
            upstream_id,
            account,
            class,
            sealed: Some(sealed),
        })
    }

    /// Waits for the end of a delivery. Returns its task, or the refusal that its caller gets instead.
    async fn end(&self, delivery: DeliveryId) -> Result<Bytes, Refusal> {
        let ingress = self.ingress;
        let ended = tokio::select! {
            ended = ingress.intake.inbox.ended(delivery) => ended.map_err(|error| Refusal::Inbox(error.to_string()))?,
            () = tokio::time::sleep(self.dropin.upstream.run_timeout()) => {
                return Err(Refusal::UpstreamSilent("the run has not ended; it is followed all the same".into()));
            }
            () = ingress.stopping.cancelled() => {
                return Err(Refusal::UpstreamSilent("the gateway stops; the run goes on".into()));
            }
        };
        // It goes at once where the upstream has refused the key.
        let Some(ended) = ended else {
            self.dropin
                .known
                .forget(self.caller.key.expose(), &self.call.agent_id);
            return Err(Refusal::KeyRefused(
                "the upstream refused it, and the call is not kept".into(),
            ));
        };
        if ended.state == DeliveryState::Delivered {
            return Ok(task_of(&ended));
        }
        let last = ended.tries.last();
        let (status, detail) = last.map_or((None, ""), |attempt| {
            (attempt.status, attempt.detail.as_str())
        });
        Err(match status {
            Some(401 | 403) => Refusal::KeyRefused(detail.to_owned()),
            Some(status @ 400..=499) => Refusal::Upstream {
                status,
                detail: serde_json::Value::from(detail).to_string(),
                retry_after: None,
            },
            _ => Refusal::UpstreamFailed(format!(
                "the delivery is {}: {detail}",
                ended.state.as_str()
            )),
        })
    }
}
