//! The agent platform's API: one call per attempt, and the question what became of a run.
//!
//! Promises: a call is one request and is never repeated here; its result says whether anything may have run
//! ([`answer`]). The key is sent in the `x-api-key` header and nowhere else; a name and a password in
//! `upstream.base_url` are sent as basic authentication. All requests wait for a permit of `upstream.budget`.

pub mod answer;
mod body;
mod budget;
mod call;
mod collected;
mod event_json;
mod fence;
pub mod hosted;
mod missing_file;
mod path;
mod raw;
mod sealed;
pub mod stream;
#[cfg(test)]
mod tests;
mod text;
mod user;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::config::{self, RunMode, Secret};
use crate::model::{AttemptResult, Clock, Lookup, Run, RunStatus};
use crate::net::{Client, LoopGuard, SendError};

pub use body::{CallInput, InvokeBody};
pub use budget::{Budget, Draw, Expected};
pub use call::Call;
pub use fence::same_message;
pub use missing_file::MissingFile;
pub use text::text_of_turn;
pub use user::UserDetails;

/// The longest time for the question for a run, or for the order to start one.
const TASK_TIMEOUT: Duration = Duration::from_secs(30);

/// The upstream, ready to be called. Cheap to clone; clones share the connections and the budget.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: Client,
    /// The scheme, the host and the path that stands before every call's own path, without a slash at the end.
    base: String,
    key: Option<Secret>,
    login: Option<HeaderValue>,
    run_timeout: Duration,
    max_answer: u64,
    budget: Budget,
    draw: Draw,
    mark: Option<LoopGuard>,
    clock: Clock,
}

impl Upstream {
    /// The upstream of a configuration. Its requests draw on `budget`, which outlives it and keeps to the rate that
    /// is configured now.
    pub fn new(config: &config::UpstreamConfig, client: Client, budget: Budget) -> Self {
        budget.set(config.budget);
        Self {
            client,
            base: config.base_url.to_string().trim_end_matches('/').to_owned(),
            key: config.api_key.clone(),
            login: config.login.as_ref().and_then(Secret::as_header),
            run_timeout: config.run_timeout,
            max_answer: config.max_answer,
            budget,
            draw: Draw::default(),
            mark: None,
            clock: Clock::system(),
        }
    }

    /// The same upstream, with a mark on every request.
    #[must_use]
    pub fn marked(mut self, mark: LoopGuard) -> Self {
        self.mark = Some(mark);
        self
    }

    /// The same upstream, whose requests draw on the budget for this account and class.
    #[must_use]
    pub fn of(&self, draw: Draw) -> Self {
        Self {
            draw,
            ..self.clone()
        }
    }

    /// Runs an agent in the call's mode: to its end, or for [`RunMode::Async`] until the upstream says that it started.
    pub async fn invoke(&self, call: &Call) -> AttemptResult {
        let key = self.key_of(call);
        let timeout = call.timeout.unwrap_or(self.run_timeout);
        match call.run {
            RunMode::Call => self.result_of(self.post(call, timeout).await, key),
            RunMode::Async => {
                let answer = self.post(call, timeout.min(TASK_TIMEOUT)).await;
                match self.result_of(answer, key) {
                    // The upstream took it; its end is yet to be asked for.
                    AttemptResult::Ran(run) if run.status_text == answer::UNREADABLE => {
                        AttemptResult::Ran(Run {
                            status: RunStatus::Running,
                            ..run
                        })
                    }
                    result => result,
                }
            }
            RunMode::Stream => {
                self.budget.acquire(&self.draw).await;
                match tokio::time::timeout(timeout, self.follow_stream(call, timeout)).await {
                    Ok(result) => result,
                    Err(_) => AttemptResult::Ambiguous(format!(
                        "no end within {} s",
                        timeout.as_secs_f64()
                    )),
                }
            }
        }
    }

    async fn follow_stream(&self, call: &Call, timeout: Duration) -> AttemptResult {
        match self.open_now(call, timeout).await {
            Ok(answer) if is_stream(&answer) => {
                stream::read(answer.into_body(), self.max_answer).await
            }
            Ok(answer) => self.result_of(self.read(answer).await, self.key_of(call)),
            Err(error) => self.result_of(Err(error), self.key_of(call)),
        }
    }

    /// Sends a call and waits for the head of its answer. The body is the caller's to read and to bound; dropping it
    /// closes the connection.
    pub async fn open(&self, call: &Call) -> Result<Response<Incoming>, SendError> {
        self.budget.acquire(&self.draw).await;
        self.open_now(call, call.timeout.unwrap_or(self.run_timeout))
            .await
    }

    async fn open_now(
        &self,
        call: &Call,
        timeout: Duration,
    ) -> Result<Response<Incoming>, SendError> {
        self.client.open(self.request_of(call)?, timeout).await
    }

    /// The request of a call, as it is sent. Headers that hold a key are marked sensitive.
    pub fn request_of(&self, call: &Call) -> Result<Request<Bytes>, SendError> {
        let accept = if call.run == RunMode::Stream {
            "text/event-stream"
        } else {
            "application/json"
        };
        let (body, key) = (call.body.to_json(), self.key_of(call));
        self.request(Method::POST, &call.path, body, key, accept)
    }

    /// The result of an answer that is not a stream of events.
    pub async fn refusal(&self, call: &Call, answer: Response<Incoming>) -> AttemptResult {
        match tokio::time::timeout(TASK_TIMEOUT, self.read(answer)).await {
            Ok(answer) => self.result_of(answer, self.key_of(call)),
            Err(_) => AttemptResult::Ambiguous("its answer was not whole in time".into()),
        }
    }

    /// Asks for a run: `GET /v1/tasks/{id}`, with the key of the call it belongs to where that had its own. Costs one
    /// request of the upstream's budget.
    pub async fn task(&self, id: &str, key: Option<&Secret>) -> Lookup {
        let key = key.or(self.key.as_ref());
        let request = self.get(&format!("/v1/tasks/{}", path::segment(id)), key);
        let draw = Draw {
            claimed: false,
            ..self.draw.clone()
        };
        self.budget.acquire(&draw).await;
        let answer = match request {
            Ok(request) => {
                self.client
                    .send(request, TASK_TIMEOUT, self.max_answer)
                    .await
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => answer::lookup(&answer, key, self.clock.now()),
            Err(error) => Lookup::Failed {
                status: None,
                detail: error.to_string(),
                retry_after: None,
            },
        }
    }

    /// Waits for a permit of the budget, for a request that is sent elsewhere.
    pub async fn wait_for_permit(&self) {
        self.budget.acquire(&self.draw).await;
    }

    /// The time that a request would wait for a permit of the budget, where that is longer than `most`.
    pub fn is_busy(&self, most: Duration) -> Option<Duration> {
        Some(self.budget.wait(&self.draw, Instant::now())).filter(|wait| *wait > most)
    }

    /// The longest time for a blocking run.
    pub const fn run_timeout(&self) -> Duration {
        self.run_timeout
    }

    fn key_of<'a>(&'a self, call: &'a Call) -> Option<&'a Secret> {
        call.key.as_ref().or(self.key.as_ref())
    }

    fn result_of(
        &self,
        answer: Result<Response<Bytes>, SendError>,
        key: Option<&Secret>,
    ) -> AttemptResult {
        match answer {
            Ok(answer) => answer::invoke(&answer, key, self.clock.now()),
            Err(SendError::NotSent(why)) => AttemptResult::NotSent(why),
            Err(SendError::Ambiguous(why)) => AttemptResult::Ambiguous(why),
            // The status alone decides: an answer of this size cannot be kept.
            Err(error @ SendError::TooLarge { status, .. }) => {
                let empty = Response::builder()
                    .status(status)
                    .body(Bytes::from(error.to_string()));
                match empty {
                    Ok(answer) => answer::invoke(&answer, key, self.clock.now()),
                    Err(_) => AttemptResult::Ambiguous(error.to_string()),
                }
            }
        }
    }

    async fn post(&self, call: &Call, timeout: Duration) -> Result<Response<Bytes>, SendError> {
        let request = self.request_of(call)?;
        self.budget.acquire(&self.draw).await;
        self.client.send(request, timeout, self.max_answer).await
    }

    fn get(&self, path: &str, key: Option<&Secret>) -> Result<Request<Bytes>, SendError> {
        self.request(Method::GET, path, Bytes::new(), key, "application/json")
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
            .header(ACCEPT_ENCODING, "identity")
            .header(
                USER_AGENT,
                concat!("sluicegate/", env!("CARGO_PKG_VERSION")),
            );
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(key) = key {
            let mut key = HeaderValue::from_bytes(key.expose()).map_err(|_| {
                SendError::NotSent("the upstream's key cannot stand in a header".into())
            })?;
            key.set_sensitive(true);
            request = request.header("x-api-key", key);
        }
        if let Some(login) = &self.login {
            request = request.header(AUTHORIZATION, login);
        }
        let mut request = request.method(method).body(body).map_err(|error| {
            SendError::NotSent(format!("no request can be made of this call: {error}"))
        })?;
        if let Some(mark) = &self.mark {
            let server = request.uri().clone();
            mark.put_on(request.headers_mut(), &server);
        }
        Ok(request)
    }

    /// Reads an answer to its end, up to the largest size that is allowed.
    async fn read(&self, answer: Response<Incoming>) -> Result<Response<Bytes>, SendError> {
        let (head, mut body) = answer.into_parts();
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                SendError::Ambiguous(format!("its answer was cut off: {error}"))
            })?;
            if let Some(piece) = frame.data_ref() {
                if (whole.len() + piece.len()) as u64 > self.max_answer {
                    return Err(SendError::TooLarge {
                        status: head.status,
                        limit: self.max_answer,
                    });
                }
                whole.extend_from_slice(piece);
            }
        }
        Ok(Response::from_parts(head, whole.freeze()))
    }
}

/// True if an answer is a stream of events.
pub fn is_stream(answer: &Response<Incoming>) -> bool {
    let kind = answer
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    answer.status().is_success() && kind.eq_ignore_ascii_case("text/event-stream")
}
