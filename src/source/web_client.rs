//! Web client of a source: the port through which certificates are fetched and another service is asked.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};

/// A client that can fetch over HTTPS.
#[async_trait::async_trait]
pub trait WebClient: Send + Sync + std::fmt::Debug {
    /// GETs an address: within a few seconds, at most 64 KiB, following no redirect. Anything but a 200 is an error, in
    /// words for the operator.
    async fn get(&self, address: &str) -> Result<Bytes, String>;

    /// Sends a request to an address that the operator wrote, within this time, following no redirect. Gives the status
    /// and the headers of the answer.
    async fn ask(&self, _: Request<Bytes>, _: Duration) -> Result<(StatusCode, HeaderMap), String> {
        Err("this client asks no service".into())
    }
}
