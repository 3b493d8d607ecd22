//! The one outgoing HTTP client: pool, time-outs, TLS, bounds on what is read.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};

/// The client. Cheap to clone; clones share the pool.
#[derive(Clone, Debug)]
pub struct Client {}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error("cannot read certificates: {0}")]
pub struct ClientError(pub String);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nothing of the request was written.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It may have been received.
    #[error("sent, but {0}")]
    Ambiguous(String),
}

impl Client {
    /// A client that trusts the usual certificates, and those in `ca_file`.
    pub fn new(_connect_timeout: Duration, _ca_file: Option<&Path>) -> Result<Self, ClientError> {
        unimplemented!()
    }

    /// Sends a request and reads the whole answer: within `timeout` from the first byte to the last, and at most
    /// `max_answer` bytes. Follows no redirect.
    pub async fn send(
        &self,
        _request: Request<Bytes>,
        _timeout: Duration,
        _max_answer: u64,
    ) -> Result<Response<Bytes>, SendError> {
        unimplemented!()
    }
}
