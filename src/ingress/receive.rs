//! The way in: one function that reads as a list.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use futures_util::FutureExt as _;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use tokio::time::Instant;

use super::{Bounds, Ingress, body, host, refuse};
use crate::inbox::InboxError;
use crate::mapping::Mapped;
use crate::model::{
    Accepted, DeliveryId, EventId, NewEvent, Outcome, Received, Refusal, RequestId, Timestamp, Verified,
};
use crate::net::Peer;
use crate::source::{self, Source};
use crate::telemetry::RefusedSample;

/// The id of a request, on every answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("sluicegate-request-id");

/// The id of an event, on the answer to whoever brought it.
const EVENT_ID: HeaderName = HeaderName::from_static("sluicegate-event-id");

/// Header names that a sample of a refused request shows.
const MAX_NAMES: usize = 50;

/// The longest request target.
const MAX_TARGET: usize = 16 * 1024;

/// A request that was not refused.
struct Answered {
    outcome: Outcome,
    event: Option<(EventId, Option<String>)>,
    answer: Response<Body>,
}

/// What is known of a request for its log line, its counters and its sample.
struct Trace {
    id: RequestId,
    at: Timestamp,
    begun: Instant,
    peer: Peer,
    method: String,
    path: String,
    headers: Vec<HeaderName>,
    source: Option<String>,
    body_bytes: u64,
}

/// A request at `/hooks/{source}`.
pub(super) async fn at_source(State(ingress): State<Arc<Ingress>>, request: Request<Body>) -> Response<Body> {
    let mut trace = Trace::new(&ingress, &request);
    // A bug that one request finds is that request's alone.
    let ended = AssertUnwindSafe(receive(&ingress, request, &mut trace)).catch_unwind().await;
    let ended = ended.unwrap_or_else(|_| Err(Refusal::Internal("a bug: the handler panicked".to_owned())));
    finish(&ingress, &trace, ended)
}

/// A request at any other path.
pub(super) async fn elsewhere(State(ingress): State<Arc<Ingress>>, request: Request<Body>) -> Response<Body> {
    let trace = Trace::new(&ingress, &request);
    let (head, body) = request.into_parts();
    let refusal =
        judge_head(&head).and_then(|()| ingress.limits.caller(trace.peer.0)).err().unwrap_or(Refusal::NotFound);
    body::drain(&head.headers, body).await;
    finish(&ingress, &trace, Err(refusal))
}

/// The way of a request, from its head to its answer.
async fn receive(ingress: &Ingress, request: Request<Body>, trace: &mut Trace) -> Result<Answered, Refusal> {
    let (head, incoming) = request.into_parts();
    let early = judge_head(&head)
        .and_then(|()| find(ingress, head.uri.path()))
        .and_then(|source| admit(ingress, source, &head, trace).map(|bounds| (source, bounds)));
    let (source, bounds) = match early {
        Ok(found) => found,
        Err(refusal) => {
            body::drain(&head.headers, incoming).await;
            return Err(refusal);
        }
    };
    let bytes = body::read(incoming, bounds).await?;
    trace.body_bytes = bytes.len() as u64;
    let received = source.opened(received(ingress, head, bytes, trace))?;
    source.prepare(&received, &*ingress.fetch, ingress.clock.now()).await?;
    if let Some(challenge) = source.handshake(&received, trace.at) {
        return challenge.map(|answer| Answered::challenged(&answer));
    }
    let now = ingress.clock.now();
    let verified = source.verify(received, now).map_err(|refused| explained(source, *refused, now))?;
    if let Some(address) = source.confirms(&verified)? {
        return confirm(ingress, &address).await;
    }
    let mapped = source.mapping.apply(&verified)?;
    let event = event(source, &verified, mapped);
    accept(ingress, source, event).await
}

/// A refusal with what probably went wrong, for the operator.
fn explained(source: &Source, (received, mut refusal): (Received, Refusal), now: Timestamp) -> Refusal {
    let inner = match &mut refusal {
        Refusal::Answered(inner, _) => &mut **inner,
        plain => plain,
    };
    if let Refusal::Origin(_, cause) = inner
        && let Some(hint) = source.hint(&received, now)
    {
        cause.push_str("; probably ");
        cause.push_str(&hint);
    }
    refusal
}

/// Confirms what a proved request asks to be confirmed.
async fn confirm(ingress: &Ingress, address: &str) -> Result<Answered, Refusal> {
    match ingress.fetch.get(address).await {
        Ok(_) => {
            tracing::info!(address, "confirmed a subscription");
            Ok(Answered { outcome: Outcome::Challenged, event: None, answer: Response::new(Body::empty()) })
        }
        // The sender tries again.
        Err(what) => Err(Refusal::Challenge(format!("cannot confirm at {address}: {what}")).answered(503)),
    }
}

/// What can be said of a head before anything is looked up.
fn judge_head(head: &http::request::Parts) -> Result<(), Refusal> {
    if !host::is_good(&head.headers) {
        return Err(Refusal::BadHost);
    }
    if !body::is_well_framed(head) {
        return Err(Refusal::BadFraming);
    }
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET { Err(Refusal::TargetTooLong) } else { Ok(()) }
}

/// The source at a path.
fn find<'a>(ingress: &'a Ingress, path: &str) -> Result<&'a Arc<Source>, Refusal> {
    path.strip_prefix("/hooks/").and_then(|name| ingress.sources.get(name)).ok_or(Refusal::NotFound)
}

/// The limits, the method, and what the head says of the body. All of it before the body is touched.
fn admit(
    ingress: &Ingress,
    source: &Source,
    head: &http::request::Parts,
    trace: &mut Trace,
) -> Result<Bounds, Refusal> {
    trace.source = Some(source.config.name.clone());
    ingress.limits.caller(trace.peer.0)?;
    ingress.limits.source(&source.config.name)?;
    let allow = source.allow();
    if !allow.split(", ").any(|method| method == head.method.as_str()) {
        return Err(Refusal::Method(allow));
    }
    let bounds = Bounds {
        size: source.max_body.unwrap_or(ingress.bounds.size),
        compressed: source.takes_compressed(),
        ..ingress.bounds
    };
    body::judge_head(&head.headers, bounds)?;
    Ok(bounds)
}

/// The request as the stages behind see it.
fn received(ingress: &Ingress, head: http::request::Parts, body: bytes::Bytes, trace: &Trace) -> Received {
    let target = head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    Received {
        id: trace.id,
        at: trace.at,
        method: head.method,
        url: format!("{}{target}", ingress.public_url),
        target,
        headers: head.headers,
        body,
        peer: trace.peer.0,
    }
}

/// The event that a verified and mapped request is.
fn event(source: &Source, verified: &Verified, mapped: Mapped) -> NewEvent {
    let (request, proof) = (verified.request(), verified.proof());
    let id = EventId::new();
    let owed = match mapped.filtered {
        Some(_) => None,
        None => source.config.owed(DeliveryId { event: id, number: 0 }, mapped.thread.as_deref()),
    };
    let kept = source.kept(request);
    NewEvent {
        id,
        source: source.config.name.clone(),
        dedup: mapped.dedup,
        event_type: mapped.event_type,
        received_at: request.at,
        strength: proof.strength,
        secret: proof.secret.clone(),
        filtered: mapped.filtered,
        thread: mapped.thread,
        params: mapped.params,
        request_line: kept.request_line,
        headers: kept.headers,
        body: request.body.clone(),
        deliveries: owed.into_iter().collect(),
    }
}

/// Keeps the event. The answer is made after the commit, never before.
async fn accept(ingress: &Ingress, source: &Source, event: NewEvent) -> Result<Answered, Refusal> {
    let (id, filtered, thread) = (event.id, event.filtered.is_some(), event.thread.clone());
    let (outcome, id) = match ingress.inbox.accept(event).await {
        Ok(Accepted::New) if filtered => (Outcome::Filtered, id),
        Ok(Accepted::New) => (Outcome::Accepted, id),
        Ok(Accepted::Duplicate(first)) => (Outcome::Duplicate, first),
        Err(InboxError::Full(wait)) => return Err(Refusal::Overloaded(wait)),
        Err(InboxError::NoSpace) => return Err(Refusal::NoSpace),
        Err(error @ InboxError::Record(_)) => return Err(Refusal::Unmappable(error.to_string())),
        Err(error) => return Err(Refusal::Inbox(error.to_string())),
    };
    Ok(Answered { outcome, event: Some((id, thread)), answer: acknowledge(source, outcome, id) })
}

/// What the sender of a kept event hears: what its provider wants, or our JSON.
fn acknowledge(source: &Source, outcome: Outcome, id: EventId) -> Response<Body> {
    let (kind, body) = match &source.ack.text {
        Some(text) => ("text/plain; charset=utf-8", text.clone()),
        None => (
            "application/json",
            serde_json::json!({ "status": outcome.as_str(), "event_id": id.to_string() }).to_string(),
        ),
    };
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() =
        source.ack.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::ACCEPTED);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in &source.ack.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.headers_mut().insert(name, value);
        }
    }
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        answer.headers_mut().insert(EVENT_ID, id);
    }
    answer
}

impl Answered {
    fn challenged(given: &source::Answer) -> Self {
        let mut answer = Response::new(Body::from(given.body.clone()));
        *answer.status_mut() = StatusCode::from_u16(given.status).unwrap_or(StatusCode::OK);
        let headers = answer.headers_mut();
        let named = given.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let own = [("content-type", given.content_type.as_str()), ("x-content-type-options", "nosniff")];
        for (name, value) in named.chain(own) {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        Self { outcome: Outcome::Challenged, event: None, answer }
    }
}

impl Trace {
    fn new(ingress: &Ingress, request: &Request<Body>) -> Self {
        Self {
            id: RequestId::new(),
            at: ingress.clock.now(),
            begun: Instant::now(),
            peer: request.extensions().get::<Peer>().copied().unwrap_or(Peer([0, 0, 0, 0].into())),
            method: request.method().as_str().chars().take(16).collect(),
            path: request.uri().path().chars().take(200).collect(),
            headers: request.headers().keys().take(MAX_NAMES).cloned().collect(),
            source: None,
            body_bytes: 0,
        }
    }
}

/// One outcome, one log line, one answer.
fn finish(ingress: &Ingress, trace: &Trace, ended: Result<Answered, Refusal>) -> Response<Body> {
    let took = trace.begun.elapsed();
    let source = trace.source.as_deref().unwrap_or("");
    let (request, peer, method, path) = (trace.id, trace.peer.0, &trace.method, &trace.path);
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let mut answer = match ended {
        Ok(Answered { outcome, event, answer }) => {
            ingress.metrics.request(source, outcome, took);
            let (event, thread) = event.map_or((None, None), |(id, thread)| (Some(id.to_string()), thread));
            let outcome = outcome.as_str();
            tracing::info!(%request, source, event, thread, %peer, outcome, took_us, "request");
            answer
        }
        Err(refusal) => {
            ingress.metrics.request(source, Outcome::Refused, took);
            ingress.metrics.refused(source, refusal.reason());
            let (code, reason, cause) = (refusal.code(), refusal.reason(), refusal.cause());
            ingress.samples.keep(RefusedSample {
                at: trace.at,
                request_id: trace.id.to_string(),
                source: trace.source.clone(),
                method: method.clone(),
                path: path.clone(),
                peer,
                headers: trace.headers.iter().map(ToString::to_string).collect(),
                body_bytes: trace.body_bytes,
                code,
                reason,
                cause: cause.clone(),
            });
            match refusal.plain() {
                Refusal::Internal(_) | Refusal::Inbox(_) | Refusal::NoSpace => {
                    tracing::error!(%request, source, %peer, method, path, outcome = "refused", reason, cause, took_us, "request");
                }
                _ => {
                    tracing::info!(%request, source, %peer, method, path, outcome = "refused", reason, cause, took_us, "request");
                }
            }
            refuse::answer(&refusal, trace.id)
        }
    };
    if let Ok(id) = HeaderValue::try_from(trace.id.to_string()) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    answer
}
