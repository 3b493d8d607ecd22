//! The shell of every door of the public listener: log entry, judgement of the head, panic guard, end.
//!
//! Rate limits and load are not counted here: each door counts them where its own way has them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{Request, Response};

use super::door_kind::Door;
use super::request_log::{Answered, RequestLog};
use super::{Ingress, body, head};
use crate::model::Refusal;

/// Serves one request at a door. The request ends in one counted outcome, one log line and one answer, also when the
/// handler panics; it is counted as well when its caller leaves.
pub(super) async fn serve<B, H>(
    ingress: Arc<Ingress>,
    door: Door,
    request: Request<B>,
    handler: H,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    H: AsyncFnOnce(&Ingress, (Parts, B), &mut RequestLog) -> Result<Answered, Refusal>,
{
    let mut log = RequestLog::new(&ingress, &door, &request);
    let (head, body) = request.into_parts();
    let ended = match head::judge(&ingress, &head) {
        // A panic is the end of one request alone.
        Ok(()) => AssertUnwindSafe(handler(&ingress, (head, body), &mut log))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Err(Refusal::Internal("a bug: the handler panicked".to_owned()))),
        Err(refusal) => {
            log.drained = body::drain(&head.headers, body);
            Err(refusal)
        }
    };
    log.finish(ended)
}
