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

use super::*;
use crate::config::Problems;
use crate::inbox::{
    Answer, Claimed, Count, DeliveryDetail, EventDetail, EventFilter, EventSummary, InboxError, KeptAttachment, Page,
    SealedCall, Settled, Settlement, Turn,
};
use crate::model::{
    Accepted, Attachment, AttachmentId, Attempt, DeliveryId, EventId, Name, NewDelivery, NewEvent, Origin, Param,
    Params, State,
};
use crate::telemetry::RefusedSample;

const TOKEN: &str = "the-admin-token";
const SECRET: &str = "a-secret-of-the-source";
const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// Events in a list; a cursor is the place where the next page begins.
#[derive(Debug, Default)]
struct Memory {
    events: Mutex<Vec<EventDetail>>,
    ill: AtomicBool,
}

#[async_trait]
impl Inbox for Memory {
    async fn events(&self, filter: &EventFilter) -> Result<Page<EventSummary>, InboxError> {
        let start = usize::try_from(filter.cursor.unwrap_or(0)).unwrap_or(0);
        let events = self.events.lock().unwrap();
        let all = events.iter().map(|event| &event.summary).filter(|event| {
            filter.source.as_ref().is_none_or(|source| *source == event.source)
                && filter.state.is_none_or(|state| event.states.contains(&state))
                && filter.filtered.is_none_or(|filtered| filtered == event.filtered.is_some())
                && filter.since.is_none_or(|since| event.received_at >= since)
                && filter.until.is_none_or(|until| event.received_at < until)
        });
        let mut items: Vec<_> = all.skip(start).take(filter.limit + 1).cloned().collect();
        let next = (items.len() > filter.limit).then(|| i64::try_from(start + filter.limit).unwrap());
        items.truncate(filter.limit);
        Ok(Page { items, next })
    }

    async fn event(&self, id: EventId) -> Result<Option<EventDetail>, InboxError> {
        Ok(self.events.lock().unwrap().iter().find(|event| event.summary.id == id).cloned())
    }

    async fn replay(
        &self,
        id: EventId,
        to: Vec<NewDelivery>,
        now: Timestamp,
    ) -> Result<Option<Vec<DeliveryId>>, InboxError> {
        let mut events = self.events.lock().unwrap();
        let Some(event) = events.iter_mut().find(|event| event.summary.id == id) else { return Ok(None) };
        let mut made = Vec::new();
        for owed in to {
            let number = u32::try_from(event.deliveries.len()).unwrap();
            made.push(DeliveryId { event: id, number });
            event.deliveries.push(DeliveryDetail {
                id: DeliveryId { event: id, number },
                destination: owed.destination,
                state: State::Pending,
                upstream_id: owed.upstream_id,
                attempts: 0,
                due: Some(now),
                doubt: None,
                answer: None,
                sealed: SealedCall::None,
                tries: Vec::new(),
            });
        }
        Ok(Some(made))
    }

    async fn cancel(&self, id: DeliveryId, _: Timestamp) -> Result<bool, InboxError> {
        let mut events = self.events.lock().unwrap();
        let mut deliveries = events.iter_mut().flat_map(|event| &mut event.deliveries);
        let found = deliveries.find(|delivery| delivery.id == id && delivery.state == State::Pending);
        Ok(found.map(|delivery| delivery.state = State::Cancelled).is_some())
    }

    async fn ended(&self, id: DeliveryId) -> Result<Option<DeliveryDetail>, InboxError> {
        let events = self.events.lock().unwrap();
        let mut deliveries = events.iter().flat_map(|event| &event.deliveries);
        Ok(deliveries.find(|delivery| delivery.id == id).cloned())
    }

    async fn counts(&self) -> Result<Vec<Count>, InboxError> {
        if self.ill.load(Ordering::Relaxed) {
            return Err(InboxError::Engine { doing: "count", cause: "/var/lib/inbox.db is torn".into() });
        }
        let count = |source: &str, count| Count { source: source.into(), state: State::Pending, count };
        Ok(vec![count("triage", 7), count("old", 1)])
    }

    async fn ready(&self) -> Result<(), InboxError> {
        if self.ill.load(Ordering::Relaxed) { Err(InboxError::NoSpace) } else { Ok(()) }
    }

    async fn accept(&self, _: NewEvent) -> Result<Accepted, InboxError> {
        Err(InboxError::Closed)
    }

    async fn claim(&self, _: usize, _: Timestamp) -> Result<Vec<Claimed>, InboxError> {
        Err(InboxError::Closed)
    }

    async fn settle(&self, _: Settlement) -> Result<Settled, InboxError> {
        Err(InboxError::Closed)
    }

    async fn news(&self) {}

    async fn next_due(&self) -> Result<Option<Timestamp>, InboxError> {
        Err(InboxError::Closed)
    }

    async fn earlier_turn(&self, _: &Claimed) -> Result<Option<Turn>, InboxError> {
        Err(InboxError::Closed)
    }

    async fn sweep(&self, _: Timestamp, _: usize) -> Result<usize, InboxError> {
        Err(InboxError::Closed)
    }

    async fn keep_attachments(&self, _: &str, _: Vec<Attachment>) -> Result<(), InboxError> {
        Err(InboxError::Closed)
    }

    async fn extend_attachments(&self, _: EventId, _: Timestamp) -> Result<(), InboxError> {
        Err(InboxError::Closed)
    }

    async fn attachment(&self, _: AttachmentId) -> Result<Option<KeptAttachment>, InboxError> {
        Ok(None)
    }

    async fn attachments(&self, _: Option<i64>, _: usize) -> Result<Page<KeptAttachment>, InboxError> {
        Ok(Page { items: Vec::new(), next: None })
    }

    async fn attachments_gone(&self, _: Timestamp, _: usize) -> Result<Vec<Attachment>, InboxError> {
        Err(InboxError::Closed)
    }

    async fn attachments_known(&self, _: Vec<AttachmentId>) -> Result<Vec<AttachmentId>, InboxError> {
        Err(InboxError::Closed)
    }

    async fn forget_attachments(&self, _: Vec<AttachmentId>) -> Result<usize, InboxError> {
        Err(InboxError::Closed)
    }

    async fn failed(&self) -> String {
        std::future::pending().await
    }

    async fn close(&self) {}
}

/// An operator's listener over a few events.
struct World {
    inbox: Arc<Memory>,
    state: Arc<AdminState>,
}

fn id(number: u8) -> EventId {
    EventId::from_bytes([number; 16])
}

fn first_of(number: u8) -> DeliveryId {
    DeliveryId { event: id(number), number: 0 }
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
        state: State::Delivered,
        upstream_id: first_of(number).as_uuid().to_string(),
        attempts: 2,
        due: None,
        doubt: None,
        answer: Some(Answer { status: "completed".into(), result: Some("done".into()), finished_at: None, task: None }),
        sealed: SealedCall::None,
        tries: vec![attempt(1, "refused", Some(503)), attempt(2, "completed", Some(200))],
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
            states: if filtered { Vec::new() } else { vec![State::Delivered] },
        },
        strength: "signed".into(),
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
    let text = format!("[sources.triage]\nprovider = \"github\"\nsecrets = [\"literal:{SECRET}\"]\nagent = \"a1\"\n");
    let config = Config::parse("t", &text, std::path::Path::new("."), std::iter::empty(), &problems).unwrap();
    let inbox = Arc::new(Memory::default());
    *inbox.events.lock().unwrap() =
        vec![event(4, "gone", false), event(3, "triage", true), event(2, "triage", false), event(1, "triage", false)];
    let samples = Arc::new(RefusedSamples::default());
    samples.keep(RefusedSample {
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
    });
    let compiled = Arc::new(Sources::compile(&config, &Problems::default()));
    let state = AdminState::new(
        &config,
        compiled,
        inbox.clone(),
        Arc::new(Metrics::new()),
        samples,
        Secret::new("admin.token", TOKEN),
        Clock::stopped(NOW),
        Arc::new(AtomicBool::new(true)),
    );
    World { inbox, state: Arc::new(state) }
}

impl World {
    /// Sends a request with these headers and nothing else.
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = router(self.state.clone()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        for secret in [TOKEN, SECRET, "inbox.db"] {
            assert!(!body.contains(secret) && !format!("{:?}", head.headers).contains(secret), "{path}: {body}");
        }
        assert_eq!(head.headers["cache-control"], "no-store", "{path}");
        assert_eq!(head.headers["x-content-type-options"], "nosniff", "{path}");
        assert!(!head.headers.contains_key("server"));
        (head.status, head.headers, body)
    }

    /// As an operator does; the path is below `/api/v1`.
    async fn ask(&self, method: Method, path: &str) -> (u16, Value) {
        let token = format!("Bearer {TOKEN}");
        let headers = [("host", "127.0.0.1:8081"), ("authorization", token.as_str())];
        let (status, _, body) = self.send(method, &format!("/api/v1{path}"), &headers).await;
        (status.as_u16(), serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path).await
    }
}

/// Every route, with its method.
fn routes() -> Vec<(Method, String)> {
    let get = ["", "/events", "/sources", "/refused", "/metrics"].map(|path| (Method::GET, format!("/api/v1{path}")));
    let mut all = Vec::from(get);
    all.push((Method::GET, format!("/api/v1/events/{}", id(1))));
    all.push((Method::POST, format!("/api/v1/events/{}/replay", id(1))));
    all.push((Method::POST, format!("/api/v1/deliveries/{}/cancel", first_of(1))));
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
            vec![host, ("authorization", "Bearer the-admin-token"), ("authorization", "Bearer x")],
        ] {
            let (status, headers, body) = world.send(method.clone(), &path, &headers).await;
            assert_eq!((status.as_u16(), headers["www-authenticate"].as_bytes()), (401, &b"Bearer"[..]), "{path}");
            assert!(body.contains("\"code\":\"unauthorized\""), "{body}");
        }
        assert_eq!(world.inbox.events.lock().unwrap()[3].deliveries.len(), 1, "{path} changed something");
    }
    let (status, ..) = world().send(Method::GET, "/api/v1/health/live", &[host]).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn t97_guesses_are_slowed_down_and_the_right_token_still_passes() {
    let world = world();
    let wrong = [("host", "localhost"), ("authorization", "Bearer wrong")];
    for _ in 0..GUESSES {
        assert_eq!(world.send(Method::GET, "/api/v1/events", &wrong).await.0, 401);
    }
    let (status, headers, _) = world.send(Method::GET, "/api/v1/events", &wrong).await;
    assert_eq!((status.as_u16(), headers["retry-after"].to_str().unwrap()), (429, "60"));
    assert_eq!(world.get("/events").await.0, 200);
    world.state.clock.advance(MINUTE);
    assert_eq!(world.send(Method::GET, "/api/v1/events", &wrong).await.0, 401);
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
        (vec![ours, ("origin", "http://127.0.0.1:3000")], "cross_site"),
        (vec![ours, ("origin", "null")], "cross_site"),
    ] {
        for path in ["/api/v1/events", "/api/v1/health/live", "/api/v1/nothing"] {
            let headers = [&wrong[..], &[("authorization", &token)]].concat();
            let (status, _, body) = world.send(Method::GET, path, &headers).await;
            assert_eq!(status, 403, "{headers:?}");
            assert!(body.contains(code), "{headers:?}: {body}");
        }
    }
    let (status, ..) = world.send(Method::GET, "http://evil.example/api/v1/health/live", &[ours]).await;
    assert_eq!(status, 403);
    let page =
        [ours, ("origin", "http://127.0.0.1:8081"), ("sec-fetch-site", "same-origin"), ("authorization", &token)];
    assert_eq!(world.send(Method::GET, "/api/v1/events", &page).await.0, 200);
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
    assert_eq!((page["items"][0]["id"].clone(), page["next_cursor"].clone()), (json!(id(1).to_string()), Value::Null));

    for (query, expected) in [
        ("source=triage", 3),
        ("source=nobody", 0),
        ("state=dead", 0),
        ("filtered=true", 1),
        ("since=2027-01-15T08:00:03Z", 2),
        ("until=2027-01-15T08:00:03Z", 2),
    ] {
        let (status, page) = world.get(&format!("/events?{query}")).await;
        assert_eq!((status, page["items"].as_array().unwrap().len()), (200, expected), "{query}");
    }
    for query in
        ["cursor=1", "cursor=", "limit=0", "limit=-1", "limit=201", "state=accepted", "sate=dead", "limit=1&limit=2"]
    {
        let (status, answer) = world.get(&format!("/events?{query}")).await;
        assert_eq!((status, answer["code"].as_str()), (400, Some("bad_query")), "{query}");
    }
}

#[tokio::test]
async fn an_event_shows_where_each_value_came_from_and_what_became_of_it() {
    let world = world();
    let (status, event) = world.get(&format!("/events/{}", id(1))).await;
    assert_eq!(status, 200);
    assert_eq!(event["verification"], json!({ "strength": "signed", "secret": "literal 1" }));
    assert_eq!(
        event["params"][0],
        json!({
            "name": "prompt", "value": "<b>9007199254740993</b>\u{1b}[2J", "value_cut": false,
            "origin": { "from": "mapping", "path": "issue.title" }, "over": [{ "from": "query" }],
        })
    );
    assert_eq!((&event["body"], &event["body_bytes"]), (&json!("{\"n\":9007199254740993}"), &json!(22)));
    assert_eq!(event["headers"], json!([["content-type", "application/json"]]));
    let delivery = &event["deliveries"][0];
    assert_eq!((&delivery["state"], &delivery["destination"]), (&json!("delivered"), &json!("agent/a1")));
    assert_eq!(delivery["answer"]["result"], "done");
    assert_eq!(delivery["attempts"][0]["status"], 503);
    assert_eq!(delivery["attempts"][1]["ended_at"], "2027-01-15T08:00:02.250Z");

    for (body, text, cut) in
        [(vec![0xff; 300_000], false, true), ("é".repeat(150_000).into_bytes(), true, true), (Vec::new(), true, false)]
    {
        world.inbox.events.lock().unwrap()[3].body = body.clone().into();
        let (_, event) = world.get(&format!("/events/{}", id(1))).await;
        assert_eq!((event["body"].is_string(), event["body_base64"].is_string()), (text, !text));
        assert_eq!((&event["body_bytes"], &event["body_cut"]), (&json!(body.len()), &json!(cut)));
    }
    for path in [format!("/events/{}", id(9)), "/events/evt_1".into(), "/events/%ff".into(), "/events/..%2f".into()] {
        let (status, answer) = world.get(&path).await;
        assert_eq!((status, answer["code"].as_str()), (404, Some("not_found")), "{path}");
    }
}

#[tokio::test]
async fn a_callers_own_call_is_replayed_as_it_was_made_while_it_is_there() {
    let world = world();
    let replay = format!("/events/{}/replay", id(1));
    let first = |change: &dyn Fn(&mut DeliveryDetail)| change(&mut world.inbox.events.lock().unwrap()[3].deliveries[0]);
    first(&|delivery| delivery.sealed = SealedCall::Erased);
    let (status, answer) = world.ask(Method::POST, &replay).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("call_erased")));
    first(&|delivery| (delivery.sealed, delivery.state) = (SealedCall::Kept, State::Unknown));
    assert_eq!(world.ask(Method::POST, &replay).await.0, 202);
    let deliveries = world.inbox.events.lock().unwrap()[3].deliveries.clone();
    assert_eq!(deliveries[1].upstream_id, deliveries[0].upstream_id, "the id is part of the call");
}

#[tokio::test]
async fn a_replay_owes_a_new_delivery_and_leaves_the_old_one() {
    let world = world();
    let replay = async |number| world.ask(Method::POST, &format!("/events/{}/replay", id(number))).await;
    let second = DeliveryId { event: id(1), number: 1 };
    assert_eq!(replay(1).await, (202, json!({ "event": id(1), "deliveries": [second] })));
    let deliveries = world.inbox.events.lock().unwrap()[3].deliveries.clone();
    assert_eq!((deliveries[0].state, deliveries[1].state), (State::Delivered, State::Pending));
    assert_eq!(deliveries[1].upstream_id, second.as_uuid().to_string(), "it is a run of its own");
    // What a filter held back may be passed on by hand.
    assert_eq!(replay(3).await.1["deliveries"], json!([first_of(3)]));

    let (status, answer) = replay(4).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("source_gone")));
    assert!(answer["detail"].as_str().unwrap().contains("gone"), "{answer}");
    assert_eq!(replay(9).await.0, 404);
    let replay = format!("/events/{}/replay", id(9));
    for _ in 4..REPLAYS {
        assert_eq!(world.ask(Method::POST, &replay).await.0, 404);
    }
    assert_eq!(world.ask(Method::POST, &replay).await.1["code"], "too_many_replays");
}

#[tokio::test]
async fn only_a_pending_delivery_is_cancelled() {
    let world = world();
    let cancel = async |id: &str| world.ask(Method::POST, &format!("/deliveries/{id}/cancel")).await;
    world.ask(Method::POST, &format!("/events/{}/replay", id(1))).await;
    let second = DeliveryId { event: id(1), number: 1 }.to_string();
    assert_eq!(cancel(&second).await, (200, json!({ "id": second, "state": "cancelled" })));
    let (status, answer) = cancel(&second).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("not_pending")));
    assert!(answer["detail"].as_str().unwrap().contains("cancelled"), "{answer}");
    for unknown in [first_of(9).to_string(), DeliveryId { event: id(1), number: 7 }.to_string(), "dlv_1".into()] {
        assert_eq!(cancel(&unknown).await.0, 404, "{unknown}");
    }
}

#[tokio::test]
async fn sources_show_names_of_secrets_and_counts_of_deliveries() {
    let (_, list) = world().get("/sources").await;
    let source = &list["items"][0];
    assert_eq!((&source["path"], &source["destination"]), (&json!("/hooks/triage"), &json!("agent/a1")));
    assert_eq!(source["secrets"], json!(["literal 1"]));
    assert_eq!((&source["counts"]["pending"], &source["counts"]["dead"]), (&json!(7), &json!(0)));
    assert_eq!((&list["items"][1]["name"], &list["items"][1]["configured"]), (&json!("old"), &json!(false)));
}

#[tokio::test]
async fn refused_requests_are_listed_with_their_reason() {
    let world = world();
    let (_, list) = world.get("/refused?source=triage").await;
    assert_eq!((&list["items"][0]["reason"], &list["items"][0]["cause"]), (&json!("stale"), &json!("too old")));
    assert_eq!(world.get("/refused?source=nobody").await.1["items"], json!([]));
    assert_eq!(world.get("/refused?source=").await.0, 400);
}

#[tokio::test]
async fn metrics_hold_what_the_inbox_holds_and_outlive_its_illness() {
    let world = world();
    let (status, text) = world.get("/metrics").await;
    let text = text.as_str().unwrap();
    assert_eq!(status, 200);
    assert!(text.contains(r#"sluicegate_inbox_deliveries{source="triage",state="pending"} 7"#), "{text}");
    assert!(text.contains(r#"sluicegate_inbox_deliveries{source="triage",state="dead"} 0"#), "{text}");
    world.inbox.ill.store(true, Ordering::Relaxed);
    assert_eq!(world.get("/metrics").await.0, 200);
    assert_eq!(
        world.get("/sources").await,
        (500, json!({ "detail": "The inbox failed; the log says why.", "code": "inbox_failed" }))
    );
}

#[tokio::test]
async fn it_is_ready_only_while_events_can_be_kept() {
    let world = world();
    assert_eq!(world.get("/health/ready").await, (200, json!({ "status": "ready" })));
    world.inbox.ill.store(true, Ordering::Relaxed);
    assert_eq!(world.get("/health/ready").await, (503, json!({ "status": "unready", "reason": "no_space" })));
    world.state.serving.store(false, Ordering::Relaxed);
    assert_eq!(world.get("/health/ready").await.1["reason"], "draining");
    assert_eq!(world.get("/health/live").await.0, 200);
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_said_plainly() {
    let world = world();
    for path in ["/nothing", "/events/", "/hooks/triage", "/health"] {
        let (status, answer) = world.get(path).await;
        assert_eq!((status, answer["code"].as_str()), (404, Some("no_such_path")), "{path}");
    }
    let token = format!("Bearer {TOKEN}");
    let headers = [("host", "[::1]:8081"), ("authorization", token.as_str())];
    for (method, path, allowed) in [
        (Method::DELETE, "/api/v1/events".to_owned(), "GET,HEAD"),
        (Method::GET, format!("/api/v1/events/{}/replay", id(1)), "POST"),
        (Method::POST, "/api/v1/health/live".to_owned(), "GET,HEAD"),
    ] {
        let (status, headers, body) = world.send(method, &path, &headers).await;
        assert_eq!((status.as_u16(), headers["allow"].to_str().unwrap()), (405, allowed), "{path}");
        assert!(body.contains("method_not_allowed"), "{body}");
    }
}
