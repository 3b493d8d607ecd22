//! The agent platform's API: one call per attempt, and the question what became of a run.
//!
//! What is promised: a call is one request, never repeated here; what it came to says whether anything may have run
//! (`answer.rs`). The key leaves by the `x-api-key` header and by no other way; a name and a password that stand in
//! `upstream.base_url` leave as basic auth. All requests wait for their turn within
//! `upstream.budget`.

pub mod answer;
mod budget;
pub mod call;
mod collected;
pub mod hosted;
pub mod stream;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::config::{self, RunMode, Secret};
use crate::model::{AttemptResult, Clock, Run, RunStatus};
use crate::net::{Client, LoopGuard, SendError};

pub use budget::{Budget, Draw, Expected};
pub use call::{Call, MissingFile};

/// How long the question for a run, or the order to start one, may take.
const TASK_TIMEOUT: Duration = Duration::from_secs(30);

/// The upstream, ready to be called. Cheap to clone; clones share the connections and the budget.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: Client,
    /// Scheme, host and the path that stands before every call's own, without a slash at the end.
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

/// What the upstream knows of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// This.
    Found(Run),
    /// Nothing: no run of this id has begun.
    NotFound,
    /// It could not say.
    Failed {
        /// The HTTP status, where it answered.
        status: Option<u16>,
        /// A sentence for the operator.
        detail: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
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

    /// The same, with a mark on what is sent.
    #[must_use]
    pub fn marked(mut self, mark: LoopGuard) -> Self {
        self.mark = Some(mark);
        self
    }

    /// The same, whose requests are somebody's.
    #[must_use]
    pub fn of(&self, draw: Draw) -> Self {
        Self {
            draw,
            ..self.clone()
        }
    }

    /// Runs an agent in the call's manner: to its end, or for [`RunMode::Async`] to the word that it was started.
    pub async fn invoke(&self, call: &Call) -> AttemptResult {
        let key = self.key_of(call);
        let timeout = call.timeout.unwrap_or(self.run_timeout);
        match call.run {
            RunMode::Call => self.judged(self.post(call, timeout).await, key),
            RunMode::Async => {
                match self.judged(self.post(call, timeout.min(TASK_TIMEOUT)).await, key) {
                    // It was taken; what came of it is yet to be asked.
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
                self.budget.turn(&self.draw).await;
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
            Ok(answer) => self.judged(self.read(answer).await, self.key_of(call)),
            Err(error) => self.judged(Err(error), self.key_of(call)),
        }
    }

    /// Makes a call and waits for the head of its answer. The body is the caller's to read and to bound; dropping it
    /// closes the connection.
    pub async fn open(&self, call: &Call) -> Result<Response<Incoming>, SendError> {
        self.budget.turn(&self.draw).await;
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

    /// The request that a call is, as it is sent. Headers with a key in them are marked sensitive.
    pub fn request_of(&self, call: &Call) -> Result<Request<Bytes>, SendError> {
        let accept = if call.run == RunMode::Stream {
            "text/event-stream"
        } else {
            "application/json"
        };
        self.request(
            Method::POST,
            &call.path,
            call.body.clone(),
            self.key_of(call),
            accept,
        )
    }

    /// What an answer that is no stream says.
    pub async fn refusal(&self, call: &Call, answer: Response<Incoming>) -> AttemptResult {
        match tokio::time::timeout(TASK_TIMEOUT, self.read(answer)).await {
            Ok(answer) => self.judged(answer, self.key_of(call)),
            Err(_) => AttemptResult::Ambiguous("its answer was not whole in time".into()),
        }
    }

    /// Asks for a run: `GET /v1/tasks/{id}`, with the key of the call it belongs to where that had its own. Costs one
    /// request of the upstream's budget.
    pub async fn task(&self, id: &str, key: Option<&Secret>) -> Lookup {
        let path = format!("/v1/tasks/{}", call::segment(id));
        let key = key.or(self.key.as_ref());
        let request = self.request(Method::GET, &path, Bytes::new(), key, "application/json");
        self.budget
            .turn(&Draw {
                claimed: false,
                ..self.draw.clone()
            })
            .await;
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

    /// Waits for a turn within the budget, for a request that is sent elsewhere.
    pub async fn turn(&self) {
        self.budget.turn(&self.draw).await;
    }

    /// How long a request would wait for its turn within the budget, where that is longer than `most`.
    pub fn is_busy(&self, most: Duration) -> Option<Duration> {
        Some(self.budget.wait(&self.draw, Instant::now())).filter(|wait| *wait > most)
    }

    fn key_of<'a>(&'a self, call: &'a Call) -> Option<&'a Secret> {
        call.key.as_ref().or(self.key.as_ref())
    }

    fn judged(
        &self,
        answer: Result<Response<Bytes>, SendError>,
        key: Option<&Secret>,
    ) -> AttemptResult {
        match answer {
            Ok(answer) => answer::invoke(&answer, key, self.clock.now()),
            Err(SendError::NotSent(why)) => AttemptResult::NotSent(why),
            Err(SendError::Ambiguous(why)) => AttemptResult::Ambiguous(why),
            // The status alone decides; what was said cannot be kept.
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
        self.budget.turn(&self.draw).await;
        self.client.send(request, timeout, self.max_answer).await
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
        self.budget.turn(&self.draw).await;
        self.client
            .send(
                request,
                timeout.unwrap_or(self.run_timeout),
                self.max_answer,
            )
            .await
    }

    /// Asks for a caller's own tasks, with its key: what shows whether the upstream knows the key, and costs no run.
    pub async fn ask_raw(
        &self,
        agent: Option<&str>,
        key: &Secret,
        timeout: Duration,
    ) -> Result<Response<Bytes>, SendError> {
        let agent = agent
            .map(|agent| format!("&agent_id={}", call::segment(agent)))
            .unwrap_or_default();
        let path = format!("/v1/tasks?page=1&per_page=1{agent}");
        let request = self.request(
            Method::GET,
            &path,
            Bytes::new(),
            Some(key),
            "application/json",
        )?;
        self.budget.turn(&self.draw).await;
        self.client.send(request, timeout, self.max_answer).await
    }

    /// Asks whether there is an agent, which costs no run.
    pub async fn ask_agent(
        &self,
        agent: &str,
        key: &Secret,
        timeout: Duration,
    ) -> Result<Response<Bytes>, SendError> {
        let path = format!("/v1/agents/{}", call::segment(agent));
        let request = self.request(
            Method::GET,
            &path,
            Bytes::new(),
            Some(key),
            "application/json",
        )?;
        self.client.send(request, timeout, self.max_answer).await
    }

    /// Makes a call whose answer is a stream, and waits for its head. The body is the caller's to read; dropping it ends
    /// the call.
    pub async fn open_raw(
        &self,
        path: &str,
        body: Bytes,
        key: &Secret,
    ) -> Result<Response<Incoming>, SendError> {
        let request = self.request(Method::POST, path, body, Some(key), "text/event-stream")?;
        self.budget.turn(&self.draw).await;
        self.client.open(request, self.run_timeout).await
    }

    /// How long a blocking run may take.
    pub const fn run_timeout(&self) -> Duration {
        self.run_timeout
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

    /// Reads an answer whole, within the bound on its size.
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

/// Whether an answer tells of a run as it goes.
pub fn is_stream(answer: &Response<Incoming>) -> bool {
    let kind = answer
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    answer.status().is_success() && kind.eq_ignore_ascii_case("text/event-stream")
}
