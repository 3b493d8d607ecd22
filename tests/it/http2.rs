//! TLS and HTTP/2: good requests as over HTTP/1, and what must not be. Names carry the row of the threat page.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Response};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::world::{Gateway, Upstream, signal, wait_for};

const OPEN: &str = r#"
[sources.open]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
defaults = { prompt = "hello" }
"#;

/// How a client begins, with settings that say nothing.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A header block for a POST to `/hooks/open` of `a`: method, scheme, path and authority, none of them indexed.
fn block() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(4_u8, "/hooks/open"), (1, "a")] {
        block.extend([name, u8::try_from(value.len()).expect("short")]);
        block.extend(value.bytes());
    }
    block
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A gateway that speaks HTTP/2 without TLS.
async fn cleartext(server: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start_with(
        upstream.address,
        OPEN,
        &format!("http2_cleartext = true\n{server}"),
    )
    .await;
    (upstream, gateway)
}

async fn client<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: T,
) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    client.ready().await.expect("it is ready")
}

async fn prior(gateway: &Gateway) -> SendRequest<Bytes> {
    client(
        TcpStream::connect(gateway.public)
            .await
            .expect("it listens"),
    )
    .await
}

fn post(uri: &str) -> http::request::Builder {
    Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header("content-type", "application/json")
}

async fn ask(
    client: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: &'static [u8],
) -> Result<Response<Bytes>, h2::Error> {
    let (answer, mut sending) = client.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        sending.send_data(Bytes::from_static(body), true)?;
    }
    let (head, mut incoming) = answer.await?.into_parts();
    let mut whole = Vec::new();
    while let Some(piece) = incoming.data().await {
        whole.extend_from_slice(&piece?);
    }
    Ok(Response::from_parts(head, whole.into()))
}

/// What a gateway says to raw bytes until it ends the connection, and how long that took.
async fn raw(gateway: &Gateway, bytes: &[u8]) -> (Vec<u8>, Duration) {
    let begun = Instant::now();
    let (mut read, mut write) = TcpStream::connect(gateway.public)
        .await
        .expect("it listens")
        .into_split();
    let bytes = bytes.to_vec();
    let writing = tokio::spawn(async move {
        let _ = write.write_all(&bytes).await;
        write
    });
    let mut said = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(15), read.read_to_end(&mut said))
        .await
        .expect("it ends");
    writing.abort();
    (said, begun.elapsed())
}

/// Kinds of the frames that a gateway sent.
fn kinds(mut said: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some((head, rest)) = said.split_first_chunk::<9>() {
        kinds.push(head[3]);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        said = rest.get(length..).unwrap_or_default();
    }
    kinds
}

const GOAWAY: u8 = 7;

async fn still_good(gateway: &Gateway) {
    let mut client = prior(gateway).await;
    let answer = ask(
        &mut client,
        post("http://a/hooks/open").body(()).expect("a request"),
        b"{}",
    )
    .await;
    assert_eq!(answer.expect("an answer").status(), 202);
}

#[tokio::test]
async fn requests_over_http2_are_as_any_other_and_http1_goes_on_beside() {
    let (_upstream, gateway) = cleartext("").await;
    let mut client = prior(&gateway).await;
    for _ in 0..3 {
        let request = post("http://a/hooks/open").body(()).expect("a request");
        let answer = ask(&mut client, request, b"{\"a\":1}")
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 202);
        assert!(answer.headers().contains_key("sluicegate-event-id"));
    }
    let answer = ask(
        &mut client,
        post("http://a/hooks/nobody").body(()).expect("a request"),
        b"{}",
    )
    .await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 404);
    assert!(!answer.headers().contains_key("connection"));
    assert_eq!(client.current_max_send_streams(), 100, "T28");
    assert_eq!(gateway.post("/hooks/open", &[], "{}").await.status(), 202);
    let heard = crate::framing::raw(gateway.public, &[b"PRI * HTTP/2.0\r\nHost: a\r\n\r\n"]);
    assert!(heard.text.starts_with("HTTP/1.1 505 "), "{}", heard.text);
    // Where it is not on, it is not spoken.
    let (_other, off) = {
        let upstream = Upstream::start(&[]).await;
        let gateway = Gateway::start(upstream.address, OPEN).await;
        (upstream, gateway)
    };
    let heard = crate::framing::raw(off.public, &[BEGIN]);
    assert!(
        heard.text.starts_with("HTTP/1.1 505 ") && heard.ended,
        "{}",
        heard.text
    );
}

#[tokio::test]
async fn t25_t26_t27_what_is_malformed_is_an_error_of_its_stream() {
    let (_upstream, gateway) = cleartext("").await;
    let mut client = prior(&gateway).await;
    let request = post("http://a/hooks/open")
        .header("host", "b")
        .body(())
        .expect("a request");
    let answer = ask(&mut client, request, b"{}").await.expect("an answer");
    assert_eq!(answer.status(), 400, "T27: host differs from authority");
    let body: Value = serde_json::from_slice(answer.body()).expect("JSON");
    assert_eq!(body["code"], "bad_host");
    let longer = post("http://a/hooks/open")
        .header("content-length", "50")
        .body(())
        .expect("a request");
    let error = ask(&mut client, longer, b"{\"a\":1}")
        .await
        .map(|answer| answer.status());
    assert!(
        error.is_err() || error.as_ref().is_ok_and(http::StatusCode::is_client_error),
        "T27: {error:?}"
    );
    let bomb = "x".repeat(60 * 1024);
    let request = post("http://a/hooks/open")
        .header("x-bomb", bomb)
        .body(())
        .expect("a request");
    let error = ask(&mut client, request, b"{}")
        .await
        .map(|answer| answer.status().as_u16());
    assert!(error.is_err() || matches!(error, Ok(431)), "T25: {error:?}");
    for headers in [
        &b"\x40\x0aconnection\x05close"[..],
        b"\x40\x11transfer-encoding\x07chunked",
        b"\x40\x07upgrade\x03h2c",
        b"\x40\x05:path\x02/x",
        b"\x40\x04:odd\x01x",
        b"\x40\x03X-A\x01x",
    ] {
        let bytes = [
            BEGIN,
            &frame(1, 5, 1, &[&block(), headers].concat()),
            &frame(6, 0, 0, &[0; 8]),
        ]
        .concat();
        let mut stream = TcpStream::connect(gateway.public)
            .await
            .expect("it listens");
        stream.write_all(&bytes).await.expect("sent");
        let mut said = Vec::new();
        let read = async {
            while !kinds(&said).iter().any(|kind| matches!(kind, 3 | 7)) {
                if stream.read_buf(&mut said).await.expect("read") == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
        let kinds = kinds(&said);
        assert!(
            kinds.iter().any(|kind| matches!(kind, 3 | 7)) && !kinds.contains(&1),
            "T26 {headers:?}: {kinds:?}"
        );
    }
    still_good(&gateway).await;
}

#[tokio::test]
async fn t22_rapid_reset_ends_within_a_thousand_streams() {
    let (_upstream, gateway) = cleartext("").await;
    let before = gateway.resident();
    let mut bytes = BEGIN.to_vec();
    for number in 0..20_000_u32 {
        let stream = 2 * number + 1;
        bytes.extend(frame(1, 4, stream, &block()));
        bytes.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    let (said, took) = raw(&gateway, &bytes).await;
    assert!(kinds(&said).contains(&GOAWAY), "T22: {:?}", kinds(&said));
    assert!(took < Duration::from_secs(5), "{took:?}");
    let aborted = gateway
        .metric(r#"sluicegate_refused_total{reason="aborted",source="open"}"#)
        .await;
    assert!(aborted < 1_000.0, "{aborted} streams were taken");
    assert!(gateway.resident().saturating_sub(before) < 16 * 1024 * 1024);
    still_good(&gateway).await;
}

#[tokio::test]
async fn t23_frames_that_ask_nothing_and_streams_made_to_be_reset_end() {
    let (_upstream, gateway) = cleartext("").await;
    let open = frame(1, 4, 1, &block());
    let floods: [(&str, Vec<u8>); 5] = [
        (
            "empty data",
            [open.clone(), frame(0, 0, 1, &[]).repeat(50_000)].concat(),
        ),
        ("pings", frame(6, 0, 0, &[0; 8]).repeat(50_000)),
        ("settings", frame(4, 0, 0, &[]).repeat(50_000)),
        (
            "continuations",
            [frame(1, 0, 1, &block()), frame(9, 0, 1, &[]).repeat(50_000)].concat(),
        ),
        // A window that is opened by nothing is an error that the server must answer with a reset.
        (
            "made to reset",
            (0..20_000_u32)
                .flat_map(|n| {
                    [
                        frame(1, 4, 2 * n + 1, &block()),
                        frame(8, 0, 2 * n + 1, &[0; 4]),
                    ]
                    .concat()
                })
                .collect(),
        ),
    ];
    for (what, flood) in floods {
        let (said, took) = raw(&gateway, &[BEGIN, &flood].concat()).await;
        assert!(took < Duration::from_secs(10), "T23 {what}: {took:?}");
        assert!(
            said.len() < 2 * 1024 * 1024,
            "T23 {what}: {} bytes",
            said.len()
        );
    }
    // Some the library ends by itself.
    assert!(
        gateway
            .metric(r#"sluicegate_connections_refused_total{reason="misuse"}"#)
            .await
            >= 1.0
    );
    still_good(&gateway).await;
}

#[tokio::test]
async fn t24_t29_what_is_left_open_or_unread_ends_at_its_bound() {
    let (_upstream, gateway) = cleartext(
        "head_timeout = \"1s\"\nwrite_stall = \"1s\"\nidle_timeout = \"2s\"\nbody_stall = \"1s\"",
    )
    .await;
    let settings_without_window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let mut no_window = BEGIN[..24].to_vec();
    no_window.extend(settings_without_window);
    no_window.extend(frame(1, 4, 1, &block()));
    no_window.extend(frame(0, 1, 1, b"{}"));
    for (what, bytes, least, most) in [
        ("a preface and nothing", BEGIN.to_vec(), 800, 3_500),
        (
            "a header block left open",
            [BEGIN, &frame(1, 0, 1, &block())].concat(),
            800,
            3_500,
        ),
        ("a window never opened", no_window, 800, 4_500),
        (
            "nothing after a request",
            [BEGIN, &frame(1, 4, 1, &block()), &frame(0, 1, 1, b"{}")].concat(),
            1_800,
            5_500,
        ),
    ] {
        let (_, took) = raw(&gateway, &bytes).await;
        let bounds = Duration::from_millis(least)..Duration::from_millis(most);
        assert!(bounds.contains(&took), "T24 {what}: {took:?}");
    }
    // A body that never comes ends its stream only.
    let mut client = prior(&gateway).await;
    let (answer, _sending) = client
        .send_request(
            post("http://a/hooks/open").body(()).expect("a request"),
            false,
        )
        .expect("sent");
    assert_eq!(answer.await.expect("an answer").status(), 408);
    still_good(&gateway).await;
}

/// An upstream whose stream of events is silent for a while in between.
async fn silent(silence: Duration) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let _ = stream.read(&mut [0; 4096]).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: 1\n\n";
        stream.write_all(head).await.expect("sent");
        tokio::time::sleep(silence).await;
        stream.write_all(b"data: 2\n\n").await.expect("sent");
    });
    address
}

#[tokio::test]
async fn t29_a_stream_that_is_silent_for_long_is_not_one_that_nobody_reads() {
    let from = silent(Duration::from_secs(4)).await;
    let proxy = "[[proxy]]\nprefix = \"/v1\"\nexchange_keys = false\nheartbeat = \"0s\"";
    let sources = format!("{proxy}\nupstream = \"http://{from}\"\n");
    let server = "http2_cleartext = true\nwrite_stall = \"1s\"\nidle_timeout = \"1s\"";
    let gateway = Gateway::start_with(from, &sources, server).await;
    let mut client = prior(&gateway).await;
    let request = Request::get("http://a/v1/x").body(()).expect("a request");
    let answer = ask(&mut client, request, b"")
        .await
        .expect("the whole answer");
    assert_eq!(answer.body(), "data: 1\n\ndata: 2\n\n");
}

/// A certificate for `gateway.test` in a folder; gives it for clients to trust.
fn certify(folder: &Path) -> Vec<u8> {
    let made =
        rcgen::generate_simple_self_signed(vec!["gateway.test".into()]).expect("a certificate");
    // Key first: whoever looks in between finds a pair that does not fit, and keeps the one before.
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("a file");
    made.cert.der().to_vec()
}

async fn handshake(
    gateway: &Gateway,
    certificate: &[u8],
    protocol: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(certificate.to_vec().into())
        .expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let socket = TcpStream::connect(gateway.public).await?;
    let name = ServerName::try_from("gateway.test").expect("a name");
    TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
}

async fn tls(server: &str) -> (Upstream, Gateway, tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = certify(folder.path());
    let at = folder.path().display();
    let tls = format!("[server.tls]\ncert = \"{at}/cert.pem\"\nkey = \"{at}/key.pem\"\n{OPEN}");
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start_with(upstream.address, &tls, server).await;
    (upstream, gateway, folder, certificate)
}

#[tokio::test]
async fn tls_speaks_both_versions_and_takes_another_certificate_without_a_restart() {
    let (_upstream, gateway, folder, first) = tls("head_timeout = \"1s\"").await;
    let stream = handshake(&gateway, &first, b"h2")
        .await
        .expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut kept = client(stream).await;
    let request = || {
        post("https://gateway.test/hooks/open")
            .body(())
            .expect("a request")
    };
    assert_eq!(
        ask(&mut kept, request(), b"{}")
            .await
            .expect("an answer")
            .status(),
        202
    );
    let mut one = handshake(&gateway, &first, b"http/1.1")
        .await
        .expect("a handshake");
    let text = b"POST /hooks/open HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    one.write_all(text).await.expect("sent");
    let mut answer = String::new();
    one.read_to_string(&mut answer).await.expect("a clean end");
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");

    // Noise, plain HTTP and silence are no handshake, and end.
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"\x16\x03\x01\xff\xff",
        b"",
    ] {
        let (_, took) = raw(&gateway, bytes).await;
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    let name = r#"sluicegate_connections_refused_total{reason="handshake"}"#;
    gateway.metric_is(name, 3.0).await;

    // A broken one changes nothing and is named; a good one is shown from then on.
    std::fs::write(folder.path().join("cert.pem"), "nothing").expect("a file");
    signal(gateway.pid(), "HUP");
    wait_for("the problem to be logged", async || {
        gateway
            .log()
            .contains("there is no certificate in it")
            .then_some(())
    })
    .await;
    handshake(&gateway, &first, b"h2")
        .await
        .expect("the first is still shown");
    let second = certify(folder.path());
    wait_for("the second to be shown", async || {
        handshake(&gateway, &second, b"h2").await.ok()
    })
    .await;
    assert!(handshake(&gateway, &first, b"h2").await.is_err());
    assert_eq!(
        ask(&mut kept, request(), b"{}")
            .await
            .expect("the connection goes on")
            .status(),
        202
    );
    assert!(!gateway.log().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn f17_a_stop_ends_http2_connections_when_their_requests_are_answered() {
    let (_upstream, gateway, _folder, certificate) = tls("").await;
    let mut idle = client(
        handshake(&gateway, &certificate, b"h2")
            .await
            .expect("a handshake"),
    )
    .await;
    let request = || {
        post("https://gateway.test/hooks/open")
            .body(())
            .expect("a request")
    };
    assert_eq!(
        ask(&mut idle, request(), b"{}")
            .await
            .expect("an answer")
            .status(),
        202
    );
    let mut busy = client(
        handshake(&gateway, &certificate, b"h2")
            .await
            .expect("a handshake"),
    )
    .await;
    let (answer, mut sending) = busy.send_request(request(), false).expect("sent");
    sending
        .send_data(Bytes::from_static(b"{"), false)
        .expect("sent");
    tokio::time::sleep(Duration::from_millis(300)).await;
    signal(gateway.pid(), "TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    sending
        .send_data(Bytes::from_static(b"}"), true)
        .expect("the stream goes on");
    assert_eq!(answer.await.expect("an answer").status(), 202);
    let took = gateway.stop().await;
    assert!(took < Duration::from_secs(6), "{took:?}");
}
