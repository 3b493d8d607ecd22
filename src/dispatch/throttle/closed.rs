//! The reasons why nothing is sent to a destination.

/// The reason why nothing is sent to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// An operator has paused it.
    Paused,
    /// The upstream refuses the gateway's own key.
    KeyRefused,
    /// It asked to be left alone for a while.
    AskedToWait,
    /// It failed and is left alone for a while.
    Breaker,
    /// It failed, and a call that tries it is in flight, or as many calls that try others as there may be.
    Probing,
    /// Its cap on calls in flight is reached.
    Concurrency,
    /// The cap of its source on calls in flight is reached.
    SourceConcurrency,
    /// Its rate is used up.
    Rate,
    /// The upstream asked to be left alone altogether.
    AllAskedToWait,
    /// `dispatch.concurrency` is reached.
    AllConcurrency,
    /// The account has its share of `dispatch.concurrency`.
    Share,
    /// `dispatch.rate` is used up.
    AllRate,
    /// `upstream.budget` is used up.
    Budget,
    /// A budget of runs is spent for today.
    Spent,
}

impl Closed {
    /// A stable word for display.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "held",
            Self::KeyRefused => "key_refused",
            Self::AskedToWait => "asked_to_wait",
            Self::Breaker => "breaker",
            Self::Probing => "probing",
            Self::Concurrency => "concurrency",
            Self::SourceConcurrency => "source_concurrency",
            Self::Rate => "rate",
            Self::AllAskedToWait => "all_asked_to_wait",
            Self::AllConcurrency => "all_concurrency",
            Self::Share => "share",
            Self::AllRate => "all_rate",
            Self::Budget => "budget",
            Self::Spent => "runs_per_day",
        }
    }
}
