//! Answers of the admin API, the metrics and the log of the story.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};
use sluicegate::net::Client;

use super::Snapshot;
use super::mask::Mask;
use super::story::Story;
use crate::world::{TOKEN, wait_for};

/// Asks the listener and puts every answer down.
struct Asker<'s> {
    story: &'s Story,
    client: Client,
    mask: Mask,
    snapshot: Snapshot,
}

impl Asker<'_> {
    /// Sends a request with the token; a body goes as JSON.
    async fn ask(&mut self, method: Method, path: &str, body: &str) {
        let bearer = format!("Bearer {TOKEN}");
        self.send(method, path, &[("authorization", &bearer)], body)
            .await;
    }

    async fn get(&mut self, path: &str) {
        self.ask(Method::GET, path, "").await;
    }

    async fn post(&mut self, path: &str, body: Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.ask(Method::POST, path, &body).await;
    }

    /// Sends a request with these headers alone.
    async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) {
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("http://{}{path}", self.story.gateway.admin));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Bytes::from(body.to_owned()))
            .expect("a request");
        let answer = self
            .client
            .send(request, Duration::from_secs(30), 1 << 26)
            .await
            .expect("the admin API answers");
        let mut text = format!("{}\n", answer.status().as_u16());
        let mut names: Vec<_> = answer
            .headers()
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "date" | "content-length"))
            .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        names.sort();
        text.extend(names);
        let body_text = String::from_utf8_lossy(answer.body()).into_owned();
        match serde_json::from_slice::<Value>(answer.body()) {
            Ok(json) => {
                assert_eq!(
                    json.to_string(),
                    body_text,
                    "JSON without blanks, so that it is the same byte for byte"
                );
                text.push_str(&format!("{json:#}\n"));
            }
            Err(_) => text.push_str(&body_text),
        }
        let body = if body.len() > 500 { "(long)" } else { body };
        let title = self
            .mask
            .apply(format!("{method} {path} {body}").trim_end());
        let text = self.mask.apply(&text);
        self.snapshot.add(&title, &text);
    }
}

/// Every route, its answers and its refusals.
pub(super) async fn all(story: &Story) -> Snapshot {
    let mut asker = Asker {
        story,
        client: Client::new(Duration::from_secs(5), None).expect("a client"),
        mask: Mask::new(&story.folder()),
        snapshot: Snapshot::new("admin.txt"),
    };
    guards(&mut asker).await;
    reading(&mut asker).await;
    holding(&mut asker).await;
    replaying(&mut asker).await;
    settling(&mut asker).await;
    secrets(&mut asker).await;
    asker.snapshot
}

async fn guards(asker: &mut Asker<'_>) {
    let bearer = format!("Bearer {TOKEN}");
    let all = [
        (Method::GET, "/api/v1/health/live", vec![]),
        (Method::GET, "/api/v1/health/ready", vec![]),
        (Method::POST, "/api/v1/health/live", vec![]),
        (Method::GET, "/api/v1/events", vec![]),
        (
            Method::GET,
            "/api/v1/events",
            vec![("authorization", "Bearer wrong")],
        ),
        (Method::GET, "/api/v1/metrics", vec![]),
        (
            Method::GET,
            "/api/v1/events",
            vec![("authorization", bearer.as_str()), ("host", "evil.example")],
        ),
        (
            Method::GET,
            "/api/v1/events",
            vec![
                ("authorization", &bearer),
                ("origin", "https://evil.example"),
            ],
        ),
        (
            Method::GET,
            "/api/v1/events",
            vec![("authorization", &bearer), ("sec-fetch-site", "cross-site")],
        ),
        (Method::GET, "/api/v1/nothing", vec![]),
        (Method::GET, "/", vec![]),
        (
            Method::DELETE,
            "/api/v1/events",
            vec![("authorization", &bearer)],
        ),
        (
            Method::GET,
            "/api/v1/pause",
            vec![("authorization", &bearer)],
        ),
        (
            Method::OPTIONS,
            "/api/v1/events",
            vec![("authorization", &bearer)],
        ),
    ];
    for (method, path, headers) in all {
        asker.send(method, path, &headers, "").await;
    }
}

async fn reading(asker: &mut Asker<'_>) {
    let story = asker.story;
    // Bodies come into the index of words a moment after their events.
    wait_for("the words of bodies to be found", async || {
        let found = story.gateway.admin_json("/events?text=hello").await;
        found["items"].get(0).map(|_| ())
    })
    .await;
    let (refused, file) = (story.refused.clone(), story.with_file.clone());
    let mut paths: Vec<String> = [
        "",
        "/status",
        "/events",
        "/events?limit=2",
        "/events?source=talks&state=dead&order=oldest",
        "/events?open=true",
        "/events?filtered=true",
        "/events?type=issues.opened&since=2026-01-01T00:00:00Z",
        "/events?text=hello",
        "/events?thread=t1",
        "/events?dedup=d-1",
        "/events?destination=agent/talker",
        "/events?source=talk",
        "/events?state=gone",
        "/events?limit=0",
        "/events?limit=2&limit=3",
        "/events?colour=red",
        "/events?since=yesterday",
        "/events?cursor=AA",
        "/events?order=best",
        "/events?open=1",
        "/events?destination=talker",
        "/events?text=%27--",
        "/events/evt_00",
        "/events/evt_00000000000000000000000000000000",
        "/events/nothing",
        "/sources",
        "/destinations",
        "/refused",
        "/refused?source=hub&limit=1",
        "/refused?source=hubb",
        "/refused?limit=1025",
        "/refused?since=x",
        "/refused/req_00000000",
        "/refused/nothing",
        "/attachments",
        "/attachments?limit=1",
        "/attachments?limit=x",
        "/budgets",
        "/keys",
        "/replays",
        "/replays/1",
        "/replays/x",
        "/sources/hub/secrets",
        "/sources/tasks/secrets",
        "/sources/none/secrets",
    ]
    .map(str::to_owned)
    .into();
    for id in [
        &story.delivered,
        &story.dead,
        &story.unknown,
        &story.unmappable,
        &story.pending,
        &story.held,
        &file,
    ] {
        paths.push(format!("/events/{id}"));
    }
    paths.push(format!("/events/{}/body", story.delivered));
    paths.push(format!("/events/{}", &story.delivered[..4 + 28]));
    paths.push(format!("/refused/{refused}"));
    for path in paths {
        asker.get(&format!("/api/v1{path}")).await;
    }
}

async fn holding(asker: &mut Asker<'_>) {
    for path in [
        "/pause",
        "/pause",
        "/resume",
        "/resume",
        "/sources/talks/pause",
        "/sources/talks/pause",
        "/sources/talks/resume",
        "/sources/talk/pause",
        "/sources/talk/resume",
        "/destinations/agent/talker/pause",
        "/destinations/agent/talke/resume",
        "/destinations/agent/talker/resume",
        "/destinations/agent/nobody/pause",
        "/destinations/agent/nobody/pause?force=true",
        "/destinations/agent/nobody/resume?force=maybe",
        "/destinations/agent/nobody/resume",
        "/destinations/robot/x/pause",
        "/destinations/agent/talker/reset",
        "/destinations/agent/nobody/reset",
    ] {
        asker.post(&format!("/api/v1{path}"), Value::Null).await;
        if path == "/pause" || path == "/destinations/agent/talker/pause" {
            asker.get("/api/v1/status").await;
            asker.get("/api/v1/sources").await;
            asker.get("/api/v1/destinations").await;
            asker.get("/api/v1/health/ready").await;
        }
    }
}

async fn replaying(asker: &mut Asker<'_>) {
    let story = asker.story;
    let (dead, unmappable, file, held) = (
        &story.dead,
        &story.unmappable,
        &story.with_file,
        &story.held,
    );
    for path in ["/replays", "/replays/plan"] {
        for body in [
            json!({}),
            json!({ "filter": { "source": "talk" } }),
            json!({ "filter": { "state": "done" } }),
            json!({ "all": true, "pace": 0 }),
            json!({ "colour": 1 }),
            json!([]),
        ] {
            asker.post(&format!("/api/v1{path}"), body).await;
        }
        asker
            .ask(Method::POST, &format!("/api/v1{path}"), "{\"all\":")
            .await;
        asker
            .ask(
                Method::POST,
                &format!("/api/v1{path}"),
                &" ".repeat(65 * 1024),
            )
            .await;
    }
    asker
        .post(
            "/api/v1/replays/plan",
            json!({ "filter": { "state": "dead" } }),
        )
        .await;
    asker
        .post("/api/v1/replays/plan", json!({ "all": true, "pace": 6000 }))
        .await;
    asker
        .post(
            "/api/v1/replays",
            json!({ "filter": { "dedup": "no such" } }),
        )
        .await;
    for event in [dead, unmappable, file, &story.delivered] {
        asker
            .post(
                &format!("/api/v1/events/{event}/replay?dry_run=true"),
                Value::Null,
            )
            .await;
    }
    asker
        .post(
            &format!("/api/v1/events/{dead}/replay?dry_run=maybe"),
            Value::Null,
        )
        .await;
    for event in [unmappable.as_str(), "evt_00000000000000000000000000000000"] {
        asker
            .post(&format!("/api/v1/events/{event}/replay"), Value::Null)
            .await;
    }
    asker
        .post(&format!("/api/v1/events/{dead}/replay"), Value::Null)
        .await;
    story.gateway.settled(dead).await;
    asker
        .post(&format!("/api/v1/events/{held}/replay"), Value::Null)
        .await;

    let resend = format!("/api/v1/events/{}/resend", story.delivered);
    for body in [
        json!({ "body": "{\"text\":\"mended\",\"talk\":\"t1\"}" }),
        json!({ "body": "x", "body_base64": "eA==" }),
        json!({ "body_base64": "?" }),
        json!({ "body": "no json" }),
        json!({ "headers": { "a b": "c" } }),
        json!({ "headers": { "x-a": 1 } }),
    ] {
        asker
            .post(&format!("{resend}?dry_run=true"), body.clone())
            .await;
    }
    asker
        .post(
            &format!("/api/v1/events/{file}/resend"),
            json!({ "body": "x" }),
        )
        .await;
    asker
        .post(
            &resend,
            json!({ "body": "{\"text\":\"mended\",\"talk\":\"t1\"}", "headers": { "x-a": "b" } }),
        )
        .await;
    story.at_rest().await;

    asker
        .post(
            "/api/v1/replays",
            json!({ "filter": { "state": "dead" }, "pace": 6000 }),
        )
        .await;
    done(story, 1).await;
    asker.get("/api/v1/replays").await;
    asker.get("/api/v1/replays/1").await;
    for body in [
        json!({}),
        json!({ "state": "done" }),
        json!({ "pace": 6001 }),
        json!({ "state": "paused" }),
        json!({ "state": "cancelled" }),
    ] {
        asker.post("/api/v1/replays/1", body).await;
    }
    asker.post("/api/v1/replays/77", json!({ "pace": 1 })).await;
    asker
        .post(
            "/api/v1/replays",
            json!({ "filter": { "source": "hub" }, "pace": 1 }),
        )
        .await;
    wait_for("the first step of the second replay", async || {
        let job = story.gateway.admin_json("/replays/2").await;
        (job["done"].as_u64().unwrap_or(0) + job["skipped"].as_u64().unwrap_or(0) == 1)
            .then_some(())
    })
    .await;
    for body in [
        json!({ "state": "paused" }),
        json!({ "pace": 2 }),
        json!({ "state": "running" }),
    ] {
        asker.post("/api/v1/replays/2", body).await;
    }
    asker
        .post("/api/v1/replays/2", json!({ "state": "cancelled" }))
        .await;
    story.at_rest().await;
}

async fn done(story: &Story, number: u32) {
    wait_for("the replay to end", async || {
        let job = story
            .gateway
            .admin_json(&format!("/replays/{number}"))
            .await;
        (job["state"] == "done").then_some(())
    })
    .await;
    story.gateway.settled(&story.dead).await;
    story.at_rest().await;
}

async fn settling(asker: &mut Asker<'_>) {
    let story = asker.story;
    let of = |event: &str, number: u32| format!("/api/v1/deliveries/dlv_{}_{number}", &event[4..]);
    let (unknown, held, delivered) = (
        of(&story.unknown, 0),
        of(&story.held, 0),
        of(&story.delivered, 0),
    );
    for body in [
        json!({}),
        json!({ "as": "gone" }),
        json!({ "as": "dead", "note": "x".repeat(1001) }),
    ] {
        asker.post(&format!("{unknown}/settle"), body).await;
    }
    asker
        .post(&format!("{delivered}/settle"), json!({ "as": "dead" }))
        .await;
    asker
        .post(
            &format!("{unknown}/settle"),
            json!({ "as": "delivered", "note": "it ran" }),
        )
        .await;
    asker.post(&format!("{held}/cancel"), Value::Null).await;
    asker
        .post(&format!("{delivered}/cancel"), Value::Null)
        .await;
    for wrong in ["dlv_00000000000000000000000000000000_0", "dlv_x"] {
        asker
            .post(&format!("/api/v1/deliveries/{wrong}/cancel"), Value::Null)
            .await;
        asker
            .post(
                &format!("/api/v1/deliveries/{wrong}/settle"),
                json!({ "as": "dead" }),
            )
            .await;
    }
    let files = story.gateway.admin_json("/attachments").await;
    let file = files["items"][0]["id"].as_str().expect("an id").to_owned();
    asker
        .ask(Method::DELETE, &format!("/api/v1/attachments/{file}"), "")
        .await;
    asker
        .ask(Method::DELETE, &format!("/api/v1/attachments/{file}"), "")
        .await;
    asker.ask(Method::DELETE, "/api/v1/attachments/x", "").await;
    asker.get("/api/v1/attachments").await;
    asker.get("/api/v1/status").await;
    asker.get("/api/v1").await;
}

async fn secrets(asker: &mut Asker<'_>) {
    for path in [
        "/sources/tasks/enrol",
        "/sources/tasks/enrol?for=5min",
        "/sources/tasks/enrol?for=2000h",
        "/sources/talks/enrol",
        "/sources/nosuch/enrol",
        "/sources/tasks/enrol/confirm",
        "/sources/tasks/enrol/confirm?fingerprint=0123456789abcdef",
    ] {
        asker.post(&format!("/api/v1{path}"), Value::Null).await;
    }
    for path in ["/sources/tasks/enrol", "/sources/talks/enrol"] {
        asker.get(&format!("/api/v1{path}")).await;
    }
    for body in [
        json!({}),
        json!({ "since": "yesterday" }),
        json!({ "since": "1h", "until": "2h" }),
        json!({ "since": "2h", "colour": 1 }),
        json!({ "since": "2h", "dry_run": true }),
        json!({ "since": "2h" }),
        json!({ "since": "9999h" }),
    ] {
        asker.post("/api/v1/sources/log/reconcile", body).await;
    }
    for source in ["talks", "nosuch"] {
        asker
            .post(
                &format!("/api/v1/sources/{source}/reconcile"),
                json!({ "since": "2h" }),
            )
            .await;
    }
    asker.story.at_rest().await;
    asker.post("/api/v1/reload", Value::Null).await;
}

/// Names, help texts and labels of the metrics. Values and buckets are left out.
pub(super) async fn metrics(story: &Story) -> Snapshot {
    let answer = story.gateway.admin(Method::GET, "/metrics").await;
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    let line = |line: &str| {
        if line.starts_with('#') {
            return Some(line.to_owned());
        }
        let (series, _) = line.rsplit_once(' ')?;
        (!series.contains("_bucket{")).then(|| series.to_owned())
    };
    let lines: BTreeSet<String> = text.lines().filter_map(line).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    let mut snapshot = Snapshot::new("metrics.txt");
    snapshot.add(
        "metrics",
        &Mask::new(&story.folder()).apply(&lines.join("\n")),
    );
    snapshot
}

/// Every kind of log line once: its level, its message and its fields in their order.
pub(super) fn log_lines(story: &Story) -> Snapshot {
    let log = story.gateway.log();
    let kinds: BTreeSet<String> = log
        .lines()
        // What is written before the log begins are warnings about the configuration.
        .filter(|line| line.starts_with('{'))
        .map(|line| {
            let line: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let fields: Vec<&str> = line
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name.as_str())
                .collect();
            let audit = line["audit"]
                .as_str()
                .map_or(String::new(), |word| format!(" [{word}]"));
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {}{audit}: {}",
                text("level"),
                text("message"),
                fields.join(", ")
            )
        })
        .collect();
    let mut snapshot = Snapshot::new("log.txt");
    let kinds: Vec<String> = kinds.into_iter().collect();
    snapshot.add(
        "log lines",
        &Mask::new(&story.folder()).apply(&kinds.join("\n")),
    );
    snapshot
}
