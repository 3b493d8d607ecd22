//! Requests with a caller's own key, whose answers are handed on as they are.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use hyper::body::Incoming;

use super::{Upstream, path};
use crate::config::Secret;
use crate::net::SendError;

impl Upstream {
    /// Sends a call with a caller's key and returns the answer as it is. `timeout` covers it to its last byte; without
    /// one it may take as long as a run.
    pub async fn call_raw(
        &self,
        path: &str,
        body: Bytes,
        key: &Secret,
        timeout: Option<Duration>,
    ) -> Result<Response<Bytes>, SendError> {
        let request = self.request(Method::POST, path, body, Some(key), "application/json")?;
        self.budget.acquire(&self.draw).await;
        let timeout = timeout.unwrap_or(self.run_timeout);
        self.client.send(request, timeout, self.max_answer).await
    }

    /// Sends a call whose answer is a stream, and waits for its head. The body is the caller's to read; dropping it ends
    /// the call.
    pub async fn open_raw(
        &self,
        path: &str,
        body: Bytes,
        key: &Secret,
    ) -> Result<Response<Incoming>, SendError> {
        let request = self.request(Method::POST, path, body, Some(key), "text/event-stream")?;
        self.budget.acquire(&self.draw).await;
        self.client.open(request, self.run_timeout).await
    }

    /// Asks for a caller's own tasks, with its key. The answer shows whether the upstream knows the key; no run begins.
    pub async fn ask_raw(
        &self,
        agent: Option<&str>,
        key: &Secret,
        timeout: Duration,
    ) -> Result<Response<Bytes>, SendError> {
        let agent = agent
            .map(|agent| format!("&agent_id={}", path::segment(agent)))
            .unwrap_or_default();
        let path = format!("/v1/tasks?page=1&per_page=1{agent}");
        let request = self.get(&path, Some(key))?;
        self.budget.acquire(&self.draw).await;
        self.client.send(request, timeout, self.max_answer).await
    }

    /// Asks for an agent, to see whether it exists; no run begins.
    pub async fn ask_agent(
        &self,
        agent: &str,
        key: &Secret,
        timeout: Duration,
    ) -> Result<Response<Bytes>, SendError> {
        let path = format!("/v1/agents/{}", path::segment(agent));
        let request = self.get(&path, Some(key))?;
        self.client.send(request, timeout, self.max_answer).await
    }
}
