//! Events: lists, one event with all its parts, its body.

use super::*;

#[tokio::test]
async fn pages_follow_each_other_and_filters_hold() {
    let world = world();
    let (status, page) = world.get("/events?limit=3").await;
    assert_eq!((status, page["items"].as_array().unwrap().len()), (200, 3));
    assert_eq!(page["items"][0]["id"], id(4).to_string());
    assert_eq!(page["items"][1]["filtered"], "events");
    assert_eq!(page["items"][2]["states"], json!(["delivered"]));
    let cursor = page["next_cursor"].as_str().unwrap();
    let (_, page) = world.get(&format!("/events?limit=3&cursor={cursor}")).await;
    assert_eq!(
        (page["items"][0]["id"].clone(), page["next_cursor"].clone()),
        (json!(id(1).to_string()), Value::Null)
    );

    {
        let event = &mut world.inbox.events.lock().unwrap()[3];
        (event.summary.states, event.deliveries[0].state) =
            (vec![DeliveryState::Dead], DeliveryState::Dead);
    }
    let (_, page) = world.get("/events?state=dead").await;
    assert_eq!(page["items"][0]["reason"]["result"], "completed");
    {
        let event = &mut world.inbox.events.lock().unwrap()[3];
        (event.summary.states, event.deliveries[0].state) =
            (vec![DeliveryState::Delivered], DeliveryState::Delivered);
    }

    for (query, expected) in [
        ("source=triage", 3),
        ("source=gone&state=dead", 0),
        ("state=dead", 0),
        ("filtered=true", 1),
        ("since=2027-01-15T08:00:03Z", 2),
        ("until=2027-01-15T08:00:03Z", 2),
        ("type=issues.opened&dedup=d-2", 1),
        ("thread=t", 0),
    ] {
        let (status, page) = world.get(&format!("/events?{query}")).await;
        assert_eq!(
            (status, page["items"].as_array().unwrap().len()),
            (200, expected),
            "{query}"
        );
    }
    let (_, page) = world.get("/events?order=oldest&limit=1").await;
    assert_eq!(page["items"][0]["id"], id(1).to_string());
    for query in [
        "cursor=1",
        "cursor=",
        "limit=0",
        "limit=-1",
        "limit=201",
        "state=accepted",
        "sate=dead",
        "limit=1&limit=2",
        "order=best",
        "type=",
        "dedup=%00",
        "destination=a1",
        "text=%22",
        "text=word",
        "since=2027-01-15T08:00:03Z&until=2027-01-15T08:00:03Z",
        "until=9e99",
    ] {
        let (status, answer) = world.get(&format!("/events?{query}")).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (400, Some("bad_query")),
            "{query}"
        );
    }
}

#[tokio::test]
async fn an_event_shows_where_each_value_came_from_and_what_became_of_it() {
    let world = world();
    let (status, event) = world.get(&format!("/events/{}", id(1))).await;
    assert_eq!(status, 200);
    assert_eq!(
        event["verification"],
        json!({ "strength": "signed", "secret": "literal 1" })
    );
    assert_eq!(
        event["params"][0],
        json!({
            "name": "prompt", "value": "<b>9007199254740993</b>\u{1b}[2J", "value_cut": false, "backing": "proved",
            "origin": { "from": "mapping", "path": "issue.title" }, "over": [{ "from": "query" }],
        })
    );
    assert_eq!(
        (&event["body"], &event["body_bytes"]),
        (&json!("{\"n\":9007199254740993}"), &json!(22))
    );
    assert_eq!(
        event["headers"],
        json!([["content-type", "application/json"]])
    );
    let delivery = &event["deliveries"][0];
    assert_eq!(
        (&delivery["state"], &delivery["destination"]),
        (&json!("delivered"), &json!("agent/a1"))
    );
    assert_eq!(delivery["answer"]["result"], "done");
    assert_eq!(delivery["attempts"][0]["status"], 503);
    assert_eq!(
        delivery["attempts"][1]["ended_at"],
        "2027-01-15T08:00:02.250Z"
    );

    for (body, text, cut) in [
        (vec![0xff; 300_000], false, true),
        ("é".repeat(150_000).into_bytes(), true, true),
        (Vec::new(), true, false),
    ] {
        world.inbox.events.lock().unwrap()[3].body = body.clone().into();
        let (_, event) = world.get(&format!("/events/{}", id(1))).await;
        assert_eq!(
            (event["body"].is_string(), event["body_base64"].is_string()),
            (text, !text)
        );
        assert_eq!(
            (&event["body_bytes"], &event["body_cut"]),
            (&json!(body.len()), &json!(cut))
        );
    }
    for path in [
        format!("/events/{}", id(9)),
        "/events/evt_1".into(),
        "/events/%ff".into(),
        "/events/..%2f".into(),
    ] {
        let (status, answer) = world.get(&path).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (404, Some("not_found")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_body_is_given_byte_for_byte_and_as_nothing_a_browser_shows() {
    let world = world();
    world.inbox.events.lock().unwrap()[3].body = Bytes::from_static(b"<script>1</script>\r\n");
    let token = format!("Bearer {TOKEN}");
    let headers = [("host", "localhost"), ("authorization", token.as_str())];
    let (status, headers, body) = world
        .send(
            Method::GET,
            &format!("/api/v1/events/{}/body", id(1)),
            &headers,
        )
        .await;
    assert_eq!(
        (status.as_u16(), body.as_str()),
        (200, "<script>1</script>\r\n")
    );
    assert_eq!(headers["content-type"], "application/octet-stream");
    assert_eq!(headers["content-disposition"], "attachment");
}
