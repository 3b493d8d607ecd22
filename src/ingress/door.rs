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

use super::request_log::{Answered, RequestLog};
use super::{Ingress, body, head};
use crate::model::Refusal;

/// A door of the public listener, as far as doors differ in their log lines and in the words of a refusal.
pub(super) enum Door {
    /// Sources, and all paths that no other door answers.
    Source,
    /// The stand-in for the hosted webhook.
    DropIn,
    /// A prefix that is passed through, with the name that counters and logs give it.
    Prefix(Arc<str>),
    /// Links to files.
    File,
}

/// The name of a door in counters and log lines.
pub(super) enum DoorLabel {
    None,
    DropIn,
    Prefix(Arc<str>),
}

/// The words of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wording {
    /// A sentence, a code and the request's id.
    Source,
    /// The hosted webhook's own.
    Hosted,
}

impl Door {
    pub(super) const fn wording(&self) -> Wording {
        match self {
            Self::DropIn => Wording::Hosted,
            Self::Source | Self::Prefix(_) | Self::File => Wording::Source,
        }
    }

    pub(super) fn label(&self) -> DoorLabel {
        match self {
            Self::Source | Self::File => DoorLabel::None,
            Self::DropIn => DoorLabel::DropIn,
            Self::Prefix(label) => DoorLabel::Prefix(label.clone()),
        }
    }

    /// Text that is logged in place of the path, where the path holds a key.
    pub(super) const fn masked_path(&self) -> Option<&'static str> {
        match self {
            Self::File => Some("/files/***"),
            Self::Source | Self::DropIn | Self::Prefix(_) => None,
        }
    }
}

impl DoorLabel {
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::DropIn => Some(super::dropin::NAME),
            Self::Prefix(label) => Some(label),
        }
    }
}

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
