//! A body that is read piece by piece, under the bounds of one that is held, for whoever need not hold it.
//!
//! Every byte passes whoever checks it, also those that nobody else wants. Pieces are neither large nor small.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::EXPECT;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::memory_limit::MemoryPermit;
use super::{BodyLimits, body};
use crate::model::Refusal;
use crate::source::Streamed;

/// The largest piece.
pub(super) const PIECE: usize = 32 * 1024;

/// Smaller ones are gathered, but for the last.
const SMALL: usize = 4 * 1024;

/// What a body that is not held costs all the same: pieces on their way, and those that a store has not written yet.
pub(super) const FLOWING: u64 = 512 * 1024;

/// What whoever uploads may still send after it was refused: more than others, since more of it is under way.
const DRAIN_BYTES: u64 = 2 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// A body, piece by piece.
pub(super) struct BodyStream {
    body: Body,
    bounds: BodyLimits,
    begun: Instant,
    length: u64,
    rest: Bytes,
    seen: Option<Streamed>,
    hold: Arc<MemoryPermit>,
}

impl BodyStream {
    /// A body under its bounds.
    pub(super) fn new(body: Body, bounds: BodyLimits, hold: Arc<MemoryPermit>) -> Self {
        Self {
            body,
            bounds,
            begun: Instant::now(),
            length: 0,
            rest: Bytes::new(),
            seen: None,
            hold,
        }
    }

    /// Has a check see every byte from now on.
    pub(super) fn check(&mut self, streamed: Streamed) {
        self.seen = Some(streamed);
    }

    /// The check, when the body is at its end.
    pub(super) fn checked(&mut self) -> Option<Streamed> {
        self.seen.take()
    }

    /// Allows no more than this much in all.
    pub(super) fn shrink(&mut self, size: u64) {
        self.bounds.size = self.bounds.size.min(size);
    }

    /// How much has come.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// What is held of it.
    pub(super) fn held(&self) -> Arc<MemoryPermit> {
        self.hold.clone()
    }

    /// The next piece; none at the end of the body.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        if self.rest.is_empty() {
            self.rest = self.gather().await?;
            if self.rest.is_empty() {
                return Ok(None);
            }
        }
        let piece = self.rest.split_to(PIECE.min(self.rest.len()));
        if let Some(streamed) = &mut self.seen {
            streamed.take(&piece);
        }
        Ok(Some(piece))
    }

    /// The next bytes, gathered until they are worth a look: nobody is waiting for the first ones. Empty at the end.
    async fn gather(&mut self) -> Result<Bytes, Refusal> {
        let mut first = Bytes::new();
        let mut more = BytesMut::new();
        while first.len() + more.len() < SMALL {
            let deadline = (Instant::now() + self.bounds.stall).min(self.begun + self.bounds.whole);
            let data = match tokio::time::timeout_at(deadline, self.body.frame()).await {
                Err(_) => return Err(Refusal::SlowBody),
                Ok(None) => break,
                Ok(Some(Err(error))) => return Err(body::broken(&error)),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            self.length += data.len() as u64;
            if self.length > self.bounds.size {
                return Err(Refusal::TooLarge(self.bounds.size));
            }
            body::is_fast_enough(self.length, self.begun, self.bounds)?;
            match first.is_empty() {
                true => first = data,
                false => more.extend_from_slice(&data),
            }
        }
        match more.is_empty() {
            true => Ok(first),
            false => Ok([&first[..], &more[..]].concat().into()),
        }
    }

    /// Holds the whole body.
    pub(super) async fn whole(&mut self) -> Result<Bytes, Refusal> {
        let mut whole = BytesMut::new();
        let expected =
            usize::try_from(self.body.size_hint().lower().min(self.bounds.size)).unwrap_or(0);
        body::make_room(&mut whole, expected, &self.hold)?;
        while let Some(piece) = self.next().await? {
            body::make_room(&mut whole, piece.len(), &self.hold)?;
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Lets a refused caller finish what it is sending, within narrow bounds, so that it can read the answer. One that
    /// waits to be told to go on is not told.
    pub(super) async fn drain(mut self, headers: &HeaderMap) {
        if headers.contains_key(EXPECT) {
            return;
        }
        let read = async {
            let mut length = 0_u64;
            while let Some(Ok(frame)) = self.body.frame().await {
                length += frame.data_ref().map_or(0, |data| data.len() as u64);
                if length > DRAIN_BYTES {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIME, read).await;
    }
}
