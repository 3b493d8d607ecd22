//! One try of a delivery, and what came of it.

use std::time::Duration;

use bytes::Bytes;

use super::Timestamp;

/// A run, as the upstream describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its status.
    pub status: RunStatus,
    /// The upstream's word for that, kept for statuses we do not know.
    pub status_text: String,
    /// The agent's answer, always text.
    pub result: Option<String>,
    /// Time of its end, as the upstream wrote it.
    pub finished_at: Option<String>,
    /// Time of its begin or of its creation, as the upstream wrote it.
    pub started_at: Option<String>,
    /// The text that it was given, where the answer has it.
    pub input_text: Option<String>,
    /// The whole task object as the upstream wrote it, within the inbox's bound.
    pub task: Option<Bytes>,
}

/// Status of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// Queued or running.
    Running,
    /// Waits for a person or a sign-in; may stay so for days.
    Paused,
    /// Done; the result is the answer.
    Completed,
    /// Ended in failure. An outcome, not a transport error.
    Failed,
    /// Cancelled.
    Stopped,
}

impl RunStatus {
    /// Reads the upstream's word. Words that are not known count as running.
    pub fn parse(text: &str) -> Self {
        match text {
            "completed" => Self::Completed,
            "failed" | "error" => Self::Failed,
            "stopped" | "cancelled" | "canceled" => Self::Stopped,
            "paused" => Self::Paused,
            _ => Self::Running,
        }
    }

    /// True if the run has ended.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Stopped)
    }
}

/// Result of one call of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// The upstream ran it, or is running it.
    Ran(Run),
    /// Nothing of the request was written: it surely did not run.
    NotSent(String),
    /// The upstream refused it before running anything.
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its explanation, cut, without secrets.
        detail: String,
        /// Time after which it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It was sent and then something broke: it may have run.
    Ambiguous(String),
}

impl AttemptResult {
    /// True if it surely did not run.
    pub const fn did_not_run(&self) -> bool {
        matches!(self, Self::NotSent(_) | Self::Refused { .. })
    }
}

/// The answer to the question what became of a delivery that may have been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The run as it stands.
    Found(Run),
    /// No run of this id has begun.
    NotFound,
    /// There is no way to ask; a sentence for the operator.
    Unsupported(String),
    /// There is no answer to rely on.
    Failed {
        /// The HTTP status, where there was an answer.
        status: Option<u16>,
        /// A sentence for the operator.
        detail: String,
        /// The wait that was asked for.
        retry_after: Option<Duration>,
    },
}

/// One finished attempt, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The number of the try, from 1.
    pub number: u32,
    /// Time of its claim.
    pub started_at: Timestamp,
    /// Time of its end.
    pub ended_at: Timestamp,
    /// One stable word for what came of it: `completed`, `failed`, `not_sent`, `refused`, `ambiguous`, `released`, …
    pub result: String,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// A sentence for the operator.
    pub detail: String,
}
