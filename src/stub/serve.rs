//! The stand-in on a listener.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::Stub;

/// Time that a connection may be idle between two requests; longer than any client keeps one open.
const IDLE: Duration = Duration::from_secs(120);
/// Time that a shutdown waits for answers that are being sent.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves until `shutdown` is done, then gives answers on their way a moment to leave. Runs go on by themselves. When
/// this future is dropped, every connection breaks at once.
pub async fn serve(listener: TcpListener, stub: Arc<Stub>, shutdown: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly; asking again at once would only spin.
                tracing::warn!(%error, "the stub cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let stub = Arc::clone(&stub);
        let connection = http.serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| Arc::clone(&stub).answer(request)),
        );
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the stub ended early");
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}
