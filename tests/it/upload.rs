//! Files over real sockets: what is taken in, what is refused and leaves nothing behind, and who can fetch it. Names
//! carry the row of the threat page.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sluicegate::net::Client;

use crate::world::{
    API_KEY, Gateway, TOKEN, Upstream, borrowed, corpus, event_id, free_address, hmac_sha256, json,
    wait_for,
};

const SECRET: &str = "a-secret-for-signed-forms";
const BOUNDARY: &str = "----form7MA4YWxkTrZu0gW";

const SOURCES: &str = r#"
[sources.signed]
provider = "custom"
secrets = ["literal:a-secret-for-signed-forms"]
agent = "a"
verify = { scheme = "hmac", algorithm = "sha256", signature = "header:X-Signature", event_id = "header:X-Id", signed_content = "{header:X-Time}.{body}" }
files = { max_upload = "1100MiB", max_file = "1100MiB" }
[sources.held]
provider = "custom"
secrets = ["literal:a-secret-for-signed-forms"]
agent = "a"
verify = { scheme = "hmac", algorithm = "sha256", signature = "header:X-Signature", signed_content = "{body|sha256|hex}" }
files = true
[sources.open]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
files = { max_upload = "8MiB" }
[sources.narrow]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
files = { accept = ["image/*", ".csv"], max_file = "1KiB", max_files = 2, max_upload = "8KiB" }
[sources.raw]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
defaults = { prompt = "Look at this" }
files = { body = "file" }
[sources.without]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
"#;

fn config(public: SocketAddr, upstream: SocketAddr, more: &str) -> String {
    format!(
        r#"
[server]
listen = "{public}"
public_url = "http://{public}"
[admin]
listen = "127.0.0.1:0"
token = "literal:{TOKEN}"
[upstream]
base_url = "http://{upstream}"
api_key = "literal:{API_KEY}"
[inbox]
url = "sqlite:data/inbox.db"
[log]
format = "json"
{more}
{SOURCES}
"#
    )
}

async fn started(more: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start_config(&config(free_address(), upstream.address, more)).await;
    (upstream, gateway)
}

/// A form: names and texts; names, file names, types and bytes.
pub(crate) fn form(fields: &[(&str, &str)], files: &[(&str, &str, &str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, text) in fields {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n"
        );
        body.extend_from_slice(head.as_bytes());
    }
    for (name, file, kind, bytes) in files {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\nContent-Type: {kind}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

pub(crate) fn kind() -> (&'static str, String) {
    (
        "content-type",
        format!("multipart/form-data; boundary={BOUNDARY}"),
    )
}

fn signed(id: &str, body: &[u8]) -> Vec<(&'static str, String)> {
    let content = [b"77.", body].concat();
    let signature = hmac_sha256(SECRET.as_bytes(), &content);
    vec![
        kind(),
        ("x-signature", signature),
        ("x-time", "77".into()),
        ("x-id", id.into()),
    ]
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(bytes as u64);
    std::iter::repeat_with(|| rng.u8(..)).take(bytes).collect()
}

/// Every file in the store, temporary ones too.
pub(crate) fn stored(gateway: &Gateway) -> Vec<PathBuf> {
    stored_in(&gateway.folder.path().join("data/files"))
}

fn stored_in(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return all;
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => all.extend(stored_in(&path)),
            false if path.ends_with("lock") => {}
            false => all.push(path),
        }
    }
    all
}

/// Waits until the store is empty; at most a second.
async fn emptied(gateway: &Gateway) {
    let begun = Instant::now();
    while !stored(gateway).is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "left behind: {:?}",
            stored(gateway)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What the stand-in said of an event's run.
async fn result(gateway: &Gateway, answer: &Response<Bytes>) -> (Value, String) {
    assert_eq!(answer.status(), 202, "{:?}", answer.body());
    let event = gateway.settled(&event_id(answer)).await;
    let result = event["deliveries"][0]["answer"]["result"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (event, result)
}

/// The links that the runs so far were given.
async fn links(upstream: &Upstream) -> Vec<String> {
    let runs = upstream.runs().await;
    let list = |run: &Value| {
        run["body"]["input"]["files"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    runs.iter()
        .flat_map(list)
        .map(|link| link.as_str().expect("a text").to_owned())
        .collect()
}

async fn fetch(method: Method, link: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    let mut request = Request::builder().method(method).uri(link);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::new(Duration::from_secs(5), None).expect("a client");
    client
        .send(
            request.body(Bytes::new()).expect("a request"),
            Duration::from_secs(30),
            1 << 26,
        )
        .await
        .expect("an answer")
}

#[tokio::test]
async fn t51_a_signed_form_with_files_reaches_the_agent_who_fetches_every_file() {
    let (_upstream, gateway) = started("").await;
    let (pdf, large) = (noise(100_000), noise(3_000_000));
    let body = form(
        &[("prompt", "Compare\r\nthese"), ("tag", "a"), ("tag", "b")],
        &[
            ("files", "Q1 report.pdf", "application/pdf", &pdf),
            ("other", "..\\..\\data.bin", "x", &large),
        ],
    );
    let answer = gateway
        .post(
            "/hooks/signed",
            &borrowed(&signed("one", &body)),
            body.clone(),
        )
        .await;
    let (event, result) = result(&gateway, &answer).await;
    let told = format!(
        "\nfile Q1%20report.pdf 100000 bytes sha256 {}\nfile data.bin 3000000 bytes sha256 {}",
        digest(&pdf),
        digest(&large)
    );
    assert!(result.ends_with(&told), "{result}");
    assert_eq!(event["verification"]["strength"], "signed");
    assert_eq!(
        event["body"],
        r#"{"prompt":"Compare\r\nthese","tag":["a","b"]}"#
    );
    let files = event["attachments"].as_array().expect("a list");
    assert_eq!(files.len(), 2);
    assert_eq!(
        (&files[1]["name"], &files[1]["content_type"]),
        (&"data.bin".into(), &"application/octet-stream".into())
    );
    assert_eq!(
        (&files[0]["bytes"], &files[0]["sha256"]),
        (&100_000.into(), &digest(&pdf).into())
    );
    assert_eq!(stored(&gateway).len(), 2);
    gateway
        .metric_is(r#"sluicegate_files_total{source="signed"}"#, 2.0)
        .await;
    gateway
        .metric_is(
            r#"sluicegate_file_bytes_total{source="signed"}"#,
            3_100_000.0,
        )
        .await;

    let again = gateway
        .post("/hooks/signed", &borrowed(&signed("one", &body)), body)
        .await;
    assert_eq!(json(&again)["status"], "duplicate");
    let begun = Instant::now();
    while stored(&gateway).len() != 2 {
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "a double keeps no files: {:?}",
            stored(&gateway)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn t52_a_flipped_byte_in_a_file_is_refused_and_leaves_nothing() {
    let (upstream, gateway) = started("").await;
    let body = form(
        &[("prompt", "x")],
        &[("f", "a.bin", "a/b", &noise(200_000))],
    );
    let headers = signed("flipped", &body);
    for at in [body.len() / 2, body.len() - 3, 5] {
        let mut flipped = body.clone();
        flipped[at] ^= 1;
        let answer = gateway
            .post("/hooks/signed", &borrowed(&headers), flipped)
            .await;
        assert!(matches!(answer.status().as_u16(), 400 | 401), "{answer:?}");
        emptied(&gateway).await;
    }
    // Behind the last boundary as well.
    let longer = [&body[..], b"x"].concat();
    let answer = gateway
        .post("/hooks/signed", &borrowed(&headers), longer)
        .await;
    assert_eq!(
        (answer.status().as_u16(), &json(&answer)["code"]),
        (401, &"bad_signature".into())
    );
    for (name, value) in [("x-signature", ""), ("x-signature", "00"), ("x-time", "78")] {
        let mut other = headers.clone();
        other
            .iter_mut()
            .find(|(known, _)| *known == name)
            .expect("it is there")
            .1 = value.into();
        let answer = gateway
            .post("/hooks/signed", &borrowed(&other), body.clone())
            .await;
        assert_eq!(
            (answer.status().as_u16(), &json(&answer)["code"]),
            (401, &"bad_signature".into()),
            "{name}"
        );
    }
    emptied(&gateway).await;
    assert!(upstream.runs().await.is_empty());
}

#[tokio::test]
async fn a_scheme_that_needs_the_body_whole_takes_files_too_within_its_bound() {
    let (_upstream, gateway) = started("").await;
    let file = noise(50_000);
    let body = form(&[("prompt", "x")], &[("f", "a.bin", "a/b", &file)]);
    let headers = vec![
        kind(),
        (
            "x-signature",
            hmac_sha256(SECRET.as_bytes(), digest(&body).as_bytes()),
        ),
    ];
    let answer = gateway
        .post("/hooks/held", &borrowed(&headers), body.clone())
        .await;
    assert!(result(&gateway, &answer).await.1.contains(&digest(&file)));
    let mut flipped = body;
    flipped[30_000] ^= 1;
    assert_eq!(
        gateway
            .post("/hooks/held", &borrowed(&headers), flipped)
            .await
            .status(),
        401
    );
    let large = form(&[], &[("f", "a.bin", "a/b", &noise(1_100_000))]);
    let answer = gateway
        .post("/hooks/held", &borrowed(&headers), large)
        .await;
    assert_eq!(answer.status(), 413, "server.max_body is what is held");
    assert_eq!(stored(&gateway).len(), 1);
}

#[tokio::test]
async fn what_a_source_does_not_take_is_said_plainly() {
    let (_upstream, gateway) = started("").await;
    let small: &[u8] = &noise(100);
    let cases: [(&str, Vec<u8>, u16, &str); 6] = [
        (
            "/hooks/narrow",
            form(&[], &[("f", "a.png", "image/png", small)]),
            202,
            "",
        ),
        (
            "/hooks/narrow",
            form(&[], &[("f", "a.CSV", "text/plain", small)]),
            202,
            "",
        ),
        (
            "/hooks/narrow",
            form(&[], &[("f", "a.exe", "application/x-exe", small)]),
            415,
            "file_not_taken",
        ),
        (
            "/hooks/narrow",
            form(&[], &[("f", "a.png", "image/png", &noise(1025))]),
            413,
            "file_too_large",
        ),
        (
            "/hooks/narrow",
            form(&[], &[("f", "a.png", "image/png", small); 3]),
            400,
            "malformed_body",
        ),
        (
            "/hooks/without",
            form(&[], &[("f", "a.png", "image/png", small)]),
            415,
            "unsupported_body",
        ),
    ];
    for (path, body, status, code) in cases {
        let answer = gateway.post(path, &borrowed(&[kind()]), body).await;
        assert_eq!(answer.status(), status, "{:?}", answer.body());
        assert!(
            code.is_empty() || json(&answer)["code"] == code,
            "{:?}",
            answer.body()
        );
    }
    assert_eq!(
        stored(&gateway).len(),
        2,
        "what was accepted, and nothing else"
    );
    let two = [kind(), ("content-type", "application/json".into())];
    let answer = gateway
        .post(
            "/hooks/open",
            &borrowed(&two),
            form(&[], &[("f", "a", "a/b", small)]),
        )
        .await;
    assert_eq!(answer.status(), 415);
}

#[tokio::test]
async fn a_body_that_is_a_file_is_one() {
    let (_upstream, gateway) = started("").await;
    let bytes = noise(70_000);
    let headers = [("content-type", "application/pdf; x=y")];
    let (event, told) = result(
        &gateway,
        &gateway.post("/hooks/raw", &headers, bytes.clone()).await,
    )
    .await;
    assert!(
        told.ends_with(&format!(
            "\nfile file.pdf 70000 bytes sha256 {}",
            digest(&bytes)
        )),
        "{told}"
    );
    assert_eq!(
        (&event["body"], &event["params"][0]["value"]),
        (&"".into(), &"Look at this".into())
    );
    let named = [
        ("content-type", "image/png"),
        ("content-disposition", "attachment; filename=\"../x y.png\""),
    ];
    let (event, _) = result(&gateway, &gateway.post("/hooks/raw", &named, bytes).await).await;
    assert_eq!(event["attachments"][0]["name"], "x y.png");
    let text = [("content-type", "application/json")];
    let (event, _) = result(
        &gateway,
        &gateway
            .post("/hooks/raw", &text, r#"{"prompt":"hi"}"#)
            .await,
    )
    .await;
    assert_eq!(event["attachments"], Value::Array(vec![]), "JSON is JSON");
}

/// Sends bytes as they are and reads the answer's status; none where there is no answer.
fn raw(to: SocketAddr, bytes: &[u8], half_close: bool) -> Option<u16> {
    let mut stream = TcpStream::connect(to).expect("the gateway listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(15)))
        .expect("a timeout");
    // It may answer and close before everything is sent.
    let _ = stream.write_all(bytes);
    if half_close {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(read) if read > 0 => answer.extend_from_slice(&piece[..read]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&answer)
        .split(' ')
        .nth(1)?
        .parse()
        .ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t85_t86_t91_every_case_of_broken_forms_is_answered_as_it_says() {
    let (_upstream, gateway) = started("").await;
    let cases =
        std::fs::read_to_string(corpus("multipart-raw/cases.json")).expect("the corpus is there");
    let cases: Vec<Value> = serde_json::from_str(&cases).expect("JSON");
    assert!(cases.len() >= 28);
    let mut wrong = Vec::new();
    for case in &cases {
        let before = stored(&gateway).len();
        let send: Vec<u8> = case["send"]
            .as_str()
            .expect("a text")
            .chars()
            .map(|c| u8::try_from(u32::from(c)).expect("latin-1"))
            .collect();
        let send = [
            b"POST /hooks/open",
            send.strip_prefix(b"POST /hook").expect("a POST"),
        ]
        .concat();
        let to = gateway.public;
        let half = case["half_close"] == true;
        let begun = Instant::now();
        let status = tokio::task::spawn_blocking(move || raw(to, &send, half))
            .await
            .expect("it ends");
        let refused = status.is_none_or(|status| (400..500).contains(&status));
        let right = match case["expect"].as_str().expect("a text") {
            "ok" => status == Some(202),
            "4xx" => refused,
            "413" => status == Some(413),
            "no5xx" => status.is_some_and(|status| status < 500),
            other => panic!("{other}?"),
        };
        if !right || begun.elapsed() > Duration::from_secs(12) {
            wrong.push(format!(
                "{}: {status:?}, wanted {}",
                case["name"], case["expect"]
            ));
        }
        if refused {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(
                stored(&gateway).len(),
                before,
                "{}: something is kept",
                case["name"]
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for path in stored(&gateway) {
        assert!(
            !path.to_string_lossy().contains("CLIENTNAME"),
            "{}",
            path.display()
        );
    }
    assert!(!gateway.log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_browsers_send_comes_out_whole_however_it_is_cut() {
    let (_upstream, gateway) = started("").await;
    let index = std::fs::read_to_string(corpus("multipart-browsers/index.json"))
        .expect("the corpus is there");
    let index: Vec<Value> = serde_json::from_str(&index).expect("JSON");
    for entry in &index {
        let body = std::fs::read(
            corpus("multipart-browsers").join(entry["body"].as_str().expect("a name")),
        )
        .expect("a body");
        let kind = format!(
            "multipart/form-data; boundary={}",
            entry["boundary"].as_str().expect("a text")
        );
        for piece in [1, 2, 3, 7, 4096] {
            let mut request = format!("POST /hooks/open HTTP/1.1\r\nhost: h.test\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n").into_bytes();
            for piece in body.chunks(piece) {
                request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                request.extend_from_slice(piece);
                request.extend_from_slice(b"\r\n");
            }
            request.extend_from_slice(b"0\r\n\r\n");
            let to = gateway.public;
            let status = tokio::task::spawn_blocking(move || raw(to, &request, false))
                .await
                .expect("it ends");
            assert_eq!(status, Some(202), "{} in pieces of {piece}", entry["body"]);
            let list = gateway.admin_json("/events?limit=1").await;
            let event = gateway
                .admin_json(&format!(
                    "/events/{}",
                    list["items"][0]["id"].as_str().expect("an id")
                ))
                .await;
            let mut found = BTreeMap::new();
            for file in event["attachments"].as_array().expect("a list") {
                found.insert(
                    file["name"].as_str().expect("a name").to_owned(),
                    (file["bytes"].clone(), file["sha256"].clone()),
                );
            }
            if let Some(fields) = event["body"]
                .as_str()
                .and_then(|body| serde_json::from_str::<Value>(body).ok())
            {
                for value in fields.as_object().expect("fields").values() {
                    let text = value.as_str().expect("a text");
                    // The texts are those of files: what was typed from them has the form's line breaks, and none at
                    // its end.
                    let lines = text.replace("\r\n", "\n");
                    for text in [text.to_owned(), format!("{lines}\n"), lines] {
                        found.insert(
                            text.clone(),
                            (text.len().into(), digest(text.as_bytes()).into()),
                        );
                    }
                }
            }
            for (name, held) in entry["contents"].as_object().expect("contents") {
                let wanted = (held["bytes"].clone(), held["sha256"].clone());
                let got = found.values().find(|found| **found == wanted);
                assert_eq!(
                    got,
                    Some(&wanted),
                    "{} {name} in pieces of {piece}",
                    entry["body"]
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t86_t87_t88_too_much_is_refused_readably_and_leaves_nothing() {
    let (_upstream, gateway) = started("").await;
    // By word: refused before the body is asked for.
    let by_word = format!(
        "POST /hooks/open HTTP/1.1\r\nhost: h.test\r\ncontent-type: {}\r\ncontent-length: 99999999\r\nexpect: 100-continue\r\n\r\n",
        kind().1
    );
    let to = gateway.public;
    assert_eq!(
        tokio::task::spawn_blocking(move || raw(to, by_word.as_bytes(), false))
            .await
            .expect("it ends"),
        Some(413)
    );
    // By bytes: a body of no said length.
    let body = form(&[], &[("f", "a", "a/b", &noise(9 << 20))]);
    let mut chunked = format!(
        "POST /hooks/open HTTP/1.1\r\nhost: h.test\r\ncontent-type: {}\r\ntransfer-encoding: chunked\r\n\r\n",
        kind().1
    )
    .into_bytes();
    chunked.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
    chunked.extend_from_slice(&body);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let status = tokio::task::spawn_blocking(move || raw(to, &chunked, false))
        .await
        .expect("it ends");
    assert!(matches!(status, Some(413) | None), "{status:?}");
    emptied(&gateway).await;
    let part = "--x\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n".to_owned();
    let long = format!(
        "--x\r\ncontent-disposition: form-data; name=f; filename=\"{}\"\r\n\r\n1\r\n--x--",
        "n".repeat(256)
    );
    let endless = format!(
        "--x\r\ncontent-disposition: form-data; name={}",
        "n".repeat(1 << 20)
    );
    let header: String = (0..20).map(|n| format!("x-{n}: y\r\n")).collect();
    let heads = format!("--x\r\n{header}content-disposition: form-data; name=a\r\n\r\n1\r\n--x--");
    let text = format!(
        "--x\r\ncontent-disposition: form-data; name=a\r\n\r\n{}\r\n--x--",
        "t".repeat((1 << 20) + 1)
    );
    for (body, status) in [
        (part.repeat(101) + "--x--", 400),
        (long, 400),
        (endless, 400),
        (heads, 400),
        (text, 413),
        ("y".repeat(1 << 20) + &part + "--x--", 400),
    ] {
        let begun = Instant::now();
        let kind = [("content-type", "multipart/form-data; boundary=x")];
        let answer = gateway.post("/hooks/open", &kind, body).await;
        assert_eq!(answer.status(), status, "{:?}", answer.body());
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    emptied(&gateway).await;
}

/// The CPU time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("a name")
        .split_whitespace()
        .collect();
    let ticks: u64 =
        fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number");
    Duration::from_millis(ticks * 10)
}

#[tokio::test]
async fn t89_what_nearly_is_a_boundary_costs_no_more_than_anything_else() {
    let (_upstream, gateway) = started("").await;
    // A build without optimisation has no figures to hold.
    let bound = if std::env::var_os("SLUICEGATE_BINARY").is_some() {
        1
    } else {
        10
    };
    let near = format!("\r\n--{}", &BOUNDARY[..BOUNDARY.len() - 1]);
    for data in [
        near.repeat((4 << 20) / near.len()),
        "\r".repeat(4 << 20),
        "\r\n-".repeat((4 << 20) / 3),
        "\r\n--".repeat(1 << 20),
    ] {
        let body = form(&[], &[("f", "a", "a/b", data.as_bytes())]);
        let before = cpu(gateway.pid());
        let answer = gateway
            .post("/hooks/open", &borrowed(&[kind()]), body)
            .await;
        assert_eq!(answer.status(), 202, "{:?}", answer.body());
        let took = cpu(gateway.pid()) - before;
        assert!(
            took < Duration::from_secs(bound),
            "{took:?} for {:?}…",
            &data[..8]
        );
    }
    // Heads that never end cost, byte by byte, what a file does.
    let byte_by_byte = async |body: String| {
        let mut request = format!(
            "POST /hooks/open HTTP/1.1\r\nhost: h.test\r\ncontent-type: {}\r\ntransfer-encoding: chunked\r\n\r\n",
            kind().1
        )
        .into_bytes();
        for byte in body.bytes() {
            request.extend_from_slice(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']);
        }
        request.extend_from_slice(b"0\r\n\r\n");
        let (to, before) = (gateway.public, cpu(gateway.pid()));
        let status = tokio::task::spawn_blocking(move || raw(to, &request, false))
            .await
            .expect("it ends");
        (status, cpu(gateway.pid()) - before)
    };
    let file = String::from_utf8(form(
        &[],
        &[("f", "a", "a/b", "x".repeat(100_000).as_bytes())],
    ))
    .expect("text");
    let (status, usual) = byte_by_byte(file).await;
    assert_eq!(status, Some(202));
    let (status, took) =
        byte_by_byte(format!("--{BOUNDARY}\r\n{}", "a: b\r\n".repeat(16_667))).await;
    assert!(matches!(status, Some(400) | None), "{status:?}");
    assert!(
        took < usual * 3 + Duration::from_millis(100),
        "{took:?} for heads, {usual:?} for a file"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t90_whoever_goes_away_leaves_nothing() {
    let (_upstream, gateway) = started("").await;
    let body = form(
        &[("prompt", "x")],
        &[("f", "a.bin", "a/b", &noise(4 << 20))],
    );
    let head: String = std::iter::once(format!(
        "POST /hooks/signed HTTP/1.1\r\nhost: h.test\r\ncontent-length: {}\r\n",
        body.len()
    ))
    .chain(
        signed("gone", &body)
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n")),
    )
    .collect();
    for cut in [10_000, 1 << 20, body.len() - 1] {
        let mut stream = TcpStream::connect(gateway.public).expect("the gateway listens");
        stream
            .write_all(format!("{head}\r\n").as_bytes())
            .expect("a head");
        stream.write_all(&body[..cut]).expect("a part");
        wait_for("a file to be begun", async || {
            (!stored(&gateway).is_empty()).then_some(())
        })
        .await;
        drop(stream);
        emptied(&gateway).await;
    }
    wait_for("the end to be counted", async || {
        let aborted = gateway
            .metric(r#"sluicegate_refused_total{reason="aborted",source="signed"}"#)
            .await;
        (aborted >= 3.0).then_some(())
    })
    .await;
    assert!(
        gateway.admin_json("/events").await["items"]
            .as_array()
            .is_some_and(Vec::is_empty)
    );
}

#[tokio::test]
async fn t92_t93_a_link_leads_to_its_file_and_no_other_link_leads_anywhere() {
    let (upstream, gateway) = started("").await;
    let page = b"<script>alert(1)</script>".repeat(10_000);
    let body = form(
        &[("prompt", "x")],
        &[
            ("f", "a 'b' \u{202e}\u{e9}.html", "text/html", &page),
            ("f", "empty.txt", "text/plain", b""),
        ],
    );
    let answer = gateway
        .post("/hooks/open", &borrowed(&[kind()]), body)
        .await;
    let (event, _) = result(&gateway, &answer).await;
    let links = links(&upstream).await;
    let link = links[0].as_str();
    assert!(
        link.starts_with(&format!("http://{}/files/", gateway.public)) && link.ends_with(".html"),
        "{link}"
    );

    let whole = fetch(Method::GET, link, &[]).await;
    assert_eq!(
        (whole.status().as_u16(), whole.body().len()),
        (200, page.len())
    );
    assert_eq!(digest(whole.body()), digest(&page));
    let tag = format!("\"{}\"", digest(&page));
    for (name, value) in [
        ("content-type", "text/html"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("cache-control", "private"),
        ("accept-ranges", "bytes"),
        ("etag", tag.as_str()),
    ] {
        assert_eq!(whole.headers()[name], value, "{name}");
    }
    let disposition = whole.headers()["content-disposition"]
        .to_str()
        .expect("ASCII");
    assert!(
        disposition.starts_with("attachment; filename=\"")
            && disposition.contains("filename*=UTF-8''"),
        "{disposition}"
    );
    let head = fetch(Method::HEAD, link, &[]).await;
    assert_eq!(
        (
            head.status().as_u16(),
            &head.headers()["content-length"],
            head.body().len()
        ),
        (200, &page.len().to_string().parse().expect("a value"), 0)
    );
    let part = fetch(Method::GET, link, &[("range", "bytes=5-9")]).await;
    assert_eq!(
        (part.status().as_u16(), &part.body()[..]),
        (206, &page[5..10])
    );
    assert_eq!(
        part.headers()["content-range"],
        format!("bytes 5-9/{}", page.len())
    );
    assert_eq!(
        fetch(Method::GET, link, &[("range", "bytes=999999-")])
            .await
            .status(),
        416
    );
    assert_eq!(
        fetch(Method::GET, link, &[("if-none-match", &tag)])
            .await
            .status(),
        304
    );
    let other = fetch(
        Method::GET,
        link,
        &[("range", "bytes=5-9"), ("if-range", "\"other\"")],
    )
    .await;
    assert_eq!(other.status(), 200);
    assert_eq!(fetch(Method::GET, &links[1], &[]).await.body().len(), 0);
    assert_eq!(fetch(Method::POST, link, &[]).await.status(), 405);

    let plain = fetch(
        Method::GET,
        &format!("http://{}/nothing/here", gateway.public),
        &[],
    )
    .await;
    let (token, name) = link.rsplit_once('/').expect("a name");
    let mut changed = token.to_owned();
    let last = if changed.ends_with('A') { 'B' } else { 'A' };
    changed.replace_range(changed.len() - 10..changed.len() - 9, &last.to_string());
    let wrong = [
        format!("{changed}/{name}"),
        format!("http://{}/files/x/y", gateway.public),
        format!("http://{}/files/{}/y", gateway.public, "A".repeat(54)),
    ];
    for wrong in &wrong {
        let answer = fetch(Method::GET, wrong, &[]).await;
        assert_eq!(
            (
                answer.status(),
                &json(&answer)["detail"],
                &json(&answer)["code"]
            ),
            (
                plain.status(),
                &json(&plain)["detail"],
                &json(&plain)["code"]
            ),
            "{wrong}"
        );
    }
    assert!(
        !gateway
            .log()
            .contains(token.rsplit('/').next().expect("a token")),
        "a link is a key and not logged"
    );

    let id = event["attachments"][0]["id"].as_str().expect("an id");
    let listed = gateway.admin_json("/attachments?limit=1").await;
    assert_eq!(listed["items"][0]["name"], "empty.txt");
    assert!(listed["next_cursor"].is_string(), "{listed}");
    assert_eq!(
        gateway
            .admin(Method::DELETE, &format!("/attachments/{id}"))
            .await
            .status(),
        200
    );
    assert_eq!(fetch(Method::GET, link, &[]).await.status(), 404);
    assert_eq!(
        gateway
            .admin(Method::DELETE, &format!("/attachments/{id}"))
            .await
            .status(),
        404
    );
    assert_eq!(stored(&gateway).len(), 1);
}

#[tokio::test]
async fn t93_links_end_with_their_time_and_outlive_a_new_key() {
    let upstream = Upstream::start(&[]).await;
    let public = free_address();
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let key = |key: &str, more: &str| {
        let config = config(public, upstream.address, more);
        config.replace(
            "[inbox]\n",
            &format!("[inbox]\nkey = \"literal:{}\"\n", key.repeat(32)),
        )
    };
    let gateway = Gateway::start_config_in(
        folder.clone(),
        &key("1", "[attachments]\nlink_lifetime = \"3s\""),
    )
    .await;
    let body = form(
        &[("prompt", "x")],
        &[("f", "a.txt", "text/plain", b"hello")],
    );
    result(
        &gateway,
        &gateway
            .post("/hooks/open", &borrowed(&[kind()]), body.clone())
            .await,
    )
    .await;
    let short = links(&upstream).await.remove(0);
    wait_for("the link's time to be over", async || {
        (fetch(Method::GET, &short, &[]).await.status() == 404).then_some(())
    })
    .await;
    gateway.stop().await;

    let gateway = Gateway::start_config_in(folder.clone(), &key("1", "")).await;
    result(
        &gateway,
        &gateway
            .post("/hooks/open", &borrowed(&[kind()]), body)
            .await,
    )
    .await;
    let link = links(&upstream).await.remove(1);
    gateway.stop().await;
    let old = format!("[inbox]\nold_keys = [\"literal:{}\"]\n", "1".repeat(32));
    let rotated = key("2", "").replace("[inbox]\n", &old);
    let gateway = Gateway::start_config_in(folder.clone(), &rotated).await;
    assert_eq!(fetch(Method::GET, &link, &[]).await.body(), "hello");
    gateway.stop().await;
    let gateway = Gateway::start_config_in(folder, &key("2", "")).await;
    assert_eq!(fetch(Method::GET, &link, &[]).await.status(), 404);
    gateway.stop().await;
}

#[tokio::test]
async fn the_drop_in_takes_files_whatever_the_field_is_called() {
    let (upstream, gateway) = started("").await;
    let (one, two) = (noise(1000), noise(2000));
    let body = form(
        &[("agent_id", "A"), ("prompt", "Analyze"), ("note", "n")],
        &[
            ("files", "1.csv", "text/csv", &one),
            ("f", "2.csv", "text/csv", &two),
        ],
    );
    let headers = [kind(), ("x-api-key", API_KEY.to_owned())];
    let answer = gateway.post("/", &borrowed(&headers), body).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.body());
    let told = json(&answer)["result"].as_str().expect("a text").to_owned();
    assert!(
        told.contains(&digest(&one)) && told.contains(&digest(&two)),
        "{told}"
    );
    let sent = &upstream.runs().await[0]["body"];
    assert_eq!(
        (&sent["input"]["text"], &sent["additional_context"]),
        (&"Analyze".into(), &r#"{"note":"n"}"#.into())
    );

    let body = form(
        &[
            ("agent_id", "A"),
            ("asynchronous", "true"),
            ("disable_attachment_injection", "true"),
        ],
        &[("f", "3.csv", "text/csv", &one)],
    );
    let answer = gateway.post("/", &borrowed(&headers), body).await;
    assert_eq!(json(&answer), serde_json::json!({"status": "Started"}));
    let event = answer.headers()["sluicegate-event-id"]
        .to_str()
        .expect("an id")
        .to_owned();
    let event = gateway.settled(&event).await;
    assert_eq!(event["attachments"][0]["name"], "3.csv");
    let runs = upstream.wait_for_runs(2).await;
    let sent = &runs[1]["body"];
    assert_eq!(
        (
            &sent["input"]["text"],
            &sent["disable_attachment_injection"]
        ),
        (&"".into(), &true.into())
    );
    assert_eq!(sent["input"]["files"].as_array().map(Vec::len), Some(1));

    let body = form(&[("agent_id", "A")], &[("f", "4.csv", "text/csv", &one)]);
    let wrong = [kind(), ("x-api-key", "a-wrong-key".to_owned())];
    let before = stored(&gateway).len();
    upstream
        .set(serde_json::json!({"api_key": "another"}))
        .await;
    let answer = gateway.post("/", &borrowed(&wrong), body).await;
    if answer.status() == 403 {
        assert_eq!(
            stored(&gateway).len(),
            before,
            "refused upstream: nothing stays"
        );
    }
}

#[tokio::test]
async fn without_links_a_file_is_refused_in_words() {
    let upstream = Upstream::start(&[]).await;
    for (change, with) in [
        ("public_url", ""),
        ("nothing", "[attachments]\nstore = \"\""),
    ] {
        let config = config(free_address(), upstream.address, with);
        let config: String = config
            .lines()
            .filter(|line| !line.starts_with(change))
            .map(|line| format!("{line}\n"))
            .collect();
        let gateway = Gateway::start_config(&config).await;
        let body = form(
            &[("agent_id", "A"), ("prompt", "x")],
            &[("f", "1.csv", "text/csv", b"x")],
        );
        let headers = [kind(), ("x-api-key", API_KEY.to_owned())];
        let answer = gateway.post("/", &borrowed(&headers), body.clone()).await;
        assert_eq!(answer.status(), 501);
        assert!(
            json(&answer)["detail"]
                .as_str()
                .is_some_and(|text| text.contains("Files are not taken here")),
            "{answer:?}"
        );
        let answer = gateway.post("/hooks/open", &borrowed(&headers), body).await;
        assert_eq!(
            (answer.status().as_u16(), &json(&answer)["code"]),
            (501, &"not_taken_yet".into())
        );
        let fields = form(&[("agent_id", "A"), ("prompt", "x")], &[]);
        assert_eq!(
            gateway
                .post("/", &borrowed(&headers), fields)
                .await
                .status(),
            200,
            "fields alone are taken"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_kill_9_during_uploads_loses_no_acknowledged_file_and_leaves_no_other() {
    let upstream = Upstream::start(&[]).await;
    let public = free_address();
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let config = config(public, upstream.address, "");
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..6)
        .map(|number| tokio::spawn(sender(public, number, stop.clone())))
        .collect();
    let kills: u32 = std::env::var("SLUICEGATE_TEST_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20);
    for _ in 0..kills {
        let gateway = Gateway::start_config_in(folder.clone(), &config).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(100..500))).await;
        gateway.kill();
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeMap::new();
    for sender in senders {
        acknowledged.extend(sender.await.expect("a sender does not panic"));
    }
    assert!(
        acknowledged.len() > 20,
        "the load was too thin: {}",
        acknowledged.len()
    );
    let gateway = Gateway::start_config_in(folder, &config).await;
    let mut known = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = gateway
            .admin_json(&format!("/attachments?limit=200{cursor}"))
            .await;
        for file in page["items"].as_array().expect("a list") {
            known.insert(
                file["id"].as_str().expect("an id")[4..].to_owned(),
                file["sha256"].as_str().expect("a digest").to_owned(),
            );
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    for (event, digest) in &acknowledged {
        let event = gateway.admin_json(&format!("/events/{event}")).await;
        assert_eq!(
            event["attachments"][0]["sha256"],
            digest.as_str(),
            "{event}"
        );
    }
    let mut left = known.len();
    for path in stored(&gateway) {
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let wanted = known
            .get(&name[..32])
            .unwrap_or_else(|| panic!("an orphan: {name}"));
        assert_eq!(
            digest(&std::fs::read(&path).expect("a file")),
            *wanted,
            "{name}"
        );
        left -= 1;
    }
    assert_eq!(left, 0, "every file that is listed is there");
    eprintln!(
        "{kills} kills, {} acknowledged with a file, {} files, no orphan",
        acknowledged.len(),
        known.len()
    );
}

/// Sends signed forms until it is told to stop. Returns the acknowledged events, with the digest of each file.
async fn sender(
    public: SocketAddr,
    number: usize,
    stop: Arc<AtomicBool>,
) -> BTreeMap<String, String> {
    let client = Client::new(Duration::from_secs(1), None).expect("a client");
    let mut acknowledged = BTreeMap::new();
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let file = noise(50_000 + 1000 * number + turn);
        let body = form(&[("prompt", "x")], &[("f", "a.bin", "a/b", &file)]);
        let mut request = Request::post(format!("http://{public}/hooks/signed"));
        for (name, value) in signed(&format!("{number}-{turn}"), &body) {
            request = request.header(name, value);
        }
        let request = request.body(Bytes::from(body)).expect("a request");
        match client.send(request, Duration::from_secs(5), 1 << 20).await {
            Ok(answer) if answer.status().is_success() => {
                acknowledged.insert(event_id(&answer), digest(&file));
            }
            Ok(answer) => assert!(answer.status().is_server_error(), "{answer:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    acknowledged
}

/// A small file system in memory; gone with this.
struct Small(tempfile::TempDir);

impl Small {
    fn mounted() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(folder.path())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

#[tokio::test]
async fn t95_a_full_disk_is_said_and_forgotten_when_there_is_room() {
    // Mounting takes rights that not everybody has.
    let Some(small) = Small::mounted() else {
        return;
    };
    let (_upstream, gateway) = started(&format!(
        "[attachments]\nstore = \"file:{}/files\"",
        small.0.path().display()
    ))
    .await;
    let large = form(
        &[("prompt", "x")],
        &[("f", "a.bin", "a/b", &noise(3 << 20))],
    );
    let answer = gateway
        .post("/hooks/open", &borrowed(&[kind()]), large)
        .await;
    assert_eq!(
        (answer.status().as_u16(), &json(&answer)["code"]),
        (503, &"no_space".into())
    );
    assert!(answer.headers().contains_key("retry-after"));
    let begun = Instant::now();
    while !stored_in(small.0.path()).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let fits = form(
        &[("prompt", "x")],
        &[("f", "a.bin", "a/b", &noise(1 << 20))],
    );
    assert_eq!(
        gateway
            .post("/hooks/open", &borrowed(&[kind()]), fits)
            .await
            .status(),
        202
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t94_memory_does_not_grow_with_a_file() {
    let (_upstream, gateway) = started("").await;
    let piece = Bytes::from(noise(1 << 20));
    let (count, bound) = (256, 32 << 20);
    let warm = form(&[("prompt", "x")], &[("f", "a.bin", "a/b", &noise(1000))]);
    assert_eq!(
        gateway
            .post("/hooks/signed", &borrowed(&signed("warm", &warm)), warm)
            .await
            .status(),
        202
    );
    let before = gateway.resident();
    let whole = form(&[("prompt", "x")], &[("f", "a.bin", "a/b", b"")]);
    let middle = whole.len() - format!("\r\n--{BOUNDARY}--\r\n").len();
    let (start, end) = whole.split_at(middle);
    let mut all = vec![b'7', b'7', b'.'];
    all.extend_from_slice(start);
    for _ in 0..count {
        all.extend_from_slice(&piece);
    }
    all.extend_from_slice(end);
    let signature = hmac_sha256(SECRET.as_bytes(), &all);
    let body = all.split_off(3);
    let mut head = format!(
        "POST /hooks/signed HTTP/1.1\r\nhost: h.test\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in [kind(), ("x-signature", signature), ("x-time", "77".into())] {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let (done, to) = (Arc::new(AtomicBool::new(false)), gateway.public);
    let ended = done.clone();
    let sending = tokio::task::spawn_blocking(move || {
        let status = raw(
            to,
            &[format!("{head}\r\n").as_bytes(), &body].concat(),
            false,
        );
        ended.store(true, Ordering::Relaxed);
        status
    });
    let mut most = before;
    while !done.load(Ordering::Relaxed) {
        most = most.max(gateway.resident());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(sending.await.expect("it ends"), Some(202));
    assert!(
        most - before <= bound,
        "{} MiB more for {count} MiB",
        (most - before) >> 20
    );
}
