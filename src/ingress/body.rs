//! Reading a body under its bounds. The bytes are kept as they came: they are what was signed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::Bounds;
use crate::model::Refusal;

/// The slowest body after its first ten seconds, in bytes a second.
const SLOWEST: u64 = 1024;

/// The largest body that is taken in for the sake of its connection.
const UNWANTED: u64 = 64 * 1024;

/// When slowness begins to count.
const GRACE: Duration = Duration::from_secs(10);

/// Says at once what the head alone shows: too long, or compressed. Asked before the body is touched, since touching
/// it tells the caller to go on (`100-continue`).
pub(super) fn judge_head(headers: &HeaderMap, bounds: Bounds) -> Result<(), Refusal> {
    let said = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if said.is_some_and(|length| length > bounds.size) {
        return Err(Refusal::TooLarge(bounds.size));
    }
    match headers.get(CONTENT_ENCODING) {
        Some(coding)
            if !bounds.compressed && !coding.as_bytes().eq_ignore_ascii_case(b"identity") && !coding.is_empty() =>
        {
            Err(Refusal::Unsupported("the body is compressed".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Takes in a body that nobody wants where all of it is there already: then its connection can go on. Who asked whether
/// to send it (`100-continue`) is not told to.
pub(super) fn drain(headers: &HeaderMap, mut body: axum::body::Body) -> bool {
    if headers.contains_key(EXPECT) || body.size_hint().upper().is_none_or(|most| most > UNWANTED) {
        return false;
    }
    loop {
        match body.frame().now_or_never() {
            Some(None) => return true,
            Some(Some(Ok(_))) => {}
            Some(Some(Err(_))) | None => return false,
        }
    }
}

/// Reads the whole body.
pub(super) async fn read(mut body: axum::body::Body, bounds: Bounds) -> Result<Bytes, Refusal> {
    let begun = Instant::now();
    let expected = usize::try_from(body.size_hint().lower().min(bounds.size)).unwrap_or(0);
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length = 0_u64;
    loop {
        let deadline = (Instant::now() + bounds.stall).min(begun + bounds.whole);
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(Refusal::SlowBody),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(broken(&error)),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        length += data.len() as u64;
        if length > bounds.size {
            return Err(Refusal::TooLarge(bounds.size));
        }
        is_fast_enough(length, begun)?;
        // Most bodies come in one piece and need no copy.
        match first.take() {
            None if rest.is_empty() => first = Some(data),
            None => rest.extend_from_slice(&data),
            Some(piece) => {
                rest.reserve(expected.max(piece.len() + data.len()));
                rest.extend_from_slice(&piece);
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}

/// Whether this much of a body is enough by now.
pub(super) fn is_fast_enough(length: u64, begun: Instant) -> Result<(), Refusal> {
    let took = begun.elapsed();
    let is_slow = took > GRACE && length < SLOWEST * (took - GRACE).as_secs();
    if is_slow { Err(Refusal::SlowBody) } else { Ok(()) }
}

/// A body that ended before it was whole. What was badly framed is the caller's mistake, the rest is its going away.
pub(super) fn broken(error: &axum::Error) -> Refusal {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput)
        {
            return Refusal::BadFraming("the body is not framed as its head says");
        }
        source = inner.source();
    }
    Refusal::Aborted
}
