//! `GET /files/{token}/{name}`: a file, for a caller with a link to it.
//!
//! A link that was changed, that has expired, or whose file is gone is answered like a path at which nothing is. A file
//! came from outside: a browser saves it and runs nothing of it. The token is a key while it is good, and is not logged.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, IF_RANGE,
    RANGE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Ingress;
use super::door;
use super::door_kind::Door;
use super::request_log::{Answered, RequestLog};
use crate::attachment::{Files, Linked, StoreError};
use crate::model::{Attachment, Outcome, Refusal};

/// Characters that are escaped in an extended header value (RFC 8187).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A request below `/files/`.
pub(super) async fn at_file(
    State(ingress): State<Arc<Ingress>>,
    request: Request<Body>,
) -> Response<Body> {
    door::serve(ingress, Door::File, request, show).await
}

/// Sends the file of a link.
async fn show(
    ingress: &Ingress,
    (head, _): (Parts, Body),
    log: &mut RequestLog,
) -> Result<Answered, Refusal> {
    ingress.limits.caller(log.peer.0, &mut log.limits)?;
    let linked = linked(ingress, &head);
    ingress.limits.whole(linked.is_some())?;
    let files = ingress.intake.files.as_ref().ok_or(Refusal::NotFound)?;
    let linked = linked.ok_or(Refusal::NotFound)?;
    let kept = ingress
        .intake
        .inbox
        .attachment(linked.id)
        .await
        .map_err(|error| Refusal::Inbox(error.to_string()))?;
    let file = kept.ok_or(Refusal::NotFound)?.attachment;
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Refusal::Method("GET, HEAD"));
    }
    Ok(Answered {
        outcome: Outcome::Shown,
        event: None,
        answer: send(files, &file, &head).await?,
    })
}

/// The file that a good link leads to.
fn linked(ingress: &Ingress, head: &Parts) -> Option<Linked> {
    let path = head.uri.path().strip_prefix("/files/").unwrap_or_default();
    ingress.intake.files.as_ref()?.linked(
        path.split('/').next().unwrap_or_default(),
        ingress.intake.clock.now(),
    )
}

async fn send(files: &Files, file: &Attachment, head: &Parts) -> Result<Response<Body>, Refusal> {
    let tag = format!("\"{}\"", hex::encode(file.sha256));
    let mut answer = Response::new(Body::empty());
    named(answer.headers_mut(), file, &tag);
    if is_known(&head.headers, &tag) {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(answer);
    }
    let wanted = match is_current(&head.headers, &tag) {
        true => range(&head.headers, file.size),
        false => RangeRequest::Whole,
    };
    let headers = answer.headers_mut();
    let bytes = match wanted {
        RangeRequest::Whole => 0..file.size,
        RangeRequest::Part(part) => {
            let said = format!("bytes {}-{}/{}", part.start, part.end - 1, file.size);
            headers.extend(HeaderValue::try_from(said).map(|said| (CONTENT_RANGE, said)));
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            part
        }
        RangeRequest::Nothing => {
            let said = format!("bytes */{}", file.size);
            headers.extend(HeaderValue::try_from(said).map(|said| (CONTENT_RANGE, said)));
            *answer.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return Ok(answer);
        }
    };
    answer
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(bytes.end - bytes.start));
    if head.method == Method::HEAD {
        return Ok(answer);
    }
    match files.open(&file.key, bytes).await {
        Ok(pieces) => {
            *answer.body_mut() = Body::from_stream(pieces);
            Ok(answer)
        }
        Err(StoreError::Missing) => {
            tracing::error!(attachment = %file.id, "a file that is listed is not in the attachment store");
            Err(Refusal::NotFound)
        }
        Err(error) => Err(Refusal::Store(error.to_string())),
    }
}

/// Sets the headers of a file, whichever part of it is sent.
fn named(headers: &mut HeaderMap, file: &Attachment, tag: &str) {
    let plain: String = file
        .name
        .chars()
        .map(|c| {
            if c.is_ascii() && !"\"\\%".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let disposition = format!(
        "attachment; filename=\"{plain}\"; filename*=UTF-8''{}",
        utf8_percent_encode(&file.name, ESCAPED)
    );
    for (name, value) in [
        (CONTENT_DISPOSITION, disposition.as_str()),
        (CONTENT_TYPE, &file.content_type),
        (ETAG, tag),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
        (CACHE_CONTROL, "private"),
        (REFERRER_POLICY, "no-referrer"),
        (ACCEPT_RANGES, "bytes"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// True if the caller has this version of the file.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let mut lists = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|line| line.to_str().ok());
    lists.any(|list| {
        list.split(',')
            .map(str::trim)
            .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
    })
}

/// True if a range is of this version of the file.
fn is_current(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get(IF_RANGE)
        .is_none_or(|wanted| wanted.as_bytes() == tag.as_bytes())
}

/// The part of a file that is asked for.
#[derive(Debug, PartialEq, Eq)]
enum RangeRequest {
    Whole,
    Part(Range<u64>),
    Nothing,
}

/// One range (RFC 9110, 14.1.2). Several ranges, or an invalid one, are answered with the whole file.
fn range(headers: &HeaderMap, size: u64) -> RangeRequest {
    let mut lines = headers.get_all(RANGE).iter();
    let line = match (lines.next().map(HeaderValue::to_str), lines.next()) {
        (Some(Ok(line)), None) => line,
        _ => return RangeRequest::Whole,
    };
    let Some((first, last)) = line
        .strip_prefix("bytes=")
        .and_then(|range| range.trim().split_once('-'))
    else {
        return RangeRequest::Whole;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (start, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if last >= first => (first, last.saturating_add(1).min(size)),
        (Some(first), None) if last.is_empty() => (first, size),
        (None, Some(0)) if first.is_empty() => return RangeRequest::Nothing,
        (None, Some(last)) if first.is_empty() => (size.saturating_sub(last), size),
        _ => return RangeRequest::Whole,
    };
    if start < end {
        RangeRequest::Part(start..end)
    } else {
        RangeRequest::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AttachmentId, Timestamp};

    #[test]
    fn a_range_is_one_or_none() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_str(text).unwrap());
            range(&headers, 10)
        };
        for (text, wanted) in [
            ("bytes=0-3", RangeRequest::Part(0..4)),
            ("bytes=4-", RangeRequest::Part(4..10)),
            ("bytes=-3", RangeRequest::Part(7..10)),
            ("bytes=-30", RangeRequest::Part(0..10)),
            ("bytes=9-99999999999999999999", RangeRequest::Part(9..10)),
            ("bytes=10-", RangeRequest::Nothing),
            ("bytes=-0", RangeRequest::Nothing),
            ("bytes=3-2", RangeRequest::Whole),
            ("bytes=0-1,3-4", RangeRequest::Whole),
            ("bytes=+1-2", RangeRequest::Whole),
            ("lines=0-1", RangeRequest::Whole),
            ("bytes=-", RangeRequest::Whole),
        ] {
            assert_eq!(of(text), wanted, "{text}");
        }
        assert_eq!(range(&HeaderMap::new(), 10), RangeRequest::Whole);
    }

    #[test]
    fn t91_t92_a_file_is_named_safely_and_never_shown() {
        let id = AttachmentId::new();
        let file = Attachment {
            id,
            name: "a\"; x=\\é%.html".into(),
            content_type: "text/html".into(),
            size: 1,
            sha256: [0; 32],
            key: id.key("a"),
            origin: None,
            expires_at: Timestamp::default(),
        };
        let mut headers = HeaderMap::new();
        named(&mut headers, &file, "\"t\"");
        assert_eq!(
            headers[CONTENT_DISPOSITION],
            "attachment; filename=\"a_; x=___.html\"; filename*=UTF-8''a%22%3B%20x%3D%5C%C3%A9%25.html"
        );
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(
            headers[CONTENT_SECURITY_POLICY],
            "sandbox; default-src 'none'"
        );
    }
}
