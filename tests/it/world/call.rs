//! Requests to a gateway: to its public listener, and to its admin API.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::Value;

use super::{Gateway, TOKEN, event_id, json, wait_for};

impl Gateway {
    /// Sends a POST to the public listener.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Bytes> {
        self.send(Method::POST, path, headers, body).await
    }

    /// Posts an event to a source that wants no signature, and gets it accepted. Returns the event's id.
    pub async fn accept(&self, source: &str, event: &Value) -> String {
        let answer = self
            .post(&format!("/hooks/{source}"), &[], event.to_string())
            .await;
        assert_eq!(answer.status(), 202, "{:?}", answer.body());
        event_id(&answer)
    }

    /// Sends a request to the public listener.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Bytes> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.public));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).expect("a request");
        let answer = self
            .client
            .send(request, Duration::from_secs(60), 1 << 24)
            .await
            .expect("the gateway answers");
        self.answered.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// Asks the admin API; the path is below `/api/v1`.
    pub async fn admin(&self, method: Method, path: &str) -> Response<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}/api/v1{path}", self.admin))
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Bytes::new())
            .expect("a request");
        self.client
            .send(request, Duration::from_secs(60), 1 << 26)
            .await
            .expect("the admin API answers")
    }

    /// Has the admin API do something: the status and its JSON.
    pub async fn tell(&self, path: &str, what: Value) -> (u16, Value) {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}/api/v1{path}", self.admin))
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(what.to_string().into())
            .expect("a request");
        let answer = self
            .client
            .send(request, Duration::from_secs(60), 1 << 26)
            .await
            .expect("the admin API answers");
        (answer.status().as_u16(), json(&answer))
    }

    /// The JSON at a path of the admin API.
    pub async fn admin_json(&self, path: &str) -> Value {
        let answer = self.admin(Method::GET, path).await;
        assert!(
            answer.status().is_success(),
            "{path}: {} {:?}",
            answer.status(),
            answer.body()
        );
        json(&answer)
    }

    /// One event, once all its deliveries have ended.
    pub async fn settled(&self, event: &str) -> Value {
        wait_for(&format!("the deliveries of {event} to end"), async || {
            let event = self.admin_json(&format!("/events/{event}")).await;
            let ended = event["deliveries"].as_array().is_some_and(|list| {
                list.iter().all(|delivery| {
                    !matches!(delivery["state"].as_str(), Some("pending" | "leased"))
                })
            });
            ended.then_some(event)
        })
        .await
    }

    /// The value of a metric, by its name with labels as it stands in the text; zero where it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.admin(Method::GET, "/metrics").await;
        let text = String::from_utf8_lossy(text.body()).into_owned();
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    /// Waits until a metric has a value: what ends with a connection is counted a moment after its peer knows.
    pub async fn metric_is(&self, name: &str, wanted: f64) {
        let mut last = f64::NAN;
        let found = tokio::time::timeout(Duration::from_secs(10), async {
            while last.to_bits() != wanted.to_bits() {
                last = self.metric(name).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let is_so = found.await.is_ok();
        assert!(is_so, "{name} is {last} and not {wanted}");
    }
}
