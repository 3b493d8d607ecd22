//! How requests are framed, over raw sockets: one meaning or none. Names carry the row of the threat page.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{Gateway, Upstream, corpus, wait_for};

const OPEN: &str = r#"
[sources.open]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
defaults = { prompt = "hello" }
[[proxy]]
prefix = "/v1"
upstream = "http://UPSTREAM"
exchange_keys = false
"#;

const BODY: &str = r#"{"a":1}"#;

/// What came back on a connection.
pub struct Heard {
    pub text: String,
    /// Whether the other side ended it.
    pub ended: bool,
}

impl Heard {
    /// The statuses of the answers, in order.
    pub fn statuses(&self) -> Vec<u16> {
        self.text
            .split("HTTP/1.1 ")
            .skip(1)
            .filter_map(|answer| answer.get(..3)?.parse().ok())
            .collect()
    }

    /// The statuses of answers that are the last word on a request.
    fn finals(&self) -> Vec<u16> {
        self.statuses()
            .into_iter()
            .filter(|status| *status >= 200)
            .collect()
    }
}

/// Writes pieces to a socket and reads until the other side ends, or is silent for long.
pub fn raw(address: SocketAddr, pieces: &[&[u8]]) -> Heard {
    send(
        address,
        pieces,
        Duration::ZERO,
        false,
        Duration::from_secs(5),
    )
}

#[expect(clippy::disallowed_methods, reason = "a raw client of its own thread")]
fn send(
    address: SocketAddr,
    pieces: &[&[u8]],
    pause: Duration,
    half_close: bool,
    patience: Duration,
) -> Heard {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("it can be set");
    stream.set_read_timeout(Some(patience)).expect("a time-out");
    for (at, piece) in pieces.iter().enumerate() {
        if at > 0 {
            std::thread::sleep(pause);
        }
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    if half_close {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let ended = match stream.read_to_end(&mut answer) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    };
    Heard {
        text: String::from_utf8_lossy(&answer).into_owned(),
        ended,
    }
}

async fn gateway() -> (Upstream, Gateway) {
    gateway_with("").await
}

async fn gateway_with(server: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(&[]).await;
    let sources = OPEN.replace("UPSTREAM", &upstream.address.to_string());
    let gateway = Gateway::start_with(upstream.address, &sources, server).await;
    (upstream, gateway)
}

/// Sends a text as it is.
async fn ask(gateway: &Gateway, text: &str) -> Heard {
    ask_bytes(gateway, text.as_bytes().to_vec(), Duration::from_secs(3)).await
}

async fn ask_bytes(gateway: &Gateway, bytes: Vec<u8>, patience: Duration) -> Heard {
    let public = gateway.public;
    let asked = move || send(public, &[&bytes], Duration::ZERO, false, patience);
    tokio::task::spawn_blocking(asked).await.expect("no panic")
}

fn post(lines: &str, body: &str) -> String {
    format!(
        "POST /hooks/open HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: application/json\r\n{lines}\r\n{body}"
    )
}

const SMUGGLED: &str = "GET /__smuggled HTTP/1.1\r\nHost: gateway.test\r\n\r\n";

fn assert_ends(heard: &Heard, status: u16, code: &str, what: &str) {
    assert_eq!(heard.finals(), [status], "{what}: {}", heard.text);
    assert!(heard.ended, "{what}: it stays open: {}", heard.text);
    let body: Value = heard
        .text
        .split("\r\n\r\n")
        .last()
        .and_then(|body| serde_json::from_str(body).ok())
        .unwrap();
    assert_eq!(body["code"], code, "{what}: {body}");
    assert!(
        body["request_id"]
            .as_str()
            .is_some_and(|id| id.starts_with("req_")),
        "{what}: {body}"
    );
    assert!(
        heard
            .text
            .to_ascii_lowercase()
            .contains("\r\nconnection: close\r\n"),
        "{what}: {}",
        heard.text
    );
}

#[tokio::test]
async fn every_raw_request_of_the_corpus_is_answered_as_it_says() {
    let (upstream, gateway) = gateway_with("head_timeout = \"2s\"").await;
    let file = corpus("http1-raw/cases.json");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; this file is part of the repository",
            file.display()
        )
    });
    let cases: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    assert!(cases.len() > 50, "saw {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let latin1 = |text: &str| {
            text.chars()
                .map(|c| u8::try_from(u32::from(c)).expect("latin-1"))
                .collect()
        };
        let pieces: Vec<Vec<u8>> = case["send"]
            .as_array()
            .expect("pieces")
            .iter()
            .map(|piece| {
                let text = piece.as_str().expect("a text");
                latin1(
                    &text
                        .replace("/hook ", "/hooks/open ")
                        .replace("/hook?", "/hooks/open?"),
                )
            })
            .collect();
        let pause = Duration::from_secs_f64(case["pause_s"].as_f64().unwrap_or(0.0));
        let half_close = case["half_close"] == true;
        let expect = case["expect"].as_str().expect("a word").to_owned();
        // Where the connection may live on, its silence is short.
        let ends = matches!(expect.as_str(), "reject" | "close1" | "not2xx" | "no100");
        let patience = if ends {
            Duration::from_secs(4)
        } else {
            Duration::from_millis(700)
        };
        let public = gateway.public;
        let heard = tokio::task::spawn_blocking(move || {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            send(public, &pieces, pause, half_close, patience)
        });
        let heard = heard.await.expect("no panic");
        let finals = heard.finals();
        let refused = |status: &u16| (400..500).contains(status) || matches!(status, 501 | 505);
        let reject =
            heard.ended && (finals.is_empty() || (finals.len() == 1 && refused(&finals[0])));
        let good = match expect.as_str() {
            "reject" => reject,
            "close1" => reject || (heard.ended && finals == [202]),
            "4xx" => finals.len() == 1 && (400..500).contains(&finals[0]),
            "safe" => finals.len() <= 1 && (finals.len() == 1 || heard.ended),
            "ok" => finals == [202],
            "not2xx" => finals.len() <= 1 && finals.iter().all(|status| *status >= 300),
            "no100" => heard.statuses().len() == 1 && (400..500).contains(&finals[0]),
            "no101" => !heard.statuses().contains(&101) && finals.len() == 1,
            "noinject" => !heard.text.to_ascii_lowercase().contains("\r\nset-cookie"),
            "two" => finals == [202, 202],
            other => panic!("an expectation that is not known: {other}"),
        };
        let smuggled = heard.text.contains("__smuggled") || finals.contains(&500);
        if !good || smuggled {
            wrong.push(format!(
                "{} ({expect}): {finals:?} ended {}: {:?}",
                case["name"], heard.ended, heard.text
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    // It still answers good requests, and nothing else reached the upstream.
    assert_eq!(gateway.post("/hooks/open", &[], BODY).await.status(), 202);
    let runs = upstream.runs().await;
    assert!(!Value::from(runs).to_string().contains("smuggled"));
    assert!(!gateway.log().contains("__smuggled"));
}

#[tokio::test]
async fn t1_to_t5_framing_in_doubt_is_refused_and_ends() {
    let (_upstream, gateway) = gateway().await;
    let chunks = format!("7\r\n{BODY}\r\n0\r\n\r\n{SMUGGLED}");
    for (row, lines, body) in [
        (
            "T1",
            "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
            chunks.as_str(),
        ),
        (
            "T1",
            "Transfer-Encoding: chunked\r\nContent-Length: 60\r\n",
            &chunks,
        ),
        (
            "T2",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            &chunks,
        ),
        ("T2", "Transfer-Encoding: chunked, chunked\r\n", &chunks),
        ("T2", "Transfer-Encoding: xchunked\r\n", &chunks),
        ("T2", "Transfer-Encoding: \"chunked\"\r\n", &chunks),
        ("T4", "Content-Length: 7\r\nContent-Length: 8\r\n", BODY),
        ("T4", "Content-Length: 7\r\ncontent-length: 7\r\n", BODY),
        ("T5", "Content-Length: 7, 7\r\n", BODY),
        ("T5", "Content-Length: +7\r\n", BODY),
        ("T5", "Content-Length: \r\n", BODY),
        ("T5", "Content-Length: 99999999999999999999999\r\n", BODY),
    ] {
        let heard = ask(&gateway, &post(lines, body)).await;
        assert_ends(&heard, 400, "bad_framing", &format!("{row} {lines:?}"));
    }
    let old = format!(
        "POST /hooks/open HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
    );
    assert_ends(&ask(&gateway, &old).await, 400, "bad_framing", "T3");
    assert_eq!(gateway.admin_json("/events").await["items"], json!([]));
    let counted = gateway
        .metric(r#"sluicegate_refused_total{reason="bad_framing",source=""}"#)
        .await;
    assert_eq!(counted, 13.0, "each is counted");
}

#[tokio::test]
async fn t6_t7_chunks_that_are_off_leave_nothing_behind() {
    let (_upstream, gateway) = gateway().await;
    let long = "x".repeat(20 * 1024);
    for (row, body) in [
        ("T6", format!("+7\r\n{BODY}\r\n0\r\n\r\n")),
        ("T6", format!("7\n{BODY}\n0\n\n")),
        ("T6", format!("7\r\n{BODY}0\r\n\r\n")),
        ("T6", format!("7\r\n{BODY}\r\n0\n\n")),
        ("T7", format!("7;{long}\r\n{BODY}\r\n0\r\n\r\n")),
        ("T7", format!("7\r\n{BODY}\r\n0\r\nx: {long}\r\n\r\n")),
    ] {
        let heard = ask(
            &gateway,
            &post("Transfer-Encoding: chunked\r\n", &(body + SMUGGLED)),
        )
        .await;
        assert_ends(&heard, 400, "bad_framing", row);
    }
    assert_eq!(gateway.admin_json("/events").await["items"], json!([]));
    let trailers = format!("7\r\n{BODY}\r\n0\r\nX-Trailer: 1\r\nHost: evil\r\n\r\n");
    let heard = ask(&gateway, &post("Transfer-Encoding: chunked\r\n", &trailers)).await;
    assert_eq!(heard.finals(), [202], "{}", heard.text);
    let event = gateway.admin_json("/events").await["items"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let event = gateway
        .admin_json(&format!("/events/{event}"))
        .await
        .to_string();
    assert!(
        !event.to_ascii_lowercase().contains("x-trailer") && !event.contains("evil"),
        "{event}"
    );
}

#[tokio::test]
async fn t7_t15_t16_t20_t21_what_is_of_one_connection_or_a_claim_does_not_go_up() {
    let (upstream, gateway) = gateway().await;
    let head = "POST /v1/agents/a/invoke HTTP/1.1\r\nHost: gateway.test\r\nx-api-key: planted-upstream-key-77\r\n\
                Content-Type: application/json\r\nConnection: upgrade, x-mine, x-api-key\r\nUpgrade: websocket\r\n\
                X-Mine: 1\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Original-URL: /evil\r\n\
                X-HTTP-Method-Override: DELETE\r\nX_Forwarded_For: 6.6.6.6\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = r#"{"input":{"text":"hi"}}"#;
    let chunks = format!(
        "{:x}\r\n{body}\r\n0\r\nX-Trailer: 6.6.6.6\r\n\r\n",
        body.len()
    );
    let heard = ask(&gateway, &format!("{head}{chunks}")).await;
    assert!(!heard.statuses().contains(&101), "{}", heard.text);
    assert_eq!(heard.finals().len(), 1, "{}", heard.text);
    let seen = Value::from(upstream.runs().await).to_string();
    assert!(
        !seen.contains("6.6.6.6") && !seen.contains("/evil") && !seen.contains("websocket"),
        "{seen}"
    );
}

#[tokio::test]
async fn t9_t18_invalid_heads_are_refused_without_their_bytes_in_the_log() {
    let (_upstream, gateway) = gateway().await;
    for lines in [
        "X-Planted : one\r\n",
        "X-Planted: o\0ne\r\n",
        ": planted\r\n",
        "X-Planted one\r\n",
        "X-A: one\r\r\nX-Planted: 1\r\n",
        "X-A: planted\r\n two\r\n",
        "\tX-Planted: one\r\n",
    ] {
        let heard = ask(
            &gateway,
            &post(
                &format!("{lines}Content-Length: 7\r\n"),
                &format!("{BODY}{SMUGGLED}"),
            ),
        )
        .await;
        assert_ends(&heard, 400, "bad_head", &format!("T9 {lines:?}"));
    }
    let noise: Vec<u8> = (0..300_u32)
        .map(|n| u8::try_from(n * 7 % 256).unwrap_or(0))
        .collect();
    for (what, bytes) in [
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03planted".to_vec(),
        ),
        ("noise", noise),
        ("CR alone", b"POST / HTTP/1.1\rHost: planted\r\r".to_vec()),
        ("SSH", b"SSH-2.0-planted\r\n\r\n".to_vec()),
    ] {
        let heard = ask_bytes(&gateway, bytes, Duration::from_secs(3)).await;
        assert_ends(&heard, 400, "bad_head", &format!("T18 {what}"));
    }
    // Lines are on their way for a moment.
    wait_for("the log", async || {
        (gateway.log().matches("bad_head").count() >= 11).then_some(())
    })
    .await;
    let log = gateway.log();
    assert!(!log.to_ascii_lowercase().contains("planted"), "{log}");
}

#[tokio::test]
async fn t10_t19_what_is_odd_and_legal_is_answered_in_order() {
    let (_upstream, gateway) = gateway().await;
    let good = post("Content-Length: 7\r\n", BODY);
    let heard = ask(&gateway, &good.replace("\r\n", "\n")).await;
    assert_eq!(heard.finals(), [202], "T10: {}", heard.text);
    let missing = "GET /hooks/nothing HTTP/1.1\r\nHost: a\r\n\r\n";
    let heard = ask(&gateway, &format!("\r\n{good}\r\n{good}{missing}{good}")).await;
    assert_eq!(heard.finals(), [202, 202, 404, 202], "T19: {}", heard.text);
    let public = gateway.public;
    let single: Vec<u8> = good.into_bytes();
    let heard = tokio::task::spawn_blocking(move || {
        let pieces: Vec<&[u8]> = single.chunks(1).collect();
        send(
            public,
            &pieces,
            Duration::from_millis(1),
            false,
            Duration::from_millis(700),
        )
    });
    assert_eq!(
        heard.await.expect("no panic").finals(),
        [202],
        "T19 byte by byte"
    );
}

#[tokio::test]
async fn t11_t12_t14_hosts_targets_methods_and_versions() {
    let (upstream, gateway) = gateway().await;
    for lines in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a, b\r\n",
        "Host: u@h\r\n",
        "Host: \r\n",
        "Host: a b\r\n",
    ] {
        let heard = ask(
            &gateway,
            &format!("GET /hooks/nothing HTTP/1.1\r\n{lines}\r\n"),
        )
        .await;
        assert_ends(&heard, 400, "bad_host", &format!("T11 {lines:?}"));
    }
    for target in [
        "!",
        "*",
        "hooks/open",
        "ftp://a/hooks/open",
        "/hooks/open#x",
        "http:///x",
    ] {
        let heard = ask(
            &gateway,
            &format!("POST {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
        )
        .await;
        assert_ends(&heard, 400, "bad_target", &format!("T12 {target}"));
    }
    for (target, said) in [
        (
            r#"/hooks/open?params_mapping={"prompt":"a"}"#,
            "a raw \\\" in the address. Write it as %22.",
        ),
        (
            "/hooks/open?a=<b>",
            "a raw < in the address. Write it as %3C.",
        ),
        (
            "/hooks/open?a=b c",
            "a blank in the address. Write it as %20.",
        ),
        (
            "/hooks/open?a=\u{e9}",
            "a character beyond ASCII in the address.",
        ),
        ("/hooks/open#x", "a raw # in the address."),
    ] {
        let heard = ask(
            &gateway,
            &format!("POST {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
        )
        .await;
        assert_ends(&heard, 400, "bad_target", target);
        assert!(heard.text.contains(said), "{target}: {}", heard.text);
    }
    let elsewhere = post("Content-Length: 7\r\n", BODY)
        .replace(" /hooks/open ", " http://other.test/hooks/open ");
    assert_eq!(
        ask(&gateway, &elsewhere).await.finals(),
        [202],
        "T12: by its path only"
    );
    for (line, status, code) in [
        ("CONNECT 127.0.0.1:1 HTTP/1.1", 405, "method_not_allowed"),
        ("TRACE /hooks/open HTTP/1.1", 405, "method_not_allowed"),
        ("BREW /hooks/open HTTP/1.1", 405, "method_not_allowed"),
        ("B@D /hooks/open HTTP/1.1", 400, "bad_head"),
        ("POST  /hooks/open HTTP/1.1", 400, "bad_head"),
        ("POST /hooks/open HTTP/1.32", 505, "unsupported_version"),
        ("POST /hooks/open HTTP/2.0", 505, "unsupported_version"),
        ("PRI * HTTP/2.0", 505, "unsupported_version"),
    ] {
        let heard = ask(
            &gateway,
            &format!("{line}\r\nHost: a\r\nX-Planted: secret\r\n\r\n"),
        )
        .await;
        assert_ends(&heard, status, code, &format!("T14 {line}"));
        assert!(!heard.text.contains("secret"), "T14: no echo");
        assert_eq!(
            status == 405,
            heard.text.to_ascii_lowercase().contains("\r\nallow: "),
            "T14: {}",
            heard.text
        );
    }
    assert_eq!(upstream.wait_for_runs(1).await.len(), 1);
}

#[tokio::test]
async fn t13_what_is_too_long_or_too_many_is_refused() {
    let (_upstream, gateway) = gateway().await;
    let many = "X-A: 1\r\n".repeat(101);
    for (what, text, status, code) in [
        (
            "a target",
            format!(
                "GET /hooks/{} HTTP/1.1\r\nHost: a\r\n\r\n",
                "x".repeat(17_000)
            ),
            414,
            "target_too_long",
        ),
        (
            "a longer target",
            format!(
                "GET /hooks/{} HTTP/1.1\r\nHost: a\r\n\r\n",
                "x".repeat(90_000)
            ),
            414,
            "target_too_long",
        ),
        (
            "a header",
            post(&format!("X: {}\r\n", "x".repeat(40_000)), ""),
            431,
            "head_too_large",
        ),
        ("many headers", post(&many, ""), 431, "head_too_large"),
        (
            "without end",
            format!("GET / HTTP/1.1\r\n{}", "X-A: 1\r\n".repeat(50_000)),
            431,
            "head_too_large",
        ),
    ] {
        let begun = Instant::now();
        assert_ends(&ask(&gateway, &text).await, status, code, what);
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "T13 {what}: {:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn t16_t17_an_early_refusal_comes_at_once_and_can_be_read() {
    let (_upstream, gateway) = gateway().await;
    let expect = post("Expect: 100-continue\r\nContent-Length: 9999999999\r\n", "");
    let heard = ask(&gateway, &expect).await;
    assert_eq!(
        heard.statuses(),
        [413],
        "T16: no 100 before it: {}",
        heard.text
    );
    let patient = post("Expect: 100-continue\r\nContent-Length: 7\r\n", "");
    let public = gateway.public;
    let heard = tokio::task::spawn_blocking(move || {
        let pieces = [patient.as_bytes(), BODY.as_bytes()];
        send(
            public,
            &pieces,
            Duration::from_millis(300),
            false,
            Duration::from_millis(700),
        )
    });
    assert_eq!(heard.await.expect("no panic").statuses(), [100, 202], "T16");
    // The body is on its way already: three times what a socket takes at once would be lost with a reset.
    for (path, status, code) in [
        ("/hooks/open", 413, "too_large"),
        ("/hooks/nothing", 404, "not_found"),
    ] {
        let mut text = post("Content-Length: 3000000\r\n", "")
            .replace("/hooks/open", path)
            .into_bytes();
        text.extend(SMUGGLED.as_bytes().repeat(400));
        let begun = Instant::now();
        let heard = ask_bytes(&gateway, text, Duration::from_secs(4)).await;
        assert_ends(&heard, status, code, &format!("T17 {path}"));
        assert!(begun.elapsed() < Duration::from_secs(3));
        assert!(!heard.text.contains("__smuggled"));
    }
}
