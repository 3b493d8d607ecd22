//! What is passed through arrives as it was sent, both ways, as it comes; seen as bytes, by an upstream and a caller
//! that are plain sockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{API_KEY, Gateway, wait_for};

const SECOND: Duration = Duration::from_secs(1);

/// A connection, read as bytes.
pub struct Wire {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub async fn to(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            read: Vec::new(),
        }
    }

    pub async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads up to and with `mark`.
    pub async fn until(&mut self, mark: &str) -> String {
        let read = async {
            loop {
                if let Some(at) = self
                    .read
                    .windows(mark.len())
                    .position(|window| window == mark.as_bytes())
                {
                    let rest = self.read.split_off(at + mark.len());
                    let whole = std::mem::replace(&mut self.read, rest);
                    return String::from_utf8(whole).unwrap();
                }
                let mut piece = vec![0; 16 * 1024];
                let count = self.stream.read(&mut piece).await.unwrap();
                assert!(
                    count > 0,
                    "the end before {mark:?}: {:?}",
                    String::from_utf8_lossy(&self.read)
                );
                self.read.extend_from_slice(&piece[..count]);
            }
        };
        tokio::time::timeout(10 * SECOND, read)
            .await
            .unwrap_or_else(|_| panic!("waited in vain for {mark:?}"))
    }

    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    pub async fn exactly(&mut self, count: usize) -> String {
        while self.read.len() < count {
            let mut piece = vec![0; 16 * 1024];
            let got = tokio::time::timeout(10 * SECOND, self.stream.read(&mut piece))
                .await
                .unwrap()
                .unwrap();
            assert!(got > 0, "the end");
            self.read.extend_from_slice(&piece[..got]);
        }
        let rest = self.read.split_off(count);
        String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap()
    }

    /// Whatever comes until the connection ends.
    pub async fn rest(mut self) -> String {
        let mut piece = vec![0; 16 * 1024];
        loop {
            match tokio::time::timeout(10 * SECOND, self.stream.read(&mut piece))
                .await
                .expect("it ends")
            {
                Ok(0) | Err(_) => return String::from_utf8_lossy(&self.read).into_owned(),
                Ok(count) => self.read.extend_from_slice(&piece[..count]),
            }
        }
    }
}

/// A gateway with one prefix, and the upstream's socket.
pub struct Pair {
    pub gateway: Gateway,
    pub upstream: TcpListener,
}

impl Pair {
    /// `settings` stand in the `[[proxy]]` table of `/v1`; further tables may follow.
    pub async fn start(settings: &str) -> Self {
        Self::start_with(settings, |config| config).await
    }

    /// The same, with a change of the whole configuration.
    pub async fn start_with(settings: &str, change: impl FnOnce(String) -> String) -> Self {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = upstream.local_addr().unwrap();
        let settings = settings.replace("UPSTREAM", &address.to_string());
        let sources =
            format!("[[proxy]]\nprefix = \"/v1\"\nupstream = \"http://{address}\"\n{settings}\n");
        let config = change(Gateway::config(address, &sources, ""));
        Self {
            gateway: Gateway::start_config(&config).await,
            upstream,
        }
    }

    pub async fn caller(&self) -> Wire {
        Wire::to(self.gateway.public).await
    }

    pub async fn accept(&self) -> Wire {
        let accepted = tokio::time::timeout(10 * SECOND, self.upstream.accept())
            .await
            .expect("a call comes");
        let (stream, _) = accepted.unwrap();
        stream.set_nodelay(true).unwrap();
        Wire {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends a request and gives what arrived; it is answered 200 with "ok".
    async fn arrived(&self, request: &str) -> String {
        let mut caller = self.caller().await;
        caller.say(request).await;
        let mut upstream = self.accept().await;
        let mut head = upstream.head().await;
        if let Some(length) = length(&head) {
            head.push_str(&upstream.exactly(length).await);
        }
        upstream
            .say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            .await;
        let answer = caller.until("\r\n\r\nok").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        // What is added: our mark, by which a loop is seen, and that the request came by here.
        let (before, mark) = head.split_once("cdn-loop: ").expect("our mark");
        let (mark, after) = mark.split_once("\r\n").expect("a line");
        let after = after
            .strip_prefix(&format!("via: 1.1 {mark}\r\n"))
            .expect("Via (RFC 9110, 7.6.3)");
        format!("{before}{after}")
    }

    /// Sends a request that does not reach the upstream, and gives the answer.
    pub async fn refused(&self, request: &str) -> String {
        let mut caller = self.caller().await;
        caller.say(request).await;
        let mut answer = caller.head().await;
        if let Some(length) = length(&answer) {
            answer.push_str(&caller.exactly(length).await);
        }
        answer
    }

    pub async fn nobody_calls(&self) {
        let call = tokio::time::timeout(Duration::from_millis(100), self.upstream.accept()).await;
        assert!(call.is_err(), "nothing may reach the upstream");
    }

    /// The log lines of requests that were passed through.
    async fn logged(&self, count: usize) -> Vec<serde_json::Value> {
        wait_for(&format!("{count} log lines"), async || {
            let lines: Vec<serde_json::Value> = self
                .gateway
                .log()
                .lines()
                .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                .filter(|line| line["message"] == "request")
                .collect();
            (lines.len() >= count).then_some(lines)
        })
        .await
    }
}

fn length(head: &str) -> Option<usize> {
    let line = head
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("content-length:"))?;
    line.split(':').nth(1)?.trim().parse().ok()
}

pub fn has(head: &str, line: &str) -> bool {
    head.lines().any(|one| one.eq_ignore_ascii_case(line))
}

#[tokio::test]
async fn method_path_query_headers_and_body_arrive_as_they_were_sent() {
    let pair = Pair::start("").await;
    let port = pair.upstream.local_addr().unwrap();
    let target = "/v1/agents/A%2Fb//./x%zz?version=draft&q=%41+%20&&raw=[]{}|/../&secret=hush";
    let sent = format!(
        "PATCH {target} HTTP/1.1\r\nHost: gw\r\nX-Api-Key: mine\r\nContent-Type: application/json\r\nCookie: a=b\r\n\
         Accept-Encoding: br\r\nX-Two: 1\r\nX-Two: 2\r\nContent-Length: 9\r\n\r\n{{\"a\": \u{e9}}}"
    );
    let head = pair.arrived(&sent).await;
    assert!(
        head.starts_with(&format!("PATCH {target} HTTP/1.1\r\n")),
        "{head}"
    );
    assert!(head.ends_with("\r\n\r\n{\"a\": \u{e9}}"), "{head}");
    for line in [
        &format!("host: {port}"),
        "x-api-key: mine",
        "content-type: application/json",
        "cookie: a=b",
        "accept-encoding: br",
        "x-two: 1",
        "x-two: 2",
        "content-length: 9",
    ] {
        assert!(has(&head, line), "{line}\n{head}");
    }
    assert_eq!(
        head.lines().take_while(|line| !line.is_empty()).count(),
        9,
        "nothing is added: {head}"
    );
    for method in ["GET", "DELETE", "OPTIONS", "PURGE"] {
        let head = pair
            .arrived(&format!("{method} /v1 HTTP/1.1\r\nhost: gw\r\n\r\n"))
            .await;
        assert_eq!(
            head,
            format!("{method} /v1 HTTP/1.1\r\nhost: {port}\r\n\r\n")
        );
    }
    let head = pair
        .arrived("POST /v1/x HTTP/1.1\r\nhost: gw\r\ncontent-length: 0\r\n\r\n")
        .await;
    assert!(has(&head, "content-length: 0"), "{head}");
    let lines = pair.logged(6).await;
    assert_eq!(lines[0]["outcome"], "proxied");
    assert_eq!(
        (&lines[0]["status"], &lines[0]["end"]),
        (&200.into(), &"whole".into())
    );
    assert_eq!(
        (&lines[0]["bytes_up"], &lines[0]["bytes_down"]),
        (&9.into(), &2.into())
    );
    assert!(!pair.gateway.log().contains("hush") && !pair.gateway.log().contains("mine"));
    let counted = pair
        .gateway
        .metric("sluicegate_requests_total{outcome=\"proxied\",source=\"proxy:/v1\"}")
        .await;
    assert_eq!(counted, 6.0);
}

#[tokio::test]
async fn t15_t20_t21_what_is_of_one_connection_or_claims_an_origin_stays_behind() {
    let pair = Pair::start("").await;
    let port = pair.upstream.local_addr().unwrap();
    let sent = "GET /v1/x HTTP/1.1\r\nhost: gw\r\nconnection: x-api-key, X-Hop, upgrade, keep-alive\r\nx-hop: 1\r\n\
                keep-alive: 5\r\nupgrade: websocket\r\nte: trailers\r\ntrailer: x\r\nproxy-authorization: p\r\n\
                x-api-key: mine\r\nauthorization: Bearer t\r\nx-forwarded-for: 1.2.3.4\r\nx_forwarded_for: 1.2.3.4\r\n\
                forwarded: for=1\r\nx-original-url: /admin\r\nx-rewrite-url: /admin\r\nx-http-method-override: DELETE\r\n\
                x_api_key: other\r\nx-kept: 1\r\n\r\n";
    let head = pair.arrived(sent).await;
    let expected =
        format!("GET /v1/x HTTP/1.1\r\nx-kept: 1\r\nx-api-key: mine\r\nhost: {port}\r\n\r\n");
    assert_eq!(head, expected);
}

#[tokio::test]
async fn keys_are_exchanged_and_open_only_what_they_are_good_for() {
    let pair = Pair::start(
        "[[proxy]]\nprefix = \"/closed\"\nupstream = \"http://UPSTREAM/base\"\nstrip_prefix = true\nrequire_key = true\n\
         forward_authorization = true\n\
         [keys.ci]\nkey = \"literal:gateway-key-of-ci-0001\"\nupstream_key = \"literal:upstream-key-of-ci\"\n\
         agents = [\"A-1\"]\nrate = \"3/h\"\n\
         [keys.any]\nkey = \"literal:gateway-key-of-any-001\"\nprefixes = [\"/closed\"]\n",
    )
    .await;
    let get = |path: &str, key: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: gw\r\nconnection: x-api-key\r\n{key}\r\n\r\n")
    };
    let post = |path: &str, key: &str| {
        get(path, key).replacen("GET", "POST", 1).replacen(
            "host: gw",
            "host: gw\r\ncontent-length: 0",
            1,
        )
    };
    let ci = "x-api-key: gateway-key-of-ci-0001";
    let any = "x-api-key: gateway-key-of-any-001\r\nauthorization: Bearer t";
    assert!(has(
        &pair.arrived(&post("/v1/agents/A-1/invoke", ci)).await,
        "x-api-key: upstream-key-of-ci"
    ));
    let head = pair.arrived(&get("/closed/x?y", any)).await;
    assert!(head.starts_with("GET /base/x?y HTTP/1.1\r\n"), "{head}");
    assert!(
        has(&head, &format!("x-api-key: {API_KEY}")) && has(&head, "authorization: Bearer t"),
        "{head}"
    );
    for (path, key, status, detail) in [
        (
            "/v1/agents/A-1/invoke",
            ci,
            "403 ",
            "\"detail\":\"Invalid API key\"",
        ),
        ("/v1/tasks/t", ci, "403 ", "\"detail\":\"Invalid API key\""),
        (
            "/v1/agents/A-2/invoke",
            ci,
            "403 ",
            "\"detail\":\"Invalid API key\"",
        ),
        (
            "/v1/%61gents/A-2/invoke",
            ci,
            "403 ",
            "\"detail\":\"Invalid API key\"",
        ),
        ("/v1/x", any, "403 ", "\"detail\":\"Invalid API key\""),
        (
            "/v1/x",
            "x-api-key: a\r\nx-api-key: b",
            "403 ",
            "\"detail\":\"Invalid API key\"",
        ),
        (
            "/closed/x",
            "x-api-key: somebody-elses",
            "403 ",
            "\"detail\":\"Invalid API key\"",
        ),
        (
            "/closed/x",
            "x-other: 1",
            "401 ",
            "\"detail\":\"API key not specified\"",
        ),
        ("/closed/../x", any, "400 ", "\"detail\":"),
        ("/closed/%2e%2E/x", any, "400 ", "\"detail\":"),
        ("/closedx/y", any, "404 ", "\"detail\":"),
    ] {
        let answer = pair.refused(&get(path, key)).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(detail),
            "{path} {key}: {answer}"
        );
    }
    pair.nobody_calls().await;
    for _ in 0..2 {
        pair.arrived(&post("/v1/agents/A-1/invoke/async", ci)).await;
    }
    let over = pair.refused(&post("/v1/agents/A-1/invoke", ci)).await;
    assert!(
        over.starts_with("HTTP/1.1 429 ") && over.contains("retry-after: "),
        "{over}"
    );
    let log = pair.gateway.log();
    for secret in ["gateway-key-of", "upstream-key-of", API_KEY] {
        assert!(!log.contains(secret), "{log}");
    }
    assert!(pair.logged(2).await.iter().any(|line| line["key"] == "ci"));
}

#[tokio::test]
async fn answers_come_back_as_they_are() {
    let pair = Pair::start("").await;
    for (request, answer, expected) in [
        (
            "POST",
            "302 Found\r\nlocation: http://elsewhere.invalid/x\r\nset-cookie: a\r\nset-cookie: b\r\ncontent-length: 0\r\n",
            &[
                "302 Found",
                "location: http://elsewhere.invalid/x",
                "set-cookie: a",
                "set-cookie: b",
                "content-length: 0",
            ][..],
        ),
        (
            "GET",
            "429 Slow Down\r\nretry-after: 17\r\nx-ratelimit-limit: 100\r\ncontent-length: 0\r\n",
            &["429", "retry-after: 17", "x-ratelimit-limit: 100"],
        ),
        (
            "HEAD",
            "200 OK\r\ncontent-length: 1234\r\n",
            &["200 OK", "content-length: 1234"],
        ),
        ("HEAD", "200 OK\r\netag: x\r\n", &["200 OK", "etag: x"]),
        ("DELETE", "204 No Content\r\nx-a: b\r\n", &["204", "x-a: b"]),
        (
            "GET",
            "304 Not Modified\r\netag: x\r\n",
            &["304", "etag: x"],
        ),
        (
            "GET",
            "500 Oh\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: 1\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n",
            &["500", "content-encoding: gzip"],
        ),
    ] {
        let mut caller = pair.caller().await;
        caller
            .say(&format!("{request} /v1/x HTTP/1.1\r\nhost: gw\r\n\r\n"))
            .await;
        let mut upstream = pair.accept().await;
        upstream.head().await;
        upstream.say(&format!("HTTP/1.1 {answer}\r\n")).await;
        let head = caller.head().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {}", expected[0])),
            "{head}"
        );
        for line in &expected[1..] {
            assert!(has(&head, line), "{line} in\n{head}");
        }
        if !answer.contains("content-length") {
            assert!(length(&head).is_none(), "no length is made up: {head}");
        }
        assert!(
            !head.contains("x-hop") && !head.contains("keep-alive"),
            "{head}"
        );
        assert!(
            head.contains("sluicegate-request-id: ") && has(&head, "via: 1.1 sluicegate"),
            "{head}"
        );
        drop(upstream);
        // The caller's connection is good for another.
        caller
            .say("GET /hooks/none HTTP/1.1\r\nhost: gw\r\n\r\n")
            .await;
        assert!(
            caller.head().await.starts_with("HTTP/1.1 404"),
            "after {request} {answer}"
        );
    }
}

#[tokio::test]
async fn t84_an_event_stream_is_passed_on_at_once_kept_open_and_cancelled_with_its_caller() {
    let pair = Pair::start("heartbeat = \"300ms\"").await;
    let mut caller = pair.caller().await;
    caller
        .say("POST /v1/s HTTP/1.1\r\nhost: gw\r\ncontent-length: 2\r\n\r\n{}")
        .await;
    let mut upstream = pair.accept().await;
    upstream.head().await;
    upstream.say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let head = caller.head().await;
    assert!(
        has(&head, "content-type: text/event-stream") && has(&head, "transfer-encoding: chunked"),
        "{head}"
    );
    for number in 0..5 {
        let begun = Instant::now();
        let event = format!("data: {number}\n\n");
        upstream
            .say(&format!("{:x}\r\n{event}\r\n", event.len()))
            .await;
        caller.until(&event).await;
        assert!(
            begun.elapsed() < Duration::from_millis(50),
            "{:?}",
            begun.elapsed()
        );
    }
    // Silent between events: comments. Silent within one: nothing.
    caller.until(": ping\n\n").await;
    caller.until(": ping\n\n").await;
    upstream.say("6\r\ndata: \r\n").await;
    caller.until("data: ").await;
    tokio::time::sleep(SECOND).await;
    upstream.say("7\r\nwhole\n\n\r\n").await;
    let rest = caller.until("whole\n\n").await;
    assert!(!rest.contains("ping"), "{rest:?}");
    let left = Instant::now();
    drop(caller);
    upstream.rest().await;
    assert!(left.elapsed() < SECOND, "{:?}", left.elapsed());
    assert_eq!(pair.logged(1).await[0]["end"], "caller left");
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_answer_takes_the_call_along() {
    let pair = Pair::start("").await;
    let mut caller = pair.caller().await;
    caller
        .say("POST /v1/s HTTP/1.1\r\nhost: gw\r\ncontent-length: 2\r\n\r\n{}")
        .await;
    let mut upstream = pair.accept().await;
    upstream.until("{}").await;
    let left = Instant::now();
    drop(caller);
    upstream.rest().await;
    assert!(left.elapsed() < SECOND, "{:?}", left.elapsed());
    let line = pair.logged(1).await[0].clone();
    assert_eq!(line["reason"], "aborted");
    let cause = line["cause"].as_str().expect("a cause");
    assert!(
        cause.contains("went away before it was answered"),
        "the body was whole: {cause}"
    );
}

#[tokio::test]
async fn a_request_body_streams_up_and_loses_its_trailers() {
    let pair = Pair::start("").await;
    for method in ["POST", "GET"] {
        let mut caller = pair.caller().await;
        caller
            .say(&format!(
                "{method} /v1/up HTTP/1.1\r\nhost: gw\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"
            ))
            .await;
        let mut upstream = pair.accept().await;
        let head = upstream.head().await;
        assert!(
            has(&head, "transfer-encoding: chunked") && !head.contains("expect"),
            "{head}"
        );
        assert_eq!(caller.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        caller.say("5\r\nfirst\r\n").await;
        upstream.until("first\r\n").await;
        caller.say("4\r\nlast\r\n0\r\nx-late: 1\r\n\r\n").await;
        assert_eq!(upstream.until("0\r\n\r\n").await, "4\r\nlast\r\n0\r\n\r\n");
        upstream.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-late: 1\r\n\r\n").await;
        let answer = caller.until("0\r\n\r\n").await;
        assert!(answer.ends_with("\r\n\r\n2\r\nok\r\n0\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn t79_an_answer_that_breaks_off_does_not_look_whole() {
    let pair = Pair::start("").await;
    for framing in [
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "content-length: 100\r\n\r\nhalf",
    ] {
        let mut caller = pair.caller().await;
        caller.say("GET /v1/x HTTP/1.1\r\nhost: gw\r\n\r\n").await;
        let mut upstream = pair.accept().await;
        upstream.head().await;
        upstream.say(&format!("HTTP/1.1 200 OK\r\n{framing}")).await;
        caller.until("half").await;
        drop(upstream);
        let rest = caller.rest().await;
        assert!(!rest.contains("0\r\n\r\n"), "{rest:?}");
    }
    assert!(
        pair.logged(2)
            .await
            .iter()
            .all(|line| line["end"] == "upstream broke")
    );
}

#[tokio::test]
async fn t80_an_upstream_that_fails_is_502_or_504_in_our_words() {
    let pair =
        Pair::start("timeout = \"400ms\"\n[[proxy]]\nprefix = \"/v1/gone\"\nupstream = \"http://127.0.0.1:1\"\n").await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: gw\r\n\r\n");
    let answer = pair.refused(&get("/v1/gone/x")).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("\"code\":\"upstream_failed\""),
        "{answer}"
    );
    for said in ["", "BOO\r\n\r\n", "HTTP/1.1 200 OK\r\nx y: z\r\n\r\n"] {
        let mut caller = pair.caller().await;
        caller.say(&get("/v1/x")).await;
        let mut upstream = pair.accept().await;
        upstream.head().await;
        upstream.say(said).await;
        drop(upstream);
        let answer = caller.head().await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{said:?}: {answer}");
    }
    let begun = Instant::now();
    let mut caller = pair.caller().await;
    caller.say(&get("/v1/x")).await;
    let held = pair.accept().await;
    assert!(caller.head().await.starts_with("HTTP/1.1 504 "));
    assert!(begun.elapsed() < 2 * SECOND);
    // What is not answered is not kept open either.
    held.rest().await;
}

#[tokio::test]
async fn t16_a_body_over_its_bound_is_413_announced_or_not() {
    let pair = Pair::start("max_body = \"1KiB\"").await;
    let answer =
        pair.refused("POST /v1/x HTTP/1.1\r\nhost: gw\r\nexpect: 100-continue\r\ncontent-length: 1025\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    pair.nobody_calls().await;
    let mut caller = pair.caller().await;
    caller
        .say("POST /v1/x HTTP/1.1\r\nhost: gw\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let piece = "x".repeat(1000);
    caller
        .say(&format!("3e8\r\n{piece}\r\n3e8\r\n{piece}\r\n"))
        .await;
    assert!(caller.head().await.starts_with("HTTP/1.1 413 "));
    let upstream = pair.accept().await;
    assert!(
        !upstream.rest().await.contains("\r\n0\r\n\r\n"),
        "what was cut off does not look whole"
    );
}

#[tokio::test]
async fn a_value_cannot_become_a_header_of_its_own() {
    let pair = Pair::start("").await;
    for bad in ["x-a: b\rc: d", "x-a: b\0c", "x a: b", " x-a: b", "x-a : b"] {
        let answer = pair
            .refused(&format!("GET /v1/x HTTP/1.1\r\nhost: gw\r\n{bad}\r\n\r\n"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad:?}: {answer}");
    }
    for bad in [
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 3\r\ntransfer-encoding: x\r\n",
    ] {
        let answer = pair
            .refused(&format!(
                "POST /v1/x HTTP/1.1\r\nhost: gw\r\n{bad}\r\n0\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad:?}: {answer}");
    }
    let head = pair
        .arrived("GET /v1/x?a=%0d%0ax-evil:%201 HTTP/1.1\r\nhost: gw\r\n\r\n")
        .await;
    assert!(
        head.starts_with("GET /v1/x?a=%0d%0ax-evil:%201 HTTP/1.1\r\n"),
        "{head}"
    );
    pair.nobody_calls().await;
}

const BIG: usize = 64 << 20;

#[tokio::test]
async fn a_big_body_flows_both_ways_in_little_memory() {
    let pair = Pair::start("").await;
    let before = pair.gateway.resident();
    let mut caller = pair.caller().await;
    caller
        .say(&format!(
            "POST /v1/x HTTP/1.1\r\nhost: gw\r\ncontent-length: {BIG}\r\n\r\n"
        ))
        .await;
    let mut upstream = pair.accept().await;
    let head = upstream.head().await;
    assert_eq!(length(&head), Some(BIG), "{head}");
    upstream
        .say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n"))
        .await;
    let (Wire { stream: up, read }, Wire { stream: down, .. }) = (upstream, caller);
    let (mut echo_in, mut echo_out) = up.into_split();
    let echo = tokio::spawn(async move {
        echo_out.write_all(&read).await.unwrap();
        tokio::io::copy(&mut echo_in, &mut echo_out).await.unwrap();
    });
    let (mut back, mut forth) = down.into_split();
    let piece: Vec<u8> = (0..1 << 20)
        .map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let sent = piece.clone();
    let send = tokio::spawn(async move {
        for _ in 0..BIG / sent.len() {
            forth.write_all(&sent).await.unwrap();
        }
        forth
    });
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(back.read_u8().await.unwrap());
    }
    assert_eq!(length(&String::from_utf8(head).unwrap()), Some(BIG));
    let mut got = vec![0; piece.len()];
    for number in 0..BIG / piece.len() {
        back.read_exact(&mut got).await.unwrap();
        assert!(got == piece, "piece {number}");
    }
    let grown = pair.gateway.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes");
    let _forth = send.await.unwrap();
    echo.abort();
}

#[tokio::test]
async fn t32_a_caller_that_does_not_read_is_not_read_for() {
    let pair = Pair::start("").await;
    let mut callers = Vec::new();
    let mut feeders = Vec::new();
    let mut resident = Vec::new();
    for _ in 0..3 {
        for _ in 0..20 {
            let mut caller = pair.caller().await;
            caller.say("GET /v1/x HTTP/1.1\r\nhost: gw\r\n\r\n").await;
            let mut upstream = pair.accept().await;
            upstream.head().await;
            callers.push(caller);
            feeders.push(tokio::spawn(async move {
                upstream
                    .say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
                    .await;
                while upstream.stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
            }));
        }
        tokio::time::sleep(SECOND).await;
        resident.push(pair.gateway.resident());
    }
    // The first ones pay for what is there only once.
    let each = resident[2].saturating_sub(resident[0]) / 40;
    assert!(
        each < 256 << 10,
        "{each} bytes for each caller: {resident:?}"
    );
    // When they leave, so does what was feeding them.
    drop(callers);
    for feeder in feeders {
        tokio::time::timeout(5 * SECOND, feeder)
            .await
            .expect("the upstream is left in time")
            .unwrap();
    }
}
