//! Filter between a socket and the HTTP/1 library: it follows the bytes that come in, heads and bodies, and passes only
//! requests that have exactly one meaning (`head`, `chunk`).
//!
//! A head is given on when it is whole and good. In place of one that is not, the library is given a request of our
//! own that says `Connection: close`, and the service is told what was wrong with the one that came ([`BadHeadNotice`]): so
//! it is answered in its turn behind the requests before it, counted and logged as any other, and nothing behind it is
//! read as a request. A body that stops being one is an error to whoever reads it.
//!
//! Two more promises: a head that does not come in time is at its end, and whoever is answered before all it sent was
//! read can read the answer, since what still comes is dropped for a while before the socket is closed.

use std::future::Future as _;
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::chunk::Chunks;
use super::head::{self, BodyFraming, HeadFault};

/// Substitute request handed to the HTTP library in place of an invalid one.
const SUBSTITUTE: &[u8] = b"GET / HTTP/1.1\r\nHost: -\r\nConnection: close\r\n\r\n";

/// Bytes dropped behind an early answer, and the longest time for that.
const LINGER_BYTES: usize = 64 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Buffer that an idle connection keeps for the next head, in bytes.
const KEPT: usize = 1024;

/// Number of the invalid request of a connection, from zero, and its fault.
#[derive(Debug, Default)]
pub(super) struct BadHeadNotice(OnceLock<(u32, HeadFault)>);

impl BadHeadNotice {
    /// The fault of the request of this number.
    pub(super) fn of(&self, number: u32) -> Option<HeadFault> {
        self.0
            .get()
            .filter(|(at, _)| *at == number)
            .map(|(_, fault)| *fault)
    }
}

/// A connection whose incoming bytes are filtered.
pub(super) struct Http1Filter<T> {
    inner: T,
    state: InputState,
    /// A head that is not whole yet, behind bytes that may pass and have not all passed.
    held: Vec<u8>,
    cleared: usize,
    given: usize,
    /// Length of the incomplete head that was searched for its end.
    searched: usize,
    heads: u32,
    notice: Arc<BadHeadNotice>,
    max_head: usize,
    head_timeout: Duration,
    /// Runs while a head is awaited that has begun, or the first.
    timer: Option<Pin<Box<Sleep>>>,
    /// Fault of the body, to be reported once.
    broken: Option<&'static str>,
    ended: bool,
    closing: Closing,
}

/// Part of the input that the next byte belongs to.
#[derive(Clone, Copy)]
enum InputState {
    Head,
    Length(u64),
    Chunked(Chunks),
    /// To nothing that will be read.
    Shut,
}

enum Closing {
    NotYet,
    Lingering { left: usize, timer: Pin<Box<Sleep>> },
    Done,
}

impl<T> Http1Filter<T> {
    pub(super) fn new(
        inner: T,
        max_head: usize,
        head_timeout: Duration,
        notice: Arc<BadHeadNotice>,
    ) -> Self {
        Self {
            inner,
            state: InputState::Head,
            held: Vec::new(),
            cleared: 0,
            given: 0,
            searched: 0,
            heads: 0,
            notice,
            max_head,
            head_timeout,
            timer: None,
            broken: None,
            ended: false,
            closing: Closing::NotYet,
        }
    }

    /// Gives what may pass, as far as there is room.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let end = self.cleared.min(self.given + buffer.remaining());
        buffer.put_slice(&self.held[self.given..end]);
        self.given = end;
        if self.given < self.cleared {
            return;
        }
        self.held.drain(..self.cleared);
        (self.cleared, self.given) = (0, 0);
        if self.held.is_empty() && self.held.capacity() > KEPT {
            self.held = Vec::new();
        }
    }

    /// Follows bytes; says how many of them may pass. Beside those there may be a head that is not whole, or a fault.
    fn follow(&mut self, bytes: &[u8]) -> (usize, Option<HeadFault>) {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.state {
                // An empty line before a request is no part of it, and no beginning of one.
                InputState::Head if bytes[at..].starts_with(b"\r\n") => at += 2,
                InputState::Head if bytes[at] == b'\n' => at += 1,
                InputState::Head => match self.whole_head(&bytes[at..]) {
                    Ok(None) => break,
                    Ok(Some((length, framing))) => {
                        at += length;
                        self.heads = self.heads.wrapping_add(1);
                        self.searched = 0;
                        self.timer = None;
                        self.state = match framing {
                            BodyFraming::Length(0) => InputState::Head,
                            BodyFraming::Length(length) => InputState::Length(length),
                            BodyFraming::Chunked => InputState::Chunked(Chunks::new()),
                        };
                    }
                    Err(fault) => return (at, Some(fault)),
                },
                InputState::Length(left) => {
                    let here = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len() - at);
                    at += here;
                    *left -= here as u64;
                    if *left == 0 {
                        self.state = InputState::Head;
                    }
                }
                InputState::Chunked(chunks) => match chunks.follow(&bytes[at..]) {
                    Ok(length) => {
                        at += length;
                        if chunks.ended() {
                            self.state = InputState::Head;
                        }
                    }
                    Err((good, what)) => {
                        self.broken = Some(what);
                        self.state = InputState::Shut;
                        return (at + good, None);
                    }
                },
                InputState::Shut => break,
            }
        }
        (at, None)
    }

    /// The head at the beginning of some bytes, where it is whole.
    fn whole_head(
        &mut self,
        bytes: &[u8],
    ) -> std::result::Result<Option<(usize, BodyFraming)>, HeadFault> {
        if let Some(end) = end_of_head(bytes, self.searched) {
            return if end > self.max_head {
                Err(self.too_large(bytes))
            } else {
                head::judge(bytes).map(Some)
            };
        }
        head::judge_early(bytes, self.searched)?;
        if bytes.len() > self.max_head {
            return Err(self.too_large(bytes));
        }
        self.searched = bytes.len();
        Ok(None)
    }

    /// Names the part of a head that is too large.
    fn too_large(&self, bytes: &[u8]) -> HeadFault {
        let line_ends = memchr::memchr(b'\n', &bytes[..bytes.len().min(self.max_head)]).is_some();
        if line_ends {
            HeadFault::TooLarge
        } else {
            HeadFault::TargetTooLong
        }
    }

    /// Puts the substitute request in the place of an invalid one.
    fn refuse(&mut self, fault: HeadFault) {
        self.held.truncate(self.cleared);
        self.held.extend_from_slice(SUBSTITUTE);
        self.cleared = self.held.len();
        self.timer = None;
        self.state = InputState::Shut;
        // The first is the only one: nothing is read behind it.
        let _ = self.notice.0.set((self.heads, fault));
    }

    /// Takes what came in: all of it may have to wait, or none.
    fn take(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        if self.held.is_empty() {
            let came = &buffer.filled()[before..];
            let (passes, fault) = self.follow(came);
            if fault.is_none() && matches!(self.state, InputState::Head) {
                self.held.extend_from_slice(&came[passes..]);
            }
            buffer.set_filled(before + passes);
            if let Some(fault) = fault {
                self.refuse(fault);
            }
            return;
        }
        // There is the beginning of a head already.
        self.held.extend_from_slice(&buffer.filled()[before..]);
        buffer.set_filled(before);
        let held = std::mem::take(&mut self.held);
        let (passes, fault) = self.follow(&held);
        self.held = held;
        self.cleared = passes;
        if let Some(fault) = fault {
            self.refuse(fault);
        } else if matches!(self.state, InputState::Shut) {
            self.held.truncate(passes);
        }
    }

    /// True while a head is awaited that has a time limit.
    fn awaits_head(&self) -> bool {
        matches!(self.state, InputState::Head) && (self.heads == 0 || !self.held.is_empty())
    }
}

/// Finds the end of a head, whose first `searched` bytes were searched before: the first empty line that follows a line
/// with text.
fn end_of_head(bytes: &[u8], searched: usize) -> Option<usize> {
    // The line end before may lie at the end of what was searched.
    let from = searched.saturating_sub(3);
    memchr::memchr_iter(b'\n', &bytes[from..])
        .map(|at| from + at)
        .find_map(|at| match bytes[at + 1..] {
            [b'\n', ..] => Some(at + 2),
            [b'\r', b'\n', ..] => Some(at + 3),
            _ => None,
        })
}

impl<T: AsyncRead + Unpin> AsyncRead for Http1Filter<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let this = &mut *self;
        loop {
            if this.given < this.cleared {
                this.give(buffer);
                return Poll::Ready(Ok(()));
            }
            if let Some(what) = this.broken.take() {
                return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, what)));
            }
            if matches!(this.state, InputState::Shut) {
                // What still comes is dropped at the end.
                return Poll::Pending;
            }
            let before = buffer.filled().len();
            match Pin::new(&mut this.inner).poll_read(cx, buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() == before => {
                    this.ended = true;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(())) => {
                    this.take(buffer, before);
                    if buffer.filled().len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    if !this.awaits_head() {
                        return Poll::Pending;
                    }
                    let time = this.head_timeout;
                    let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(time)));
                    ready!(timer.as_mut().poll(cx));
                    if this.held.is_empty() {
                        // Nothing was asked, so nothing is answered.
                        return Poll::Ready(Ok(()));
                    }
                    this.refuse(HeadFault::Slow);
                }
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Http1Filter<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.closing {
                Closing::NotYet => {
                    ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
                    // Between two requests there is nothing on its way that would be lost.
                    let between = matches!(this.state, InputState::Head) && this.held.is_empty();
                    this.closing = if this.ended || between {
                        Closing::Done
                    } else {
                        Closing::Lingering {
                            left: LINGER_BYTES,
                            timer: Box::pin(sleep(LINGER_TIME)),
                        }
                    };
                }
                Closing::Lingering { left, timer } => {
                    let mut space = [0; 4096];
                    let mut dropped = ReadBuf::new(&mut space);
                    match Pin::new(&mut this.inner).poll_read(cx, &mut dropped) {
                        Poll::Ready(Ok(()))
                            if !dropped.filled().is_empty() && dropped.filled().len() < *left =>
                        {
                            *left -= dropped.filled().len();
                        }
                        Poll::Ready(_) => this.closing = Closing::Done,
                        Poll::Pending => {
                            ready!(timer.as_mut().poll(cx));
                            this.closing = Closing::Done;
                        }
                    }
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const GOOD: &str = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";

    fn filter() -> (Http1Filter<DuplexStream>, DuplexStream, Arc<BadHeadNotice>) {
        let (ours, theirs) = duplex(64 * 1024);
        let notice = Arc::new(BadHeadNotice::default());
        (
            Http1Filter::new(ours, 1024, Duration::from_millis(100), notice.clone()),
            theirs,
            notice,
        )
    }

    /// Everything that passes of what comes in pieces, with room for so much at a time.
    async fn passed(
        pieces: impl Iterator<Item = &[u8]>,
        room: usize,
    ) -> (String, Option<(u32, HeadFault)>, bool) {
        let (mut ours, mut theirs, notice) = filter();
        let mut text = Vec::new();
        let mut broken = false;
        let read =
            async |ours: &mut Http1Filter<DuplexStream>, text: &mut Vec<u8>, broken: &mut bool| {
                let mut buffer = vec![0; room];
                while let Ok(read) =
                    tokio::time::timeout(Duration::from_millis(5), ours.read(&mut buffer)).await
                {
                    match read {
                        Ok(0) => break,
                        Ok(length) => text.extend_from_slice(&buffer[..length]),
                        Err(_) => *broken = true,
                    }
                }
            };
        for piece in pieces {
            theirs.write_all(piece).await.unwrap();
            let mut buffer = vec![0; room];
            let poll = std::future::poll_fn(|cx| {
                let mut space = ReadBuf::new(&mut buffer);
                Poll::Ready(match Pin::new(&mut ours).poll_read(cx, &mut space) {
                    Poll::Ready(Ok(())) => Ok(space.filled().to_vec()),
                    Poll::Ready(Err(error)) => Err(error),
                    Poll::Pending => Ok(Vec::new()),
                })
            });
            match poll.await {
                Ok(bytes) => text.extend_from_slice(&bytes),
                Err(_) => broken = true,
            }
        }
        read(&mut ours, &mut text, &mut broken).await;
        (
            String::from_utf8(text).unwrap(),
            notice.0.get().copied(),
            broken,
        )
    }

    async fn every_way(text: &str) -> (String, Option<(u32, HeadFault)>, bool) {
        let whole = passed(std::iter::once(text.as_bytes()), 8192).await;
        for (size, room) in [(1, 8192), (7, 5), (text.len(), 10), (50, 8192)] {
            assert_eq!(
                passed(text.as_bytes().chunks(size), room).await,
                whole,
                "{size} {room} {text:?}"
            );
        }
        whole
    }

    #[tokio::test]
    async fn t19_good_requests_pass_as_they_came_however_they_come() {
        let chunked = "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let text = format!("\r\n{GOOD}{chunked}\r\n{GOOD}GET / HTTP/1.1\nHost: a\n\n");
        assert_eq!(every_way(&text).await, (text, None, false));
    }

    #[tokio::test]
    async fn a_bad_head_is_replaced_in_its_turn_and_nothing_behind_it_passes() {
        let bad = "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow\r\n\r\n";
        let text = format!("{GOOD}{GOOD}{bad}{GOOD}");
        let (got, notice, broken) = every_way(&text).await;
        assert_eq!(
            got,
            format!("{GOOD}{GOOD}{}", std::str::from_utf8(SUBSTITUTE).unwrap())
        );
        let (number, fault) = notice.unwrap();
        assert_eq!(number, 2);
        assert!(matches!(fault, HeadFault::Framing(_)) && !broken);
    }

    #[tokio::test]
    async fn a_body_that_stops_being_one_is_an_error() {
        let head = "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (got, notice, broken) = every_way(&format!("{head}3\r\nabcX\r\n0\r\n\r\n{GOOD}")).await;
        assert_eq!(got, format!("{head}3\r\nabc"));
        assert!(notice.is_none() && broken);
    }

    #[tokio::test]
    async fn t13_a_head_that_is_too_long_is_one_fault_and_its_target_another() {
        let long = "x".repeat(2_000);
        for (text, fault) in [
            (
                format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n"),
                HeadFault::TooLarge,
            ),
            (format!("GET / HTTP/1.1\r\nX: {long}"), HeadFault::TooLarge),
            (
                format!("GET /{long} HTTP/1.1\r\n\r\n"),
                HeadFault::TargetTooLong,
            ),
            (format!("GET /{long}"), HeadFault::TargetTooLong),
        ] {
            assert_eq!(
                every_way(&text).await.1,
                Some((0, fault)),
                "{}",
                &text[..20]
            );
        }
    }

    #[tokio::test]
    async fn t30_a_head_that_has_begun_must_end_and_one_that_has_not_is_no_request() {
        let (mut ours, mut theirs, notice) = filter();
        let mut buffer = [0; 100];
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 0);
        assert!(notice.0.get().is_none());
        let (mut ours, _keep, notice) = {
            let (ours, mut theirs, notice) = filter();
            theirs.write_all(b"GET / HT").await.unwrap();
            (ours, theirs, notice)
        };
        assert_eq!(ours.read(&mut buffer).await.unwrap(), SUBSTITUTE.len());
        assert_eq!(notice.of(0), Some(HeadFault::Slow));
        let _ = theirs.shutdown().await;
    }

    #[tokio::test]
    async fn t17_what_still_comes_behind_an_early_answer_is_dropped_within_bounds() {
        let (mut ours, mut theirs, _) = filter();
        theirs
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
            .await
            .unwrap();
        assert!(ours.read(&mut [0; 8192]).await.unwrap() > 0);
        ours.write_all(b"no").await.unwrap();
        let send = async {
            let mut sent = 0;
            while theirs.write_all(&[0; 1024]).await.is_ok() && sent < 1024 * 1024 {
                sent += 1024;
            }
            (sent, theirs)
        };
        let close = async {
            ours.shutdown().await.unwrap();
            drop(ours);
        };
        let ((sent, mut theirs), ()) = tokio::join!(send, close);
        assert!((64 * 1024..=256 * 1024).contains(&sent), "{sent}");
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "no");
    }
}
