//! The floor of what a proxy on this HTTP library costs: one thread, bodies whole, nothing checked, counted or logged.
//! `floor ADDRESS UPSTREAM`, where the upstream is `HOST:PORT`. Started by `benches/run`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut args = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"));
    // `cargo bench` starts every benchmark; without addresses there is nothing to do.
    let (Some(address), Some(upstream)) = (args.next(), args.next()) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(serve(address, upstream));
}

async fn serve(address: String, upstream: String) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(256)
        .build(connector);
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (client, upstream) = (client.clone(), upstream.clone());
        tokio::spawn(async move {
            let relay = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (client, upstream) = (client.clone(), upstream.clone());
                async move {
                    let (mut head, body) = request.into_parts();
                    head.uri = format!("http://{upstream}{}", head.uri.path())
                        .parse()
                        .unwrap();
                    let body = body.collect().await.unwrap().to_bytes();
                    let answer = client
                        .request(Request::from_parts(head, Full::new(body)))
                        .await
                        .unwrap();
                    let (head, body) = answer.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    Ok::<_, Infallible>(Response::from_parts(head, Full::new(body)))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), relay)
                .await;
        });
    }
}
