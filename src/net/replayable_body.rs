//! A body that comes in while it goes out, and can still be sent again from its beginning while little of it has gone.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::oneshot;

/// A body of any kind.
pub(super) type AnyBody = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// Bytes of a body that are kept in memory while its request waits for an answer.
pub(super) const MAX_KEPT: usize = 64 * 1024;

/// Longest time for a broken connection to release the body that it was sending.
const RELEASE_TIME: Duration = Duration::from_secs(1);

/// A body on loan to a request. When the request is done with it, what is still whole of it goes back.
pub(super) struct ReplayableBody {
    whole: Option<WholeBody>,
    /// Pieces that go out before the rest of the body.
    ahead: std::vec::IntoIter<Bytes>,
    ahead_bytes: u64,
    /// Bytes that may be kept.
    most: usize,
    back: Option<oneshot::Sender<WholeBody>>,
    /// The body where it is not whole any more.
    rest: Option<AnyBody>,
}

/// A body from its beginning: what has come in of it, and the rest.
struct WholeBody {
    begun: Vec<Bytes>,
    bytes: usize,
    rest: AnyBody,
}

/// Receiver of a body that its request no longer needs.
pub(super) struct ReturnedBody(oneshot::Receiver<WholeBody>);

impl ReplayableBody {
    /// Lends a body. Up to `most` bytes of it are remembered; with none it is whole only as long as nothing of it has gone.
    pub(super) fn new(body: AnyBody, most: usize) -> (Self, ReturnedBody) {
        Self::from(
            WholeBody {
                begun: Vec::new(),
                bytes: 0,
                rest: body,
            },
            most,
        )
    }

    fn from(whole: WholeBody, most: usize) -> (Self, ReturnedBody) {
        let (back, loan) = oneshot::channel();
        let (ahead, ahead_bytes) = (whole.begun.clone().into_iter(), whole.bytes as u64);
        (
            Self {
                whole: Some(whole),
                ahead,
                ahead_bytes,
                most,
                back: Some(back),
                rest: None,
            },
            ReturnedBody(loan),
        )
    }

    fn rest(&mut self) -> Option<&mut AnyBody> {
        self.whole
            .as_mut()
            .map(|whole| &mut whole.rest)
            .or(self.rest.as_mut())
    }

    /// It cannot be sent again from here on.
    fn forget(&mut self) {
        if let Some(whole) = self.whole.take() {
            self.rest = Some(whole.rest);
        }
    }
}

impl ReturnedBody {
    /// The body, to be sent once more; none where it is not whole.
    pub(super) async fn returned(self) -> Option<ReplayableBody> {
        let whole = tokio::time::timeout(RELEASE_TIME, self.0)
            .await
            .ok()?
            .ok()?;
        Some(ReplayableBody::from(whole, 0).0)
    }
}

impl Body for ReplayableBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Some(piece) = this.ahead.next() {
            this.ahead_bytes -= piece.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(rest) = this.rest() else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(rest).poll_frame(cx));
        match &frame {
            None => {}
            // Whoever sent it has failed, not the connection that it was sent to.
            Some(Err(_)) => this.forget(),
            Some(Ok(frame)) => match (frame.data_ref(), &mut this.whole) {
                (Some(piece), Some(whole)) if whole.bytes + piece.len() <= this.most => {
                    whole.bytes += piece.len();
                    whole.begun.push(piece.clone());
                }
                _ => this.forget(),
            },
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let rest = self
            .whole
            .as_ref()
            .map(|whole| &whole.rest)
            .or(self.rest.as_ref());
        self.ahead.len() == 0 && rest.is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self
            .whole
            .as_ref()
            .map(|whole| &whole.rest)
            .or(self.rest.as_ref());
        let of_rest = rest.map(Body::size_hint).unwrap_or_default();
        let mut hint = SizeHint::new();
        if let Some(upper) = of_rest.upper() {
            hint.set_upper(upper + self.ahead_bytes);
        }
        hint.set_lower(of_rest.lower() + self.ahead_bytes);
        hint
    }
}

impl Drop for ReplayableBody {
    fn drop(&mut self) {
        if let (Some(whole), Some(back)) = (self.whole.take(), self.back.take()) {
            let _ = back.send(whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn body(pieces: &[&'static str]) -> AnyBody {
        let pieces: Vec<Result<_, Box<dyn Error + Send + Sync>>> = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))
            .collect();
        StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync()
    }

    async fn take(lent: &mut ReplayableBody) -> Option<Bytes> {
        lent.frame()
            .await
            .map(|frame| frame.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn a_body_comes_back_whole_while_little_of_it_has_gone() {
        for gone in 0..=3 {
            let (mut lent, loan) = ReplayableBody::new(body(&["ab", "cd", "ef"]), 6);
            for _ in 0..gone {
                take(&mut lent).await;
            }
            drop(lent);
            let again = loan.returned().await.expect("it is whole");
            assert_eq!(
                again.size_hint().lower(),
                2 * gone,
                "what is remembered has a length"
            );
            assert_eq!(
                again.collect().await.unwrap().to_bytes(),
                "abcdef",
                "after {gone}"
            );
        }
    }

    #[tokio::test]
    async fn a_body_that_is_not_whole_does_not_come_back() {
        let (mut lent, loan) = ReplayableBody::new(body(&["ab", "cd"]), 3);
        take(&mut lent).await;
        take(&mut lent).await;
        drop(lent);
        assert!(
            loan.returned().await.is_none(),
            "more has gone than is remembered"
        );
        let (mut lent, loan) = ReplayableBody::new(body(&["ab"]), 0);
        take(&mut lent).await;
        drop(lent);
        assert!(loan.returned().await.is_none());
        let broken = StreamBody::new(futures_util::stream::iter([Err::<Frame<Bytes>, _>(
            "it broke".into(),
        )]));
        let (mut lent, loan) = ReplayableBody::new(broken.boxed_unsync(), 9);
        assert!(lent.frame().await.unwrap().is_err());
        drop(lent);
        assert!(loan.returned().await.is_none(), "its sender has failed");
    }
}
