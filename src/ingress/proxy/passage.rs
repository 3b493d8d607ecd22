//! An answer on its way down, from its head until its last byte has gone or somebody has left. Then the request is
//! logged and counted.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::ALLOW;
use http::{HeaderValue, Response, StatusCode};
use hyper::body::Incoming;

use super::stream::Downward;
use super::{METHODS, Proxy};
use crate::ingress::body_progress::BodyProgress;
use crate::ingress::load_shed::LoadPermit;
use crate::ingress::request_log::{Answered, REQUEST_ID, RequestLog, micros};
use crate::model::Outcome;

/// A request whose answer is on its way down.
pub(super) struct Passage {
    log: RequestLog,
    pub(super) progress: Arc<BodyProgress>,
    status: u16,
    /// The time from the request's begin to the head of its answer.
    first: Duration,
    bytes: u64,
    /// The end of the answer, as log lines name it.
    end: &'static str,
    /// The request's place among those in work.
    _permit: LoadPermit,
}

impl Passage {
    fn new(
        log: &mut RequestLog,
        progress: Arc<BodyProgress>,
        permit: LoadPermit,
        status: StatusCode,
    ) -> Self {
        let log = log.hand_over();
        Self {
            first: log.begun.elapsed(),
            log,
            progress,
            status: status.as_u16(),
            bytes: 0,
            end: "caller left",
            _permit: permit,
        }
    }

    /// Bytes of the answer have gone down.
    pub(super) const fn moved(&mut self, count: u64) {
        self.bytes += count;
    }

    /// The answer has come to an end, in this way.
    pub(super) const fn end(&mut self, how: &'static str) {
        self.end = how;
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let Self { log, .. } = self;
        let (source, took) = (log.source().unwrap_or(""), log.begun.elapsed());
        log.count_outcome(source, Outcome::Proxied, took);
        tracing::info!(
            request = %log.id,
            source,
            key = log.key,
            peer = %log.peer.0,
            method = log.method(),
            path = log.path(),
            outcome = Outcome::Proxied.as_str(),
            status = self.status,
            end = self.end,
            bytes_up = self.progress.bytes(),
            bytes_down = self.bytes,
            first_us = micros(self.first),
            took_us = micros(took),
            "request"
        );
    }
}

/// Sends an upstream's answer down.
pub(super) fn answer(
    proxy: &Proxy,
    answer: Response<Incoming>,
    (progress, permit): (Arc<BodyProgress>, LoadPermit),
    log: &mut RequestLog,
) -> Answered {
    let (mut head, incoming) = answer.into_parts();
    if let Ok(id) = HeaderValue::try_from(log.id.to_string()) {
        head.headers.insert(REQUEST_ID, id);
    }
    let to_head = log.method() == "HEAD";
    let passage = Passage::new(log, progress, permit, head.status);
    let body = Downward::new(
        incoming,
        passage,
        &head.headers,
        to_head,
        proxy.config.heartbeat,
    );
    proxied(Response::from_parts(head, Body::new(body)))
}

/// Answers a request about the gateway itself, which goes to nobody behind it.
pub(super) fn own_options(
    (progress, permit): (Arc<BodyProgress>, LoadPermit),
    log: &mut RequestLog,
) -> Answered {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    if let Ok(id) = HeaderValue::try_from(log.id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    Passage::new(log, progress, permit, StatusCode::NO_CONTENT).end("whole");
    proxied(answer)
}

const fn proxied(answer: Response<Body>) -> Answered {
    Answered {
        outcome: Outcome::Proxied,
        event: None,
        answer,
    }
}
