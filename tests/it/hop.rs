//! What RFC 9110 asks of whoever passes messages on, one hop of several.

use std::time::Duration;

use http::Method;

use crate::proxy::{Pair, Wire, has};

const SECOND: Duration = Duration::from_secs(1);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: gw\r\n{lines}\r\n")
}

/// Makes the gateway keep a connection to the upstream, and gives the upstream's end of it.
async fn kept(pair: &Pair) -> (Wire, Wire) {
    let mut caller = pair.caller().await;
    caller.say(&get("/v1/x", "")).await;
    let mut upstream = pair.accept().await;
    upstream.head().await;
    upstream.say(OK).await;
    caller.until("\r\n\r\nok").await;
    (caller, upstream)
}

#[tokio::test]
async fn a21_rfc_9110_9_2_2_an_idempotent_call_that_meets_a_stale_connection_is_made_again() {
    let pair = Pair::start("").await;
    let put = "PUT /v1/x HTTP/1.1\r\nhost: gw\r\ncontent-length: 3\r\n\r\nabc";
    let chunked =
        "PUT /v1/x HTTP/1.1\r\nhost: gw\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let delete = "DELETE /v1/x HTTP/1.1\r\nhost: gw\r\n\r\n";
    for request in [&get("/v1/x", ""), put, chunked, delete] {
        let (mut caller, mut stale) = kept(&pair).await;
        caller.say(request).await;
        let first = stale.head().await;
        drop(stale);
        let mut upstream = pair.accept().await;
        let again = upstream.head().await;
        assert_eq!(first, again, "it is the same request");
        if request.contains("abc") {
            upstream.until("abc").await;
        }
        upstream
            .say("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
            .await;
        assert!(
            caller
                .until("\r\n\r\nok")
                .await
                .starts_with("HTTP/1.1 200 "),
            "{request}"
        );
    }
    // What may have begun a run is not made again.
    let (mut caller, mut stale) = kept(&pair).await;
    caller
        .say("POST /v1/x HTTP/1.1\r\nhost: gw\r\ncontent-length: 2\r\n\r\n{}")
        .await;
    stale.until("{}").await;
    drop(stale);
    assert!(caller.head().await.starts_with("HTTP/1.1 502 "));
    pair.nobody_calls().await;
}

#[tokio::test]
async fn a21_a_run_that_the_drop_in_began_is_not_made_again() {
    let pair = Pair::start("").await;
    let body = "{\"agent_id\":\"A\"}";
    let call = format!(
        "POST /A HTTP/1.1\r\nhost: gw\r\nx-api-key: theirs\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (mut caller, mut stale) = kept(&pair).await;
    caller.say(&call).await;
    let head = stale.head().await;
    assert!(head.starts_with("POST /v1/agents/A/invoke "), "{head}");
    drop(stale);
    // It is a run, so nobody can tell whether it has begun.
    assert!(caller.head().await.starts_with("HTTP/1.1 502 "));
    pair.nobody_calls().await;
}

#[tokio::test]
async fn rfc_9110_7_6_3_via_names_every_hop_and_shows_a_loop() {
    let pair = Pair::start("").await;
    let mut caller = pair.caller().await;
    caller
        .say(&get("/v1/x", "via: 1.0 fred, 1.1 p.example.net\r\n"))
        .await;
    let mut upstream = pair.accept().await;
    let head = upstream.head().await;
    let hops: Vec<&str> = head
        .lines()
        .filter_map(|line| line.strip_prefix("via: "))
        .collect();
    assert_eq!(hops.len(), 2, "{head}");
    assert_eq!(
        hops[0], "1.0 fred, 1.1 p.example.net",
        "those before it stay, before it"
    );
    assert!(hops[1].starts_with("1.1 sluicegate-"), "{head}");
    upstream
        .say("HTTP/1.0 200 OK\r\nvia: 1.1 behind\r\nconnection: close\r\n\r\nok")
        .await;
    let answer = caller.head().await;
    assert!(
        has(&answer, "via: 1.1 behind") && has(&answer, "via: 1.0 sluicegate"),
        "{answer}"
    );
    // A proxy on the way that drops CDN-Loop keeps Via.
    let answer = pair
        .refused(&get(
            "/v1/x",
            &format!("via: {}\r\nvia: 1.1 other\r\n", hops[1]),
        ))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 508 ") && answer.contains("loop_detected"),
        "{answer}"
    );
    let mut caller = pair.caller().await;
    caller.say("GET /v1/x HTTP/1.0\r\nhost: gw\r\n\r\n").await;
    let head = pair.accept().await.head().await;
    assert!(head.contains("\r\nvia: 1.0 sluicegate-"), "{head}");
    pair.nobody_calls().await;
}

#[tokio::test]
async fn rfc_9110_7_6_2_max_forwards_ends_here_or_is_counted_down() {
    let pair = Pair::start("").await;
    let options =
        |left: &str| format!("OPTIONS /v1/x HTTP/1.1\r\nhost: gw\r\nmax-forwards: {left}\r\n\r\n");
    let answer = pair.refused(&options("0")).await;
    assert!(
        answer.starts_with("HTTP/1.1 204 ") && answer.contains("allow: GET, "),
        "{answer}"
    );
    pair.nobody_calls().await;
    for (method, left, passed) in [("OPTIONS", "3", "2"), ("GET", "0", "0")] {
        let mut caller = pair.caller().await;
        caller.say(&options(left).replace("OPTIONS", method)).await;
        let mut upstream = pair.accept().await;
        let head = upstream.head().await;
        assert!(has(&head, &format!("max-forwards: {passed}")), "{head}");
        upstream
            .say("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
            .await;
        caller.until("\r\n\r\nok").await;
    }
}

/// RFC 9110, 7.8 and 15.2: what nobody asked for does not change what a connection means.
#[tokio::test]
async fn rfc_9110_15_2_interim_answers_are_not_taken_for_the_answer() {
    let pair = Pair::start("").await;
    for (said, begins) in [
        (
            &format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n{OK}"
            ),
            "HTTP/1.1 200 ",
        ),
        (
            &"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
                .to_owned(),
            "HTTP/1.1 502 ",
        ),
    ] {
        let mut caller = pair.caller().await;
        caller
            .say(&get("/v1/x", "connection: upgrade\r\nupgrade: x\r\n"))
            .await;
        let mut upstream = pair.accept().await;
        let head = upstream.head().await;
        assert!(!head.contains("upgrade"), "{head}");
        upstream.say(said).await;
        let answer = caller.head().await;
        assert!(
            answer.starts_with(begins) && !answer.contains("link: "),
            "{answer}"
        );
        drop(upstream);
    }
}

#[tokio::test]
async fn a20_a_login_in_an_address_goes_upstream_as_basic_auth_and_into_no_log() {
    let with_login = |config: String| config.replace("http://127", "http://bob:s3cret-pw@127");
    let pair = Pair::start_with("", with_login).await;
    let basic = "authorization: Basic Ym9iOnMzY3JldC1wdw==";
    for request in [
        get("/v1/x", "authorization: Bearer theirs\r\n"),
        "POST /A?prompt=hi HTTP/1.1\r\nhost: gw\r\nx-api-key: k\r\ncontent-length: 0\r\n\r\n"
            .to_owned(),
    ] {
        let mut caller = pair.caller().await;
        caller.say(&request).await;
        let mut upstream = pair.accept().await;
        let head = upstream.head().await;
        assert!(has(&head, basic) && !head.contains("theirs"), "{head}");
        assert!(!head.contains('@'), "the host is a host: {head}");
        drop(upstream);
        assert!(caller.head().await.starts_with("HTTP/1.1 502 "));
    }
    let log = pair.gateway.log();
    assert!(
        log.contains("\"serving\"") && !log.contains("s3cret") && !log.contains("Ym9iOn"),
        "{log}"
    );
}

#[tokio::test]
async fn calls_that_begin_runs_draw_on_the_upstreams_budget_and_wait_while_all_runs_are_paused() {
    let budget = |config: String| config.replace("[upstream]", "[upstream]\nbudget = \"1/h\"");
    let pair = Pair::start_with("", budget).await;
    let run = "POST /v1/agents/A/invoke HTTP/1.1\r\nhost: gw\r\ncontent-length: 2\r\n\r\n{}";
    let passes = async |request: &str| {
        let mut caller = pair.caller().await;
        caller.say(request).await;
        let mut upstream = pair.accept().await;
        upstream.head().await;
        upstream
            .say("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
            .await;
        caller.until("\r\n\r\nok").await
    };
    assert_eq!(
        pair.gateway
            .admin(Method::POST, "/pause")
            .await
            .status()
            .as_u16(),
        200
    );
    let answer = pair.refused(run).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"stopped\""),
        "{answer}"
    );
    assert_eq!(
        pair.gateway
            .admin(Method::POST, "/resume")
            .await
            .status()
            .as_u16(),
        200
    );
    assert!(passes(run).await.starts_with("HTTP/1.1 200 "));
    let answer = tokio::time::timeout(10 * SECOND, pair.refused(run))
        .await
        .expect("nobody waits for an hour");
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"upstream_busy\""),
        "{answer}"
    );
    assert!(answer.contains("retry-after: "), "{answer}");
    let dropin =
        "POST /A?prompt=hi HTTP/1.1\r\nhost: gw\r\nx-api-key: k\r\ncontent-length: 0\r\n\r\n";
    let answer = pair.refused(dropin).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 "),
        "the drop-in draws on the same: {answer}"
    );
    pair.nobody_calls().await;
    assert!(
        passes(&get("/v1/agents/A", ""))
            .await
            .starts_with("HTTP/1.1 200 "),
        "what begins no run does not wait"
    );
}
