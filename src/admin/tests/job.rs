//! Replays in bulk.

use super::*;

/// The events of all sources, one a second.
fn wanted() -> Value {
    json!({ "filter": { "type": "issues.opened" }, "pace": 60 })
}

#[tokio::test]
async fn a_replay_in_bulk_is_planned_and_begun() {
    let (world, wanted) = (world(), wanted());
    world.state.clock.advance(Duration::from_secs(10));
    let (status, plan) = world.tell("/replays/plan", wanted.clone()).await;
    assert_eq!(
        (status, &plan["count"], &plan["more"], &plan["takes_s"]),
        (200, &json!(3), &json!(false), &json!(3))
    );
    assert_eq!(
        plan["left_out"],
        json!([{ "source": "gone", "why": "source_gone", "count": 1 }])
    );
    assert_eq!(
        (&plan["oldest"]["id"], &plan["newest"]["id"]),
        (&json!(id(1)), &json!(id(4)))
    );
    assert!(
        world.inbox.jobs.lock().unwrap().is_empty(),
        "a plan begins nothing"
    );

    let (status, job) = world.tell("/replays", wanted).await;
    assert_eq!(
        (status, &job["state"], &job["total"]),
        (202, &json!("running"), &json!(3))
    );
    assert_eq!(
        job["filter"]["until"],
        json!("2027-01-15T08:00:10.000Z"),
        "what comes later is not old"
    );
    assert_eq!(
        job["filter"]["filtered"],
        json!(false),
        "what a filter held back stays there"
    );
    assert_eq!(job["eta"], "2027-01-15T08:00:13.000Z");
}

#[tokio::test]
async fn t103_a_replay_in_bulk_keeps_to_its_pace_and_can_be_paused() {
    let world = world();
    world.state.clock.advance(Duration::from_secs(10));
    assert_eq!(world.tell("/replays", wanted()).await.0, 202);

    // Two processes at once: a step is taken once, and the next one a second later.
    let replayer = || {
        Replayer::new(
            &world.config,
            world.inbox.clone(),
            Arc::new(crate::intake::Remapper(world.state.compiled.clone())),
            Arc::default(),
            world.state.clock.clone(),
        )
    };
    let (one, other) = (replayer(), replayer());
    let done = async || world.get("/replays/1").await.1["done"].as_u64().unwrap();
    one.work().await;
    other.work().await;
    assert_eq!(done().await, 1);
    assert_eq!(
        world.inbox.events.lock().unwrap()[3].deliveries.len(),
        2,
        "the oldest goes first"
    );
    assert_eq!(
        world.inbox.events.lock().unwrap()[3].deliveries[0].state,
        DeliveryState::Delivered,
        "the old one stays"
    );
    world.state.clock.advance(Duration::from_secs(1));
    other.work().await;
    assert_eq!(done().await, 2);

    let (status, job) = world
        .tell("/replays/1", json!({ "state": "paused", "pace": 6000 }))
        .await;
    assert_eq!(
        (status, &job["state"], &job["pace"], &job["eta"]),
        (200, &json!("paused"), &json!(6000), &Value::Null)
    );
    world.state.clock.advance(MINUTE);
    one.work().await;
    assert_eq!(done().await, 2);
    world
        .tell("/replays/1", json!({ "state": "running" }))
        .await;
    world.state.clock.advance(MINUTE);
    one.work().await;
    let (_, job) = world.get("/replays/1").await;
    assert_eq!(
        (&job["state"], &job["done"], &job["skipped"]),
        (&json!("done"), &json!(2), &json!(1))
    );
    assert_eq!(world.get("/replays").await.1["items"][0], job);
    let (status, answer) = world
        .tell("/replays/1", json!({ "state": "cancelled" }))
        .await;
    assert_eq!((status, &answer["code"]), (409, &json!("replay_ended")));

    // What it made is on its way; the same once more leaves it out.
    world
        .tell("/replays", json!({ "filter": { "source": "triage" } }))
        .await;
    one.work().await;
    let (_, job) = world.get("/replays/2").await;
    assert_eq!(
        (&job["state"], &job["done"], &job["skipped"]),
        (&json!("done"), &json!(0), &json!(2))
    );
}

#[tokio::test]
async fn t102_a_replay_that_cannot_be_meant_is_refused() {
    let world = world();
    world.state.clock.advance(Duration::from_secs(10));
    for wrong in [
        json!({}),
        json!({ "filter": {} }),
        json!({ "filter": { "filtered": false } }),
        json!({ "filter": { "sate": "dead" } }),
        json!({ "filter": { "state": "accepted" } }),
        json!({ "filter": { "text": "word" } }),
        json!({ "filter": { "source": "triage" }, "pace": 0 }),
        json!({ "filter": { "source": "triage" }, "pace": 6001 }),
        json!({ "filter": { "source": "triage" }, "pase": 1 }),
        json!([]),
        json!("x"),
    ] {
        for path in ["/replays/plan", "/replays"] {
            let (status, answer) = world.tell(path, wrong.clone()).await;
            assert_eq!(status, 400, "{wrong} {answer}");
        }
    }
    let (status, answer) = world
        .tell(
            "/replays",
            json!({ "filter": { "source": "triage", "type": "none" } }),
        )
        .await;
    assert_eq!((status, &answer["code"]), (409, &json!("nothing_fits")));
    assert_eq!(
        world
            .tell(
                "/replays",
                json!({ "all": true, "filter": { "until": "2027-01-16T00:00:00Z" } })
            )
            .await
            .0,
        202
    );
    for wrong in [
        json!({}),
        json!({ "state": "done" }),
        json!({ "state": "x" }),
        json!({ "pace": 0 }),
    ] {
        assert_eq!(
            world.tell("/replays/1", wrong.clone()).await.0,
            400,
            "{wrong}"
        );
    }
    for number in ["2", "0", "-1", "x", "99999999999999999999"] {
        assert_eq!(
            world
                .tell(&format!("/replays/{number}"), json!({ "pace": 1 }))
                .await
                .0,
            404,
            "{number}"
        );
        assert_eq!(
            world.get(&format!("/replays/{number}")).await.0,
            404,
            "{number}"
        );
    }
    for _ in 1..10 {
        assert_eq!(world.tell("/replays", json!({ "all": true })).await.0, 202);
    }
    assert_eq!(
        world.tell("/replays", json!({ "all": true })).await.1["code"],
        "replays_under_way"
    );
    let large = json!({ "filter": { "thread": "a".repeat(70_000) } });
    assert_eq!(
        world.tell("/replays/plan", large).await.1["code"],
        "body_too_large"
    );
}
