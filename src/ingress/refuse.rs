//! A refusal as an answer: status, headers, body. A caller learns a code, a plain sentence and an id to quote, and nothing
//! of the cause.

use std::time::Duration;

use axum::body::Body;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response};
use serde_json::Value;

use super::refusal_terms::{Connection, Detail, Hint, RefusalTerms, terms};
use crate::model::{Refusal, RequestId};

/// Answers the caller of a source. `drained`: no byte of the request is left on the wire.
pub(super) fn answer(refusal: &Refusal, id: RequestId, drained: bool) -> Response<Body> {
    let terms = terms(refusal);
    let body = serde_json::json!({
        "detail": terms.sentence,
        "code": refusal.code(),
        "request_id": id.to_string(),
    });
    terms.response(&body, drained)
}

/// Answers the caller of the drop-in as the hosted webhook does: `{"detail": …}` and nothing else.
pub(super) fn hosted(refusal: &Refusal) -> Response<Body> {
    let terms = terms(refusal);
    let detail = match terms.hosted {
        Detail::Sentence => Value::from(terms.sentence),
        Detail::Text(text) => Value::from(text),
        Detail::Json(json) => {
            serde_json::from_str(json).unwrap_or_else(|_| Value::from(terms.sentence))
        }
    };
    terms.response(&serde_json::json!({ "detail": detail }), false)
}

/// The answer on the wire to a connection that finds the connection table full.
pub(super) fn on_the_wire(refusal: &Refusal, id: RequestId) -> bytes::Bytes {
    let RefusalTerms {
        status, sentence, ..
    } = terms(refusal);
    let body = serde_json::json!({ "detail": sentence, "code": refusal.code(), "request_id": id.to_string() });
    let (body, wait) = (body.to_string(), spread(retry_soon()));
    let reason = status.canonical_reason().unwrap_or_default();
    format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\nretry-after: {wait}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        status.as_u16(),
        body.len()
    )
    .into()
}

/// A time after which callers of a full gateway should try again: not all at once.
pub(super) fn retry_soon() -> Duration {
    Duration::from_secs(fastrand::u64(1..=24))
}

impl RefusalTerms<'_> {
    fn response(&self, body: &Value, drained: bool) -> Response<Body> {
        let mut answer = Response::new(Body::from(body.to_string()));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.hint {
            Hint::None => {}
            Hint::RetrySpread(wait) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(spread(wait)));
            }
            Hint::RetryAfter(seconds) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            Hint::Allow(methods) => {
                headers.insert(ALLOW, HeaderValue::from_static(methods));
            }
        }
        let closes = match self.connection {
            Connection::Keep => false,
            Connection::CloseUnlessDrained => !drained,
            Connection::Close => true,
        };
        if closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

/// Whole seconds, at least one, with up to a quarter more so that callers do not come back all at once.
fn spread(wait: Duration) -> u64 {
    let whole = wait.as_secs().max(1) + u64::from(wait.subsec_nanos() > 0 && wait.as_secs() > 0);
    whole + fastrand::u64(0..=whole / 4)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

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
            assert!(!terms(&refusal).sentence.contains(&secret));
            let answer = answer(&refusal, RequestId::new(), false);
            assert!(!answer.status().is_redirection());
        }
    }

    #[test]
    fn retry_after_is_at_least_one_whole_second() {
        assert!(spread(Duration::ZERO) >= 1);
        let wait = spread(Duration::from_millis(19_500));
        assert!((20..=25).contains(&wait), "{wait}");
    }

    #[test]
    fn a_connection_whose_next_byte_is_in_doubt_is_closed_and_one_with_a_body_left_unless_it_was_read()
     {
        let closes = |refusal: &Refusal, drained| {
            let answer = answer(refusal, RequestId::new(), drained);
            answer.headers().contains_key(CONNECTION)
        };
        for refusal in [
            Refusal::BadFraming("two lengths"),
            Refusal::Method("POST"),
            Refusal::BadPath,
            Refusal::BadHost.answered(404),
        ] {
            assert!(closes(&refusal, true), "{refusal:?}");
        }
        for refusal in [Refusal::NotFound, Refusal::TooLarge(1), Refusal::NoKey] {
            assert!(
                closes(&refusal, false) && !closes(&refusal, true),
                "{refusal:?}"
            );
        }
        for refusal in [Refusal::Busy, Refusal::Unmappable(String::new())] {
            assert!(!closes(&refusal, false), "{refusal:?}");
        }
    }

    #[test]
    fn a_request_that_could_not_be_judged_is_asked_for_again() {
        let fault = crate::model::OriginFault::UnknownKey;
        let undecided = Refusal::Origin(fault, String::new()).answered(503);
        let answer = answer(&undecided, RequestId::new(), true);
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers().contains_key(RETRY_AFTER));
        let decided = Refusal::Origin(fault, String::new()).answered(404);
        assert!(matches!(terms(&decided).hint, Hint::None));
    }
}
