//! The end of a lease, before it is written.

use bytes::Bytes;
use uuid::Uuid;

use crate::inbox::bounds::{MAX_RESULT, MAX_TASK, MAX_TEXT};
use crate::inbox::{Next, Settlement};
use crate::model::Timestamp;

/// A lease about to end.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// As whoever had it says. True: it was handed in before, and may be on disk.
    Settled(Box<Settlement>, bool),
    /// As if it had not been claimed: nobody saw it. Its lane keeps its place.
    Untaken {
        /// [`Settlement::key`]
        key: i64,
        /// [`Settlement::lane`]
        lane: Uuid,
        /// [`Settlement::fence`]
        fence: i64,
        /// The doubt before the claim.
        doubt: Option<Timestamp>,
    },
}

impl Ending {
    /// The number of the delivery.
    pub(super) fn key(&self) -> i64 {
        match self {
            Self::Settled(settlement, _) => settlement.key,
            Self::Untaken { key, .. } => *key,
        }
    }

    pub(super) fn lane(&self) -> Uuid {
        match self {
            Self::Settled(settlement, _) => settlement.lane,
            Self::Untaken { lane, .. } => *lane,
        }
    }

    pub(super) fn fence(&self) -> i64 {
        match self {
            Self::Settled(settlement, _) => settlement.fence,
            Self::Untaken { fence, .. } => *fence,
        }
    }

    /// About how much is written for it.
    pub(super) fn bytes(&self) -> usize {
        let Self::Settled(settlement, _) = self else {
            return 64;
        };
        let answer = match &settlement.next {
            Next::Delivered(answer) | Next::Dead(Some(answer)) => Some(answer),
            _ => None,
        };
        let owed: usize = settlement.owes.iter().map(|owed| owed.payload.len()).sum();
        let progress = settlement.progress.as_ref().map_or(0, Bytes::len);
        256 + owed
            + progress
            + settlement.attempt.detail.len().min(MAX_TEXT)
            + answer.map_or(0, |answer| {
                let result = answer
                    .result
                    .as_ref()
                    .map_or(0, |text| text.len().min(MAX_RESULT));
                result
                    + answer
                        .task
                        .as_ref()
                        .map_or(0, |task| task.len().min(MAX_TASK))
            })
    }
}
