//! Deliveries: settled by hand, cancelled.

use super::*;

#[tokio::test]
async fn only_what_nobody_could_tell_is_settled_by_hand() {
    let world = world();
    let path = format!("/deliveries/{}/settle", first_of(1));
    let how = json!({ "as": "delivered", "note": " seen in the agent's log " });
    let (status, answer) = world.tell(&path, how.clone()).await;
    assert_eq!((status, &answer["code"]), (409, &json!("not_unknown")));
    world.inbox.events.lock().unwrap()[3].deliveries[0].state = DeliveryState::Unknown;
    for wrong in [
        json!({}),
        json!({ "as": "gone" }),
        json!({ "as": "dead", "note": "a".repeat(1001) }),
        json!("dead"),
    ] {
        assert_eq!(
            world.tell(&path, wrong.clone()).await.0,
            400,
            "{:.80}",
            wrong.to_string()
        );
    }
    assert_eq!(
        world.tell(&path, how).await,
        (200, json!({ "id": first_of(1), "state": "delivered" }))
    );
    let deliveries = world.inbox.events.lock().unwrap()[3].deliveries.clone();
    assert_eq!(
        deliveries[0].tries.last().unwrap().detail,
        "seen in the agent's log"
    );
    assert_eq!(
        world
            .tell(
                &format!("/deliveries/{}/settle", first_of(9)),
                json!({ "as": "dead" })
            )
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn only_a_pending_delivery_is_cancelled() {
    let world = world();
    let cancel = async |id: &str| {
        world
            .ask(Method::POST, &format!("/deliveries/{id}/cancel"))
            .await
    };
    world
        .ask(Method::POST, &format!("/events/{}/replay", id(1)))
        .await;
    let second = DeliveryId {
        event: id(1),
        number: 1,
    }
    .to_string();
    assert_eq!(
        cancel(&second).await,
        (200, json!({ "id": second, "state": "cancelled" }))
    );
    let (status, answer) = cancel(&second).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (409, Some("not_pending"))
    );
    assert!(
        answer["detail"].as_str().unwrap().contains("cancelled"),
        "{answer}"
    );
    for unknown in [
        first_of(9).to_string(),
        DeliveryId {
            event: id(1),
            number: 7,
        }
        .to_string(),
        "dlv_1".into(),
    ] {
        assert_eq!(cancel(&unknown).await.0, 404, "{unknown}");
    }
}
