//! The drop-in door over real sockets: the worked examples of the contract, its parameters, bodies, answers and errors.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::world::{API_KEY, Gateway, Upstream, json, wait_for};

/// A key that only its caller and the upstream know.
const KEY: &str = "planted-caller-key-4711";

async fn world(more: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, more).await;
    (upstream, gateway)
}

/// A POST with the key in a header.
async fn post(
    gateway: &Gateway,
    target: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let headers: Vec<_> = headers
        .iter()
        .copied()
        .chain([("x-api-key", KEY)])
        .collect();
    gateway.post(target, &headers, body).await
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const FORM: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];

/// What the last of the runs was called with.
async fn sent(upstream: &Upstream) -> Value {
    upstream.runs().await.pop().expect("a run")["body"].take()
}

/// The same body as every call has, with these fields besides.
fn body(fields: Value) -> Value {
    let mut body = json!({"source": "webhook", "source_node_type": "webhook"});
    for (key, value) in fields.as_object().expect("fields") {
        body[key] = value.clone();
    }
    body
}

fn assert_detail(answer: &Response<Bytes>, status: u16, detail: &str) {
    assert_eq!(answer.status(), status, "{:?}", answer.body());
    assert_eq!(answer.body(), &json!({ "detail": detail }).to_string());
    assert_eq!(answer.headers()["content-type"], "application/json");
}

/// An upstream that answers each call with the next of its scripts and tells what it was sent.
async fn scripted(
    answers: Vec<&'static str>,
    hold: bool,
) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
            while !whole(&seen) {
                let read = stream.read(&mut piece).await.unwrap_or(0);
                if read == 0 {
                    break;
                }
                seen.extend_from_slice(&piece[..read]);
            }
            let _ = tell.send(String::from_utf8_lossy(&seen).into_owned());
            let _ = stream.write_all(answer.as_bytes()).await;
            if hold {
                // Ends when the other side does.
                while stream.read(&mut piece).await.unwrap_or(0) > 0 {}
                let _ = tell.send("gone".to_owned());
            }
        }
    });
    (address, told)
}

fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    body.len() >= length.unwrap_or(0)
}

#[tokio::test]
async fn the_worked_examples_arrive_field_by_field() {
    let (upstream, gateway) = world("").await;

    let answer = post(&gateway, "/?agent_id=A", JSON, r#"{"prompt":"Hi"}"#).await;
    assert_eq!(answer.status(), 200);
    let task = json(&answer);
    for field in [
        "id",
        "agent_id",
        "status",
        "result",
        "created_at",
        "finished_at",
        "source",
        "execution_attempts",
    ] {
        assert!(task.get(field).is_some(), "{field} in {task}");
    }
    assert_eq!(
        (&task["agent_id"], &task["status"], &task["source"]),
        (&json!("A"), &json!("completed"), &json!("webhook"))
    );
    assert_eq!(
        sent(&upstream).await,
        body(json!({"input": {"text": "Hi"}}))
    );
    assert_eq!(upstream.runs().await[0]["destination"], "agents/A");

    let event = r#"{"action":"opened","issue":{"number":7}}"#;
    let answer = gateway
        .post(
            &format!("/?agent_id=A&asynchronous=true&x-api-key={KEY}"),
            JSON,
            event,
        )
        .await;
    assert_eq!(
        (answer.status().as_u16(), &answer.body()[..]),
        (200, &br#"{"status":"Started"}"#[..])
    );
    assert_eq!(
        sent_when(&upstream, 2).await["input"],
        json!({"text": event})
    );

    let order =
        r#"{"agent_id":"A","prompt":"Check","order":{"id":12345678901234567890,"total":1.50}}"#;
    post(&gateway, "/", JSON, order).await;
    let context = r#"{"order":{"id":12345678901234567890,"total":1.50}}"#;
    let wanted = body(json!({"input": {"text": "Check"}, "additional_context": context}));
    assert_eq!(sent(&upstream).await, wanted);

    post(
        &gateway,
        "/?agent_id=A&prompt=Query",
        JSON,
        r#"{"prompt":"Body","data":"x"}"#,
    )
    .await;
    let wanted = body(json!({"input": {"text": "Query"}, "additional_context": r#"{"data":"x"}"#}));
    assert_eq!(sent(&upstream).await, wanted);

    let mapping = "%7B%22task_id%22%3A%22message.chat.id%22%2C%22prompt%22%3A%22message.text%22%2C%22user_id%22%3A%22message.from.username%22%7D";
    let update =
        r#"{"message":{"chat":{"id":-1001234567890},"from":{"username":"dana"},"text":"Hello"}}"#;
    post(
        &gateway,
        &format!("/?agent_id=A&params_mapping={mapping}"),
        JSON,
        update,
    )
    .await;
    let wanted = body(json!({
        "input": {"text": "Hello", "user": {"id": "dana", "email": "dana@webhook.invalid"}},
        "id": "-1001234567890",
        "additional_context": update,
    }));
    assert_eq!(sent(&upstream).await, wanted);

    post(
        &gateway,
        "/?agent_id=A",
        FORM,
        "prompt=Analyze feedback&rating=5&comment=Great service",
    )
    .await;
    let context = r#"{"rating":"5","comment":"Great service"}"#;
    let wanted =
        body(json!({"input": {"text": "Analyze feedback"}, "additional_context": context}));
    assert_eq!(sent(&upstream).await, wanted);

    let ann = r#"{"prompt":"Hi","user_email":"a@b.c","user_first_name":"Ann"}"#;
    post(&gateway, "/?agent_id=A", FORM, ann).await;
    let user = json!({"id": "a@b.c", "email": "a@b.c", "first_name": "Ann"});
    assert_eq!(
        sent(&upstream).await,
        body(json!({"input": {"text": "Hi", "user": user}}))
    );

    let tokens = r#"{"prompt":"Cal","user_tokens":"{\"item-1\":\"planted-token\"}","disable_attachment_injection":"true"}"#;
    post(&gateway, "/?agent_id=A", JSON, tokens).await;
    let wanted = json!({
        "input": {"text": "Cal"}, "user_tokens": {"item-1": "planted-token"}, "disable_attachment_injection": true,
    });
    assert_eq!(sent(&upstream).await, body(wanted));

    upstream
        .set(json!({"result": r#"{"summary":"up 15%"}"#}))
        .await;
    let answer = post(&gateway, "/?agent_id=A&getter=result.summary", JSON, "{}").await;
    assert_eq!(answer.body(), r#""up 15%""#);
    let answer = post(&gateway, "/?agent_id=A&json=true", JSON, "{}").await;
    assert_eq!(
        (&json(&answer)["result"], &json(&answer)["status"]),
        (&json!({"summary": "up 15%"}), &json!("completed"))
    );

    assert_detail(
        &post(&gateway, "/", JSON, "{}").await,
        400,
        "agent_id is required",
    );
    assert_detail(
        &gateway.post("/?agent_id=A", JSON, "{}").await,
        401,
        "API key not specified",
    );
    upstream.set(json!({"api_key": "another key"})).await;
    assert_detail(
        &post(&gateway, "/?agent_id=A", JSON, "{}").await,
        403,
        "Invalid API key",
    );

    let log = gateway.log();
    assert!(
        !log.contains(KEY) && !log.contains("planted-token") && !log.contains(API_KEY),
        "{log}"
    );
    assert!(
        gateway
            .metric(r#"sluicegate_requests_total{outcome="refused",source="dropin"}"#)
            .await
            >= 3.0
    );
}

async fn sent_when(upstream: &Upstream, count: usize) -> Value {
    upstream.wait_for_runs(count).await[count - 1]["body"].take()
}

#[tokio::test]
async fn the_key_and_the_agent_may_stand_in_several_places() {
    let (upstream, gateway) = world("").await;
    upstream.set(json!({"api_key": KEY})).await;
    let right = format!("/?agent_id=A&x-api-key={KEY}");
    assert_eq!(gateway.post(&right, JSON, "{}").await.status(), 200);
    assert_eq!(
        post(&gateway, "/?agent_id=A&x-api-key=wrong", JSON, "{}")
            .await
            .status(),
        200,
        "the header counts"
    );
    let answer = gateway.post(&right, &[("x-api-key", "wrong")], "{}").await;
    assert_detail(&answer, 403, "Invalid API key");
    let answer = gateway
        .post("/?agent_id=A", JSON, format!("{{\"x-api-key\":\"{KEY}\"}}"))
        .await;
    assert_detail(&answer, 401, "API key not specified");
    let bearer = format!("Bearer {KEY}");
    let answer = gateway
        .post("/?agent_id=A", &[("authorization", &bearer)], "{}")
        .await;
    assert_detail(&answer, 401, "API key not specified");

    assert_eq!(post(&gateway, "/agent%2Dx", JSON, "{}").await.status(), 200);
    assert_eq!(
        upstream.runs().await.pop().expect("a run")["destination"],
        "agents/agent-x"
    );
    post(&gateway, "/", FORM, "agent_id=F").await;
    assert_eq!(
        upstream.runs().await.pop().expect("a run")["destination"],
        "agents/F"
    );
    let part = "--x\r\nContent-Disposition: form-data; name=\"agent_id\"\r\n\r\nM\r\n--x--";
    post(
        &gateway,
        "/",
        &[("content-type", "multipart/form-data; boundary=x")],
        part,
    )
    .await;
    assert_eq!(
        upstream.runs().await.pop().expect("a run")["destination"],
        "agents/M"
    );
    // No slash before the query.
    let mut stream = TcpStream::connect(gateway.public).expect("a connection");
    let request = format!(
        "POST http://h?agent_id=S&x-api-key={KEY} HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(
        upstream.runs().await.pop().expect("a run")["destination"],
        "agents/S"
    );
}

#[tokio::test]
async fn gateway_keys_are_exchanged_and_good_for_their_agents() {
    let (upstream, gateway) = world(
        r#"
[keys.ci]
key = "literal:a-key-of-the-gateways-own"
agents = ["A"]
[keys.other]
key = "literal:another-key-of-its-own"
upstream_key = "literal:another-upstream-key"
rate = "2/min"
"#,
    )
    .await;
    upstream.set(json!({"api_key": API_KEY})).await;
    let own = [("x-api-key", "a-key-of-the-gateways-own")];
    assert_eq!(gateway.post("/A", &own, "{}").await.status(), 200);
    assert_detail(
        &gateway.post("/B", &own, "{}").await,
        403,
        "Invalid API key",
    );
    assert_detail(
        &gateway.post("/", &own, "{}").await,
        400,
        "agent_id is required",
    );
    let other = [("x-api-key", "another-key-of-its-own")];
    assert_detail(
        &gateway.post("/B", &other, "{}").await,
        403,
        "Invalid API key",
    );
    upstream
        .set(json!({"api_key": "another-upstream-key"}))
        .await;
    assert_eq!(gateway.post("/B", &other, "{}").await.status(), 200);
    let answer = gateway.post("/B", &other, "{}").await;
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after") && json(&answer)["detail"].is_string());
}

#[tokio::test]
async fn bodies_are_read_by_content() {
    let (upstream, gateway) = world("").await;
    for (headers, text, wanted) in [
        (FORM, r#"{"a": 1.50, "b":[]}"#, r#"{"a": 1.50, "b":[]}"#),
        (&[][..], "just words", "just words"),
        (&[][..], "[1, 2]", "[1, 2]"),
        (JSON, "", ""),
        (FORM, "a=1&a=2&b=x+y", r#"{"a":["1","2"],"b":"x y"}"#),
    ] {
        assert_eq!(
            post(&gateway, "/A", headers, text).await.status(),
            200,
            "{text}"
        );
        assert_eq!(
            sent(&upstream).await,
            body(json!({"input": {"text": wanted}})),
            "{text}"
        );
    }
    let parts = "--x\r\nContent-Disposition: form-data; name=prompt\r\n\r\nLook\r\n\
                 --x\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n1\r\n--x--\r\n";
    let multipart = [("content-type", "multipart/form-data; boundary=x")];
    assert_eq!(post(&gateway, "/A", &multipart, parts).await.status(), 200);
    let wanted = body(json!({"input": {"text": "Look"}, "additional_context": r#"{"n":"1"}"#}));
    assert_eq!(sent(&upstream).await, wanted);
    let file = parts.replace("name=\"n\"", "name=\"n\"; filename=\"a.pdf\"");
    let answer = post(&gateway, "/A", &multipart, file).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.body());
    let seen = sent(&upstream).await;
    let links = seen["input"]["files"].as_array().expect("a list");
    assert!(
        links[0]
            .as_str()
            .is_some_and(|link| link.starts_with("https://hooks.example.com/files/")),
        "{seen}"
    );
    let runs = upstream.runs().await.len();
    for (headers, body, status) in [
        (JSON, &b"{\"a\":"[..], 400),
        (&[("content-type", "application/x+json")][..], b"x", 400),
        (&[][..], b"\xff\xfd", 415),
        (&multipart[..], b"--x\r\n", 400),
        (&[("content-encoding", "gzip")][..], b"x", 415),
    ] {
        let answer = post(&gateway, "/A", headers, body.to_vec()).await;
        assert_eq!(answer.status(), status, "{body:?}");
        assert!(
            json(&answer)["detail"].is_string()
                && json(&answer).as_object().map(|o| o.len()) == Some(1)
        );
    }
    assert_eq!(
        upstream.runs().await.len(),
        runs,
        "what is refused does not run"
    );
}

#[tokio::test]
async fn wrong_values_are_told_with_their_place() {
    let (upstream, gateway) = world("").await;
    for (target, text, loc) in [
        ("/A?json=maybe", "{}", json!(["query", "json"])),
        (
            "/A",
            r#"{"asynchronous":2}"#,
            json!(["body", "asynchronous"]),
        ),
        ("/A", r#"{"user_id":[1]}"#, json!(["body", "user_id"])),
        ("/A?user_tokens=x", "{}", json!(["query", "user_tokens"])),
        (
            "/A?params_mapping=%7B%22agent_id%22:%22a%22%7D",
            "{}",
            json!(["query", "params_mapping"]),
        ),
    ] {
        let answer = post(&gateway, target, JSON, text).await;
        assert_eq!(answer.status(), 422, "{target}");
        let detail = &json(&answer)["detail"][0];
        assert_eq!(detail["loc"], loc);
        assert!(
            detail["msg"].is_string() && detail["type"].is_string(),
            "{detail}"
        );
    }
    let answer = post(&gateway, "/A?params_mapping=%5B%5D", JSON, "{}").await;
    assert_detail(&answer, 400, "params_mapping is not a JSON object");
    assert!(upstream.runs().await.is_empty());
}

#[tokio::test]
async fn s19_an_agents_id_is_a_word() {
    let (upstream, gateway) = world("").await;
    let long = "a".repeat(65);
    for (target, body, from) in [
        ("/a%0aINFO%20forged", "{}", "path"),
        ("/a%1b%5b31m", "{}", "path"),
        ("/a%20b", "{}", "path"),
        ("/a%00", "{}", "path"),
        ("/?agent_id=a%E2%80%AEb", "{}", "query"),
        ("/?agent_id=a.b", "{}", "query"),
        ("/", r#"{"agent_id": "a/b"}"#, "body"),
        (&format!("/{long}"), "{}", "path"),
    ] {
        let answer = post(&gateway, target, JSON, body).await;
        assert_eq!(answer.status(), 422, "{target}");
        assert_eq!(
            json(&answer)["detail"][0]["loc"],
            json!([from, "agent_id"]),
            "{target}"
        );
    }
    assert_eq!(
        post(&gateway, &format!("/{}", &long[1..]), JSON, "{}")
            .await
            .status(),
        200
    );
    assert_eq!(upstream.runs().await.len(), 1);
}

#[tokio::test]
async fn a_raw_quote_in_the_request_line_is_refused_below_us_and_braces_pass() {
    let (upstream, gateway) = world("").await;
    let ask = |query: &str| {
        let mut stream = TcpStream::connect(gateway.public).expect("a connection");
        let request = format!(
            "POST /?{query} HTTP/1.1\r\nhost: h\r\nx-api-key: {KEY}\r\ncontent-length: 8\r\nconnection: close\r\n\r\n{{\"a\":7}} "
        );
        stream.write_all(request.as_bytes()).expect("written");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let answer = ask("agent_id=A&params_mapping={\"prompt\":\"a\"}");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(upstream.runs().await.is_empty());
    let answer = ask("agent_id=A&params_mapping={%22prompt%22:%22a%22}");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(sent(&upstream).await["input"]["text"], "7");
}

#[tokio::test]
async fn answers_are_shaped_whatever_the_run_came_to() {
    let (upstream, gateway) = world("").await;
    upstream
        .set(json!({"result": r#"{"a":[{"b":1.50}],"t":"x"}"#}))
        .await;
    for (query, wanted) in [
        ("getter=result.a.0.b", "1.50"),
        ("getter=result.t", r#""x""#),
        ("getter=result.nothing", "null"),
        ("getter=no.such", "null"),
        ("getter=status", r#""completed""#),
        ("getter=result&json=yes", r#"{"a":[{"b":1.50}],"t":"x"}"#),
    ] {
        let answer = post(&gateway, &format!("/A?{query}"), JSON, "{}").await;
        assert_eq!(
            (answer.status().as_u16(), &answer.body()[..]),
            (200, wanted.as_bytes()),
            "{query}"
        );
        assert_eq!(answer.headers()["content-type"], "application/json");
    }
    upstream.set(json!({"result": "plain words"})).await;
    let answer = post(&gateway, "/A?json=true", JSON, "{}").await;
    assert_eq!(json(&answer)["result"], "plain words");
    let answer = post(&gateway, "/A?asynchronous=1&getter=id&json=1", JSON, "{}").await;
    assert_eq!(answer.body(), r#"{"status":"Started"}"#);
    upstream.set(json!({"fail": ["failed=1"]})).await;
    let answer = post(&gateway, "/A", JSON, r#"{"prompt":"x"}"#).await;
    assert_eq!(
        (answer.status().as_u16(), &json(&answer)["status"]),
        (200, &json!("failed"))
    );
}

#[tokio::test]
async fn unknown_fields_of_a_task_pass_through_as_they_are() {
    let task = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nset-cookie: a=b\r\ncontent-length: 43\r\n\r\n{\"id\":\"t\",\"n\": 1e400, \"new\":{},\"result\":\"\"}";
    let (address, mut told) = scripted(vec![task], false).await;
    let gateway = Gateway::start(address, "").await;
    let answer = post(
        &gateway,
        "/A",
        &[("authorization", "Bearer x"), ("cookie", "c=d")],
        "{}",
    )
    .await;
    assert_eq!(
        answer.body(),
        "{\"id\":\"t\",\"n\": 1e400, \"new\":{},\"result\":\"\"}"
    );
    assert!(!answer.headers().contains_key("set-cookie"));
    let request = told.recv().await.expect("a request").to_ascii_lowercase();
    assert!(
        request.starts_with("post /v1/agents/a/invoke http/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains(&format!("\r\nx-api-key: {KEY}\r\n")),
        "{request}"
    );
    assert!(
        !request.contains("authorization") && !request.contains("cookie"),
        "{request}"
    );
}

#[tokio::test]
async fn t80_errors_of_the_upstream_become_the_documented_ones() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, "").await;
    for (status, wanted, detail) in [
        ("401", 403, "Invalid API key"),
        ("403", 403, "Invalid API key"),
        ("404", 404, "Not Found"),
        ("429", 429, "Rate limit exceeded"),
        ("500", 502, "The agent platform failed to answer."),
        ("503", 502, "The agent platform failed to answer."),
        ("gateway", 502, "The agent platform failed to answer."),
        ("malformed", 502, "The agent platform failed to answer."),
        ("drop-before", 502, "The agent platform failed to answer."),
        ("drop-after", 502, "The agent platform failed to answer."),
    ] {
        upstream.set(json!({"fail": [format!("{status}=1")]})).await;
        let answer = post(&gateway, "/A", JSON, r#"{"prompt":"x"}"#).await;
        assert_detail(&answer, wanted, detail);
        assert_eq!(
            answer.headers().contains_key("retry-after"),
            status == "429",
            "{status}"
        );
        if wanted == 429 {
            assert_eq!(answer.headers()["retry-after"], "1");
        }
        if status != "malformed" {
            let answer = post(&gateway, "/A", &[("accept", "text/event-stream")], "{}").await;
            assert_detail(&answer, wanted, detail);
        }
    }
    let leaky = "HTTP/1.1 500 Oops\r\nset-cookie: s=1\r\nserver: db-7\r\ncontent-length: 14\r\n\r\nTraceback db-7";
    let list = "HTTP/1.1 422 X\r\ncontent-length: 78\r\n\r\n{\"detail\":[{\"loc\":[\"body\",\"input\"],\"msg\":\"Field required\",\"type\":\"missing\"}]}\n";
    let moved = "HTTP/1.1 307 X\r\nlocation: http://internal/\r\ncontent-length: 0\r\n\r\n";
    let (address, _told) = scripted(vec![leaky, list, moved], false).await;
    let gateway = Gateway::start(address, "").await;
    let answer = post(&gateway, "/A", JSON, "{}").await;
    assert_detail(&answer, 502, "The agent platform failed to answer.");
    assert!(
        !format!("{answer:?}").contains("db-7") && !answer.headers().contains_key("set-cookie")
    );
    let answer = post(&gateway, "/A", JSON, "{}").await;
    assert_eq!(
        (answer.status().as_u16(), &json(&answer)["detail"][0]["loc"]),
        (422, &json!(["body", "input"]))
    );
    let answer = post(&gateway, "/A", JSON, "{}").await;
    assert_detail(&answer, 502, "The agent platform failed to answer.");
    assert!(!answer.headers().contains_key("location"));
}

#[tokio::test]
async fn no_answer_in_time_is_504_and_no_upstream_502() {
    let (address, _told) = scripted(vec!["", ""], true).await;
    let config = Gateway::config(address, "", "")
        .replace("[upstream]", "[upstream]\nrun_timeout = \"300ms\"");
    let gateway = Gateway::start_config(&config).await;
    let silent = "The agent platform did not answer in time.";
    assert_detail(&post(&gateway, "/A", JSON, "{}").await, 504, silent);
    let gateway = Gateway::start(crate::world::free_address(), "").await;
    assert_detail(
        &post(&gateway, "/A", JSON, "{}").await,
        502,
        "The agent platform failed to answer.",
    );
}

#[tokio::test]
async fn methods_paths_and_sizes_are_refused_in_the_doors_own_words() {
    let (upstream, gateway) = world("[dropin]\nmax_body = \"1KiB\"").await;
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        for path in ["/", "/A"] {
            let answer = gateway
                .send(method.clone(), path, &[("x-api-key", KEY)], "")
                .await;
            assert_detail(&answer, 405, "Method Not Allowed");
            assert_eq!(answer.headers()["allow"], "POST");
        }
    }
    let answer = post(&gateway, "/A/B", JSON, "{}").await;
    assert_eq!(
        (answer.status().as_u16(), &json(&answer)["detail"]),
        (404, &json!("Not Found"))
    );
    for path in ["/metrics", "/health", "/hooks", "/api"] {
        assert_eq!(
            post(&gateway, path, JSON, "{}").await.status(),
            404,
            "{path}"
        );
    }
    let answer = post(&gateway, "/A", JSON, vec![b' '; 2048]).await;
    assert_detail(&answer, 413, "The body is too large.");
    assert!(upstream.runs().await.is_empty());
    let busy = Gateway::start(upstream.address, "[limits]\nwhole = \"1/min\"").await;
    assert_eq!(post(&busy, "/A", JSON, "{}").await.status(), 200);
    let answer = post(&busy, "/A", JSON, "{}").await;
    assert_detail(&answer, 503, "The gateway is busy. Try again later.");
    assert!(answer.headers().contains_key("retry-after"));
    let shut = Gateway::start(upstream.address, "[dropin]\nenabled = false").await;
    assert_eq!(post(&shut, "/", JSON, "{}").await.status(), 404);
}

#[tokio::test]
async fn extra_fields_stand_below_the_prompt_where_the_operator_says_so() {
    let (upstream, gateway) = world("[dropin]\nextra_fields = \"text\"").await;
    post(&gateway, "/A", JSON, r#"{"prompt":"Look","a":1.50}"#).await;
    let sent = sent(&upstream).await;
    let text = sent["input"]["text"].as_str().expect("a text");
    assert!(
        text.starts_with("Look\n\n") && text.contains("\n{\"a\":1.50}\n[/event"),
        "{text}"
    );
    assert_eq!(sent.get("additional_context"), None);
}

#[tokio::test]
async fn t84_a_stream_is_passed_on_as_it_comes_and_its_end_is_the_upstreams() {
    let (upstream, gateway) = world("").await;
    upstream
        .set(json!({"delay": "300ms", "result": "one two three"}))
        .await;
    let answer = post(
        &gateway,
        "/A",
        &[("accept", "text/event-stream")],
        r#"{"prompt":"x"}"#,
    )
    .await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = String::from_utf8(answer.body().to_vec()).expect("text");
    let types: Vec<String> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .map(|event| event["type"].as_str().expect("a type").to_owned())
        .collect();
    assert_eq!(types.first().map(String::as_str), Some("connected"));
    assert_eq!(types.last().map(String::as_str), Some("task_finished"));
    assert!(types.iter().any(|kind| kind == "chunk"), "{types:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t84_a_caller_that_leaves_a_stream_takes_the_upstreams_connection_along() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"type\":\"connected\"}\n\n";
    let (address, mut told) = scripted(vec![head], true).await;
    let gateway = Gateway::start(address, "").await;
    let mut stream = TcpStream::connect(gateway.public).expect("a connection");
    let request = format!(
        "POST /A HTTP/1.1\r\nhost: h\r\naccept: text/event-stream\r\nx-api-key: {KEY}\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("written");
    let begun = Instant::now();
    let mut seen = String::new();
    let mut piece = [0; 1024];
    while !seen.contains("connected") {
        let read = stream.read(&mut piece).expect("read");
        seen.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "it came at once");
    assert!(
        told.recv()
            .await
            .expect("a request")
            .starts_with("POST /v1/agents/A/invoke/stream ")
    );
    drop(stream);
    let gone = tokio::time::timeout(Duration::from_secs(2), told.recv())
        .await
        .expect("soon");
    assert_eq!(gone.as_deref(), Some("gone"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_is_counted_and_its_call_ends() {
    let (address, mut told) = scripted(vec![""], true).await;
    let gateway = Gateway::start(address, "").await;
    let mut stream = TcpStream::connect(gateway.public).expect("a connection");
    let request =
        format!("POST /A HTTP/1.1\r\nhost: h\r\nx-api-key: {KEY}\r\ncontent-length: 2\r\n\r\n{{}}");
    stream.write_all(request.as_bytes()).expect("written");
    assert!(
        told.recv()
            .await
            .expect("a request")
            .starts_with("POST /v1/agents/A/invoke ")
    );
    drop(stream);
    let gone = tokio::time::timeout(Duration::from_secs(2), told.recv())
        .await
        .expect("soon");
    assert_eq!(gone.as_deref(), Some("gone"));
    let counted = r#"sluicegate_refused_total{reason="aborted",source="dropin"}"#;
    wait_for("the count", async || {
        (gateway.metric(counted).await == 1.0).then_some(())
    })
    .await;
    wait_for("its line", async || {
        gateway
            .log()
            .contains("went away before it was answered")
            .then_some(())
    })
    .await;
    assert!(
        !gateway.log().contains("before the body was whole"),
        "the body was whole"
    );
}

#[tokio::test]
async fn a_call_is_explained_to_whoever_has_a_gateway_key_and_runs_nothing() {
    const OWN: &str = "a-key-of-the-gateways-own";
    let keys = format!(
        "[dropin]\nrequire_key = false\n[keys.ci]\nkey = \"literal:{OWN}\"\nagents = [\"A\"]\n"
    );
    let (upstream, gateway) = world(&keys).await;
    let mapping = "/A?params_mapping=%7B%22prompt%22:%22message.txt%22,%22task_id%22:%22message.chat.id%22%7D&user_id=u";
    let text = r#"{"message":{"text":"hi","chat":{"id":7}},"user_tokens":{"t":"hush"}}"#;
    let ask = async |key: &str, target: &str, body: &str| {
        let headers = [
            ("x-api-key", key),
            ("x-sluicegate-explain", "1"),
            ("content-type", "application/json"),
        ];
        gateway.post(target, &headers, body.to_owned()).await
    };
    let answer = ask(OWN, mapping, text).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let told = json(&answer);
    assert_eq!(told["agent_id"], "A", "{told}");
    let miss = json!({"of": "prompt", "path": "message.txt", "why": "leads nowhere", "near": "message.text"});
    assert_eq!(told["misses"], json!([miss]), "{told}");
    let task = told["params"]
        .as_array()
        .unwrap()
        .iter()
        .find(|param| param["name"] == "task_id")
        .unwrap();
    assert_eq!(
        (&task["value"], &task["from"]),
        (&"7".into(), &"params_mapping message.chat.id".into()),
        "{told}"
    );
    assert_eq!(told["call"]["path"], "/v1/agents/A/invoke", "{told}");
    assert!(!told.to_string().contains("hush"), "{told}");
    // What is wrong with a call is said as well.
    let told = json(&ask(OWN, "/A", "{").await);
    assert_eq!(told["refused"]["code"], "malformed_body", "{told}");
    assert_eq!(
        ask(OWN, "/B", text).await.status(),
        403,
        "a key is good for its agents"
    );
    assert_eq!(
        ask(KEY, mapping, text).await.status(),
        403,
        "it is for keys of the gateway's own"
    );
    assert!(upstream.runs().await.is_empty());
    assert_eq!(
        gateway
            .metric("sluicegate_requests_total{outcome=\"shown\",source=\"dropin\"}")
            .await,
        2.0
    );
}
