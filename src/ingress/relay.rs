//! `respond = "proxy"` and `respond = "stream"`: the upstream is called at once, and its answer is passed on.
//!
//! Nothing of the call is kept. It is made once, and what proves it is good for no other call.

use axum::body::Body;
use http::{Response, StatusCode};

use super::acknowledge::json;
use super::request_log::{Answered, RequestLog};
use super::{Ingress, event_stream};
use crate::config::{Respond, RunMode};
use crate::mapping::getter::shape;
use crate::model::{AttemptResult, NewEvent, Outcome, Refusal};
use crate::run::{PreparedRun, Ran, RunOrder};
use crate::source::Source;
use crate::upstream::Call;

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
    let order = RunOrder {
        route: &owed.route(&source.config.name),
        params: &event.params,
        proof: event.proof.as_ref(),
        files: event.attachments.clone(),
        is_counted: true,
    };
    let Some(run) = PreparedRun::new(&ingress.runs, order).await? else {
        return Ok(answered(
            Outcome::Replayed,
            json(StatusCode::ACCEPTED, r#"{"status":"duplicate"}"#),
        ));
    };
    let call = call.with_files(run.links());
    log.waits(Outcome::Proxied, None);
    let answer = if streams {
        match run.stream(&call).await {
            // Dropped with the caller's connection, and the upstream's goes with it.
            Ran::Streaming(answer) => event_stream::relay(answer),
            Ran::Ended(result) => answer_of(source, result)?,
            Ran::Broken(error) => return Err(Refusal::UpstreamFailed(error.to_string())),
        }
    } else {
        answer_of(source, run.wait(&call).await)?
    };
    Ok(answered(Outcome::Proxied, answer))
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
