//! Slack: the Events API, and commands with an address for their answer.

use serde_json::json;

use super::Chat;
use crate::channel::{CallMessage, CallOf, ChannelAnswer, ChannelVerdict, CheckEnd};

fn mention() -> Chat {
    Chat::of_json(
        "slack",
        json!({"team_id": "T1", "event": {"type": "app_mention", "channel": "C1", "ts": "1700000000.000200", "text": "hi"}}),
    )
}

#[test]
fn a_mention_is_answered_in_its_thread() {
    let chat = mention();
    chat.calls(
        CallOf::Send(0),
        "POST https://slack.com/api/chat.postMessage",
        r#"{"channel":"C1","thread_ts":"1700000000.000200","blocks":[{"type":"markdown","text":"*hello*"}],"text":"hello","unfurl_links":false,"unfurl_media":false,"metadata":{"event_type":"sluicegate_reply","event_payload":{"key":"01234567-89ab-cdef-0123-456789abcdef"}}}"#,
    );
    assert_eq!(
        chat.header(CallOf::Send(0), "authorization"),
        "Bearer T0KEN"
    );
    chat.calls(
        CallOf::Edit,
        "POST https://slack.com/api/chat.update",
        r#"{"channel":"C1","ts":"m7","blocks":[{"type":"markdown","text":"*hello*"}],"text":"hello"}"#,
    );
    chat.calls(
        CallOf::Check,
        "GET https://slack.com/api/conversations.replies?channel=C1&ts=1700000000.000200&oldest=1699999000&include_all_metadata=true&limit=200",
        "",
    );
}

#[test]
fn a_direct_message_is_answered_without_a_thread_unless_it_has_one() {
    let event = |thread: serde_json::Value| json!({"event": {"type": "message", "channel_type": "im", "channel": "D1", "ts": "1.2", "thread_ts": thread}});
    let plain = Chat::of_json("slack", event(json!(null)));
    assert_eq!(plain.address.get("thread"), None);
    let threaded = Chat::of_json("slack", event(json!("1.1")));
    assert_eq!(threaded.address.text("thread").as_deref(), Some("1.1"));
}

#[test]
fn answers_are_judged_by_their_words_and_not_by_their_status() {
    mention().verdicts(&[
        (
            200,
            r#"{"ok":true,"ts":"17.1","channel":"C1"}"#,
            "Sent { id: Some(String(\"17.1\"))",
        ),
        (200, r#"{"ok":false,"error":"msg_too_long"}"#, "Smaller"),
        (
            200,
            r#"{"ok":false,"error":"msg_blocks_too_long"}"#,
            "Smaller",
        ),
        (200, r#"{"ok":false,"error":"invalid_blocks"}"#, "Plain"),
        (200, r#"{"ok":false,"error":"ratelimited"}"#, "Wait"),
        (429, "", "Wait"),
        (200, r#"{"ok":false,"error":"channel_not_found"}"#, "Gone"),
        (
            200,
            r#"{"ok":false,"error":"cannot_reply_to_message"}"#,
            "Dead",
        ),
        (
            200,
            r#"{"ok":false,"error":"restricted_action_thread_locked"}"#,
            "Dead",
        ),
        (200, r#"{"ok":false,"error":"token_revoked"}"#, "Alarm"),
        (200, r#"{"ok":false,"error":"missing_scope"}"#, "Alarm"),
        (200, r#"{"ok":false,"error":"internal_error"}"#, "Doubt"),
        (503, "", "Doubt"),
    ]);
    let judged = mention().judged(200, r#"{"ok":false,"error":"is_archived"}"#);
    assert_eq!(judged.code, "is_archived");
}

#[test]
fn a_message_of_ours_is_found_by_the_key_in_its_metadata() {
    let chat = mention();
    let checked = |body: &str| {
        let context = crate::channel::CallContext {
            address: &chat.address,
            without: &chat.without,
            values: &[],
            secrets: crate::channel::ChannelSecrets::default(),
            event_id: "e1",
            status: "completed",
            now: crate::model::Timestamp::from_seconds(1_700_000_000),
        };
        let message = CallMessage {
            key: Some(super::KEY),
            ..CallMessage::default()
        };
        let answer = ChannelAnswer {
            status: 200,
            headers: &http::HeaderMap::new(),
            body: body.as_bytes(),
        };
        chat.spec.checked(&answer, &context, message)
    };
    let ours = r#"{"ok":true,"messages":[{"ts":"1.0"},{"ts":"1.5","metadata":{"event_payload":{"key":"01234567-89ab-cdef-0123-456789abcdef"}}}]}"#;
    assert_eq!(checked(ours), CheckEnd::Found(Some(json!("1.5"))));
    assert_eq!(
        checked(&ours.replace("01234567-", "99999999-")),
        CheckEnd::Absent
    );
    for unreadable in [r#"{"ok":false,"error":"missing_scope"}"#, "", "[]"] {
        assert_eq!(checked(unreadable), CheckEnd::Unreadable, "{unreadable}");
    }
    let full = format!(r#"{{"messages":[{}]}}"#, vec!["{}"; 200].join(","));
    assert_eq!(checked(&full), CheckEnd::Unreadable, "there may be more");
}

fn command(url: &str) -> Chat {
    Chat::of_form(
        "slack-form",
        &[
            ("channel_id", "C1"),
            ("response_url", url),
            ("command", "/ask"),
        ],
    )
}

#[test]
fn a_command_is_answered_at_the_address_that_came_with_it() {
    let chat = command("https://hooks.slack.com/commands/T1/2/SECRET");
    chat.calls(
        CallOf::Send(0),
        "POST https://hooks.slack.com/commands/T1/2/SECRET",
        r#"{"response_type":"in_channel","text":"*hello*","unfurl_links":false,"unfurl_media":false}"#,
    );
    let call = chat.call(CallOf::Send(0)).unwrap();
    assert_eq!(call.shown, "POST {url}");
    assert!(!call.headers.contains_key("authorization"));
    assert!(
        command("https://hooks.slack.com.example.com/commands/x")
            .call(CallOf::Send(0))
            .is_err()
    );
    chat.verdicts(&[
        (200, "ok", "Sent"),
        (200, r#"{"ok":true}"#, "Sent"),
        (404, "expired_url", "Next"),
        (200, r#"{"ok":false,"error":"used_url"}"#, "Next"),
        (500, "", "Doubt"),
    ]);
    chat.calls(
        CallOf::Send(1),
        "POST https://slack.com/api/chat.postMessage",
        r#"{"channel":"C1","text":"*hello*","unfurl_links":false,"unfurl_media":false}"#,
    );
    assert_eq!(chat.verdict(401, ""), ChannelVerdict::Alarm);
}
