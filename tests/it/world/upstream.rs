//! A stand-in upstream, as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use serde_json::Value;
use sluicegate::net::Client;

use super::{API_KEY, binary, client, wait_for};

/// A stand-in upstream as a process, so that it lives on when the gateway is killed.
pub struct Upstream {
    child: Child,
    pub address: SocketAddr,
    client: Client,
}

impl Upstream {
    /// Starts one with extra arguments.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), arguments).await
    }

    /// The same, at an address that a gateway knows already.
    pub async fn start_at(address: SocketAddr, arguments: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["stub", "--listen", &address.to_string()])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the stub starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("the stub says where it is");
        let address = line
            .trim()
            .rsplit('/')
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("the stub said {line:?}"));
        Self {
            child,
            address,
            client: client(),
        }
    }

    /// Every run that was begun, in order.
    pub async fn runs(&self) -> Vec<Value> {
        self.runs_with_key(API_KEY).await
    }

    /// The same, of an upstream that wants another key.
    pub async fn runs_with_key(&self, key: &str) -> Vec<Value> {
        let answer = self
            .call_with_key(Method::GET, "/_stub/runs", Value::Null, key)
            .await;
        match answer {
            Value::Array(runs) => runs,
            Value::Object(mut page) => match page.remove("runs").or_else(|| page.remove("items")) {
                Some(Value::Array(runs)) => runs,
                other => panic!("no runs in {other:?}"),
            },
            other => panic!("no runs in {other}"),
        }
    }

    /// Waits until this many runs were begun.
    pub async fn wait_for_runs(&self, count: usize) -> Vec<Value> {
        wait_for(&format!("{count} runs"), async || {
            let runs = self.runs().await;
            (runs.len() >= count).then_some(runs)
        })
        .await
    }

    /// What it counts.
    pub async fn stats(&self) -> Value {
        self.call(Method::GET, "/_stub/stats", Value::Null).await
    }

    /// Changes its options while it runs.
    pub async fn set(&self, options: Value) {
        self.call(Method::POST, "/_stub/options", options).await;
    }

    /// The same, of an upstream that wants another key.
    pub async fn set_with_key(&self, options: Value, key: &str) {
        self.call_with_key(Method::POST, "/_stub/options", options, key)
            .await;
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        self.call_with_key(method, path, body, API_KEY).await
    }

    async fn call_with_key(&self, method: Method, path: &str, body: Value, key: &str) -> Value {
        let body = if body.is_null() {
            Bytes::new()
        } else {
            body.to_string().into()
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", "application/json")
            .header("x-api-key", key)
            .body(body)
            .expect("a request");
        let answer = self
            .client
            .send(request, Duration::from_secs(30), 1 << 30)
            .await
            .expect("the stub answers");
        assert!(
            answer.status().is_success(),
            "{path}: {} {:?}",
            answer.status(),
            answer.body()
        );
        serde_json::from_slice(answer.body()).unwrap_or(Value::Null)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
