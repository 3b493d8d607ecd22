//! The accept loop of both listeners.
//!
//! It never ends because of a connection: a failed accept backs off and goes on. It is bounded: above
//! `max_connections` a connection is closed at the door. It stops when told: accepting ends at once, connections
//! finish the request they are in, and what is still open after `drain` is cut.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::cores::Cores;
use super::stall::Stalling;

/// The address of who is at the other end of the connection. Every request carries it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// How a listener runs.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Connections at once.
    pub max_connections: usize,
    /// The largest request head.
    pub max_head: usize,
    /// How long a head may take; an idle connection is closed after as long.
    pub head_timeout: Duration,
    /// How long open connections may take to end after a stop.
    pub drain: Duration,
}

/// Told of every connection, for the counters.
pub trait Door: Send + Sync + 'static {
    /// One has come in.
    fn opened(&self);
    /// One has gone.
    fn closed(&self);
    /// One was turned away.
    fn full(&self);
}

/// How long the other end may take nothing of what is being written to it.
const WRITE_STALL: Duration = Duration::from_secs(60);

/// Headers of one request at most.
const MAX_HEADERS: usize = 100;

/// The smallest buffer that hyper takes.
const LEAST_BUFFER: usize = 8 * 1024;

/// Accepts and serves until `stop` resolves, then drains. Connections live on `cores`, or where this runs.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    options: ListenOptions,
    cores: Option<Cores>,
    door: Arc<dyn Door>,
    stop: impl Future<Output = ()>,
) where
    S: tower::Service<Request<Incoming>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(options.max_head.max(LEAST_BUFFER))
        .keep_alive(true);
    let places = Arc::new(Semaphore::new(options.max_connections));
    let (drain_begins, drain) = tokio::sync::watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, peer) = accepted;
        let Ok(place) = places.clone().try_acquire_owned() else {
            door.full();
            drop(stream);
            continue;
        };
        door.opened();
        let (service, http, door, mut drain) = (service.clone(), http.clone(), door.clone(), drain.clone());
        let connection = async move {
            let stream = match TcpStream::from_std(stream) {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::error!(%error, "cannot serve a connection");
                    return door.closed();
                }
            };
            let serve = hyper::service::service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(Peer(peer));
                let mut service = service.clone();
                async move {
                    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
                    service.call(request).await
                }
            });
            let mut connection = pin!(http.serve_connection(Stalling::new(TokioIo::new(stream), WRITE_STALL), serve));
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                _ = drain.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.as_mut().await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "connection ended early");
            }
            drop(place);
            door.closed();
        };
        match &cores {
            Some(cores) => cores.put(&mut connections, connection),
            None => drop(connections.spawn(connection)),
        }
    }
    drop(listener);
    // Nobody is waiting when no connection is open.
    let _ = drain_begins.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(options.drain, all).await.is_err() {
        tracing::warn!(open = connections.len(), "connections cut at the end of the drain time");
    }
}

/// The next connection. Errors that say "no more descriptors" or the like are waited out.
async fn accept(listener: &TcpListener) -> (std::net::TcpStream, IpAddr) {
    let mut wait = Duration::from_millis(10);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are one write; waiting to fill a segment only delays them.
                let _ = stream.set_nodelay(true);
                // Whoever serves it has a thread of its own, and that has its own list of sockets.
                match stream.into_std() {
                    Ok(stream) => return (stream, peer.ip().to_canonical()),
                    Err(error) => tracing::debug!(%error, "connection ended early"),
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, wait_ms = wait.as_millis(), "cannot accept connections");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(1));
            }
        }
    }
}

fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
