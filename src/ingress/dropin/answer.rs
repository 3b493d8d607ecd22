//! Answers of the drop-in door to calls that have come to their end.

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::kept::DurableEnd;
use super::once;
use crate::ingress::acknowledge::EVENT_ID;
use crate::ingress::request_log::Answered;
use crate::mapping::getter::{Getter, is_task, shape};
use crate::model::{HostedCall, Outcome, Refusal};

/// Answers a call whose run has ended with its task, as the caller wants to see it.
pub(super) fn task(
    call: &HostedCall,
    kept: Option<&DurableEnd>,
    task: &[u8],
) -> Result<Answered, Refusal> {
    if !is_task(task) {
        return Err(Refusal::UpstreamFailed(
            "the answer is no JSON object".into(),
        ));
    }
    let shaped: Bytes = match call.getter.as_deref().map(Getter::parse) {
        // A `getter` that is no path leads nowhere.
        Some(Err(_)) => Bytes::from_static(b"null"),
        Some(Ok(getter)) => shape(task, Some(&getter), call.json).into(),
        None => shape(task, None, call.json).into(),
    };
    Ok(json(kept, shaped))
}

/// Answers a call with JSON. `kept` is the event of a call that went by way of the inbox.
pub(super) fn json(kept: Option<&DurableEnd>, json: impl Into<Body>) -> Answered {
    let mut answer = Response::new(json.into());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(id) = kept.and_then(|kept| HeaderValue::try_from(kept.event.to_string()).ok()) {
        headers.insert(EVENT_ID, id);
    }
    let outcome = kept.map_or(Outcome::Proxied, |kept| kept.outcome);
    if outcome == Outcome::Duplicate {
        headers.insert(once::REPLAYED, HeaderValue::from_static("true"));
    }
    Answered {
        outcome,
        event: kept.map(|kept| (kept.event, None)),
        answer,
    }
}

/// True if a caller asks for a stream of events.
pub(super) fn wants_events(headers: &HeaderMap) -> bool {
    let lines = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|kind| {
        kind.split(';')
            .next()
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_asked_for_by_name() {
        for (accept, wanted) in [
            ("text/event-stream", true),
            ("application/json, Text/Event-Stream;q=0.9", true),
            ("*/*", false),
            ("text/*", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(wants_events(&headers), wanted, "{accept}");
        }
    }
}
