//! What strangers at the doors cost: a bounded refusal, and nothing that anybody else has a share in.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use http::Method;
use serde_json::{Value, json};

use crate::upload::{form, kind, stored};
use crate::world::{API_KEY, Gateway, Upstream, borrowed, hmac_sha256, json as body_of, wait_for};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Everything that the inbox keeps of events.
async fn events(gateway: &Gateway) -> Vec<Value> {
    gateway.admin_json("/events").await["items"]
        .as_array()
        .cloned()
        .expect("a list")
}

async fn requests(upstream: &Upstream) -> u64 {
    upstream.stats().await["requests"]
        .as_u64()
        .expect("a number")
}

#[tokio::test]
async fn s2_a_key_that_the_upstream_refuses_is_403_and_nothing_is_kept() {
    let upstream = Upstream::start(&["--api-key", API_KEY]).await;
    let gateway = Gateway::start(upstream.address, "").await;
    let refused = json!({"detail": "Invalid API key"});
    for number in 0..20 {
        let key = format!("a-key-that-nobody-knows-{number}");
        let headers = [JSON, ("x-api-key", key.as_str())];
        for target in [
            "/A?asynchronous=true",
            "/A?task_id=t-1",
            "/A",
            "/A?asynchronous=true&task_id=t-2",
        ] {
            let answer = gateway.post(target, &headers, r#"{"prompt":"x"}"#).await;
            assert_eq!(
                (answer.status().as_u16(), body_of(&answer)),
                (403, refused.clone()),
                "{target}"
            );
        }
        let headers = [kind(), ("x-api-key", key)];
        let body = form(
            &[("agent_id", "A"), ("asynchronous", "true")],
            &[("f", "1.csv", "text/csv", &[b'x'; 9000])],
        );
        let answer = gateway.post("/", &borrowed(&headers), body).await;
        assert_eq!(
            (answer.status().as_u16(), body_of(&answer)),
            (403, refused.clone())
        );
    }
    assert_eq!(events(&gateway).await, Vec::<Value>::new());
    assert_eq!(stored(&gateway), Vec::<std::path::PathBuf>::new());
    assert!(upstream.runs().await.is_empty());
    let attachments = gateway.admin_json("/attachments").await;
    assert_eq!(attachments["items"], json!([]));
}

#[tokio::test]
async fn s2_a_good_key_is_judged_once_and_its_calls_are_kept_from_then_on() {
    let upstream = Upstream::start(&["--api-key", API_KEY]).await;
    let gateway = Gateway::start(upstream.address, "").await;
    let headers = [JSON, ("x-api-key", API_KEY)];
    let first = gateway
        .post("/A?asynchronous=true", &headers, r#"{"prompt":"one"}"#)
        .await;
    assert_eq!(
        (first.status().as_u16(), body_of(&first)),
        (200, json!({"status": "Started"}))
    );
    assert_eq!(
        upstream.wait_for_runs(1).await[0]["body"]["input"]["text"],
        "one"
    );
    let second = gateway
        .post("/A?asynchronous=true", &headers, r#"{"prompt":"two"}"#)
        .await;
    let event = second.headers()["sluicegate-event-id"]
        .to_str()
        .expect("an id")
        .to_owned();
    assert_eq!(
        gateway.settled(&event).await["deliveries"][0]["state"],
        "delivered"
    );
    assert_eq!(
        upstream.wait_for_runs(2).await[1]["body"]["input"]["text"],
        "two"
    );
    // Known at one agent is not known at another.
    let other = gateway
        .post("/B?asynchronous=true", &headers, r#"{"prompt":"three"}"#)
        .await;
    assert!(
        !other.headers().contains_key("sluicegate-event-id"),
        "{other:?}"
    );
    assert_eq!(
        upstream.wait_for_runs(3).await[2]["destination"],
        "agents/B"
    );
    // Turns of a conversation keep their order, the first one too.
    let turns = async |text: &str| {
        gateway
            .post(
                "/C?task_id=chat",
                &headers,
                format!(r#"{{"prompt":"{text}"}}"#),
            )
            .await
            .status()
            .as_u16()
    };
    upstream.set(json!({"delay": "300ms"})).await;
    assert_eq!(
        tokio::join!(turns("a"), turns("b"), turns("c")),
        (200, 200, 200)
    );
    let runs = upstream.runs().await;
    let times = |run: &Value, name: &str| run[name].as_str().map(str::to_owned);
    for pair in runs[3..].windows(2) {
        assert!(
            times(&pair[0], "finished_at") <= times(&pair[1], "started_at"),
            "{pair:#?}"
        );
    }
}

#[tokio::test]
async fn s2_a_refused_key_is_refused_from_memory() {
    let upstream = Upstream::start(&["--api-key", API_KEY]).await;
    let gateway = Gateway::start(upstream.address, "").await;
    let headers = [JSON, ("x-api-key", "a-key-that-nobody-knows")];
    let call = async || {
        gateway
            .post("/A?asynchronous=true", &headers, "{}")
            .await
            .status()
            .as_u16()
    };
    assert_eq!(call().await, 403);
    let before = requests(&upstream).await;
    for _ in 0..50 {
        assert_eq!(call().await, 403);
    }
    assert_eq!(requests(&upstream).await, before);
    // An address that brings ever more of them is slowed down, and a key that is known is not.
    let good = [JSON, ("x-api-key", API_KEY)];
    assert_eq!(gateway.post("/A", &good, "{}").await.status(), 200);
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..150 {
        let key = format!("another-key-that-nobody-knows-{number}");
        let answer = gateway
            .post("/A?asynchronous=true", &[JSON, ("x-api-key", &key)], "{}")
            .await;
        seen.insert(answer.status().as_u16());
    }
    assert_eq!(seen, [403, 429].into());
    assert!(requests(&upstream).await < before + 150);
    assert_eq!(gateway.post("/A", &good, "{}").await.status(), 200);
    assert_eq!(
        gateway
            .post("/A?asynchronous=true", &good, "{}")
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn s2_strangers_have_their_share_of_the_disk() {
    let upstream = Upstream::start(&["--api-key", API_KEY]).await;
    let sources = format!("{SIGNED}[dropin]\nmax_disk = \"20KiB\"\n");
    let gateway = Gateway::start(upstream.address, &sources).await;
    let headers = [JSON, ("x-api-key", API_KEY)];
    let call = async || {
        let body = format!(r#"{{"prompt":"x","pad":"{}"}}"#, "x".repeat(6_000));
        gateway
            .post("/A?asynchronous=true", &headers, body)
            .await
            .status()
            .as_u16()
    };
    let answers = [
        call().await,
        call().await,
        call().await,
        call().await,
        call().await,
        call().await,
    ];
    assert_eq!(
        answers,
        [200, 200, 200, 200, 503, 503],
        "the first is not kept, and three fit"
    );
    assert_eq!(
        gateway.post("/A", &headers, "{}").await.status(),
        200,
        "what is not kept takes nothing"
    );
    assert_eq!(proved(&gateway, 1).await, 202);
}

#[tokio::test]
async fn s2_with_keys_of_the_gateways_own_only_those_are_taken() {
    let upstream = Upstream::start(&[]).await;
    let keys = "[keys.ci]\nkey = \"literal:gateway-key-of-ci-0001\"\n";
    for (more, status) in [
        ("", 403),
        ("[dropin]\nrequire_key = false\n", 200),
        ("[dropin]\nrequire_key = true\n", 403),
    ] {
        let gateway = Gateway::start(upstream.address, &format!("{more}{keys}")).await;
        for target in ["/A", "/A?asynchronous=true"] {
            let foreign = gateway
                .post(target, &[JSON, ("x-api-key", "somebody-elses")], "{}")
                .await;
            assert_eq!(foreign.status().as_u16(), status, "{more}");
            let own = gateway
                .post(
                    target,
                    &[JSON, ("x-api-key", "gateway-key-of-ci-0001")],
                    "{}",
                )
                .await;
            assert_eq!(own.status(), 200, "{more}");
        }
    }
    let nobody = Gateway::start(upstream.address, "[dropin]\nrequire_key = true\n").await;
    let answer = nobody
        .post("/A", &[JSON, ("x-api-key", "somebody-elses")], "{}")
        .await;
    assert_eq!(
        (answer.status().as_u16(), &body_of(&answer)["detail"]),
        (403, &json!("Invalid API key"))
    );
    assert_eq!(
        nobody
            .send(Method::GET, "/A", &[("x-api-key", "k")], "")
            .await
            .status(),
        405
    );
    wait_for("the count", async || {
        let counted = r#"sluicegate_refused_total{reason="key_refused",source="dropin"}"#;
        (nobody.metric(counted).await == 1.0).then_some(())
    })
    .await;
}

const SIGNED: &str = r#"
[sources.signed]
provider = "custom"
secrets = ["literal:a-secret-of-the-strangers-test"]
agent = "a"
verify = { signature = "header:X-Signature" }
rate = "3/min"
"#;

/// An event that its sender signed.
fn signed(number: usize) -> (String, String) {
    let body = format!(r#"{{"prompt":"{number}"}}"#);
    let tag = hmac_sha256(b"a-secret-of-the-strangers-test", body.as_bytes());
    (body, tag)
}

async fn proved(gateway: &Gateway, number: usize) -> u16 {
    let (body, tag) = signed(number);
    gateway
        .post("/hooks/signed", &[JSON, ("x-signature", &tag)], body)
        .await
        .status()
        .as_u16()
}

#[tokio::test]
async fn s6_what_is_not_proved_uses_up_no_limit_of_what_is() {
    let upstream = Upstream::start(&["--api-key", API_KEY]).await;
    let doors = format!(
        "{SIGNED}[dropin]\nrate = \"3/min\"\nrequire_key = false\n[limits]\nwhole = \"9/min\"\n\
         [keys.ci]\nkey = \"literal:gateway-key-of-ci-0001\"\n\
         [[proxy]]\nprefix = \"/v1\"\nupstream = \"http://{}\"\nrate = \"3/min\"\n",
        upstream.address
    );
    let gateway = Gateway::start(upstream.address, &doors).await;
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..30 {
        let bad = [
            JSON,
            ("x-signature", "00"),
            ("x-api-key", "a-key-that-nobody-knows"),
        ];
        for path in [
            "/hooks/signed",
            "/A",
            "/A?asynchronous=true",
            "/v1/tasks",
            "/hooks/nobody",
            "/events/x?token=y",
        ] {
            let answer = gateway
                .post(path, &bad, format!(r#"{{"prompt":"{number}"}}"#))
                .await;
            assert!(
                answer.status().is_client_error() || answer.status() == 503,
                "{path}: {answer:?}"
            );
            if path == "/hooks/signed" {
                seen.insert(answer.status().as_u16());
            }
        }
    }
    assert_eq!(seen, [401, 429].into(), "whoever fails too often hears so");
    for number in 0..3 {
        assert_eq!(proved(&gateway, number).await, 202, "{number}");
        let own = [JSON, ("x-api-key", "gateway-key-of-ci-0001")];
        assert_eq!(
            gateway.post("/A", &own, "{}").await.status(),
            200,
            "{number}"
        );
        assert_eq!(
            gateway
                .send(Method::GET, "/v1/tasks", &own, "")
                .await
                .status(),
            200,
            "{number}"
        );
    }
    // The limits are there all the same: nine were proved.
    let (body, tag) = signed(9);
    let over = gateway
        .post("/hooks/signed", &[JSON, ("x-signature", &tag)], body)
        .await;
    assert_eq!(over.status(), 503, "{over:?}");
}

#[tokio::test]
async fn s6_a_source_counts_what_is_proved() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, SIGNED).await;
    for number in 0..3 {
        assert_eq!(
            gateway.post("/hooks/signed", &[JSON], "{}").await.status(),
            401
        );
        assert_eq!(proved(&gateway, number).await, 202);
    }
    let (body, tag) = signed(4);
    let over = gateway
        .post("/hooks/signed", &[JSON, ("x-signature", &tag)], body)
        .await;
    assert_eq!(
        (over.status().as_u16(), &body_of(&over)["code"]),
        (429, &json!("rate_limited"))
    );
    assert!(over.headers().contains_key("retry-after"));
    assert_eq!(over.headers()["ratelimit-policy"], r#""source";q=3;w=60"#);
}

/// A connection whose request has so large a body, of which nothing comes.
fn declared(to: SocketAddr, path: &str, headers: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("it listens");
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    stream
}

/// What is answered on a connection within a second; none where nothing is.
fn told(mut stream: &TcpStream) -> Option<String> {
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(1)))
        .expect("a time-out");
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..read]).into_owned())
}

/// What is answered on a connection.
async fn answered(mut stream: TcpStream) -> String {
    let read = tokio::task::spawn_blocking(move || {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    read.await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_bodies_that_are_declared_take_what_all_bodies_share_and_small_ones_find_room() {
    let upstream = Upstream::start(&[]).await;
    let server = "max_held = \"8MiB\"\nmax_body = \"3MiB\"\nbody_stall = \"60s\"";
    let sources = SIGNED.replace("rate = \"3/min\"", "");
    let gateway = Gateway::start_with(upstream.address, &sources, server).await;
    let public = gateway.public;
    // Of two at once one finds room, and nobody can say which.
    let held = wait_for("one to find room and one to find none", async || {
        let pair = [0, 1].map(|_| declared(public, "/hooks/signed", "", 3 << 20));
        let told = tokio::task::spawn_blocking(move || pair.map(|stream| (told(&stream), stream)));
        match told.await.expect("no panic") {
            [(Some(answer), _), (None, held)] | [(None, held), (Some(answer), _)] => {
                assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
                assert!(
                    answer.to_ascii_lowercase().contains("\r\nretry-after: "),
                    "{answer}"
                );
                Some(held)
            }
            _ => None,
        }
    })
    .await;
    for number in 0..20 {
        assert_eq!(proved(&gateway, number).await, 202, "small ones find room");
    }
    // Also at the other door.
    let key = "x-api-key: a-key-that-nobody-knows\r\nConnection: close\r\n";
    let answer = answered(declared(gateway.public, "/A", key, 3 << 20)).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop(held);
    let body = format!(r#"{{"prompt":"x","pad":"{}"}}"#, "x".repeat(2 << 20));
    let tag = hmac_sha256(b"a-secret-of-the-strangers-test", body.as_bytes());
    wait_for("what was held to be given back", async || {
        let answer = gateway
            .post(
                "/hooks/signed",
                &[JSON, ("x-signature", &tag)],
                body.clone(),
            )
            .await;
        (answer.status() == 202).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_memory_comes_back_when_its_callers_have_left() {
    let upstream = Upstream::start(&[]).await;
    let sources = SIGNED.replace("rate = \"3/min\"", "max_body = \"24MiB\"");
    let server = "max_held = \"64MiB\"\nmax_body = \"1MiB\"";
    let gateway = Gateway::start_with(upstream.address, &sources, server).await;
    let before = gateway.resident();
    let public = gateway.public;
    let held = tokio::task::spawn_blocking(move || {
        let piece = vec![b' '; 23 << 20];
        (0..16)
            .filter_map(|_| {
                let mut stream = declared(public, "/hooks/signed", "", 24 << 20);
                stream.write_all(&piece).ok().map(|()| stream)
            })
            .collect::<Vec<_>>()
    });
    let held = held.await.expect("no panic");
    let grown = gateway.resident().saturating_sub(before);
    assert!(
        grown <= (64 + 64) << 20,
        "{grown} bytes for 16 bodies of 23 MiB"
    );
    drop(held);
    // The allocator gives back what is free when there is something to do.
    let mut left = u64::MAX;
    let back = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while left > 20 << 20 {
            proved(&gateway, 1).await;
            left = gateway.resident().saturating_sub(before);
        }
    });
    assert!(
        back.await.is_ok(),
        "{left} bytes are still held, {grown} were"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_uploads_of_strangers_leave_places_to_others() {
    let upstream = Upstream::start(&["--api-key", API_KEY]).await;
    let sources = SIGNED.replace("rate = \"3/min\"", "files = true");
    let sources = format!("{sources}[attachments]\nuploads = 4\n");
    let gateway = Gateway::start_with(upstream.address, &sources, "body_stall = \"60s\"").await;
    let upload = async |number: usize| {
        let name = format!("{number}.csv");
        let body = form(&[("prompt", "x")], &[("f", &name, "text/csv", b"a,b")]);
        let tag = hmac_sha256(b"a-secret-of-the-strangers-test", &body);
        gateway
            .post(
                "/hooks/signed",
                &borrowed(&[kind(), ("x-signature", tag)]),
                body,
            )
            .await
            .status()
            .as_u16()
    };
    // An address that has proved itself once finds a place however many strangers hold theirs.
    assert_eq!(upload(1).await, 202);
    let head = format!(
        "{}: {}\r\nx-api-key: a-key-that-nobody-knows\r\n",
        kind().0,
        kind().1
    );
    let held: Vec<TcpStream> = (0..8)
        .map(|number| {
            declared(
                gateway.public,
                ["/hooks/signed", "/A"][number % 2],
                &head,
                1 << 20,
            )
        })
        .collect();
    // One of them has the only place for an address that nothing is known of; the others are told to come back.
    let mut at_door: Vec<TcpStream> = held
        .iter()
        .skip(1)
        .step_by(2)
        .map(|held| held.try_clone().expect("a descriptor"))
        .collect();
    let mut refused = 0;
    for _ in 0..60 {
        if refused == 3 {
            break;
        }
        let before = at_door.len();
        at_door = tokio::task::spawn_blocking(move || {
            at_door.retain(|held| {
                told(held).is_none_or(|answer| !answer.starts_with("HTTP/1.1 503 "))
            });
            at_door
        })
        .await
        .expect("no panic");
        refused += before - at_door.len();
    }
    assert_eq!((refused, at_door.len()), (3, 1), "somebody has the place");
    drop(at_door);
    drop(held);
    wait_for("a place", async || (upload(2).await == 202).then_some(())).await;
}

#[tokio::test]
async fn s34_refused_requests_are_logged_so_often_and_counted_always() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, SIGNED).await;
    for _ in 0..2_000 {
        gateway.post("/hooks/nobody", &[], "{}").await;
    }
    gateway
        .metric_is(
            r#"sluicegate_refused_total{reason="not_found",source=""}"#,
            2_000.0,
        )
        .await;
    let lines = wait_for("what was left out to be told", async || {
        let log = gateway.log();
        let told = log
            .lines()
            .filter(|line| line.contains("more of these were not logged in the last second"));
        let told: u64 = told.filter_map(body_count).sum();
        let written = log
            .lines()
            .filter(|line| line.contains("\"refused\""))
            .count() as u64;
        (told + written == 2_000).then_some(written)
    })
    .await;
    assert!(lines < 2_000, "{lines}");
}

/// How many lines a line says were left out.
fn body_count(line: &str) -> Option<u64> {
    serde_json::from_str::<Value>(line).ok()?["count"].as_u64()
}
