//! The operator's routes over an inbox in memory.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

mod status;

use super::*;
use crate::config::Problems;
use crate::dispatch::replay::Replayer;
use crate::inbox::{
    Accept, Browse, CountRuns, Deliver, Jobs, KeepFiles, Operate, Replicas, Upkeep,
};
use crate::inbox::{
    Anew, Answer, ClaimBatch, Claimed, Count, DeliveryDetail, EventDetail, EventFilter,
    EventSummary, InboxError, Job, JobState, JobStep, Keep, KeptAttachment, NewJob, Page, Pause,
    Replayed, ReplicaStatus, Resolution, SealedCall, Settled, Settlement, Spend, Terms, Turn,
    Usage,
};
use crate::inbox::{SourceFare, WaitingDelivery};
use crate::model::{
    Accepted, Account, Attachment, AttachmentId, Attempt, Class, DeliveryId, DeliveryState,
    EventId, Name, NewDelivery, NewEvent, Origin, Param, Params, ProofMark, Timestamp, UpstreamIds,
    UsedProof,
};
use crate::net::Client;
use crate::telemetry::{RefusedSample, WholeRequest};
use crate::upstream::Budget;

const TOKEN: &str = "the-admin-token";
const SECRET: &str = "a-secret-of-the-source";
const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// Events in a list; a cursor is the place where the next page begins.
#[derive(Debug, Default)]
struct Memory {
    events: Mutex<Vec<EventDetail>>,
    holds: Mutex<Vec<(Pause, Timestamp)>>,
    jobs: Mutex<Vec<Job>>,
    ill: AtomicBool,
}

impl Memory {
    async fn keep(&self, event: NewEvent) -> Result<Accepted, InboxError> {
        let mut kept = self::event(0, &event.source, event.filtered.is_some());
        kept.summary = EventSummary {
            id: event.id,
            source: event.source,
            event_type: event.event_type,
            dedup: event.dedup,
            thread: event.thread,
            received_at: event.received_at,
            filtered: event.filtered,
            states: Vec::new(),
        };
        kept.strength = event.strength.as_str().into();
        (kept.params, kept.headers, kept.body) = (event.params, event.headers, event.body);
        kept.deliveries.clear();
        self.events.lock().unwrap().insert(0, kept);
        self.replay(event.id, 0, event.deliveries, event.received_at)
            .await?;
        Ok(Accepted::New)
    }
}

#[async_trait]
impl Accept for Memory {
    async fn accept_all(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, InboxError> {
        let mut told = Vec::new();
        for event in events {
            told.push(self.keep(event).await?);
        }
        Ok(told)
    }

    async fn known(&self, source: &str, dedup: &str) -> Result<Option<EventId>, InboxError> {
        let is = |event: &&EventDetail| {
            event.summary.source == source && event.summary.dedup.as_deref() == Some(dedup)
        };
        Ok(self
            .events
            .lock()
            .unwrap()
            .iter()
            .find(is)
            .map(|event| event.summary.id))
    }

    async fn use_proof(&self, _: UsedProof, _: Timestamp) -> Result<bool, InboxError> {
        Ok(true)
    }

    async fn free_proof(&self, _: Vec<ProofMark>) -> Result<(), InboxError> {
        Ok(())
    }
}

#[async_trait]
impl Deliver for Memory {
    async fn claim(&self, _: Box<dyn Terms>, _: Timestamp) -> Result<ClaimBatch, InboxError> {
        Err(InboxError::Closed)
    }

    async fn settle(&self, _: Settlement) -> Result<Settled, InboxError> {
        Err(InboxError::Closed)
    }

    async fn work_due(&self) {}

    async fn earlier_turn(&self, _: &Claimed) -> Result<Option<Turn>, InboxError> {
        Err(InboxError::Closed)
    }

    async fn ended(&self, id: DeliveryId) -> Result<Option<DeliveryDetail>, InboxError> {
        let events = self.events.lock().unwrap();
        let mut deliveries = events.iter().flat_map(|event| &event.deliveries);
        Ok(deliveries.find(|delivery| delivery.id == id).cloned())
    }
}

#[async_trait]
impl Browse for Memory {
    async fn events(&self, filter: &EventFilter) -> Result<Page<EventSummary>, InboxError> {
        let start = usize::try_from(filter.cursor.unwrap_or(0)).unwrap_or(0);
        let mut events = self.events.lock().unwrap().clone();
        if filter.oldest_first {
            events.reverse();
        }
        let all = events.iter().map(|event| &event.summary).filter(|event| {
            filter
                .event_type
                .as_ref()
                .is_none_or(|wanted| Some(wanted) == event.event_type.as_ref())
                && filter
                    .dedup
                    .as_ref()
                    .is_none_or(|wanted| Some(wanted) == event.dedup.as_ref())
                && filter
                    .source
                    .as_ref()
                    .is_none_or(|source| *source == event.source)
                && filter
                    .state
                    .is_none_or(|state| event.states.last() == Some(&state))
                && filter
                    .filtered
                    .is_none_or(|filtered| filtered == event.filtered.is_some())
                && filter.since.is_none_or(|since| event.received_at >= since)
                && filter.until.is_none_or(|until| event.received_at < until)
                && filter.text.is_none()
                && filter.thread.is_none()
        });
        let mut items: Vec<_> = all.skip(start).take(filter.limit + 1).cloned().collect();
        let next =
            (items.len() > filter.limit).then(|| i64::try_from(start + filter.limit).unwrap());
        items.truncate(filter.limit);
        Ok(Page { items, next })
    }

    async fn count(&self, filter: &EventFilter, most: u64) -> Result<u64, InboxError> {
        let all = EventFilter {
            limit: 1000,
            ..filter.clone()
        };
        Ok(most.min(self.events(&all).await?.items.len() as u64))
    }

    async fn event(&self, id: EventId) -> Result<Option<EventDetail>, InboxError> {
        Ok(self
            .events
            .lock()
            .unwrap()
            .iter()
            .find(|event| event.summary.id == id)
            .cloned())
    }

    async fn between(
        &self,
        from: EventId,
        to: EventId,
        most: usize,
    ) -> Result<Vec<EventId>, InboxError> {
        let mut ids: Vec<_> = self
            .events
            .lock()
            .unwrap()
            .iter()
            .map(|event| event.summary.id)
            .collect();
        ids.retain(|id| (from..=to).contains(id));
        ids.sort_unstable();
        ids.truncate(most);
        Ok(ids)
    }

    async fn waiting(&self, events: Vec<EventId>) -> Result<Vec<WaitingDelivery>, InboxError> {
        let all = self.events.lock().unwrap();
        let wanted = all
            .iter()
            .filter(|event| events.contains(&event.summary.id));
        let pending = wanted.flat_map(|event| {
            event
                .deliveries
                .iter()
                .map(move |delivery| (event, delivery))
        });
        let pending = pending.filter(|(_, delivery)| delivery.state == DeliveryState::Pending);
        let waiting = pending.map(|(event, delivery)| WaitingDelivery {
            id: delivery.id,
            route: waiting::own(&event.summary.source, delivery.destination.clone()),
            behind: None,
            due: delivery.due,
            last: delivery.tries.last().cloned(),
        });
        Ok(waiting.collect())
    }

    async fn source_fares(&self) -> Result<Vec<SourceFare>, InboxError> {
        let mut fares = std::collections::BTreeMap::<String, SourceFare>::new();
        for event in self.events.lock().unwrap().iter() {
            let fare = fares.entry(event.summary.source.clone()).or_default();
            fare.source.clone_from(&event.summary.source);
            fare.last_event = fare.last_event.max(Some(event.summary.received_at));
            match event.summary.states.last() {
                Some(DeliveryState::Dead) => fare.dead += 1,
                Some(DeliveryState::Unknown) => fare.unknown += 1,
                _ => {}
            }
        }
        Ok(fares.into_values().collect())
    }

    async fn destinations(&self) -> Result<Vec<crate::model::Destination>, InboxError> {
        let events = self.events.lock().unwrap();
        Ok(events
            .iter()
            .flat_map(|event| &event.deliveries)
            .map(|delivery| delivery.destination.clone())
            .collect())
    }

    async fn counts(&self) -> Result<Vec<Count>, InboxError> {
        if self.ill.load(Ordering::Relaxed) {
            return Err(InboxError::Engine {
                doing: "count",
                cause: "/var/lib/inbox.db is torn".into(),
            });
        }
        let count = |source: &str, count| Count {
            source: source.into(),
            state: DeliveryState::Pending,
            count,
        };
        Ok(vec![count("triage", 7), count("old", 1)])
    }
}

#[async_trait]
impl Operate for Memory {
    async fn replay(
        &self,
        id: EventId,
        _: u32,
        to: Vec<NewDelivery>,
        now: Timestamp,
    ) -> Result<Replayed, InboxError> {
        let mut events = self.events.lock().unwrap();
        let Some(event) = events.iter_mut().find(|event| event.summary.id == id) else {
            return Ok(Replayed::NoEvent);
        };
        let mut made = Vec::new();
        for owed in to {
            let number = u32::try_from(event.deliveries.len()).unwrap();
            made.push(DeliveryId { event: id, number });
            event.deliveries.push(DeliveryDetail {
                id: DeliveryId { event: id, number },
                destination: owed.destination,
                account: owed.account,
                class: owed.class,
                state: DeliveryState::Pending,
                upstream_id: owed.upstream_id,
                attempts: 0,
                due: Some(now),
                doubt: None,
                answer: None,
                sealed: SealedCall::None,
                answers: None,
                tries: Vec::new(),
            });
            event.summary.states.push(DeliveryState::Pending);
        }
        Ok(Replayed::Made(made))
    }

    async fn replay_anew(
        &self,
        id: EventId,
        first: u32,
        to: Vec<NewDelivery>,
        _: Anew,
        now: Timestamp,
    ) -> Result<Replayed, InboxError> {
        self.replay(id, first, to, now).await
    }

    async fn cancel(&self, id: DeliveryId, _: Timestamp) -> Result<bool, InboxError> {
        let mut events = self.events.lock().unwrap();
        let mut deliveries = events.iter_mut().flat_map(|event| &mut event.deliveries);
        let found = deliveries
            .find(|delivery| delivery.id == id && delivery.state == DeliveryState::Pending);
        Ok(found
            .map(|delivery| delivery.state = DeliveryState::Cancelled)
            .is_some())
    }

    async fn resolve(
        &self,
        id: DeliveryId,
        how: Resolution,
        note: &str,
        now: Timestamp,
    ) -> Result<bool, InboxError> {
        let mut events = self.events.lock().unwrap();
        let mut deliveries = events.iter_mut().flat_map(|event| &mut event.deliveries);
        let found = deliveries
            .find(|delivery| delivery.id == id && delivery.state == DeliveryState::Unknown);
        let Some(delivery) = found else {
            return Ok(false);
        };
        delivery.state = match how {
            Resolution::Delivered => DeliveryState::Delivered,
            Resolution::Dead => DeliveryState::Dead,
            Resolution::Again => DeliveryState::Pending,
        };
        delivery.tries.push(Attempt {
            number: delivery.attempts,
            started_at: now,
            ended_at: now,
            result: "settled".into(),
            status: None,
            detail: note.into(),
        });
        Ok(true)
    }

    async fn set_paused(&self, what: &Pause, on: bool, now: Timestamp) -> Result<bool, InboxError> {
        let mut holds = self.holds.lock().unwrap();
        let was = holds.iter().any(|(held, _)| held == what);
        holds.retain(|(held, _)| on || held != what);
        if on && !was {
            holds.push((what.clone(), now));
        }
        Ok(on != was)
    }

    async fn pauses(&self) -> Result<Vec<(Pause, Timestamp)>, InboxError> {
        Ok(self.holds.lock().unwrap().clone())
    }
}

#[async_trait]
impl Jobs for Memory {
    async fn begin_job(&self, job: NewJob, now: Timestamp) -> Result<Job, InboxError> {
        let mut jobs = self.jobs.lock().unwrap();
        let job = Job {
            id: i64::try_from(jobs.len()).unwrap() + 1,
            filter: job.filter,
            state: JobState::Running,
            total: job.total,
            done: 0,
            skipped: 0,
            pace: job.pace,
            cursor: None,
            started_at: now,
            changed_at: now,
        };
        jobs.insert(0, job.clone());
        Ok(job)
    }

    async fn jobs(&self) -> Result<Vec<Job>, InboxError> {
        Ok(self.jobs.lock().unwrap().clone())
    }

    async fn steer_job(
        &self,
        id: i64,
        state: Option<JobState>,
        pace: Option<u32>,
        now: Timestamp,
    ) -> Result<Option<Job>, InboxError> {
        let mut jobs = self.jobs.lock().unwrap();
        let Some(job) = jobs.iter_mut().find(|job| job.id == id) else {
            return Ok(None);
        };
        if !job.state.is_final() {
            (job.state, job.pace, job.changed_at) =
                (state.unwrap_or(job.state), pace.unwrap_or(job.pace), now);
        }
        Ok(Some(job.clone()))
    }

    async fn step_job(&self, step: JobStep, now: Timestamp) -> Result<Option<Job>, InboxError> {
        let as_planned = |job: &&mut Job| {
            job.id == step.id && job.state == JobState::Running && job.cursor == step.from
        };
        if self
            .jobs
            .lock()
            .unwrap()
            .iter_mut()
            .find(as_planned)
            .is_none()
        {
            return Ok(None);
        }
        let count = step.owed.len() as u64;
        for (id, first, to) in step.owed.clone() {
            self.replay(id, first, to, now).await?;
        }
        let mut jobs = self.jobs.lock().unwrap();
        let job = jobs.iter_mut().find(as_planned).unwrap();
        (job.done, job.skipped, job.cursor) =
            (job.done + count, job.skipped + step.skipped, step.to);
        job.changed_at = now;
        if step.ended {
            job.state = JobState::Done;
        }
        Ok(Some(job.clone()))
    }
}

#[async_trait]
impl CountRuns for Memory {
    async fn spend(&self, _: i64, _: Vec<Spend>) -> Result<Option<String>, InboxError> {
        Err(InboxError::Closed)
    }

    async fn give_back(&self, _: i64, _: Vec<String>) -> Result<(), InboxError> {
        Err(InboxError::Closed)
    }

    async fn spent(&self, _: i64) -> Result<Vec<(String, u64)>, InboxError> {
        Ok(vec![("all".to_owned(), 7), ("agent/a".to_owned(), 3)])
    }
}

#[async_trait]
impl KeepFiles for Memory {
    async fn keep_attachments(&self, _: &str, _: Vec<Attachment>) -> Result<(), InboxError> {
        Err(InboxError::Closed)
    }

    async fn add_attachments(&self, _: EventId, _: Vec<Attachment>) -> Result<bool, InboxError> {
        Err(InboxError::Closed)
    }

    async fn extend_attachments(&self, _: EventId, _: Timestamp) -> Result<(), InboxError> {
        Err(InboxError::Closed)
    }

    async fn attachment(&self, _: AttachmentId) -> Result<Option<KeptAttachment>, InboxError> {
        Ok(None)
    }

    async fn attachments(
        &self,
        _: Option<i64>,
        _: usize,
    ) -> Result<Page<KeptAttachment>, InboxError> {
        Ok(Page {
            items: Vec::new(),
            next: None,
        })
    }

    async fn attachments_gone(
        &self,
        _: Timestamp,
        _: usize,
    ) -> Result<Vec<Attachment>, InboxError> {
        Err(InboxError::Closed)
    }

    async fn attachments_known(
        &self,
        _: Vec<AttachmentId>,
    ) -> Result<Vec<AttachmentId>, InboxError> {
        Err(InboxError::Closed)
    }

    async fn forget_attachments(&self, _: Vec<AttachmentId>) -> Result<usize, InboxError> {
        Err(InboxError::Closed)
    }
}

#[async_trait]
impl Upkeep for Memory {
    async fn sweep(&self, _: &Keep, _: Timestamp, _: usize) -> Result<usize, InboxError> {
        Err(InboxError::Closed)
    }

    async fn usage(&self) -> Result<Usage, InboxError> {
        if self.ill.load(Ordering::Relaxed) {
            return Err(InboxError::Engine {
                doing: "measure",
                cause: "/var/lib/inbox.db is torn".into(),
            });
        }
        Ok(Usage {
            bytes: 4096,
            reusable: 1024,
            ceiling: Some(1 << 30),
        })
    }

    async fn bytes_of(&self, _: &str) -> Result<u64, InboxError> {
        Ok(0)
    }

    async fn upstream_ids(&self) -> Result<UpstreamIds, InboxError> {
        Ok(UpstreamIds::default())
    }

    async fn ready(&self) -> Result<(), InboxError> {
        if self.ill.load(Ordering::Relaxed) {
            Err(InboxError::NoSpace)
        } else {
            Ok(())
        }
    }

    async fn failed(&self) -> String {
        std::future::pending().await
    }

    async fn close(&self) {}
}

#[async_trait]
impl Replicas for Memory {
    fn replica_status(&self) -> ReplicaStatus {
        ReplicaStatus {
            good: true,
            replicas: 1,
        }
    }

    fn replicas_with(&self, _: crate::model::Role) -> u32 {
        1
    }

    async fn replica_status_changed(&self) {
        std::future::pending().await
    }
}

/// An operator's listener over a few events.
struct World {
    inbox: Arc<Memory>,
    state: Arc<AdminState>,
    config: Config,
}

fn id(number: u8) -> EventId {
    EventId::from_bytes([number; 16])
}

fn first_of(number: u8) -> DeliveryId {
    DeliveryId {
        event: id(number),
        number: 0,
    }
}

/// One event of a source: delivered after a failed try, or filtered.
fn event(number: u8, source: &str, filtered: bool) -> EventDetail {
    let at = NOW + Duration::from_secs(number.into());
    let attempt = |number, result: &str, status| Attempt {
        number,
        started_at: at,
        ended_at: at + Duration::from_millis(1_250),
        result: result.into(),
        status,
        detail: String::new(),
    };
    let delivery = DeliveryDetail {
        id: first_of(number),
        destination: "agent/a1".parse().unwrap(),
        account: Account::Operator,
        class: Class::Normal,
        state: DeliveryState::Delivered,
        upstream_id: first_of(number).as_uuid().to_string(),
        attempts: 2,
        due: None,
        doubt: None,
        answer: Some(Answer {
            status: "completed".into(),
            result: Some("done".into()),
            finished_at: None,
            task: None,
        }),
        sealed: SealedCall::None,
        answers: None,
        tries: vec![
            attempt(1, "refused", Some(503)),
            attempt(2, "completed", Some(200)),
        ],
    };
    EventDetail {
        summary: EventSummary {
            id: id(number),
            source: source.into(),
            event_type: Some("issues.opened".into()),
            dedup: Some(format!("d-{number}")),
            thread: None,
            received_at: at,
            filtered: filtered.then(|| "events".into()),
            states: if filtered {
                Vec::new()
            } else {
                vec![DeliveryState::Delivered]
            },
        },
        strength: "signed".into(),
        replays: 0,
        replayed_at: None,
        secret: Some("literal 1".into()),
        request_line: "POST /hooks/triage".into(),
        params: Params::new(vec![Param {
            name: Name::Prompt,
            value: "<b>9007199254740993</b>\u{1b}[2J".into(),
            origin: Origin::Mapping("issue.title".into()),
            over: vec![Origin::Query],
        }]),
        headers: vec![("content-type".into(), "application/json".into())],
        body: Bytes::from_static(b"{\"n\":9007199254740993}"),
        attachments: Vec::new(),
        deliveries: if filtered { Vec::new() } else { vec![delivery] },
    }
}

fn world() -> World {
    let problems = Problems::default();
    let text = format!(
        "[sources.triage]\nprovider = \"github\"\nsecrets = [\"literal:{SECRET}\"]\nagent = \"a1\"\nmax_body = \"1MiB\"\n[upstream]\napi_key = \"literal:the-upstream-key\"\n"
    );
    let config = Config::parse(
        "t",
        &text,
        std::path::Path::new("."),
        std::iter::empty(),
        &problems,
    )
    .unwrap();
    let inbox = Arc::new(Memory::default());
    *inbox.events.lock().unwrap() = vec![
        event(4, "gone", false),
        event(3, "triage", true),
        event(2, "triage", false),
        event(1, "triage", false),
    ];
    let samples = Arc::new(RefusedSamples::default());
    let sample = RefusedSample {
        at: NOW,
        request_id: "req_1".into(),
        source: Some("triage".into()),
        method: "POST".into(),
        path: "/hooks/triage".into(),
        peer: [127, 0, 0, 1].into(),
        headers: vec!["x-hub-signature-256".into()],
        body_bytes: 2,
        code: "bad_signature",
        reason: "stale",
        cause: "too old".into(),
        whole: false,
    };
    let whole = WholeRequest {
        request_line: "POST /hooks/triage?x=1".into(),
        headers: vec![("x-hub-signature-256".into(), "sha256=00".into())],
        body: Bytes::from_static(b"{}"),
    };
    samples.keep(sample, Some(whole), 1);
    let compiled = Arc::new(Sources::compile(&config, &Problems::default()));
    let state = AdminState::new(
        &config,
        compiled,
        inbox.clone(),
        Upstream::new(
            &config.upstream,
            Client::new(Duration::from_secs(1), None).unwrap(),
            Budget::default(),
        ),
        Arc::new(Metrics::new()),
        samples,
        Secret::new("admin.token", TOKEN),
        Clock::stopped(NOW),
        Arc::new(AtomicBool::new(true)),
    );
    World {
        inbox,
        state: Arc::new(state),
        config,
    }
}

impl World {
    /// Sends a request with these headers and nothing else.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, HeaderMap, String) {
        self.send_with(method, path, headers, String::new()).await
    }

    /// The same, with a body.
    async fn send_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = router(self.state.clone())
            .oneshot(request.body(Body::from(body)).unwrap())
            .await
            .unwrap();
        let (head, body) = answer.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        for secret in [TOKEN, SECRET, "the-upstream-key", "inbox.db"] {
            assert!(
                !body.contains(secret) && !format!("{:?}", head.headers).contains(secret),
                "{path}: {body}"
            );
        }
        assert_eq!(head.headers["cache-control"], "no-store", "{path}");
        assert_eq!(head.headers["x-content-type-options"], "nosniff", "{path}");
        assert!(!head.headers.contains_key("server"));
        (head.status, head.headers, body)
    }

    /// As an operator does; the path is below `/api/v1`.
    async fn ask(&self, method: Method, path: &str) -> (u16, Value) {
        let token = format!("Bearer {TOKEN}");
        let headers = [
            ("host", "127.0.0.1:8081"),
            ("authorization", token.as_str()),
        ];
        let (status, _, body) = self.send(method, &format!("/api/v1{path}"), &headers).await;
        (
            status.as_u16(),
            serde_json::from_str(&body).unwrap_or(Value::String(body)),
        )
    }

    /// The same with a body.
    async fn tell(&self, path: &str, body: Value) -> (u16, Value) {
        let token = format!("Bearer {TOKEN}");
        let headers = [
            ("host", "127.0.0.1:8081"),
            ("authorization", token.as_str()),
        ];
        let (status, _, body) = self
            .send_with(
                Method::POST,
                &format!("/api/v1{path}"),
                &headers,
                body.to_string(),
            )
            .await;
        (
            status.as_u16(),
            serde_json::from_str(&body).unwrap_or(Value::String(body)),
        )
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path).await
    }
}

/// Every route, with its method.
fn routes() -> Vec<(Method, String)> {
    let get = [
        "",
        "/events",
        "/sources",
        "/destinations",
        "/replays",
        "/replays/1",
        "/refused",
        "/budgets",
        "/metrics",
    ];
    let get = get.map(|path| (Method::GET, format!("/api/v1{path}")));
    let mut all = Vec::from(get);
    all.push((Method::GET, format!("/api/v1/events/{}", id(1))));
    all.push((Method::POST, format!("/api/v1/events/{}/replay", id(1))));
    all.push((Method::GET, format!("/api/v1/events/{}/body", id(1))));
    all.push((Method::POST, format!("/api/v1/events/{}/resend", id(1))));
    for verb in ["cancel", "settle"] {
        all.push((
            Method::POST,
            format!("/api/v1/deliveries/{}/{verb}", first_of(1)),
        ));
    }
    for path in [
        "replays",
        "replays/plan",
        "replays/1",
        "sources/triage/pause",
        "sources/triage/resume",
        "destinations/agent/a1/pause",
        "destinations/agent/a1/resume",
        "destinations/agent/a1/reset",
    ] {
        all.push((Method::POST, format!("/api/v1/{path}")));
    }
    all
}

#[tokio::test]
async fn t97_nothing_but_health_answers_without_the_token() {
    let host = ("host", "localhost:8081");
    for (method, path) in routes() {
        let world = world();
        for headers in [
            vec![host],
            vec![host, ("authorization", "Bearer the-admin-toke")],
            vec![host, ("authorization", "Bearer ")],
            vec![host, ("authorization", "Basic the-admin-token")],
            vec![
                host,
                ("authorization", "Bearer the-admin-token"),
                ("authorization", "Bearer x"),
            ],
        ] {
            let (status, headers, body) = world.send(method.clone(), &path, &headers).await;
            assert_eq!(
                (status.as_u16(), headers["www-authenticate"].as_bytes()),
                (401, &b"Bearer"[..]),
                "{path}"
            );
            assert!(body.contains("\"code\":\"unauthorized\""), "{body}");
        }
        assert_eq!(
            world.inbox.events.lock().unwrap()[3].deliveries.len(),
            1,
            "{path} changed something"
        );
        assert_eq!(
            world.inbox.events.lock().unwrap().len(),
            4,
            "{path} changed something"
        );
        assert!(
            world.inbox.holds.lock().unwrap().is_empty()
                && world.inbox.jobs.lock().unwrap().is_empty(),
            "{path}"
        );
    }
    let (status, ..) = world()
        .send(Method::GET, "/api/v1/health/live", &[host])
        .await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn t97_guesses_are_slowed_down_and_the_right_token_still_passes() {
    let world = world();
    let wrong = [("host", "localhost"), ("authorization", "Bearer wrong")];
    for _ in 0..GUESSES {
        assert_eq!(
            world.send(Method::GET, "/api/v1/events", &wrong).await.0,
            401
        );
    }
    let (status, headers, _) = world.send(Method::GET, "/api/v1/events", &wrong).await;
    assert_eq!(
        (status.as_u16(), headers["retry-after"].to_str().unwrap()),
        (429, "60")
    );
    assert_eq!(world.get("/events").await.0, 200);
    world.state.clock.advance(MINUTE);
    assert_eq!(
        world.send(Method::GET, "/api/v1/events", &wrong).await.0,
        401
    );
}

#[tokio::test]
async fn t98_other_hosts_and_other_sites_pages_are_refused_whatever_they_carry() {
    let world = world();
    let token = format!("Bearer {TOKEN}");
    let ours = ("host", "127.0.0.1:8081");
    for (wrong, code) in [
        (vec![("host", "evil.example")], "bad_host"),
        (vec![], "bad_host"),
        (vec![ours, ours], "bad_host"),
        (vec![ours, ("sec-fetch-site", "cross-site")], "cross_site"),
        (vec![ours, ("sec-fetch-site", "same-site")], "cross_site"),
        (vec![ours, ("origin", "http://evil.example")], "cross_site"),
        (
            vec![ours, ("origin", "http://127.0.0.1:3000")],
            "cross_site",
        ),
        (vec![ours, ("origin", "null")], "cross_site"),
    ] {
        for path in ["/api/v1/events", "/api/v1/health/live", "/api/v1/nothing"] {
            let headers = [&wrong[..], &[("authorization", &token)]].concat();
            let (status, _, body) = world.send(Method::GET, path, &headers).await;
            assert_eq!(status, 403, "{headers:?}");
            assert!(body.contains(code), "{headers:?}: {body}");
        }
    }
    let (status, ..) = world
        .send(
            Method::GET,
            "http://evil.example/api/v1/health/live",
            &[ours],
        )
        .await;
    assert_eq!(status, 403);
    let page = [
        ours,
        ("origin", "http://127.0.0.1:8081"),
        ("sec-fetch-site", "same-origin"),
        ("authorization", &token),
    ];
    assert_eq!(
        world.send(Method::GET, "/api/v1/events", &page).await.0,
        200
    );
}

#[tokio::test]
async fn pages_follow_each_other_and_filters_hold() {
    let world = world();
    let (status, page) = world.get("/events?limit=3").await;
    assert_eq!((status, page["items"].as_array().unwrap().len()), (200, 3));
    assert_eq!(page["items"][0]["id"], id(4).to_string());
    assert_eq!(page["items"][1]["filtered"], "events");
    assert_eq!(page["items"][2]["states"], json!(["delivered"]));
    let cursor = page["next_cursor"].as_str().unwrap();
    let (_, page) = world.get(&format!("/events?limit=3&cursor={cursor}")).await;
    assert_eq!(
        (page["items"][0]["id"].clone(), page["next_cursor"].clone()),
        (json!(id(1).to_string()), Value::Null)
    );

    {
        let event = &mut world.inbox.events.lock().unwrap()[3];
        (event.summary.states, event.deliveries[0].state) =
            (vec![DeliveryState::Dead], DeliveryState::Dead);
    }
    let (_, page) = world.get("/events?state=dead").await;
    assert_eq!(page["items"][0]["reason"]["result"], "completed");
    {
        let event = &mut world.inbox.events.lock().unwrap()[3];
        (event.summary.states, event.deliveries[0].state) =
            (vec![DeliveryState::Delivered], DeliveryState::Delivered);
    }

    for (query, expected) in [
        ("source=triage", 3),
        ("source=gone&state=dead", 0),
        ("state=dead", 0),
        ("filtered=true", 1),
        ("since=2027-01-15T08:00:03Z", 2),
        ("until=2027-01-15T08:00:03Z", 2),
        ("type=issues.opened&dedup=d-2", 1),
        ("thread=t", 0),
    ] {
        let (status, page) = world.get(&format!("/events?{query}")).await;
        assert_eq!(
            (status, page["items"].as_array().unwrap().len()),
            (200, expected),
            "{query}"
        );
    }
    let (_, page) = world.get("/events?order=oldest&limit=1").await;
    assert_eq!(page["items"][0]["id"], id(1).to_string());
    for query in [
        "cursor=1",
        "cursor=",
        "limit=0",
        "limit=-1",
        "limit=201",
        "state=accepted",
        "sate=dead",
        "limit=1&limit=2",
        "order=best",
        "type=",
        "dedup=%00",
        "destination=a1",
        "text=%22",
        "text=word",
        "since=2027-01-15T08:00:03Z&until=2027-01-15T08:00:03Z",
        "until=9e99",
    ] {
        let (status, answer) = world.get(&format!("/events?{query}")).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (400, Some("bad_query")),
            "{query}"
        );
    }
}

#[tokio::test]
async fn an_event_shows_where_each_value_came_from_and_what_became_of_it() {
    let world = world();
    let (status, event) = world.get(&format!("/events/{}", id(1))).await;
    assert_eq!(status, 200);
    assert_eq!(
        event["verification"],
        json!({ "strength": "signed", "secret": "literal 1" })
    );
    assert_eq!(
        event["params"][0],
        json!({
            "name": "prompt", "value": "<b>9007199254740993</b>\u{1b}[2J", "value_cut": false, "backing": "proved",
            "origin": { "from": "mapping", "path": "issue.title" }, "over": [{ "from": "query" }],
        })
    );
    assert_eq!(
        (&event["body"], &event["body_bytes"]),
        (&json!("{\"n\":9007199254740993}"), &json!(22))
    );
    assert_eq!(
        event["headers"],
        json!([["content-type", "application/json"]])
    );
    let delivery = &event["deliveries"][0];
    assert_eq!(
        (&delivery["state"], &delivery["destination"]),
        (&json!("delivered"), &json!("agent/a1"))
    );
    assert_eq!(delivery["answer"]["result"], "done");
    assert_eq!(delivery["attempts"][0]["status"], 503);
    assert_eq!(
        delivery["attempts"][1]["ended_at"],
        "2027-01-15T08:00:02.250Z"
    );

    for (body, text, cut) in [
        (vec![0xff; 300_000], false, true),
        ("é".repeat(150_000).into_bytes(), true, true),
        (Vec::new(), true, false),
    ] {
        world.inbox.events.lock().unwrap()[3].body = body.clone().into();
        let (_, event) = world.get(&format!("/events/{}", id(1))).await;
        assert_eq!(
            (event["body"].is_string(), event["body_base64"].is_string()),
            (text, !text)
        );
        assert_eq!(
            (&event["body_bytes"], &event["body_cut"]),
            (&json!(body.len()), &json!(cut))
        );
    }
    for path in [
        format!("/events/{}", id(9)),
        "/events/evt_1".into(),
        "/events/%ff".into(),
        "/events/..%2f".into(),
    ] {
        let (status, answer) = world.get(&path).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (404, Some("not_found")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_callers_own_call_is_replayed_as_it_was_made_while_it_is_there() {
    let world = world();
    let replay = format!("/events/{}/replay", id(1));
    let first = |change: &dyn Fn(&mut DeliveryDetail)| {
        change(&mut world.inbox.events.lock().unwrap()[3].deliveries[0])
    };
    first(&|delivery| delivery.sealed = SealedCall::Erased);
    let (status, answer) = world.ask(Method::POST, &replay).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (409, Some("call_erased"))
    );
    first(&|delivery| {
        (delivery.sealed, delivery.state) = (SealedCall::Kept, DeliveryState::Unknown)
    });
    assert_eq!(world.ask(Method::POST, &replay).await.0, 202);
    let deliveries = world.inbox.events.lock().unwrap()[3].deliveries.clone();
    assert_eq!(
        deliveries[1].upstream_id, deliveries[0].upstream_id,
        "the id is part of the call"
    );
}

#[tokio::test]
async fn a_replay_owes_a_new_delivery_and_leaves_the_old_one() {
    let world = world();
    let replay = async |number| {
        world
            .ask(Method::POST, &format!("/events/{}/replay", id(number)))
            .await
    };
    let second = DeliveryId {
        event: id(1),
        number: 1,
    };
    assert_eq!(
        replay(1).await,
        (202, json!({ "event": id(1), "deliveries": [second] }))
    );
    let deliveries = world.inbox.events.lock().unwrap()[3].deliveries.clone();
    assert_eq!(
        (deliveries[0].state, deliveries[1].state),
        (DeliveryState::Delivered, DeliveryState::Pending)
    );
    assert_eq!(
        deliveries[1].upstream_id,
        second.as_uuid().to_string(),
        "it is a run of its own"
    );
    // What a filter held back may be passed on by hand.
    assert_eq!(replay(3).await.1["deliveries"], json!([first_of(3)]));

    let (status, answer) = replay(4).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (409, Some("source_gone"))
    );
    assert!(
        answer["detail"].as_str().unwrap().contains("gone"),
        "{answer}"
    );
    assert_eq!(replay(9).await.0, 404);
    let replay = format!("/events/{}/replay", id(9));
    for _ in 4..REPLAYS {
        assert_eq!(world.ask(Method::POST, &replay).await.0, 404);
    }
    assert_eq!(
        world.ask(Method::POST, &replay).await.1["code"],
        "too_many_replays"
    );
}

#[tokio::test]
async fn t103_a_replay_in_bulk_is_planned_begun_and_kept_to_its_pace() {
    let world = world();
    world.state.clock.advance(Duration::from_secs(10));
    let wanted = json!({ "filter": { "type": "issues.opened" }, "pace": 60 });
    let (status, plan) = world.tell("/replays/plan", wanted.clone()).await;
    assert_eq!(
        (status, &plan["count"], &plan["more"], &plan["takes_s"]),
        (200, &json!(3), &json!(false), &json!(3))
    );
    assert_eq!(
        plan["left_out"],
        json!([{ "source": "gone", "why": "source_gone", "count": 1 }])
    );
    assert_eq!(
        (&plan["oldest"]["id"], &plan["newest"]["id"]),
        (&json!(id(1)), &json!(id(4)))
    );
    assert!(
        world.inbox.jobs.lock().unwrap().is_empty(),
        "a plan begins nothing"
    );

    let (status, job) = world.tell("/replays", wanted).await;
    assert_eq!(
        (status, &job["state"], &job["total"]),
        (202, &json!("running"), &json!(3))
    );
    assert_eq!(
        job["filter"]["until"],
        json!("2027-01-15T08:00:10.000Z"),
        "what comes later is not old"
    );
    assert_eq!(
        job["filter"]["filtered"],
        json!(false),
        "what a filter held back stays there"
    );
    assert_eq!(job["eta"], "2027-01-15T08:00:13.000Z");

    // Two processes at once: a step is taken once, and the next one a second later.
    let replayer = || {
        Replayer::new(
            &world.config,
            world.inbox.clone(),
            Arc::new(crate::intake::Remapper(world.state.compiled.clone())),
            Arc::default(),
            world.state.clock.clone(),
        )
    };
    let (one, other) = (replayer(), replayer());
    let done = async || world.get("/replays/1").await.1["done"].as_u64().unwrap();
    one.work().await;
    other.work().await;
    assert_eq!(done().await, 1);
    assert_eq!(
        world.inbox.events.lock().unwrap()[3].deliveries.len(),
        2,
        "the oldest goes first"
    );
    assert_eq!(
        world.inbox.events.lock().unwrap()[3].deliveries[0].state,
        DeliveryState::Delivered,
        "the old one stays"
    );
    world.state.clock.advance(Duration::from_secs(1));
    other.work().await;
    assert_eq!(done().await, 2);

    let (status, job) = world
        .tell("/replays/1", json!({ "state": "paused", "pace": 6000 }))
        .await;
    assert_eq!(
        (status, &job["state"], &job["pace"], &job["eta"]),
        (200, &json!("paused"), &json!(6000), &Value::Null)
    );
    world.state.clock.advance(MINUTE);
    one.work().await;
    assert_eq!(done().await, 2);
    world
        .tell("/replays/1", json!({ "state": "running" }))
        .await;
    world.state.clock.advance(MINUTE);
    one.work().await;
    let (_, job) = world.get("/replays/1").await;
    assert_eq!(
        (&job["state"], &job["done"], &job["skipped"]),
        (&json!("done"), &json!(2), &json!(1))
    );
    assert_eq!(world.get("/replays").await.1["items"][0], job);
    let (status, answer) = world
        .tell("/replays/1", json!({ "state": "cancelled" }))
        .await;
    assert_eq!((status, &answer["code"]), (409, &json!("replay_ended")));

    // What it made is on its way; the same once more leaves it out.
    world
        .tell("/replays", json!({ "filter": { "source": "triage" } }))
        .await;
    one.work().await;
    let (_, job) = world.get("/replays/2").await;
    assert_eq!(
        (&job["state"], &job["done"], &job["skipped"]),
        (&json!("done"), &json!(0), &json!(2))
    );
}

#[tokio::test]
async fn t102_a_replay_that_cannot_be_meant_is_refused() {
    let world = world();
    world.state.clock.advance(Duration::from_secs(10));
    for wrong in [
        json!({}),
        json!({ "filter": {} }),
        json!({ "filter": { "filtered": false } }),
        json!({ "filter": { "sate": "dead" } }),
        json!({ "filter": { "state": "accepted" } }),
        json!({ "filter": { "text": "word" } }),
        json!({ "filter": { "source": "triage" }, "pace": 0 }),
        json!({ "filter": { "source": "triage" }, "pace": 6001 }),
        json!({ "filter": { "source": "triage" }, "pase": 1 }),
        json!([]),
        json!("x"),
    ] {
        for path in ["/replays/plan", "/replays"] {
            let (status, answer) = world.tell(path, wrong.clone()).await;
            assert_eq!(status, 400, "{wrong} {answer}");
        }
    }
    let (status, answer) = world
        .tell(
            "/replays",
            json!({ "filter": { "source": "triage", "type": "none" } }),
        )
        .await;
    assert_eq!((status, &answer["code"]), (409, &json!("nothing_fits")));
    assert_eq!(
        world
            .tell(
                "/replays",
                json!({ "all": true, "filter": { "until": "2027-01-16T00:00:00Z" } })
            )
            .await
            .0,
        202
    );
    for wrong in [
        json!({}),
        json!({ "state": "done" }),
        json!({ "state": "x" }),
        json!({ "pace": 0 }),
    ] {
        assert_eq!(
            world.tell("/replays/1", wrong.clone()).await.0,
            400,
            "{wrong}"
        );
    }
    for number in ["2", "0", "-1", "x", "99999999999999999999"] {
        assert_eq!(
            world
                .tell(&format!("/replays/{number}"), json!({ "pace": 1 }))
                .await
                .0,
            404,
            "{number}"
        );
        assert_eq!(
            world.get(&format!("/replays/{number}")).await.0,
            404,
            "{number}"
        );
    }
    for _ in 1..10 {
        assert_eq!(world.tell("/replays", json!({ "all": true })).await.0, 202);
    }
    assert_eq!(
        world.tell("/replays", json!({ "all": true })).await.1["code"],
        "replays_under_way"
    );
    let large = json!({ "filter": { "thread": "a".repeat(70_000) } });
    assert_eq!(
        world.tell("/replays/plan", large).await.1["code"],
        "body_too_large"
    );
}

#[tokio::test]
async fn a_dry_run_shows_the_request_that_would_go_out_and_makes_nothing() {
    let world = world();
    let (status, shown) = world
        .ask(
            Method::POST,
            &format!("/events/{}/replay?dry_run=true", id(1)),
        )
        .await;
    let request = &shown["request"];
    assert_eq!(
        (status, &request["method"], &request["path"]),
        (200, &json!("POST"), &json!("/v1/agents/a1/invoke"))
    );
    assert!(
        request["headers"]
            .as_array()
            .unwrap()
            .contains(&json!(["x-api-key", "***"])),
        "{request}"
    );
    assert_eq!(
        request["body"]["id"],
        DeliveryId {
            event: id(1),
            number: 1
        }
        .as_uuid()
        .to_string()
    );
    assert!(
        request["body"]["input"]["text"]
            .as_str()
            .unwrap()
            .contains("9007199254740993"),
        "{request}"
    );
    assert_eq!(world.inbox.events.lock().unwrap()[3].deliveries.len(), 1);
    assert_eq!(
        world
            .ask(
                Method::POST,
                &format!("/events/{}/replay?dry_run=maybe", id(1))
            )
            .await
            .0,
        400
    );
    world.inbox.events.lock().unwrap()[3].deliveries[0].sealed = SealedCall::Kept;
    let (_, answer) = world
        .ask(
            Method::POST,
            &format!("/events/{}/replay?dry_run=true", id(1)),
        )
        .await;
    assert_eq!(answer["code"], "call_sealed");
}

#[tokio::test]
async fn a_resend_is_a_new_event_by_an_operators_word() {
    let world = world();
    let path = format!("/events/{}/resend", id(1));
    let changes =
        json!({ "body": "{\"n\":1}", "headers": { "X-Mark": "m", "Content-Type": null } });
    let (status, shown) = world
        .tell(&format!("{path}?dry_run=true"), changes.clone())
        .await;
    let text = shown["request"]["body"]["input"]["text"].as_str().unwrap();
    assert!(status == 200 && text.contains("{\"n\":1}"), "{shown}");
    assert_eq!(world.inbox.events.lock().unwrap().len(), 4);

    let (status, made) = world.tell(&path, changes).await;
    assert_eq!(
        (status, &made["resent_from"], &made["filtered"]),
        (202, &json!(id(1)), &Value::Null)
    );
    let (_, event) = world
        .get(&format!("/events/{}", made["event"].as_str().unwrap()))
        .await;
    assert_eq!(
        event["verification"],
        json!({ "strength": "operator", "secret": "literal 1" })
    );
    assert_eq!(
        (&event["resent_from"], &event["dedup"], &event["source"]),
        (&json!(id(1)), &Value::Null, &json!("triage"))
    );
    assert_eq!(
        (&event["body"], &event["deliveries"][0]["state"]),
        (&json!("{\"n\":1}"), &json!("pending"))
    );
    assert_eq!(
        event["headers"],
        json!([["x-mark", "m"], ["sluicegate-resent-from", id(1)]])
    );
    let (_, old) = world.get(&format!("/events/{}", id(1))).await;
    assert_eq!(
        (&old["body"], &old["deliveries"].as_array().unwrap().len()),
        (&json!("{\"n\":9007199254740993}"), &1)
    );

    for (wrong, expected) in [
        (json!({ "body": "{}", "body_base64": "e30=" }), 400),
        (json!({ "body_base64": "%" }), 400),
        (json!({ "headers": { "a b": "c" } }), 400),
        (json!({ "headers": { "a": "b\r\nc: d" } }), 400),
        (json!({ "headers": { "a": 1 } }), 400),
        (json!({ "bodie": "" }), 400),
        (
            json!({ "body": "{\"n\":", "headers": { "Content-Type": "application/json" } }),
            422,
        ),
        (json!({ "body": "a".repeat((1 << 20) + 1) }), 413),
        (json!({ "body": "a".repeat(7 << 20) }), 413),
    ] {
        assert_eq!(
            world.tell(&path, wrong.clone()).await.0,
            expected,
            "{:.80}",
            wrong.to_string()
        );
    }
    assert_eq!(
        world
            .tell(&format!("/events/{}/resend", id(4)), json!({}))
            .await
            .1["code"],
        "source_gone"
    );
    assert_eq!(
        world
            .tell(&format!("/events/{}/resend", id(9)), json!({}))
            .await
            .0,
        404
    );
    assert_eq!(world.inbox.events.lock().unwrap().len(), 5);

    // Anybody may send the header; it says nothing then.
    world.inbox.events.lock().unwrap()[4]
        .headers
        .push(("sluicegate-resent-from".into(), "evt_x".into()));
    assert_eq!(
        world.get(&format!("/events/{}", id(1))).await.1["resent_from"],
        Value::Null
    );
}

#[tokio::test]
async fn a_body_is_given_byte_for_byte_and_as_nothing_a_browser_shows() {
    let world = world();
    world.inbox.events.lock().unwrap()[3].body = Bytes::from_static(b"<script>1</script>\r\n");
    let token = format!("Bearer {TOKEN}");
    let headers = [("host", "localhost"), ("authorization", token.as_str())];
    let (status, headers, body) = world
        .send(
            Method::GET,
            &format!("/api/v1/events/{}/body", id(1)),
            &headers,
        )
        .await;
    assert_eq!(
        (status.as_u16(), body.as_str()),
        (200, "<script>1</script>\r\n")
    );
    assert_eq!(headers["content-type"], "application/octet-stream");
    assert_eq!(headers["content-disposition"], "attachment");
}

#[tokio::test]
async fn only_what_nobody_could_tell_is_settled_by_hand() {
    let world = world();
    let path = format!("/deliveries/{}/settle", first_of(1));
    let how = json!({ "as": "delivered", "note": " seen in the agent's log " });
    let (status, answer) = world.tell(&path, how.clone()).await;
    assert_eq!((status, &answer["code"]), (409, &json!("not_unknown")));
    world.inbox.events.lock().unwrap()[3].deliveries[0].state = DeliveryState::Unknown;
    for wrong in [
        json!({}),
        json!({ "as": "gone" }),
        json!({ "as": "dead", "note": "a".repeat(1001) }),
        json!("dead"),
    ] {
        assert_eq!(
            world.tell(&path, wrong.clone()).await.0,
            400,
            "{:.80}",
            wrong.to_string()
        );
    }
    assert_eq!(
        world.tell(&path, how).await,
        (200, json!({ "id": first_of(1), "state": "delivered" }))
    );
    let deliveries = world.inbox.events.lock().unwrap()[3].deliveries.clone();
    assert_eq!(
        deliveries[0].tries.last().unwrap().detail,
        "seen in the agent's log"
    );
    assert_eq!(
        world
            .tell(
                &format!("/deliveries/{}/settle", first_of(9)),
                json!({ "as": "dead" })
            )
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn sources_and_destinations_are_held_and_let_go() {
    let world = world();
    let post = async |path: &str| world.ask(Method::POST, path).await;
    let held = |changed| json!({ "source": "triage", "paused": true, "changed": changed });
    assert_eq!(post("/sources/triage/pause").await, (200, held(true)));
    assert_eq!(post("/sources/triage/pause").await, (200, held(false)));
    assert_eq!(
        world.get("/sources").await.1["items"][0]["paused_since"],
        "2027-01-15T08:00:00.000Z"
    );
    assert_eq!(post("/sources/triage/resume").await.1["paused"], false);
    assert_eq!(
        world.get("/sources").await.1["items"][0]["paused_since"],
        Value::Null
    );
    for path in [
        "/sources/nobody/pause",
        "/sources/nobody/resume",
        "/destinations/robot/1/pause",
    ] {
        assert_eq!(post(path).await.0, 404, "{path}");
    }
    // One that was held while it was configured is let go all the same.
    world
        .inbox
        .set_paused(&Pause::Source("gone".into()), true, NOW)
        .await
        .unwrap();
    assert_eq!(world.get("/sources").await.1["items"][2]["name"], "gone");
    assert_eq!(post("/sources/gone/resume").await.0, 200);

    assert_eq!(
        post("/destinations/workflow/w%2F1/pause?force=true")
            .await
            .1["destination"],
        "workflow/w/1"
    );
    let (_, list) = world.get("/destinations").await;
    assert_eq!(
        (
            &list["items"][0]["destination"],
            &list["items"][0]["sources"]
        ),
        (&json!("agent/a1"), &json!(["triage"]))
    );
    assert_eq!(list["items"][1]["paused_since"], "2027-01-15T08:00:00.000Z");
    assert_eq!(
        post("/destinations/workflow/w%2F1/resume").await.1["changed"],
        true
    );
    assert_eq!(
        post("/destinations/agent/a1/reset").await.1["code"],
        "not_dispatching"
    );
    assert_eq!(
        world.get("/destinations").await.1["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn the_gateway_says_how_it_stands_and_what_its_inbox_holds() {
    let world = world();
    let (_, shown) = world.get("").await;
    assert_eq!(
        (&shown["replicas"], &shown["standing"]),
        (&json!(1), &json!("good"))
    );
    assert_eq!(
        shown["disk"],
        json!({ "bytes": 4096, "reusable_bytes": 1024, "ceiling_bytes": 1 << 30 })
    );
    assert_eq!(
        (
            &shown["deliveries"]["pending"],
            &shown["deliveries"]["merged"]
        ),
        (&json!(8), &json!(0))
    );
    let (_, text) = world.get("/metrics").await;
    for line in [
        r#"sluicegate_inbox_bytes{of="ceiling"} 1073741824"#,
        "sluicegate_standing 1",
        "sluicegate_replicas 1",
    ] {
        assert!(text.as_str().unwrap().contains(line), "{line}");
    }
    world.inbox.ill.store(true, Ordering::Relaxed);
    let (status, shown) = world.get("").await;
    assert_eq!(
        (status, &shown["disk"], &shown["deliveries"]),
        (200, &Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn only_a_pending_delivery_is_cancelled() {
    let world = world();
    let cancel = async |id: &str| {
        world
            .ask(Method::POST, &format!("/deliveries/{id}/cancel"))
            .await
    };
    world
        .ask(Method::POST, &format!("/events/{}/replay", id(1)))
        .await;
    let second = DeliveryId {
        event: id(1),
        number: 1,
    }
    .to_string();
    assert_eq!(
        cancel(&second).await,
        (200, json!({ "id": second, "state": "cancelled" }))
    );
    let (status, answer) = cancel(&second).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (409, Some("not_pending"))
    );
    assert!(
        answer["detail"].as_str().unwrap().contains("cancelled"),
        "{answer}"
    );
    for unknown in [
        first_of(9).to_string(),
        DeliveryId {
            event: id(1),
            number: 7,
        }
        .to_string(),
        "dlv_1".into(),
    ] {
        assert_eq!(cancel(&unknown).await.0, 404, "{unknown}");
    }
}

#[tokio::test]
async fn sources_show_names_of_secrets_and_counts_of_deliveries() {
    let (_, list) = world().get("/sources").await;
    let source = &list["items"][0];
    assert_eq!(
        (&source["path"], &source["destination"]),
        (&json!("/hooks/triage"), &json!("agent/a1"))
    );
    assert_eq!(source["secrets"], json!(["literal 1"]));
    assert_eq!(
        (&source["counts"]["pending"], &source["counts"]["dead"]),
        (&json!(7), &json!(0))
    );
    assert_eq!(
        (&list["items"][1]["name"], &list["items"][1]["configured"]),
        (&json!("old"), &json!(false))
    );
}

#[tokio::test]
async fn refused_requests_are_listed_with_their_reason() {
    let world = world();
    let (_, list) = world.get("/refused?source=triage").await;
    assert_eq!(
        (&list["items"][0]["reason"], &list["items"][0]["cause"]),
        (&json!("stale"), &json!("too old"))
    );
    let (status, answer) = world.get("/refused?source=triag").await;
    assert_eq!((status, answer["code"].as_str()), (404, Some("not_found")));
    assert!(
        answer["detail"]
            .as_str()
            .unwrap()
            .contains("did you mean triage?"),
        "{answer}"
    );
    assert_eq!(
        world.get("/refused?source=gone&limit=2").await.1["items"],
        json!([])
    );
    let (status, answer) = world.get("/refused?limt=2").await;
    assert_eq!((status, answer["code"].as_str()), (400, Some("bad_query")));
    let (_, whole) = world.get("/refused/req_1").await;
    assert_eq!(
        (&whole["request"]["target"], &whole["request"]["body"]),
        (&json!("/hooks/triage?x=1"), &json!("{}"))
    );
    assert_eq!(world.get("/refused/req_2").await.0, 404);
    assert_eq!(world.get("/refused?source=").await.0, 400);
}

#[tokio::test]
async fn metrics_hold_what_the_inbox_holds_and_outlive_its_illness() {
    let world = world();
    let (status, text) = world.get("/metrics").await;
    let text = text.as_str().unwrap();
    assert_eq!(status, 200);
    assert!(
        text.contains(r#"sluicegate_inbox_deliveries{source="triage",state="pending"} 7"#),
        "{text}"
    );
    assert!(
        text.contains(r#"sluicegate_inbox_deliveries{source="triage",state="dead"} 0"#),
        "{text}"
    );
    world.inbox.ill.store(true, Ordering::Relaxed);
    assert_eq!(world.get("/metrics").await.0, 200);
    assert_eq!(
        world.get("/sources").await,
        (
            500,
            json!({ "detail": "The inbox failed; the log says why.", "code": "inbox_failed" })
        )
    );
}

#[tokio::test]
async fn it_is_ready_only_while_events_can_be_kept() {
    let world = world();
    assert_eq!(
        world.get("/health/ready").await,
        (200, json!({ "status": "ready" }))
    );
    world.inbox.ill.store(true, Ordering::Relaxed);
    assert_eq!(
        world.get("/health/ready").await,
        (503, json!({ "status": "unready", "reason": "no_space" }))
    );
    world.state.serving.store(false, Ordering::Relaxed);
    assert_eq!(world.get("/health/ready").await.1["reason"], "draining");
    assert_eq!(world.get("/health/live").await.0, 200);
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_said_plainly() {
    let world = world();
    for path in ["/nothing", "/events/", "/hooks/triage", "/health"] {
        let (status, answer) = world.get(path).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (404, Some("no_such_path")),
            "{path}"
        );
    }
    let token = format!("Bearer {TOKEN}");
    let headers = [("host", "[::1]:8081"), ("authorization", token.as_str())];
    for (method, path, allowed) in [
        (Method::DELETE, "/api/v1/events".to_owned(), "GET,HEAD"),
        (
            Method::GET,
            format!("/api/v1/events/{}/replay", id(1)),
            "POST",
        ),
        (Method::POST, "/api/v1/health/live".to_owned(), "GET,HEAD"),
    ] {
        let (status, headers, body) = world.send(method, &path, &headers).await;
        assert_eq!(
            (status.as_u16(), headers["allow"].to_str().unwrap()),
            (405, allowed),
            "{path}"
        );
        assert!(body.contains("method_not_allowed"), "{body}");
    }
}
