//! The gateway as a whole: its identity, its metrics, its readiness.

use super::*;

#[tokio::test]
async fn the_gateway_says_how_it_stands_and_what_its_inbox_holds() {
    let world = world();
    let (_, shown) = world.get("").await;
    assert_eq!(
        (&shown["replicas"], &shown["standing"]),
        (&json!(1), &json!("good"))
    );
    assert_eq!(
        shown["disk"],
        json!({ "bytes": 4096, "reusable_bytes": 1024, "ceiling_bytes": 1 << 30 })
    );
    assert_eq!(
        (
            &shown["deliveries"]["pending"],
            &shown["deliveries"]["merged"]
        ),
        (&json!(8), &json!(0))
    );
    let (_, text) = world.get("/metrics").await;
    for line in [
        r#"sluicegate_inbox_bytes{of="ceiling"} 1073741824"#,
        "sluicegate_standing 1",
        "sluicegate_replicas 1",
    ] {
        assert!(text.as_str().unwrap().contains(line), "{line}");
    }
    world.inbox.ill.store(true, Ordering::Relaxed);
    let (status, shown) = world.get("").await;
    assert_eq!(
        (status, &shown["disk"], &shown["deliveries"]),
        (200, &Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn metrics_hold_what_the_inbox_holds_and_outlive_its_illness() {
    let world = world();
    let (status, text) = world.get("/metrics").await;
    let text = text.as_str().unwrap();
    assert_eq!(status, 200);
    assert!(
        text.contains(r#"sluicegate_inbox_deliveries{source="triage",state="pending"} 7"#),
        "{text}"
    );
    assert!(
        text.contains(r#"sluicegate_inbox_deliveries{source="triage",state="dead"} 0"#),
        "{text}"
    );
    world.inbox.ill.store(true, Ordering::Relaxed);
    assert_eq!(world.get("/metrics").await.0, 200);
    assert_eq!(
        world.get("/sources").await,
        (
            500,
            json!({ "detail": "The inbox failed; the log says why.", "code": "inbox_failed" })
        )
    );
}

#[tokio::test]
async fn it_is_ready_only_while_events_can_be_kept() {
    let world = world();
    assert_eq!(
        world.get("/health/ready").await,
        (200, json!({ "status": "ready" }))
    );
    world.inbox.ill.store(true, Ordering::Relaxed);
    assert_eq!(
        world.get("/health/ready").await,
        (503, json!({ "status": "unready", "reason": "no_space" }))
    );
    world.state.serving.store(false, Ordering::Relaxed);
    assert_eq!(world.get("/health/ready").await.1["reason"], "draining");
    assert_eq!(world.get("/health/live").await.0, 200);
}
