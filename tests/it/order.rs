//! A conversation is one lane; conversations do not wait for each other.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::{Gateway, Upstream};

const CHAT: &str = r#"
[dispatch]
backoff = "50ms"
backoff_max = "200ms"
breaker_rest = "300ms"
[sources.chat]
provider = "custom"
agent = "a"
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text", task_id = "chat" }
"#;

#[tokio::test]
async fn the_second_event_of_a_thread_waits_for_the_first_run_to_end() {
    let upstream = Upstream::start(&["--delay", "700ms"]).await;
    let gateway = Gateway::start(upstream.address, CHAT).await;
    gateway
        .accept("chat", &json!({"id": "1", "chat": "7", "text": "first"}))
        .await;
    gateway
        .accept("chat", &json!({"id": "2", "chat": "7", "text": "second"}))
        .await;
    gateway
        .accept(
            "chat",
            &json!({"id": "3", "chat": "8", "text": "elsewhere"}),
        )
        .await;
    let runs = upstream.wait_for_runs(3).await;
    let texts: Vec<&str> = runs
        .iter()
        .map(|run| run["text"].as_str().expect("a text"))
        .collect();
    assert_eq!(
        texts[2], "second",
        "the other thread does not wait: {texts:?}"
    );
    assert_eq!(
        runs[2]["task_id"],
        runs.iter()
            .find(|run| run["text"] == "first")
            .expect("it ran")["task_id"]
    );
    assert_eq!(upstream.stats().await["overlaps"], 0);
}

#[tokio::test]
async fn order_in_a_thread_survives_an_upstream_that_fails() {
    let upstream = Upstream::start(&[
        "--fail",
        "503=0.1",
        "--fail",
        "drop-before=0.1",
        "--fail",
        "drop-after=0.1",
        "--fail",
        "gateway=0.1",
    ])
    .await;
    let gateway = Gateway::start(upstream.address, CHAT).await;
    for number in 0..8 {
        for chat in ["a", "b", "c"] {
            gateway.accept("chat", &json!({"id": &format!("{chat}{number}"), "chat": chat, "text": &format!("{chat}{number}")}))
            .await;
        }
    }
    let runs = upstream.wait_for_runs(24).await;
    assert_eq!(runs.len(), 24);
    for chat in ["a", "b", "c"] {
        let texts: Vec<&str> = runs
            .iter()
            .filter_map(|run| run["text"].as_str())
            .filter(|text| text.starts_with(chat))
            .collect();
        let wanted: Vec<String> = (0..8).map(|number| format!("{chat}{number}")).collect();
        assert_eq!(texts, wanted);
    }
    assert_eq!(upstream.stats().await["overlaps"], 0);
}

#[tokio::test]
async fn two_hundred_threads_run_at_once() {
    let upstream = Upstream::start(&["--delay", "5s"]).await;
    let gateway = Gateway::start(upstream.address, CHAT).await;
    let begun = Instant::now();
    for number in 0..200 {
        gateway
            .accept(
                "chat",
                &json!({"id": &number.to_string(), "chat": &number.to_string(), "text": "hello"}),
            )
            .await;
    }
    upstream.wait_for_runs(200).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "they did not run side by side: {:?}",
        begun.elapsed()
    );
    crate::world::wait_for("all runs to be settled", async || {
        let delivered = gateway
            .metric(r#"sluicegate_deliveries_total{source="chat",state="delivered"}"#)
            .await;
        (delivered == 200.0).then_some(())
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
}
