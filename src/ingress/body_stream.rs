//! Body that is read piece by piece, under the same bounds as a body that is held whole.
//!
//! A running check sees every byte, also those that are dropped. Pieces are neither large nor small.

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

/// Smaller pieces are joined, except the last.
const SMALL: usize = 4 * 1024;

/// Memory that a streamed body takes: pieces on their way, and pieces that a store has not written yet.
pub(super) const FLOWING: u64 = 512 * 1024;

/// Bytes that a caller may still send after its upload was refused: more than others, since more of it is under way.
const DRAIN_BYTES: u64 = 2 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// A body, piece by piece.
pub(super) struct BodyStream<'m> {
    body: Body,
    limits: BodyLimits,
    begun: Instant,
    length: u64,
    rest: Bytes,
    seen: Option<Streamed>,
    memory: &'m MemoryPermit,
}

impl<'m> BodyStream<'m> {
    /// A body under its limits.
    pub(super) fn new(body: Body, limits: BodyLimits, memory: &'m MemoryPermit) -> Self {
        Self {
            body,
            limits,
            begun: Instant::now(),
            length: 0,
            rest: Bytes::new(),
            seen: None,
            memory,
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
        self.limits.size = self.limits.size.min(size);
    }

    /// Number of bytes that have come.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// The memory that is taken for it.
    pub(super) const fn memory(&self) -> &'m MemoryPermit {
        self.memory
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

    /// The next bytes, joined until they are a piece of useful size. Empty at the end.
    async fn gather(&mut self) -> Result<Bytes, Refusal> {
        let mut first = Bytes::new();
        let mut more = BytesMut::new();
        while first.len() + more.len() < SMALL {
            let deadline = (Instant::now() + self.limits.stall).min(self.begun + self.limits.whole);
            let data = match tokio::time::timeout_at(deadline, self.body.frame()).await {
                Err(_) => return Err(Refusal::SlowBody),
                Ok(None) => break,
                Ok(Some(Err(error))) => return Err(body::broken(&error)),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            self.length += data.len() as u64;
            if self.length > self.limits.size {
                return Err(Refusal::TooLarge(self.limits.size));
            }
            body::is_fast_enough(self.length, self.begun, self.limits)?;
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
            usize::try_from(self.body.size_hint().lower().min(self.limits.size)).unwrap_or(0);
        body::make_room(&mut whole, expected, self.memory)?;
        while let Some(piece) = self.next().await? {
            body::make_room(&mut whole, piece.len(), self.memory)?;
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Lets a refused caller finish what it is sending, within narrow limits, so that it can read the answer. One that
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
