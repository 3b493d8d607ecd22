//! Requests that sources may make on the web: for certificates, and to a service that judges requests.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};

use crate::net::{Client, DownloadError, LoopGuard, download};
use crate::source::WebClient;

/// Time limit for fetching a certificate for a source, and its largest size.
const FETCH_TIME: Duration = Duration::from_secs(5);
const FETCH_BYTES: u64 = 64 * 1024;

/// The web, as far as sources may ask it.
#[derive(Debug)]
pub(super) struct Web {
    pub(super) client: Client,
    /// Put on requests to a service that judges requests, whose address may lead back here.
    pub(super) guard: LoopGuard,
}

#[async_trait]
impl WebClient for Web {
    async fn get(&self, address: &str) -> Result<Bytes, String> {
        let bounds = download::DownloadBounds {
            time: FETCH_TIME,
            stall: FETCH_TIME,
            bytes: FETCH_BYTES,
        };
        let fetched = async {
            self.client
                .download_here(address, bounds)
                .await?
                .whole()
                .await
        };
        fetched
            .await
            .map_err(|error: DownloadError| error.to_string())
    }

    async fn ask(
        &self,
        mut request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<(StatusCode, HeaderMap), String> {
        let server = request.uri().clone();
        self.guard.put_on(request.headers_mut(), &server);
        let answer = self
            .client
            .send(request, timeout, FETCH_BYTES)
            .await
            .map_err(|error| error.to_string())?;
        Ok((answer.status(), answer.headers().clone()))
    }
}
