//! The agent platform's API: one call per attempt, and the question what became of a run.

pub mod answer;
pub mod request;

use std::time::Duration;

use crate::config;
use crate::model::{AttemptResult, Run};
use crate::net::Client;

pub use request::Call;

/// The upstream, ready to be called.
#[derive(Debug)]
pub struct Upstream {}

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
    pub fn new(_config: &config::Upstream, _client: Client) -> Self {
        unimplemented!()
    }

    /// Runs an agent and waits for the end: `POST …/invoke`.
    pub async fn invoke(&self, _call: &Call) -> AttemptResult {
        unimplemented!()
    }

    /// Asks for a run: `GET /v1/tasks/{id}`. Costs one request of the upstream's budget.
    pub async fn task(&self, _id: &str) -> Lookup {
        unimplemented!()
    }
}
