//! The types of the API read what they write, also where structs are flattened into each other.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::attachment::{FileView, KeptFileView};
use super::event::EventPage;
use super::gateway::HealthView;
use super::job::JobView;
use super::page::PageView;
use super::refused::RefusedPage;
use super::source::HeldView;

/// Reads JSON as a type and writes it again: field for field, and in the same order.
#[track_caller]
fn read_back<T: Serialize + DeserializeOwned>(written: &Value) {
    let text = written.to_string();
    let read: T = serde_json::from_str(&text).expect("the type reads its own JSON");
    assert_eq!(serde_json::to_string(&read).expect("it is JSON"), text);
}

fn file() -> Value {
    json!({
        "id": "att_0193ab0000007000800000000000000a", "name": "a.png", "content_type": "image/png", "bytes": 7,
        "sha256": "00", "origin": "F1", "expires_at": "2026-01-31T12:00:00.000Z",
    })
}

#[test]
fn a_flattened_struct_reads_its_numbers() {
    read_back::<FileView>(&file());
    let mut kept = file();
    kept["source"] = "a".into();
    kept["event"] = Value::Null;
    read_back::<PageView<KeptFileView>>(&json!({ "items": [kept], "next_cursor": "AQ" }));
    read_back::<RefusedPage>(&json!({
        "at": "2026-01-31T12:00:00.000Z", "request_id": "req_1", "source": null, "method": "POST", "path": "/hooks/a",
        "peer": "127.0.0.1", "headers": ["host"], "body_bytes": 18_446_744_073_709_551_615_u64, "code": "bad_signature",
        "reason": "stale", "cause": "It is old.", "whole": true,
        "request": { "method": "POST", "target": "/hooks/a", "headers": [["host", "x"]], "body": "{}" },
    }));
}

#[test]
fn a_negative_number_is_no_length() {
    let mut file = file();
    file["bytes"] = (-1).into();
    assert!(serde_json::from_value::<FileView>(file).is_err());
}

#[test]
fn an_event_reads_what_was_left_out_as_missing() {
    let delivery = json!({
        "id": "dlv_0193ab0000007000800000000000000a_0", "destination": "agent/a1", "account": "operator",
        "class": "normal", "state": "pending", "upstream_id": "u", "tried": 1, "due": null,
        "waits_for": { "why": "retry", "text": "retry 2", "until": "2026-01-31T12:00:00.000Z" },
        "doubt": null, "answer": null, "attempts": [{
            "number": 1, "started_at": "2026-01-31T12:00:00.000Z", "ended_at": "2026-01-31T12:00:00.000Z",
            "result": "status", "status": 503, "detail": "no",
        }],
    });
    let param = json!({
        "name": "prompt", "value": "hello", "value_cut": false, "origin": { "from": "mapping", "path": "$.a" },
        "over": [],
    });
    let mut event = json!({
        "id": "evt_0193ab0000007000800000000000000a", "source": "a", "event_type": "x", "dedup": null, "thread": null,
        "received_at": "2026-01-31T12:00:00.000Z", "filtered": null, "states": ["pending"],
        "verification": { "strength": "body", "secret": "env:S" }, "resent_from": null,
        "request_line": "POST /hooks/a", "params": [param],
    });
    for (key, value) in [
        ("notes", json!([])),
        ("misses", json!([])),
        ("headers", json!([["host", "x"]])),
        ("replays", json!(0)),
        ("replayed_at", Value::Null),
        ("body", json!("{}")),
        ("body_base64", Value::Null),
        ("body_bytes", json!(2)),
        ("body_cut", json!(false)),
        ("attachments", json!([file()])),
        ("deliveries", json!([delivery])),
    ] {
        event[key] = value;
    }
    read_back::<EventPage>(&event);
    read_back::<HeldView>(&json!({ "paused": true, "all": true, "changed": false }));
    read_back::<HeldView>(&json!({ "source": "a", "paused": true, "changed": false }));
    read_back::<HealthView>(&json!({ "status": "ready", "detail": "paused" }));
}

#[test]
fn the_filter_of_a_job_keeps_the_spelling_it_was_kept_in() {
    let text = r#"{"items":[{"id":1,"state":"done","filter":{ "source" : "a" },"pace":60,"total":1,"done":1,"skipped":0,"started_at":"2026-01-31T12:00:00.000Z","changed_at":"2026-01-31T12:00:00.000Z","eta":null}],"next_cursor":null}"#;
    let page: PageView<JobView> = serde_json::from_str(text).expect("a page");
    assert_eq!(page.items[0].filter.get(), r#"{ "source" : "a" }"#);
    assert_eq!(serde_json::to_string(&page).expect("it is JSON"), text);
}
