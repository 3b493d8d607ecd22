//! A refusal as an answer: status, headers, body. The only place where these are chosen, and the one that decides
//! what a caller may learn: a code, a plain sentence, an id to quote.

use std::time::Duration;

use axum::body::Body;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use crate::model::{Refusal, RequestId};

/// What the caller of a source sees of a refusal. `drained`: nothing of the request is left on the wire.
pub(super) fn answer(refusal: &Refusal, id: RequestId, drained: bool) -> Response<Body> {
    let (status, sentence) = status_and_sentence(refusal);
    let body = serde_json::json!({
        "detail": sentence,
        "code": refusal.code(),
        "request_id": id.to_string(),
    });
    made(refusal, status, body, drained)
}

/// What the caller of the drop-in sees of a refusal: `{"detail": …}` and nothing else, as the hosted webhook answers.
pub(super) fn hosted(refusal: &Refusal) -> Response<Body> {
    let (status, sentence) = status_and_sentence(refusal);
    let detail = match refusal {
        Refusal::Method(_) => "Method Not Allowed".into(),
        // What these say is about the caller's own request.
        Refusal::Malformed(cause) | Refusal::Unsupported(cause) => cause.as_str().into(),
        Refusal::Unmappable(cause) => cause.as_str().into(),
        Refusal::NotYet(what) => (*what).into(),
        Refusal::Invalid(list) | Refusal::Upstream { detail: list, .. } => {
            serde_json::from_str(list).unwrap_or_else(|_| serde_json::Value::from(sentence))
        }
        _ => serde_json::Value::from(sentence),
    };
    made(
        refusal,
        status,
        serde_json::json!({ "detail": detail }),
        false,
    )
}

/// What whoever finds no place for its connection is told, as it stands on the wire.
pub(super) fn at_the_door(refusal: &Refusal, id: RequestId) -> bytes::Bytes {
    let (status, sentence) = status_and_sentence(refusal);
    let body = serde_json::json!({ "detail": sentence, "code": refusal.code(), "request_id": id.to_string() });
    let (body, wait) = (body.to_string(), seconds(retry_soon()));
    let reason = status.canonical_reason().unwrap_or_default();
    format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\nretry-after: {wait}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        status.as_u16(),
        body.len()
    )
    .into()
}

/// When whoever found us full should come back: not all at once.
pub(super) fn retry_soon() -> Duration {
    Duration::from_secs(fastrand::u64(1..=24))
}

fn made(
    refusal: &Refusal,
    status: StatusCode,
    body: serde_json::Value,
    drained: bool,
) -> Response<Body> {
    let mut answer = Response::new(Body::from(body.to_string()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match refusal.plain() {
        Refusal::Limited(wait)
        | Refusal::Overloaded(wait)
        | Refusal::Behind(wait)
        | Refusal::UpstreamBusy(wait) => {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds(*wait)));
        }
        // A share of so long a wait would be hours.
        Refusal::Spent(_, wait) => {
            headers.insert(
                RETRY_AFTER,
                HeaderValue::from(wait.as_secs() + fastrand::u64(1..=300)),
            );
        }
        // The upstream's own word, which its callers would have had from it.
        Refusal::Upstream {
            retry_after: Some(wait),
            ..
        } => {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        Refusal::Stopped => {
            headers.insert(RETRY_AFTER, HeaderValue::from(fastrand::u64(30..=60)));
        }
        // Nothing was found wrong with it; it could not be judged now.
        Refusal::Origin(..) | Refusal::Challenge(_)
            if status == StatusCode::SERVICE_UNAVAILABLE =>
        {
            headers.insert(
                RETRY_AFTER,
                HeaderValue::from(seconds(Duration::from_secs(5))),
            );
        }
        Refusal::Inbox(_) | Refusal::Store(_) | Refusal::NoSpace => {
            headers.insert(
                RETRY_AFTER,
                HeaderValue::from(seconds(Duration::from_secs(5))),
            );
        }
        Refusal::Method(allowed) => {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        _ => {}
    }
    if is_doubtful(refusal) || (leaves_body(refusal) && !drained) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// One match: which status, which sentence. 4xx will never be accepted, 429 and 503 will later.
fn status_and_sentence(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        // Word for word what the hosted webhook says, since its callers may be at the wrong path of this gateway.
        Refusal::NotFound => (StatusCode::NOT_FOUND, "Not Found"),
        Refusal::Method(_) => (
            StatusCode::METHOD_NOT_ALLOWED,
            "This path does not answer to this method.",
        ),
        Refusal::Limited(_) => (
            StatusCode::TOO_MANY_REQUESTS,
            "Too many requests. Try again later.",
        ),
        Refusal::Overloaded(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The gateway is busy. Try again later.",
        ),
        Refusal::Behind(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too much waits here already. Try again later.",
        ),
        Refusal::BadHost => (
            StatusCode::BAD_REQUEST,
            "The Host header is missing or wrong.",
        ),
        Refusal::Loop => (
            StatusCode::LOOP_DETECTED,
            "The gateway was sent its own request.",
        ),
        Refusal::BadHead(_) => (StatusCode::BAD_REQUEST, "The request is malformed."),
        Refusal::BadTarget(what) => (StatusCode::BAD_REQUEST, what),
        Refusal::BadVersion => (
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "This version of HTTP is not spoken here.",
        ),
        Refusal::HeadTooLarge => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "The head of the request is too large.",
        ),
        Refusal::SlowHead => (
            StatusCode::REQUEST_TIMEOUT,
            "The head of the request came too slowly.",
        ),
        Refusal::BadFraming(_) => (StatusCode::BAD_REQUEST, "The body is badly framed."),
        Refusal::BadSeal => (
            StatusCode::FORBIDDEN,
            "The parameters in this address are not sealed.",
        ),
        Refusal::AddressNotAllowed => (StatusCode::FORBIDDEN, "This address may not call here."),
        Refusal::TargetTooLong => (StatusCode::URI_TOO_LONG, "The request target is too long."),
        Refusal::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
        Refusal::TooManyItems(_) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "The body brings more items than are taken at once.",
        ),
        Refusal::FileTooLarge(_) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "A file is larger than is taken here.",
        ),
        Refusal::FileKind(_) => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "This kind of file is not taken here.",
        ),
        Refusal::Store(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Files cannot be kept now. Try again later.",
        ),
        Refusal::SlowBody => (StatusCode::REQUEST_TIMEOUT, "The body came too slowly."),
        Refusal::Aborted => (StatusCode::BAD_REQUEST, "The body is not whole."),
        // Nobody is there to read it.
        Refusal::Left => (StatusCode::BAD_REQUEST, "The caller went away."),
        Refusal::Origin(..) => (StatusCode::UNAUTHORIZED, "The signature does not match."),
        Refusal::Challenge(_) => (StatusCode::FORBIDDEN, "The challenge is not answered."),
        Refusal::Malformed(_) => (StatusCode::BAD_REQUEST, "The body is malformed."),
        Refusal::Unsupported(_) => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "This kind of body is not taken here.",
        ),
        Refusal::Unmappable(_) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "The event lacks a value that this source needs.",
        ),
        Refusal::Inbox(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The event cannot be kept now. Try again later.",
        ),
        Refusal::Stopped => (
            StatusCode::SERVICE_UNAVAILABLE,
            "No agent is run now. Try again later.",
        ),
        Refusal::Spent(..) => (
            StatusCode::TOO_MANY_REQUESTS,
            "No more runs are begun today. Try again tomorrow.",
        ),
        Refusal::NoSpace => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The event cannot be kept now. Try again later.",
        ),
        Refusal::Busy => (
            StatusCode::CONFLICT,
            "This conversation has a turn that has not ended.",
        ),
        Refusal::UpstreamBusy(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The agent is busy. Try again later.",
        ),
        Refusal::NoKey => (StatusCode::UNAUTHORIZED, "API key not specified"),
        Refusal::KeyRefused(_) => (StatusCode::FORBIDDEN, "Invalid API key"),
        Refusal::BadPath => (
            StatusCode::BAD_REQUEST,
            "The path is not one that is passed on.",
        ),
        Refusal::NoAgent => (StatusCode::BAD_REQUEST, "agent_id is required"),
        Refusal::OtherCall => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "This Idempotency-Key was used for another call. Use a new one.",
        ),
        Refusal::Invalid(_) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "A parameter has a value that it cannot have.",
        ),
        Refusal::NotYet(_) => (
            StatusCode::NOT_IMPLEMENTED,
            "This gateway cannot take files now.",
        ),
        Refusal::Upstream { status, .. } => (
            StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY),
            "The agent platform refused the call.",
        ),
        Refusal::UpstreamFailed(_) => (
            StatusCode::BAD_GATEWAY,
            "The agent platform failed to answer.",
        ),
        Refusal::UpstreamSilent(_) => (
            StatusCode::GATEWAY_TIMEOUT,
            "The agent platform did not answer in time.",
        ),
        Refusal::Answered(refusal, status) => {
            let (usual, sentence) = status_and_sentence(refusal);
            let sentence = match (&**refusal, status) {
                (Refusal::Origin(..), 503) => "This request cannot be judged now. Try again later.",
                _ => sentence,
            };
            (StatusCode::from_u16(*status).unwrap_or(usual), sentence)
        }
        Refusal::Internal(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "Something went wrong on our side.",
        ),
    }
}

/// Whether it is in doubt where the request ends, or what its sender takes the connection for.
fn is_doubtful(refusal: &Refusal) -> bool {
    matches!(
        refusal.plain(),
        Refusal::BadHost
            | Refusal::Loop
            | Refusal::BadHead(_)
            | Refusal::BadTarget(_)
            | Refusal::BadVersion
            | Refusal::HeadTooLarge
            | Refusal::SlowHead
            | Refusal::BadFraming(_)
            | Refusal::TargetTooLong
            | Refusal::BadPath
            | Refusal::Method(_)
    )
}

/// Whether bytes of the request's body may still be on the wire.
fn leaves_body(refusal: &Refusal) -> bool {
    matches!(
        refusal.plain(),
        Refusal::AddressNotAllowed
            | Refusal::Unsupported(_)
            | Refusal::KeyRefused(_)
            | Refusal::TooLarge(_)
            | Refusal::FileTooLarge(_)
            | Refusal::FileKind(_)
            | Refusal::Store(_)
            | Refusal::NoSpace
            | Refusal::Malformed(_)
            | Refusal::SlowBody
            | Refusal::Aborted
            | Refusal::Left
            | Refusal::NotFound
            | Refusal::Limited(_)
            | Refusal::Overloaded(_)
            | Refusal::NoKey
            | Refusal::Internal(_)
    )
}

/// Whole seconds, at least one, with up to a quarter more so that callers do not come back all at once.
fn seconds(wait: Duration) -> u64 {
    let whole = wait.as_secs().max(1) + u64::from(wait.subsec_nanos() > 0 && wait.as_secs() > 0);
    whole + fastrand::u64(0..=whole / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_short_json_that_says_nothing_of_the_cause() {
        let secret = "whatever the cause says".to_owned();
        for refusal in [
            Refusal::Origin(crate::model::OriginFault::Stale, secret.clone()),
            Refusal::Malformed(secret.clone()),
            Refusal::Inbox(secret.clone()),
            Refusal::UpstreamFailed(secret.clone()),
            Refusal::Internal(secret.clone()),
        ] {
            let (_, sentence) = status_and_sentence(&refusal);
            assert!(!sentence.contains(&secret));
            let answer = answer(&refusal, RequestId::new(), false);
            assert!(!answer.status().is_redirection());
        }
    }

    #[test]
    fn retry_after_is_at_least_one_whole_second() {
        assert!(seconds(Duration::ZERO) >= 1);
        let wait = seconds(Duration::from_millis(19_500));
        assert!((20..=25).contains(&wait), "{wait}");
    }
}
