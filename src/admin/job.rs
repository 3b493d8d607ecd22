//! Replays in bulk: plan, start, progress, change. [`crate::dispatch::replay`] does the work.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::value::RawValue;

use super::AdminState;
use super::error::AdminError;
use super::json::JsonBody;
use super::name::{JobId, PathId};
use crate::api::job::{EdgeView, JobView, LeftOutView, PlanView, ReplayRequest, SteerRequest};
use crate::api::page::PageView;
use crate::dispatch::replay::{ReplayRefused, left_out, owed_again, takes};
use crate::inbox::{EventFilter, EventSummary, Job, JobState, NewJob};
use crate::model::{FilterWords, Timestamp};

/// Events a minute: the default and the limit.
const DEFAULT_PACE: u32 = 60;
const MAX_PACE: u32 = 6000;

/// Largest number of events that is counted.
const MOST: u64 = 1_000_000;

/// Number of the oldest events that a plan examines one by one, and the size of a page of them.
const SAMPLE: usize = 1000;
const PAGE: usize = 200;

/// Largest number of replays that have not ended.
const UNDER_WAY: usize = 10;

/// `POST /replays/plan`: shows what a replay would do. It changes nothing.
pub(super) async fn plan(
    State(state): State<Arc<AdminState>>,
    JsonBody(wanted): JsonBody<ReplayRequest>,
) -> Result<Json<PlanView>, AdminError> {
    state
        .replays
        .take(state.clock.now())
        .map_err(AdminError::Replays)?;
    let (words, filter, pace) = wanted.read(&state)?;
    state.check_source(filter.source.as_deref()).await?;
    let count = state.in_time(state.inbox.count(&filter, MOST + 1)).await?;
    let newest = state
        .in_time(state.inbox.events(&EventFilter {
            limit: 1,
            ..filter.clone()
        }))
        .await?;
    let mut sample = state.in_time(sample(&state, &filter)).await?;
    let oldest = sample.first().map(EdgeView::new);
    let looked_at = sample.len();
    let mut counts: BTreeMap<(String, ReplayRefused), u64> = BTreeMap::new();
    for event in sample.drain(..) {
        if let Some(why) = why_not(&state, &filter, &event).await? {
            *counts.entry((event.source, why)).or_default() += 1;
        }
    }
    Ok(Json(PlanView {
        filter: words,
        count: count.min(MOST),
        more: count > MOST,
        pace,
        takes_s: takes(count.min(MOST), pace).as_secs(),
        oldest,
        // A page may have fewer entries than its limit although more events follow.
        newest: newest.items.first().map(EdgeView::new),
        looked_at,
        left_out: counts
            .into_iter()
            .map(|((source, why), count)| LeftOutView {
                source,
                why: why.as_str().to_owned(),
                count,
            })
            .collect(),
    }))
}

/// Reads the oldest events that a filter fits.
async fn sample(
    state: &AdminState,
    filter: &EventFilter,
) -> Result<Vec<EventSummary>, crate::inbox::InboxError> {
    let mut filter = EventFilter {
        oldest_first: true,
        limit: PAGE,
        ..filter.clone()
    };
    let mut sample = Vec::new();
    while sample.len() < SAMPLE {
        let page = state.inbox.events(&filter).await?;
        sample.extend(page.items);
        match page.next {
            Some(next) => filter.cursor = Some(next),
            None => break,
        }
    }
    sample.truncate(SAMPLE);
    Ok(sample)
}

/// Gives the reason why a replay would leave out an event. An event is read whole only if its source is not
/// configured.
async fn why_not(
    state: &AdminState,
    filter: &EventFilter,
    event: &EventSummary,
) -> Result<Option<ReplayRefused>, AdminError> {
    if let Some(why) = left_out(filter.state, event) {
        return Ok(Some(why));
    }
    match state.source(&event.source) {
        Some(source) => Ok(source
            .config
            .destination
            .is_none()
            .then_some(ReplayRefused::NoDestination)),
        None => {
            let detail = state.inbox.event(event.id).await?;
            Ok(detail.and_then(|detail| owed_again(None, &detail).err()))
        }
    }
}

/// `POST /replays`: starts a replay.
pub(super) async fn begin(
    State(state): State<Arc<AdminState>>,
    JsonBody(wanted): JsonBody<ReplayRequest>,
) -> Result<(StatusCode, Json<JobView>), AdminError> {
    let now = state.clock.now();
    state.replays.take(now).map_err(AdminError::Replays)?;
    let (words, filter, pace) = wanted.read(&state)?;
    state.check_source(filter.source.as_deref()).await?;
    let _one_at_a_time = state.replaying.lock().await;
    let under_way = state
        .inbox
        .jobs()
        .await?
        .iter()
        .filter(|job| !job.state.is_final())
        .count();
    if under_way >= UNDER_WAY {
        let sentence =
            format!("{under_way} replays are under way. Cancel one, or wait for one to end.");
        return Err(AdminError::Conflict("replays_under_way", sentence));
    }
    let total = state.in_time(state.inbox.count(&filter, MOST)).await?;
    if total == 0 {
        return Err(AdminError::Conflict(
            "nothing_fits",
            "No event fits the filter.".to_owned(),
        ));
    }
    let filter =
        serde_json::to_string(&words).map_err(|error| AdminError::Body(error.to_string()))?;
    let job = state
        .inbox
        .begin_job(
            NewJob {
                filter,
                total,
                pace,
            },
            now,
        )
        .await?;
    tracing::info!(
        audit = "replay.begin",
        replay = job.id,
        filter = job.filter,
        total,
        pace,
        "an operator began a replay"
    );
    Ok((StatusCode::ACCEPTED, Json(JobView::new(job, now))))
}

impl ReplayRequest {
    /// Reads the request: the words as they are kept, their meaning, and the pace.
    fn read(self, state: &AdminState) -> Result<(FilterWords, EventFilter, u32), AdminError> {
        if !self.all && !self.filter.restricts() {
            let sentence = "The filter leaves nothing out. Name a source, a state or a time, or say \"all\": true.";
            return Err(AdminError::Body(sentence.into()));
        }
        let pace = self.pace.unwrap_or(DEFAULT_PACE);
        judge_pace(pace)?;
        let mut words = self.filter;
        // Later events are not part of the replay, nor are the deliveries that it makes itself.
        words
            .until
            .get_or_insert_with(|| state.clock.now().to_string());
        // Events that a filter of the source held back are replayed only if the operator says so.
        words.filtered.get_or_insert(false);
        let filter = words.filter().map_err(AdminError::Body)?;
        state.can_search(&filter)?;
        Ok((words, filter, pace))
    }
}

fn judge_pace(pace: u32) -> Result<(), AdminError> {
    if (1..=MAX_PACE).contains(&pace) {
        Ok(())
    } else {
        Err(AdminError::Body(format!(
            "pace must be a number of events a minute from 1 to {MAX_PACE}."
        )))
    }
}

/// `GET /replays`: lists the last replays, the newest first.
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<PageView<JobView>>, AdminError> {
    let now = state.clock.now();
    let jobs = state.inbox.jobs().await?;
    Ok(Json(PageView::whole(
        jobs.into_iter().map(|job| JobView::new(job, now)).collect(),
    )))
}

/// `GET /replays/{id}`: shows a replay.
pub(super) async fn show(
    State(state): State<Arc<AdminState>>,
    PathId(JobId(id)): PathId<JobId>,
) -> Result<Json<JobView>, AdminError> {
    let job = state
        .inbox
        .jobs()
        .await?
        .into_iter()
        .find(|job| job.id == id);
    Ok(Json(JobView::new(
        job.ok_or(AdminError::NotFound("replay"))?,
        state.clock.now(),
    )))
}

/// `POST /replays/{id}`: changes the state or the pace of a replay.
pub(super) async fn steer(
    State(state): State<Arc<AdminState>>,
    PathId(JobId(id)): PathId<JobId>,
    JsonBody(steering): JsonBody<SteerRequest>,
) -> Result<Json<JobView>, AdminError> {
    let to = match &steering.state {
        None => None,
        Some(word) => match JobState::parse(word).filter(|state| *state != JobState::Done) {
            Some(to) => Some(to),
            None => {
                return Err(AdminError::Body(
                    "state must be running, paused or cancelled.".into(),
                ));
            }
        },
    };
    if to.is_none() && steering.pace.is_none() {
        return Err(AdminError::Body("give a state, a pace or both.".into()));
    }
    steering.pace.map_or(Ok(()), judge_pace)?;
    let now = state.clock.now();
    let job = state
        .inbox
        .steer_job(id, to, steering.pace, now)
        .await?
        .ok_or(AdminError::NotFound("replay"))?;
    let stands =
        to.is_none_or(|to| to == job.state) && steering.pace.is_none_or(|pace| pace == job.pace);
    if !stands || (job.state.is_final() && to != Some(job.state)) {
        let sentence = format!("The replay is {}; it stays as it is.", job.state.as_str());
        return Err(AdminError::Conflict("replay_ended", sentence));
    }
    tracing::info!(
        audit = "replay.steer",
        replay = id,
        state = steering.state,
        pace = steering.pace,
        "an operator changed a replay"
    );
    Ok(Json(JobView::new(job, now)))
}

impl EdgeView {
    const fn new(event: &EventSummary) -> Self {
        Self {
            id: event.id,
            received_at: event.received_at,
        }
    }
}

impl JobView {
    fn new(job: Job, now: Timestamp) -> Self {
        let left = job
            .total
            .saturating_sub(job.done.saturating_add(job.skipped));
        let eta = (job.state == JobState::Running).then(|| now + takes(left, job.pace));
        // This program wrote the filter that is kept; should it not be JSON, the answer has null.
        let filter =
            RawValue::from_string(job.filter).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self {
            id: job.id,
            state: job.state.as_str().to_owned(),
            filter,
            pace: job.pace,
            total: job.total,
            done: job.done,
            skipped: job.skipped,
            started_at: job.started_at,
            changed_at: job.changed_at,
            eta,
        }
    }
}
