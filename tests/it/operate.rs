//! What an operator does over real sockets, on either engine: replays in bulk, changes and sends again, holds.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::cluster;
use crate::world::{API_KEY, Gateway, Upstream, event_id, wait_for};

/// The configuration on SQLite.
async fn on_sqlite(upstream: &Upstream) -> String {
    Gateway::config(upstream.address, TALKS, "")
}

/// The same on a database of its own.
async fn on_postgres(upstream: &Upstream) -> String {
    with_postgres(&on_sqlite(upstream).await).await
}

/// A configuration, moved to a database of its own.
pub async fn with_postgres(config: &str) -> String {
    let url = cluster::shared().migrated().await;
    let url = url.expose_text().expect("an address is text");
    let key = "literal:a-key-that-all-processes-have-0001";
    config.replace(
        "url = \"sqlite:data/inbox.db\"",
        &format!("url = \"{url}\"\nlease = \"2s\"\nkey = \"{key}\""),
    )
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
    event_id(&answer)
}

async fn ended(gateway: &Gateway, job: &Value) -> Value {
    wait_for("the replay to end", async || {
        let job = gateway.admin_json(&format!("/replays/{}", job["id"])).await;
        (job["state"] == "done").then_some(job)
    })
    .await
}

fn texts(runs: &[Value]) -> Vec<String> {
    let text = |run: &Value| {
        run["input"]["text"]
            .as_str()
            .or(run["text"].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    runs.iter().map(text).collect()
}

#[tokio::test]
async fn t103_what_is_dead_is_replayed_in_bulk_once_in_order_and_with_a_record_on_sqlite() {
    replayed_in_bulk(on_sqlite).await;
}

#[tokio::test]
async fn t103_what_is_dead_is_replayed_in_bulk_once_in_order_and_with_a_record_on_postgres() {
    replayed_in_bulk(on_postgres).await;
}

async fn replayed_in_bulk(config: impl AsyncFn(&Upstream) -> String) {
    let upstream = Upstream::start(&["--fail", "422=1/1"]).await;
    let gateway = Gateway::start_config(&config(&upstream).await).await;
    let mut ids = Vec::new();
    for number in 0..30 {
        ids.push(
            say(
                &gateway,
                number,
                if number % 3 == 0 { "a" } else { "b" },
                &format!("n{number:02}"),
            )
            .await,
        );
    }
    for id in &ids {
        assert_eq!(gateway.settled(id).await["deliveries"][0]["state"], "dead");
    }
    let list = gateway.admin_json("/events?state=dead&limit=1").await;
    assert_eq!(list["items"][0]["reason"]["status"], 422, "{list:#}");
    upstream.set(json!({ "fail": [] })).await;
    let fine = say(&gateway, 30, "c", "fine").await;
    gateway.settled(&fine).await;

    let wanted =
        json!({ "filter": { "source": "talks", "state": "dead", "type": "said" }, "pace": 6000 });
    let (status, plan) = gateway.tell("/replays/plan", wanted.clone()).await;
    assert_eq!(
        (status, &plan["count"], &plan["left_out"]),
        (200, &json!(30), &json!([])),
        "{plan:#}"
    );
    assert_eq!(
        (&plan["oldest"]["id"], &plan["newest"]["id"]),
        (&json!(ids[0]), &json!(ids[29]))
    );
    let (status, job) = gateway.tell("/replays", wanted.clone()).await;
    assert_eq!(status, 202, "{job:#}");
    let job = ended(&gateway, &job).await;
    assert_eq!(
        (&job["done"], &job["skipped"], &job["total"]),
        (&json!(30), &json!(0), &json!(30))
    );
    for id in &ids {
        let event = gateway.settled(id).await;
        let states: Vec<&Value> = event["deliveries"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|d| &d["state"])
            .collect();
        assert_eq!(states, ["dead", "delivered"], "the old delivery stays");
    }
    let runs = texts(&upstream.runs().await);
    for talk in [0, 1] {
        let of_talk: Vec<&String> = runs
            .iter()
            .filter(|text| {
                text.strip_prefix('n')
                    .is_some_and(|n| (n.parse::<u32>().expect("a number") % 3 == 0) == (talk == 0))
            })
            .collect();
        assert!(of_talk.is_sorted() && of_talk.len() >= 10, "{of_talk:?}");
    }
    assert_eq!(runs.iter().filter(|text| text.starts_with('n')).count(), 30);

    // Once more: everything was replayed since, and an event is as its last delivery is.
    let (status, refused) = gateway.tell("/replays", wanted).await;
    assert_eq!(
        (status, &refused["code"]),
        (409, &json!("nothing_fits")),
        "{refused:#}"
    );
    let log = gateway.log();
    assert_eq!(log.matches(r#""audit":"replay.begin""#).count(), 1, "{log}");
}

#[tokio::test]
async fn a_replay_goes_on_after_a_kill_and_owes_nothing_twice_on_sqlite() {
    killed_and_gone_on(on_sqlite).await;
}

#[tokio::test]
async fn a_replay_goes_on_after_a_kill_and_owes_nothing_twice_on_postgres() {
    killed_and_gone_on(on_postgres).await;
}

async fn killed_and_gone_on(config: impl AsyncFn(&Upstream) -> String) {
    let upstream = Upstream::start(&["--fail", "422=1/1"]).await;
    let config = config(&upstream).await;
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let gateway = Gateway::start_config_in(folder, &config).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(say(&gateway, number, &number.to_string(), "x").await);
    }
    for id in &ids {
        gateway.settled(id).await;
    }
    upstream.set(json!({ "fail": [] })).await;
    let (_, job) = gateway
        .tell(
            "/replays",
            json!({ "filter": { "state": "dead" }, "pace": 300 }),
        )
        .await;
    wait_for("some of it", async || {
        let job = gateway.admin_json(&format!("/replays/{}", job["id"])).await;
        (job["done"].as_u64() >= Some(5)).then_some(())
    })
    .await;
    let folder = gateway.kill();
    let gateway = Gateway::start_config_in(folder, &config).await;
    let (_, paused) = gateway
        .tell(
            &format!("/replays/{}", job["id"]),
            json!({ "state": "paused" }),
        )
        .await;
    assert_eq!(
        (&paused["state"], &paused["eta"]),
        (&json!("paused"), &Value::Null),
        "{paused:#}"
    );
    gateway
        .tell(
            &format!("/replays/{}", job["id"]),
            json!({ "state": "running", "pace": 6000 }),
        )
        .await;
    let job = ended(&gateway, &job).await;
    assert_eq!(
        job["done"].as_u64().zip(job["skipped"].as_u64()),
        Some((20, 0)),
        "{job:#}"
    );
    for id in &ids {
        let event = gateway.settled(id).await;
        assert_eq!(
            event["deliveries"].as_array().map(Vec::len),
            Some(2),
            "{event:#}"
        );
    }
    assert_eq!(upstream.runs().await.len(), 20);
}

#[tokio::test]
async fn what_is_paused_is_kept_and_goes_out_in_order_when_it_is_resumed_on_sqlite() {
    paused_and_resumed(on_sqlite).await;
}

#[tokio::test]
async fn what_is_paused_is_kept_and_goes_out_in_order_when_it_is_resumed_on_postgres() {
    paused_and_resumed(on_postgres).await;
}

async fn paused_and_resumed(config: impl AsyncFn(&Upstream) -> String) {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start_config(&config(&upstream).await).await;
    for path in ["/sources/talks", "/destinations/agent/a"] {
        assert_eq!(
            gateway
                .admin(Method::POST, &format!("{path}/pause"))
                .await
                .status(),
            200,
            "{path}"
        );
        let before = upstream.runs().await.len();
        let ids = [
            say_fresh(&gateway, path, 1).await,
            say_fresh(&gateway, path, 2).await,
        ];
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(
            upstream.runs().await.len(),
            before,
            "{path}: nothing goes out"
        );
        let list = gateway
            .admin_json(if path.starts_with("/s") {
                "/sources"
            } else {
                "/destinations"
            })
            .await;
        assert!(list["items"][0]["paused_since"].is_string(), "{list:#}");
        assert_eq!(
            gateway
                .admin(Method::POST, &format!("{path}/resume"))
                .await
                .status(),
            200,
            "{path}"
        );
        for id in &ids {
            assert_eq!(
                gateway.settled(id).await["deliveries"][0]["state"],
                "delivered"
            );
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
async fn a_dry_run_is_the_request_that_then_goes_out_without_its_key_on_sqlite() {
    shown_and_resent(on_sqlite).await;
}

#[tokio::test]
async fn a_dry_run_is_the_request_that_then_goes_out_without_its_key_on_postgres() {
    shown_and_resent(on_postgres).await;
}

async fn shown_and_resent(config: impl AsyncFn(&Upstream) -> String) {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start_config(&config(&upstream).await).await;
    let id = say(&gateway, 1, "t", "hello").await;
    gateway.settled(&id).await;
    let (status, shown) = gateway
        .tell(&format!("/events/{id}/replay?dry_run=true"), json!({}))
        .await;
    assert_eq!(
        (status, &shown["request"]["path"]),
        (200, &json!("/v1/agents/a/invoke")),
        "{shown:#}"
    );
    assert!(!shown.to_string().contains(API_KEY));
    assert_eq!(upstream.runs().await.len(), 1);
    gateway
        .tell(&format!("/events/{id}/replay"), json!({}))
        .await;
    gateway.settled(&id).await;
    let runs = upstream.runs().await;
    assert_eq!(
        runs[1]["task_id"], shown["request"]["body"]["id"],
        "{runs:#?}"
    );

    let (status, made) = gateway
        .tell(
            &format!("/events/{id}/resend"),
            json!({ "body": "{\"text\":\"mended\"}" }),
        )
        .await;
    assert_eq!(status, 202, "{made:#}");
    let event = gateway
        .settled(made["event"].as_str().expect("an id"))
        .await;
    assert_eq!(
        (&event["verification"]["strength"], &event["resent_from"]),
        (&json!("operator"), &json!(id))
    );
    assert_eq!(
        texts(&upstream.runs().await).last().map(String::as_str),
        Some("mended")
    );
    assert!(gateway.log().contains(r#""audit":"event.resend""#));
}

#[tokio::test]
async fn a_destination_that_fails_is_seen_to_rest_and_called_again_by_an_operator() {
    let upstream = Upstream::start(&["--fail", "drop-before=1/1"]).await;
    let sources = TALKS.replace(
        "max_attempts = 1",
        "breaker_calls = 2\nbreaker_rest = \"10min\"",
    );
    let config = on_postgres(&upstream).await.replace(TALKS, &sources);
    let gateway = Gateway::start_config(&config).await;
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(say(&gateway, number, &number.to_string(), "x").await);
    }
    let fare = async || gateway.admin_json("/destinations").await["items"][0]["fare"].clone();
    wait_for("its breaker to open", async || {
        (fare().await["breaker"] == "open").then_some(())
    })
    .await;
    let shown = fare().await;
    assert!(
        shown["next_probe"].is_string() && shown["failures"].as_u64() >= Some(1),
        "{shown:#}"
    );
    upstream.set(json!({ "fail": [] })).await;
    let (status, reset) = gateway.tell("/destinations/agent/a/reset", json!({})).await;
    assert_eq!((status, &reset["changed"]), (200, &json!(true)));
    for id in &ids {
        assert_eq!(
            gateway.settled(id).await["deliveries"][0]["state"],
            "delivered"
        );
    }
    assert!(gateway.log().contains(r#""audit":"destination.reset""#));
}

#[tokio::test]
async fn several_processes_take_the_steps_of_a_replay_once_and_keep_its_pace() {
    let upstream = Upstream::start(&["--fail", "422=1/1"]).await;
    let config = on_postgres(&upstream).await;
    let gateways = [
        Gateway::start_config(&config).await,
        Gateway::start_config(&config).await,
        Gateway::start_config(&config).await,
    ];
    let mut ids = Vec::new();
    for number in 0..12 {
        ids.push(
            say(
                &gateways[number as usize % 3],
                number,
                &number.to_string(),
                "x",
            )
            .await,
        );
    }
    for id in &ids {
        gateways[0].settled(id).await;
    }
    upstream.set(json!({ "fail": [] })).await;
    let begun = std::time::Instant::now();
    let (_, job) = gateways[0]
        .tell(
            "/replays",
            json!({ "filter": { "state": "dead" }, "pace": 120 }),
        )
        .await;
    let job = ended(&gateways[1], &job).await;
    assert_eq!(
        (&job["done"], &job["skipped"]),
        (&json!(12), &json!(0)),
        "{job:#}"
    );
    assert!(
        begun.elapsed() >= Duration::from_secs(5),
        "two a second, whoever takes them: {:?}",
        begun.elapsed()
    );
    for id in &ids {
        let event = gateways[2].settled(id).await;
        assert_eq!(
            event["deliveries"].as_array().map(Vec::len),
            Some(2),
            "{event:#}"
        );
    }
    assert_eq!(upstream.runs().await.len(), 12);
}
