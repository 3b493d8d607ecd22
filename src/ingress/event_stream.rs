//! An upstream's stream of events, passed on as it comes.
//!
//! Promises: nothing is buffered and nothing is read ahead; of the upstream's headers only the type goes on; a stream
//! that breaks is broken off, never ended as if it were whole; while nothing comes a comment shows that the connection
//! lives; the upstream's connection goes when the caller's does.

use std::error::Error;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;

/// Time of silence after which a comment is sent.
const SILENCE: Duration = Duration::from_secs(15);

/// Header that asks proxies in between not to buffer the stream.
const ACCEL: HeaderName = HeaderName::from_static("x-accel-buffering");

/// True if an answer is a stream of events.
pub(super) fn is_events(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    kind.split(';')
        .next()
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// Passes a stream of events on.
pub(super) fn relay<B>(upstream: Response<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Send + Unpin + 'static,
{
    relay_with(upstream, SILENCE)
}

fn relay_with<B>(upstream: Response<B>, silence: Duration) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Send + Unpin + 'static,
{
    let (head, body) = upstream.into_parts();
    let pieces = stream::unfold(
        Some((body, StreamTail::default())),
        move |state| async move {
            let (mut body, mut tail) = state?;
            loop {
                match tokio::time::timeout(silence, body.frame()).await {
                    Ok(None) => return None,
                    Ok(Some(Err(error))) => return Some((Err(error), None)),
                    Ok(Some(Ok(frame))) => {
                        let Ok(piece) = frame.into_data() else {
                            continue;
                        };
                        tail.follow(&piece);
                        return Some((Ok(piece), Some((body, tail))));
                    }
                    Err(_) => {
                        let Some(ping) = tail.ping() else { continue };
                        return Some((Ok(Bytes::from_static(ping)), Some((body, tail))));
                    }
                }
            }
        },
    );
    let mut answer = Response::new(Body::from_stream(pieces));
    let headers = answer.headers_mut();
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, kind.clone());
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL, HeaderValue::from_static("no"));
    answer
}

/// The last bytes of an event stream: they show if a comment may follow them.
#[derive(Debug, Default)]
pub(super) struct StreamTail(Vec<u8>);

impl StreamTail {
    pub(super) fn follow(&mut self, piece: &[u8]) {
        self.0
            .extend_from_slice(&piece[piece.len().saturating_sub(4)..]);
        let cut = self.0.len().saturating_sub(4);
        self.0.drain(..cut);
    }

    /// True if the last event has ended, or none has begun.
    pub(super) fn is_between_events(&self) -> bool {
        let tail = &self.0;
        tail.is_empty()
            || tail.ends_with(b"\n\n")
            || tail.ends_with(b"\n\r\n")
            || tail.ends_with(b"\r\r")
    }

    /// A comment that changes no event: none within a line, and no blank line within an event.
    fn ping(&self) -> Option<&'static [u8]> {
        match self.0.as_slice() {
            [] => Some(b": ping\n\n"),
            tail if tail.ends_with(b"\n\n") || tail.ends_with(b"\r\n\r\n") => Some(b": ping\n\n"),
            tail if tail.ends_with(b"\n") => Some(b": ping\n"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::Frame;

    use super::*;

    /// Gives its pieces one and a half silences apart; `None` breaks it.
    struct Script(
        VecDeque<Option<&'static [u8]>>,
        Pin<Box<tokio::time::Sleep>>,
    );

    impl http_body::Body for Script {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            std::task::ready!(Future::poll(self.1.as_mut(), cx));
            self.1 = Box::pin(tokio::time::sleep(Duration::from_millis(300)));
            Poll::Ready(self.0.pop_front().map(|piece| match piece {
                Some(piece) => Ok(Frame::data(Bytes::from_static(piece))),
                None => Err(std::io::Error::other("broken")),
            }))
        }
    }

    async fn relayed(script: &[Option<&'static [u8]>]) -> (String, bool, HeaderMap) {
        let body = Script(
            script.iter().copied().collect(),
            Box::pin(tokio::time::sleep(Duration::ZERO)),
        );
        let upstream = Response::builder()
            .header("content-type", "text/event-stream; charset=utf-8")
            .header("set-cookie", "a=b")
            .header("x-internal", "db-7")
            .body(body)
            .unwrap();
        assert!(is_events(upstream.headers()));
        let answer = relay_with(upstream, Duration::from_millis(200));
        let headers = answer.headers().clone();
        let (mut body, mut text) = (answer.into_body(), String::new());
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap()),
                Err(_) => return (text, true, headers),
            }
        }
        (text, false, headers)
    }

    #[tokio::test]
    async fn t84_a_comment_fills_a_silence_and_breaks_no_event() {
        let script: &[Option<&[u8]>] = &[
            Some(b"data: {\"a\":"),
            Some(b"1}\n"),
            Some(b"data: 2\n\n"),
            Some(b"data: 3\r\n\r\n"),
            Some(b"data: 4\n\n"),
        ];
        let (text, broken, headers) = relayed(script).await;
        let wanted = "data: {\"a\":1}\n: ping\ndata: 2\n\n: ping\n\ndata: 3\r\n\r\n: ping\n\ndata: 4\n\n: ping\n\n";
        assert_eq!((text.as_str(), broken), (wanted, false));
        let names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(
            names,
            ["content-type", "cache-control", "x-accel-buffering"]
        );
    }

    #[tokio::test]
    async fn a_stream_that_breaks_is_broken_off() {
        let (text, broken, _) = relayed(&[Some(b"data: 1\n\n"), None, Some(b"data: 2\n\n")]).await;
        assert_eq!((text.as_str(), broken), ("data: 1\n\n: ping\n\n", true));
    }
}
