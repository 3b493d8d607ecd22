//! Synchronous answers: waits, links, calls that are passed on, and the ways a run is made. Calls that callers made
//! themselves, closed in the inbox.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sluicegate::config::{RunMode, Secret};
use sluicegate::inbox::seal::Sealer;
use sluicegate::inbox::sqlite::{SqliteInbox, SqliteOptions};
use sluicegate::inbox::{Accept as _, Upkeep as _};
use sluicegate::model::{
    Accepted, Account, Class, DeliveryId, Destination, EventId, NewDelivery, NewEvent, Params,
    Strength, Timestamp,
};
use sluicegate::upstream::{Call, InvokeBody};

use crate::world::{API_KEY, Gateway, TOKEN, Upstream, json, signal, wait_for};

/// A source with these settings.
fn source(settings: &str) -> String {
    format!(
        r#"
[dispatch]
backoff = "50ms"
backoff_max = "200ms"
[sources.s]
provider = "custom"
agent = "a"
verify = {{ scheme = "none", event_id = "json:id" }}
params_mapping = {{ prompt = "text", task_id = "chat" }}
{settings}
"#
    )
}

fn body(id: &str, text: &str) -> String {
    json!({"id": id, "text": text}).to_string()
}

/// The path and query of a status link.
fn path_of(answer: &Value) -> String {
    let url = answer["status_url"].as_str().expect("a link");
    url.strip_prefix("https://hooks.example.com")
        .expect("at the public address")
        .to_owned()
}

async fn shown(gateway: &Gateway, link: &str) -> Value {
    let answer = gateway.send(Method::GET, link, &[], "").await;
    assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
    assert_eq!(answer.headers()["cache-control"], "no-store");
    json(&answer)
}

async fn shown_at_the_end(gateway: &Gateway, link: &str) -> Value {
    wait_for("the link to show an end", async || {
        let shown = shown(gateway, link).await;
        (!matches!(shown["status"].as_str(), Some("pending" | "running"))).then_some(shown)
    })
    .await
}

#[tokio::test]
async fn a_wait_answers_with_the_run_and_what_the_source_wants_of_it() {
    let upstream = Upstream::start(&["--delay", "300ms"]).await;
    let ask = r#"hi [[stub result={"summary":"up 15%","n":1.50}]]"#;
    for (settings, wanted) in [
        ("getter = \"result.summary\"", json!("up 15%")),
        ("getter = \"result.nothing\"", Value::Null),
        ("getter = \"status\"", json!("completed")),
        (
            "getter = \"result\"\njson = true",
            json!({"summary": "up 15%", "n": 1.5}),
        ),
    ] {
        let gateway = Gateway::start(
            upstream.address,
            &source(&format!("respond = \"wait\"\n{settings}")),
        )
        .await;
        let answer = gateway.post("/hooks/s", &[], body("1", ask)).await;
        assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
        assert_eq!(
            json(&answer).to_string(),
            wanted.to_string().replace("1.5}", "1.50}"),
            "{settings}"
        );
        assert!(answer.headers().contains_key("sluicegate-event-id"));
    }
    let gateway = Gateway::start(upstream.address, &source("respond = \"wait\"")).await;
    let begun = Instant::now();
    let answer = gateway.post("/hooks/s", &[], body("1", "hello")).await;
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "told, not polled: {:?}",
        begun.elapsed()
    );
    let task = json(&answer);
    assert_eq!(
        (&task["status"], &task["result"]),
        (&json!("completed"), &json!("echo: hello"))
    );
    assert!(
        task["organization_id"].is_string(),
        "the whole object, as the upstream wrote it: {task}"
    );
}

#[tokio::test]
async fn a_wait_that_runs_out_gives_a_link_that_shows_the_end_of_the_one_run() {
    let upstream = Upstream::start(&["--delay", "1s"]).await;
    let settings = "respond = \"wait\"\nwait_timeout = \"200ms\"\ngetter = \"result\"";
    let gateway = Gateway::start(upstream.address, &source(settings)).await;
    let answer = gateway.post("/hooks/s", &[], body("1", "hello")).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED, "{:?}", answer.body());
    let later = json(&answer);
    assert_eq!(later["status"], "accepted");
    let link = path_of(&later);
    let now = shown(&gateway, &link).await;
    assert_eq!(
        (&now["status"], &now["event_id"]),
        (&json!("running"), &later["event_id"]),
        "{now}"
    );
    assert!(now.get("task").is_none());
    let then = shown_at_the_end(&gateway, &link).await;
    assert_eq!(
        then,
        json!({"event_id": later["event_id"], "status": "delivered", "task": "echo: hello"})
    );
    assert_eq!(upstream.runs().await.len(), 1);

    // Nobody else sees it, or learns that there is something to see.
    let id = later["event_id"].as_str().expect("an id");
    let nothing = json(&gateway.send(Method::GET, "/nothing/here", &[], "").await);
    let other = EventId::new();
    let token = link.split_once("token=").expect("a token").1;
    for wrong in [
        format!("/events/{id}"),
        format!("/events/{id}?token="),
        format!("/events/{id}?token={}x", &token[..token.len() - 1]),
        format!("/events/{id}?token=&token={token}"),
        format!("/events/{other}?token={token}"),
        format!("/events/x?token={token}"),
    ] {
        let answer = gateway.send(Method::GET, &wrong, &[], "").await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{wrong}");
        let said = json(&answer);
        assert_eq!(
            (&said["detail"], &said["code"]),
            (&nothing["detail"], &nothing["code"]),
            "{wrong}"
        );
    }
    assert_eq!(
        gateway.post(&link, &[], "").await.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert!(!gateway.log().contains(token), "no token in the log");
}

#[tokio::test]
async fn a_double_waits_for_the_first_one_and_gets_its_answer() {
    let upstream = Upstream::start(&["--delay", "600ms"]).await;
    let gateway = Gateway::start(upstream.address, &source("respond = \"wait\"")).await;
    let body = body("same", "hello");
    let [first, second, third] = [0; 3].map(|_| gateway.post("/hooks/s", &[], body.clone()));
    let (first, second, third) = tokio::join!(first, second, third);
    assert_eq!(first.status(), StatusCode::OK);
    for other in [
        second,
        third,
        gateway.post("/hooks/s", &[], body.clone()).await,
    ] {
        assert_eq!(other.status(), StatusCode::OK);
        assert_eq!(other.body(), first.body());
        assert_eq!(
            other.headers()["sluicegate-event-id"],
            first.headers()["sluicegate-event-id"]
        );
    }
    assert_eq!(upstream.runs().await.len(), 1);
}

#[tokio::test]
async fn a_wait_for_a_call_that_is_refused_says_so() {
    let upstream = Upstream::start(&["--fail", "422=1/1"]).await;
    let gateway = Gateway::start(upstream.address, &source("respond = \"wait\"")).await;
    let answer = gateway.post("/hooks/s", &[], body("1", "hello")).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    let said = json(&answer);
    assert_eq!(said["code"], "dead");
    assert!(
        said["detail"].is_string()
            && said["event_id"]
                .as_str()
                .expect("an id")
                .starts_with("evt_"),
        "{said}"
    );
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_wait_loses_nothing_and_runs_nothing_twice() {
    let upstream = Upstream::start(&["--delay", "1500ms"]).await;
    let sources = source("respond = \"wait\"");
    let gateway = Gateway::start(upstream.address, &sources).await;
    let address = gateway.public;
    let caller = tokio::spawn(async move {
        let client = sluicegate::net::Client::new(Duration::from_secs(1), None).expect("a client");
        let request = http::Request::post(format!("http://{address}/hooks/s"))
            .body(body("1", "hello").into());
        client
            .send(
                request.expect("a request"),
                Duration::from_secs(20),
                1 << 20,
            )
            .await
    });
    upstream.wait_for_runs(1).await;
    let folder = gateway.kill();
    assert!(
        caller.await.expect("no panic").is_err(),
        "the connection is gone"
    );
    let gateway = Gateway::start_in(folder, upstream.address, &sources).await;
    // The sender tries again, and hears of the run that it began.
    let answer = gateway.post("/hooks/s", &[], body("1", "hello")).await;
    assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
    assert_eq!(json(&answer)["result"], "echo: hello");
    assert_eq!(upstream.runs().await.len(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_while_it_waits_is_counted_once_and_its_event_is_delivered() {
    let upstream = Upstream::start(&["--delay", "800ms"]).await;
    let gateway = Gateway::start(upstream.address, &source("respond = \"wait\"")).await;
    let client = sluicegate::net::Client::new(Duration::from_secs(1), None).expect("a client");
    let request = http::Request::post(format!("http://{}/hooks/s", gateway.public))
        .body(body("1", "hello").into());
    let gone = client
        .send(
            request.expect("a request"),
            Duration::from_millis(300),
            1 << 20,
        )
        .await;
    assert!(gone.is_err());
    let accepted = r#"sluicegate_requests_total{outcome="accepted",source="s"}"#;
    wait_for("the request to be counted", async || {
        (gateway.metric(accepted).await > 0.0).then_some(())
    })
    .await;
    let id = gateway.admin_json("/events").await["items"][0]["id"]
        .as_str()
        .expect("an event")
        .to_owned();
    assert_eq!(
        gateway.settled(&id).await["deliveries"][0]["state"],
        "delivered"
    );
    gateway.metric_is(accepted, 1.0).await;
    assert_eq!(upstream.runs().await.len(), 1);
}

#[tokio::test]
async fn a_stop_sends_those_who_wait_away_with_a_link() {
    let upstream = Upstream::start(&["--delay", "5s"]).await;
    let sources = source("respond = \"wait\"\nwait_timeout = \"30s\"");
    let gateway =
        Arc::new(Gateway::start_with(upstream.address, &sources, "drain_timeout = \"2s\"").await);
    let waiting = tokio::spawn({
        let gateway = Arc::clone(&gateway);
        async move { gateway.post("/hooks/s", &[], body("1", "hello")).await }
    });
    upstream.wait_for_runs(1).await;
    signal(gateway.pid(), "TERM");
    let answer = waiting.await.expect("no panic");
    assert_eq!(answer.status(), StatusCode::ACCEPTED, "{:?}", answer.body());
    assert!(json(&answer)["status_url"].is_string());
    Arc::into_inner(gateway)
        .expect("nobody else has it")
        .stop()
        .await;
}

#[tokio::test]
async fn what_is_passed_on_is_the_upstreams_answer_and_is_not_kept() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(
        upstream.address,
        &source("respond = \"proxy\"\ngetter = \"result\""),
    )
    .await;
    for _ in 0..2 {
        let answer = gateway.post("/hooks/s", &[], body("1", "hello")).await;
        assert_eq!(
            (answer.status(), json(&answer)),
            (StatusCode::OK, json!("echo: hello"))
        );
    }
    assert_eq!(
        upstream.runs().await.len(),
        2,
        "nothing is known of doubles"
    );
    let events = gateway.admin_json("/events").await;
    assert_eq!(events["items"], json!([]), "nothing is kept");
    gateway
        .metric_is(
            r#"sluicegate_requests_total{outcome="proxied",source="s"}"#,
            2.0,
        )
        .await;
    for (fault, status, code) in [
        ("401", StatusCode::BAD_GATEWAY, "upstream_failed"),
        ("gateway", StatusCode::BAD_GATEWAY, "upstream_failed"),
        ("drop-after", StatusCode::BAD_GATEWAY, "upstream_failed"),
        ("malformed", StatusCode::BAD_GATEWAY, "upstream_failed"),
        ("429", StatusCode::SERVICE_UNAVAILABLE, "upstream_busy"),
    ] {
        upstream
            .set(json!({"fail": [format!("{fault}=1/1")]}))
            .await;
        let answer = gateway.post("/hooks/s", &[], body("1", "hello")).await;
        assert_eq!(answer.status(), status, "{fault}");
        assert_eq!(json(&answer)["code"], code, "{fault}");
        assert_eq!(
            answer.headers().contains_key("retry-after"),
            code == "upstream_busy",
            "{fault}"
        );
        assert!(
            !String::from_utf8_lossy(answer.body()).contains("API key"),
            "nothing of the upstream's words"
        );
    }
}

#[tokio::test]
async fn a_stream_is_passed_on_as_it_comes() {
    let upstream = Upstream::start(&["--delay", "200ms"]).await;
    let gateway = Gateway::start(upstream.address, &source("respond = \"stream\"")).await;
    let answer = gateway.post("/hooks/s", &[], body("1", "hello")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = String::from_utf8_lossy(answer.body());
    assert!(
        text.contains("\"chunk\"") && text.contains("\"task_finished\""),
        "{text}"
    );
    upstream.set(json!({"fail": ["503=1/1"]})).await;
    let answer = gateway.post("/hooks/s", &[], body("1", "hello")).await;
    assert_eq!(
        answer.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "{:?}",
        answer.body()
    );
}

#[tokio::test]
async fn a_turn_that_will_not_wait_is_turned_away_while_another_runs() {
    let upstream = Upstream::start(&["--delay", "800ms"]).await;
    let gateway = Gateway::start(upstream.address, &source("overlap = \"reject\"")).await;
    let chat = |id: &str, chat: &str| json!({"id": id, "chat": chat, "text": "hello"}).to_string();
    assert_eq!(
        gateway.post("/hooks/s", &[], chat("1", "7")).await.status(),
        StatusCode::ACCEPTED
    );
    let answer = gateway.post("/hooks/s", &[], chat("2", "7")).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    assert_eq!(json(&answer)["code"], "busy");
    assert_eq!(
        gateway.post("/hooks/s", &[], chat("1", "7")).await.status(),
        StatusCode::ACCEPTED,
        "a double"
    );
    assert_eq!(
        gateway.post("/hooks/s", &[], chat("3", "8")).await.status(),
        StatusCode::ACCEPTED,
        "elsewhere"
    );
    wait_for("the turn to end", async || {
        (gateway.post("/hooks/s", &[], chat("4", "7")).await.status() == StatusCode::ACCEPTED)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_way_to_make_a_run_makes_one_whatever_breaks() {
    tokio::join!(
        makes_one_run("call"),
        makes_one_run("async"),
        makes_one_run("stream")
    );
}

async fn makes_one_run(run: &str) {
    for fault in [
        "",
        "drop-after=1/1",
        "drop-before=1/2",
        "gateway=1/1",
        "malformed=1/1",
        "503=1/2",
        "failed=1/1",
    ] {
        let upstream = Upstream::start(&["--delay", "100ms"]).await;
        let gateway = Gateway::start(upstream.address, &source(&format!("run = \"{run}\""))).await;
        let mut ids = Vec::new();
        let faults: Vec<&str> = Some(fault)
            .filter(|fault| !fault.is_empty())
            .into_iter()
            .collect();
        upstream.set(json!({"fail": faults})).await;
        for (id, chat) in [("1", None), ("2", Some("7")), ("3", Some("7"))] {
            let body = json!({"id": id, "chat": chat, "text": format!("text {id}")}).to_string();
            ids.push(
                json(&gateway.post("/hooks/s", &[], body).await)["event_id"]
                    .as_str()
                    .expect("id")
                    .to_owned(),
            );
        }
        for id in ids {
            let event = gateway.settled(&id).await;
            assert_eq!(
                event["deliveries"][0]["state"], "delivered",
                "{run} {fault}: {event:#}"
            );
            let wanted = if fault.starts_with("failed") {
                "failed"
            } else {
                "completed"
            };
            let status = &event["deliveries"][0]["answer"]["status"];
            // A blocking call that ends well has run, whatever its answer says.
            if (run, fault) != ("call", "malformed=1/1") {
                assert_eq!(status, wanted, "{run} {fault}: {event:#}");
            }
        }
        let runs = upstream.runs().await;
        assert_eq!(runs.len(), 3, "{run} {fault}: {runs:#?}");
        assert_eq!(upstream.stats().await["overlaps"], 0, "{run} {fault}");
    }
}

#[tokio::test]
async fn runs_and_questions_share_the_upstreams_budget() {
    let upstream = Upstream::start(&[]).await;
    let config = Gateway::config(upstream.address, &source(""), "")
        .replace("[inbox]", "budget = \"2/s\"\n[inbox]");
    let gateway = Gateway::start_config(&config).await;
    let begun = Instant::now();
    for n in 0..6 {
        gateway
            .post("/hooks/s", &[], body(&n.to_string(), "hello"))
            .await;
    }
    upstream.wait_for_runs(6).await;
    assert!(
        begun.elapsed() > Duration::from_millis(1_800),
        "{:?}",
        begun.elapsed()
    );
}

const PLANTED: &str = "sk-planted-key-of-a-caller-0815";

/// An event that a caller has sent with its own key, put into the inbox of a gateway that does not run.
async fn put(folder: &std::path::Path, key: &str, text: &str) -> EventId {
    let sealer = Sealer::new(&Secret::new("k", key)).unwrap();
    let inbox = SqliteInbox::open(
        &folder.join("data/inbox.db"),
        SqliteOptions {
            batch: 1,
            queue: 1,
            ..SqliteOptions::default()
        },
    )
    .await
    .unwrap();
    let id = EventId::new();
    let destination: Destination = "agent/a".parse().unwrap();
    let upstream_id = DeliveryId {
        event: id,
        number: 0,
    }
    .as_uuid()
    .to_string();
    let call = Call {
        path: "/v1/agents/a/invoke".into(),
        body: InvokeBody::new(text, Some(upstream_id.clone())),
        timeout: None,
        key: Some(Secret::new("the caller's key", PLANTED)),
        run: RunMode::Call,
    };
    let event = NewEvent {
        id,
        source: "dropin".into(),
        dedup: None,
        event_type: None,
        received_at: Timestamp::from_seconds(1_767_225_600),
        strength: Strength::None,
        secret: None,
        proof: None,
        filtered: None,
        unmappable: None,
        thread: None,
        params: Params::default(),
        request_line: "POST /a".into(),
        headers: vec![],
        body: "{}".into(),
        attachments: vec![],
        most_ahead: None,
        backlog: None,
        deliveries: vec![NewDelivery {
            lane: destination.lane(&Account::Foreign, &upstream_id),
            destination,
            upstream_id,
            account: Account::Foreign,
            class: Class::Interactive,
            sealed: Some(call.to_sealed(&sealer, id).unwrap()),
        }],
    };
    assert_eq!(inbox.accept(event).await.unwrap(), Accepted::New);
    inbox.close().await;
    id
}

/// Everything below a folder in one.
fn bytes_of(folder: &std::path::Path) -> Vec<u8> {
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let read = |path: std::path::PathBuf| {
        if path.is_dir() {
            bytes_of(&path)
        } else {
            std::fs::read(path).unwrap()
        }
    };
    files.flat_map(read).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn a_callers_own_call_is_sent_with_its_key_and_lies_nowhere_in_the_clear() {
    let upstream = Upstream::start(&[
        "--api-key",
        PLANTED,
        "--fail",
        "drop-after=1/1",
        "--delay",
        "100ms",
    ])
    .await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let key = Sealer::fresh_key().unwrap();
    std::fs::write(data.join("sluicegate.key"), &key).unwrap();
    let text = "a text that nobody else may read";
    let id = put(folder.path(), &key, text).await.to_string();
    assert!(!holds(&bytes_of(&data), PLANTED) && !holds(&bytes_of(&data), text));

    let gateway = Gateway::start_in(folder.clone(), upstream.address, "").await;
    let event = gateway.settled(&id).await;
    assert_eq!(event["deliveries"][0]["state"], "delivered", "{event:#}");
    let runs = upstream.runs_with_key(PLANTED).await;
    assert_eq!(
        (runs.len(), runs[0]["text"].as_str()),
        (1, Some(text)),
        "once, though its answer was lost"
    );
    let answer = gateway
        .admin(Method::POST, &format!("/events/{id}/replay"))
        .await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    assert_eq!(json(&answer)["code"], "call_erased");
    assert!(!holds(&bytes_of(&data), PLANTED));
    assert!(!gateway.log().contains(PLANTED) && !event.to_string().contains(PLANTED));
    gateway.stop().await;
    let inbox = rusqlite::Connection::open(data.join("inbox.db")).unwrap();
    let left: i64 = inbox
        .query_row("SELECT count(*) FROM sealed", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0, "erased when the delivery ended");
}

#[tokio::test]
async fn a_call_that_was_closed_with_another_key_is_dead_and_names_the_key() {
    let upstream = Upstream::start(&[]).await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let id = put(folder.path(), &Sealer::fresh_key().unwrap(), "hello")
        .await
        .to_string();
    let gateway = Gateway::start_in(folder.clone(), upstream.address, "").await;
    let event = gateway.settled(&id).await;
    assert_eq!(event["deliveries"][0]["state"], "dead", "{event:#}");
    let detail = event["deliveries"][0]["attempts"][0]["detail"]
        .as_str()
        .expect("a sentence");
    assert!(detail.contains("sluicegate.key"), "{detail}");
    assert_eq!(upstream.runs().await.len(), 0);

    // The key that the gateway made for itself.
    let file = folder.path().join("data/sluicegate.key");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(gateway.log().contains("inbox.key is not set"));
    let key = std::fs::read_to_string(&file).unwrap();
    assert!(
        !gateway.log().contains(key.trim())
            && !gateway.log().contains(TOKEN)
            && !gateway.log().contains(API_KEY)
    );
}
