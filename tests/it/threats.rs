//! Attacks that belong to no one part: time stamps, floods of signatures, planted secrets, broken upstreams, markup and
//! control bytes in whatever is shown or logged.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::world::{
    API_KEY, Gateway, TOKEN, Upstream, binary, event_id, hmac_sha256, json as body_of, wait_for,
};

const SECRET: &str = "planted-signing-secret-01";

const SOURCES: &str = r#"
[sources.timed]
provider = "custom"
secrets = ["literal:planted-signing-secret-01"]
agent = "a"
verify = { scheme = "hmac", algorithm = "sha256", signature = "header:X-Signature", timestamp = { from = "header:X-Time", unit = "s", tolerance = 300 }, signed_content = "{header:X-Time}.{body}" }
[sources.listed]
provider = "stripe"
secrets = ["literal:whsec_planted-signing-secret-01"]
agent = "a"
[sources.open]
provider = "custom"
agent = "a"
thread = "chat"
verify = { scheme = "none", event_type = "json:type", event_id = "json:id" }
[sources.straight]
provider = "custom"
agent = "a"
respond = "proxy"
verify = { scheme = "none" }
"#;

fn now() -> i64 {
    sluicegate::model::Clock::system().now().seconds()
}

#[tokio::test]
async fn t47_a_time_stamp_is_judged_after_the_signature_and_no_number_does_harm() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    let send = async |time: &str, number: u32| {
        let body = format!(r#"{{"prompt":"{number}"}}"#);
        let signature = hmac_sha256(SECRET.as_bytes(), format!("{time}.{body}").as_bytes());
        gateway
            .post(
                "/hooks/timed",
                &[("x-time", time), ("x-signature", &signature)],
                body,
            )
            .await
    };
    for (number, offset) in (0..).zip([0, -290, 50]) {
        let answer = send(&(now() + offset).to_string(), number).await;
        assert_eq!(answer.status(), 202, "{offset}: {:?}", answer.body());
    }
    let far: Vec<String> = [-310, 70, -1_000_000, 1_000_000]
        .iter()
        .map(|by| (now() + by).to_string())
        .collect();
    let odd = [
        "",
        "0",
        "-1",
        "1e9",
        "NaN",
        "99999999999999999999999",
        "-9223372036854775808",
        "\u{661}\u{662}",
    ];
    let mut texts = BTreeSet::new();
    for (number, time) in (10..).zip(far.iter().map(String::as_str).chain(odd)) {
        let answer = send(time, number).await;
        assert_eq!(answer.status(), 401, "{time}: {:?}", answer.body());
        texts.insert(body_of(&answer)["detail"].to_string());
    }
    // A wrong signature over a stale time says nothing of the time.
    let stale = [("x-time", "1"), ("x-signature", "00")];
    texts.insert(body_of(&gateway.post("/hooks/timed", &stale, "{}").await)["detail"].to_string());
    assert_eq!(texts.len(), 1, "one text for all: {texts:?}");
    gateway
        .metric_is(
            r#"sluicegate_refused_total{reason="stale",source="timed"}"#,
            3.0,
        )
        .await;
    gateway
        .metric_is(
            r#"sluicegate_refused_total{reason="future",source="timed"}"#,
            2.0,
        )
        .await;
}

#[tokio::test]
async fn t48_thousands_of_signatures_cost_no_more_than_a_few() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    let body = r#"{"id":"evt_1","type":"x"}"#;
    let now = now();
    let right = hmac_sha256(
        format!("whsec_{SECRET}").as_bytes(),
        format!("{now}.{body}").as_bytes(),
    );
    let header = format!("t={now},{}v1={right}", "v1=00,".repeat(2_000));
    let begun = Instant::now();
    let answer = gateway
        .post("/hooks/listed", &[("stripe-signature", &header)], body)
        .await;
    assert_eq!(
        answer.status(),
        401,
        "the right one stands behind more than anybody sends: {:?}",
        answer.body()
    );
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    let few = format!("t={now},v1={},v1={right}", "0".repeat(64));
    assert_eq!(
        gateway
            .post("/hooks/listed", &[("stripe-signature", &few)], body)
            .await
            .status(),
        202
    );
}

/// Everything that a folder holds, file by file.
fn bytes_of(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(bytes_of(&path));
        } else if path
            .file_name()
            .is_some_and(|name| name != "sluicegate.toml")
        {
            all.extend(std::fs::read(path).unwrap_or_default());
        }
    }
    all
}

#[tokio::test]
async fn t57_no_byte_of_a_secret_is_shown_logged_or_kept_in_clear() {
    let planted = [
        "planted-caller-key-4712",
        "planted-query-key-4713",
        "planted-bearer-4714",
        "planted-cookie-4715",
        "planted-user-token-4716",
        SECRET,
        API_KEY,
        TOKEN,
    ];
    let [caller, query, bearer, cookie, user_token, ..] = planted;
    // Errors are logged in more words than what goes well.
    let upstream = Upstream::start(&["--fail", "500=1/2"]).await;
    let filter = "[dispatch]\nbackoff = \"100ms\"\nbackoff_max = \"500ms\"\n[log]\nformat = \"json\"\nfilter = \"trace\"";
    let config =
        Gateway::config(upstream.address, SOURCES, "").replace("[log]\nformat = \"json\"", filter);
    let gateway = Gateway::start_config(&config).await;
    let authorization = format!("Bearer {bearer}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("cookie", cookie),
        ("x-api-key", caller),
        ("x-token", bearer),
    ];
    for number in 0..4 {
        let body = json!({
            "prompt": format!("hi {number}"),
            "agent_id": "a",
            "task_id": format!("t{number}"),
            "user_tokens": {"google": user_token},
        });
        gateway
            .post(
                &format!("/?x-api-key={query}"),
                &headers[..2],
                body.to_string(),
            )
            .await;
        gateway
            .post("/?asynchronous=true", &headers, body.to_string())
            .await;
        gateway
            .post(&format!("/?x-api-key={query}"), &[], "no JSON")
            .await;
        for source in ["open", "straight", "timed", "nobody"] {
            let path = format!("/hooks/{source}?x-api-key={query}&token={query}&key={query}");
            gateway
                .post(
                    &path,
                    &headers,
                    format!(r#"{{"prompt":"{source} {number}"}}"#),
                )
                .await;
        }
    }
    upstream.wait_for_runs(8).await;
    wait_for("everything to end", async || {
        let text = gateway.admin(Method::GET, "/metrics").await;
        let text = String::from_utf8_lossy(text.body()).into_owned();
        let waits = text.lines().filter(|line| {
            line.starts_with("sluicegate_inbox_deliveries{")
                && (line.contains("\"pending\"") || line.contains("\"leased\""))
                && !line.ends_with(" 0")
        });
        (waits.count() == 0).then_some(())
    })
    .await;

    let mut shown = gateway.log().into_bytes();
    for path in [
        "",
        "/events?limit=200",
        "/sources",
        "/destinations",
        "/refused",
        "/metrics",
        "/budgets",
    ] {
        shown.extend_from_slice(gateway.admin(Method::GET, path).await.body());
    }
    let list = gateway.admin_json("/events?limit=200").await;
    for event in list["items"].as_array().expect("events") {
        let id = event["id"].as_str().expect("an id");
        shown.extend_from_slice(
            gateway
                .admin(Method::GET, &format!("/events/{id}"))
                .await
                .body(),
        );
        let admin = format!("http://{}", gateway.admin);
        for format in [&["--json"][..], &[]] {
            let show = Command::new(binary())
                .args(["event", "show", id, "--admin", &admin])
                .args(format)
                .env("SLUICEGATE_ADMIN_TOKEN", TOKEN)
                .output()
                .expect("it runs");
            assert!(
                show.status.success(),
                "{}",
                String::from_utf8_lossy(&show.stderr)
            );
            shown.extend(show.stdout);
            shown.extend(show.stderr);
        }
    }
    let kept = bytes_of(gateway.folder.path());
    assert!(
        kept.len() > 10_000 && shown.len() > 10_000,
        "there is something to look through"
    );
    for secret in planted {
        let has = |bytes: &[u8]| {
            bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes())
        };
        assert!(
            !has(&shown),
            "{secret} is shown: {}",
            around(&shown, secret)
        );
        assert!(
            !has(&kept),
            "{secret} is kept in clear: {}",
            around(&kept, secret)
        );
    }
}

fn around(bytes: &[u8], text: &str) -> String {
    let at = bytes
        .windows(text.len())
        .position(|window| window == text.as_bytes())
        .unwrap_or_default();
    String::from_utf8_lossy(&bytes[at.saturating_sub(200)..(at + 200).min(bytes.len())])
        .into_owned()
}

#[tokio::test]
async fn t75_t76_what_a_caller_names_is_one_segment_and_never_a_header() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, "").await;
    let agents = [
        "plain",
        "A_b-9",
        "a/../../v1/keys",
        "a?x=1#y",
        "a%2f..%2fb",
        "..",
        "a b\u{e9}",
        "a\r\nx-injected: 1",
        "a\u{0}",
    ];
    let mut taken = Vec::new();
    for agent in agents {
        let body = json!({"agent_id": agent, "prompt": "x"});
        let headers = [("x-api-key", "k-1"), ("content-type", "application/json")];
        let answer = gateway.post("/", &headers, body.to_string()).await;
        assert!(
            matches!(answer.status().as_u16(), 200 | 400 | 422),
            "{agent:?}: {:?}",
            answer.body()
        );
        if answer.status() == 200 {
            taken.push(format!("agents/{agent}"));
        }
    }
    // Whatever was called was called by the whole of its name, and nothing else was.
    let runs = upstream.runs().await;
    let called: Vec<&str> = runs
        .iter()
        .map(|run| run["destination"].as_str().expect("a name"))
        .collect();
    assert_eq!(called, taken);
    assert_eq!(taken, ["agents/plain", "agents/A_b-9"]);
    assert!(
        runs.iter()
            .all(|run| run["headers"].get("x-injected").is_none()),
        "{runs:?}"
    );
}

#[tokio::test]
async fn t77_t79_a_broken_answer_is_502_and_its_connection_is_not_used_again() {
    let answers = [
        "HTTP/1.1 abc\r\n\r\n",
        "\u{16}\u{3}\u{1}garbage",
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\ncontent-type: application/json\r\n\r\n{\"status\":\"completed\",\"result\":\"half",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 7\r\n\r\n{\"a\":1}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        "",
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (calls, next) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, told) = (calls.clone(), next.clone());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let (counted, answer) = (counted.clone(), answers[told.load(Ordering::SeqCst)]);
            tokio::spawn(async move {
                let mut piece = [0; 8192];
                while let Ok(read @ 1..) = stream.read(&mut piece).await {
                    if piece[..read].starts_with(b"POST ") {
                        counted.fetch_add(1, Ordering::SeqCst);
                        let _ = stream.write_all(answer.as_bytes()).await;
                        let _ = stream.shutdown().await;
                    }
                }
            });
        }
    });
    let gateway = Gateway::start(address, SOURCES).await;
    for (number, sent) in answers.iter().enumerate() {
        next.store(number, Ordering::SeqCst);
        let answer = gateway
            .post("/hooks/straight", &[], r#"{"prompt":"hi"}"#)
            .await;
        assert_eq!(answer.status(), 502, "{sent:?}: {:?}", answer.body());
        assert_eq!(body_of(&answer)["code"], "upstream_failed", "{sent:?}");
        assert_eq!(
            calls.load(Ordering::SeqCst),
            number + 1,
            "sent once: {sent:?}"
        );
    }
}

#[tokio::test]
async fn t99_t100_t101_markup_and_control_bytes_stay_what_they_are() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    let nasty = "<script>alert(1)</script>\n2026-01-01 ERROR forged\r\n\u{1b}[31mred\u{7}\u{202e}\u{9b}2J\u{2028}";
    let long = "L".repeat(5_000);
    let mut ids = Vec::new();
    for (number, word) in [nasty, &long].into_iter().enumerate() {
        let body =
            json!({"prompt": word, "type": word, "id": format!("{number}{word}"), "chat": word});
        let answer = gateway
            .post(
                "/hooks/open?x=%0d%0aforged%1b%5b31m",
                &[("user-agent", "a\tb")],
                body.to_string(),
            )
            .await;
        // What is too long to be a name may be refused; nothing else may.
        assert!(
            matches!(answer.status().as_u16(), 202 | 422),
            "{:?}",
            answer.body()
        );
        if answer.status() == 202 {
            ids.push(event_id(&answer));
        }
        gateway.post("/hooks/%0d%0aforged%1b%5b31m", &[], "x").await;
    }
    for id in &ids {
        gateway.settled(id).await;
        let admin = format!("http://{}", gateway.admin);
        for command in [&["event", "show", id][..], &["event", "list"]] {
            let show = Command::new(binary())
                .args(command)
                .args(["--admin", &admin])
                .env("SLUICEGATE_ADMIN_TOKEN", TOKEN)
                .output()
                .expect("it runs");
            let text = String::from_utf8(show.stdout).expect("text");
            let odd =
                |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{2028}');
            assert!(show.status.success() && !text.contains(odd), "{text:?}");
            assert!(
                !text
                    .lines()
                    .any(|line| line.starts_with("2026-01-01 ERROR")),
                "{text}"
            );
        }
        let body = gateway
            .admin(Method::GET, &format!("/events/{id}/body"))
            .await;
        assert!(
            body.headers()["content-disposition"]
                .to_str()
                .is_ok_and(|value| value.starts_with("attachment"))
        );
        assert_eq!(body.headers()["x-content-type-options"], "nosniff");
    }
    for line in gateway.log().lines().filter(|line| line.starts_with('{')) {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let longest = line
            .as_object()
            .expect("an object")
            .values()
            .filter_map(Value::as_str)
            .map(str::len)
            .max();
        assert!(longest < Some(1_100), "{line}");
    }
}

#[tokio::test]
async fn t104_odd_searches_are_refused_in_words_and_what_is_not_there_is_404() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    gateway.post("/hooks/open", &[], r#"{"prompt":"hi"}"#).await;
    let long = format!("/events?source={}", "s".repeat(3_000));
    for path in [
        "/events?cursor=%00",
        "/events?cursor=zzzz",
        "/events?cursor=-1",
        "/events?limit=0",
        "/events?limit=-1",
        "/events?limit=99999999999999999999",
        "/events?state=any",
        "/events?since=yesterday",
        "/events?nonsense=1",
        "/events?order=sideways",
        "/events/nonsense",
        "/events?until=99999999999-01-01T00:00:00Z",
        &long,
        "/attachments?cursor=zz",
        "/replays/x",
    ] {
        let answer = gateway.admin(Method::GET, path).await;
        assert!(
            matches!(answer.status().as_u16(), 400 | 404),
            "{path}: {:?} {:?}",
            answer.status(),
            answer.body()
        );
        assert!(answer.body().len() < 2_000, "{path}");
    }
    for path in [
        "/events/evt_00000000000070008000000000000000",
        "/replays/4711",
    ] {
        assert_eq!(
            gateway.admin(Method::GET, path).await.status(),
            404,
            "{path}"
        );
    }
    // No source is called so: that is said, and it stands for no other name.
    assert_eq!(
        gateway
            .admin(Method::GET, "/events?source=%25")
            .await
            .status(),
        404
    );
    for path in [
        "/events?thread=%27%3B+DROP+TABLE+event%3B--",
        "/events?dedup=_%25%5c",
    ] {
        let answer = gateway.admin(Method::GET, path).await;
        assert_eq!(
            (answer.status().as_u16(), &body_of(&answer)["items"]),
            (200, &json!([])),
            "{path}"
        );
    }
}

#[tokio::test]
async fn t107_no_answer_names_its_maker() {
    let upstream = Upstream::start(&["--fail", "500=1/1"]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    for path in [
        "/",
        "/hooks/open",
        "/hooks/straight",
        "/hooks/none",
        "/metrics",
        "/api/v1/events",
        "/files/x/y",
        "/%00",
    ] {
        for method in [Method::GET, Method::POST, Method::PUT, Method::OPTIONS] {
            let answer = gateway
                .send(method, path, &[("x-api-key", "k")], r#"{"prompt":"x"}"#)
                .await;
            for name in ["server", "x-powered-by", "via"] {
                assert!(!answer.headers().contains_key(name), "{path}: {name}");
            }
            let text = String::from_utf8_lossy(answer.body()).to_lowercase();
            for word in [
                "panic",
                "sqlite",
                "hyper",
                "tokio",
                "src/",
                ".rs",
                "127.0.0.1",
                "os error",
            ] {
                assert!(!text.contains(word), "{path}: {text}");
            }
        }
    }
}
