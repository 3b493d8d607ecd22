//! Log entry of one request, from its head to its end: one outcome, one log line, one answer.
//!
//! Promises: a request is counted once, also when its caller leaves before it is answered: then the entry is counted as
//! it is dropped. No query and no header value is logged or kept, since either may hold a key; the exception are refused
//! requests that the operator wants kept whole, with known keys masked.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri};
use tokio::time::Instant;

use super::body_progress::BodyProgress;
use super::door_kind::{Door, DoorLabel, Wording};
use super::{Ingress, refuse};
use crate::limit::LimitReport;
use crate::model::{ClientCertificate, EventId, Outcome, Received, Refusal, RequestId, Timestamp};
use crate::net::{AddressOwner, Peer};
use crate::source::Source;
use crate::telemetry::{RefusedSample, WholeRequest};

/// Header with the id of a request, on every answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("sluicegate-request-id");

/// Headers with what is left of the limits that a request was counted by.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Number of header names that a sample of a refused request shows.
const MAX_NAMES: usize = 50;
/// Bytes of a logged method, and of a logged path.
const MAX_METHOD: usize = 16;
const MAX_PATH: usize = 200;

/// A request that was not refused.
pub(super) struct Answered {
    pub(super) outcome: Outcome,
    pub(super) event: Option<(EventId, Option<String>)>,
    pub(super) answer: Response<Body>,
}

/// Facts about a request for its log line, its counters and its sample.
pub(super) struct RequestLog {
    ingress: Arc<Ingress>,
    wording: Wording,
    pub(super) id: RequestId,
    pub(super) at: Timestamp,
    pub(super) begun: Instant,
    pub(super) peer: Peer,
    /// Client certificate of the connection.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    /// The method; absent where the head could not be read.
    method: Option<Method>,
    path: LoggedPath,
    headers: Vec<HeaderName>,
    label: LogLabel,
    body_bytes: u64,
    /// True unless a body is being read.
    body_is_whole: bool,
    /// The body on its way to an upstream, where it is passed on as it comes.
    upward: Option<Arc<BodyProgress>>,
    /// True if the body of a request that was refused before it was read has been taken in.
    pub(super) drained: bool,
    /// The request, where refused ones are kept whole.
    pub(super) whole: Option<Received>,
    pub(super) limits: LimitReport,
    /// Advice to the operator beside the cause of a refusal.
    pub(super) hint: Option<String>,
    /// The name of the gateway key that was presented.
    pub(super) key: Option<String>,
    /// The agent that its call is for.
    pub(super) agent: Option<String>,
    if_left: IfLeft,
}

/// The way in, as counters and log lines name it.
enum LogLabel {
    Door(DoorLabel),
    Source(Arc<Source>),
}

/// The path of a request, as it is logged.
enum LoggedPath {
    OfUri(Uri),
    Masked(String),
}

/// The end that is counted where the caller leaves before it is answered.
enum IfLeft {
    /// The request is refused.
    Refused,
    /// The outcome stands already: only its answer is waited for.
    Stands {
        outcome: Outcome,
        event: Option<EventId>,
        since: Instant,
    },
    /// The end was counted, or is counted elsewhere.
    Counted,
}

impl RequestLog {
    /// Begins the entry of a request with the facts in its head.
    pub(super) fn new<B>(ingress: &Arc<Ingress>, door: &Door, request: &Request<B>) -> Self {
        let mut log = Self::blank(ingress.clone(), door.wording());
        log.at = ingress.intake.clock.now();
        if let Some(peer) = request.extensions().get::<Peer>() {
            log.peer = *peer;
        }
        log.certificate = request.extensions().get().cloned();
        log.method = Some(request.method().clone());
        log.path = match door.masked_path() {
            Some(masked) => LoggedPath::Masked(masked.to_owned()),
            None => LoggedPath::OfUri(request.uri().clone()),
        };
        log.headers = request.headers().keys().take(MAX_NAMES).cloned().collect();
        log.label = LogLabel::Door(door.label());
        log
    }

    /// Begins the entry of a request whose head is invalid. `stand_in` came in its place; nothing that the caller sent is
    /// repeated.
    pub(super) fn of_invalid<B>(ingress: &Arc<Ingress>, stand_in: &Request<B>) -> Self {
        let mut log = Self::new(ingress, &Door::Source, stand_in);
        log.method = None;
        log.path = LoggedPath::Masked(String::new());
        log.headers = Vec::new();
        log
    }

    fn blank(ingress: Arc<Ingress>, wording: Wording) -> Self {
        Self {
            ingress,
            wording,
            id: RequestId::new(),
            at: Timestamp::default(),
            begun: Instant::now(),
            peer: Peer([0, 0, 0, 0].into(), AddressOwner::Proxy),
            certificate: None,
            method: None,
            path: LoggedPath::Masked(String::new()),
            headers: Vec::new(),
            label: LogLabel::Door(DoorLabel::None),
            body_bytes: 0,
            body_is_whole: true,
            upward: None,
            drained: false,
            whole: None,
            limits: LimitReport::default(),
            hint: None,
            key: None,
            agent: None,
            if_left: IfLeft::Refused,
        }
    }

    pub(super) fn method(&self) -> &str {
        cut(self.method.as_ref().map_or("", Method::as_str), MAX_METHOD)
    }

    pub(super) fn path(&self) -> &str {
        let path = match &self.path {
            LoggedPath::OfUri(uri) => uri.path(),
            LoggedPath::Masked(path) => path,
        };
        cut(path, MAX_PATH)
    }

    /// Logs this text in place of the path.
    pub(super) fn mask_path(&mut self, masked: String) {
        self.path = LoggedPath::Masked(masked);
    }

    /// The name of the source or door in counters and log lines.
    pub(super) fn source(&self) -> Option<&str> {
        match &self.label {
            LogLabel::Door(label) => label.as_str(),
            LogLabel::Source(source) => Some(&source.config.name),
        }
    }

    /// Counts the request at a source from now on.
    pub(super) fn at_source(&mut self, source: &Arc<Source>) {
        self.label = LogLabel::Source(source.clone());
    }

    /// A body is read from now on: a caller that leaves has not sent all of it.
    pub(super) const fn reads_body(&mut self) {
        self.body_is_whole = false;
    }

    /// This much of the body has come, and it was read to its end if `is_whole`.
    pub(super) const fn read_body(&mut self, bytes: u64, is_whole: bool) {
        self.body_bytes = bytes;
        self.body_is_whole = is_whole;
    }

    /// The length of the body so far.
    pub(super) fn body_bytes(&self) -> u64 {
        self.upward
            .as_ref()
            .map_or(self.body_bytes, |upward| upward.bytes())
    }

    /// Follows a body that is passed on as it comes.
    pub(super) fn follow(&mut self, upward: Arc<BodyProgress>) {
        self.upward = Some(upward);
    }

    /// The outcome stands, and only its answer is waited for: it is counted even if the caller leaves.
    pub(super) fn waits(&mut self, outcome: Outcome, event: Option<EventId>) {
        self.if_left = IfLeft::Stands {
            outcome,
            event,
            since: Instant::now(),
        };
    }

    /// Moves the entry out, to be counted by its new owner when the answer's body has ended.
    pub(super) fn hand_over(&mut self) -> Self {
        let mut emptied = Self::blank(self.ingress.clone(), self.wording);
        emptied.if_left = IfLeft::Counted;
        let mut log = std::mem::replace(self, emptied);
        log.if_left = IfLeft::Counted;
        log
    }

    /// Ends the request: one outcome, one log line, one answer.
    pub(super) fn finish(mut self, ended: Result<Answered, Refusal>) -> Response<Body> {
        if matches!(self.if_left, IfLeft::Counted) {
            return match ended {
                Ok(answered) => answered.answer,
                Err(refusal) => refuse::answer(&refusal, self.id, false),
            };
        }
        self.if_left = IfLeft::Counted;
        let mut answer = match ended {
            Ok(answered) => self.count(answered),
            Err(refusal) => self.refuse(&refusal),
        };
        let headers = answer.headers_mut();
        if let Some((policy, state)) = self.limits.fields() {
            for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
                headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
            }
        }
        if let Ok(id) = HeaderValue::try_from(self.id.to_string()) {
            headers.insert(REQUEST_ID, id);
        }
        answer
    }

    /// Counts and logs a request that was not refused.
    fn count(&self, answered: Answered) -> Response<Body> {
        let Answered {
            outcome,
            event,
            answer,
        } = answered;
        let took = self.begun.elapsed();
        let source = self.source().unwrap_or("");
        self.count_outcome(source, outcome, took);
        // A challenge proves nothing of its caller.
        if outcome != Outcome::Challenged || self.ingress.intake.lines.admits() {
            let (event, thread) =
                event.map_or((None, None), |(id, thread)| (Some(id.to_string()), thread));
            let (key, agent) = (self.key.as_deref(), self.agent.as_deref());
            let (outcome, status) = (outcome.as_str(), answer.status().as_u16());
            tracing::info!(
                request = %self.id, source, key, agent, event, thread, peer = %self.peer.0,
                outcome, status, took_us = micros(took), "request"
            );
        }
        answer
    }

    /// Counts, logs and samples a request that was refused.
    fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        let answer = match self.wording {
            Wording::Source => refuse::answer(refusal, self.id, self.drained),
            Wording::Hosted => refuse::hosted(refusal),
        };
        let took = self.begun.elapsed();
        let mut cause = refusal.cause();
        if let Some(hint) = &self.hint {
            cause = format!("{cause}; {hint}");
        }
        let ingress = &self.ingress;
        let source = self.source().unwrap_or("");
        self.count_outcome(source, Outcome::Refused, took);
        ingress.intake.metrics.refused(source, refusal.reason());
        let whole = self.whole_request(source);
        let sample = self.sample(refusal, &cause, whole.is_some());
        ingress.samples.keep(sample, whole, ingress.keep_refused);
        let (key, agent) = (self.key.as_deref(), self.agent.as_deref());
        let (method, path) = (self.method(), self.path());
        let (status, reason) = (answer.status().as_u16(), refusal.reason());
        let took_us = micros(took);
        match refusal.plain() {
            Refusal::Internal(_) | Refusal::Inbox(_) | Refusal::NoSpace => {
                tracing::error!(
                    request = %self.id, source, key, agent, peer = %self.peer.0, method, path,
                    outcome = "refused", reason, status, cause, took_us, "request"
                );
            }
            // Lines that strangers cause are bounded; counters and samples have the rest.
            _ if !ingress.intake.lines.admits() => {}
            _ => {
                tracing::info!(
                    request = %self.id, source, key, agent, peer = %self.peer.0, method, path,
                    outcome = "refused", reason, status, cause, took_us, "request"
                );
            }
        }
        answer
    }

    pub(super) fn count_outcome(&self, source: &str, outcome: Outcome, took: Duration) {
        let metrics = &self.ingress.intake.metrics;
        metrics.request(source, outcome, took);
        if let Some(key) = &self.key {
            metrics.key_request(key, outcome);
        }
    }

    /// The refused request whole, with keys masked, where the operator wants that.
    fn whole_request(&self, source: &str) -> Option<WholeRequest> {
        let request = self.whole.as_ref()?;
        let kept = self.ingress.intake.sources.get(source)?.kept(request);
        Some(WholeRequest {
            request_line: kept.request_line,
            headers: kept.headers,
            body: request.body.clone(),
        })
    }

    fn sample(&self, refusal: &Refusal, cause: &str, whole: bool) -> RefusedSample {
        RefusedSample {
            at: self.at,
            request_id: self.id.to_string(),
            source: self.source().map(str::to_owned),
            method: self.method().to_owned(),
            path: self.path().to_owned(),
            peer: self.peer.0,
            headers: self.headers.iter().map(ToString::to_string).collect(),
            body_bytes: self.body_bytes(),
            code: refusal.code(),
            reason: refusal.reason(),
            cause: cause.to_owned(),
            whole,
        }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        // The handler is dropped before its end only when the caller's connection is.
        match std::mem::replace(&mut self.if_left, IfLeft::Counted) {
            IfLeft::Counted => {}
            IfLeft::Refused => {
                let is_whole = self
                    .upward
                    .as_ref()
                    .map_or(self.body_is_whole, |upward| upward.is_whole());
                let refusal = if is_whole {
                    Refusal::Left
                } else {
                    Refusal::Aborted
                };
                self.refuse(&refusal);
            }
            IfLeft::Stands {
                outcome,
                event,
                since,
            } => {
                let (source, took) = (self.source().unwrap_or(""), since.elapsed());
                self.ingress.intake.metrics.request(source, outcome, took);
                tracing::info!(
                    source,
                    event = event.map(|id| id.to_string()),
                    outcome = outcome.as_str(),
                    waited_ms = took.as_millis() as u64,
                    "caller went away while it waited"
                );
            }
        }
    }
}

/// The beginning of a text, up to a character's end.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
