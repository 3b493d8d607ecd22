//! A connection whose other end must go on reading: what cannot be written for too long breaks it, so that whoever
//! never reads holds nothing of ours, nor the upstream's, forever.

use std::future::Future as _;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::{Sleep, sleep};

/// The connection. Silence of our own is no stall: only a write that waits is.
pub(super) struct WriteTimeout<T> {
    inner: T,
    stall: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> WriteTimeout<T> {
    pub(super) const fn new(inner: T, stall: Duration) -> Self {
        Self {
            inner,
            stall,
            waiting: None,
        }
    }

    /// The outcome of a write, or an error when it has waited too long.
    fn judge<R>(&mut self, written: Poll<Result<R>>, cx: &mut Context<'_>) -> Poll<Result<R>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let stall = self.stall;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(stall)));
        waiting.as_mut().poll(cx).map(|()| {
            Err(Error::new(
                ErrorKind::TimedOut,
                "the other end does not read",
            ))
        })
    }
}

impl<T: Read + Unpin> Read for WriteTimeout<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: Write + Unpin> Write for WriteTimeout<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.judge(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.judge(written, cx)
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
    use std::future::poll_fn;

    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn write(to: &mut WriteTimeout<TokioIo<tokio::io::DuplexStream>>) -> Result<usize> {
        poll_fn(|cx| Pin::new(&mut *to).poll_write(cx, &[0; 64])).await
    }

    #[tokio::test]
    async fn an_end_that_does_not_read_breaks_and_a_slow_one_does_not() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut ours = WriteTimeout::new(TokioIo::new(ours), Duration::from_millis(200));
        assert_eq!(write(&mut ours).await.unwrap(), 64);
        for _ in 0..3 {
            let read = async {
                sleep(Duration::from_millis(120)).await;
                theirs.read_exact(&mut [0; 64]).await.unwrap();
            };
            let (written, _) = tokio::join!(write(&mut ours), read);
            assert_eq!(written.unwrap(), 64);
        }
        assert_eq!(
            write(&mut ours).await.unwrap_err().kind(),
            ErrorKind::TimedOut
        );
    }
}
