//! The operator's listener over real sockets. Names carry the row of the threat page.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::world::{API_KEY, Gateway, TOKEN, Upstream, json as body_of, wait_for};

const OPEN: &str = "[sources.open]\nprovider = \"custom\"\nagent = \"a\"\nverify = { scheme = \"none\" }\n";

async fn asked(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> http::Response<Bytes> {
    let client = sluicegate::net::Client::new(Duration::from_secs(5), None).expect("a client");
    let mut request = Request::builder().method(Method::GET).uri(format!("http://{}{path}", gateway.admin));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client
        .send(request.body(Bytes::new()).expect("a request"), Duration::from_secs(10), 1 << 22)
        .await
        .expect("an answer")
}

#[tokio::test]
async fn t96_t97_t98_nothing_is_told_without_the_token_or_to_another_site() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, OPEN).await;
    let bearer = format!("Bearer {TOKEN}");
    for path in ["/api/v1/events", "/api/v1/sources", "/api/v1/metrics", "/api/v1/refused"] {
        assert_eq!(asked(&gateway, path, &[]).await.status(), 401, "{path}");
        assert_eq!(asked(&gateway, path, &[("authorization", &bearer)]).await.status(), 200, "{path}");
        let evil = [("authorization", bearer.as_str()), ("host", "evil.example")];
        assert_eq!(asked(&gateway, path, &evil).await.status(), 403, "{path}");
        let cross = [("authorization", bearer.as_str()), ("origin", "https://evil.example")];
        assert_eq!(asked(&gateway, path, &cross).await.status(), 403, "{path}");
    }
    for _ in 0..12 {
        asked(&gateway, "/api/v1/events", &[("authorization", "Bearer wrong")]).await;
    }
    let answer = asked(&gateway, "/api/v1/events", &[("authorization", "Bearer wrong")]).await;
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(asked(&gateway, "/api/v1/events", &[("authorization", &bearer)]).await.status(), 200);
}

#[tokio::test]
async fn t106_health_and_metrics_tell_no_internals() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, OPEN).await;
    for path in ["/api/v1/health/live", "/api/v1/health/ready"] {
        let answer = asked(&gateway, path, &[]).await;
        assert_eq!(answer.status(), 200, "{path}: {:?}", answer.body());
        assert!(!answer.headers().contains_key("server"));
    }
    let answer = gateway.post("/hooks/open", &[], r#"{"a":1}"#).await;
    gateway.settled(body_of(&answer)["event_id"].as_str().expect("an id")).await;
    assert_eq!(gateway.metric(r#"sluicegate_inbox_deliveries{source="open",state="delivered"}"#).await, 1.0);
    assert_eq!(gateway.metric(r#"sluicegate_attempts_total{result="completed",source="open"}"#).await, 1.0);
}

#[tokio::test]
async fn pages_go_on_where_the_one_before_ended() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, OPEN).await;
    for number in 0..7 {
        assert_eq!(gateway.post("/hooks/open", &[], format!("{{\"n\":{number}}}")).await.status(), 202);
    }
    let mut seen = Vec::new();
    let mut path = "/events?limit=3".to_owned();
    loop {
        let page = gateway.admin_json(&path).await;
        seen.extend(page["items"].as_array().expect("a list").iter().map(|event| event["id"].to_string()));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/events?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 7);
    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 7);
    assert_eq!(gateway.admin(Method::GET, "/events?cursor=nonsense").await.status(), 400);
}

/// Conversations, one try each.
const TALKS: &str = r#"
[dispatch]
max_attempts = 1
[sources.talks]
provider = "custom"
agent = "a"
verify = { scheme = "none", event_id = "json:id", event_type = "json:kind" }
params_mapping = { prompt = "text" }
thread = "talk"
"#;

async fn say(gateway: &Gateway, id: u32, talk: &str, text: &str) -> String {
    let event = json!({ "id": id, "kind": "said", "talk": talk, "text": text });
    let answer = gateway.post("/hooks/talks", &[], event.to_string()).await;
    assert_eq!(answer.status(), 202, "{:?}", answer.body());
    body_of(&answer)["event_id"].as_str().expect("an id").to_owned()
}

async fn ended(gateway: &Gateway, job: &Value) -> Value {
    wait_for("the replay to end", async || {
        let job = gateway.admin_json(&format!("/replays/{}", job["id"])).await;
        (job["state"] == "done").then_some(job)
    })
    .await
}

fn texts(runs: &[Value]) -> Vec<String> {
    let text = |run: &Value| run["input"]["text"].as_str().or(run["text"].as_str()).unwrap_or_default().to_owned();
    runs.iter().map(text).collect()
}

#[tokio::test]
async fn t103_what_is_dead_is_replayed_in_bulk_once_in_order_and_with_a_record() {
    let upstream = Upstream::start(&["--fail", "422=1/1"]).await;
    let gateway = Gateway::start(upstream.address, TALKS).await;
    let mut ids = Vec::new();
    for number in 0..30 {
        ids.push(say(&gateway, number, if number % 3 == 0 { "a" } else { "b" }, &format!("n{number:02}")).await);
    }
    for id in &ids {
        assert_eq!(gateway.settled(id).await["deliveries"][0]["state"], "dead");
    }
    upstream.set(json!({ "fail": [] })).await;
    let fine = say(&gateway, 30, "c", "fine").await;
    gateway.settled(&fine).await;

    let wanted = json!({ "filter": { "source": "talks", "state": "dead", "type": "said" }, "pace": 6000 });
    let (status, plan) = gateway.tell("/replays/plan", wanted.clone()).await;
    assert_eq!((status, &plan["count"], &plan["left_out"]), (200, &json!(30), &json!([])), "{plan:#}");
    assert_eq!((&plan["oldest"]["id"], &plan["newest"]["id"]), (&json!(ids[0]), &json!(ids[29])));
    let (status, job) = gateway.tell("/replays", wanted.clone()).await;
    assert_eq!(status, 202, "{job:#}");
    let job = ended(&gateway, &job).await;
    assert_eq!((&job["done"], &job["skipped"], &job["total"]), (&json!(30), &json!(0), &json!(30)));
    for id in &ids {
        let event = gateway.settled(id).await;
        let states: Vec<&Value> = event["deliveries"].as_array().expect("a list").iter().map(|d| &d["state"]).collect();
        assert_eq!(states, ["dead", "delivered"], "the old delivery stays");
    }
    let runs = texts(&upstream.runs().await);
    for talk in [0, 1] {
        let of_talk: Vec<&String> = runs
            .iter()
            .filter(|text| {
                text.strip_prefix('n').is_some_and(|n| (n.parse::<u32>().expect("a number") % 3 == 0) == (talk == 0))
            })
            .collect();
        assert!(of_talk.is_sorted() && of_talk.len() >= 10, "{of_talk:?}");
    }
    assert_eq!(runs.iter().filter(|text| text.starts_with('n')).count(), 30);

    // Once more: everything was replayed since.
    let (_, job) = gateway.tell("/replays", wanted).await;
    let job = ended(&gateway, &job).await;
    assert_eq!((&job["done"], &job["skipped"]), (&json!(0), &json!(30)));
    let log = gateway.log();
    assert_eq!(log.matches(r#""audit":"replay.begin""#).count(), 2, "{log}");
}

#[tokio::test]
async fn a_replay_goes_on_after_a_kill_and_owes_nothing_twice() {
    let upstream = Upstream::start(&["--fail", "422=1/1"]).await;
    let gateway = Gateway::start(upstream.address, TALKS).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(say(&gateway, number, &number.to_string(), "x").await);
    }
    for id in &ids {
        gateway.settled(id).await;
    }
    upstream.set(json!({ "fail": [] })).await;
    let (_, job) = gateway.tell("/replays", json!({ "filter": { "state": "dead" }, "pace": 300 })).await;
    wait_for("some of it", async || {
        let job = gateway.admin_json(&format!("/replays/{}", job["id"])).await;
        (job["done"].as_u64() >= Some(5)).then_some(())
    })
    .await;
    let folder = gateway.kill();
    let gateway = Gateway::start_in(folder, upstream.address, TALKS).await;
    let (_, paused) = gateway.tell(&format!("/replays/{}", job["id"]), json!({ "state": "paused" })).await;
    assert_eq!((&paused["state"], &paused["eta"]), (&json!("paused"), &Value::Null), "{paused:#}");
    gateway.tell(&format!("/replays/{}", job["id"]), json!({ "state": "running", "pace": 6000 })).await;
    let job = ended(&gateway, &job).await;
    assert_eq!(job["done"].as_u64().zip(job["skipped"].as_u64()), Some((20, 0)), "{job:#}");
    for id in &ids {
        let event = gateway.settled(id).await;
        assert_eq!(event["deliveries"].as_array().map(Vec::len), Some(2), "{event:#}");
    }
    assert_eq!(upstream.runs().await.len(), 20);
}

#[tokio::test]
async fn what_is_paused_is_kept_and_goes_out_in_order_when_it_is_resumed() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, TALKS).await;
    for path in ["/sources/talks", "/destinations/agent/a"] {
        assert_eq!(gateway.admin(Method::POST, &format!("{path}/pause")).await.status(), 200, "{path}");
        let before = upstream.runs().await.len();
        let ids = [say_fresh(&gateway, path, 1).await, say_fresh(&gateway, path, 2).await];
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(upstream.runs().await.len(), before, "{path}: nothing goes out");
        let list = gateway.admin_json(if path.starts_with("/s") { "/sources" } else { "/destinations" }).await;
        assert!(list["items"][0]["paused_since"].is_string(), "{list:#}");
        assert_eq!(gateway.admin(Method::POST, &format!("{path}/resume")).await.status(), 200, "{path}");
        for id in &ids {
            assert_eq!(gateway.settled(id).await["deliveries"][0]["state"], "delivered");
        }
        let runs = texts(&upstream.runs().await);
        assert_eq!(runs[before..], [format!("{path} 1"), format!("{path} 2")]);
    }
}

async fn say_fresh(gateway: &Gateway, path: &str, number: u32) -> String {
    let id = number + u32::try_from(path.len()).expect("small") * 100;
    say(gateway, id, "t", &format!("{path} {number}")).await
}

#[tokio::test]
async fn a_dry_run_is_the_request_that_then_goes_out_without_its_key() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, TALKS).await;
    let id = say(&gateway, 1, "t", "hello").await;
    gateway.settled(&id).await;
    let (status, shown) = gateway.tell(&format!("/events/{id}/replay?dry_run=true"), json!({})).await;
    assert_eq!((status, &shown["request"]["path"]), (200, &json!("/v1/agents/a/invoke")), "{shown:#}");
    assert!(!shown.to_string().contains(API_KEY));
    assert_eq!(upstream.runs().await.len(), 1);
    gateway.tell(&format!("/events/{id}/replay"), json!({})).await;
    gateway.settled(&id).await;
    let runs = upstream.runs().await;
    assert_eq!(runs[1]["id"], shown["request"]["body"]["id"], "{runs:#?}");

    let (status, made) =
        gateway.tell(&format!("/events/{id}/resend"), json!({ "body": "{\"text\":\"mended\"}" })).await;
    assert_eq!(status, 202, "{made:#}");
    let event = gateway.settled(made["event"].as_str().expect("an id")).await;
    assert_eq!((&event["verification"]["strength"], &event["resent_from"]), (&json!("operator"), &json!(id)));
    assert_eq!(texts(&upstream.runs().await).last().map(String::as_str), Some("mended"));
    assert!(gateway.log().contains(r#""audit":"event.resend""#));
}
