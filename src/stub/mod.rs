//! A stand-in for the upstream's API, for trying out and for tests.
//!
//! It keeps the contract: keys, schemas, task records that later calls continue, runs that go on when the caller
//! hangs up, the stream. It runs nothing; a run waits and repeats what it was told, and of each file that it was given
//! the size and digest. It fails on request, by rules
//! ([`FailRule`]) or because a message asks for it ([`options::StubDirective`]), and under `/_stub/` it tells what it saw:
//!
//! * `GET /_stub/runs` every run that began, in order: `{"runs": […]}`; `?after=NUMBER`, `?limit=N`, `?brief=true`
//! * `GET /_stub/stats` counts, `overlaps` and `duplicates` among them
//! * `POST /_stub/options` changes [`StubOptions`] at run time
//! * `DELETE /_stub/runs` forgets runs and counts, but no task
//!
//! The control plane's calls that the SDK begins with are there as well (`control`). With a list of agents or of keys,
//! others are unknown.
//!
//! It is no server for strangers: `/_stub/` asks for no key.

mod control;
mod fetch;
mod invoke;
mod ledger;
pub mod options;
mod request;
mod serve;
mod stats;
mod task;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use parking_lot::{Mutex, MutexGuard};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use self::invoke::InvokeMode;
use self::ledger::Ledger;
pub use self::options::{FailRule, StubFault, StubOptions, When};
use self::request::RequestRecord;
pub use self::serve::serve;
use crate::model::Clock;
use crate::net::Client;

/// The largest body that is read.
const MAX_BODY: usize = 16 * 1024 * 1024;
/// Time limit for a connection to the host of a file.
const CONNECT: Duration = Duration::from_secs(5);
/// The stand-in. One may serve several listeners.
#[derive(Debug)]
pub struct Stub {
    options: Mutex<StubOptions>,
    chance: Mutex<Chance>,
    ledger: Mutex<Ledger>,
    clock: Clock,
    client: Client,
}

#[derive(Debug)]
struct Chance {
    rng: fastrand::Rng,
    calls: u64,
}

/// The connection is to be closed without an answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the stub hangs up on request")]
struct Hangup;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl Stub {
    /// A stand-in that remembers nothing yet. Fails only when its journal cannot be opened.
    pub fn new(options: StubOptions) -> std::io::Result<Self> {
        let journal = match &options.journal {
            Some(file) => Some(
                std::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(file)?,
            ),
            None => None,
        };
        Ok(Self {
            chance: Mutex::new(Chance {
                rng: fastrand::Rng::with_seed(options.seed),
                calls: 0,
            }),
            options: Mutex::new(options),
            ledger: Mutex::new(Ledger::new(journal)),
            clock: Clock::system(),
            client: Client::new(CONNECT, None).map_err(std::io::Error::other)?,
        })
    }

    // What one panic left behind is still good enough to test with; so are the guards that it poisoned.
    fn options(&self) -> MutexGuard<'_, StubOptions> {
        self.options.lock()
    }

    fn chance(&self) -> MutexGuard<'_, Chance> {
        self.chance.lock()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    fn count(&self, fault: StubFault) {
        *self.ledger().stats.faults.entry(fault.word()).or_default() += 1;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Hangup> {
        let path = request.uri().path().to_owned();
        let parts: Result<Vec<_>, _> = path
            .split('/')
            .skip(1)
            .map(|part| percent_decode_str(part).decode_utf8())
            .collect();
        let Ok(parts) = parts else {
            return Ok(detail(StatusCode::NOT_FOUND, "Not Found"));
        };
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        let query: Vec<(String, String)> =
            form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        match parts.as_slice() {
            ["health"] => Ok(json_answer(StatusCode::OK, &json!({"status": "healthy"}))),
            ["_stub", what] => Ok(self.inspect(what, &query, request).await),
            ["v1", rest @ ..] => {
                self.ledger().stats.requests += 1;
                let answer = self.api(rest, &query, request).await;
                if let Ok(answer) = &answer {
                    *self
                        .ledger()
                        .stats
                        .answers
                        .entry(answer.status().as_u16())
                        .or_default() += 1;
                }
                answer
            }
            other => match self.control(other, request).await {
                Some(answer) => answer,
                None => Ok(detail(StatusCode::NOT_FOUND, "Not Found")),
            },
        }
    }

    async fn api(
        self: &Arc<Self>,
        parts: &[&str],
        query: &[(String, String)],
        request: Request<Incoming>,
    ) -> Result<Answer, Hangup> {
        let (kind, agent_id, manner) = match (request.method(), parts) {
            (&Method::POST, [kind @ ("agents" | "workflows"), id, "invoke", manner @ ..])
                if !id.is_empty() =>
            {
                match manner {
                    [] => (*kind, *id, InvokeMode::Wait),
                    ["async"] => (*kind, *id, InvokeMode::Start),
                    ["stream"] => (*kind, *id, InvokeMode::Stream),
                    _ => return Ok(detail(StatusCode::NOT_FOUND, "Not Found")),
                }
            }
            (_, ["agents" | "workflows", _, "invoke", ..]) => {
                return Ok(detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"));
            }
            (&Method::GET, ["agents"]) if self.admits(request.headers()) => {
                return Ok(self.agents());
            }
            (&Method::GET, ["agents", id]) if self.admits(request.headers()) => {
                return Ok(self.agent(id));
            }
            (&Method::GET, ["agents"] | ["agents", _]) => return Ok(no_key()),
            (method, ["tasks", rest @ ..]) => {
                let method = method.clone();
                return Ok(if self.admits(request.headers()) {
                    self.tasks(&method, rest, query)
                } else {
                    no_key()
                });
            }
            _ => return Ok(detail(StatusCode::NOT_FOUND, "Not Found")),
        };
        if !self.admits(request.headers()) {
            return Ok(no_key());
        }
        self.run((kind, agent_id), manner, request).await
    }

    /// Begins a run of an agent or workflow, or fails as it was told to.
    async fn run(
        self: &Arc<Self>,
        (kind, id): (&str, &str),
        manner: InvokeMode,
        request: Request<Incoming>,
    ) -> Result<Answer, Hangup> {
        if !self.has(kind, id) {
            return Ok(control::no_agent());
        }
        let fate = self.fate();
        if fate == Some(StubFault::DropBefore) {
            self.count(StubFault::DropBefore);
            return Err(Hangup);
        }
        let (head, body) = request.into_parts();
        // Too large, or broken off by the caller, who then hears nothing of it.
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            return Ok(detail(
                StatusCode::PAYLOAD_TOO_LARGE,
                "Request Entity Too Large",
            ));
        };
        let record = RequestRecord {
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head
                .headers
                .keys()
                .map(|name| name.as_str().to_owned())
                .collect(),
            body: body.to_bytes(),
        };
        self.invoke((kind, id), manner, &head.headers, record, fate)
            .await
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(shown) = headers.get("x-api-key") else {
            return false;
        };
        let options = self.options();
        let mut keys = options.api_key.iter().chain(&options.keys).peekable();
        !shown.is_empty()
            && (keys.peek().is_none() || keys.any(|key| key.expose() == shown.as_bytes()))
    }

    fn tasks(&self, method: &Method, parts: &[&str], query: &[(String, String)]) -> Answer {
        let mut ledger = self.ledger();
        match (method, parts) {
            (&Method::GET, []) => {
                let page = number(query, "page").unwrap_or(1).max(1);
                let per_page = number(query, "per_page").unwrap_or(20);
                if !(1..=50).contains(&per_page) {
                    let problem = json!({
                        "type": "less_than_equal", "loc": ["query", "per_page"],
                        "msg": "Input should be between 1 and 50",
                    });
                    return json_answer(
                        StatusCode::UNPROCESSABLE_ENTITY,
                        &json!({"detail": [problem]}),
                    );
                }
                let (agent_id, user_id, status) = (
                    value(query, "agent_id"),
                    value(query, "user_id"),
                    value(query, "status"),
                );
                let (items, total) = ledger.list(
                    |task| {
                        agent_id.is_none_or(|id| id == task.agent_id)
                            && user_id.is_none_or(|id| Some(id) == task.user_id)
                            && status.is_none_or(|status| status == task.status)
                    },
                    (page - 1).saturating_mul(per_page),
                    per_page,
                );
                json_answer(
                    StatusCode::OK,
                    &json!({
                        "items": items, "total": total, "page": page, "per_page": per_page,
                        "total_pages": total.div_ceil(per_page),
                    }),
                )
            }
            (&Method::GET, [id]) => found(ledger.task(id)),
            (&Method::POST, [id, "stop"]) => {
                ledger.stop(id, self.clock.now());
                found(ledger.task(id))
            }
            (_, [] | [_] | [_, "stop"]) => {
                detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
            }
            _ => detail(StatusCode::NOT_FOUND, "Not Found"),
        }
    }

    async fn inspect(
        &self,
        what: &str,
        query: &[(String, String)],
        request: Request<Incoming>,
    ) -> Answer {
        match (request.method(), what) {
            (&Method::GET, "runs") => {
                let after = number(query, "after").and_then(|after| u64::try_from(after).ok());
                let limit = number(query, "limit").unwrap_or(usize::MAX);
                let runs = self
                    .ledger()
                    .runs(after, limit, value(query, "brief") == Some("true"));
                json_answer(StatusCode::OK, &json!({"runs": runs}))
            }
            (&Method::DELETE, "runs") => {
                self.ledger().clear_runs();
                json_answer(StatusCode::OK, &json!({}))
            }
            (&Method::GET, "stats") => {
                let stats = self.ledger().stats.clone();
                json_answer(StatusCode::OK, &json!(stats))
            }
            (&Method::POST, "options") => {
                let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
                    return detail(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large");
                };
                match serde_json::from_slice(&body.to_bytes()) {
                    Ok(change) => {
                        self.options().apply(change);
                        json_answer(StatusCode::OK, &json!({}))
                    }
                    Err(error) => detail(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
                }
            }
            _ => detail(StatusCode::NOT_FOUND, "Not Found"),
        }
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn json_answer(status: StatusCode, body: &Value) -> Answer {
    answer(status, "application/json", body.to_string())
}

fn detail(status: StatusCode, text: &str) -> Answer {
    json_answer(status, &json!({"detail": text}))
}

fn no_key() -> Answer {
    detail(StatusCode::UNAUTHORIZED, "Invalid or missing API key")
}

fn found(task: Option<Value>) -> Answer {
    match task {
        Some(task) => json_answer(StatusCode::OK, &task),
        None => detail(StatusCode::NOT_FOUND, "Task not found"),
    }
}

fn value<'a>(query: &'a [(String, String)], key: &str) -> Option<&'a str> {
    query
        .iter()
        .rfind(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

fn number(query: &[(String, String)], key: &str) -> Option<usize> {
    value(query, key)?.parse().ok()
}

#[cfg(test)]
mod tests;
