//! Where the platform's own documents disagree: one test for each row of the list of contradictions, for what this
//! gateway does about it. Rows that are about another door are held to by the paths and fields that are used here.

use std::path::PathBuf;

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::world::{Gateway, Upstream, json};

/// One call at the door, as the upstream saw it.
struct Seen {
    head: String,
    body: Value,
    answer: Response<Bytes>,
}

const DONE: &str = r#"{"id":"t","agent_id":"A","status":"completed","result":"{\"a\":1}","finished_at":"f","source":"webhook"}"#;

/// Calls the door and gives what went upstream, and what came back when the upstream answered `status` and `task`.
async fn seen(target: &str, headers: &[(&str, &str)], body: &str, status: u16, task: &str) -> Seen {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let kind = if target.contains("events") {
        "text/event-stream"
    } else {
        "application/json"
    };
    let reply = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{task}",
        task.len()
    );
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let text = String::from_utf8_lossy(&seen).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Some(length) = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                && body.len() >= length.parse().expect("a length")
            {
                stream.write_all(reply.as_bytes()).await.expect("written");
                return (head.to_owned(), body.to_owned());
            }
            let read = stream.read(&mut piece).await.expect("read");
            assert!(read > 0, "the gateway went away");
            seen.extend_from_slice(&piece[..read]);
        }
    });
    let gateway = Gateway::start(address, "").await;
    let headers: Vec<_> = headers
        .iter()
        .copied()
        .chain([("x-api-key", "planted-caller-key")])
        .collect();
    let answer = gateway.post(target, &headers, body.to_owned()).await;
    let (head, body) = upstream.await.expect("the upstream was called");
    Seen {
        head,
        body: serde_json::from_str(&body).expect("JSON"),
        answer,
    }
}

async fn called(target: &str, body: &str) -> Seen {
    seen(
        target,
        &[("content-type", "application/json")],
        body,
        200,
        DONE,
    )
    .await
}

fn line(seen: &Seen) -> &str {
    seen.head.lines().next().unwrap_or_default()
}

#[tokio::test]
async fn row_01_async_and_stream_are_behind_a_slash() {
    assert_eq!(
        line(&called("/A?asynchronous=true", "{}").await),
        "POST /v1/agents/A/invoke/async HTTP/1.1"
    );
    let accept = [("accept", "text/event-stream")];
    let stream = seen(
        "/A?x=events",
        &accept,
        "{}",
        200,
        "data: {\"type\":\"task_finished\"}\n\n",
    )
    .await;
    assert_eq!(line(&stream), "POST /v1/agents/A/invoke/stream HTTP/1.1");
}

#[tokio::test]
async fn row_02_asynchronous_is_a_path_upstream_and_no_query() {
    let seen = called("/A", r#"{"asynchronous":true,"prompt":"x"}"#).await;
    assert_eq!(line(&seen), "POST /v1/agents/A/invoke/async HTTP/1.1");
    assert_eq!(seen.body.get("asynchronous"), None);
}

#[tokio::test]
async fn row_03_a_user_is_optional_and_whole_when_sent() {
    assert_eq!(
        called("/A", r#"{"prompt":"x"}"#).await.body["input"],
        json!({"text": "x"})
    );
    let by_id = called("/A", r#"{"prompt":"x","user_id":7}"#).await;
    assert_eq!(
        by_id.body["input"]["user"],
        json!({"id": "7", "email": "7@webhook.invalid"})
    );
    let by_email = called("/A", r#"{"prompt":"x","user_email":"a@b.c"}"#).await;
    assert_eq!(
        by_email.body["input"]["user"],
        json!({"id": "a@b.c", "email": "a@b.c"})
    );
}

#[tokio::test]
async fn row_04_the_key_is_a_header_of_its_own_and_authorization_goes_nowhere() {
    let seen = seen(
        "/A",
        &[("authorization", "Bearer planted")],
        "{}",
        200,
        DONE,
    )
    .await;
    assert!(
        seen.head.contains("\r\nx-api-key: planted-caller-key"),
        "{}",
        seen.head
    );
    assert!(
        !seen.head.to_ascii_lowercase().contains("authorization"),
        "{}",
        seen.head
    );
}

#[tokio::test]
async fn row_05_every_status_passes_whoever_lists_it() {
    for status in [
        "completed",
        "failed",
        "error",
        "stopped",
        "paused",
        "running",
        "cancelled",
        "queued",
        "new",
    ] {
        let task = json!({"id": "t", "status": status, "result": null}).to_string();
        let seen = seen("/A", &[], "{}", 200, &task).await;
        assert_eq!(
            (seen.answer.status().as_u16(), &json(&seen.answer)["status"]),
            (200, &json!(status))
        );
    }
}

#[tokio::test]
async fn row_06_events_of_a_stream_pass_byte_for_byte_in_either_form() {
    let told = "data: {\"event\":\"task_started\",\"data\":{}}\n\ndata: {\"type\":\"task_finished\",\"data\":{}}\r\n\r\n";
    let seen = seen(
        "/A?x=events",
        &[("accept", "text/event-stream")],
        "{}",
        200,
        told,
    )
    .await;
    assert_eq!(seen.answer.body(), told);
}

#[tokio::test]
async fn row_07_the_answer_is_the_flat_task_and_started() {
    let seen = called("/A", "{}").await;
    assert_eq!(seen.answer.body(), DONE);
    assert_eq!(
        called("/A?asynchronous=true", "{}").await.answer.body(),
        r#"{"status":"Started"}"#
    );
}

#[tokio::test]
async fn row_08_a_task_id_is_kept_as_given_and_a_string() {
    for (written, sent) in [
        ("-1001234567890", "-1001234567890"),
        ("\"my thread/1\"", "my thread/1"),
    ] {
        let seen = called("/A", &format!("{{\"prompt\":\"x\",\"task_id\":{written}}}")).await;
        assert_eq!(seen.body["id"], sent);
    }
    assert_eq!(called("/A?task_id=", "{}").await.body.get("id"), None);
}

#[tokio::test]
async fn row_09_output_settings_are_not_sent_unless_configured_and_results_are_parsed_whatever_they_say()
 {
    let seen = called(
        "/A?json=true",
        r#"{"prompt":"x","output_format":"json","output_schema":{}}"#,
    )
    .await;
    assert_eq!(
        (
            seen.body.get("output_format"),
            seen.body.get("output_schema")
        ),
        (None, None)
    );
    assert_eq!(json(&seen.answer)["result"], json!({"a": 1}));
}

#[tokio::test]
async fn row_10_nothing_of_a_caller_becomes_a_payload_extension() {
    let seen = called(
        "/A",
        r#"{"prompt":"x","payload_extension":{"headers":{"a":"b"}},"principal":1}"#,
    )
    .await;
    let keys: Vec<&str> = seen
        .body
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        ["input", "source", "source_node_type", "additional_context"]
    );
    assert_eq!(
        seen.body["additional_context"],
        r#"{"payload_extension":{"headers":{"a":"b"}},"principal":1}"#
    );
}

#[tokio::test]
async fn row_11_images_are_a_plain_field() {
    let seen = called("/A", r#"{"prompt":"x","images":["https://a/b.png"]}"#).await;
    assert_eq!(seen.body["input"], json!({"text": "x"}));
    assert_eq!(
        seen.body["additional_context"],
        r#"{"images":["https://a/b.png"]}"#
    );
}

#[tokio::test]
async fn row_12_addresses_of_files_in_a_body_are_fields_and_are_not_fetched() {
    let seen = called("/A", r#"{"prompt":"x","files":["https://a/b.pdf"]}"#).await;
    assert_eq!(seen.body["input"].get("files"), None);
    assert_eq!(
        seen.body["additional_context"],
        r#"{"files":["https://a/b.pdf"]}"#
    );
}

#[test]
fn row_13_and_14_nothing_here_erases_a_task() {
    let upstream = sources("src/upstream");
    assert!(
        upstream.contains("/v1/tasks/") && !upstream.contains("DELETE"),
        "a run is never ended by erasing it"
    );
}

#[tokio::test]
async fn row_15_json_parses_in_place_and_the_getter_takes_it_alone() {
    let task = json(&called("/A?json=true", "{}").await.answer);
    assert_eq!(
        (&task["id"], &task["result"]),
        (&json!("t"), &json!({"a": 1}))
    );
    assert_eq!(
        called("/A?json=true&getter=result", "{}")
            .await
            .answer
            .body(),
        r#"{"a":1}"#
    );
}

#[tokio::test]
async fn row_16_a_wrong_key_is_403_here_and_a_missing_one_401() {
    let refused = seen(
        "/A",
        &[],
        "{}",
        401,
        r#"{"detail":"Invalid or missing API key"}"#,
    )
    .await
    .answer;
    assert_eq!(
        (refused.status().as_u16(), refused.body()),
        (403, &Bytes::from(r#"{"detail":"Invalid API key"}"#))
    );
    let gateway = Gateway::start(crate::world::free_address(), "").await;
    let missing = gateway.post("/A", &[], "{}").await;
    assert_eq!(
        (missing.status().as_u16(), missing.body()),
        (401, &Bytes::from(r#"{"detail":"API key not specified"}"#))
    );
}

#[tokio::test]
async fn row_17_a_paused_run_is_reported_as_such_and_not_waited_for() {
    let paused =
        r#"{"id":"t","status":"paused","result":null,"hitl_request":{"wait_node_id":"w"}}"#;
    assert_eq!(
        seen("/A", &[], "{}", 200, paused).await.answer.body(),
        paused
    );
}

#[tokio::test]
async fn row_18_the_upstreams_own_limit_counts() {
    let upstream = Upstream::start(&["--fail", "429=1"]).await;
    let gateway = Gateway::start(upstream.address, "").await;
    let answer = gateway.post("/A", &[("x-api-key", "k")], "{}").await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (429, &http::HeaderValue::from_static("1"))
    );
}

#[tokio::test]
async fn row_19_every_call_says_webhook() {
    for target in ["/A", "/A?asynchronous=true", "/A?task_id=1"] {
        let seen = called(target, r#"{"source":"other","source_node_type":"email"}"#).await;
        assert_eq!(
            (&seen.body["source"], &seen.body["source_node_type"]),
            (&json!("webhook"), &json!("webhook"))
        );
    }
}

#[tokio::test]
async fn row_20_no_version_is_asked_for_where_nobody_configured_one() {
    let seen = seen(
        "/A?version=draft",
        &[("x-agent-version", "2")],
        "{}",
        200,
        DONE,
    )
    .await;
    assert_eq!(line(&seen), "POST /v1/agents/A/invoke HTTP/1.1");
    assert!(!seen.head.contains("x-agent-version"), "{}", seen.head);
}

#[tokio::test]
async fn row_21_reasoning_effort_is_the_agents_own() {
    let seen = called("/A", r#"{"prompt":"x","llm_reasoning_effort":"high"}"#).await;
    assert_eq!(seen.body.get("llm_reasoning_effort"), None);
}

#[tokio::test]
async fn row_22_a_mapping_works_percent_encoded() {
    let seen = called(
        "/A?params_mapping=%7B%22prompt%22%3A%22m.text%22%7D",
        r#"{"m":{"text":"Hi"}}"#,
    )
    .await;
    assert_eq!(seen.body["input"]["text"], "Hi");
}

/// The text of a folder's sources.
fn sources(folder: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|file| file.expect("a file").path());
    files
        .map(|file| std::fs::read_to_string(file).expect("text"))
        .collect()
}
