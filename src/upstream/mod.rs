//! The agent platform's API: one call per attempt, and the question what became of a run.
//!
//! What is promised: a call is one request, never repeated here; what it came to says whether anything may have run
//! (`answer.rs`). The key leaves by the `x-api-key` header and by no other way.

pub mod answer;
pub mod hosted;
pub mod request;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, Response};
use hyper::body::Incoming;

use crate::config::{self, Secret};
use crate::model::{AttemptResult, Clock, Run};
use crate::net::{Client, SendError};

pub use request::Call;

/// How long the question for a run may take.
const TASK_TIMEOUT: Duration = Duration::from_secs(30);

/// The upstream, ready to be called.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: Client,
    /// Scheme, host and the path that stands before every call's own, without a slash at the end.
    base: String,
    key: Option<Secret>,
    run_timeout: Duration,
    max_answer: u64,
    clock: Clock,
}

/// What the upstream knows of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// This.
    Found(Run),
    /// Nothing: no run of this id has begun.
    NotFound,
    /// It could not say.
    Failed {
        /// A sentence for the operator.
        detail: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
}

impl Upstream {
    /// The upstream of a configuration.
    pub fn new(config: &config::Upstream, client: Client) -> Self {
        Self {
            client,
            base: config.base_url.to_string().trim_end_matches('/').to_owned(),
            key: config.api_key.clone(),
            run_timeout: config.run_timeout,
            max_answer: config.max_answer,
            clock: Clock::system(),
        }
    }

    /// Runs an agent and waits for the end: `POST …/invoke`.
    pub async fn invoke(&self, call: &Call) -> AttemptResult {
        let timeout = call.timeout.unwrap_or(self.run_timeout);
        match self.send(Method::POST, &call.path, call.body.clone(), timeout).await {
            Ok(answer) => answer::invoke(&answer, self.key.as_ref(), self.clock.now()),
            Err(SendError::NotSent(why)) => AttemptResult::NotSent(why),
            Err(SendError::Ambiguous(why)) => AttemptResult::Ambiguous(why),
            // The status alone decides; what was said cannot be kept.
            Err(error @ SendError::TooLarge { status, .. }) => {
                let empty = Response::builder().status(status).body(Bytes::from(error.to_string()));
                match empty {
                    Ok(answer) => answer::invoke(&answer, self.key.as_ref(), self.clock.now()),
                    Err(_) => AttemptResult::Ambiguous(error.to_string()),
                }
            }
        }
    }

    /// Asks for a run: `GET /v1/tasks/{id}`. Costs one request of the upstream's budget.
    pub async fn task(&self, id: &str) -> Lookup {
        let path = format!("/v1/tasks/{}", request::segment(id));
        match self.send(Method::GET, &path, Bytes::new(), TASK_TIMEOUT).await {
            Ok(answer) => answer::lookup(&answer, self.key.as_ref(), self.clock.now()),
            Err(error) => Lookup::Failed { detail: error.to_string(), retry_after: None },
        }
    }

    /// Makes a call with a caller's key and gives the answer as it is. `timeout` covers it to its last byte; none takes
    /// as long as a run may.
    pub async fn call_raw(
        &self,
        path: &str,
        body: Bytes,
        key: &Secret,
        timeout: Option<Duration>,
    ) -> Result<Response<Bytes>, SendError> {
        let request = self.request(Method::POST, path, body, Some(key), "application/json")?;
        self.client.send(request, timeout.unwrap_or(self.run_timeout), self.max_answer).await
    }

    /// Makes a call whose answer is a stream, and waits for its head. The body is the caller's to read; dropping it ends
    /// the call.
    pub async fn open_raw(&self, path: &str, body: Bytes, key: &Secret) -> Result<Response<Incoming>, SendError> {
        let request = self.request(Method::POST, path, body, Some(key), "text/event-stream")?;
        self.client.open(request, self.run_timeout).await
    }

    /// How long a blocking run may take.
    pub const fn run_timeout(&self) -> Duration {
        self.run_timeout
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Response<Bytes>, SendError> {
        let request = self.request(method, path, body, self.key.as_ref(), "application/json")?;
        self.client.send(request, timeout, self.max_answer).await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        key: Option<&Secret>,
        accept: &'static str,
    ) -> Result<Request<Bytes>, SendError> {
        let mut request = Request::builder()
            .uri(format!("{}{path}", self.base))
            .header(ACCEPT, accept)
            .header(USER_AGENT, concat!("sluicegate/", env!("CARGO_PKG_VERSION")));
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(key) = key {
            let mut key = HeaderValue::from_bytes(key.expose())
                .map_err(|_| SendError::NotSent(format!("the key {} cannot stand in a header", key.name())))?;
            key.set_sensitive(true);
            request = request.header("x-api-key", key);
        }
        request
            .method(method)
            .body(body)
            .map_err(|error| SendError::NotSent(format!("no request can be made of this call: {error}")))
    }
}
