//! The operator's routes over an inbox in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

mod access;
mod delivery;
mod event;
mod health;
mod job;
mod layers;
mod memory;
mod memory_operate;
mod replay;
mod source;
mod status;

use self::memory::Memory;
use super::state::{GUESSES, MINUTE, REPLAYS};
use super::*;
use crate::config::{Config, Problems, Secret};
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
    Accepted, Account, Attachment, AttachmentId, Attempt, Class, Clock, DeliveryId, DeliveryState,
    EventId, Name, NewDelivery, NewEvent, Origin, Param, Params, ProofMark, Timestamp, UpstreamIds,
    UsedProof,
};
use crate::net::Client;
use crate::source::Sources;
use crate::telemetry::{Metrics, RefusedSample, RefusedSamples, WholeRequest};
use crate::upstream::{Budget, Upstream};

const TOKEN: &str = "the-admin-token";

const SECRET: &str = "a-secret-of-the-source";

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// An operator's listener over a few events.
struct World {
    inbox: Arc<Memory>,
    state: Arc<AdminState>,
    config: Config,
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
        Upstream::new(
            &config.upstream,
            Client::new(Duration::from_secs(1), None).unwrap(),
            Budget::default(),
        ),
        Secret::new("admin.token", TOKEN),
        AdminParts {
            inbox: inbox.clone(),
            metrics: Arc::new(Metrics::new()),
            samples,
            clock: Clock::stopped(NOW),
            serving: Arc::new(AtomicBool::new(true)),
        },
    );
    World {
        inbox,
        state: Arc::new(state),
        config,
    }
}
