//! Accounts and classes: what callers with foreign keys have waiting, and what comes of it, is nothing to the operator;
//! what is urgent does not wait for what is not.

use std::path::Path;

use serde_json::{Value, json};
use sluicegate::config::{RunMode, Secret};
use sluicegate::inbox::seal::Sealer;
use sluicegate::inbox::sqlite::{SqliteInbox, SqliteOptions};
use sluicegate::inbox::{Accept as _, Upkeep as _};
use sluicegate::model::{
    Accepted, Account, Class, Clock, DeliveryId, Destination, EventId, NewDelivery, NewEvent,
    Params, Strength,
};
use sluicegate::upstream::{Call, InvokeBody};

use crate::world::{Gateway, Upstream, event_id, json, wait_for};

const KEY: &str = "a key of thirty-two characters!!";

/// The gateway's configuration: one source to the agent `a`.
fn config(upstream: &Upstream, more: &str) -> String {
    let source = "\n[sources.ours]\nprovider = \"custom\"\nagent = \"a\"\n\
                  verify = { scheme = \"none\", event_id = \"json:id\" }\nparams_mapping = { prompt = \"text\" }\n";
    let key = format!("[inbox]\nkey = \"literal:{KEY}\"");
    Gateway::config(upstream.address, &format!("{more}{source}"), "").replace("[inbox]", &key)
}

/// Calls to the agent `a` that callers with foreign keys made, kept in the inbox of a folder.
async fn foreign_calls(folder: &Path, count: usize) {
    let sealer = Sealer::new(&Secret::new("k", KEY)).unwrap();
    std::fs::create_dir_all(folder.join("data")).unwrap();
    let inbox = SqliteInbox::open(&folder.join("data/inbox.db"), SqliteOptions::default())
        .await
        .unwrap();
    let destination: Destination = "agent/a".parse().unwrap();
    let accepts = (0..count).map(|number| {
        let id = EventId::new();
        let upstream_id = DeliveryId {
            event: id,
            number: 0,
        }
        .as_uuid()
        .to_string();
        let call = Call {
            path: "/v1/agents/a/invoke".into(),
            body: InvokeBody::new(format!("theirs {number}"), Some(upstream_id.clone())),
            timeout: None,
            key: Some(Secret::new("the caller's key", "a-key-nobody-knows")),
            run: RunMode::Call,
        };
        inbox.accept(NewEvent {
            id,
            source: "dropin".into(),
            dedup: None,
            event_type: None,
            received_at: Clock::system().now(),
            strength: Strength::Token,
            secret: None,
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
            proof: None,
            deliveries: vec![NewDelivery {
                lane: destination.lane(&Account::Foreign, &upstream_id),
                destination: destination.clone(),
                upstream_id,
                account: Account::Foreign,
                class: Class::Interactive,
                sealed: Some(call.to_sealed(&sealer, id).unwrap()),
            }],
        })
    });
    for accepted in futures_util::future::join_all(accepts).await {
        assert_eq!(accepted.unwrap(), Accepted::New);
    }
    inbox.close().await;
}

/// The texts of the runs there are, in the order in which they began.
async fn texts(upstream: &Upstream) -> Vec<String> {
    upstream
        .runs()
        .await
        .iter()
        .map(|run| run["text"].as_str().unwrap_or_default().to_owned())
        .collect()
}

async fn destination(gateway: &Gateway) -> Value {
    gateway.admin_json("/destinations").await["items"][0].clone()
}

#[tokio::test]
async fn s3_s5_three_hundred_foreign_calls_leave_a_place_and_the_next_turn_to_the_operator() {
    let upstream = Upstream::start(&["--delay", "500ms"]).await;
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    foreign_calls(folder.path(), 300).await;
    let config = config(&upstream, "[dispatch]\nconcurrency = 8\n");
    let gateway = Gateway::start_config_in(folder, &config).await;
    wait_for("the first of theirs", async || {
        (!texts(&upstream).await.is_empty()).then_some(())
    })
    .await;
    let event = gateway
        .settled(
            &gateway
                .accept("ours", &json!({"id": "1", "text": "ours"}))
                .await,
        )
        .await;
    assert_eq!(event["deliveries"][0]["account"], "operator", "{event:#}");
    let found = upstream.runs().await;
    assert!(found.len() < 300, "they are not done: {}", found.len());
    let stats = upstream.stats().await;
    assert!(
        stats["max_running"].as_u64() <= Some(3),
        "a quarter of eight are theirs, and one is ours: {stats:#}"
    );
    let waiting = gateway.admin_json("/sources").await;
    assert!(waiting.to_string().contains("dropin"), "{waiting}");
}

#[tokio::test]
async fn s5_what_foreign_calls_come_to_is_nothing_to_the_operator() {
    let upstream = Upstream::start(&[]).await;
    upstream.set(json!({"fail": ["unavailable=1/1"]})).await;
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    foreign_calls(folder.path(), 30).await;
    let dispatch = "[dispatch]\nbreaker_calls = 4\nbreaker_rest = \"1h\"\nbackoff = \"50ms\"\nconcurrency = 40\n";
    let gateway = Gateway::start_config_in(folder, &config(&upstream, dispatch)).await;
    let opened = "sluicegate_breaker_opened_total";
    wait_for("their breaker to open", async || {
        (gateway.metric(opened).await == 1.0).then_some(())
    })
    .await;
    upstream.set(json!({"fail": []})).await;
    gateway
        .settled(
            &gateway
                .accept("ours", &json!({"id": "1", "text": "ours"}))
                .await,
        )
        .await;
    let fares = destination(&gateway).await;
    assert_eq!(
        (&fares["fare"]["account"], &fares["fare"]["breaker"]),
        (&"operator".into(), &"closed".into()),
        "{fares}"
    );
    let theirs = &fares["others"][0];
    assert_eq!(
        (&theirs["account"], &theirs["breaker"]),
        (&"foreign".into(), &"open".into()),
        "{fares}"
    );
}

#[tokio::test]
async fn s5_foreign_runs_count_in_no_budget_of_the_operators() {
    let upstream = Upstream::start(&[]).await;
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    foreign_calls(folder.path(), 3).await;
    let limits = "[dropin]\nruns_per_day = 2\n[limits.runs_per_day]\nwhole = 1\nagent = 2\n";
    let gateway = Gateway::start_config_in(folder, &config(&upstream, limits)).await;
    wait_for("their budget to be spent", async || {
        (gateway
            .metric(r#"sluicegate_attempts_total{result="budget_spent",source="dropin"}"#)
            .await
            > 0.0)
            .then_some(())
    })
    .await;
    gateway
        .settled(
            &gateway
                .accept("ours", &json!({"id": "1", "text": "ours"}))
                .await,
        )
        .await;
    let list = gateway.admin_json("/budgets").await;
    let runs = |budget: &str| {
        let found = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|item| item["budget"] == budget);
        found.map(|item| (item["runs"].as_u64(), item["most"].as_u64()))
    };
    assert_eq!(runs("all"), Some((Some(1), Some(1))), "{list}");
    assert_eq!(runs("agent/a"), Some((Some(1), Some(2))), "{list}");
    assert_eq!(runs("foreign"), Some((Some(2), Some(2))), "{list}");
    assert_eq!(runs("foreign/agent/a"), Some((Some(2), Some(2))), "{list}");
}

/// A source that is in no hurry, and one whose callers wait.
const CLASSES: &str = r#"
[sources.pushes]
provider = "custom"
agent = "pushes"
class = "bulk"
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text" }
[sources.chat]
provider = "custom"
agent = "chat"
class = "interactive"
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text" }
"#;

#[tokio::test]
async fn a_chat_goes_within_two_turns_however_much_waits_in_bulk() {
    let upstream = Upstream::start(&[]).await;
    let config = Gateway::config(upstream.address, CLASSES, "")
        .replace("[upstream]", "[upstream]\nbudget = \"2/s\"");
    let gateway = Gateway::start_config(&config).await;
    for number in 0..200 {
        let body = json!({"id": number.to_string(), "text": "push"}).to_string();
        assert_eq!(gateway.post("/hooks/pushes", &[], body).await.status(), 202);
    }
    let before = upstream.runs().await.len();
    let answer = gateway
        .post(
            "/hooks/chat",
            &[],
            json!({"id": "c", "text": "hello"}).to_string(),
        )
        .await;
    let event = gateway.settled(&event_id(&answer)).await;
    assert_eq!(event["deliveries"][0]["class"], "interactive", "{event:#}");
    let runs = upstream.runs().await;
    let place = runs
        .iter()
        .position(|run| run["destination"] == "agents/chat")
        .expect("it ran");
    // One may have been let through before the chat came, and one had its turn before.
    assert!(place <= before + 3, "{place}, {before} before it came");
}

#[tokio::test]
async fn beyond_its_bound_a_source_is_told_to_come_again() {
    let upstream = Upstream::start(&["--delay", "60s"]).await;
    let bound = CLASSES.replace(
        "class = \"bulk\"",
        "class = \"bulk\"\nconcurrency = 1\nmax_waiting = 3",
    );
    let gateway = Gateway::start(upstream.address, &bound).await;
    let push = async |number: usize| {
        let body = json!({"id": number.to_string(), "text": "push"}).to_string();
        gateway.post("/hooks/pushes", &[], body).await
    };
    assert_eq!(push(0).await.status(), 202);
    wait_for("the first to be sent", async || {
        (!upstream.runs().await.is_empty()).then_some(())
    })
    .await;
    for number in 1..=3 {
        assert_eq!(push(number).await.status(), 202, "{number}");
    }
    let refused = push(4).await;
    assert_eq!(
        (refused.status().as_u16(), &json(&refused)["code"]),
        (503, &"backlog".into())
    );
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(
        push(3).await.status(),
        202,
        "what is kept already is a duplicate"
    );
    let answer = gateway
        .post(
            "/hooks/chat",
            &[],
            json!({"id": "c", "text": "hello"}).to_string(),
        )
        .await;
    assert_eq!(answer.status(), 202, "another source's bound is its own");
    // The calls that go on would hold a stop up.
    gateway.kill();
}
