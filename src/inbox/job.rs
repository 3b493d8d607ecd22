//! Work in bulk that goes on by itself: replaying what fits a filter, a step at a time.
//!
//! What is promised: a step and what it owes are one transaction, so a job that is broken off goes on where it was and
//! owes nothing twice, whichever process takes the next step.

use std::collections::HashMap;

use super::Anew;
use crate::model::{EventId, NewDelivery, Timestamp};

/// A job about to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// The filter of its events, in words.
    pub filter: String,
    /// Number of events, as planned.
    pub total: u64,
    /// Events a minute at most.
    pub pace: u32,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// [`NewJob::filter`]
    pub filter: String,
    /// Its state.
    pub state: JobState,
    /// Number of events, as planned.
    pub total: u64,
    /// Number of events that are owed again.
    pub done: u64,
    /// Number of events that were left out because they cannot be replayed.
    pub skipped: u64,
    /// Events a minute at most.
    pub pace: u32,
    /// The place in the list of events that it has come to.
    pub cursor: Option<i64>,
    /// The time when it began.
    pub started_at: Timestamp,
    /// The time when something last became of it.
    pub changed_at: Timestamp,
}

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It goes on.
    Running,
    /// It waits until it is told to go on.
    Paused,
    /// It has come to its end.
    Done,
    /// It was called off.
    Cancelled,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Done, Self::Cancelled];

    /// A stable word for storage and display.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of this word, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// True if it will not go on any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }
}

/// One step of a job.
#[derive(Clone, Debug)]
pub struct JobStep {
    /// Of which.
    pub id: i64,
    /// [`Job::cursor`] as it was when the step was planned.
    pub from: Option<i64>,
    /// And as it is after.
    pub to: Option<i64>,
    /// True if it is the last.
    pub ended: bool,
    /// Events that are owed again: the first new delivery's number, and the deliveries.
    pub owed: Vec<(EventId, u32, Vec<NewDelivery>)>,
    /// The texts made anew of those among them that could not be mapped.
    pub anew: HashMap<EventId, Anew>,
    /// Number of events that were left out.
    pub skipped: u64,
}
