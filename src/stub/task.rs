//! A task of the stand-in.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::model::Timestamp;

/// A task with its latest turn.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) agent_id: String,
    pub(super) turn: u32,
    /// Runs of this id that go on now.
    pub(super) running: u32,
    pub(super) status: String,
    pub(super) result: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) stopped: bool,
    pub(super) input: Map<String, Value>,
    pub(super) fields: Map<String, Value>,
    pub(super) stop: Arc<Notify>,
    pub(super) bytes: usize,
}

/// Properties of a task that a list can be filtered by.
#[derive(Debug)]
pub(super) struct TaskFacts<'a> {
    pub(super) agent_id: &'a str,
    pub(super) user_id: Option<&'a str>,
    pub(super) status: &'a str,
}

impl Task {
    /// The task as the API shows it.
    pub(super) fn view(&self, id: &str) -> Value {
        let mut view = json!({
            "id": id,
            "agent_id": self.agent_id,
            "organization_id": "00000000-0000-4000-8000-000000000000",
            "input": self.input,
            "status": self.status,
            "result": self.result,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "execution_attempts": 1,
            "is_manually_stopped": self.stopped,
            "source": "api",
            "source_node_type": "sdk",
            "title": null,
        });
        for (key, value) in &self.fields {
            view[key.as_str()] = value.clone();
        }
        view
    }
}
