//! The operator's listener over real sockets. Names carry the row of the threat page.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};

use crate::world::{Gateway, TOKEN, Upstream, event_id};

const OPEN: &str =
    "[sources.open]\nprovider = \"custom\"\nagent = \"a\"\nverify = { scheme = \"none\" }\n";

async fn asked(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> http::Response<Bytes> {
    let client = sluicegate::net::Client::new(Duration::from_secs(5), None).expect("a client");
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(format!("http://{}{path}", gateway.admin));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client
        .send(
            request.body(Bytes::new()).expect("a request"),
            Duration::from_secs(10),
            1 << 22,
        )
        .await
        .expect("an answer")
}

#[tokio::test]
async fn t96_t97_t98_nothing_is_told_without_the_token_or_to_another_site() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, OPEN).await;
    let bearer = format!("Bearer {TOKEN}");
    for path in [
        "/api/v1/events",
        "/api/v1/sources",
        "/api/v1/metrics",
        "/api/v1/refused",
    ] {
        assert_eq!(asked(&gateway, path, &[]).await.status(), 401, "{path}");
        assert_eq!(
            asked(&gateway, path, &[("authorization", &bearer)])
                .await
                .status(),
            200,
            "{path}"
        );
        let evil = [("authorization", bearer.as_str()), ("host", "evil.example")];
        assert_eq!(asked(&gateway, path, &evil).await.status(), 403, "{path}");
        let cross = [
            ("authorization", bearer.as_str()),
            ("origin", "https://evil.example"),
        ];
        assert_eq!(asked(&gateway, path, &cross).await.status(), 403, "{path}");
    }
    for _ in 0..12 {
        asked(
            &gateway,
            "/api/v1/events",
            &[("authorization", "Bearer wrong")],
        )
        .await;
    }
    let answer = asked(
        &gateway,
        "/api/v1/events",
        &[("authorization", "Bearer wrong")],
    )
    .await;
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(
        asked(&gateway, "/api/v1/events", &[("authorization", &bearer)])
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn t106_health_and_metrics_tell_no_internals() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, OPEN).await;
    for path in ["/api/v1/health/live", "/api/v1/health/ready"] {
        let answer = asked(&gateway, path, &[]).await;
        assert_eq!(answer.status(), 200, "{path}: {:?}", answer.body());
        assert!(!answer.headers().contains_key("server"));
    }
    let answer = gateway.post("/hooks/open", &[], r#"{"a":1}"#).await;
    gateway.settled(&event_id(&answer)).await;
    gateway
        .metric_is(
            r#"sluicegate_inbox_deliveries{source="open",state="delivered"}"#,
            1.0,
        )
        .await;
    gateway
        .metric_is(
            r#"sluicegate_attempts_total{result="completed",source="open"}"#,
            1.0,
        )
        .await;
}

#[tokio::test]
async fn pages_go_on_where_the_one_before_ended() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, OPEN).await;
    for number in 0..7 {
        assert_eq!(
            gateway
                .post("/hooks/open", &[], format!("{{\"n\":{number}}}"))
                .await
                .status(),
            202
        );
    }
    let mut seen = Vec::new();
    let mut path = "/events?limit=3".to_owned();
    loop {
        let page = gateway.admin_json(&path).await;
        seen.extend(
            page["items"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|event| event["id"].to_string()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/events?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 7);
    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 7);
    assert_eq!(
        gateway
            .admin(Method::GET, "/events?cursor=nonsense")
            .await
            .status(),
        400
    );
}
