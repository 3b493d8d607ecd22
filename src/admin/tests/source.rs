//! Sources, destinations and refused requests.

use super::*;

#[tokio::test]
async fn sources_and_destinations_are_held_and_let_go() {
    let world = world();
    let post = async |path: &str| world.ask(Method::POST, path).await;
    let held = |changed| json!({ "source": "triage", "paused": true, "changed": changed });
    assert_eq!(post("/sources/triage/pause").await, (200, held(true)));
    assert_eq!(post("/sources/triage/pause").await, (200, held(false)));
    assert_eq!(
        world.get("/sources").await.1["items"][0]["paused_since"],
        "2027-01-15T08:00:00.000Z"
    );
    assert_eq!(post("/sources/triage/resume").await.1["paused"], false);
    assert_eq!(
        world.get("/sources").await.1["items"][0]["paused_since"],
        Value::Null
    );
    for path in [
        "/sources/nobody/pause",
        "/sources/nobody/resume",
        "/destinations/robot/1/pause",
    ] {
        assert_eq!(post(path).await.0, 404, "{path}");
    }
    // One that was held while it was configured is let go all the same.
    world
        .inbox
        .set_paused(&Pause::Source("gone".into()), true, NOW)
        .await
        .unwrap();
    assert_eq!(world.get("/sources").await.1["items"][2]["name"], "gone");
    assert_eq!(post("/sources/gone/resume").await.0, 200);

    assert_eq!(
        post("/destinations/workflow/w%2F1/pause?force=true")
            .await
            .1["destination"],
        "workflow/w/1"
    );
    let (_, list) = world.get("/destinations").await;
    assert_eq!(
        (
            &list["items"][0]["destination"],
            &list["items"][0]["sources"]
        ),
        (&json!("agent/a1"), &json!(["triage"]))
    );
    assert_eq!(list["items"][1]["paused_since"], "2027-01-15T08:00:00.000Z");
    assert_eq!(
        post("/destinations/workflow/w%2F1/resume").await.1["changed"],
        true
    );
    assert_eq!(
        post("/destinations/agent/a1/reset").await.1["code"],
        "not_dispatching"
    );
    assert_eq!(
        world.get("/destinations").await.1["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn sources_show_names_of_secrets_and_counts_of_deliveries() {
    let (_, list) = world().get("/sources").await;
    let source = &list["items"][0];
    assert_eq!(
        (&source["path"], &source["destination"]),
        (&json!("/hooks/triage"), &json!("agent/a1"))
    );
    assert_eq!(source["secrets"], json!(["literal 1"]));
    assert_eq!(
        (&source["counts"]["pending"], &source["counts"]["dead"]),
        (&json!(7), &json!(0))
    );
    assert_eq!(
        (&list["items"][1]["name"], &list["items"][1]["configured"]),
        (&json!("old"), &json!(false))
    );
}

#[tokio::test]
async fn refused_requests_are_listed_with_their_reason() {
    let world = world();
    let (_, list) = world.get("/refused?source=triage").await;
    assert_eq!(
        (&list["items"][0]["reason"], &list["items"][0]["cause"]),
        (&json!("stale"), &json!("too old"))
    );
    let (status, answer) = world.get("/refused?source=triag").await;
    assert_eq!((status, answer["code"].as_str()), (404, Some("not_found")));
    assert!(
        answer["detail"]
            .as_str()
            .unwrap()
            .contains("did you mean triage?"),
        "{answer}"
    );
    assert_eq!(
        world.get("/refused?source=gone&limit=2").await.1["items"],
        json!([])
    );
    let (status, answer) = world.get("/refused?limt=2").await;
    assert_eq!((status, answer["code"].as_str()), (400, Some("bad_query")));
    let (_, whole) = world.get("/refused/req_1").await;
    assert_eq!(
        (&whole["request"]["target"], &whole["request"]["body"]),
        (&json!("/hooks/triage?x=1"), &json!("{}"))
    );
    assert_eq!(world.get("/refused/req_2").await.0, 404);
    assert_eq!(world.get("/refused?source=").await.0, 400);
}
