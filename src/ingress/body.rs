//! Reading a body under its bounds. The bytes are kept as they came: they are what was signed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::BodyLimits;
use super::memory_limit::MemoryPermit;
use crate::model::Refusal;

/// The largest body that is taken in for the sake of its connection.
const UNWANTED: u64 = 64 * 1024;

/// Time at the begin of a body in which slowness does not count.
const GRACE: Duration = Duration::from_secs(10);

/// Judges the body by its head: length and compression. This is done before the body is touched, since touching it tells
/// the caller to go on (`100-continue`).
pub(super) fn judge_head(headers: &HeaderMap, bounds: BodyLimits) -> Result<(), Refusal> {
    let said = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    if said.is_some_and(|length| length > bounds.size) {
        return Err(Refusal::TooLarge(bounds.size));
    }
    match headers.get(CONTENT_ENCODING) {
        Some(coding)
            if !bounds.compressed
                && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
                && !coding.is_empty() =>
        {
            Err(Refusal::Unsupported("the body is compressed".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Reads and drops the body of a refused request if all of it is there already: then its connection can be used again.
/// A caller that waits to be told to go on (`100-continue`) is not told. Returns true if the body was read to its end.
pub(super) fn drain<B: http_body::Body + Unpin>(headers: &HeaderMap, mut body: B) -> bool {
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

/// Reads the whole body. Memory for it is taken from what all bodies share: for a length that is said before a byte is
/// read, else as it grows.
pub(super) async fn read(
    mut body: axum::body::Body,
    bounds: BodyLimits,
    hold: &MemoryPermit,
) -> Result<Bytes, Refusal> {
    let begun = Instant::now();
    let expected = usize::try_from(body.size_hint().lower().min(bounds.size)).unwrap_or(0);
    hold.grow(expected as u64)?;
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
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len() as u64;
        if length > bounds.size {
            return Err(Refusal::TooLarge(bounds.size));
        }
        is_fast_enough(length, begun, bounds)?;
        // Most bodies come in one piece and need no copy.
        match first.take() {
            None if rest.is_empty() => {
                hold.grow(length)?;
                first = Some(data);
            }
            None => {
                make_room(&mut rest, data.len(), hold)?;
                rest.extend_from_slice(&data);
            }
            Some(piece) => {
                make_room(&mut rest, expected.max(piece.len() + data.len()), hold)?;
                rest.extend_from_slice(&piece);
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}

/// Makes room for so many more bytes, twice as much as there is at least, and takes it from what all bodies share: also
/// the room that is left behind, which is there until its bytes were moved.
pub(super) fn make_room(
    rest: &mut BytesMut,
    more: usize,
    hold: &MemoryPermit,
) -> Result<(), Refusal> {
    let (length, room) = (rest.len(), rest.capacity());
    if length + more > room {
        let wanted = if room == 0 {
            more
        } else {
            (length + more).max(2 * room)
        };
        hold.grow((wanted + room) as u64)?;
        rest.reserve(wanted - length);
    }
    Ok(())
}

/// Refuses a body that comes more slowly than the slowest rate allows.
pub(super) fn is_fast_enough(
    length: u64,
    begun: Instant,
    bounds: BodyLimits,
) -> Result<(), Refusal> {
    if is_slow(length, begun.elapsed(), bounds.slowest) {
        Err(Refusal::SlowBody)
    } else {
        Ok(())
    }
}

fn is_slow(length: u64, took: Duration, slowest: u64) -> bool {
    took > GRACE && length < slowest.saturating_mul((took - GRACE).as_secs())
}

/// The refusal of a body that ended before it was whole: bad framing is the caller's mistake; otherwise it went away.
pub(super) fn broken(error: &axum::Error) -> Refusal {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && matches!(
                io.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput
            )
        {
            return Refusal::BadFraming("the body is not framed as its head says");
        }
        source = inner.source();
    }
    Refusal::Aborted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s14_a_body_has_the_time_that_the_slowest_rate_gives_it() {
        let slowest = 16 * 1024;
        assert!(!is_slow(1, GRACE, slowest), "the first seconds are free");
        let later = GRACE + Duration::from_secs(4);
        assert!(!is_slow(64 * 1024, later, slowest) && is_slow(63 * 1024, later, slowest));
        assert!(!is_slow(1, later, 0));
    }

    #[test]
    fn s11_a_body_without_a_length_takes_memory_as_it_grows() {
        let held = crate::ingress::MemoryLimit::new(8 << 20);
        let hold = held.permit([192, 0, 2, 1].into());
        let (mut rest, mut refused) = (BytesMut::new(), None);
        for _ in 0..1000 {
            if let Err(refusal) = make_room(&mut rest, 16 * 1024, &hold) {
                refused = Some(refusal);
                break;
            }
            rest.extend_from_slice(&[0; 16 * 1024]);
            assert!(held.now() >= rest.capacity() as u64);
        }
        assert!(
            matches!(refused, Some(Refusal::Overloaded(_))) && rest.len() < 4 << 20,
            "{}",
            rest.len()
        );
    }
}
