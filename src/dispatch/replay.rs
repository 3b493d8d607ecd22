//! Replays in bulk: owing many events again. Whichever process finds a job's next step due takes it.
//!
//! Promises: a job goes on after any end of any process; its events are owed again oldest first, each once,
//! and no faster than its pace however many processes there are; existing deliveries stay as they are. An
//! event that is still on its way, or that somebody has replayed since, is left out: nothing runs twice by accident.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::route;
use crate::config::{Config, SourceConfig, SourceMap};
use crate::inbox::{
    Anew, EventDetail, EventFilter, EventSummary, Inbox, InboxError, Job, JobState, JobStep,
    SealedCall,
};
use crate::model::FilterWords;
use crate::model::{Class, Clock, DeliveryId, DeliveryState, NewDelivery, Timestamp, UpstreamIds};
use tokio_util::sync::CancellationToken;

/// The time between two looks for jobs, and the rest after a failure.
const LOOK: Duration = Duration::from_secs(2);
const REST: Duration = Duration::from_secs(5);

/// The largest number of events that are looked at for one step.
const LOOKED_AT: u64 = 1000;

/// The largest number of events that are listed at once.
const PAGE: usize = 200;

/// Takes the steps of jobs.
#[derive(Debug)]
pub struct Replayer {
    inbox: Arc<dyn Inbox>,
    sources: SourceMap,
    remap: Arc<dyn Remap>,
    ids: Arc<UpstreamIds>,
    clock: Clock,
}

/// The reason why an event is not owed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReplayRefused {
    /// Its source is not configured any more.
    SourceGone,
    /// Its source sends nowhere.
    NoDestination,
    /// It was a caller's own call, which was erased when its delivery ended.
    CallErased,
    /// Its last delivery has not ended.
    OnItsWay,
    /// It was replayed since it came to the state that is looked for.
    ReplayedSince,
    /// It could not be mapped when it came, and cannot be mapped now.
    StillUnmappable,
}

/// Maps events again that could not be mapped when they came.
pub trait Remap: Send + Sync + std::fmt::Debug {
    /// The params of an event as its source is configured now; an error is a sentence.
    fn anew(&self, event: &EventDetail) -> Result<Anew, String>;
}

impl ReplayRefused {
    /// A stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SourceGone => "source_gone",
            Self::NoDestination => "no_destination",
            Self::CallErased => "call_erased",
            Self::OnItsWay => "on_its_way",
            Self::ReplayedSince => "replayed_since",
            Self::StillUnmappable => "still_unmappable",
        }
    }
}

/// Maps an event again, if it could not be mapped when it came, and returns what is to be kept of that. `None`: it was
/// mapped.
pub fn mapped_anew(remap: &dyn Remap, event: &mut EventDetail) -> Result<Option<Anew>, String> {
    if !event.is_unmapped() {
        return Ok(None);
    }
    let anew = remap.anew(event)?;
    let summary = &mut event.summary;
    (summary.event_type, summary.thread) = (anew.event_type.clone(), anew.thread.clone());
    summary.filtered = anew.filtered.clone();
    event.params = anew.params.clone();
    Ok(Some(anew))
}

/// The delivery that an event owes when it is replayed, with its number. It is sent where the source sends events now; a
/// caller's own call is sent as it was made.
pub fn owed_again(
    source: Option<(&SourceConfig, &UpstreamIds)>,
    event: &EventDetail,
) -> Result<(u32, NewDelivery), ReplayRefused> {
    let number = event
        .deliveries
        .iter()
        .map(|delivery| delivery.id.number.saturating_add(1))
        .max()
        .unwrap_or(0);
    match event.deliveries.last() {
        Some(last) if last.sealed == SealedCall::Erased => Err(ReplayRefused::CallErased),
        Some(last) if last.sealed == SealedCall::Kept => {
            let owed = NewDelivery {
                destination: last.destination.clone(),
                lane: last.destination.lane(&last.account, &last.upstream_id),
                upstream_id: last.upstream_id.clone(),
                account: last.account.clone(),
                class: last.class,
                // The inbox takes it over from the last delivery.
                sealed: None,
            };
            Ok((number, owed))
        }
        _ => {
            let (source, ids) = source.ok_or(ReplayRefused::SourceGone)?;
            let id = DeliveryId {
                event: event.summary.id,
                number,
            };
            let owed = route::owed_delivery(source, id, event.summary.thread.as_deref(), ids)
                .ok_or(ReplayRefused::NoDestination)?;
            Ok((number, owed))
        }
    }
}

/// The reason why an event of a job's list is left out whatever it owes: the states of its deliveries decide.
pub fn left_out(wanted: Option<DeliveryState>, event: &EventSummary) -> Option<ReplayRefused> {
    let last = event.states.last()?;
    if !last.is_final() {
        return Some(ReplayRefused::OnItsWay);
    }
    wanted
        .is_some_and(|wanted| wanted != *last)
        .then_some(ReplayRefused::ReplayedSince)
}

/// The time that a number of events takes at a pace.
pub fn takes(events: u64, pace: u32) -> Duration {
    Duration::from_millis(events.saturating_mul(60_000) / u64::from(pace.max(1)))
}

impl Replayer {
    /// The replayer of a configuration.
    pub fn new(
        config: &Config,
        inbox: Arc<dyn Inbox>,
        remap: Arc<dyn Remap>,
        ids: Arc<UpstreamIds>,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            inbox,
            sources: config.sources.clone(),
            remap,
            ids,
            clock,
        })
    }

    /// Works until `stop` is true. Every step is taken by the replayer of the moment, so that a new configuration
    /// holds from the next one on.
    pub async fn run(current: Arc<ArcSwap<Self>>, stop: CancellationToken) {
        loop {
            let replayer = current.load_full();
            let wait = tokio::select! {
                wait = replayer.work() => wait,
                () = stop.cancelled() => return,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Takes every step that is due, and says how long to wait for the next.
    pub async fn work(&self) -> Duration {
        // A process that has lost its place among the replicas leaves the work to them.
        if !self.inbox.replica_status().good {
            return LOOK;
        }
        let jobs = match self.inbox.jobs().await {
            Ok(jobs) => jobs,
            Err(InboxError::Closed) => return REST,
            Err(error) => {
                tracing::error!(%error, "cannot look for replays");
                return REST;
            }
        };
        let mut wait = LOOK;
        for job in jobs
            .iter()
            .filter(|job| job.state == JobState::Running)
            .rev()
        {
            let now = self.clock.now();
            let due = due(job);
            if due > now {
                wait = wait.min(due.since(now));
                continue;
            }
            match self.step(job).await {
                Ok(Some(job)) if job.state == JobState::Running => {
                    wait = wait.min(self::due(&job).since(self.clock.now()));
                }
                Ok(Some(job)) => {
                    tracing::info!(
                        replay = job.id,
                        done = job.done,
                        skipped = job.skipped,
                        "a replay has come to its end"
                    );
                }
                // Another process was first, or an operator.
                Ok(None) => wait = wait.min(Duration::from_millis(100)),
                Err(InboxError::Closed) => return REST,
                Err(error) => {
                    tracing::error!(replay = job.id, %error, "cannot take a replay on, trying again");
                    wait = REST;
                }
            }
        }
        wait
    }

    /// Takes one step of a job.
    async fn step(&self, job: &Job) -> Result<Option<Job>, InboxError> {
        let filter = serde_json::from_str(&job.filter)
            .map_err(|error| error.to_string())
            .and_then(|words: FilterWords| words.filter());
        match filter {
            Ok(filter) => {
                let step = self.plan(job, filter).await?;
                self.inbox.step_job(step, self.clock.now()).await
            }
            Err(error) => {
                tracing::error!(replay = job.id, %error, "a replay's filter cannot be read, the replay is paused");
                self.inbox
                    .steer_job(job.id, Some(JobState::Paused), None, self.clock.now())
                    .await?;
                Ok(None)
            }
        }
    }

    /// The next events, as many as go at once.
    async fn plan(&self, job: &Job, mut filter: EventFilter) -> Result<JobStep, InboxError> {
        let most = at_once(job.pace);
        let mut step = JobStep {
            id: job.id,
            from: job.cursor,
            to: job.cursor,
            ended: false,
            owed: Vec::new(),
            anew: HashMap::new(),
            skipped: 0,
        };
        filter.oldest_first = true;
        while step.owed.len() < most && step.owed.len() as u64 + step.skipped < LOOKED_AT {
            filter.cursor = step.to;
            // No more than still go along, as a page is taken whole.
            filter.limit = (most - step.owed.len()).min(PAGE);
            let page = self.inbox.events(&filter).await?;
            for event in page.items {
                match self.judge(filter.state, &event).await? {
                    Some((number, owed, anew)) => {
                        step.owed.push((event.id, number, owed));
                        step.anew.extend(anew.map(|anew| (event.id, anew)));
                    }
                    None => step.skipped += 1,
                }
            }
            match page.next {
                Some(next) => step.to = Some(next),
                None => {
                    step.ended = true;
                    break;
                }
            }
        }
        Ok(step)
    }

    /// The delivery that an event of the list owes; `None`: it is left out.
    async fn judge(
        &self,
        wanted: Option<DeliveryState>,
        event: &EventSummary,
    ) -> Result<Option<(u32, Vec<NewDelivery>, Option<Anew>)>, InboxError> {
        if let Some(why) = left_out(wanted, event) {
            tracing::debug!(event = %event.id, why = why.as_str(), "not replayed");
            return Ok(None);
        }
        // Old events may be swept while the job goes on.
        let Some(mut detail) = self.inbox.event(event.id).await? else {
            return Ok(None);
        };
        // It may have been replayed since it was listed.
        let again = match left_out(wanted, &detail.summary) {
            Some(why) => Err(why),
            None => self.again(&mut detail),
        };
        match again {
            Ok(again) => Ok(Some(again)),
            Err(why) => {
                tracing::debug!(event = %event.id, why = why.as_str(), "not replayed");
                Ok(None)
            }
        }
    }

    /// The delivery that one event owes again, and its new mapping if it has one.
    fn again(
        &self,
        event: &mut EventDetail,
    ) -> Result<(u32, Vec<NewDelivery>, Option<Anew>), ReplayRefused> {
        let source = self
            .sources
            .get(&event.summary.source)
            .ok_or(ReplayRefused::SourceGone);
        if event.is_unmapped() {
            source?;
        }
        let anew = mapped_anew(&*self.remap, event).map_err(|why| {
            tracing::debug!(event = %event.summary.id, why, "it still cannot be mapped");
            ReplayRefused::StillUnmappable
        })?;
        let (number, owed) = owed_again(source.ok().map(|source| (source, &*self.ids)), event)?;
        let is_filtered = anew.as_ref().is_some_and(|anew| anew.filtered.is_some());
        let owed = if is_filtered {
            Vec::new()
        } else {
            vec![NewDelivery {
                class: Class::Bulk,
                ..owed
            }]
        };
        Ok((number, owed, anew))
    }
}

/// The largest number of events that a step owes: about one second's worth.
fn at_once(pace: u32) -> usize {
    pace.div_ceil(60).max(1) as usize
}

/// The time of a job's next step. It is counted from the last change of the job, which every process sees, so that several
/// together keep its pace.
fn due(job: &Job) -> Timestamp {
    if job.done == 0 && job.skipped == 0 {
        return job.changed_at;
    }
    job.changed_at + takes(at_once(job.pace) as u64, job.pace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(pace: u32, done: u64) -> Job {
        Job {
            id: 1,
            filter: "{}".into(),
            state: JobState::Running,
            total: 10,
            done,
            skipped: 0,
            pace,
            cursor: None,
            started_at: Timestamp::from_seconds(100),
            changed_at: Timestamp::from_seconds(100),
        }
    }

    #[test]
    fn steps_keep_to_the_pace() {
        assert_eq!(due(&job(60, 0)), Timestamp::from_seconds(100));
        assert_eq!(due(&job(60, 1)), Timestamp::from_seconds(101));
        assert_eq!(due(&job(1, 1)), Timestamp::from_seconds(160));
        assert_eq!(
            (at_once(1), at_once(60), at_once(61), at_once(6000)),
            (1, 1, 2, 100)
        );
        for pace in [1, 59, 60, 61, 599, 6000] {
            let a_minute = 60_000.0 / takes(at_once(pace) as u64, pace).as_millis() as f64
                * at_once(pace) as f64;
            assert!(
                (a_minute - f64::from(pace)).abs() < 1.0 + f64::from(pace) / 100.0,
                "{pace}: {a_minute}"
            );
        }
        assert_eq!(takes(120, 60), Duration::from_secs(120));
    }

    #[test]
    fn what_is_on_its_way_or_was_replayed_since_is_left_out() {
        let event = |states: &[DeliveryState]| EventSummary {
            id: crate::model::EventId::new(),
            source: "a".into(),
            event_type: None,
            dedup: None,
            thread: None,
            received_at: Timestamp::default(),
            filtered: None,
            states: states.to_vec(),
        };
        let dead = Some(DeliveryState::Dead);
        assert_eq!(left_out(dead, &event(&[DeliveryState::Dead])), None);
        assert_eq!(left_out(None, &event(&[DeliveryState::Delivered])), None);
        assert_eq!(left_out(None, &event(&[])), None);
        assert_eq!(
            left_out(
                dead,
                &event(&[DeliveryState::Dead, DeliveryState::Delivered])
            ),
            Some(ReplayRefused::ReplayedSince)
        );
        assert_eq!(
            left_out(None, &event(&[DeliveryState::Dead, DeliveryState::Pending])),
            Some(ReplayRefused::OnItsWay)
        );
        assert_eq!(
            left_out(
                Some(DeliveryState::Pending),
                &event(&[DeliveryState::Pending])
            ),
            Some(ReplayRefused::OnItsWay)
        );
    }
}
