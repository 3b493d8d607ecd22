//! The one outgoing HTTP client: pool, time-outs, TLS, bounds on what is read.
//!
//! What is promised: [`SendError::NotSent`] is said only when surely no byte of the request was written, so that
//! trying again can do no harm. A request whose kept connection broke before any of an answer came is sent once more, by
//! a new connection, where that can do no harm either: its method is idempotent (RFC 9110, 9.2.2) or nothing of it was
//! written, and its body is still at hand. Every wait and everything that is read is bounded. An answer that was cut off is an
//! error, never a short answer. Redirects are answers like any other; nothing is inflated; the environment names no
//! proxy.

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::ACCEPT_ENCODING;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::Service;

use super::guard::{Guard, Resolver, System};
use super::per_core;
use super::replayable_body::{self, AnyBody, ReplayableBody};
use super::reuse::{CountedIo, RequestConnection};
use crate::model::Block;

/// Time that an idle connection is kept for the next request. Shorter than most servers keep theirs, so that a request seldom
/// meets a connection which the other side is just closing.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// Idle connections kept for one host.
const POOL_IDLE_PER_HOST: usize = 256;

/// Bytes that a connection reads ahead of the reader of the answer. It bounds the head of an answer too.
const READ_AHEAD: usize = 64 * 1024;

/// A request's body: at hand, or coming in while it goes out.
type Outgoing = Either<Full<Bytes>, AnyBody>;

/// The client. Cheap to clone; clones share the pools, of which each core has its own: an answer is read by the thread
/// that asked.
#[derive(Clone, Debug)]
pub struct Client {
    pools: Pools,
    /// For addresses that the operator did not write.
    guarded: Pools,
    guard: Guard,
    settings: Arc<PoolSettings>,
}

type Pool = legacy::Client<Connector, Outgoing>;

/// The ways of each core.
#[derive(Clone, Debug)]
struct Pools(Arc<[PoolPair]>);

/// Pools of connections for one core.
#[derive(Debug)]
struct PoolPair {
    /// By a connection that is kept, where there is one.
    kept: Pool,
    /// By a new one.
    fresh: Pool,
}

impl Pools {
    fn here(&self) -> &PoolPair {
        self.0.get(per_core::here()).unwrap_or(&self.0[0])
    }
}

/// Settings that all pools are made from.
#[derive(Debug)]
struct PoolSettings {
    connect_timeout: Duration,
    tls: ClientConfig,
}

/// Error while a client is built.
#[derive(Debug, thiserror::Error)]
#[error("cannot read certificates: {0}")]
pub struct ClientError(pub String);

/// Error of a request that got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nothing of the request was written.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It may have been received.
    #[error("sent, but {0}")]
    Ambiguous(String),
    /// It was received and answered, but the answer is larger than was allowed; it was not read to its end.
    #[error("answered with {status}, but with more than {limit} bytes")]
    TooLarge {
        /// The answer's status.
        status: StatusCode,
        /// The largest allowed size.
        limit: u64,
    },
}

impl SendError {
    /// The same, of a request that went by another connection before.
    fn after(self, first: &RequestConnection) -> Self {
        match self {
            Self::NotSent(why) if !first.wrote_nothing() => Self::Ambiguous(why),
            error => error,
        }
    }
}

impl Client {
    /// A client that trusts the usual certificates, and those in `ca_file`. `connect_timeout` covers finding the
    /// address, connecting and the TLS handshake.
    pub fn new(connect_timeout: Duration, ca_file: Option<&Path>) -> Result<Self, ClientError> {
        let settings = Arc::new(PoolSettings {
            connect_timeout,
            tls: tls(ca_file)?,
        });
        let guard = Guard::default();
        Ok(Self {
            pools: settings.pools(None),
            guarded: settings.pools(Some(&guard)),
            guard,
            settings,
        })
    }

    /// The same client, which reaches these blocks by [`Client::download`] although they are not public.
    #[must_use]
    pub fn allowing(mut self, blocks: &[Block]) -> Self {
        self.guard = Guard::new(blocks);
        self.guarded = self.settings.pools(Some(&self.guard));
        self
    }

    pub(super) const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Sends a request and reads the whole answer: within `timeout` from now to the last byte, and at most
    /// `max_answer` bytes. Follows no redirect.
    pub async fn send(
        &self,
        mut request: Request<Bytes>,
        timeout: Duration,
        max_answer: u64,
    ) -> Result<Response<Bytes>, SendError> {
        request
            .headers_mut()
            .entry(ACCEPT_ENCODING)
            .or_insert(HeaderValue::from_static("identity"));
        let end = tokio::time::Instant::now() + timeout;
        let answer = self.open(request, timeout).await?;
        match tokio::time::timeout_at(end, read(answer, max_answer)).await {
            Ok(answer) => answer,
            Err(_) => Err(SendError::Ambiguous(format!(
                "its answer was not whole within {}",
                seconds(timeout)
            ))),
        }
    }

    /// Sends a request and waits, at most `timeout`, for the head of the answer. The body is the caller's to read and
    /// to bound; dropping it before its end closes the connection.
    pub async fn open(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, SendError> {
        open(self.pools.here(), request, timeout).await
    }

    /// The same, for an address that was judged.
    pub(super) async fn open_guarded(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, SendError> {
        open(self.guarded.here(), request, timeout).await
    }

    /// Sends a request whose body comes in while it goes out, and gives the head of the answer. Only connecting is
    /// bounded here: how long to wait is the caller's to say, and dropping the future, or the answer's body before its
    /// end, closes the connection. A body that fails is an error here as long as no answer has begun.
    pub async fn relay<B>(&self, request: Request<B>) -> Result<Response<Incoming>, SendError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let ways = self.pools.here();
        let (head, body) = request.into_parts();
        // A request without a body must not get one of unknown length.
        if body.is_end_stream() {
            return whole(
                ways,
                Request::from_parts(head, Bytes::new()),
                &mut SendProgress::default(),
            )
            .await;
        }
        let most = if head.method.is_idempotent() {
            replayable_body::MAX_KEPT
        } else {
            0
        };
        let (lent, loan) = ReplayableBody::new(body.map_err(Into::into).boxed_unsync(), most);
        let again = head.clone();
        let mut request = Request::from_parts(head, Either::Right(lent.boxed_unsync()));
        let line = RequestConnection::new(capture_connection(&mut request));
        let error = match once(&ways.kept, request, &line).await {
            Err(error) if line.may_go_again(&again.method) => error,
            ended => return ended,
        };
        let Some(lent) = loan.returned().await else {
            return Err(error);
        };
        let mut request = Request::from_parts(again, Either::Right(lent.boxed_unsync()));
        let second = RequestConnection::new(capture_connection(&mut request));
        once(&ways.fresh, request, &second)
            .await
            .map_err(|error| error.after(&line))
    }
}

/// Progress of a request.
#[derive(Debug, Default)]
struct SendProgress {
    /// The connection that it was given to last.
    line: Option<RequestConnection>,
    /// True if a part of it may have been written to a connection before that one.
    may_have_come: bool,
}

async fn open(
    ways: &PoolPair,
    request: Request<Bytes>,
    timeout: Duration,
) -> Result<Response<Incoming>, SendError> {
    if request.uri().scheme().is_none() || request.uri().authority().is_none() {
        return Err(SendError::NotSent("the address names no host".into()));
    }
    let mut trail = SendProgress::default();
    let ended = tokio::time::timeout(timeout, whole(ways, request, &mut trail)).await;
    ended.unwrap_or_else(|_| {
        // Nothing is written before there is a connection to write to.
        if !trail.may_have_come && trail.line.is_none_or(|line| !line.is_there()) {
            return Err(SendError::NotSent(format!(
                "no connection within {}",
                seconds(timeout)
            )));
        }
        Err(SendError::Ambiguous(format!(
            "no answer within {}",
            seconds(timeout)
        )))
    })
}

/// Sends a request whose body is at hand.
async fn whole(
    ways: &PoolPair,
    request: Request<Bytes>,
    trail: &mut SendProgress,
) -> Result<Response<Incoming>, SendError> {
    let again = request.clone();
    let mut request = request.map(|body| Either::Left(Full::new(body)));
    let first = trail
        .line
        .insert(RequestConnection::new(capture_connection(&mut request)))
        .clone();
    match once(&ways.kept, request, &first).await {
        Err(_) if first.may_go_again(again.method()) => {}
        ended => return ended,
    }
    trail.may_have_come = !first.wrote_nothing();
    let mut request = again.map(|body| Either::Left(Full::new(body)));
    let second = trail
        .line
        .insert(RequestConnection::new(capture_connection(&mut request)));
    once(&ways.fresh, request, second)
        .await
        .map_err(|error| error.after(&first))
}

/// Sends a request by one connection.
async fn once(
    pool: &Pool,
    request: Request<Outgoing>,
    line: &RequestConnection,
) -> Result<Response<Incoming>, SendError> {
    match pool.request(request).await {
        Ok(answer) => {
            line.heed(answer.headers(), POOL_IDLE);
            Ok(answer)
        }
        Err(error) if error.is_connect() || line.wrote_nothing() => {
            Err(SendError::NotSent(causes(&error)))
        }
        Err(error) => Err(SendError::Ambiguous(format!(
            "the connection broke: {}",
            causes(&error)
        ))),
    }
}

/// Reads a body to its end, or to the bound.
async fn read(answer: Response<Incoming>, limit: u64) -> Result<Response<Bytes>, SendError> {
    let (head, mut body) = answer.into_parts();
    let too_large = SendError::TooLarge {
        status: head.status,
        limit,
    };
    let said = body.size_hint().lower();
    if said > limit {
        return Err(too_large);
    }
    // What the sender says of the length is believed only so far: memory follows what arrives.
    let mut whole = BytesMut::with_capacity(usize::try_from(said.min(64 * 1024)).unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            SendError::Ambiguous(format!("its answer was cut off: {}", causes(&error)))
        })?;
        if let Some(piece) = frame.data_ref() {
            if (whole.len() + piece.len()) as u64 > limit {
                return Err(too_large);
            }
            whole.extend_from_slice(piece);
        }
    }
    Ok(Response::from_parts(head, whole.freeze()))
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(file) = ca_file {
        let wrong = |what: String| ClientError(format!("{}: {what}", file.display()));
        let certificates =
            CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?;
        let mut found = 0;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| wrong(error.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(wrong("there is no certificate in it".into()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

impl PoolSettings {
    fn pools(&self, guard: Option<&Guard>) -> Pools {
        let ways = |_| PoolPair {
            kept: self.pool(guard.cloned(), POOL_IDLE_PER_HOST),
            fresh: self.pool(guard.cloned(), 0),
        };
        Pools((0..per_core::slots()).map(ways).collect())
    }

    /// A pool that keeps so many connections for one host; with none every request goes by a new one.
    fn pool(&self, guard: Option<Guard>, idle: usize) -> Pool {
        let mut http = HttpConnector::new_with_resolver(Resolver::new(Arc::new(System), guard));
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(self.connect_timeout));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(idle)
            .http1_max_buf_size(READ_AHEAD)
            .build(Connector {
                https,
                timeout: self.connect_timeout,
            })
    }
}

/// Connects within a time that covers everything which happens before the first byte of a request. The connector
/// inside bounds only the TCP part by itself.
#[derive(Clone, Debug)]
struct Connector {
    https: HttpsConnector<HttpConnector<Resolver>>,
    timeout: Duration,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<CountedIo<TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>>>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.https.call(to);
        let timeout = self.timeout;
        Box::pin(async move {
            match tokio::time::timeout(timeout, connecting).await {
                Ok(connected) => {
                    connected.map(|stream| TokioIo::new(CountedIo::new(TokioIo::new(stream))))
                }
                Err(_) => Err(format!("no connection within {}", seconds(timeout)).into()),
            }
        })
    }
}

/// The causes of an error, outermost first. The client's own outermost text says nothing and is left out.
fn causes(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let part = cause.to_string();
        // Some layers repeat the text of the one below them.
        if !text.ends_with(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        next = cause.source();
    }
    if text.is_empty() {
        error.to_string()
    } else {
        text
    }
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn client() -> Client {
        Client::new(Duration::from_millis(300), None).unwrap()
    }

    fn request(to: SocketAddr) -> Request<Bytes> {
        Request::post(format!("http://{to}/x"))
            .body(Bytes::from_static(b"{}"))
            .unwrap()
    }

    async fn read_head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.windows(4).any(|w| w == b"\r\n\r\n") {
            let mut piece = [0; 1024];
            let n = stream.read(&mut piece).await.unwrap();
            assert!(n > 0, "the client closed early");
            head.extend_from_slice(&piece[..n]);
        }
        String::from_utf8(head).unwrap()
    }

    /// Answers every connection's first request with `answer`, then closes, or holds the connection open.
    async fn server(answer: impl Into<Vec<u8>>, hold: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = answer.into();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    read_head(&mut stream).await;
                    let _ = stream.write_all(&answer).await;
                    if hold {
                        tokio::time::sleep(Duration::from_secs(30)).await;
                    }
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn a_refused_connection_and_an_unknown_host_are_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = listener.local_addr().unwrap();
        drop(listener);
        let error = client()
            .send(request(closed), SECOND, 100)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, SendError::NotSent(text) if text.contains("refused")),
            "{error}"
        );
        let nowhere = Request::get("http://no-such-host.invalid/")
            .body(Bytes::new())
            .unwrap();
        let error = client().send(nowhere, SECOND, 100).await.unwrap_err();
        assert!(matches!(error, SendError::NotSent(_)), "{error}");
        let relative = Request::get("/x").body(Bytes::new()).unwrap();
        assert!(matches!(
            client().send(relative, SECOND, 100).await,
            Err(SendError::NotSent(_))
        ));
    }

    #[tokio::test]
    async fn a_tls_handshake_that_fails_or_hangs_is_not_sent() {
        for hold in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                if hold {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
                let _ = stream.write_all(b"no TLS here\r\n\r\n").await;
            });
            let request = Request::get(format!("https://{to}/"))
                .body(Bytes::new())
                .unwrap();
            let error = client().send(request, 3 * SECOND, 100).await.unwrap_err();
            assert!(matches!(error, SendError::NotSent(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn whatever_breaks_after_writing_is_ambiguous() {
        let half = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
        for (answer, hold) in [
            ("", false),
            ("", true),
            (half, false),
            (half, true),
            ("BOO 200\r\n\r\n", true),
        ] {
            let to = server(answer, hold).await;
            let error = client()
                .send(request(to), Duration::from_millis(500), 100)
                .await
                .unwrap_err();
            assert!(
                matches!(error, SendError::Ambiguous(_)),
                "{answer:?} {hold}: {error}"
            );
        }
        let to = server("", true).await;
        let error = client()
            .send(request(to), Duration::from_millis(500), 100)
            .await
            .unwrap_err();
        assert_eq!(
            error,
            SendError::Ambiguous("no answer within 500 ms".into())
        );
    }

    #[tokio::test]
    async fn an_answer_may_be_as_large_as_allowed_and_no_larger() {
        let head = "HTTP/1.1 200 OK\r\n";
        let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        for answer in [format!("{head}content-length: 5\r\n\r\nhello"), chunked] {
            let to = server(answer, true).await;
            let whole = client().send(request(to), SECOND, 5).await.unwrap();
            assert_eq!(whole.body(), "hello");
            let error = client().send(request(to), SECOND, 4).await.unwrap_err();
            assert_eq!(
                error,
                SendError::TooLarge {
                    status: StatusCode::OK,
                    limit: 4
                }
            );
        }
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_nothing_is_inflated() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let seen = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = read_head(&mut stream).await;
            let answer = b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere.invalid/\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            head
        });
        let answer = client().send(request(to), SECOND, 100).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FOUND);
        let head = seen.await.unwrap();
        assert!(
            head.starts_with("POST /x HTTP/1.1\r\n")
                && head.contains("accept-encoding: identity\r\n"),
            "{head}"
        );
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Client::new(SECOND, Some(file.path()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&file.path().display().to_string()),
            "{error}"
        );
        assert!(Client::new(SECOND, Some(Path::new("/no/such/file"))).is_err());
    }

    /// Serves each connection by its own list: an answer for each request. The connection ends behind one that is not whole.
    /// Counts the connections.
    async fn scripted(
        connections: &'static [&'static [&'static str]],
    ) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        tokio::spawn(async move {
            for answers in connections {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    for answer in *answers {
                        read_head(&mut stream).await;
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        if !answer.ends_with("\r\n\r\n") {
                            return;
                        }
                    }
                    std::future::pending::<()>().await;
                });
            }
            std::future::pending::<()>().await;
        });
        (address, accepted)
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

    fn asked(to: SocketAddr, method: &str, body: &'static str) -> Request<Bytes> {
        Request::builder()
            .method(method)
            .uri(format!("http://{to}/x"))
            .body(Bytes::from_static(body.as_bytes()))
            .unwrap()
    }

    /// A body of pieces whose length nobody says.
    fn streamed(to: SocketAddr, method: &str, pieces: usize) -> Request<AnyBody> {
        let piece = || {
            Ok::<_, Box<dyn Error + Send + Sync>>(http_body::Frame::data(Bytes::from_static(
                &[b'x'; 1024],
            )))
        };
        let pieces: Vec<_> = (0..pieces).map(|_| piece()).collect();
        let body =
            http_body_util::StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync();
        Request::builder()
            .method(method)
            .uri(format!("http://{to}/x"))
            .body(body)
            .unwrap()
    }

    /// RFC 9110, 9.2.2: an idempotent request may be repeated by itself, any other may not.
    #[tokio::test]
    async fn a21_a_request_that_meets_a_stale_connection_is_sent_once_more_where_that_does_no_harm()
    {
        const STALE: &[&[&str]] = &[&[OK, ""], &[OK]];
        for (method, body) in [
            ("GET", ""),
            ("HEAD", ""),
            ("OPTIONS", ""),
            ("DELETE", ""),
            ("PUT", "{}"),
            ("GET", "{}"),
        ] {
            let (to, accepted) = scripted(STALE).await;
            let client = client();
            client
                .send(asked(to, "GET", ""), SECOND, 100)
                .await
                .unwrap();
            let answer = client.send(asked(to, method, body), SECOND, 100).await;
            assert_eq!(
                answer.map(|answer| answer.status()),
                Ok(StatusCode::OK),
                "{method} {body}"
            );
            assert_eq!(accepted.load(Ordering::SeqCst), 2, "{method} {body}");
        }
        for (method, pieces, is_good) in [
            ("PUT", 3, true),
            ("GET", 0, true),
            ("PUT", 100, false),
            ("POST", 3, false),
        ] {
            let (to, accepted) = scripted(STALE).await;
            let client = client();
            client
                .send(asked(to, "GET", ""), SECOND, 100)
                .await
                .unwrap();
            let answer = client.relay(streamed(to, method, pieces)).await;
            assert_eq!(answer.is_ok(), is_good, "{method} {pieces}: {answer:?}");
            assert_eq!(
                accepted.load(Ordering::SeqCst),
                if is_good { 2 } else { 1 },
                "{method} {pieces}"
            );
        }
        let (to, accepted) = scripted(STALE).await;
        let client = client();
        client
            .send(asked(to, "GET", ""), SECOND, 100)
            .await
            .unwrap();
        let error = client
            .send(asked(to, "POST", "{}"), SECOND, 100)
            .await
            .unwrap_err();
        assert!(matches!(error, SendError::Ambiguous(_)), "{error}");
        assert_eq!(accepted.load(Ordering::SeqCst), 1, "a run may have begun");
    }

    #[tokio::test]
    async fn a21_nothing_is_repeated_that_was_answered_in_part_or_broke_twice_or_on_a_new_connection()
     {
        const HALF: &[&[&str]] = &[&[OK, "HTTP/1.1 20"], &[OK]];
        const TWICE: &[&[&str]] = &[&[OK, ""], &[""], &[OK]];
        const NEW: &[&[&str]] = &[&[""], &[OK]];
        for (connections, expected) in [(HALF, 1), (TWICE, 2), (NEW, 1)] {
            let (to, accepted) = scripted(connections).await;
            let client = client();
            if connections[0][0] == OK {
                client
                    .send(asked(to, "GET", ""), SECOND, 100)
                    .await
                    .unwrap();
            }
            let error = client
                .send(asked(to, "GET", ""), SECOND / 2, 100)
                .await
                .unwrap_err();
            assert!(
                matches!(error, SendError::Ambiguous(_)),
                "{connections:?}: {error}"
            );
            assert_eq!(accepted.load(Ordering::SeqCst), expected, "{connections:?}");
        }
    }

    #[tokio::test]
    async fn a21_a_connection_is_given_up_before_its_server_does() {
        const SHORT: &[&[&str]] = &[
            &[
                "HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 0\r\n\r\n",
                "",
            ],
            &[OK],
        ];
        const NONE: &[&[&str]] = &[
            &[
                "HTTP/1.1 200 OK\r\nkeep-alive: timeout=0\r\ncontent-length: 0\r\n\r\n",
                "",
            ],
            &[OK],
        ];
        for (connections, wait) in [(NONE, Duration::ZERO), (SHORT, Duration::from_millis(1200))] {
            let (to, accepted) = scripted(connections).await;
            let client = client();
            client.send(request(to), SECOND, 100).await.unwrap();
            tokio::time::sleep(wait).await;
            client.send(request(to), SECOND, 100).await.unwrap();
            assert_eq!(accepted.load(Ordering::SeqCst), 2, "{wait:?}");
        }
    }
}
