//! The bodies, piece by piece as they come. Neither way holds more than the piece at hand; what waits, waits with the
//! sender. Trailers are dropped.

use std::error::Error;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::passage::Passage;
use crate::ingress::body_progress::{BodyFault, BodyProgress};
use crate::ingress::event_stream::StreamTail;

/// A request's body on its way up.
pub(super) struct Upward {
    incoming: Incoming,
    progress: Arc<BodyProgress>,
    limit: u64,
    stall: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Upward {
    pub(super) fn new(
        incoming: Incoming,
        progress: Arc<BodyProgress>,
        limit: Option<u64>,
        stall: Duration,
    ) -> Self {
        if incoming.is_end_stream() {
            progress.end();
        }
        Self {
            incoming,
            progress,
            limit: limit.unwrap_or(u64::MAX),
            stall,
            waiting: None,
        }
    }
}

impl Body for Upward {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        loop {
            let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
                let stall = this.stall;
                let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(stall)));
                ready!(waiting.as_mut().poll(cx));
                return Poll::Ready(Some(Err(this.progress.fail(BodyFault::Slow))));
            };
            this.waiting = None;
            let frame = match frame {
                None => {
                    this.progress.end();
                    return Poll::Ready(None);
                }
                Some(Err(_)) => {
                    return Poll::Ready(Some(Err(this.progress.fail(BodyFault::Broken))));
                }
                Some(Ok(frame)) => frame,
            };
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            if this.progress.moved(piece.len() as u64) > this.limit {
                return Poll::Ready(Some(Err(this
                    .progress
                    .fail(BodyFault::TooLarge(this.limit)))));
            }
            // Whoever knows the length asks for no further piece.
            if this.incoming.is_end_stream() {
                this.progress.end();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// An answer's body on its way down.
pub(super) struct Downward {
    incoming: Incoming,
    passage: Passage,
    pulse: Option<Heartbeat>,
    /// The answer to a HEAD without a length: there is no body, and none may be said to be empty.
    hides_length: bool,
}

impl Downward {
    pub(super) fn new(
        incoming: Incoming,
        passage: Passage,
        headers: &HeaderMap,
        to_head: bool,
        heartbeat: Duration,
    ) -> Self {
        let has_length = headers.contains_key(CONTENT_LENGTH);
        let pulses = !heartbeat.is_zero() && !has_length && !to_head && is_event_stream(headers);
        Self {
            incoming,
            passage,
            pulse: pulses.then(|| Heartbeat::new(heartbeat)),
            hides_length: to_head && !has_length,
        }
    }
}

impl Body for Downward {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        loop {
            let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
                let Some(pulse) = &mut this.pulse else {
                    return Poll::Pending;
                };
                let beat = ready!(pulse.poll_beat(cx));
                return Poll::Ready(Some(Ok(Frame::data(beat))));
            };
            match frame {
                None => {
                    this.passage.end("whole");
                    return Poll::Ready(None);
                }
                // The caller's connection breaks as the upstream's did: nothing that is cut off may look whole.
                Some(Err(error)) => {
                    let by_caller = this.passage.progress.fault().is_some();
                    this.passage.end(if by_caller {
                        "caller broke"
                    } else {
                        "upstream broke"
                    });
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => {
                    let Ok(piece) = frame.into_data() else {
                        continue;
                    };
                    this.passage.moved(piece.len() as u64);
                    if let Some(pulse) = &mut this.pulse {
                        pulse.saw(&piece);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.hides_length && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.hides_length {
            SizeHint::default()
        } else {
            self.incoming.size_hint()
        }
    }
}

impl Drop for Downward {
    fn drop(&mut self) {
        // A body of known length is dropped as soon as it has that length, without being asked for its end.
        if self.incoming.is_end_stream() {
            self.passage.end("whole");
        }
    }
}

/// True if an answer is an event stream that a line can be put into: a compressed one is not.
fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], |kind| kind.as_bytes());
    let kind = kind
        .split(|b| *b == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    kind.eq_ignore_ascii_case(b"text/event-stream") && !headers.contains_key(CONTENT_ENCODING)
}

/// The comment line that keeps an event stream open.
const BEAT: Bytes = Bytes::from_static(b": ping\n\n");

/// Keeps a silent event stream open, and stays silent itself while an event is only half there.
struct Heartbeat {
    every: Duration,
    next: Pin<Box<Sleep>>,
    tail: StreamTail,
}

impl Heartbeat {
    fn new(every: Duration) -> Self {
        Self {
            every,
            next: Box::pin(sleep(every)),
            tail: StreamTail::default(),
        }
    }

    fn saw(&mut self, piece: &[u8]) {
        self.tail.follow(piece);
        self.next.as_mut().reset(Instant::now() + self.every);
    }

    fn poll_beat(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            ready!(self.next.as_mut().poll(cx));
            self.next.as_mut().reset(Instant::now() + self.every);
            if self.tail.is_between_events() {
                return Poll::Ready(BEAT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_never_splits_an_event() {
        let after = |pieces: &str| {
            let mut tail = StreamTail::default();
            pieces
                .split('|')
                .filter(|piece| !piece.is_empty())
                .for_each(|piece| tail.follow(piece.as_bytes()));
            tail.is_between_events()
        };
        for whole in [
            "",
            "data: 1\n\n",
            "data: 1\r\n\r\n",
            "data: 1\n|\n",
            "a\r\r",
            ": c\n|\n",
            "a\r|\n\r|\n",
        ] {
            assert!(after(whole), "{whole:?}");
        }
        for half in ["d", "data: 1", "data: 1\n", "data: 1\r\n", "x\n\n|data"] {
            assert!(!after(half), "{half:?}");
        }
    }

    #[test]
    fn only_plain_event_streams_have_a_pulse() {
        let headers = |lines: &[(&'static str, &'static str)]| {
            lines
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect::<HeaderMap>()
        };
        assert!(is_event_stream(&headers(&[(
            "content-type",
            "Text/Event-Stream; charset=utf-8"
        )])));
        assert!(!is_event_stream(&headers(&[
            ("content-type", "text/event-stream"),
            ("content-encoding", "gzip")
        ])));
        assert!(!is_event_stream(&headers(&[(
            "content-type",
            "text/event-stream-x"
        )])));
        assert!(!is_event_stream(&headers(&[])));
    }
}
