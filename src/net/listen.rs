//! The accept loop of both listeners.
//!
//! It never ends because of a connection: a failed accept backs off and goes on. It is bounded: above an address's share
//! a connection is turned away at the door, and above `max_connections` too, unless an idle one can go. It stops when
//! told: accepting ends at once, connections finish the requests they are in, and what is still open after `drain` is
//! cut.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client_address::is_trusted;
use super::connection::{self, ListenerContext};
use super::connection_limit::{ConnectionLimit, NoSlot};
use super::observer::ConnectionObserver;
use super::options::ListenOptions;
use super::per_core::PerCore;
use tokio_util::sync::CancellationToken;

/// Connections that are told that there is no place, at once; more are just closed.
const TOLD: usize = 32;

/// Longest time to send that answer.
const TELL_TIME: Duration = Duration::from_secs(1);

/// Accepts and serves until `stop` resolves, then drains. Connections live on `cores`, or where this runs.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    options: ListenOptions,
    cores: Option<PerCore>,
    observer: Arc<dyn ConnectionObserver>,
    stop: impl Future<Output = ()>,
) where
    S: tower::Service<Request<Incoming>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let drain_time = options.drain;
    let places = Arc::new(ConnectionLimit::new(
        options.max_connections,
        options.max_connections_per_address,
    ));
    let told = Arc::new(Semaphore::new(TOLD));
    let shared = Arc::new(ListenerContext::new(service, options, observer));
    let drain = CancellationToken::new();
    // Also if this is cut: no connection outlives its listener for long.
    let drain_begins = drain.clone().drop_guard();
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let (socket, peer) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
        };
        // A proxy has many callers, and with a PROXY header each of them counts for itself.
        let counted = (!is_trusted(peer, &shared.options.trusted)).then_some(peer);
        let place = match places.take(counted) {
            Ok(place) => place,
            Err(why) => {
                turn_away(&shared, socket, why, &told);
                continue;
            }
        };
        shared.observer.opened();
        let (shared, drain) = (shared.clone(), drain.clone());
        let observer = shared.observer.clone();
        let run = move |socket| connection::run(shared, socket, peer, place, drain);
        match &cores {
            None => drop(connections.spawn(async move {
                run(socket).await;
                observer.closed();
            })),
            Some(cores) => cores.put(&mut connections, async move {
                // The thread it lives on has a list of sockets of its own.
                match socket.into_std().and_then(TcpStream::from_std) {
                    Ok(socket) => run(socket).await,
                    Err(error) => tracing::error!(%error, "cannot serve a connection"),
                }
                observer.closed();
            }),
        }
    }
    drop(listener);
    // Nobody is waiting when no connection is open.
    drop(drain_begins);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain_time, all).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            "connections cut at the end of the drain time"
        );
    }
}

/// Turns a connection away. The caller is told if no place is left; one that begins with a handshake could not read it.
fn turn_away<S>(
    shared: &ListenerContext<S>,
    socket: TcpStream,
    why: NoSlot,
    told: &Arc<Semaphore>,
) {
    shared.observer.turned_away(why.into());
    if why == NoSlot::Full
        && shared.options.tls.is_none()
        && let Some(answer) = shared.observer.full_answer()
        && let Ok(permit) = told.clone().try_acquire_owned()
    {
        tokio::spawn(async move {
            let _ = tokio::time::timeout(TELL_TIME, tell(socket, answer)).await;
            drop(permit);
        });
    }
}

/// Tells whoever finds no place, and lets it finish what it is sending so that it can hear it.
async fn tell(mut socket: TcpStream, answer: Bytes) {
    if socket.write_all(&answer).await.is_ok() && socket.shutdown().await.is_ok() {
        let mut dropped = [0; 4096];
        let mut left = 64 * 1024_usize;
        while let Ok(read) = socket.read(&mut dropped).await
            && read > 0
            && read < left
        {
            left -= read;
        }
    }
}

/// The next connection. Errors that say "no more descriptors" or the like are waited out.
async fn accept(listener: &TcpListener) -> (TcpStream, IpAddr) {
    let mut wait = Duration::from_millis(10);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are one write; waiting to fill a segment only delays them.
                let _ = stream.set_nodelay(true);
                return (stream, peer.ip().to_canonical());
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
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
