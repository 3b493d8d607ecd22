//! What is known of a request on its way, and its end: one outcome, one log line, one answer.
//!
//! Promises: no query and no header value is logged or kept, since either may hold a key; but for refused requests that
//! the operator wants kept whole, with what is known to be a key masked.

use axum::body::Body;
use http::header::{HeaderName, HeaderValue};
use http::{Request, Response};
use tokio::time::Instant;

use super::{Ingress, refuse};
use crate::limit::LimitReport;
use crate::model::{EventId, Outcome, Received, Refusal, RequestId, Timestamp};
use crate::net::{AddressOwner, Peer};
use crate::telemetry::{RefusedSample, WholeRequest};

/// The id of a request, on every answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("sluicegate-request-id");

/// What is left of the limits that a request was counted by.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Header names that a sample of a refused request shows.
const MAX_NAMES: usize = 50;

/// How much of a path is logged.
const MAX_PATH: usize = 200;

/// A request that was not refused.
pub(super) struct Answered {
    pub(super) outcome: Outcome,
    pub(super) event: Option<(EventId, Option<String>)>,
    pub(super) answer: Response<Body>,
}

/// What is known of a request for its log line, its counters and its sample.
pub(super) struct RequestLog {
    pub(super) id: RequestId,
    pub(super) at: Timestamp,
    pub(super) begun: Instant,
    pub(super) peer: Peer,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: Vec<HeaderName>,
    pub(super) source: Option<String>,
    pub(super) body_bytes: u64,
    /// Whether the body has come to its end, where somebody asks.
    pub(super) has_body: bool,
    /// Whether the body of a request that was refused before it was read has been taken in.
    pub(super) drained: bool,
    /// The request, where refused ones are kept whole.
    pub(super) whole: Option<Received>,
    pub(super) limits: LimitReport,
    /// What the operator hears beside the cause of a refusal.
    pub(super) hint: Option<String>,
    /// The name of the gateway key that was presented.
    pub(super) key: Option<String>,
    /// The agent that its call is for.
    pub(super) agent: Option<String>,
}

/// A request that was refused, and what its caller hears of it: doors differ in their words.
pub(super) struct RefusedAnswer {
    refusal: Refusal,
    answer: Response<Body>,
}

impl RefusedAnswer {
    /// In the words of a source.
    pub(super) fn at_source(refusal: Refusal, log: &RequestLog) -> Self {
        let answer = refuse::answer(&refusal, log.id, log.drained);
        Self { refusal, answer }
    }

    /// In the words of the hosted webhook.
    pub(super) fn at_dropin(refusal: Refusal) -> Self {
        let answer = refuse::hosted(&refusal);
        Self { refusal, answer }
    }
}

impl RequestLog {
    /// What a head shows.
    pub(super) fn new<B>(ingress: &Ingress, request: &Request<B>) -> Self {
        Self {
            id: RequestId::new(),
            at: ingress.intake.clock.now(),
            begun: Instant::now(),
            peer: request
                .extensions()
                .get::<Peer>()
                .copied()
                .unwrap_or(Peer([0, 0, 0, 0].into(), AddressOwner::Proxy)),
            method: request.method().as_str().chars().take(16).collect(),
            path: start(request.uri().path(), MAX_PATH).to_owned(),
            headers: request.headers().keys().take(MAX_NAMES).cloned().collect(),
            source: None,
            body_bytes: 0,
            has_body: false,
            drained: false,
            whole: None,
            limits: LimitReport::default(),
            hint: None,
            key: None,
            agent: None,
        }
    }
}

impl RequestLog {
    /// What is known of what came in a request's place: nothing that it said is repeated.
    pub(super) fn of_none<B>(ingress: &Ingress, stand_in: &Request<B>) -> Self {
        Self {
            method: String::new(),
            path: String::new(),
            headers: Vec::new(),
            ..Self::new(ingress, stand_in)
        }
    }
}

/// A text's start, up to a character's end.
fn start(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// One outcome, one log line, one answer.
pub(super) fn finish(
    ingress: &Ingress,
    log: &RequestLog,
    ended: Result<Answered, RefusedAnswer>,
) -> Response<Body> {
    let took = log.begun.elapsed();
    let source = log.source.as_deref().unwrap_or("");
    let (request, peer, method, path) = (log.id, log.peer.0, &log.method, &log.path);
    let (key, agent) = (log.key.as_deref(), log.agent.as_deref());
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let mut answer = match ended {
        Ok(Answered {
            outcome,
            event,
            answer,
        }) => {
            ingress.intake.metrics.request(source, outcome, took);
            if let Some(key) = key {
                ingress.intake.metrics.key_request(key, outcome);
            }
            let is_proved = outcome != Outcome::Challenged;
            let (event, thread) =
                event.map_or((None, None), |(id, thread)| (Some(id.to_string()), thread));
            let (outcome, status) = (outcome.as_str(), answer.status().as_u16());
            if is_proved || ingress.intake.lines.admits() {
                tracing::info!(%request, source, key, agent, event, thread, %peer, outcome, status, took_us, "request");
            }
            answer
        }
        Err(RefusedAnswer { refusal, answer }) => {
            ingress
                .intake
                .metrics
                .request(source, Outcome::Refused, took);
            if let Some(key) = key {
                ingress.intake.metrics.key_request(key, Outcome::Refused);
            }
            ingress.intake.metrics.refused(source, refusal.reason());
            let status = answer.status().as_u16();
            let (code, reason, mut cause) = (refusal.code(), refusal.reason(), refusal.cause());
            if let Some(hint) = &log.hint {
                cause = format!("{cause}; {hint}");
            }
            let whole = log.whole.as_ref().and_then(|request| {
                let kept = ingress.intake.sources.get(source)?.kept(request);
                let body = request.body.clone();
                Some(WholeRequest {
                    request_line: kept.request_line,
                    headers: kept.headers,
                    body,
                })
            });
            let sample = RefusedSample {
                at: log.at,
                request_id: log.id.to_string(),
                source: log.source.clone(),
                method: method.clone(),
                path: path.clone(),
                peer,
                headers: log.headers.iter().map(ToString::to_string).collect(),
                body_bytes: log.body_bytes,
                code,
                reason,
                cause: cause.clone(),
                whole: whole.is_some(),
            };
            ingress.samples.keep(sample, whole, ingress.keep_refused);
            match refusal.plain() {
                Refusal::Internal(_) | Refusal::Inbox(_) | Refusal::NoSpace => {
                    tracing::error!(%request, source, key, agent, %peer, method, path, outcome = "refused", reason, status, cause, took_us, "request");
                }
                // The counters and the last of them are there all the same.
                _ if !ingress.intake.lines.admits() => {}
                _ => {
                    tracing::info!(%request, source, key, agent, %peer, method, path, outcome = "refused", reason, status, cause, took_us, "request");
                }
            }
            answer
        }
    };
    if let Some((policy, state)) = log.limits.fields() {
        for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
            answer
                .headers_mut()
                .extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
        }
    }
    if let Ok(id) = HeaderValue::try_from(log.id.to_string()) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    answer
}
