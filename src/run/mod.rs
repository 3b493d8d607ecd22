//! Runs that begin at once, for a caller that waits: what a run takes before it begins, and how it is made.
//!
//! Promises: a run is counted in its budgets before it begins, its proof is used up, and its files are kept. All of this
//! is given back when the run certainly did not begin, also when its caller leaves before the call is sent. Once the call
//! is sent, only its result says if the run began.

mod links;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Response;
use hyper::body::Incoming;

use crate::attachment::Files;
use crate::inbox::{BudgetError, Budgets, CountedRun, Inbox, InboxError};
use crate::model::{
    Account, Attachment, AttemptResult, Class, Clock, Params, ProofMark, Refusal, Route, Timestamp,
    UsedProof,
};
use crate::net::SendError;
use crate::telemetry::Metrics;
use crate::upstream::{Call, Draw, Upstream, is_stream};

pub use links::store_refusal;

/// Time that a call may wait for its turn within the upstream's budget.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shared parts of all runs that begin at once.
#[derive(Debug)]
pub struct RunContext {
    /// The upstream that makes them.
    pub upstream: Upstream,
    /// Budgets of runs a day.
    pub budgets: Budgets,
    /// The store of budgets, used proofs and files.
    pub inbox: Arc<dyn Inbox>,
    /// The store of files; absent where none is usable.
    pub files: Option<Arc<Files>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// True while an operator has paused all runs.
    pub paused: Arc<AtomicBool>,
    /// The source of the current time.
    pub clock: Clock,
}

/// A run that is to begin.
#[derive(Debug)]
pub struct RunOrder<'o> {
    /// The route by which it is counted and takes its share of the upstream's budget.
    pub route: &'o Route,
    /// The parameters, which name its user.
    pub params: &'o Params,
    /// The proof of its request, which is good for one run.
    pub proof: Option<&'o UsedProof>,
    /// The files that go with it.
    pub files: Vec<Attachment>,
    /// False for a run that is counted when the upstream has taken it; then its budgets only have to have room.
    pub is_counted: bool,
}

/// A run that may begin. Dropped before it is sent, it gives back what it has taken.
#[derive(Debug)]
pub struct PreparedRun {
    upstream: Upstream,
    links: Vec<String>,
    taken: Taken,
}

/// Count, proof and files of a run. Given back on drop until the call is sent.
#[derive(Debug)]
pub struct Taken {
    runs: Arc<RunContext>,
    is_sent: bool,
    counted: Option<CountedRun>,
    marks: Vec<ProofMark>,
    files: Vec<Attachment>,
}

/// Result of a call for a stream of events.
#[derive(Debug)]
pub enum Ran {
    /// The run has begun, and its events follow.
    Streaming(Response<Incoming>),
    /// The upstream answered, but not with a stream.
    Ended(AttemptResult),
    /// The upstream did not answer.
    Broken(SendError),
}

impl RunContext {
    /// Refuses a run while an operator has paused all of them. A kept event waits instead.
    pub fn may_begin(&self) -> Result<(), Refusal> {
        if self.paused.load(Ordering::Relaxed) {
            Err(Refusal::Stopped)
        } else {
            Ok(())
        }
    }

    /// The upstream with an account's share of its budget. A run whose turn comes too late is refused.
    pub fn upstream_for(&self, account: &Account, class: Class) -> Result<Upstream, Refusal> {
        let upstream = self.upstream.of(Draw {
            account: account.clone(),
            class,
            claimed: false,
        });
        match upstream.is_busy(PATIENCE) {
            Some(wait) => Err(Refusal::UpstreamBusy(wait)),
            None => Ok(upstream),
        }
    }

    /// Counts a run in its budgets.
    pub async fn count(&self, route: &Route, params: &Params) -> Result<CountedRun, Refusal> {
        let now = self.clock.now();
        self.budgets
            .spend(&*self.inbox, route, params, now)
            .await
            .map_err(|error| budget_refusal(error, now))
    }

    /// Refuses a run whose budgets are spent, without counting it.
    async fn has_room(&self, route: &Route, params: &Params) -> Result<(), Refusal> {
        let now = self.clock.now();
        self.budgets
            .has_room(&*self.inbox, route, params, now)
            .await
            .map_err(|error| budget_refusal(error, now))
    }
}

impl PreparedRun {
    /// Takes what a run needs. Absent if its proof was used before.
    pub async fn new(
        runs: &Arc<RunContext>,
        mut order: RunOrder<'_>,
    ) -> Result<Option<Self>, Refusal> {
        let mut taken = Taken {
            runs: runs.clone(),
            is_sent: false,
            counted: None,
            marks: Vec::new(),
            files: std::mem::take(&mut order.files),
        };
        match taken.take(&order).await {
            Ok(Some((upstream, links))) => Ok(Some(Self {
                upstream,
                links,
                taken,
            })),
            Ok(None) => {
                taken.give_back().await;
                Ok(None)
            }
            Err(refusal) => {
                taken.give_back().await;
                Err(refusal)
            }
        }
    }

    /// Links to the run's files.
    pub fn links(&self) -> &[String] {
        &self.links
    }

    /// The upstream, with the run's share of its budget.
    pub const fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Marks the call as sent. From here on nothing is given back on drop.
    pub fn sent(mut self) -> Taken {
        self.taken.is_sent = true;
        self.taken
    }

    /// Sends the call and waits for its result.
    pub async fn wait(self, call: &Call) -> AttemptResult {
        let upstream = self.upstream.clone();
        let taken = self.sent();
        let result = upstream.invoke(call).await;
        taken.settle(&result).await;
        result
    }

    /// Sends the call and waits for the head of its stream.
    pub async fn stream(self, call: &Call) -> Ran {
        let upstream = self.upstream.clone();
        let taken = self.sent();
        match upstream.open(call).await {
            Ok(answer) if is_stream(&answer) => Ran::Streaming(answer),
            Ok(answer) => {
                let result = upstream.refusal(call, answer).await;
                taken.settle(&result).await;
                Ran::Ended(result)
            }
            Err(error) => {
                if matches!(error, SendError::NotSent(_)) {
                    taken.give_back().await;
                }
                Ran::Broken(error)
            }
        }
    }
}

impl Taken {
    /// Takes all that an order needs, and makes links to its files. Absent if its proof was used before.
    async fn take(
        &mut self,
        order: &RunOrder<'_>,
    ) -> Result<Option<(Upstream, Vec<String>)>, Refusal> {
        let runs = self.runs.clone();
        let RunOrder { route, params, .. } = order;
        runs.may_begin()?;
        let upstream = runs.upstream_for(&route.account, route.class)?;
        if let Some(proof) = order.proof {
            let is_new = runs.inbox.use_proof(proof.clone(), runs.clock.now()).await;
            if !is_new.map_err(inbox_refusal)? {
                return Ok(None);
            }
            self.marks.clone_from(&proof.marks);
        }
        if order.is_counted {
            self.counted = Some(runs.count(route, params).await?);
        } else {
            runs.has_room(route, params).await?;
        }
        let links = links::make(&runs, &route.source, &self.files).await?;
        Ok(Some((upstream, links)))
    }

    /// Gives everything back if the run did not begin.
    async fn settle(self, result: &AttemptResult) {
        if result.did_not_run() {
            self.give_back().await;
        }
    }

    /// Gives everything back: the call certainly reached nobody, or was refused.
    pub async fn give_back(mut self) {
        self.is_sent = true;
        let (counted, marks) = (self.counted.take(), std::mem::take(&mut self.marks));
        let files = std::mem::take(&mut self.files);
        give_back(&self.runs, counted, marks, &files).await;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.is_sent {
            return;
        }
        let (counted, marks) = (self.counted.take(), std::mem::take(&mut self.marks));
        let (files, runs) = (std::mem::take(&mut self.files), self.runs.clone());
        let has_taken = counted.is_some() || !marks.is_empty() || !files.is_empty();
        if let (true, Ok(runtime)) = (has_taken, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { give_back(&runs, counted, marks, &files).await }.boxed());
        }
    }
}

async fn give_back(
    runs: &RunContext,
    counted: Option<CountedRun>,
    marks: Vec<ProofMark>,
    files: &[Attachment],
) {
    links::take_back(runs, files).await;
    if let Some(counted) = counted {
        counted.give_back(&*runs.inbox).await;
    }
    if !marks.is_empty()
        && let Err(error) = runs.inbox.free_proof(marks).await
    {
        tracing::warn!(%error, "a call that reached nobody counts as made; its sender's next try is told so");
    }
}

/// The refusal of a run that its budgets do not allow.
fn budget_refusal(error: BudgetError, now: Timestamp) -> Refusal {
    match error {
        BudgetError::Spent(budget) => Refusal::Spent(budget, now.tomorrow().since(now)),
        BudgetError::Inbox(error) => inbox_refusal(error),
    }
}

/// Refusal of a request that the inbox could not write.
pub fn inbox_refusal(error: InboxError) -> Refusal {
    match error {
        InboxError::Full(wait) => Refusal::Overloaded(wait),
        InboxError::NoSpace => Refusal::NoSpace,
        InboxError::Record(_) => Refusal::Unmappable(error.to_string()),
        error => Refusal::Inbox(error.to_string()),
    }
}
