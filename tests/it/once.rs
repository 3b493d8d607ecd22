//! Calls under an `Idempotency-Key`: made again and run once.

use bytes::Bytes;
use http::{Method, Response};
use serde_json::json;

use crate::world::{Gateway, Upstream, json as body_of};

const OWN: &str = "a-key-of-the-gateways-own";
const OTHER: &str = "another-key-of-the-gateways";

async fn world(more: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(&[]).await;
    let keys = format!(
        "[keys.ci]\nkey = \"literal:{OWN}\"\n[keys.shop]\nkey = \"literal:{OTHER}\"\n{more}"
    );
    let gateway = Gateway::start(upstream.address, &keys).await;
    (upstream, gateway)
}

/// A call of a caller under a key.
async fn call(
    gateway: &Gateway,
    caller: &str,
    once: &str,
    target: &str,
    body: &str,
) -> Response<Bytes> {
    let headers = [
        ("x-api-key", caller),
        ("idempotency-key", once),
        ("content-type", "application/json"),
        ("accept", "*/*"),
    ];
    gateway
        .send(Method::POST, target, &headers, body.to_owned())
        .await
}

fn is_replayed(answer: &Response<Bytes>) -> bool {
    answer
        .headers()
        .get("idempotency-replayed")
        .is_some_and(|value| value == "true")
}

#[tokio::test]
async fn a_call_that_is_made_again_runs_once_and_is_answered_alike() {
    let (upstream, gateway) = world("").await;
    let body = r#"{"prompt":"Refund order 7","order":{"id":7}}"#;
    let first = call(&gateway, OWN, "k-1", "/A", body).await;
    assert_eq!(first.status(), 200, "{first:?}");
    assert!(!is_replayed(&first));
    // The key may be quoted, and the answer shaped otherwise: it is the same call.
    for (once, target) in [
        ("k-1", "/A"),
        ("\"k-1\"", "/A"),
        ("k-1", "/A?asynchronous=true"),
        ("k-1", "/?agent_id=A"),
    ] {
        let again = call(&gateway, OWN, once, target, body).await;
        assert!(
            again.status() == 200 && is_replayed(&again),
            "{once} {target}: {again:?}"
        );
        assert_eq!(
            again.headers()["sluicegate-event-id"],
            first.headers()["sluicegate-event-id"],
            "{once} {target}"
        );
        if !target.contains("asynchronous") {
            assert_eq!(again.body(), first.body(), "{once} {target}");
        }
    }
    assert_eq!(upstream.runs().await.len(), 1);
    // Another body is another call, and runs nothing.
    for (target, other) in [
        ("/A", r#"{"prompt":"Refund order 8","order":{"id":7}}"#),
        ("/A?user_id=u", body),
    ] {
        let refused = call(&gateway, OWN, "k-1", target, other).await;
        assert_eq!(refused.status(), 422, "{target} {other}: {refused:?}");
        assert!(
            body_of(&refused)["detail"]
                .as_str()
                .unwrap()
                .contains("Idempotency-Key"),
            "{refused:?}"
        );
    }
    assert_eq!(upstream.runs().await.len(), 1);
    // Another key, agent or caller: another call.
    for (caller, once, target) in [(OWN, "k-2", "/A"), (OWN, "k-1", "/B"), (OTHER, "k-1", "/A")] {
        let other = call(&gateway, caller, once, target, body).await;
        assert!(
            other.status() == 200 && !is_replayed(&other),
            "{caller} {once} {target}: {other:?}"
        );
    }
    assert_eq!(upstream.runs().await.len(), 4);
    assert_eq!(
        gateway
            .metric("sluicegate_requests_total{outcome=\"duplicate\",source=\"dropin\"}")
            .await,
        4.0
    );
}

#[tokio::test]
async fn the_same_calls_at_once_and_after_a_crash_run_once() {
    let (upstream, gateway) = world("").await;
    upstream.set(json!({ "delay": "500ms" })).await;
    let body = r#"{"prompt":"hello"}"#;
    let calls = (0..6).map(|_| call(&gateway, OWN, "k", "/A", body));
    let answers = futures_util::future::join_all(calls).await;
    for answer in &answers {
        assert!(
            answer.status() == 200 && answer.body() == answers[0].body(),
            "{answer:?}"
        );
    }
    assert_eq!(
        answers.iter().filter(|answer| is_replayed(answer)).count(),
        5
    );
    let config = std::fs::read_to_string(gateway.folder.path().join("sluicegate.toml")).unwrap();
    let gateway = Gateway::start_config_in(gateway.kill(), &config).await;
    let again = call(&gateway, OWN, "k", "/A", body).await;
    assert!(
        is_replayed(&again) && again.body() == answers[0].body(),
        "{again:?}"
    );
    assert_eq!(upstream.runs().await.len(), 1);
}

#[tokio::test]
async fn callers_with_foreign_keys_have_calls_of_their_own() {
    let (upstream, gateway) = world("[dropin]\nrequire_key = false\n").await;
    let body = r#"{"prompt":"hello"}"#;
    for (caller, replayed, runs) in [
        ("theirs-1", false, 1),
        ("theirs-1", true, 1),
        ("theirs-2", false, 2),
    ] {
        let answer = call(&gateway, caller, "k", "/A", body).await;
        assert!(
            answer.status() == 200 && is_replayed(&answer) == replayed,
            "{caller}: {answer:?}"
        );
        assert_eq!(upstream.runs().await.len(), runs, "{caller}");
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_honoured_is_refused() {
    let (upstream, gateway) = world("").await;
    let body = r#"{"prompt":"hello"}"#;
    for once in ["", "a b", &"x".repeat(256)] {
        assert_eq!(
            call(&gateway, OWN, once, "/A", body).await.status(),
            400,
            "{once}"
        );
    }
    let headers = [
        ("x-api-key", OWN),
        ("idempotency-key", "k"),
        ("accept", "text/event-stream"),
    ];
    let stream = gateway.send(Method::POST, "/A", &headers, body).await;
    assert_eq!(stream.status(), 400, "{stream:?}");
    assert!(upstream.runs().await.is_empty());
}
