//! A run of the stand-in: its fault, its duration, its answer and its stream of events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::ledger::Started;
use super::options::{StubDirective, StubFault, When};
use super::request::{InvokeRequest, RequestRecord};
use super::{Answer, Hangup, Stub, detail, fetch, json_answer, request};

/// Way in which a caller gets the result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InvokeMode {
    /// `/invoke`: at the end.
    Wait,
    /// `/invoke/async`: not at all; it asks.
    Start,
    /// `/invoke/stream`: as it goes.
    Stream,
}

/// Plan of a run.
#[derive(Debug)]
struct Course {
    delay: Duration,
    status: String,
    result: Option<String>,
    /// Files that the result reports at its end.
    files: Vec<String>,
}

impl Stub {
    /// Fault of the next call, by the rules.
    pub(super) fn fate(&self) -> Option<StubFault> {
        let mut chance = self.chance();
        chance.calls += 1;
        let calls = chance.calls;
        let options = self.options();
        options
            .fail
            .iter()
            .find(|rule| match rule.when {
                When::Every(every) => calls.is_multiple_of(every),
                When::Fraction(part) => chance.rng.f64() < part,
            })
            .map(|rule| rule.fault)
    }

    /// A call whose body has been read.
    pub(super) async fn invoke(
        self: &Arc<Self>,
        (kind, agent_id): (&str, &str),
        manner: InvokeMode,
        headers: &HeaderMap,
        request: RequestRecord,
        fate: Option<StubFault>,
    ) -> Result<Answer, Hangup> {
        let told = match request::read(kind, agent_id, headers, request) {
            Ok(told) => told,
            Err(problems) => {
                return Ok(json_answer(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    &json!({"detail": problems}),
                ));
            }
        };
        let wish = StubDirective::read(told.text());
        let asked = self.ledger().ask(&told);
        let wished = wish
            .fault
            .filter(|_| wish.times.is_none_or(|times| asked <= times));
        let fault = wished.or(fate);
        if let Some(fault) = fault {
            self.count(fault);
            if let Some(answer) = refusal(fault, wish.retry_after.as_deref()) {
                return answer;
            }
        }

        let course = self.course(&told, &wish, fault);
        let begins_as = if manner == InvokeMode::Wait {
            "executing"
        } else {
            "pending"
        };
        let run = self.ledger().begin(told, begins_as, self.clock.now());
        let id = Arc::clone(&run.id);
        let made = self.ledger().task(&id).unwrap_or_default();
        let pace = course.delay;
        let words = course.result.clone();
        // A task of its own, so that the run goes on when the caller leaves.
        let going = tokio::spawn(Arc::clone(self).go(run, course));
        match fault {
            Some(StubFault::DropAfter) => return Err(Hangup),
            Some(StubFault::Gateway) => return Ok(gateway()),
            _ => {}
        }
        let malformed = fault == Some(StubFault::Malformed);
        let task = match manner {
            InvokeMode::Start => made,
            InvokeMode::Wait => {
                // The task ends before this wait, unless the runtime ends.
                let _ = going.await;
                self.ledger().task(&id).unwrap_or_default()
            }
            InvokeMode::Stream => {
                let told = Telling {
                    stub: Arc::clone(self),
                    id,
                    made,
                    pace,
                    words,
                    malformed,
                };
                return Ok(told.answer(going));
            }
        };
        if malformed {
            let mut half = task.to_string();
            half.truncate(
                half.char_indices()
                    .nth(half.len() / 3)
                    .map_or(0, |(at, _)| at),
            );
            return Ok(super::answer(StatusCode::OK, "application/json", half));
        }
        Ok(json_answer(StatusCode::OK, &task))
    }

    fn course(
        &self,
        told: &InvokeRequest,
        wish: &StubDirective,
        fault: Option<StubFault>,
    ) -> Course {
        let options = self.options();
        let delay = wish.delay.unwrap_or(options.delay);
        let status = match (&wish.status, fault) {
            (Some(status), _) => status.clone(),
            (None, Some(StubFault::Failed)) => "failed".to_owned(),
            (None, _) => "completed".to_owned(),
        };
        let result = wish.result.clone().or_else(|| match status.as_str() {
            "completed" => Some(options.result.clone().unwrap_or_else(|| echo(told.text()))),
            "failed" | "error" => Some("it failed because it was asked to".to_owned()),
            _ => None,
        });
        let files = if wish.result.is_none() && status == "completed" {
            fetch::links(&told.input)
        } else {
            Vec::new()
        };
        Course {
            files,
            delay: if fault == Some(StubFault::Slow) {
                delay * 10 + Duration::from_secs(1)
            } else {
                delay
            },
            status,
            result,
        }
    }

    async fn go(self: Arc<Self>, run: Started, course: Course) {
        self.ledger().execute(&run, self.clock.now());
        if !course.delay.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(course.delay) => {}
                () = run.stop.notified() => {}
            }
        }
        let mut result = course.result;
        if !course.files.is_empty() {
            let lines = fetch::told(&self.client, &course.files).await;
            result.get_or_insert_default().push_str(&lines);
        }
        self.ledger()
            .end(&run, &course.status, result, self.clock.now());
    }
}

/// The answer of a fault that keeps a run from beginning.
fn refusal(fault: StubFault, retry_after: Option<&str>) -> Option<Result<Answer, Hangup>> {
    let status = match fault {
        StubFault::DropBefore => return Some(Err(Hangup)),
        StubFault::Status(status) => StatusCode::from_u16(status).ok()?,
        StubFault::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => return None,
    };
    let text = match status {
        StatusCode::TOO_MANY_REQUESTS => "Rate limit exceeded",
        status => status.canonical_reason().unwrap_or("Error"),
    };
    let mut answer = detail(status, text);
    let waits = matches!(fault, StubFault::Status(429 | 503)).then_some("1");
    if let Some(wait) = retry_after
        .or(waits)
        .and_then(|wait| HeaderValue::from_str(wait).ok())
    {
        answer.headers_mut().insert(RETRY_AFTER, wait);
    }
    Some(Ok(answer))
}

fn gateway() -> Answer {
    super::answer(
        StatusCode::BAD_GATEWAY,
        "text/html",
        "<html><body><h1>502 Bad Gateway</h1></body></html>",
    )
}

/// Default result of a run: the beginning of its input.
fn echo(text: &str) -> String {
    let start: String = text.chars().take(200).collect();
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(_) | Value::Array(_)) => format!("echo of JSON: {start}"),
        _ => format!("echo: {start}"),
    }
}

/// A run told as it goes.
struct Telling {
    stub: Arc<Stub>,
    id: Arc<str>,
    made: Value,
    pace: Duration,
    words: Option<String>,
    malformed: bool,
}

impl Telling {
    fn answer(self, going: tokio::task::JoinHandle<()>) -> Answer {
        let (tell, hear) = mpsc::channel::<Bytes>(16);
        // The stream ends early when the reader leaves; the run goes on.
        tokio::spawn(async move {
            let _ = self.tell(&tell, going).await;
        });
        let frames = stream::unfold(hear, async |mut hear| {
            hear.recv()
                .await
                .map(|piece| (Ok::<_, Infallible>(Frame::data(piece)), hear))
        });
        let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
        answer
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        answer
    }

    async fn tell(
        self,
        tell: &mpsc::Sender<Bytes>,
        going: tokio::task::JoinHandle<()>,
    ) -> Result<(), mpsc::error::SendError<Bytes>> {
        let mut made = self.made.clone();
        tell.send(self.event("connected", json!({}))).await?;
        tell.send(self.event("task_created", made.clone())).await?;
        made["status"] = "executing".into();
        tell.send(self.event("task_updated", made)).await?;
        let words = self.words.clone().unwrap_or_default();
        let pieces: Vec<&str> = words.split_inclusive(' ').collect();
        let pieces: Vec<String> = pieces
            .chunks(pieces.len().div_ceil(8).max(1))
            .map(<[&str]>::concat)
            .collect();
        let pause = self.pace / u32::try_from(pieces.len() + 1).unwrap_or(u32::MAX);
        for piece in pieces {
            tokio::time::sleep(pause).await;
            tell.send(self.event("chunk", piece.into())).await?;
        }
        let _ = going.await;
        let mut end = self.event(
            "task_finished",
            self.stub.ledger().task(&self.id).unwrap_or_default(),
        );
        if self.malformed {
            end.truncate(end.len() / 2);
        }
        tell.send(end).await
    }

    fn event(&self, kind: &str, data: Value) -> Bytes {
        let event = json!({
            "type": kind,
            "task_id": &*self.id,
            "organization_id": self.made["organization_id"],
            "time": self.stub.clock.now(),
            "data": data,
        });
        format!("data: {event}\n\n").into()
    }
}
