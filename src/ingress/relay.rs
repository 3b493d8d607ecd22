//! `respond = "proxy"` and `respond = "stream"`: the upstream is called at once, and its answer is passed on.
//!
//! Nothing of the call is kept. It is made once, and what proves it is good for no other call.

use axum::body::Body;
use http::{Response, StatusCode};

use super::acknowledge::json;
use super::request_log::{Answered, RequestLog};
use super::{Ingress, event_stream, links};
use crate::config::{Respond, RunMode};
use crate::inbox::CountedRun;
use crate::intake::inbox_refusal;
use crate::mapping::getter::shape;
use crate::model::{AttemptResult, NewDelivery, NewEvent, Outcome, ProofMark, Refusal};
use crate::net::SendError;
use crate::source::Source;
use crate::upstream::{Call, Draw, is_stream};

/// Calls the upstream at once and passes its answer on.
pub(super) async fn run(
    ingress: &Ingress,
    source: &Source,
    event: &NewEvent,
    log: &mut RequestLog,
) -> Result<Answered, Refusal> {
    if event.filtered.is_some() {
        return Ok(answered(
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
    let Some(begun) = CountedCall::of(ingress, source, event, owed).await? else {
        return Ok(answered(
            Outcome::Replayed,
            json(StatusCode::ACCEPTED, r#"{"status":"duplicate"}"#),
        ));
    };
    let links = match links::make(ingress, &source.config.name, &event.attachments).await {
        Ok(links) => links,
        Err(refusal) => {
            begun.undo(ingress).await;
            return Err(refusal);
        }
    };
    let call = call.with_files(&links);
    log.waits(Outcome::Proxied, None);
    if !streams {
        let result = upstream.invoke(&call).await;
        if result.did_not_run() {
            begun.undo(ingress).await;
        }
        return Ok(answered(Outcome::Proxied, answer_of(source, result)?));
    }
    let answer = match upstream.open(&call).await {
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
        return Ok(answered(Outcome::Proxied, answer_of(source, result)?));
    }
    // Dropped with the caller's connection, and the upstream's goes with it.
    Ok(answered(Outcome::Proxied, event_stream::relay(answer)))
}

/// Resources of a call that is about to be made: a run of its budgets, and its proof.
struct CountedCall {
    counted: CountedRun,
    marks: Vec<ProofMark>,
}

impl CountedCall {
    /// Takes them; absent if the proof was used before.
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

    /// Gives them back: the call reached nobody, and its caller may make it again.
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

fn answered(outcome: Outcome, answer: Response<Body>) -> Answered {
    Answered {
        outcome,
        event: None,
        answer,
    }
}

/// The upstream's result as the caller sees it. Its refusals speak to the operator and not to the caller.
fn answer_of(source: &Source, result: AttemptResult) -> Result<Response<Body>, Refusal> {
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
