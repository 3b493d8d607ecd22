//! One event sent again: replays, dry runs, resends.

use super::*;

#[tokio::test]
async fn a_callers_own_call_is_replayed_as_it_was_made_while_it_is_there() {
    let world = world();
    let replay = format!("/events/{}/replay", id(1));
    let first = |change: &dyn Fn(&mut DeliveryDetail)| {
        change(&mut world.inbox.events.lock().unwrap()[3].deliveries[0])
    };
    first(&|delivery| delivery.sealed = SealedCall::Erased);
    let (status, answer) = world.ask(Method::POST, &replay).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (409, Some("call_erased"))
    );
    first(&|delivery| {
        (delivery.sealed, delivery.state) = (SealedCall::Kept, DeliveryState::Unknown)
    });
    assert_eq!(world.ask(Method::POST, &replay).await.0, 202);
    let deliveries = world.inbox.events.lock().unwrap()[3].deliveries.clone();
    assert_eq!(
        deliveries[1].upstream_id, deliveries[0].upstream_id,
        "the id is part of the call"
    );
}

#[tokio::test]
async fn a_replay_owes_a_new_delivery_and_leaves_the_old_one() {
    let world = world();
    let replay = async |number| {
        world
            .ask(Method::POST, &format!("/events/{}/replay", id(number)))
            .await
    };
    let second = DeliveryId {
        event: id(1),
        number: 1,
    };
    assert_eq!(
        replay(1).await,
        (202, json!({ "event": id(1), "deliveries": [second] }))
    );
    let deliveries = world.inbox.events.lock().unwrap()[3].deliveries.clone();
    assert_eq!(
        (deliveries[0].state, deliveries[1].state),
        (DeliveryState::Delivered, DeliveryState::Pending)
    );
    assert_eq!(
        deliveries[1].upstream_id,
        second.as_uuid().to_string(),
        "it is a run of its own"
    );
    // What a filter held back may be passed on by hand.
    assert_eq!(replay(3).await.1["deliveries"], json!([first_of(3)]));

    let (status, answer) = replay(4).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (409, Some("source_gone"))
    );
    assert!(
        answer["detail"].as_str().unwrap().contains("gone"),
        "{answer}"
    );
    assert_eq!(replay(9).await.0, 404);
    let replay = format!("/events/{}/replay", id(9));
    for _ in 4..REPLAYS {
        assert_eq!(world.ask(Method::POST, &replay).await.0, 404);
    }
    assert_eq!(
        world.ask(Method::POST, &replay).await.1["code"],
        "too_many_replays"
    );
}

#[tokio::test]
async fn a_dry_run_shows_the_request_that_would_go_out_and_makes_nothing() {
    let world = world();
    let (status, shown) = world
        .ask(
            Method::POST,
            &format!("/events/{}/replay?dry_run=true", id(1)),
        )
        .await;
    let request = &shown["request"];
    assert_eq!(
        (status, &request["method"], &request["path"]),
        (200, &json!("POST"), &json!("/v1/agents/a1/invoke"))
    );
    assert!(
        request["headers"]
            .as_array()
            .unwrap()
            .contains(&json!(["x-api-key", "***"])),
        "{request}"
    );
    assert_eq!(
        request["body"]["id"],
        DeliveryId {
            event: id(1),
            number: 1
        }
        .as_uuid()
        .to_string()
    );
    assert!(
        request["body"]["input"]["text"]
            .as_str()
            .unwrap()
            .contains("9007199254740993"),
        "{request}"
    );
    assert_eq!(world.inbox.events.lock().unwrap()[3].deliveries.len(), 1);
    assert_eq!(
        world
            .ask(
                Method::POST,
                &format!("/events/{}/replay?dry_run=maybe", id(1))
            )
            .await
            .0,
        400
    );
    world.inbox.events.lock().unwrap()[3].deliveries[0].sealed = SealedCall::Kept;
    let (_, answer) = world
        .ask(
            Method::POST,
            &format!("/events/{}/replay?dry_run=true", id(1)),
        )
        .await;
    assert_eq!(answer["code"], "call_sealed");
}

#[tokio::test]
async fn a_resend_is_a_new_event_by_an_operators_word() {
    let world = world();
    let path = format!("/events/{}/resend", id(1));
    let changes =
        json!({ "body": "{\"n\":1}", "headers": { "X-Mark": "m", "Content-Type": null } });
    let (status, shown) = world
        .tell(&format!("{path}?dry_run=true"), changes.clone())
        .await;
    let text = shown["request"]["body"]["input"]["text"].as_str().unwrap();
    assert!(status == 200 && text.contains("{\"n\":1}"), "{shown}");
    assert_eq!(world.inbox.events.lock().unwrap().len(), 4);

    let (status, made) = world.tell(&path, changes).await;
    assert_eq!(
        (status, &made["resent_from"], &made["filtered"]),
        (202, &json!(id(1)), &Value::Null)
    );
    let (_, event) = world
        .get(&format!("/events/{}", made["event"].as_str().unwrap()))
        .await;
    assert_eq!(
        event["verification"],
        json!({ "strength": "operator", "secret": "literal 1" })
    );
    assert_eq!(
        (&event["resent_from"], &event["dedup"], &event["source"]),
        (&json!(id(1)), &Value::Null, &json!("triage"))
    );
    assert_eq!(
        (&event["body"], &event["deliveries"][0]["state"]),
        (&json!("{\"n\":1}"), &json!("pending"))
    );
    assert_eq!(
        event["headers"],
        json!([["x-mark", "m"], ["sluicegate-resent-from", id(1)]])
    );
    let (_, old) = world.get(&format!("/events/{}", id(1))).await;
    assert_eq!(
        (&old["body"], &old["deliveries"].as_array().unwrap().len()),
        (&json!("{\"n\":9007199254740993}"), &1)
    );

    // Anybody may send the header; it says nothing then.
    world.inbox.events.lock().unwrap()[4]
        .headers
        .push(("sluicegate-resent-from".into(), "evt_x".into()));
    assert_eq!(
        world.get(&format!("/events/{}", id(1))).await.1["resent_from"],
        Value::Null
    );
}

#[tokio::test]
async fn a_resend_that_cannot_be_meant_makes_no_event() {
    let world = world();
    let path = format!("/events/{}/resend", id(1));
    for (wrong, expected) in [
        (json!({ "body": "{}", "body_base64": "e30=" }), 400),
        (json!({ "body_base64": "%" }), 400),
        (json!({ "headers": { "a b": "c" } }), 400),
        (json!({ "headers": { "a": "b\r\nc: d" } }), 400),
        (json!({ "headers": { "a": 1 } }), 400),
        (json!({ "bodie": "" }), 400),
        (
            json!({ "body": "{\"n\":", "headers": { "Content-Type": "application/json" } }),
            422,
        ),
        (json!({ "body": "a".repeat((1 << 20) + 1) }), 413),
        (json!({ "body": "a".repeat(7 << 20) }), 413),
    ] {
        assert_eq!(
            world.tell(&path, wrong.clone()).await.0,
            expected,
            "{:.80}",
            wrong.to_string()
        );
    }
    assert_eq!(
        world
            .tell(&format!("/events/{}/resend", id(4)), json!({}))
            .await
            .1["code"],
        "source_gone"
    );
    assert_eq!(
        world
            .tell(&format!("/events/{}/resend", id(9)), json!({}))
            .await
            .0,
        404
    );
    assert_eq!(world.inbox.events.lock().unwrap().len(), 4);
}
