//! The layers: what a bug, a large body and a header become.

use axum::routing::{get, post};

use super::*;
use crate::admin::layers::around;

async fn sent(request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
    let state = world().state;
    let routes = axum::Router::new()
        .route("/bug", get(async || panic_of_a_handler()))
        .route("/bare", get(async || StatusCode::SERVICE_UNAVAILABLE))
        .route("/read", post(async |body: String| body))
        .route(
            "/headers",
            get(async |headers: HeaderMap| format!("{headers:?}")),
        );
    let answer = around(routes, state).oneshot(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    (head.status, head.headers, body)
}

fn panic_of_a_handler() {
    panic!("the token is {TOKEN}");
}

#[tokio::test]
async fn a_panic_of_a_handler_is_an_error_in_json_and_says_nothing_of_the_inside() {
    let request = Request::get("/bug").header("host", "localhost");
    let (status, headers, body) = sent(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (status.as_u16(), &body["code"]),
        (500, &json!("internal")),
        "{body}"
    );
    assert!(!body.to_string().contains(TOKEN), "{body}");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn a_body_that_is_larger_than_any_request_is_refused_before_it_is_read() {
    let largest = world().state.largest_request();
    assert!(largest > 6 * 1024 * 1024, "a resend has room: {largest}");
    for (bytes, expected) in [(10_u64, 200), (largest + 1, 413)] {
        let request = Request::post("/read")
            .header("host", "localhost")
            .header("content-length", bytes)
            .body(Body::from("0123456789"))
            .unwrap();
        let (status, headers, body) = sent(request).await;
        assert_eq!(status.as_u16(), expected, "{bytes}: {body}");
        if expected == 413 {
            assert_eq!(body["code"], "body_too_large", "{body}");
            assert_eq!(headers["cache-control"], "no-store");
        }
    }
}

#[tokio::test]
async fn the_bare_status_of_the_time_limit_becomes_an_error_in_json() {
    let request = Request::get("/bare").header("host", "localhost");
    let (status, _, body) = sent(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (status.as_u16(), &body["code"]),
        (503, &json!("timed_out")),
        "{body}"
    );
}

#[tokio::test]
async fn the_token_cannot_be_printed_with_the_headers() {
    let request = Request::get("/headers")
        .header("host", "localhost")
        .header("authorization", format!("Bearer {TOKEN}"));
    let (_, _, body) = sent(request.body(Body::empty()).unwrap()).await;
    let shown = body.as_str().expect("headers");
    assert!(
        shown.contains("Sensitive") && !shown.contains(TOKEN),
        "{shown}"
    );
}
