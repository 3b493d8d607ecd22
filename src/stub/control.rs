//! The control plane, as far as the SDK's first calls need it: agents by id, runs started and followed, stopped and
//! renamed. What it starts is a run like any other.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::invoke::InvokeMode;
use super::{Answer, Hangup, Stub, detail, found, json_answer, no_key};

/// Interval at which a run is looked at while its events are read.
const LOOK: Duration = Duration::from_millis(50);

/// Longest time for which events of a run are sent.
const LONGEST: Duration = Duration::from_secs(1_500);

impl Stub {
    /// Answers a call of the control plane, whose paths have no version; nothing for any other path.
    pub(super) async fn control(
        self: &Arc<Self>,
        parts: &[&str],
        request: Request<Incoming>,
    ) -> Option<Result<Answer, Hangup>> {
        let is_ours = matches!(
            parts,
            ["agents", _] | ["agent-execution", ..] | [_, "agent-execution", _, "events"]
        );
        if !is_ours {
            return None;
        }
        if !self.admits(request.headers()) {
            return Some(Ok(no_key()));
        }
        Some(match (request.method(), parts) {
            (&Method::GET, ["agents", id]) => Ok(self.agent(id)),
            (&Method::POST, ["agent-execution", id]) => {
                self.run(("agents", id), InvokeMode::Start, request).await
            }
            (&Method::DELETE, ["agent-execution", id]) => {
                let mut ledger = self.ledger();
                ledger.stop(id, self.clock.now());
                Ok(found(ledger.task(id)))
            }
            (&Method::GET, ["agent-execution", id, "status"])
            | (&Method::PATCH, ["agent-execution", id, "update"]) => {
                Ok(found(self.ledger().task(id)))
            }
            (&Method::GET, [_, "agent-execution", id, "events"]) => Ok(self.events(id)),
            _ => Ok(detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")),
        })
    }

    /// True if an agent or workflow exists. Without a list, every id exists.
    pub(super) fn has(&self, kind: &str, id: &str) -> bool {
        let options = self.options();
        let kind = kind.trim_end_matches('s');
        options.agents.is_empty()
            || options
                .agents
                .iter()
                .any(|one| one == id || *one == format!("{kind}/{id}"))
    }

    /// An agent as the control plane and the API show it.
    pub(super) fn agent(&self, id: &str) -> Answer {
        if self.has("agents", id) {
            json_answer(StatusCode::OK, &agent(id))
        } else {
            no_agent()
        }
    }

    /// The agents that were named.
    pub(super) fn agents(&self) -> Answer {
        let named = self.options().agents.clone();
        let items: Vec<Value> = named
            .iter()
            .filter(|id| !id.starts_with("workflow/"))
            .map(|id| agent(id.trim_start_matches("agent/")))
            .collect();
        json_answer(
            StatusCode::OK,
            &json!({ "total": items.len(), "items": items, "page": 1, "total_pages": 1 }),
        )
    }

    /// A run, told until its end.
    fn events(self: &Arc<Self>, id: &str) -> Answer {
        let Some(first) = self.ledger().task(id) else {
            return found(None);
        };
        let (tell, hear) = mpsc::channel::<Bytes>(16);
        tokio::spawn(tokio::time::timeout(
            LONGEST,
            Arc::clone(self).follow(id.to_owned(), first, tell),
        ));
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

    async fn follow(self: Arc<Self>, id: String, first: Value, tell: mpsc::Sender<Bytes>) {
        let event = |kind: &str, task: &Value| {
            let event = json!({
                "type": kind,
                "task_id": id,
                "organization_id": task["organization_id"],
                "time": self.clock.now(),
                "data": task,
            });
            Bytes::from(format!("data: {event}\n\n"))
        };
        if tell.send(event("task_created", &first)).await.is_err() {
            return;
        }
        let mut last = first["status"].clone();
        loop {
            let task = self.ledger().task(&id).unwrap_or_default();
            let ended = matches!(
                task["status"].as_str(),
                None | Some("completed" | "failed" | "error" | "stopped")
            );
            if ended {
                let _ = tell.send(event("task_finished", &task)).await;
                return;
            }
            if task["status"] != last {
                last = task["status"].clone();
                if tell.send(event("task_updated", &task)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = tell.closed() => return,
            }
        }
    }
}

pub(super) fn no_agent() -> Answer {
    detail(StatusCode::NOT_FOUND, "Agent not found")
}

fn agent(id: &str) -> Value {
    json!({
        "id": id,
        "organization_id": "stub",
        "name": format!("Stand-in for {id}"),
        "unique_name": id,
        "environment_id": "stub",
        "framework": "agno",
        "model_provider": "stub",
        "model_name": "stub",
        "instructions": { "role": [], "goal": [], "general": "" },
        "graph": [],
        "tools": [],
        "created_at": "2026-01-01T00:00:00Z",
    })
}
