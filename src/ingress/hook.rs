//! The way of a request at `/hooks/{source}`: one function that reads as a list.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::request::Parts;
use http::{Request, Response};

use super::acknowledge::{acknowledge, acknowledge_all, leading};
use super::door;
use super::door_kind::Door;
use super::items::{self, NewEvents};
use super::load_shed::{LoadPermit, Rank};
use super::memory_limit::MemoryPermit;
use super::proof::{self, Proved, RequestOrigin};
use super::request_log::{Answered, RequestLog};
use super::upload::{self, Upload};
use super::{BodyLimits, Ingress, body, challenge, elsewhere, received, relay, wait};
use crate::config::Respond;
use crate::model::Refusal;
use crate::source::Source;

/// A request at `/hooks/{source}`.
pub(super) async fn at_source(
    State(ingress): State<Arc<Ingress>>,
    request: Request<Body>,
) -> Response<Body> {
    door::serve(ingress, Door::Source, request, receive).await
}

/// The way of a request from its head to its answer.
async fn receive(
    ingress: &Ingress,
    (head, incoming): (Parts, Body),
    log: &mut RequestLog,
) -> Result<Answered, Refusal> {
    let admitted = match admit(ingress, &head, log) {
        Ok(admitted) => admitted,
        // Nothing is read of a body that is not here yet: the connection ends behind the answer.
        Err(refusal) => {
            if matches!(refusal, Refusal::NotFound) {
                log.hint = elsewhere::hint(&ingress.intake.sources, head.uri.path());
            }
            log.drained = body::drain(&head.headers, incoming);
            return Err(refusal);
        }
    };
    let source = admitted.source;
    let memory = ingress.memory.permit(log.peer.0);
    let request = (head, incoming);
    log.reads_body();
    let origin = match &admitted.upload {
        // Boxed: what few requests need would make the future of each of them larger.
        Some(upload) => {
            Box::pin(upload::prove(
                ingress, source, upload, request, &memory, log,
            ))
            .await?
        }
        None => prove(ingress, &admitted, request, &memory, log).await?,
    };
    let Proved { verified, upload } = match origin {
        RequestOrigin::Proved(proved) => proved,
        RequestOrigin::Challenge(answered) => return Ok(answered),
    };
    proof::count(ingress, source, &verified, log)?;
    match &upload {
        Some(_) => ingress.uploads.proved(&source.config.name, log.peer.0),
        None => {
            if let Some(address) = source.confirms(&verified)? {
                return Box::pin(challenge::confirm(ingress, &address)).await;
            }
        }
    }
    source.check_query(verified.request(), &ingress.sealer)?;
    let has_files = upload.as_ref().is_some_and(|upload| upload.has_files());
    let mut events = items::events(ingress, source, verified, has_files, &memory, log)?;
    if let Some(upload) = upload {
        Box::pin(upload.place(ingress, &mut events)).await?;
    }
    answer(ingress, source, events, log).await
}

/// A request whose head is good for a source.
struct AdmittedRequest<'i> {
    source: &'i Arc<Source>,
    /// Present if the request may bring files.
    upload: Option<Upload>,
    limits: BodyLimits,
    /// The request's place among those in work.
    _permit: LoadPermit,
}

/// Finds the source, and judges what the head shows: load, the caller's own limit, address, method, length. All of it
/// before the body is touched. The source's own limit counts proved requests, and comes later.
fn admit<'i>(
    ingress: &'i Ingress,
    head: &Parts,
    log: &mut RequestLog,
) -> Result<AdmittedRequest<'i>, Refusal> {
    let source = find(ingress, head.uri.path(), log.peer.0)?;
    let permit = match source.config.respond {
        Respond::Ack | Respond::Wait => ingress.load.enter(Rank::of(source), log.peer.0)?,
        Respond::Proxy | Respond::Stream => {
            ingress.load.enter_beside(Rank::of(source), log.peer.0)?
        }
    };
    log.at_source(source);
    ingress.limits.caller(log.peer.0, &mut log.limits)?;
    if !source.config.allow.is_empty() && !log.peer.is_in(&source.config.allow) {
        return Err(Refusal::AddressNotAllowed);
    }
    source.accept_certificate(log.certificate.as_deref())?;
    let allow = source.allow();
    if !allow
        .split(", ")
        .any(|method| method == head.method.as_str())
    {
        return Err(Refusal::Method(allow));
    }
    let upload = Upload::of(ingress, source, &head.headers)?;
    let limits = match &upload {
        Some(upload) => upload::limits(ingress, &upload.rules),
        None => BodyLimits {
            size: source.max_body.unwrap_or(ingress.body_limits.size),
            compressed: source.takes_compressed(),
            ..ingress.body_limits
        },
    };
    body::judge_head(&head.headers, limits)?;
    Ok(AdmittedRequest {
        source,
        upload,
        limits,
        _permit: permit,
    })
}

/// The source at a path.
fn find<'i>(ingress: &'i Ingress, path: &str, peer: IpAddr) -> Result<&'i Arc<Source>, Refusal> {
    match path
        .strip_prefix("/hooks/")
        .and_then(|name| ingress.intake.sources.get(name))
    {
        Some(source) => Ok(source),
        None => Err(ingress
            .load
            .enter(Rank::Unknown, peer)
            .err()
            .unwrap_or(Refusal::NotFound)),
    }
}

/// Reads the body and proves where the request comes from. A provider's challenge is answered here.
async fn prove(
    ingress: &Ingress,
    admitted: &AdmittedRequest<'_>,
    (head, incoming): (Parts, Body),
    memory: &MemoryPermit,
    log: &mut RequestLog,
) -> Result<RequestOrigin, Refusal> {
    let source = admitted.source;
    let bytes = body::read(incoming, admitted.limits, memory).await?;
    log.read_body(bytes.len() as u64, true);
    let received = received::received(ingress, head, bytes, log);
    log.whole = (ingress.keep_refused > 0).then(|| received.clone());
    let received = received::opened(source, received, memory)?;
    let prepared = source
        .prepare(&received, &*ingress.fetch, ingress.intake.clock.now())
        .await?;
    if let Some(challenge) = source.handshake(&received, log.at) {
        return challenge.map(|given| RequestOrigin::Challenge(challenge::answer(&given)));
    }
    let now = ingress.intake.clock.now();
    match source.verify_prepared(received, prepared, now) {
        Ok(verified) => Ok(RequestOrigin::Proved(Proved {
            verified,
            upload: None,
        })),
        Err(refused) => {
            let refusal = proof::explain(source, *refused, now);
            proof::count_unproved(ingress, source, log)?;
            Err(refusal)
        }
    }
}

/// Answers the caller as the source says (see [`Respond`]). A request that brings several events is acknowledged: one
/// answer cannot be the end of several runs.
async fn answer(
    ingress: &Ingress,
    source: &Source,
    events: NewEvents,
    log: &mut RequestLog,
) -> Result<Answered, Refusal> {
    let NewEvents { mut events, ack } = events;
    let ack = ack.as_ref().unwrap_or(&source.ack);
    if events.len() > 1 {
        let threads: Vec<_> = events.iter().map(|event| event.thread.clone()).collect();
        let receipts = ingress.intake.accept(events).await?;
        let place = leading(&receipts);
        return Ok(Answered {
            outcome: receipts[place].outcome,
            event: Some((receipts[place].event, threads[place].clone())),
            answer: acknowledge_all(ack, &receipts, place),
        });
    }
    let event = events
        .pop()
        .ok_or_else(|| Refusal::Internal("a request without an event".into()))?;
    let thread = event.thread.clone();
    match source.config.respond {
        Respond::Ack => {
            let receipt = ingress.intake.accept_one(event).await?;
            Ok(Answered {
                outcome: receipt.outcome,
                event: Some((receipt.event, thread)),
                answer: acknowledge(ack, receipt),
            })
        }
        Respond::Wait => {
            let (receipt, answer) =
                Box::pin(wait::until_ended(ingress, source, ack, event, log)).await?;
            Ok(Answered {
                outcome: receipt.outcome,
                event: Some((receipt.event, thread)),
                answer,
            })
        }
        Respond::Proxy | Respond::Stream => {
            Box::pin(relay::run(ingress, source, &event, log)).await
        }
    }
}
