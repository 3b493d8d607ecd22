//! One connection of a listener: finds the caller and the protocol, then serves the requests, one by one or side by side.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::client_address::{self, AddressOwner, Peer};
use super::connection_limit::{BusyBody, ConnectionSlot};
use super::h2_guard::{H2Guard, H2Monitor, H2Timeouts, H2Verdict, PREFACE, WatchedBody};
use super::head::HeadFault;
use super::http1_filter::{BadHeadNotice, Http1Filter};
use super::observer::{ConnectionObserver, TurnedAway};
use super::options::ListenOptions;
use super::proxy_protocol;
use super::stream::ConnectionStream;
use super::tls::HandshakeError;
use super::write_timeout::WriteTimeout;
use crate::model::ClientCertificate;
use tokio_util::sync::CancellationToken;

/// The smallest buffer that the HTTP library takes.
const LEAST_BUFFER: usize = 8 * 1024;

/// Longest time for a PROXY header.
const PROXY_HEADER_TIME: Duration = Duration::from_secs(5);

/// Streams of one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 100;

/// Flow-control windows of one stream and of one connection: bytes sent that were not read yet.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Buffer of an answer that cannot go out yet.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams reset before they were looked at, and streams that their own mistakes end.
const MAX_PENDING_RESETS: usize = 20;
const MAX_LOCAL_ERRORS: usize = 100;

/// Interval of pings on an HTTP/2 connection, and longest time for their answer.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Interval at which the behaviour of an HTTP/2 connection is judged.
const JUDGE_EVERY: Duration = Duration::from_millis(250);

/// Grace period for a connection that is winding down.
const WIND_DOWN: Duration = Duration::from_secs(1);

/// State that all connections of a listener share.
pub(super) struct ListenerContext<S> {
    pub(super) service: S,
    pub(super) options: ListenOptions,
    pub(super) observer: Arc<dyn ConnectionObserver>,
    one: http1::Builder,
    two: http2::Builder<TokioExecutor>,
}

/// A connection whose caller and protocol are known.
struct OpenedConnection {
    stream: ConnectionStream,
    peer: RemoteEnd,
    speaks_2: bool,
}

/// A connection that ended before its first request.
struct FailedOpening {
    peer: IpAddr,
    why: TurnedAway,
    cause: String,
}

/// The other end of a connection.
#[derive(Clone)]
struct RemoteEnd {
    address: IpAddr,
    /// Its certificate, where it has shown one.
    certificate: Option<Arc<ClientCertificate>>,
    /// A proxy that had to say in a PROXY header for whom it calls, and did not: what its requests say is the caller's.
    is_silent: bool,
}

impl RemoteEnd {
    const fn new(address: IpAddr) -> Self {
        Self {
            address,
            certificate: None,
            is_silent: false,
        }
    }

    /// The caller of a request that came from here.
    fn client(&self, options: &ListenOptions, headers: &HeaderMap) -> Peer {
        if self.is_silent {
            return Peer(self.address, AddressOwner::Proxy);
        }
        client_address::client(self.address, &options.trusted, options.forwarded, headers)
    }
}

impl<S> ListenerContext<S> {
    pub(super) fn new(
        service: S,
        options: ListenOptions,
        observer: Arc<dyn ConnectionObserver>,
    ) -> Self {
        let mut one = http1::Builder::new();
        one.timer(TokioTimer::new())
            // A head that has begun has a bound of its own, in `screen`.
            .header_read_timeout(options.idle_timeout)
            .max_buf_size((options.max_head + 1024).max(LEAST_BUFFER))
            .keep_alive(true);
        let mut two = http2::Builder::new(TokioExecutor::new());
        two.timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(options.max_head).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_LOCAL_ERRORS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY);
        Self {
            service,
            options,
            observer,
            one,
            two,
        }
    }

    /// Adds the caller's address, its certificate and any head fault to the extensions of a request.
    fn prepare(&self, request: &mut Request<Incoming>, peer: &RemoteEnd, fault: Option<HeadFault>) {
        let client = match fault {
            None => peer.client(&self.options, request.headers()),
            Some(fault) => {
                request.extensions_mut().insert(fault);
                Peer(peer.address, AddressOwner::Proxy)
            }
        };
        request.extensions_mut().insert(client);
        if let Some(certificate) = &peer.certificate {
            request.extensions_mut().insert(certificate.clone());
        }
    }
}

/// Serves a connection to its end.
pub(super) async fn run<S, B>(
    shared: Arc<ListenerContext<S>>,
    socket: TcpStream,
    peer: IpAddr,
    mut place: ConnectionSlot,
    drain: CancellationToken,
) where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let leaving = place.seat();
    let plain = shared.options.tls.is_none()
        && !shared.options.proxy_protocol
        && !shared.options.http2_cleartext;
    let opened = if plain {
        OpenedConnection {
            stream: ConnectionStream::Plain(socket),
            peer: RemoteEnd::new(peer),
            speaks_2: false,
        }
    } else {
        let opened = tokio::select! {
            opened = Box::pin(open(&shared.options, socket, peer, &mut place)) => opened,
            () = drain.cancelled() => return,
            () = leaving.told_to_leave() => return,
        };
        match opened {
            Ok(opened) => opened,
            Err(FailedOpening { peer, why, cause }) => {
                shared.observer.turned_away(why);
                if why == TurnedAway::Certificate {
                    shared.observer.certificate_refused(peer, &cause);
                }
                tracing::debug!(%peer, why = why.as_str(), what = cause, "connection ended early");
                return;
            }
        }
    };
    // One protocol's state must not be the size of the other's.
    if opened.speaks_2 {
        Box::pin(serve_2(shared, opened.stream, opened.peer, place, drain)).await;
    } else {
        serve_1(shared, opened.stream, opened.peer, place, drain).await;
    }
}

/// Finds out who is calling, does the handshake, and sees which protocol it is.
async fn open(
    options: &ListenOptions,
    mut socket: TcpStream,
    peer: IpAddr,
    place: &mut ConnectionSlot,
) -> Result<OpenedConnection, FailedOpening> {
    let mut peer = RemoteEnd::new(peer);
    let failed = |peer: &RemoteEnd, why, cause| FailedOpening {
        peer: peer.address,
        why,
        cause,
    };
    if options.proxy_protocol && client_address::is_trusted(peer.address, &options.trusted) {
        let said = within(PROXY_HEADER_TIME, proxy_protocol::read(&mut socket)).await;
        match said.map_err(|cause| failed(&peer, TurnedAway::ProxyHeader, cause))? {
            Some(said) => {
                peer.address = said;
                if !client_address::is_trusted(said, &options.trusted) && place.share(said).is_err()
                {
                    return Err(failed(&peer, TurnedAway::Share, String::new()));
                }
            }
            None => peer.is_silent = true,
        }
    }
    if let Some(tls) = &options.tls {
        let shaken = match timeout(options.head_timeout, tls.accept(socket)).await {
            Ok(Ok(shaken)) => shaken,
            Ok(Err(HandshakeError::Certificate(cause))) => {
                return Err(failed(&peer, TurnedAway::Certificate, cause));
            }
            Ok(Err(HandshakeError::Other(error))) => {
                return Err(failed(&peer, TurnedAway::Handshake, error.to_string()));
            }
            Err(_) => {
                let cause = not_within(options.head_timeout);
                return Err(failed(&peer, TurnedAway::Handshake, cause));
            }
        };
        peer.certificate = shaken.certificate;
        return Ok(OpenedConnection {
            stream: ConnectionStream::Tls(Box::new(shaken.stream)),
            peer,
            speaks_2: shaken.speaks_2,
        });
    }
    if !options.http2_cleartext {
        return Ok(OpenedConnection {
            stream: ConnectionStream::Plain(socket),
            peer,
            speaks_2: false,
        });
    }
    let mut first = Vec::with_capacity(PREFACE.len());
    let begun = within(options.head_timeout, begin(&mut socket, &mut first)).await;
    // What is slow or gone shows that again to whoever reads on.
    let speaks_2 = begun.unwrap_or(false);
    Ok(OpenedConnection {
        stream: ConnectionStream::Begun {
            first,
            given: 0,
            rest: socket,
        },
        peer,
        speaks_2,
    })
}

/// Reads as much as HTTP/2 begins with, or less where it is something else.
async fn begin(socket: &mut TcpStream, first: &mut Vec<u8>) -> std::io::Result<bool> {
    while first.len() < PREFACE.len() && PREFACE.starts_with(first) {
        let mut space = [0; PREFACE.len()];
        let read = socket
            .read(&mut space[..PREFACE.len() - first.len()])
            .await?;
        if read == 0 {
            return Ok(false);
        }
        first.extend_from_slice(&space[..read]);
    }
    Ok(first == PREFACE)
}

async fn within<T>(
    time: Duration,
    what: impl Future<Output = std::io::Result<T>>,
) -> Result<T, String> {
    match timeout(time, what).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(not_within(time)),
    }
}

fn not_within(time: Duration) -> String {
    format!("not within {} s", time.as_secs_f64())
}

async fn serve_1<S, B>(
    shared: Arc<ListenerContext<S>>,
    stream: ConnectionStream,
    peer: RemoteEnd,
    place: ConnectionSlot,
    drain: CancellationToken,
) where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let ListenOptions {
        max_head,
        head_timeout,
        write_stall,
        ..
    } = shared.options;
    let notice = Arc::new(BadHeadNotice::default());
    let io = Http1Filter::new(stream, max_head, head_timeout, notice.clone());
    let io = WriteTimeout::new(TokioIo::new(io), write_stall);
    let number = AtomicU32::new(0);
    let address = peer.address;
    let builder = shared.one.clone();
    let seat = place.seat();
    let serve = service_fn(move |mut request: Request<Incoming>| {
        shared.prepare(
            &mut request,
            &peer,
            notice.of(number.fetch_add(1, Ordering::Relaxed)),
        );
        let busy = place.busy();
        let answer = call(shared.service.clone(), request);
        async move { Ok::<_, Infallible>(answer.await?.map(|body| BusyBody::new(body, busy))) }
    });
    let mut connection = pin!(builder.serve_connection(io, serve));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // An idle connection ends at once, one in the middle of an answer behind it.
        () = async { tokio::select! { () = drain.cancelled() => {} () = seat.told_to_leave() => {} } } => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %address, %error, "connection ended early");
    }
}

/// The times that an HTTP/2 connection may take.
const fn h2_timeouts(options: &ListenOptions) -> H2Timeouts {
    H2Timeouts {
        head: options.head_timeout,
        idle: options.idle_timeout,
        stall: options.write_stall,
    }
}

/// Judgement of an HTTP/2 connection, from one look to the next.
struct H2Judge {
    monitor: Arc<H2Monitor>,
    timeouts: H2Timeouts,
    observer: Arc<dyn ConnectionObserver>,
    peer: IpAddr,
    /// The time when a connection that winds down is cut.
    end: Option<Instant>,
}

/// Next step for an HTTP/2 connection.
enum H2Step {
    Stay,
    WindDown,
    Cut,
}

impl H2Judge {
    fn judge(&mut self, now: Instant) -> H2Step {
        match (self.monitor.verdict(now, self.timeouts), self.end) {
            (H2Verdict::Good, _) => H2Step::Stay,
            (H2Verdict::Cut(why), _) => {
                self.observer.turned_away(TurnedAway::Misuse);
                tracing::debug!(peer = %self.peer, why, "connection cut");
                H2Step::Cut
            }
            (H2Verdict::WindDown(why), None) => {
                if self.monitor.is_flooded() {
                    self.observer.turned_away(TurnedAway::Misuse);
                }
                tracing::debug!(peer = %self.peer, why, "connection is to end");
                self.end = Some(now + WIND_DOWN);
                H2Step::WindDown
            }
            (H2Verdict::WindDown(_), Some(end)) if now < end => H2Step::Stay,
            (H2Verdict::WindDown(_), Some(_)) => H2Step::Cut,
        }
    }
}

async fn serve_2<S, B>(
    shared: Arc<ListenerContext<S>>,
    stream: ConnectionStream,
    peer: RemoteEnd,
    place: ConnectionSlot,
    drain: CancellationToken,
) where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let timeouts = h2_timeouts(&shared.options);
    let pulse = Arc::new(H2Monitor::new());
    let guard = TokioIo::new(H2Guard::new(stream, pulse.clone()));
    let io = WriteTimeout::new(guard, timeouts.stall);
    let (builder, observer) = (shared.two.clone(), shared.observer.clone());
    let watched = pulse.clone();
    let address = peer.address;
    let seat = place.seat();
    let serve = service_fn(move |mut request: Request<Incoming>| {
        shared.prepare(&mut request, &peer, None);
        let (busy, seated) = (watched.busy(), place.busy());
        let pulse = watched.clone();
        let answer = call(shared.service.clone(), request);
        async move {
            let mut answer = answer.await?;
            // HTTP/2 ends streams, not connections.
            answer.headers_mut().remove(CONNECTION);
            drop(busy);
            Ok::<_, Infallible>(
                answer.map(|body| BusyBody::new(WatchedBody::new(body, pulse), seated)),
            )
        }
    });
    let mut connection = pin!(builder.serve_connection(io, serve));
    let mut ticks = tokio::time::interval(JUDGE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut draining, mut leaving) = (false, None);
    let mut judge = H2Judge {
        monitor: pulse,
        timeouts,
        observer,
        peer: address,
        end: None,
    };
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(peer = %address, %error, "connection ended early");
                }
                return;
            }
            () = drain.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = seat.told_to_leave(), if leaving.is_none() => {
                leaving = Some(Instant::now() + WIND_DOWN);
                connection.as_mut().graceful_shutdown();
            }
            _ = ticks.tick() => {
                // The other end may answer nothing any more.
                if leaving.is_some_and(|end| Instant::now() >= end) && seat.is_quiet() {
                    return;
                }
                match judge.judge(Instant::now()) {
                    H2Step::Stay => {}
                    H2Step::WindDown => connection.as_mut().graceful_shutdown(),
                    H2Step::Cut => return,
                }
            }
        }
    }
}

async fn call<S: tower::Service<Request<Incoming>>>(
    mut service: S,
    request: Request<Incoming>,
) -> Result<S::Response, S::Error> {
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}
