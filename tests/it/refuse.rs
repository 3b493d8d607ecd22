//! Every refusal over real sockets: its status, its code, and that it says nothing of the cause. Names carry the row
//! of the threat page.

use std::io::Write as _;
use std::net::TcpStream;

use http::Method;
use serde_json::json;

use crate::framing::raw;
use crate::world::{Gateway, Upstream, borrowed, corpus, github, json};

const SECRET: &str = "a-github-secret-for-tests";

const HOOK: &str = r#"
[sources.hook]
provider = "github"
secrets = ["literal:a-github-secret-for-tests"]
agent = "a"
max_body = "64KiB"
[sources.open]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
"#;

async fn gateway() -> (Upstream, Gateway) {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, HOOK).await;
    (upstream, gateway)
}

fn assert_refusal(answer: &http::Response<bytes::Bytes>, status: u16, code: &str) {
    assert_eq!(answer.status(), status, "{:?}", answer.body());
    let body = json(answer);
    assert_eq!(body["code"], code);
    let text = body["detail"].as_str().expect("a text");
    assert!(text.ends_with('.') || text == "Not Found", "{body}");
    assert!(
        body["request_id"]
            .as_str()
            .is_some_and(|id| id.starts_with("req_")),
        "{body}"
    );
    assert_eq!(
        body.as_object().map(serde_json::Map::len),
        Some(3),
        "{body}"
    );
    assert!(answer.body().len() < 1024);
    assert!(!answer.headers().contains_key("server"));
}

#[tokio::test]
async fn t45_every_wrong_signature_gets_one_text_and_the_operator_gets_the_reason() {
    let (_upstream, gateway) = gateway().await;
    let body = r#"{"a":1}"#;
    let good = github(SECRET, "d", "push", body);
    let signature = good[3].1.clone();
    let wrong = [
        ("", "missing_signature"),
        (&signature[..signature.len() - 1], "malformed_signature"),
        (&signature[..signature.len() - 2], "wrong_signature"),
        (
            signature.strip_prefix("sha256=").expect("a prefix"),
            "malformed_signature",
        ),
        ("sha256=zz", "malformed_signature"),
        (&format!("sha256={}", "0".repeat(64)), "wrong_signature"),
    ];
    let mut texts = Vec::new();
    for (value, reason) in wrong {
        let headers = [
            ("x-github-event", "push"),
            ("x-github-delivery", "d"),
            ("x-hub-signature-256", value),
        ];
        let answer = gateway.post("/hooks/hook", &headers, body).await;
        assert_refusal(&answer, 401, "bad_signature");
        texts.push(json(&answer)["detail"].to_string());
        let newest = &gateway.admin_json("/refused?source=hook").await["items"][0];
        assert_eq!(newest["reason"], reason, "{value:?}: {newest:#}");
        assert!(!newest.to_string().contains(&signature[10..40]));
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "one text for all");
    assert_eq!(gateway.admin_json("/events").await["items"], json!([]));
    let refused = gateway
        .metric(r#"sluicegate_requests_total{outcome="refused",source="hook"}"#)
        .await;
    assert_eq!(refused, 6.0);
}

#[tokio::test]
async fn t59_to_t68_bodies_that_are_no_json_are_refused_with_their_code() {
    let (_upstream, gateway) = gateway().await;
    let deep = "[".repeat(200_000);
    let form = b"--x\r\nContent-Disposition: form-data; name=f; filename=a.txt\r\n\r\n1\r\n--x--";
    let cases: [(&str, &[u8], u16, &str); 5] = [
        ("application/json", deep.as_bytes(), 400, "malformed_body"),
        ("application/json", b"{\"a\":1", 400, "malformed_body"),
        ("application/json", b"{\"a\":\xff}", 400, "malformed_body"),
        (
            "application/octet-stream",
            b"\xff\xfd\x00",
            415,
            "unsupported_body",
        ),
        (
            "multipart/form-data; boundary=x",
            form,
            415,
            "unsupported_body",
        ),
    ];
    for (kind, body, status, code) in cases {
        let answer = gateway
            .post("/hooks/open", &[("content-type", kind)], body.to_vec())
            .await;
        assert_refusal(&answer, status, code);
    }
    let answer = gateway
        .post("/hooks/open", &[("content-encoding", "gzip")], "x")
        .await;
    assert_refusal(&answer, 415, "unsupported_body");
}

#[tokio::test]
async fn paths_methods_and_sizes_are_refused_with_their_code() {
    let (_upstream, gateway) = gateway().await;
    for path in [
        "/hooks/nobody",
        "/hooks",
        "/api/v1/health/live",
        "/metrics",
        "/hooks/hook/x",
        "/hooks/%2e%2e/api/v1/events",
    ] {
        let answer = gateway.post(path, &[], "{}").await;
        assert_refusal(&answer, 404, "not_found");
    }
    let answer = gateway.send(Method::PUT, "/hooks/hook", &[], "{}").await;
    assert_refusal(&answer, 405, "method_not_allowed");
    let answer = gateway
        .post("/hooks/hook", &[], vec![b' '; 65 * 1024])
        .await;
    assert_refusal(&answer, 413, "too_large");
    let answer = gateway
        .post(&format!("/hooks/hook?{}", "x".repeat(17 * 1024)), &[], "{}")
        .await;
    assert_refusal(&answer, 414, "target_too_long");
}

#[tokio::test]
async fn t39_a_source_over_its_limit_says_when_to_come_back() {
    let upstream = Upstream::start(&[]).await;
    let sources = HOOK.replace("max_body = \"64KiB\"", "rate = \"2/min\"");
    let gateway = Gateway::start(upstream.address, &sources).await;
    let body = "{}";
    for number in 0..2 {
        let headers = github(SECRET, &format!("d{number}"), "push", body);
        assert_eq!(
            gateway
                .post("/hooks/hook", &borrowed(&headers), body)
                .await
                .status(),
            202
        );
    }
    let answer = gateway.post("/hooks/hook", &[], body).await;
    assert_refusal(&answer, 429, "rate_limited");
    let wait: u64 = answer.headers()["retry-after"]
        .to_str()
        .expect("text")
        .parse()
        .expect("whole seconds");
    assert!((1..=60).contains(&wait), "{wait}");
}

#[tokio::test]
async fn t31_a_body_that_stands_still_is_ended() {
    let upstream = Upstream::start(&[]).await;
    let sources = format!("{HOOK}\n");
    let gateway = Gateway::start_with(
        upstream.address,
        &sources,
        "body_stall = \"300ms\"\nhead_timeout = \"500ms\"",
    )
    .await;
    let public = gateway.public;
    let answer = tokio::task::spawn_blocking(move || {
        raw(
            public,
            &[b"POST /hooks/hook HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{"],
        )
    })
    .await
    .expect("no panic")
    .text;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("slow_body"), "{answer}");
    let answer = tokio::task::spawn_blocking(move || {
        raw(public, &[b"POST /hooks/hook HTTP/1.1\r\nHost: a\r\n"])
    });
    let answer = answer.await.expect("no panic").text;
    // T30: so is a head.
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("slow_head"),
        "{answer}"
    );
}

#[tokio::test]
async fn t8_a_body_that_is_cut_leaves_nothing() {
    let (_upstream, gateway) = gateway().await;
    let public = gateway.public;
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(public).expect("it listens");
        stream
            .write_all(
                b"POST /hooks/open HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"a\":1}",
            )
            .expect("sent");
    })
    .await
    .expect("no panic");
    crate::world::wait_for("the refusal to be counted", async || {
        let counted = gateway
            .metric(r#"sluicegate_refused_total{reason="aborted",source="open"}"#)
            .await;
        (counted == 1.0).then_some(())
    })
    .await;
    assert_eq!(gateway.admin_json("/events").await["items"], json!([]));
}

#[tokio::test]
async fn json_test_suite_bodies_are_taken_or_refused_and_never_an_error_of_ours() {
    let (_upstream, gateway) = gateway().await;
    let folder = corpus("json-parsing/test_parsing");
    let files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}; this file is part of the repository",
                folder.display()
            )
        })
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(files.len() > 100, "saw {} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let name = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let body = std::fs::read(&file).expect("a file");
        let empty = body.is_empty();
        let answer = gateway
            .post("/hooks/open", &[("content-type", "application/json")], body)
            .await;
        let status = answer.status().as_u16();
        let good = match name.as_bytes()[0] {
            // The shortest scalars make an empty prompt or none; they are JSON all the same.
            b'y' => matches!(status, 202 | 422),
            b'n' => status == 400 || empty,
            _ => matches!(status, 202 | 400 | 422),
        };
        if !good {
            wrong.push(format!("{name}: {status}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
