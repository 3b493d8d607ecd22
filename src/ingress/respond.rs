//! What a caller of a source gets beside an acknowledgement: the run's end, waited for or passed on.
//!
//! A wait begins when the event is kept, so whatever becomes of the connection, the delivery goes on and a link shows
//! its end. What is passed on is not kept: nothing is promised of it but one call, and that what proves it is not good for
//! another one.

use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use tokio::time::Instant;

use super::Ingress;
use super::receive::{acknowledge, name_event};
use super::{event_stream, upload};
use crate::config::{Ack, Respond, RunMode};
use crate::inbox::{Answer, CountedRun, DeliveryDetail};
use crate::intake::{Receipt, inbox_refusal};
use crate::mapping::getter::shape;
use crate::model::{
    AttemptResult, DeliveryId, DeliveryState, EventId, NewDelivery, NewEvent, Outcome, ProofMark,
    Refusal,
};
use crate::net::SendError;
use crate::source::Source;
use crate::upstream::{Call, Draw, is_stream};

/// Keeps the event, and waits for the end of its delivery. A double waits for the delivery of the first one.
pub(super) async fn wait(
    ingress: &Ingress,
    source: &Source,
    ack: &Ack,
    event: NewEvent,
) -> Result<(Outcome, EventId, Response<Body>), Refusal> {
    let Receipt { outcome, event: id } = ingress.intake.accept_one(event).await?;
    if outcome == Outcome::Filtered {
        return Ok((outcome, id, acknowledge(ack, outcome, id)));
    }
    let left = Left::guard(ingress, source, outcome, Some(id));
    let mut stopping = ingress.stopping.clone();
    let ended = tokio::select! {
        ended = ingress.intake.inbox.ended(DeliveryId { event: id, number: 0 }) => ended,
        () = tokio::time::sleep(source.wait) => return Ok((outcome, id, left.not(later(ingress, source, id)))),
        // Whoever waits longest would hold the stop up.
        _ = stopping.wait_for(|stop| *stop) => return Ok((outcome, id, left.not(later(ingress, source, id)))),
    };
    let answer = match ended {
        // A double of one that was filtered: nothing is owed.
        Ok(None) => acknowledge(ack, outcome, id),
        Ok(Some(delivery)) => match delivery.state {
            DeliveryState::Delivered => json(
                StatusCode::OK,
                shape(&task(&delivery), source.getter.as_ref(), source.config.json),
            ),
            DeliveryState::Dead => {
                not_delivered(id, "dead", "The agent could not be run with this event.")
            }
            DeliveryState::Unmappable => not_delivered(
                id,
                "unmappable",
                "The agent could not be run with this event.",
            ),
            DeliveryState::Cancelled => {
                not_delivered(id, "cancelled", "An operator has called this event off.")
            }
            DeliveryState::Dropped => not_delivered(
                id,
                "dropped",
                "A later event of the conversation took this one's place.",
            ),
            // One that was merged ends with the one it went with.
            DeliveryState::Merged => later(ingress, source, id),
            DeliveryState::Unknown | DeliveryState::Pending | DeliveryState::Leased => {
                later(ingress, source, id)
            }
        },
        Err(error) => {
            // It is kept all the same.
            tracing::error!(event = %id, %error, "cannot wait for a delivery's end");
            later(ingress, source, id)
        }
    };
    Ok((outcome, id, left.not(name_event(answer, id))))
}

/// Calls the upstream at once and passes its answer on.
pub(super) async fn proxy(
    ingress: &Ingress,
    source: &Source,
    event: &NewEvent,
) -> Result<(Outcome, Response<Body>), Refusal> {
    if event.filtered.is_some() {
        return Ok((
            Outcome::Filtered,
            json(StatusCode::ACCEPTED, r#"{"status":"filtered"}"#),
        ));
    }
    let owed = event
        .deliveries
        .first()
        .ok_or_else(|| Refusal::Internal("the source has no destination".into()))?;
    let streams = source.config.respond == Respond::Stream;
    let call = Call::of_event(
        event,
        owed,
        &source.config,
        ingress.sealer.marks(),
        if streams {
            RunMode::Stream
        } else {
            RunMode::Call
        },
    );
    ingress.may_run()?;
    let upstream = ingress.upstream.of(Draw {
        account: owed.account.clone(),
        class: source.config.class,
        claimed: false,
    });
    ingress.has_turn(&upstream)?;
    let Some(begun) = Begun::of(ingress, source, event, owed).await? else {
        return Ok((
            Outcome::Replayed,
            json(StatusCode::ACCEPTED, r#"{"status":"duplicate"}"#),
        ));
    };
    let links = match upload::passed_on(ingress, &source.config.name, &event.attachments).await {
        Ok(links) => links,
        Err(refusal) => {
            begun.undo(ingress).await;
            return Err(refusal);
        }
    };
    let call = call.with_files(&links);
    let left = Left::guard(ingress, source, Outcome::Proxied, None);
    if !streams {
        let result = left.not(upstream.invoke(&call).await);
        if result.did_not_run() {
            begun.undo(ingress).await;
        }
        return Ok((Outcome::Proxied, passed_on(source, result)?));
    }
    let answer = match left.not(upstream.open(&call).await) {
        Ok(answer) => answer,
        Err(error) => {
            if matches!(error, SendError::NotSent(_)) {
                begun.undo(ingress).await;
            }
            return Err(Refusal::UpstreamFailed(error.to_string()));
        }
    };
    if !is_stream(&answer) {
        let result = upstream.refusal(&call, answer).await;
        if result.did_not_run() {
            begun.undo(ingress).await;
        }
        return Ok((Outcome::Proxied, passed_on(source, result)?));
    }
    // Dropped with the caller's connection, and the upstream's goes with it.
    Ok((Outcome::Proxied, event_stream::relay(answer)))
}

/// What a call that is about to be passed on has taken: a run of its budgets, and its proof.
struct Begun {
    counted: CountedRun,
    marks: Vec<ProofMark>,
}

impl Begun {
    /// None: what proves it was used before.
    async fn of(
        ingress: &Ingress,
        source: &Source,
        event: &NewEvent,
        owed: &NewDelivery,
    ) -> Result<Option<Self>, Refusal> {
        let marks = match &event.proof {
            Some(proof) => {
                let new = ingress
                    .intake
                    .inbox
                    .use_proof(proof.clone(), ingress.intake.clock.now())
                    .await;
                if !new.map_err(inbox_refusal)? {
                    return Ok(None);
                }
                proof.marks.clone()
            }
            None => Vec::new(),
        };
        match ingress
            .spend(&owed.route(&source.config.name), &event.params)
            .await
        {
            Ok(counted) => Ok(Some(Self { counted, marks })),
            Err(refusal) => {
                free(ingress, marks).await;
                Err(refusal)
            }
        }
    }

    /// The call reached nobody: whoever made it may make it again.
    async fn undo(self, ingress: &Ingress) {
        self.counted.give_back(&*ingress.intake.inbox).await;
        free(ingress, self.marks).await;
    }
}

async fn free(ingress: &Ingress, marks: Vec<ProofMark>) {
    if !marks.is_empty()
        && let Err(error) = ingress.intake.inbox.free_proof(marks).await
    {
        tracing::warn!(%error, "a call that reached nobody counts as made; its sender's next try is told so");
    }
}

/// Counts a request whose caller goes away while something is waited for; then nothing else counts it.
struct Left<'a> {
    ingress: &'a Ingress,
    source: &'a str,
    outcome: Outcome,
    event: Option<EventId>,
    begun: Instant,
    stayed: bool,
}

impl<'a> Left<'a> {
    fn guard(
        ingress: &'a Ingress,
        source: &'a Source,
        outcome: Outcome,
        event: Option<EventId>,
    ) -> Self {
        Self {
            ingress,
            source: &source.config.name,
            outcome,
            event,
            begun: Instant::now(),
            stayed: false,
        }
    }

    /// The caller has not gone away.
    fn not<T>(mut self, found: T) -> T {
        self.stayed = true;
        found
    }
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if self.stayed {
            return;
        }
        let (source, outcome, took) = (self.source, self.outcome.as_str(), self.begun.elapsed());
        self.ingress
            .intake
            .metrics
            .request(source, self.outcome, took);
        let event = self.event.map(|id| id.to_string());
        tracing::info!(
            source,
            event,
            outcome,
            waited_ms = took.as_millis() as u64,
            "caller went away while it waited"
        );
    }
}

/// The task object of a delivery that has ended: the upstream's own, or what is kept of one that was too large.
pub(super) fn task(delivery: &DeliveryDetail) -> Bytes {
    match &delivery.answer {
        Some(Answer {
            task: Some(task), ..
        }) => task.clone(),
        answer => {
            let (status, result, finished_at) = match answer {
                Some(answer) => (
                    Some(&answer.status),
                    answer.result.as_ref(),
                    answer.finished_at.as_ref(),
                ),
                None => (None, None, None),
            };
            let task = serde_json::json!({
                "id": delivery.upstream_id, "status": status, "result": result, "finished_at": finished_at,
            });
            task.to_string().into()
        }
    }
}

/// JSON for one caller alone.
pub(super) fn json(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// It is kept, and its end will stand at a link.
fn later(ingress: &Ingress, source: &Source, id: EventId) -> Response<Body> {
    let url = format!(
        "{}/events/{id}?token={}",
        ingress.public_url,
        ingress.sealer.link_token(id)
    );
    let body =
        serde_json::json!({ "status": "accepted", "event_id": id.to_string(), "status_url": url });
    let status = source
        .ack
        .status
        .and_then(|status| StatusCode::from_u16(status).ok());
    name_event(
        json(status.unwrap_or(StatusCode::ACCEPTED), body.to_string()),
        id,
    )
}

fn not_delivered(id: EventId, code: &str, detail: &str) -> Response<Body> {
    let body = serde_json::json!({ "detail": detail, "code": code, "event_id": id.to_string() });
    json(StatusCode::BAD_GATEWAY, body.to_string())
}

/// What the upstream said, as the caller hears it. Its refusals speak to us and not to the caller.
fn passed_on(source: &Source, result: AttemptResult) -> Result<Response<Body>, Refusal> {
    match result {
        AttemptResult::Ran(run) => match run.task {
            Some(task) => Ok(json(
                StatusCode::OK,
                shape(&task, source.getter.as_ref(), source.config.json),
            )),
            None => Err(Refusal::UpstreamFailed(
                "its answer is no task, or larger than can be passed on".into(),
            )),
        },
        AttemptResult::Refused {
            status: 429 | 503,
            retry_after,
            ..
        } => Err(Refusal::UpstreamBusy(retry_after.unwrap_or_default())),
        AttemptResult::Refused { status, detail, .. } => Err(Refusal::UpstreamFailed(format!(
            "it refused ({status}): {detail}"
        ))),
        AttemptResult::NotSent(why) | AttemptResult::Ambiguous(why) => {
            Err(Refusal::UpstreamFailed(why))
        }
    }
}
