//! The way in: what is accepted, what is answered, what is kept, what goes upstream.

use http::Method;
use serde_json::json;

use crate::world::{
    API_KEY, Gateway, Upstream, borrowed, event_id, github, hmac_sha256, json, unmarked, wait_for,
};

const SECRET: &str = "a-github-secret-for-tests";

const TRIAGE: &str = r#"
[sources.triage]
provider = "github"
secrets = ["literal:a-github-secret-for-tests", "literal:the-secret-before-this-one"]
agent = "47c3b020-9a6b-4699-8d94-d92d71929b53"
events = ["issues.opened", "pull_request.*"]
prompt = "Triage {{ body.issue.title }} ({{ body.issue.html_url }})"
"#;

fn issue(action: &str) -> String {
    json!({"action": action, "issue": {"number": 7, "title": "It is broken", "html_url": "https://github.com/a/b/issues/7"}})
        .to_string()
}

#[tokio::test]
async fn a_signed_event_becomes_one_proper_invoke() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, TRIAGE).await;
    let headers = github(
        SECRET,
        "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "issues",
        &issue("opened"),
    );
    let answer = gateway
        .post("/hooks/triage", &borrowed(&headers), issue("opened"))
        .await;
    assert_eq!(answer.status(), 202, "{:?}", answer.body());
    let body = json(&answer);
    assert_eq!(body["status"], "accepted");
    let id = body["event_id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.headers()["sluicegate-event-id"], id.as_str());

    let event = gateway.settled(&id).await;
    assert_eq!(event["event_type"], "issues.opened");
    assert_eq!(event["dedup"], "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    let delivery = &event["deliveries"][0];
    assert_eq!(delivery["state"], "delivered", "{event:#}");

    let runs = upstream.wait_for_runs(1).await;
    assert_eq!(runs.len(), 1);
    let run = &runs[0];
    assert_eq!(
        run["destination"],
        "agents/47c3b020-9a6b-4699-8d94-d92d71929b53"
    );
    let mut body = run["body"].clone();
    body["input"]["text"] = unmarked(body["input"]["text"].as_str().expect("a text")).into();
    assert_eq!(
        body,
        json!({
            "input": {"text": "Triage «It is broken» (https://github.com/a/b/issues/7)"},
            "id": delivery["upstream_id"],
            "source": "webhook",
            "source_node_type": "webhook",
        })
    );
    let everything = format!("{event}{}", gateway.log());
    assert!(!everything.contains(SECRET) && !everything.contains(API_KEY));
}

#[tokio::test]
async fn the_second_secret_works_while_secrets_are_rotated() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, TRIAGE).await;
    let headers = github(
        "the-secret-before-this-one",
        "d-1",
        "issues",
        &issue("opened"),
    );
    let answer = gateway
        .post("/hooks/triage", &borrowed(&headers), issue("opened"))
        .await;
    assert_eq!(answer.status(), 202);
    let id = event_id(&answer);
    let event = gateway.settled(&id).await;
    assert_eq!(event["verification"]["secret"], "literal 2", "{event:#}");
    assert_eq!(event["verification"]["strength"], "signed");
}

#[tokio::test]
async fn an_event_that_is_not_wanted_is_kept_as_filtered_with_the_reason() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, TRIAGE).await;
    let headers = github(SECRET, "d-2", "issues", &issue("closed"));
    let answer = gateway
        .post("/hooks/triage", &borrowed(&headers), issue("closed"))
        .await;
    assert_eq!(
        (answer.status().as_u16(), json(&answer)["status"].clone()),
        (202, json!("filtered"))
    );
    let id = event_id(&answer);
    let event = gateway.settled(&id).await;
    assert!(
        event["filtered"]
            .as_str()
            .is_some_and(|rule| rule.contains("issues.closed")),
        "{event:#}"
    );
    assert_eq!(event["deliveries"], json!([]));
    assert!(upstream.runs().await.is_empty());
}

#[tokio::test]
async fn t49_t50_equal_events_at_once_make_one_event_and_one_run() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, TRIAGE).await;
    let body = issue("opened");
    let headers = github(SECRET, "the-same-64-times", "issues", &body);
    let headers = borrowed(&headers);
    let answers = futures_util::future::join_all(
        (0..64).map(|_| gateway.post("/hooks/triage", &headers, body.clone())),
    )
    .await;
    let mut ids: Vec<String> = answers.iter().map(event_id).collect();
    assert!(answers.iter().all(|answer| answer.status() == 202));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1, "one event, whoever asks");
    gateway.settled(&ids[0]).await;
    assert_eq!(upstream.runs().await.len(), 1);
    let counted = |outcome: &str| {
        format!(r#"sluicegate_requests_total{{outcome="{outcome}",source="triage"}}"#)
    };
    gateway.metric_is(&counted("accepted"), 1.0).await;
    gateway.metric_is(&counted("duplicate"), 63.0).await;
}

#[tokio::test]
async fn telegram_chats_are_threads_and_big_ids_keep_their_digits() {
    let upstream = Upstream::start(&[]).await;
    let sources = r#"
[sources.support-bot]
provider = "telegram"
secrets = ["literal:telegram-secret-token"]
agent = "bot"
params_mapping = { task_id = "message.chat.id", prompt = "message.text", user_id = "message.from.id" }
"#;
    let gateway = Gateway::start(upstream.address, sources).await;
    let body = r#"{"update_id":9007199254740993,"message":{"chat":{"id":-1001234567890123},"from":{"id":9007199254740995},"text":"Hello \"you\" \u00e9"}}"#;
    let headers = [("x-telegram-bot-api-secret-token", "telegram-secret-token")];
    let answer = gateway.post("/hooks/support-bot", &headers, body).await;
    assert!(answer.status().is_success(), "{:?}", answer.body());
    let runs = upstream.wait_for_runs(1).await;
    let sent = &runs[0]["body"];
    assert_eq!(sent["input"]["text"], "Hello \"you\" é");
    assert_eq!(
        sent["input"]["user"],
        json!({"id": "9007199254740995", "email": "9007199254740995@webhook.invalid"})
    );
    let id = sent["id"].as_str().expect("a text");
    assert!(
        uuid::Uuid::parse_str(id).is_ok_and(|id| id.get_version_num() == 8),
        "{id}"
    );
    let page = gateway.admin_json("/events").await;
    assert_eq!(page["items"][0]["thread"], "-1001234567890123");
    assert_eq!(page["items"][0]["dedup"], "9007199254740993");
    let page = page.to_string() + &gateway.log();
    assert!(!page.contains("telegram-secret-token"));
    let event = gateway
        .settled(
            serde_json::from_str::<serde_json::Value>(
                &gateway.admin_json("/events").await.to_string(),
            )
            .expect("JSON")["items"][0]["id"]
                .as_str()
                .expect("an id"),
        )
        .await;
    assert!(
        !event.to_string().contains("telegram-secret-token"),
        "{event:#}"
    );
}

#[tokio::test]
async fn the_operator_sees_which_paths_found_nothing_in_an_event() {
    let upstream = Upstream::start(&[]).await;
    let sources = r#"
[sources.open]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
params_mapping = { prompt = "message.text", user_id = "message.from.id", user_email = "mail" }
defaults = { prompt = "hello" }
"#;
    let gateway = Gateway::start(upstream.address, sources).await;
    let answer = gateway
        .post(
            "/hooks/open",
            &[],
            r#"{"message":{"text":"","from":{"id":7}}}"#,
        )
        .await;
    let event = gateway.settled(&event_id(&answer)).await;
    assert_eq!(
        event["misses"],
        json!([
            {"of": "user_email", "path": "mail", "why": "leads nowhere"},
            {"of": "prompt", "path": "message.text", "why": "leads to an empty text"},
        ])
    );
}

#[tokio::test]
async fn a_custom_scheme_and_a_workflow_work_inline() {
    let upstream = Upstream::start(&[]).await;
    let sources = r#"
[sources.ci]
provider = "custom"
secrets = ["literal:try-me"]
workflow = "flow-1"
title = "CI"
think_mode = "harder"
version = "draft"
defaults = { prompt = "A build ended." }
verify = { scheme = "hmac", algorithm = "sha256", signature = "header:X-Signature", prefix = "sha256=", event_id = "header:X-Delivery", event_type = "header:X-Event" }
"#;
    let gateway = Gateway::start(upstream.address, sources).await;
    let body = r#"{"build":{"id":12345678901234567890,"ok":true}}"#;
    let signature = format!("sha256={}", hmac_sha256(b"try-me", body.as_bytes()));
    let headers = [
        ("x-signature", signature.as_str()),
        ("x-delivery", "77"),
        ("x-event", "build.done"),
    ];
    let answer = gateway.post("/hooks/ci", &headers, body).await;
    assert_eq!(answer.status(), 202, "{:?}", answer.body());
    let runs = upstream.wait_for_runs(1).await;
    let sent = &runs[0]["body"];
    assert_eq!(runs[0]["destination"], "workflows/flow-1");
    let text = sent["input"]["text"].as_str().expect("a text");
    assert!(text.starts_with("A build ended.\n\n"), "{text}");
    assert!(text.contains("12345678901234567890"), "{text}");
    assert_eq!(
        (&sent["title"], &sent["think_mode"]),
        (&json!("CI"), &json!("harder"))
    );
}

#[tokio::test]
async fn a_slack_challenge_is_answered_at_the_edge_only_when_signed() {
    let upstream = Upstream::start(&[]).await;
    let sources = "[sources.chat]\nprovider = \"slack\"\nsecrets = [\"literal:slack-signing-secret\"]\nagent = \"a\"\n";
    let gateway = Gateway::start(upstream.address, sources).await;
    let body = r#"{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#;
    let now = now().to_string();
    let signature = format!(
        "v0={}",
        hmac_sha256(
            b"slack-signing-secret",
            format!("v0:{now}:{body}").as_bytes()
        )
    );
    let headers = [
        ("x-slack-request-timestamp", now.as_str()),
        ("x-slack-signature", signature.as_str()),
    ];
    let answer = gateway.post("/hooks/chat", &headers, body).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(
        &answer.body()[..],
        b"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"
    );
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    let answer = gateway.post("/hooks/chat", &headers[..1], body).await;
    assert_eq!(answer.status(), 401);
    assert!(
        gateway.admin_json("/events").await["items"]
            .as_array()
            .is_some_and(Vec::is_empty)
    );
}

#[tokio::test]
async fn a_form_hook_is_signed_as_text_and_mapped_as_its_payload() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, TRIAGE).await;
    let payload: String = form_urlencoded::byte_serialize(issue("opened").as_bytes()).collect();
    let body = format!("payload={payload}");
    let mut headers = github(SECRET, "form-1", "issues", &body);
    headers[0].1 = "application/x-www-form-urlencoded".into();
    let answer = gateway
        .post("/hooks/triage", &borrowed(&headers), body)
        .await;
    assert_eq!(answer.status(), 202, "{:?}", answer.body());
    let runs = upstream.wait_for_runs(1).await;
    let text = unmarked(runs[0]["body"]["input"]["text"].as_str().expect("a text"));
    assert_eq!(
        text,
        "Triage «It is broken» (https://github.com/a/b/issues/7)"
    );
}

#[tokio::test]
async fn a_get_at_a_source_without_a_handshake_is_not_answered() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, TRIAGE).await;
    let answer = gateway.send(Method::GET, "/hooks/triage", &[], "").await;
    assert_eq!(
        (
            answer.status().as_u16(),
            answer.headers()["allow"].to_str().expect("text")
        ),
        (405, "POST")
    );
}

#[expect(clippy::disallowed_methods, reason = "a sender has a clock")]
fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_during_the_commit_is_counted_once_and_its_event_stays() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, TRIAGE).await;
    let body = issue("opened");
    let headers = github(
        SECRET,
        "4d1b3f2e-cc78-11e3-81ab-4c9367dc0958",
        "issues",
        &body,
    );
    let mut request = format!(
        "POST /hooks/triage HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in borrowed(&headers) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("\r\n{body}"));

    // As long as somebody else writes to the inbox, no commit ends.
    let inbox =
        rusqlite::Connection::open(gateway.folder.path().join("data/inbox.db")).expect("the inbox");
    inbox
        .execute_batch("BEGIN IMMEDIATE")
        .expect("the write lock");
    let mut caller = std::net::TcpStream::connect(gateway.public).expect("a connection");
    std::io::Write::write_all(&mut caller, request.as_bytes()).expect("written");
    // The proof is noted just before the commit.
    wait_for("the proof", async || {
        let secrets = gateway.admin_json("/sources/triage/secrets").await;
        (!secrets["items"][0]["used"].is_null()).then_some(())
    })
    .await;
    drop(caller);
    let left = r#"sluicegate_refused_total{reason="aborted",source="triage"}"#;
    gateway.metric_is(left, 1.0).await;
    inbox.execute_batch("ROLLBACK").expect("let go of");

    upstream.wait_for_runs(1).await;
    let again = gateway
        .post("/hooks/triage", &borrowed(&headers), body)
        .await;
    assert_eq!(json(&again)["status"], "duplicate", "{:?}", again.body());
    gateway.metric_is(left, 1.0).await;
    let refused = r#"sluicegate_requests_total{outcome="refused",source="triage"}"#;
    gateway.metric_is(refused, 1.0).await;
}
