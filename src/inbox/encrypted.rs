//! An inbox whose engine never sees what an event says: bodies, headers, parameters, request lines and answers go into
//! it closed and come out of it open.
//!
//! What is looked for or ordered by stays readable: sources, types, dedup keys, conversations, destinations, states,
//! times, and the digests by which a proof is known again. An event is bound to its name and an answer to its delivery's,
//! so that no other's can be put in its place. What was kept in clear before is
//! read as it is, and so is what was closed before when nothing is closed any more.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::seal::{SealError, SealedPart, Sealer};
use super::{
    Anew, Answer, ClaimBatch, Claimed, Count, DeliveryDetail, EventDetail, EventFilter,
    EventSummary, Inbox, InboxError, Job, JobState, JobStep, Keep, KeptAttachment, NewJob, Next,
    Page, Pause, Replayed, ReplicaStatus, Resolution, Settled, Settlement, SourceFare, Spend,
    Terms, Turn, Usage, WaitingDelivery, cut,
};
use crate::model::{
    Accepted, Attachment, AttachmentId, Attempt, DeliveryId, DeliveryState, Destination, EventId,
    NewDelivery, NewEvent, Params, ProofMark, Role, Timestamp, UpstreamIds, UsedProof,
};

/// Stands as the one header's name where an event is closed. No request can have a header of this name.
const CLOSED: &str = ":closed";

/// Stands before an answer's text that is closed.
const CLOSED_TEXT: &str = "closed:";

/// Stands in place of an answer that does not open.
const UNOPENED: &str = "(this answer does not open: it was changed, or the key that it was sealed with is not listed in \
                        inbox.old_keys)";

/// What to do about it.
const ADVICE: &str = "list the key that it was sealed with in inbox.old_keys, and replay it";

/// How much is kept of the reason why an event could not be mapped, so that it is within the engines' bound closed.
const MAX_REASON: usize = 2 << 10;

/// How much of an answer's text is kept, so that it is within the engines' bound when it is closed.
const MAX_RESULT: usize = 190 << 10;

/// An inbox, and the key that stands before it.
#[derive(Debug)]
pub struct Encrypted {
    inner: Arc<dyn Inbox>,
    sealer: Arc<Sealer>,
    /// Whether what comes in is closed. What is closed is opened in any case.
    closes: bool,
}

/// What of an event is closed together. Its body stands by itself.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    line: String,
    params: Params,
    headers: Vec<(String, String)>,
}

/// The parts of a kept event that may be closed.
struct Parts<'a> {
    line: Option<&'a mut String>,
    params: &'a mut Params,
    headers: &'a mut Vec<(String, String)>,
    body: &'a mut Bytes,
}

impl Encrypted {
    /// Puts a key before an inbox. Refused when the oldest or the newest event in it does not open with it: whoever has
    /// mislaid a key is to be told before anything is taken in or sent.
    pub async fn open(
        inner: Arc<dyn Inbox>,
        sealer: Arc<Sealer>,
        closes: bool,
    ) -> Result<Self, InboxError> {
        let this = Self {
            inner,
            sealer,
            closes,
        };
        for oldest_first in [true, false] {
            let page = this
                .inner
                .events(&EventFilter {
                    limit: 1,
                    oldest_first,
                    ..EventFilter::default()
                })
                .await?;
            let Some(event) = page.items.first() else {
                break;
            };
            // A record that cannot be read for another reason is no reason not to start.
            if let Ok(Some(mut detail)) = this.inner.event(event.id).await {
                this.open_detail(&mut detail)?;
            }
        }
        Ok(this)
    }

    fn close_event(&self, event: &mut NewEvent) -> Result<(), SealError> {
        self.close_said(
            event.id,
            &mut event.request_line,
            &mut event.params,
            &mut event.headers,
        )?;
        if let Some(why) = &mut event.unmappable {
            // It may repeat what the body says.
            let first = DeliveryId {
                event: event.id,
                number: 0,
            };
            let closed = self
                .sealer
                .seal(cut(why, MAX_REASON).as_bytes(), SealedPart::Answer(first))?;
            *why = format!("{CLOSED_TEXT}{}", STANDARD.encode(closed));
        }
        event.body = self.sealer.seal(&event.body, SealedPart::Body(event.id))?;
        Ok(())
    }

    fn close_said(
        &self,
        id: EventId,
        line: &mut String,
        params: &mut Params,
        headers: &mut Vec<(String, String)>,
    ) -> Result<(), SealError> {
        let said = Said {
            line: std::mem::take(line),
            params: std::mem::take(params),
            headers: std::mem::take(headers),
        };
        let said = serde_json::to_vec(&said).map_err(|_| SealError::Damaged)?;
        let closed = self.sealer.seal(&said, SealedPart::Said(id))?;
        headers.push((CLOSED.to_owned(), STANDARD.encode(closed)));
        Ok(())
    }

    /// Closes what is made anew of an event that was closed when it came, whatever holds for new ones by now: its body
    /// stays closed, and opens with the rest.
    async fn close_anew(&self, id: EventId, anew: &mut Anew) -> Result<(), InboxError> {
        let kept = self.inner.event(id).await?;
        if kept.is_some_and(|kept| is_closed(&kept.headers)) {
            let Anew {
                request_line,
                params,
                headers,
                ..
            } = anew;
            self.close_said(id, request_line, params, headers)
                .map_err(|error| unsealed(&error))?;
        }
        Ok(())
    }

    /// Opens the reasons why an event could not be mapped.
    fn open_reasons(&self, delivery: &mut DeliveryDetail) {
        for attempt in delivery
            .tries
            .iter_mut()
            .filter(|attempt| attempt.result == DeliveryState::Unmappable.as_str())
        {
            self.open_text(delivery.id, &mut attempt.detail);
        }
    }

    fn open_event(&self, id: EventId, parts: Parts<'_>) -> Result<(), SealError> {
        let [(_, closed)] = parts.headers.as_slice() else {
            return Ok(());
        };
        if !is_closed(parts.headers) {
            return Ok(());
        }
        let closed = STANDARD.decode(closed).map_err(|_| SealError::Damaged)?;
        let said = self.sealer.open(&closed, SealedPart::Said(id))?;
        let said: Said = serde_json::from_slice(&said).map_err(|_| SealError::Damaged)?;
        *parts.body = self.sealer.open(parts.body, SealedPart::Body(id))?.into();
        *parts.params = said.params;
        *parts.headers = said.headers;
        if let Some(line) = parts.line {
            *line = said.line;
        }
        Ok(())
    }

    fn open_claimed(&self, claimed: &mut Claimed) -> Result<(), SealError> {
        let Claimed {
            id,
            params,
            headers,
            body,
            merged,
            ..
        } = claimed;
        self.open_event(
            id.event,
            Parts {
                line: None,
                params,
                headers,
                body,
            },
        )?;
        for merged in merged {
            let super::Merged {
                id,
                params,
                headers,
                body,
                ..
            } = merged;
            self.open_event(
                id.event,
                Parts {
                    line: None,
                    params,
                    headers,
                    body,
                },
            )?;
        }
        Ok(())
    }

    fn close_answer(&self, id: DeliveryId, answer: &mut Answer) -> Result<(), SealError> {
        if let Some(text) = &mut answer.result {
            let closed = self
                .sealer
                .seal(cut(text, MAX_RESULT).as_bytes(), SealedPart::Answer(id))?;
            *text = format!("{CLOSED_TEXT}{}", STANDARD.encode(closed));
        }
        if let Some(task) = &mut answer.task {
            *task = self.sealer.seal(task, SealedPart::Task(id))?;
        }
        Ok(())
    }

    /// Only what has the form of a sealed text is taken for one: an agent may say anything. What has it and does not open
    /// is not shown.
    fn open_answer(&self, id: DeliveryId, answer: &mut Answer) {
        if let Some(text) = &mut answer.result {
            self.open_text(id, text);
        }
        if let Some(task) = answer.task.take_if(|task| Sealer::has_form(task)) {
            answer.task = self
                .sealer
                .open(&task, SealedPart::Task(id))
                .ok()
                .map(Bytes::from);
        }
    }

    fn open_text(&self, id: DeliveryId, text: &mut String) {
        let closed = text
            .strip_prefix(CLOSED_TEXT)
            .and_then(|closed| STANDARD.decode(closed).ok());
        if let Some(closed) = closed.filter(|closed| Sealer::has_form(closed)) {
            let opened = self.sealer.open(&closed, SealedPart::Answer(id)).ok();
            *text = opened
                .and_then(|said| String::from_utf8(said).ok())
                .unwrap_or_else(|| UNOPENED.to_owned());
        }
    }

    fn open_detail(&self, detail: &mut EventDetail) -> Result<(), InboxError> {
        let EventDetail {
            request_line,
            params,
            headers,
            body,
            ..
        } = detail;
        let parts = Parts {
            line: Some(request_line),
            params,
            headers,
            body,
        };
        self.open_event(detail.summary.id, parts)
            .map_err(|error| unopened(&error))?;
        detail
            .deliveries
            .iter_mut()
            .for_each(|delivery| self.open_reasons(delivery));
        detail
            .deliveries
            .iter_mut()
            .filter_map(|delivery| Some((delivery.id, delivery.answer.as_mut()?)))
            .for_each(|(id, answer)| self.open_answer(id, answer));
        Ok(())
    }

    /// Ends a delivery whose event does not open: it will not open at the next try either. It can be replayed when the
    /// key is back. Nobody waits for this, so that whoever gives a claim up gives up no lease that is in his hands.
    fn give_up(&self, claimed: &Claimed, error: &SealError, now: Timestamp) {
        tracing::error!(delivery = %claimed.id, %error, "an event cannot be opened; {ADVICE}");
        let attempt = Attempt {
            number: claimed.attempt,
            started_at: now,
            ended_at: now,
            result: "cannot_open".to_owned(),
            status: None,
            detail: format!("the event cannot be opened: {error}; {ADVICE}"),
        };
        let Claimed {
            id,
            key,
            lane,
            fence,
            ..
        } = *claimed;
        let ended = Settlement {
            id: Some(id),
            key,
            lane,
            fence,
            attempt,
            next: Next::Dead(None),
        };
        let inner = self.inner.clone();
        tokio::spawn(async move {
            if let Err(error) = inner.settle(ended).await {
                tracing::error!(delivery = %id, %error, "a delivery whose event cannot be opened waits for a restart");
            }
        });
    }
}

/// Whether the headers of an event stand for all that is closed of it.
fn is_closed(headers: &[(String, String)]) -> bool {
    matches!(headers, [(name, _)] if name == CLOSED)
}

fn unsealed(error: &SealError) -> InboxError {
    InboxError::Engine {
        doing: "close an event",
        cause: error.to_string(),
    }
}

fn unopened(error: &SealError) -> InboxError {
    let cause = format!("{error}; list the key it was sealed with in inbox.old_keys");
    InboxError::Engine {
        doing: "open an event",
        cause,
    }
}

#[async_trait]
impl Inbox for Encrypted {
    async fn accept_all(&self, mut events: Vec<NewEvent>) -> Result<Vec<Accepted>, InboxError> {
        if self.closes {
            for event in &mut events {
                self.close_event(event).map_err(|error| unsealed(&error))?;
            }
        }
        self.inner.accept_all(events).await
    }

    async fn claim(&self, terms: Box<dyn Terms>, now: Timestamp) -> Result<ClaimBatch, InboxError> {
        let mut claims = self.inner.claim(terms, now).await?;
        let mut opened = Vec::with_capacity(claims.claimed.len());
        for mut claimed in claims.claimed {
            match self.open_claimed(&mut claimed) {
                Ok(()) => opened.push(claimed),
                Err(error) => self.give_up(&claimed, &error, now),
            }
        }
        claims.claimed = opened;
        Ok(claims)
    }

    async fn settle(&self, mut settlement: Settlement) -> Result<Settled, InboxError> {
        if self.closes
            && let Next::Delivered(answer) | Next::Dead(Some(answer)) = &mut settlement.next
        {
            let id = settlement.id.ok_or_else(|| unsealed(&SealError::Damaged))?;
            self.close_answer(id, answer)
                .map_err(|error| unsealed(&error))?;
        }
        self.inner.settle(settlement).await
    }

    async fn earlier_turn(&self, claimed: &Claimed) -> Result<Option<Turn>, InboxError> {
        let Some(mut turn) = self.inner.earlier_turn(claimed).await? else {
            return Ok(None);
        };
        let Turn {
            id,
            params,
            headers,
            body,
            ..
        } = &mut turn;
        self.open_event(
            id.event,
            Parts {
                line: None,
                params,
                headers,
                body,
            },
        )
        .map_err(|error| unopened(&error))?;
        if let Some(answer) = &mut turn.answer {
            self.open_answer(turn.id, answer);
        }
        Ok(Some(turn))
    }

    async fn event(&self, id: EventId) -> Result<Option<EventDetail>, InboxError> {
        let Some(mut detail) = self.inner.event(id).await? else {
            return Ok(None);
        };
        self.open_detail(&mut detail)?;
        Ok(Some(detail))
    }

    async fn ended(&self, id: DeliveryId) -> Result<Option<DeliveryDetail>, InboxError> {
        let mut ended = self.inner.ended(id).await?;
        if let Some(delivery) = &mut ended {
            self.open_reasons(delivery);
            if let Some(answer) = &mut delivery.answer {
                self.open_answer(delivery.id, answer);
            }
        }
        Ok(ended)
    }

    async fn replay_anew(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        mut anew: Anew,
        now: Timestamp,
    ) -> Result<Replayed, InboxError> {
        self.close_anew(id, &mut anew).await?;
        self.inner.replay_anew(id, first, to, anew, now).await
    }

    async fn step_job(&self, mut step: JobStep, now: Timestamp) -> Result<Option<Job>, InboxError> {
        for (id, anew) in &mut step.anew {
            self.close_anew(*id, anew).await?;
        }
        self.inner.step_job(step, now).await
    }

    // From here on nothing is closed or opened.

    async fn work_due(&self) {
        self.inner.work_due().await;
    }

    async fn events(&self, filter: &EventFilter) -> Result<Page<EventSummary>, InboxError> {
        self.inner.events(filter).await
    }

    async fn count(&self, filter: &EventFilter, most: u64) -> Result<u64, InboxError> {
        self.inner.count(filter, most).await
    }

    async fn between(
        &self,
        from: EventId,
        to: EventId,
        most: usize,
    ) -> Result<Vec<EventId>, InboxError> {
        self.inner.between(from, to, most).await
    }

    async fn waiting(&self, events: Vec<EventId>) -> Result<Vec<WaitingDelivery>, InboxError> {
        self.inner.waiting(events).await
    }

    async fn source_fares(&self) -> Result<Vec<SourceFare>, InboxError> {
        self.inner.source_fares().await
    }

    async fn destinations(&self) -> Result<Vec<Destination>, InboxError> {
        self.inner.destinations().await
    }

    async fn known(&self, source: &str, dedup: &str) -> Result<Option<EventId>, InboxError> {
        self.inner.known(source, dedup).await
    }

    async fn replay(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        now: Timestamp,
    ) -> Result<Replayed, InboxError> {
        self.inner.replay(id, first, to, now).await
    }

    async fn cancel(&self, id: DeliveryId, now: Timestamp) -> Result<bool, InboxError> {
        self.inner.cancel(id, now).await
    }

    async fn resolve(
        &self,
        id: DeliveryId,
        how: Resolution,
        note: &str,
        now: Timestamp,
    ) -> Result<bool, InboxError> {
        self.inner.resolve(id, how, note, now).await
    }

    async fn set_paused(&self, what: &Pause, on: bool, now: Timestamp) -> Result<bool, InboxError> {
        self.inner.set_paused(what, on, now).await
    }

    async fn pauses(&self) -> Result<Vec<(Pause, Timestamp)>, InboxError> {
        self.inner.pauses().await
    }

    async fn spend(&self, day: i64, budgets: Vec<Spend>) -> Result<Option<String>, InboxError> {
        self.inner.spend(day, budgets).await
    }

    async fn give_back(&self, day: i64, budgets: Vec<String>) -> Result<(), InboxError> {
        self.inner.give_back(day, budgets).await
    }

    async fn use_proof(&self, proof: UsedProof, now: Timestamp) -> Result<bool, InboxError> {
        self.inner.use_proof(proof, now).await
    }

    async fn free_proof(&self, marks: Vec<ProofMark>) -> Result<(), InboxError> {
        self.inner.free_proof(marks).await
    }

    async fn spent(&self, day: i64) -> Result<Vec<(String, u64)>, InboxError> {
        self.inner.spent(day).await
    }

    async fn bytes_of(&self, source: &str) -> Result<u64, InboxError> {
        self.inner.bytes_of(source).await
    }

    async fn begin_job(&self, job: NewJob, now: Timestamp) -> Result<Job, InboxError> {
        self.inner.begin_job(job, now).await
    }

    async fn jobs(&self) -> Result<Vec<Job>, InboxError> {
        self.inner.jobs().await
    }

    async fn steer_job(
        &self,
        id: i64,
        state: Option<JobState>,
        pace: Option<u32>,
        now: Timestamp,
    ) -> Result<Option<Job>, InboxError> {
        self.inner.steer_job(id, state, pace, now).await
    }

    async fn counts(&self) -> Result<Vec<Count>, InboxError> {
        self.inner.counts().await
    }

    async fn sweep(&self, keep: &Keep, now: Timestamp, limit: usize) -> Result<usize, InboxError> {
        self.inner.sweep(keep, now, limit).await
    }

    async fn usage(&self) -> Result<Usage, InboxError> {
        self.inner.usage().await
    }

    fn replica_status(&self) -> ReplicaStatus {
        self.inner.replica_status()
    }

    fn replicas_with(&self, role: Role) -> u32 {
        self.inner.replicas_with(role)
    }

    async fn replica_status_changed(&self) {
        self.inner.replica_status_changed().await;
    }

    async fn keep_attachments(
        &self,
        source: &str,
        attachments: Vec<Attachment>,
    ) -> Result<(), InboxError> {
        self.inner.keep_attachments(source, attachments).await
    }

    async fn add_attachments(
        &self,
        event: EventId,
        attachments: Vec<Attachment>,
    ) -> Result<bool, InboxError> {
        self.inner.add_attachments(event, attachments).await
    }

    async fn extend_attachments(&self, event: EventId, until: Timestamp) -> Result<(), InboxError> {
        self.inner.extend_attachments(event, until).await
    }

    async fn attachment(&self, id: AttachmentId) -> Result<Option<KeptAttachment>, InboxError> {
        self.inner.attachment(id).await
    }

    async fn attachments(
        &self,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<Page<KeptAttachment>, InboxError> {
        self.inner.attachments(cursor, limit).await
    }

    async fn attachments_gone(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Attachment>, InboxError> {
        self.inner.attachments_gone(now, limit).await
    }

    async fn attachments_known(
        &self,
        ids: Vec<AttachmentId>,
    ) -> Result<Vec<AttachmentId>, InboxError> {
        self.inner.attachments_known(ids).await
    }

    async fn forget_attachments(&self, ids: Vec<AttachmentId>) -> Result<usize, InboxError> {
        self.inner.forget_attachments(ids).await
    }

    async fn upstream_ids(&self) -> Result<UpstreamIds, InboxError> {
        self.inner.upstream_ids().await
    }

    async fn ready(&self) -> Result<(), InboxError> {
        self.inner.ready().await
    }

    async fn failed(&self) -> String {
        self.inner.failed().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
