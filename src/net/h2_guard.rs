//! HTTP/2 frames, followed on their way in and out: not what they say, only their nine bytes of head. The library
//! bounds what one frame and one stream may cost; here is seen what only the whole of a connection shows: frames that
//! cost us work and them nothing, streams opened to be reset, a header block that is left open, an answer that nobody
//! takes. What is seen stands in [`H2Monitor`], and the connection's task asks it for a verdict.

use std::collections::HashMap;
use std::io::Result;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// First bytes of a connection (the client preface).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frames in ten seconds that ask for nothing: pings, settings, priorities, empty data and the like.
const MAX_IDLE_FRAMES: u32 = 1000;
const IDLE_FRAMES_TIME: Duration = Duration::from_secs(10);

/// Streams that may be reset before it matters how many were not.
const FREE_RESETS: u64 = 100;

/// Facts about a connection, as its frames show them.
#[derive(Debug)]
pub(super) struct H2Monitor(Mutex<FrameCounts>);

#[derive(Debug)]
struct FrameCounts {
    since: Instant,
    /// Header blocks that were whole.
    requests: u64,
    resets: u64,
    resets_of_ours: u64,
    idle_frames: u32,
    idle_frames_since: Instant,
    /// True if data went out since the other end last opened a window.
    sent: bool,
    /// A header block that has begun and not ended.
    block_since: Option<Instant>,
    /// Answers that have begun and not ended, and when each last went on.
    answers: HashMap<u32, Instant>,
    /// Requests whose answer has not begun.
    busy: u32,
    /// Answers that wait for us.
    hungry: usize,
    /// Time when the last request or answer ended.
    active: Instant,
    flood: bool,
}

/// Bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct H2Timeouts {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) stall: Duration,
}

/// Decision about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum H2Verdict {
    /// It goes on.
    Good,
    /// Open streams may end; no new one begins.
    WindDown(&'static str),
    /// It ends now.
    Cut(&'static str),
}

impl H2Monitor {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(FrameCounts {
            since: now,
            requests: 0,
            resets: 0,
            resets_of_ours: 0,
            idle_frames: 0,
            idle_frames_since: now,
            sent: false,
            block_since: None,
            answers: HashMap::new(),
            busy: 0,
            hungry: 0,
            active: now,
            flood: false,
        }))
    }

    pub(super) fn verdict(&self, now: Instant, patience: H2Timeouts) -> H2Verdict {
        let seen = self.seen();
        let longer = |since: Instant, than: Duration| now.duration_since(since) > than;
        if seen.flood {
            return H2Verdict::WindDown("frames or resets without end");
        }
        if seen
            .block_since
            .is_some_and(|since| longer(since, patience.head))
        {
            return H2Verdict::Cut("a header block was left open");
        }
        if seen.requests == 0 && longer(seen.since, patience.head) {
            return H2Verdict::Cut("no request came");
        }
        let still = seen
            .answers
            .values()
            .filter(|last| longer(**last, patience.stall))
            .count();
        if still > seen.hungry {
            return H2Verdict::Cut("the other end does not read");
        }
        if seen.busy == 0 && seen.answers.is_empty() && longer(seen.active, patience.idle) {
            return H2Verdict::WindDown("idle");
        }
        H2Verdict::Good
    }

    /// True if nothing more is read because of a flood of frames.
    pub(super) fn is_flooded(&self) -> bool {
        self.seen().flood
    }

    /// A request has come; dropping what is returned says that its answer begins, or never will.
    pub(super) fn busy(self: &Arc<Self>) -> PendingAnswer {
        self.seen().busy += 1;
        PendingAnswer(self.clone())
    }

    fn seen(&self) -> MutexGuard<'_, FrameCounts> {
        self.0.lock()
    }
}

impl FrameCounts {
    fn came(&mut self, frame: FrameHead) {
        let ends_block = frame.flags & 0x4 != 0;
        match frame.kind {
            kind::HEADERS | kind::CONTINUATION => {
                if frame.kind == kind::CONTINUATION {
                    self.idle_frame();
                }
                if ends_block {
                    self.block_since = None;
                    self.requests += 1;
                    self.active = Instant::now();
                } else {
                    self.block_since.get_or_insert_with(Instant::now);
                }
            }
            kind::DATA if frame.length > 0 || frame.ends_stream() => {}
            kind::RST_STREAM => {
                self.resets += 1;
                self.ended(frame.stream);
            }
            kind::WINDOW_UPDATE if std::mem::take(&mut self.sent) => {}
            _ => self.idle_frame(),
        }
        let reset = self.resets + self.resets_of_ours;
        if reset > FREE_RESETS && reset > self.requests / 2 {
            self.flood = true;
        }
    }

    fn went(&mut self, frame: FrameHead) {
        match frame.kind {
            kind::HEADERS | kind::DATA => {
                self.sent = true;
                if frame.ends_stream() {
                    self.ended(frame.stream);
                } else {
                    self.answers.insert(frame.stream, Instant::now());
                }
            }
            kind::RST_STREAM => {
                self.resets_of_ours += 1;
                self.ended(frame.stream);
            }
            _ => {}
        }
    }

    fn ended(&mut self, stream: u32) {
        self.answers.remove(&stream);
        self.active = Instant::now();
    }

    fn idle_frame(&mut self) {
        self.idle_frames += 1;
        if self.idle_frames <= MAX_IDLE_FRAMES {
            return;
        }
        let now = Instant::now();
        if now.duration_since(self.idle_frames_since) < IDLE_FRAMES_TIME {
            self.flood = true;
        }
        (self.idle_frames, self.idle_frames_since) = (0, now);
    }
}

/// A request without an answer yet.
pub(super) struct PendingAnswer(Arc<H2Monitor>);

impl Drop for PendingAnswer {
    fn drop(&mut self) {
        let mut seen = self.0.seen();
        seen.busy -= 1;
        seen.active = Instant::now();
    }
}

/// An answer's body that says when it waits for us, so that a stream that is silent is told from one nobody reads.
pub(super) struct WatchedBody<B> {
    inner: B,
    hungry: bool,
    pulse: Arc<H2Monitor>,
}

impl<B> WatchedBody<B> {
    pub(super) const fn new(inner: B, pulse: Arc<H2Monitor>) -> Self {
        Self {
            inner,
            hungry: false,
            pulse,
        }
    }

    fn hunger(&mut self, hungry: bool) {
        if self.hungry != hungry {
            self.hungry = hungry;
            let mut seen = self.pulse.seen();
            seen.hungry = if hungry {
                seen.hungry + 1
            } else {
                seen.hungry - 1
            };
        }
    }
}

impl<B: Body + Unpin> Body for WatchedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.hunger(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> Drop for WatchedBody<B> {
    fn drop(&mut self) {
        self.hunger(false);
    }
}

/// Kinds of frames that matter here (RFC 9113, 6).
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

#[derive(Clone, Copy, Debug)]
struct FrameHead {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl FrameHead {
    const fn ends_stream(self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & 0x1 != 0
    }
}

/// One direction of a connection.
struct FrameFollower {
    head: [u8; 9],
    have: usize,
    /// Remaining bytes of a payload, or of the preface.
    left: usize,
}

impl FrameFollower {
    fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(FrameHead)) {
        while !bytes.is_empty() {
            let skip = self.left.min(bytes.len());
            self.left -= skip;
            bytes = &bytes[skip..];
            let take = (9 - self.have).min(bytes.len());
            self.head[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have == 9 {
                let [a, b, c, kind, flags, s @ ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]);
                each(FrameHead {
                    length,
                    kind,
                    flags,
                    stream: u32::from_be_bytes(s) & 0x7fff_ffff,
                });
                self.have = 0;
                self.left = length as usize;
            }
        }
    }
}

/// A connection, followed in both directions.
pub(super) struct H2Guard<T> {
    inner: T,
    inward: FrameFollower,
    outward: FrameFollower,
    pulse: Arc<H2Monitor>,
}

impl<T> H2Guard<T> {
    pub(super) const fn new(inner: T, pulse: Arc<H2Monitor>) -> Self {
        Self {
            inner,
            inward: FrameFollower {
                head: [0; 9],
                have: 0,
                left: PREFACE.len(),
            },
            outward: FrameFollower {
                head: [0; 9],
                have: 0,
                left: 0,
            },
            pulse,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for H2Guard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let this = &mut *self;
        if this.pulse.seen().flood {
            // Nothing more is read; the connection's task ends it.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buffer);
        let mut seen = this.pulse.seen();
        this.inward
            .follow(&buffer.filled()[before..], |frame| seen.came(frame));
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for H2Guard<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(length)) = written {
            let mut seen = this.pulse.seen();
            this.outward
                .follow(&bytes[..length], |frame| seen.went(frame));
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, pieces);
        if let Poll::Ready(Ok(mut length)) = written {
            let mut seen = this.pulse.seen();
            for piece in pieces {
                let here = piece.len().min(length);
                this.outward
                    .follow(&piece[..here], |frame| seen.went(frame));
                length -= here;
            }
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: H2Timeouts = H2Timeouts {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        stall: Duration::from_secs(30),
    };

    fn frame(length: u32, kind: u8, flags: u8, stream: u32) -> FrameHead {
        FrameHead {
            length,
            kind,
            flags,
            stream,
        }
    }

    #[test]
    fn frames_are_found_however_they_come() {
        let bytes = [
            &PREFACE[..],
            &[0, 0, 2, 1, 5, 0, 0, 0, 1, 9, 9],
            &[0, 0, 0, 4, 0, 0, 0, 0, 0],
        ]
        .concat();
        for size in [1, 4, 100] {
            let mut found = Vec::new();
            let mut inward = FrameFollower {
                head: [0; 9],
                have: 0,
                left: PREFACE.len(),
            };
            for piece in bytes.chunks(size) {
                inward.follow(piece, |frame| {
                    found.push((frame.kind, frame.length, frame.stream))
                });
            }
            assert_eq!(found, [(1, 2, 1), (4, 0, 0)]);
        }
    }

    #[tokio::test]
    async fn t22_t23_resets_and_frames_that_ask_nothing_are_a_flood() {
        let pulse = H2Monitor::new();
        for stream in 0..100 {
            pulse.seen().came(frame(9, kind::HEADERS, 5, stream));
            pulse.seen().came(frame(4, kind::RST_STREAM, 0, stream));
        }
        assert_eq!(pulse.verdict(Instant::now(), PATIENCE), H2Verdict::Good);
        pulse.seen().came(frame(4, kind::RST_STREAM, 0, 1));
        assert!(matches!(
            pulse.verdict(Instant::now(), PATIENCE),
            H2Verdict::WindDown(_)
        ));

        for (kind, flags) in [
            (kind::DATA, 0),
            (kind::CONTINUATION, 0),
            (4, 0),
            (6, 0),
            (2, 0),
            (77, 0),
        ] {
            let pulse = H2Monitor::new();
            for _ in 0..=MAX_IDLE_FRAMES {
                pulse.seen().came(frame(0, kind, flags, 1));
            }
            assert!(
                matches!(
                    pulse.verdict(Instant::now(), PATIENCE),
                    H2Verdict::WindDown(_)
                ),
                "{kind}"
            );
        }
    }

    #[tokio::test]
    async fn t24_t29_what_is_left_open_ends_and_what_waits_for_us_does_not() {
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        let pulse = Arc::new(H2Monitor::new());
        assert!(matches!(
            pulse.verdict(later(11), PATIENCE),
            H2Verdict::Cut(_)
        ));
        pulse.seen().came(frame(9, kind::HEADERS, 1, 1));
        assert!(matches!(
            pulse.verdict(later(11), PATIENCE),
            H2Verdict::Cut("a header block was left open")
        ));
        pulse.seen().came(frame(9, kind::CONTINUATION, 4, 1));
        let busy = pulse.busy();
        assert_eq!(pulse.verdict(later(999), PATIENCE), H2Verdict::Good);
        drop(busy);
        pulse.seen().went(frame(9, kind::HEADERS, 4, 1));
        assert!(matches!(
            pulse.verdict(later(31), PATIENCE),
            H2Verdict::Cut("the other end does not read")
        ));
        pulse.seen().hungry = 1;
        assert_eq!(pulse.verdict(later(999), PATIENCE), H2Verdict::Good);
        pulse.seen().went(frame(0, kind::DATA, 1, 1));
        assert_eq!(pulse.verdict(later(59), PATIENCE), H2Verdict::Good);
        assert_eq!(
            pulse.verdict(later(61), PATIENCE),
            H2Verdict::WindDown("idle")
        );
    }
}
