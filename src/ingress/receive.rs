//! The way in: one function that reads as a list.

use std::collections::HashSet;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use futures_util::FutureExt as _;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::load_shed::{LoadPermit, Rank};
use super::memory_limit::MemoryPermit;
use super::request_log::{self, Answered, RefusedAnswer, RequestLog};
use super::{BodyLimits, Ingress, body, host, respond, status, upload};
use crate::config::section::nearest;
use crate::config::{Ack, Respond};
use crate::intake::{self, Receipt};
use crate::model::{EventId, NewEvent, Outcome, Received, Refusal, Strength, Timestamp, Verified};
use crate::net::HeadFault;
use crate::source::{Source, Sources};
use crate::verify::{ChallengeResponse, most_inflated};

/// The id of an event, on the answer to whoever brought it.
pub(super) const EVENT_ID: HeaderName = HeaderName::from_static("sluicegate-event-id");

/// The longest request target.
const MAX_TARGET: usize = 16 * 1024;

/// What an item of a list takes beside its document: headers and names, about.
const ITEM_BYTES: u64 = 4 * 1024;

/// A request at `/hooks/{source}`.
pub(super) async fn at_source(
    State(ingress): State<Arc<Ingress>>,
    request: Request<Body>,
) -> Response<Body> {
    let mut log = RequestLog::new(&ingress, &request);
    // A bug that one request finds is that request's alone.
    let ended = AssertUnwindSafe(receive(&ingress, request, &mut log))
        .catch_unwind()
        .await;
    let ended =
        ended.unwrap_or_else(|_| Err(Refusal::Internal("a bug: the handler panicked".to_owned())));
    request_log::finish(
        &ingress,
        &log,
        ended.map_err(|refusal| RefusedAnswer::at_source(refusal, &log)),
    )
}

/// A request at any other path.
pub(super) async fn elsewhere(
    State(ingress): State<Arc<Ingress>>,
    request: Request<Body>,
) -> Response<Body> {
    let mut log = RequestLog::new(&ingress, &request);
    let (head, incoming) = request.into_parts();
    let judged = ingress
        .judge_head(&head)
        .and_then(|()| ingress.load.enter(Rank::Unknown, log.peer.0))
        .and_then(|_| ingress.limits.caller(log.peer.0, &mut log.limits))
        .and_then(|()| ingress.limits.whole(false));
    let refusal = judged.err().unwrap_or(Refusal::NotFound);
    if matches!(refusal, Refusal::NotFound) {
        log.hint = meant(&ingress.intake.sources, head.uri.path());
    }
    log.drained = body::drain(&head.headers, incoming);
    request_log::finish(&ingress, &log, Err(RefusedAnswer::at_source(refusal, &log)))
}

/// A request that is none: what came in its place says only what was wrong with it.
pub(super) fn misframed(
    ingress: &Ingress,
    fault: HeadFault,
    request: &Request<Incoming>,
) -> Response<Body> {
    let log = RequestLog::of_none(ingress, request);
    let refusal = match fault {
        HeadFault::Head(what) => Refusal::BadHead(what),
        HeadFault::Framing(what) => Refusal::BadFraming(what),
        HeadFault::Target(what) => Refusal::BadTarget(what),
        HeadFault::TargetTooLong => Refusal::TargetTooLong,
        HeadFault::TooLarge => Refusal::HeadTooLarge,
        HeadFault::Version => Refusal::BadVersion,
        HeadFault::Slow => Refusal::SlowHead,
    };
    request_log::finish(ingress, &log, Err(RefusedAnswer::at_source(refusal, &log)))
}

/// A request for what became of an event.
pub(super) async fn at_event(
    State(ingress): State<Arc<Ingress>>,
    request: Request<Body>,
) -> Response<Body> {
    let mut log = RequestLog::new(&ingress, &request);
    let (head, _) = request.into_parts();
    let admitted = ingress
        .judge_head(&head)
        .and_then(|()| ingress.limits.caller(log.peer.0, &mut log.limits))
        .and_then(|()| {
            ingress
                .limits
                .whole(status::asked(&ingress, &head).is_some())
        });
    let ended = match admitted {
        Ok(()) => AssertUnwindSafe(status::answer(&ingress, &head))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Err(Refusal::Internal("a bug: the handler panicked".to_owned()))),
        Err(refusal) => Err(refusal),
    };
    let ended = ended
        .map(|answer| Answered {
            outcome: Outcome::Shown,
            event: None,
            answer,
        })
        .map_err(|refusal| RefusedAnswer::at_source(refusal, &log));
    request_log::finish(&ingress, &log, ended)
}

/// The way of a request, from its head to its answer.
async fn receive(
    ingress: &Ingress,
    request: Request<Body>,
    log: &mut RequestLog,
) -> Result<Answered, Refusal> {
    let (head, incoming) = request.into_parts();
    let early = ingress
        .judge_head(&head)
        .and_then(|()| find(ingress, head.uri.path(), log.peer.0))
        .and_then(|source| enter(ingress, source, log.peer.0).map(|slot| (source, slot)))
        .and_then(|(source, slot)| {
            admit(ingress, source, &head, log).map(|bounds| (source, bounds, slot))
        });
    let (source, bounds, _slot) = match early {
        Ok(admitted) => admitted,
        // Of a body that is not here yet nothing is read: the connection ends behind the answer.
        Err(refusal) => {
            if matches!(refusal, Refusal::NotFound) {
                log.hint = meant(&ingress.intake.sources, head.uri.path());
            }
            log.drained = body::drain(&head.headers, incoming);
            return Err(refusal);
        }
    };
    if let Some(taken) = upload::wanted(source, &head.headers)? {
        return upload::receive(ingress, source, taken, (head, incoming), log).await;
    }
    let hold = ingress.held.hold(log.peer.0);
    let bytes = body::read(incoming, bounds, &hold).await?;
    log.body_bytes = bytes.len() as u64;
    let received = received(ingress, head, bytes, log);
    log.whole = (ingress.keep_refused > 0).then(|| received.clone());
    let received = opened(source, received, &hold)?;
    let prepared = source
        .prepare(&received, &*ingress.fetch, ingress.intake.clock.now())
        .await?;
    if let Some(challenge) = source.handshake(&received, log.at) {
        return challenge.map(|answer| Answered::challenged(&answer));
    }
    let now = ingress.intake.clock.now();
    let verified = match source.verify_prepared(received, prepared, now) {
        Ok(verified) => verified,
        Err(refused) => {
            let refusal = explained(source, *refused, now);
            return Err(unproved(ingress, source, log).err().unwrap_or(refusal));
        }
    };
    count(ingress, source, &verified, log)?;
    if let Some(address) = source.confirms(&verified)? {
        return confirm(ingress, &address).await;
    }
    source.check_query(verified.request(), &ingress.sealer)?;
    let brought = brought(ingress, source, verified, false, &hold, log)?;
    answer(ingress, source, brought).await
}

/// What a request brings.
pub(super) struct NewEvents {
    /// Its events, in their order; at least one.
    pub(super) events: Vec<NewEvent>,
    /// The answer to its sender, where it is not that of all of the source's events.
    pub(super) ack: Option<Ack>,
}

/// The events of a proved request: one, or one for each item of a list.
pub(super) fn brought(
    ingress: &Ingress,
    source: &Source,
    verified: Verified,
    has_files: bool,
    hold: &MemoryPermit,
    log: &mut RequestLog,
) -> Result<NewEvents, Refusal> {
    let whole = verified.request().body.len() as u64;
    let items = source.items(verified)?;
    if items.len() > 1 {
        let of_items: u64 = items
            .iter()
            .map(|item| item.request().body.len() as u64 + ITEM_BYTES)
            .sum();
        hold.grow(whole + of_items)?;
    }
    let mut brought = NewEvents {
        events: Vec::with_capacity(items.len()),
        ack: None,
    };
    // However many items of a conversation a request brings, it goes on once.
    let mut threads = HashSet::new();
    for (place, item) in items.iter().enumerate() {
        let mut mapped = source.apply_or_keep(item, has_files)?;
        mapped.dedup = source.mapping.key_of_item(mapped.dedup, place);
        if let (Some(thread), None) = (&mapped.thread, &mapped.filtered)
            && (items.len() == 1 || threads.insert(thread.clone()))
        {
            ingress
                .limits
                .thread(&source.config.name, thread, &mut log.limits)?;
        }
        if place == 0 {
            brought.ack.clone_from(&mapped.ack);
        }
        brought.events.push(intake::event(source, item, mapped));
    }
    Ok(brought)
}

/// The request with the body that is signed. What a compressed one may become is taken from what all bodies share.
pub(super) fn opened(
    source: &Source,
    received: Received,
    hold: &MemoryPermit,
) -> Result<Received, Refusal> {
    if source.takes_compressed() && received.headers.contains_key(CONTENT_ENCODING) {
        let length = received.body.len() as u64;
        hold.grow(length + most_inflated(length))?;
    }
    source.opened(received)
}

/// The limits of the source and of the whole gateway. What passes although nothing is proved of it counts against its
/// own caller.
pub(super) fn count(
    ingress: &Ingress,
    source: &Source,
    verified: &Verified,
    log: &mut RequestLog,
) -> Result<(), Refusal> {
    if matches!(verified.proof().strength, Strength::Observed(_)) {
        ingress.limits.whole(false)?;
        return unproved(ingress, source, log);
    }
    used(ingress, source, verified, log.at);
    ingress.limits.whole(true)?;
    ingress.limits.source(&source.config.name, &mut log.limits)
}

/// How long before its end a secret that still proves is told of.
const ENDS_SOON: Duration = Duration::from_secs(3 * 24 * 3600);

/// Notes which secret has proved a request. One that ends soon is told of once a day: its sender has to know the next.
fn used(ingress: &Ingress, source: &Source, verified: &Verified, now: Timestamp) {
    let Some(secret) = verified.proof().secret.as_deref() else {
        return;
    };
    let name = &source.config.name;
    if !ingress.uses.secret(name, secret, now) {
        return;
    }
    if let Some(until) = source
        .ends(secret)
        .filter(|until| until.since(now) < ENDS_SOON)
    {
        tracing::warn!(source = name, secret, %until, "a secret that ends soon still proves requests: give its sender the next one");
    }
}

/// Counts a request that is not proved, and slows its caller down where it brings too many.
pub(super) fn unproved(
    ingress: &Ingress,
    source: &Source,
    log: &mut RequestLog,
) -> Result<(), Refusal> {
    ingress
        .limits
        .failed(&source.config.name, log.peer.0, &mut log.limits)
}

/// What the source's callers get: see [`Respond`]. Who brings several events at once gets an acknowledgement: one answer
/// cannot be the end of several runs.
pub(super) async fn answer(
    ingress: &Ingress,
    source: &Source,
    brought: NewEvents,
) -> Result<Answered, Refusal> {
    let NewEvents { mut events, ack } = brought;
    let ack = ack.as_ref().unwrap_or(&source.ack);
    if events.len() > 1 {
        let threads: Vec<_> = events.iter().map(|event| event.thread.clone()).collect();
        let kept = ingress.intake.accept(events).await?;
        let place = leading(&kept);
        let Receipt { outcome, event: id } = kept[place];
        let answer = acknowledge_all(ack, &kept, place);
        return Ok(Answered {
            outcome,
            event: Some((id, threads[place].clone())),
            answer,
        });
    }
    let event = events
        .pop()
        .ok_or_else(|| Refusal::Internal("a request without an event".into()))?;
    let thread = event.thread.clone();
    let (outcome, id, answer) = match source.config.respond {
        Respond::Ack => {
            let Receipt { outcome, event: id } = ingress.intake.accept_one(event).await?;
            (outcome, Some(id), acknowledge(ack, outcome, id))
        }
        Respond::Wait => {
            let (outcome, id, answer) = respond::wait(ingress, source, ack, event).await?;
            (outcome, Some(id), answer)
        }
        Respond::Proxy | Respond::Stream => {
            let (outcome, answer) = respond::proxy(ingress, source, &event).await?;
            (outcome, None, answer)
        }
    };
    Ok(Answered {
        outcome,
        event: id.map(|id| (id, thread)),
        answer,
    })
}

/// Which of the events says what became of their request: the first that is new, or else the first.
fn leading(kept: &[Receipt]) -> usize {
    [
        Outcome::Accepted,
        Outcome::Unmappable,
        Outcome::Filtered,
        Outcome::Duplicate,
    ]
    .into_iter()
    .find_map(|wanted| kept.iter().position(|receipt| receipt.outcome == wanted))
    .unwrap_or(0)
}

/// A refusal with what probably went wrong, for the operator.
pub(super) fn explained(
    source: &Source,
    (received, mut refusal): (Received, Refusal),
    now: Timestamp,
) -> Refusal {
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
    // What stands behind the path is a key: whoever has it can confirm, or take the subscription away.
    let plain = address.split_once('?').map_or(address, |(plain, _)| plain);
    match ingress.fetch.get(address).await {
        Ok(_) => {
            tracing::info!(address = plain, "confirmed a subscription");
            Ok(Answered {
                outcome: Outcome::Challenged,
                event: None,
                answer: Response::new(Body::empty()),
            })
        }
        // The sender tries again.
        Err(what) => {
            Err(Refusal::Challenge(format!("cannot confirm at {plain}: {what}")).answered(503))
        }
    }
}

/// What can be said of a head before anything is looked up. That it is one, and how its body is framed, was seen to
/// where it came in.
pub(super) fn judge_head(head: &http::request::Parts) -> Result<(), Refusal> {
    if !host::is_good(head) {
        return Err(Refusal::BadHost);
    }
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method("GET, POST"));
    }
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET {
        Err(Refusal::TargetTooLong)
    } else {
        Ok(())
    }
}

/// The source at a path.
fn find<'a>(ingress: &'a Ingress, path: &str, peer: IpAddr) -> Result<&'a Arc<Source>, Refusal> {
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

/// The most sources whose names are compared letter by letter with what a stranger asks for.
const MOST_NAMES: usize = 200;

/// The longest path that is looked at for what it may mean.
const MOST_MEANT: usize = 256;

/// For the operator: the source that a path which leads nowhere was probably meant for.
pub(super) fn meant(sources: &Sources, path: &str) -> Option<String> {
    let path = path.get(..MOST_MEANT.min(path.len()))?;
    let decoded = percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .ok()?;
    let segments: Vec<&str> = decoded
        .split('/')
        .map(str::trim)
        .filter(|segment| !segment.is_empty())
        .collect();
    let (last, before) = segments.split_last()?;
    // Of longer paths only those that speak of hooks; of others nobody can tell.
    let speaks = before.is_empty()
        || before
            .iter()
            .any(|part| part.to_ascii_lowercase().contains("hook"));
    if !speaks {
        return None;
    }
    let names = || sources.iter().map(|source| source.config.name.as_str());
    let found = names().find(|name| name.eq_ignore_ascii_case(last));
    let near = || {
        let is_small = names().nth(MOST_NAMES).is_none() && !before.is_empty() && last.len() <= 64;
        is_small.then(|| nearest(last, names())).flatten()
    };
    let name = found.or_else(near)?;
    Some(format!(
        "there is a source {name}: its path is /hooks/{name}, and nothing else"
    ))
}

/// A place among the requests in work.
fn enter(ingress: &Ingress, source: &Source, peer: IpAddr) -> Result<LoadPermit, Refusal> {
    match source.config.respond {
        Respond::Ack | Respond::Wait => ingress.load.enter(Rank::of(source), peer),
        Respond::Proxy | Respond::Stream => ingress.load.enter_beside(Rank::of(source), peer),
    }
}

/// The caller's own limit, the method, and what the head says of the body. All of it before the body is touched. The
/// source's limit counts what is proved, and comes later.
fn admit(
    ingress: &Ingress,
    source: &Source,
    head: &http::request::Parts,
    log: &mut RequestLog,
) -> Result<BodyLimits, Refusal> {
    log.source = Some(source.config.name.clone());
    ingress.limits.caller(log.peer.0, &mut log.limits)?;
    if !source.config.allow.is_empty() && !log.peer.is_in(&source.config.allow) {
        return Err(Refusal::AddressNotAllowed);
    }
    let allow = source.allow();
    if !allow
        .split(", ")
        .any(|method| method == head.method.as_str())
    {
        return Err(Refusal::Method(allow));
    }
    let bounds = match upload::wanted(source, &head.headers)? {
        Some(taken) => upload::bounds(ingress, &ingress.file_rules.of(taken)),
        None => BodyLimits {
            size: source.max_body.unwrap_or(ingress.bounds.size),
            compressed: source.takes_compressed(),
            ..ingress.bounds
        },
    };
    body::judge_head(&head.headers, bounds)?;
    Ok(bounds)
}

/// The request as the stages behind see it.
pub(super) fn received(
    ingress: &Ingress,
    head: http::request::Parts,
    body: bytes::Bytes,
    log: &RequestLog,
) -> Received {
    let target = head
        .uri
        .path_and_query()
        .map_or_else(|| "/".to_owned(), ToString::to_string);
    Received {
        id: log.id,
        at: log.at,
        method: head.method,
        url: format!("{}{target}", ingress.public_url),
        target,
        headers: head.headers,
        body,
        peer: log.peer.0,
    }
}

/// What the sender of a kept event hears: what its provider wants, or our JSON.
pub(super) fn acknowledge(ack: &Ack, outcome: Outcome, id: EventId) -> Response<Body> {
    acknowledged(
        ack,
        id,
        || serde_json::json!({ "status": outcome.told(), "event_id": id.to_string() }),
    )
}

/// What the sender of several events hears: in our JSON each of them, in order.
fn acknowledge_all(ack: &Ack, kept: &[Receipt], leading: usize) -> Response<Body> {
    let Receipt { outcome, event: id } = kept[leading];
    acknowledged(ack, id, || {
        let of_event = |receipt: &Receipt| serde_json::json!({ "status": receipt.outcome.told(), "event_id": receipt.event.to_string() });
        let events: Vec<_> = kept.iter().map(of_event).collect();
        serde_json::json!({ "status": outcome.told(), "event_id": id.to_string(), "events": events })
    })
}

fn acknowledged(
    ack: &Ack,
    id: EventId,
    ours: impl FnOnce() -> serde_json::Value,
) -> Response<Body> {
    let (kind, body) = match &ack.text {
        Some(text) => ("text/plain; charset=utf-8", text.clone()),
        None => ("application/json", ours().to_string()),
    };
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = ack
        .status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or(StatusCode::ACCEPTED);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in &ack.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.headers_mut().insert(name, value);
        }
    }
    name_event(answer, id)
}

/// Puts the event's id on the answer to whoever brought it.
pub(super) fn name_event(mut answer: Response<Body>, id: EventId) -> Response<Body> {
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        answer.headers_mut().insert(EVENT_ID, id);
    }
    answer
}

impl Answered {
    fn challenged(given: &ChallengeResponse) -> Self {
        let mut answer = Response::new(Body::from(given.body.clone()));
        *answer.status_mut() = StatusCode::from_u16(given.status).unwrap_or(StatusCode::OK);
        let headers = answer.headers_mut();
        let named = given
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let own = [
            ("content-type", given.content_type.as_str()),
            ("x-content-type-options", "nosniff"),
        ];
        for (name, value) in named.chain(own) {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                headers.insert(name, value);
            }
        }
        Self {
            outcome: Outcome::Challenged,
            event: None,
            answer,
        }
    }
}
