//! A key of the gateway's own that the upstream refuses: everything is held, nothing dies of it, and each event runs once
//! when the key is taken again.

use http::Method;
use serde_json::json;

use crate::world::{API_KEY, Gateway, Upstream, json, signal, wait_for};

const SOURCES: &str = r#"
[sources.one]
provider = "custom"
agent = "a-one"
verify = { scheme = "none", event_id = "json:id" }
[sources.two]
provider = "custom"
agent = "a-two"
verify = { scheme = "none", event_id = "json:id" }
"#;

const ALL: &str = r#"sluicegate_upstream_key_refused{of="all"}"#;
const SOME: &str = r#"sluicegate_upstream_key_refused{of="destination"}"#;

async fn send_forty(gateway: &Gateway) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(
            gateway
                .accept(
                    ["one", "two"][n % 2],
                    &json!({"id": n.to_string(), "prompt": "hello"}),
                )
                .await,
        );
    }
    ids
}

/// Waits until the key is known to be refused, and looks at all that says so.
async fn held(gateway: &Gateway, ids: &[String]) {
    gateway.metric_is(ALL, 1.0).await;
    let status = gateway.admin_json("/status").await;
    let item = status["attention"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|item| item["code"] == "key_refused");
    let item = item.unwrap_or_else(|| panic!("{status:#}"));
    let text = item["text"].as_str().expect("a text");
    assert!(
        text.starts_with("the upstream refused upstream.api_key (401)"),
        "{text}"
    );
    assert!(
        item["since"].is_string() && item["about"] == "upstream.api_key",
        "{item:#}"
    );
    assert_eq!(status["open"]["dead"], 0);
    let ready = gateway.admin(Method::GET, "/health/ready").await;
    assert_eq!(
        (ready.status().as_u16(), json(&ready)),
        (
            200,
            json!({"status": "ready", "detail": "upstream_key_refused"})
        )
    );
    // It waits, but for the moment in which it is the one that tries the key.
    let waits = wait_for("what an event waits for", async || {
        let event = gateway
            .admin_json(&format!("/events/{}", ids[ids.len() - 1]))
            .await;
        event["waits_for"]
            .is_object()
            .then(|| event["waits_for"].clone())
    })
    .await;
    assert_eq!(
        (&waits["why"], waits["since"].is_string()),
        (&json!("key_refused"), true),
        "{waits:#}"
    );
    assert!(
        gateway
            .log()
            .contains("the upstream refused upstream.api_key: all that goes there is held")
    );
    assert!(
        !gateway.log().contains("planted-wrong-key"),
        "no key in the log"
    );
}

/// Every event has run once, and nothing died on the way.
async fn all_ran_once(gateway: &Gateway, upstream: &Upstream, ids: &[String]) {
    for id in ids {
        let event = gateway.settled(id).await;
        assert_eq!(event["states"], json!(["delivered"]), "{event:#}");
    }
    let runs = upstream.runs().await;
    assert_eq!(runs.len(), ids.len(), "each once");
    gateway.metric_is(ALL, 0.0).await;
    gateway
        .metric_is(
            r#"sluicegate_deliveries_total{source="one",state="dead"}"#,
            0.0,
        )
        .await;
    assert_eq!(gateway.admin_json("/status").await["well"], true);
    let ready = gateway.admin(Method::GET, "/health/ready").await;
    assert_eq!(json(&ready), json!({"status": "ready"}));
}

#[tokio::test]
async fn a_refused_key_holds_forty_events_until_a_reload_brings_the_right_one() {
    let upstream = Upstream::start(&["--api-key", API_KEY]).await;
    let right = Gateway::config(upstream.address, SOURCES, "");
    let gateway = Gateway::start_config(&right.replace(API_KEY, "planted-wrong-key")).await;
    let ids = send_forty(&gateway).await;
    held(&gateway, &ids).await;

    std::fs::write(gateway.folder.path().join("sluicegate.toml"), &right)
        .expect("the folder takes files");
    signal(gateway.pid(), "HUP");
    all_ran_once(&gateway, &upstream, &ids).await;
    assert!(
        gateway
            .log()
            .contains("the upstream takes upstream.api_key again"),
        "{}",
        gateway.log()
    );
}

#[tokio::test]
async fn a_refused_key_holds_forty_events_until_the_upstream_takes_it_and_one_call_at_a_time_tries_it()
 {
    let upstream = Upstream::start(&["--api-key", "another-key-of-the-upstream"]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    let ids = send_forty(&gateway).await;
    held(&gateway, &ids).await;
    // What was on its way when the key was first refused has been refused as well; from then on it is one at a time.
    let keys = json!({"keys": ["another-key-of-the-upstream", API_KEY]});
    upstream
        .set_with_key(keys, "another-key-of-the-upstream")
        .await;
    all_ran_once(&gateway, &upstream, &ids).await;
}

#[tokio::test]
async fn a_key_that_is_refused_for_one_agent_holds_that_agent_alone() {
    let upstream = Upstream::start(&["--api-key", API_KEY]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    let good = gateway
        .accept("two", &json!({"id": 1.to_string(), "prompt": "hello"}))
        .await;
    gateway.settled(&good).await;
    let refused = gateway
        .accept(
            "one",
            &json!({"id": 2.to_string(), "prompt": "[[stub http=403]]"}),
        )
        .await;
    gateway.metric_is(SOME, 1.0).await;
    let later = gateway
        .accept("one", &json!({"id": 3.to_string(), "prompt": "hello"}))
        .await;
    for n in 4..10 {
        let id = gateway
            .accept("two", &json!({"id": n.to_string(), "prompt": "hello"}))
            .await;
        assert_eq!(gateway.settled(&id).await["states"], json!(["delivered"]));
    }
    gateway.metric_is(ALL, 0.0).await;
    let status = gateway.admin_json("/status").await;
    let item = status["attention"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|item| item["code"] == "key_refused");
    let item = item.unwrap_or_else(|| panic!("{status:#}"));
    assert_eq!(item["about"], "agent/a-one", "{item:#}");
    let event = gateway.admin_json(&format!("/events/{refused}")).await;
    assert_ne!(event["states"], json!(["dead"]), "{event:#}");
    // Called off, it holds nobody up.
    let delivery = event["deliveries"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    wait_for("the delivery to be called off", async || {
        let (status, _) = gateway
            .tell(&format!("/deliveries/{delivery}/cancel"), json!({}))
            .await;
        (status < 300).then_some(())
    })
    .await;
    assert_eq!(
        gateway.settled(&later).await["states"],
        json!(["delivered"])
    );
    gateway.metric_is(SOME, 0.0).await;
}

#[tokio::test]
async fn calls_with_a_gateway_key_are_held_and_go_with_the_upstream_key_of_the_moment() {
    let upstream = Upstream::start(&["--api-key", API_KEY]).await;
    let key = "gateway-key-of-ci-0001";
    let right = Gateway::config(
        upstream.address,
        &format!("[keys.ci]\nkey = \"literal:{key}\"\n"),
        "",
    );
    let gateway = Gateway::start_config(&right.replace(API_KEY, "planted-wrong-key")).await;
    let headers = [("x-api-key", key), ("content-type", "application/json")];
    // Whoever waits is told, and not that its own key is wrong.
    let answer = gateway
        .post("/?agent_id=a", &headers, r#"{"prompt":"hi"}"#)
        .await;
    assert_eq!(answer.status(), 502, "{answer:?}");
    assert!(
        !String::from_utf8_lossy(answer.body()).contains("API key"),
        "{answer:?}"
    );
    let answer = gateway
        .post(
            "/?agent_id=a&asynchronous=true",
            &headers,
            r#"{"prompt":"later"}"#,
        )
        .await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    gateway.metric_is(ALL, 1.0).await;

    std::fs::write(gateway.folder.path().join("sluicegate.toml"), &right)
        .expect("the folder takes files");
    signal(gateway.pid(), "HUP");
    let runs = upstream.wait_for_runs(1).await;
    assert_eq!(runs[0]["body"]["input"]["text"], "later", "{runs:?}");
    gateway.metric_is(ALL, 0.0).await;
    assert_eq!(upstream.runs().await.len(), 1);
}
