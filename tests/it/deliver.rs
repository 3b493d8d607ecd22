//! The way out: retries, doubt, dead letters, replay, and a stop in the middle.

use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::world::{Gateway, Upstream, free_address, wait_for};

const OPEN: &str = r#"
[dispatch]
backoff = "50ms"
backoff_max = "200ms"
breaker_rest = "300ms"
[sources.open]
provider = "custom"
agent = "a"
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text" }
"#;

#[tokio::test]
async fn f11_an_upstream_that_is_gone_gets_the_event_when_it_is_back() {
    let address = free_address();
    let gateway = Gateway::start(address, OPEN).await;
    let id = gateway
        .accept("open", &json!({"id": "1", "text": "hello"}))
        .await;
    wait_for("some tries", async || {
        let event = gateway.admin_json(&format!("/events/{id}")).await;
        let tries = event["deliveries"][0]["attempts"]
            .as_array()
            .map_or(0, Vec::len);
        (tries >= 3).then_some(())
    })
    .await;
    let upstream = Upstream::start_at(address, &[]).await;
    let event = gateway.settled(&id).await;
    let attempts = event["deliveries"][0]["attempts"]
        .as_array()
        .expect("a list");
    assert_eq!(attempts[0]["result"], "not_sent");
    assert_eq!(attempts.last().expect("some")["result"], "completed");
    assert_eq!(upstream.runs().await.len(), 1);
}

#[tokio::test]
async fn what_was_refused_for_now_is_tried_again_and_runs_once() {
    for fault in ["429", "503", "drop-before", "unavailable"] {
        let upstream = Upstream::start(&["--fail", &format!("{fault}=1/2")]).await;
        let gateway = Gateway::start(upstream.address, OPEN).await;
        let first = gateway
            .accept("open", &json!({"id": "1", "text": "one"}))
            .await;
        gateway.settled(&first).await;
        let second = gateway
            .accept("open", &json!({"id": "2", "text": "two"}))
            .await;
        let event = gateway.settled(&second).await;
        assert_eq!(
            event["deliveries"][0]["state"], "delivered",
            "{fault}: {event:#}"
        );
        let runs = upstream.runs().await;
        assert_eq!(runs.len(), 2, "{fault}: {runs:#?}");
    }
}

#[tokio::test]
async fn a_run_whose_answer_was_lost_is_adopted_and_not_run_twice() {
    for fault in ["drop-after", "gateway"] {
        let upstream =
            Upstream::start(&["--fail", &format!("{fault}=1/1"), "--delay", "300ms"]).await;
        let gateway = Gateway::start(upstream.address, OPEN).await;
        let id = gateway
            .accept("open", &json!({"id": "1", "text": "hello"}))
            .await;
        let event = gateway.settled(&id).await;
        let delivery = &event["deliveries"][0];
        assert_eq!(delivery["state"], "delivered", "{fault}: {event:#}");
        assert_eq!(
            delivery["attempts"][0]["result"], "ambiguous",
            "{fault}: {event:#}"
        );
        assert_eq!(delivery["answer"]["status"], "completed");
        assert_eq!(upstream.runs().await.len(), 1, "{fault}");
    }
}

#[tokio::test]
async fn a_failed_run_is_an_outcome_and_is_not_run_again() {
    let upstream = Upstream::start(&["--fail", "failed=1/1"]).await;
    let gateway = Gateway::start(upstream.address, OPEN).await;
    let id = gateway
        .accept("open", &json!({"id": "1", "text": "hello"}))
        .await;
    let event = gateway.settled(&id).await;
    assert_eq!(event["deliveries"][0]["state"], "delivered", "{event:#}");
    assert_eq!(event["deliveries"][0]["answer"]["status"], "failed");
    assert_eq!(upstream.runs().await.len(), 1);
}

#[tokio::test]
async fn t81_a_call_that_is_wrong_is_dead_at_once_and_a_replay_brings_it_home() {
    let upstream = Upstream::start(&["--fail", "404=1/1"]).await;
    let gateway = Gateway::start(upstream.address, OPEN).await;
    let id = gateway
        .accept("open", &json!({"id": "1", "text": "hello"}))
        .await;
    let event = gateway.settled(&id).await;
    assert_eq!(event["deliveries"][0]["state"], "dead", "{event:#}");
    assert_eq!(event["deliveries"][0]["attempts"][0]["status"], 404);
    gateway
        .metric_is(
            r#"sluicegate_deliveries_total{source="open",state="dead"}"#,
            1.0,
        )
        .await;

    upstream.set(json!({"fail": []})).await;
    let answer = gateway
        .admin(Method::POST, &format!("/events/{id}/replay"))
        .await;
    assert_eq!(answer.status(), 202, "{:?}", answer.body());
    let event = gateway.settled(&id).await;
    assert_eq!(event["deliveries"][0]["state"], "dead");
    assert_eq!(event["deliveries"][1]["state"], "delivered", "{event:#}");
    assert_eq!(upstream.runs().await.len(), 1);
}

#[tokio::test]
async fn f17_a_stop_in_the_middle_of_a_run_loses_nothing_and_runs_nothing_twice() {
    let upstream = Upstream::start(&["--delay", "12s"]).await;
    let gateway = Gateway::start_with(upstream.address, OPEN, "drain_timeout = \"1s\"").await;
    let id = gateway
        .accept("open", &json!({"id": "1", "text": "hello"}))
        .await;
    upstream.wait_for_runs(1).await;
    let folder = gateway.folder.clone();
    let took = gateway.stop().await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    let gateway = Gateway::start_in(folder, upstream.address, OPEN).await;
    let event = gateway.settled(&id).await;
    assert_eq!(event["deliveries"][0]["state"], "delivered", "{event:#}");
    assert_eq!(upstream.runs().await.len(), 1);
}

#[tokio::test]
async fn t78_t83_answers_that_cannot_be_read_do_not_run_the_agent_again() {
    let upstream = Upstream::start(&["--fail", "malformed=1/1"]).await;
    let gateway = Gateway::start(upstream.address, OPEN).await;
    let id = gateway
        .accept("open", &json!({"id": "1", "text": "hello"}))
        .await;
    let event = gateway.settled(&id).await;
    assert_eq!(event["deliveries"][0]["state"], "delivered", "{event:#}");
    assert_eq!(upstream.runs().await.len(), 1);
}
