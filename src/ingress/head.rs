//! Judgement of a request's head, before anything is looked up by it.
//!
//! That the head is valid, and how its body is framed, was judged where it came in (`net`); the answer to an invalid one
//! is made here.

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::Incoming;

use super::request_log::RequestLog;
use super::{Ingress, host};
use crate::model::Refusal;
use crate::net::HeadFault;

/// Length of the longest request target.
const MAX_TARGET: usize = 16 * 1024;

/// Judges the head of a request at any path.
pub(super) fn judge(ingress: &Ingress, head: &Parts) -> Result<(), Refusal> {
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
        return Err(Refusal::TargetTooLong);
    }
    if ingress.mark.is_on(&head.headers) {
        return Err(Refusal::Loop);
    }
    Ok(())
}

/// Answers a request whose head or framing is invalid. `stand_in` came in its place.
pub(super) fn refuse_invalid(
    ingress: &Arc<Ingress>,
    fault: HeadFault,
    stand_in: &Request<Incoming>,
) -> Response<Body> {
    RequestLog::of_invalid(ingress, stand_in).finish(Err(refusal_of(fault)))
}

/// The refusal of a request whose head or framing is invalid.
pub(crate) const fn refusal_of(fault: HeadFault) -> Refusal {
    match fault {
        HeadFault::Head(what) => Refusal::BadHead(what),
        HeadFault::Framing(what) => Refusal::BadFraming(what),
        HeadFault::Target(what) => Refusal::BadTarget(what),
        HeadFault::TargetTooLong => Refusal::TargetTooLong,
        HeadFault::TooLarge => Refusal::HeadTooLarge,
        HeadFault::Version => Refusal::BadVersion,
        HeadFault::Slow => Refusal::SlowHead,
    }
}
