//! Connections that carry one request after another, and what is known when one of them breaks.
//!
//! A server may close a kept connection at the moment a request is written to it. Whether that request may be sent again
//! depends on what the connection carried: nothing of the request, nothing of an answer, or some of both. So the bytes of
//! each connection are counted, as the HTTP library sees them: below TLS a farewell of the server would look like an
//! answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use http::{Extensions, Method};
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Longest time by which a kept connection is given up earlier than by its server: an answer and the next request may be
/// that long on their way.
const MARGIN: Duration = Duration::from_secs(1);

/// Bytes that a connection has carried so far.
#[derive(Debug)]
struct Traffic {
    made: Instant,
    read: AtomicU64,
    written: AtomicU64,
    /// Milliseconds after `made` at which the last byte came or went.
    last: AtomicU64,
    /// True if a task already waits for the end of its time.
    is_timed: AtomicBool,
}

impl Traffic {
    fn count(&self, of: &AtomicU64, bytes: usize) {
        if bytes > 0 {
            of.fetch_add(bytes as u64, Ordering::AcqRel);
            self.last.store(
                u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX),
                Ordering::Release,
            );
        }
    }

    fn silent_for(&self) -> Duration {
        self.made
            .elapsed()
            .saturating_sub(Duration::from_millis(self.last.load(Ordering::Acquire)))
    }
}

/// A connection whose bytes are counted.
#[derive(Debug)]
pub(super) struct CountedIo<T> {
    inner: T,
    traffic: Arc<Traffic>,
}

impl<T> CountedIo<T> {
    pub(super) fn new(inner: T) -> Self {
        let traffic = Traffic {
            made: Instant::now(),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            last: AtomicU64::new(0),
            is_timed: AtomicBool::new(false),
        };
        Self {
            inner,
            traffic: Arc::new(traffic),
        }
    }
}

impl<T: Connection> Connection for CountedIo<hyper_util::rt::TokioIo<T>> {
    fn connected(&self) -> Connected {
        self.inner
            .connected()
            .extra(ConnectionHistory::SoFar(self.traffic.clone()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for CountedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, into))?;
        self.traffic
            .count(&self.traffic.read, into.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for CountedIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.traffic.count(&self.traffic.written, written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, pieces))?;
        self.traffic.count(&self.traffic.written, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Bytes that a connection carried before a request was given to it.
///
/// The pool keeps the first form with the connection, and clones it just before it hands a request to the connection:
/// that is the only moment at which the count is surely the one before the request. Later clones leave it as it is.
#[derive(Debug)]
enum ConnectionHistory {
    SoFar(Arc<Traffic>),
    Before {
        traffic: Arc<Traffic>,
        read: u64,
        written: u64,
    },
}

impl Clone for ConnectionHistory {
    fn clone(&self) -> Self {
        match self {
            Self::SoFar(traffic) => Self::Before {
                read: traffic.read.load(Ordering::Acquire),
                written: traffic.written.load(Ordering::Acquire),
                traffic: traffic.clone(),
            },
            Self::Before {
                traffic,
                read,
                written,
            } => Self::Before {
                traffic: traffic.clone(),
                read: *read,
                written: *written,
            },
        }
    }
}

/// The connection of one request.
#[derive(Clone, Debug)]
pub(super) struct RequestConnection(CaptureConnection);

impl RequestConnection {
    pub(super) const fn new(captured: CaptureConnection) -> Self {
        Self(captured)
    }

    /// True if the request was given to a connection.
    pub(super) fn is_there(&self) -> bool {
        self.0.connection_metadata().is_some()
    }

    fn carried(&self) -> Option<ConnectionHistory> {
        let mut all = Extensions::new();
        self.0.connection_metadata().as_ref()?.get_extras(&mut all);
        all.remove::<ConnectionHistory>()
    }

    /// True if surely no byte of the request was written. It holds once the connection has broken: while it stands, a byte
    /// may still go.
    pub(super) fn wrote_nothing(&self) -> bool {
        let Some(ConnectionHistory::Before {
            traffic, written, ..
        }) = self.carried()
        else {
            return false;
        };
        traffic.written.load(Ordering::Acquire) == written
    }

    /// True if a request that broke with its connection may go once more by a new one. The connection must have answered
    /// others before and nothing of this one, and doing what is asked twice must be as good as doing it once (RFC 9110,
    /// 9.2.2); or nothing of the request may have been written.
    pub(super) fn may_go_again(&self, method: &Method) -> bool {
        let Some(ConnectionHistory::Before {
            traffic,
            read,
            written,
        }) = self.carried()
        else {
            return false;
        };
        let was_used = read > 0;
        let answered_nothing = traffic.read.load(Ordering::Acquire) == read;
        let wrote_nothing = traffic.written.load(Ordering::Acquire) == written;
        was_used && answered_nothing && (wrote_nothing || method.is_idempotent())
    }

    /// Gives the connection up before its server does, where the server says for how long it keeps connections. `longest`
    /// is how long the pool keeps them anyway.
    pub(super) fn heed(&self, answer: &HeaderMap, longest: Duration) {
        let Some(kept_for) = kept_for(answer) else {
            return;
        };
        let usable = kept_for.saturating_sub(MARGIN.min(kept_for / 2));
        let Some(ConnectionHistory::Before { traffic, .. }) = self.carried() else {
            return;
        };
        if usable >= longest || traffic.is_timed.swap(true, Ordering::AcqRel) {
            return;
        }
        let line = self.clone();
        if usable.is_zero() {
            return line.give_up();
        }
        tokio::spawn(async move {
            loop {
                let left = usable.saturating_sub(traffic.silent_for());
                if left.is_zero() {
                    return line.give_up();
                }
                tokio::time::sleep(left).await;
            }
        });
    }

    /// The connection carries no further request.
    fn give_up(&self) {
        if let Some(connected) = self.0.connection_metadata().as_ref() {
            connected.poison();
        }
    }
}

/// For how long a server keeps a connection that is idle, as it says itself (`Keep-Alive: timeout=5, max=100`).
fn kept_for(answer: &HeaderMap) -> Option<Duration> {
    let lines = answer
        .get_all(KEEP_ALIVE)
        .into_iter()
        .filter_map(|line| line.to_str().ok());
    let seconds = lines.flat_map(|line| line.split(',')).filter_map(|part| {
        let (name, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim()
            .eq_ignore_ascii_case("timeout")
            .then(|| value.parse::<u32>().ok())?
    });
    seconds
        .min()
        .map(|seconds| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_how_long_it_keeps_a_connection() {
        let said = |line: &str| {
            let headers =
                HeaderMap::from_iter([(KEEP_ALIVE, http::HeaderValue::try_from(line).unwrap())]);
            kept_for(&headers).map(|time| time.as_secs())
        };
        for (line, seconds) in [
            ("timeout=5", Some(5)),
            ("Timeout = 5, max=100", Some(5)),
            ("max=100, timeout=\"0\"", Some(0)),
            ("timeout=9, timeout=3", Some(3)),
            ("max=100", None),
            ("timeout", None),
            ("timeout=-1", None),
            ("timeout=soon", None),
            ("", None),
        ] {
            assert_eq!(said(line), seconds, "{line}");
        }
    }
}
