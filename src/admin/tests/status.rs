//! Whether all is well, what is waited for, and names that are meant.

use super::*;

/// What needs attention, as code and subject.
fn needs(status: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = status["attention"].as_array().expect("a list").iter();
    all.map(|item| (text(&item["code"]), text(&item["about"])))
        .collect()
}

#[tokio::test]
async fn status_says_whether_all_is_well_and_what_is_not() {
    let world = world();
    let (code, status) = world.get("/status").await;
    assert_eq!(
        (code, &status["well"], &status["attention"]),
        (200, &json!(true), &json!([]))
    );
    assert_eq!(
        (
            &status["configuration"]["generation"],
            &status["waiting"]["pending"]
        ),
        (&json!(1), &json!(8))
    );
    assert_eq!(
        status["last_event"],
        json!({ "at": "2027-01-15T08:00:04.000Z", "source": "gone" })
    );

    world.ask(Method::POST, "/pause").await;
    world.ask(Method::POST, "/sources/triage/pause").await;
    for (number, state) in [(2, DeliveryState::Dead), (0, DeliveryState::Unknown)] {
        let mut events = world.inbox.events.lock().unwrap();
        events[number].summary.states = vec![state];
    }
    world
        .state
        .loaded
        .next(NOW, "d1".into(), vec!["admin.listen".into()]);
    let (_, status) = world.get("/status").await;
    let wanted = [
        ("paused", "all"),
        ("paused", "triage"),
        ("unknown", "gone"),
        ("dead", "triage"),
        ("restart", "admin.listen"),
    ];
    assert_eq!(
        needs(&status),
        wanted.map(|(code, about)| (code.to_owned(), about.to_owned())),
        "{status:#}"
    );
    assert_eq!(
        (&status["well"], &status["open"]),
        (
            &json!(false),
            &json!({ "dead": 1, "unknown": 1, "unmappable": 0 })
        )
    );
    assert_eq!(
        status["configuration"]["restart_for"],
        json!(["admin.listen"])
    );
    for item in status["attention"].as_array().unwrap() {
        assert!(
            item["text"].as_str().is_some_and(|text| !text.is_empty()),
            "{item}"
        );
        assert!(
            item["todo"].as_str().is_some_and(|todo| !todo.is_empty()),
            "{item}"
        );
    }
}

#[tokio::test]
async fn every_waiting_event_says_for_what() {
    let world = world();
    world
        .ask(Method::POST, &format!("/events/{}/replay", id(1)))
        .await;
    let waits = async || {
        let (_, event) = world.get(&format!("/events/{}", id(1))).await;
        let (_, list) = world.get("/events").await;
        let listed = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|item| item["id"] == id(1).to_string())
            .unwrap();
        assert_eq!(event["deliveries"][1]["waits_for"], event["waits_for"]);
        assert_eq!(listed["waits_for"], event["waits_for"]);
        (event["waits_for"].clone(), list["paused"].clone())
    };
    let (turn, paused) = waits().await;
    assert_eq!((&turn["why"], paused), (&json!("turn"), Value::Null));
    {
        let mut events = world.inbox.events.lock().unwrap();
        let delivery = &mut events[3].deliveries[1];
        delivery.due = Some(NOW + Duration::from_secs(60));
        delivery.tries = vec![Attempt {
            number: 4,
            started_at: NOW,
            ended_at: NOW,
            result: "not_sent".into(),
            status: None,
            detail: "connection refused".into(),
        }];
    }
    let (retry, _) = waits().await;
    let wanted = json!({ "why": "retry", "text": "retry 5, after: connection refused", "until": "2027-01-15T08:01:00.000Z" });
    assert_eq!(retry, wanted);
    world
        .ask(Method::POST, "/destinations/agent/a1/pause")
        .await;
    let (held, paused) = waits().await;
    let since = "2027-01-15T08:00:00.000Z";
    assert_eq!(
        held,
        json!({ "why": "paused", "text": "agent/a1 is paused by an operator", "since": since })
    );
    assert_eq!(
        paused,
        json!([{ "what": "agent/a1", "kind": "destination", "since": since }])
    );
    let (_, sources) = world.get("/sources").await;
    assert_eq!(
        (&sources["items"][0]["waits_for"]["why"], &sources["paused"]),
        (&json!("paused"), &paused)
    );
    assert_eq!(
        sources["items"][0]["last_event_at"],
        "2027-01-15T08:00:03.000Z"
    );
    let (_, destinations) = world.get("/destinations").await;
    assert_eq!(destinations["items"][0]["waits_for"]["why"], "paused");
}

#[tokio::test]
async fn the_state_of_an_event_is_that_of_its_last_delivery() {
    let world = world();
    world.inbox.events.lock().unwrap()[3].summary.states = vec![DeliveryState::Dead];
    let dead = async || {
        world.get("/events?state=dead").await.1["items"]
            .as_array()
            .unwrap()
            .len()
    };
    let gauge = r#"sluicegate_open_deliveries{source="triage",state="dead"}"#;
    let measured = async |count: u8| {
        let (_, text) = world.get("/metrics").await;
        text.as_str()
            .unwrap()
            .contains(&format!("{gauge} {count}\n"))
    };
    assert!(dead().await == 1 && measured(1).await);
    world
        .ask(Method::POST, &format!("/events/{}/replay", id(1)))
        .await;
    assert!(dead().await == 0 && measured(0).await, "it was replayed");
}

#[tokio::test]
async fn a_unique_beginning_of_an_id_is_enough() {
    let world = world();
    let (status, event) = world.get("/events/evt_020202").await;
    assert_eq!((status, &event["id"]), (200, &json!(id(2).to_string())));
    assert_eq!(
        world.get("/events/evt_02020202%E2%80%A6").await.0,
        200,
        "as a list cut it once"
    );
    let close = EventId::from_bytes([2, 2, 2, 2, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
    world.inbox.events.lock().unwrap()[1].summary.id = close;
    let (status, answer) = world.get("/events/evt_020202").await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("ambiguous")));
    let said = answer["detail"].as_str().unwrap();
    assert!(
        said.contains(&id(2).to_string()) && said.contains(&close.to_string()),
        "{said}"
    );
    for wrong in ["evt_0202", "evt_ffffff", "evt_", "dlv_020202"] {
        assert_eq!(
            world.get(&format!("/events/{wrong}")).await.0,
            404,
            "{wrong}"
        );
    }
    world
        .ask(Method::POST, &format!("/events/{}/replay", id(1)))
        .await;
    let (status, answer) = world
        .ask(Method::POST, "/deliveries/dlv_010101_1/cancel")
        .await;
    assert_eq!((status, &answer["state"]), (200, &json!("cancelled")));
    assert_eq!(
        world
            .ask(Method::POST, "/deliveries/dlv_010101/cancel")
            .await
            .1["code"],
        "ambiguous"
    );
}

#[tokio::test]
async fn names_that_nothing_has_are_errors_with_the_nearest_one() {
    let world = world();
    for path in ["/events?source=triag", "/refused?source=triag"] {
        let (status, answer) = world.get(path).await;
        assert_eq!(
            (status, &answer["code"]),
            (404, &json!("not_found")),
            "{path}"
        );
        assert!(
            answer["detail"]
                .as_str()
                .unwrap()
                .contains("did you mean triage?"),
            "{path}: {answer}"
        );
    }
    assert_eq!(
        world.get("/events?source=gone").await.0,
        200,
        "there are events of it"
    );
    for path in ["/replays/plan", "/replays"] {
        let (status, answer) = world
            .tell(path, json!({ "filter": { "source": "triag" } }))
            .await;
        assert!(
            status == 404 && answer["detail"].as_str().unwrap().contains("triage"),
            "{path}: {answer}"
        );
    }
    for verb in ["pause", "resume"] {
        let (status, answer) = world
            .ask(Method::POST, &format!("/destinations/agent/a2/{verb}"))
            .await;
        let said = answer["detail"].as_str().unwrap();
        assert!(
            status == 404 && said.contains("agent/a1?") && said.contains("--force"),
            "{verb}: {answer}"
        );
    }
    assert_eq!(
        world
            .ask(Method::POST, "/destinations/agent/a2/pause?force=true")
            .await
            .0,
        200
    );
    assert_eq!(
        world
            .ask(Method::POST, "/destinations/agent/a2/resume")
            .await
            .0,
        200,
        "what is held is known"
    );
    assert_eq!(
        world
            .ask(Method::POST, "/destinations/agent/a1/pause?force=1")
            .await
            .0,
        400
    );
}
