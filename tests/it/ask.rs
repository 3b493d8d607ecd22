//! Forward auth: the operator's own service judges each request of a source, over real sockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::world::{API_KEY, Gateway, TOKEN, Upstream, binary, event_id, free_address, json};

/// What the service was shown.
type Shown = Arc<Mutex<Vec<(Method, String, HeaderMap, Bytes)>>>;

/// A service that answers with the status in the request's header `x-say`, or never.
async fn service() -> (SocketAddr, Shown) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let shown = Shown::default();
    let all = shown.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let all = all.clone();
            let service = service_fn(move |request| answer(request, all.clone()));
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (address, shown)
}

async fn answer(
    request: Request<Incoming>,
    shown: Shown,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let say = head
        .headers
        .get("x-say")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("204")
        .to_owned();
    shown
        .lock()
        .expect("no panic")
        .push((head.method, head.uri.to_string(), head.headers, body));
    if say == "never" {
        std::future::pending::<()>().await;
    }
    let mut answer = Response::builder().header("location", "/elsewhere");
    if say != "200" {
        answer = answer.header("x-user", "ada");
    }
    if say == "twice" {
        answer = answer.header("x-user", "eve");
    }
    Ok(answer
        .status(say.parse().unwrap_or(204_u16))
        .body(Full::default())
        .expect("an answer"))
}

fn source(address: SocketAddr, more: &str) -> String {
    format!(
        "[sources.own]\nprovider = \"custom\"\nagent = \"a-1\"\nprompt = \"{{{{ headers['x-user'] | default('nobody') }}}} says \
         {{{{ body.text }}}}\"\nverify = {{ scheme = \"ask\", url = \"http://{address}/check?k=planted-key\", headers = [\"X-User\"], \
         timeout = \"2s\" }}\n{more}\n"
    )
}

#[tokio::test]
async fn another_service_proves_a_request_and_its_headers_can_be_read() {
    let upstream = Upstream::start(&[]).await;
    let (address, shown) = service().await;
    let gateway = Gateway::start(upstream.address, &source(address, "")).await;
    let headers = [
        ("x-user", "mallory"),
        ("x-forwarded-for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("authorization", "Bearer t"),
    ];
    let body = r#"{"text":"hello"}"#;
    let taken = gateway.post("/hooks/own?a=1", &headers, body).await;
    assert_eq!(taken.status(), 202, "{taken:?}");
    let runs = upstream.wait_for_runs(1).await;
    assert!(runs[0].to_string().contains("ada says hello"), "{runs:?}");
    {
        let shown = shown.lock().expect("no panic");
        let (method, target, headers, seen) = &shown[0];
        assert_eq!(
            (method, target.as_str(), &seen[..]),
            (&Method::POST, "/check?k=planted-key", body.as_bytes())
        );
        let of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(
            (of("x-forwarded-method"), of("x-forwarded-uri")),
            (Some("POST"), Some("/hooks/own?a=1"))
        );
        assert_eq!(
            (of("x-forwarded-for"), of("authorization")),
            (Some("127.0.0.1"), Some("Bearer t"))
        );
        assert_eq!(
            (of("x-user"), of("forwarded"), of("host")),
            (None, None, Some(address.to_string().as_str()))
        );
        assert!(
            !format!("{headers:?}").contains(API_KEY) && !format!("{headers:?}").contains(TOKEN),
            "{headers:?}"
        );
    }
    let event = gateway.settled(&event_id(&taken)).await;
    assert_eq!(event["verification"]["strength"], "asked", "{event:#}");
    let again = gateway.post("/hooks/own?a=1", &headers, body).await;
    assert_eq!(json(&again)["status"], "duplicate", "{again:?}");
    // A yes without the header: what the sender wrote there counts for nothing.
    let plain = gateway
        .post(
            "/hooks/own",
            &[("x-user", "mallory"), ("x-say", "200")],
            r#"{"text":"two"}"#,
        )
        .await;
    assert_eq!(plain.status(), 202, "{plain:?}");
    let runs = upstream.wait_for_runs(2).await;
    let runs = format!("{runs:?}");
    assert!(
        runs.contains("nobody says two") && !runs.contains("mallory says"),
        "{runs}"
    );
}

#[tokio::test]
async fn without_a_clear_yes_nothing_passes_and_without_a_clear_no_the_sender_comes_again() {
    let upstream = Upstream::start(&[]).await;
    let (address, shown) = service().await;
    let gone = source(free_address(), "").replace("sources.own", "sources.gone");
    let gateway = Gateway::start(upstream.address, &format!("{}{gone}", source(address, ""))).await;
    for (say, wanted) in [
        ("401", 401),
        ("403", 401),
        ("404", 401),
        ("429", 503),
        ("302", 503),
        ("307", 503),
        ("500", 503),
        ("503", 503),
        ("twice", 503),
        ("never", 503),
    ] {
        let answer = gateway
            .post("/hooks/own", &[("x-say", say)], r#"{"text":"no"}"#)
            .await;
        assert_eq!(answer.status().as_u16(), wanted, "{say}: {answer:?}");
        assert_eq!(
            answer.headers().contains_key("retry-after"),
            wanted == 503,
            "{say}: {answer:?}"
        );
        let told = String::from_utf8_lossy(answer.body()).into_owned();
        assert!(!told.contains(&address.to_string()), "{say}: {told}");
    }
    let answer = gateway.post("/hooks/gone", &[], r#"{"text":"no"}"#).await;
    assert_eq!(answer.status(), 503, "{answer:?}");
    assert!(answer.headers().contains_key("retry-after"), "{answer:?}");
    // No redirect was followed.
    assert!(
        shown
            .lock()
            .expect("no panic")
            .iter()
            .all(|(_, target, ..)| target.starts_with("/check"))
    );
    assert_eq!(
        gateway.admin_json("/events").await["items"]
            .as_array()
            .map(Vec::len),
        Some(0)
    );
    let log = gateway.log();
    assert!(
        log.contains("did not say whether the request is good"),
        "{log}"
    );
    assert!(!log.contains("planted-key"), "{log}");
}

#[tokio::test]
async fn a_form_with_files_is_shown_to_the_service_whole_and_only_a_yes_keeps_its_files() {
    let upstream = Upstream::start(&[]).await;
    let (address, shown) = service().await;
    let gateway = Gateway::start(upstream.address, &source(address, "files = true")).await;
    let form = "--XbX\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nread it\r\n\
                --XbX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\
                Content-Type: text/plain\r\n\r\nTHE FILE\r\n--XbX--\r\n";
    let kind = ("content-type", "multipart/form-data; boundary=XbX");
    let kept = async || {
        let list = gateway.admin_json("/attachments").await;
        list["items"].as_array().map(Vec::len)
    };
    for (say, wanted) in [("401", 401), ("500", 503), ("never", 503)] {
        let answer = gateway
            .post("/hooks/own", &[kind, ("x-say", say)], form)
            .await;
        assert_eq!(answer.status().as_u16(), wanted, "{say}: {answer:?}");
        assert_eq!(kept().await, Some(0), "{say}");
    }
    let answer = gateway.post("/hooks/own", &[kind], form).await;
    assert_eq!(answer.status(), 202, "{answer:?}");
    let event = gateway.settled(&event_id(&answer)).await;
    assert_eq!(event["verification"]["strength"], "asked", "{event:#}");
    assert_eq!(event["attachments"][0]["name"], "a.txt", "{event:#}");
    assert_eq!(kept().await, Some(1));
    let shown = shown.lock().expect("no panic");
    let (_, _, headers, seen) = shown.last().expect("it was asked");
    assert_eq!(&seen[..], form.as_bytes());
    assert_eq!(headers["content-type"], kind.1);
}

#[tokio::test]
async fn a_source_that_only_observes_takes_requests_whatever_the_service_says_and_notes_it() {
    let upstream = Upstream::start(&[]).await;
    let (address, _) = service().await;
    let gateway = Gateway::start(upstream.address, &source(address, "enforce = false")).await;
    for (number, (say, strength)) in [
        ("204", "asked"),
        ("401", "observed:wrong_signature"),
        ("500", "observed:not_attempted"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!(r#"{{"text":"number {number}"}}"#);
        let answer = gateway
            .post("/hooks/own", &[("x-say", say), ("x-user", "mallory")], body)
            .await;
        assert_eq!(answer.status(), 202, "{say}: {answer:?}");
        let event = gateway.settled(&event_id(&answer)).await;
        assert_eq!(event["verification"]["strength"], strength, "{event:#}");
        let runs = upstream.wait_for_runs(number + 1).await;
        let said = if say == "204" { "ada" } else { "nobody" };
        let told = runs[number].to_string();
        assert!(
            told.contains(&format!("{said} says")) && !told.contains("mallory says"),
            "{say}: {told}"
        );
    }
}

#[tokio::test]
async fn a_question_carries_the_gateways_mark_so_that_one_that_leads_back_ends() {
    let upstream = Upstream::start(&[]).await;
    let (address, shown) = service().await;
    let public = free_address();
    let back = source(public, "")
        .replace("sources.own", "sources.back")
        .replace("/check?k=planted-key", "/hooks/back");
    let gateway = Gateway::start_at(
        public,
        Arc::new(tempfile::tempdir().expect("a folder")),
        upstream.address,
        &format!("{}{back}", source(address, "")),
    )
    .await;
    let taken = gateway.post("/hooks/own", &[], r#"{"text":"hello"}"#).await;
    assert_eq!(taken.status(), 202, "{taken:?}");
    let mark = shown.lock().expect("no panic")[0].2["cdn-loop"].clone();
    assert!(
        mark.as_bytes().starts_with(b"sluicegate-"),
        "the question has no mark: {mark:?}"
    );
    let answer = gateway
        .post("/hooks/back", &[], r#"{"text":"round"}"#)
        .await;
    assert_eq!(answer.status(), 503, "{answer:?}");
    let refused = "sluicegate_refused_total{reason=\"loop_detected\",source=\"back\"}";
    let elsewhere = "sluicegate_refused_total{reason=\"loop_detected\",source=\"\"}";
    let loops = gateway.metric(refused).await + gateway.metric(elsewhere).await;
    assert!((loops - 1.0).abs() < 0.5, "{loops} requests came round");
}

#[test]
fn check_finds_what_is_wrong_with_the_service_that_is_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sluicegate.toml");
    let good = source(SocketAddr::from(([127, 0, 0, 1], 9)), "");
    let url = "http://127.0.0.1:9/check?k=planted-key";
    for (written, wrong, said) in [
        (url, "ftp://auth.internal/check", "url is not an address"),
        (
            url,
            "https://me:word@auth.internal/check",
            "url is not an address",
        ),
        ("X-User", "Set-Cookie", "cannot be taken from an answer"),
        ("X-User", "X User", "invalid header name"),
        ("2s", "5min", "timeout must be from 100ms to 30s"),
        ("timeout", "timeuot", "timeuot"),
        (
            "prompt",
            "secrets = [\"literal:a-secret-of-16-b\"]\nprompt",
            "has no secrets of its own",
        ),
    ] {
        let config = Gateway::config(
            SocketAddr::from(([127, 0, 0, 1], 9)),
            &good.replacen(written, wrong, 1),
            "",
        );
        std::fs::write(&file, config).expect("the folder takes files");
        let ended = std::process::Command::new(binary())
            .arg("check")
            .arg(&file)
            .output()
            .expect("it runs");
        let all = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        let words = all.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            !ended.status.success() && words.contains(said),
            "{wrong}: {all}"
        );
    }
}
