//! A connection's bytes, plain or not, behind what was read of them already.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The bytes of a connection.
pub(super) enum ConnectionStream {
    Plain(TcpStream),
    /// The first bytes were read to see what they begin.
    Begun {
        first: Vec<u8>,
        given: usize,
        rest: TcpStream,
    },
    Tls(Box<TlsStream<TcpStream>>),
}

impl ConnectionStream {
    fn write(&mut self) -> Pin<&mut (dyn AsyncWrite + Send + Unpin)> {
        match self {
            Self::Plain(inner) | Self::Begun { rest: inner, .. } => Pin::new(inner),
            Self::Tls(inner) => Pin::new(&mut **inner),
        }
    }
}

impl AsyncRead for ConnectionStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        match &mut *self {
            Self::Plain(inner) => Pin::new(inner).poll_read(cx, buffer),
            Self::Tls(inner) => Pin::new(&mut **inner).poll_read(cx, buffer),
            Self::Begun { first, given, rest } => {
                if *given == first.len() {
                    return Pin::new(rest).poll_read(cx, buffer);
                }
                let end = first.len().min(*given + buffer.remaining());
                buffer.put_slice(&first[*given..end]);
                *given = end;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for ConnectionStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.write().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.write().poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(inner) | Self::Begun { rest: inner, .. } => inner.is_write_vectored(),
            Self::Tls(inner) => inner.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.write().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.write().poll_shutdown(cx)
    }
}
