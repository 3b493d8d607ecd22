//! Messengers that are tied to a person: WhatsApp, Messenger, SMS.

use serde_json::json;

use super::{Chat, KEY};
use crate::channel::{CallOf, ProofEnd};

fn whatsapp() -> Chat {
    Chat::of_json(
        "whatsapp",
        json!({"entry": [{"changes": [{"value": {"metadata": {"phone_number_id": "27681"}, "messages": [{"from": "16315551234", "id": "wamid.A", "type": "text"}]}}]}]}),
    )
}

#[test]
fn whatsapp_hands_over_the_key_and_refers_to_the_message() {
    let chat = whatsapp();
    chat.calls(
        CallOf::Send(0),
        "POST https://graph.facebook.com/v26.0/27681/messages",
        r#"{"messaging_product":"whatsapp","recipient_type":"individual","to":"16315551234","type":"text","text":{"body":"*hello*","preview_url":false},"context":{"message_id":"wamid.A"},"biz_opaque_callback_data":"01234567-89ab-cdef-0123-456789abcdef"}"#,
    );
    assert_eq!(
        chat.header(CallOf::Send(0), "authorization"),
        "Bearer T0KEN"
    );
    chat.calls(
        CallOf::Typing,
        "POST https://graph.facebook.com/v26.0/27681/messages",
        r#"{"messaging_product":"whatsapp","status":"read","message_id":"wamid.A","typing_indicator":{"type":"text"}}"#,
    );
    let pace = chat.spec.pace(&chat.address);
    assert_eq!(pace[0].key, "0/chat/16315551234");
    assert_eq!((pace[0].rate.count, pace[0].burst), (10, Some(45)));
}

#[test]
fn whatsapp_is_judged_by_its_codes() {
    let refused = |code: u32| format!(r#"{{"error":{{"code":{code},"message":"x"}}}}"#);
    let chat = whatsapp();
    for (status, code, expected) in [
        (401, 190, "Alarm"),
        (400, 131_047, "Dead"),
        (400, 131_026, "Dead"),
        (400, 131_051, "Dead"),
        (400, 100, "Dead"),
        (429, 130_429, "Wait { pause: Some(30s), scope: Token }"),
        (400, 131_056, "Wait { pause: Some(16s), scope: Chat }"),
        (400, 80_007, "Wait"),
        (500, 131_000, "Doubt"),
        (400, 131_016, "Doubt"),
    ] {
        chat.verdicts(&[(status, &refused(code), expected)]);
    }
    chat.verdicts(&[(
        200,
        r#"{"messages":[{"id":"wamid.B"}]}"#,
        "Sent { id: Some(String(\"wamid.B\"))",
    )]);
}

#[test]
fn a_status_of_whatsapp_proves_a_message_or_its_failure() {
    let event = json!({"entry": [{"changes": [{"value": {"statuses": [
        {"id": "wamid.C", "status": "delivered", "biz_opaque_callback_data": KEY.to_string()},
        {"id": "wamid.D", "status": "failed", "biz_opaque_callback_data": KEY.to_string(), "errors": [{"code": 131026}]},
        {"id": "wamid.E", "status": "read"},
        {"id": "wamid.F", "status": "read", "biz_opaque_callback_data": "not a key"},
    ]}}]}]});
    let proofs = whatsapp().spec.proofs("messages", &event);
    let ends: Vec<_> = proofs.iter().map(|proof| proof.end.clone()).collect();
    assert_eq!(
        ends,
        [
            ProofEnd::Sent(Some(json!("wamid.C"))),
            ProofEnd::Failed("131026".into())
        ]
    );
    assert!(proofs.iter().all(|proof| proof.key == KEY));
}

#[test]
fn messenger_proves_a_message_by_its_echo() {
    let chat = Chat::of_json(
        "meta",
        json!({"entry": [{"messaging": [{"sender": {"id": "7"}, "recipient": {"id": "0"}}]}]}),
    );
    chat.calls(
        CallOf::Send(0),
        "POST https://graph.facebook.com/v26.0/me/messages",
        r#"{"recipient":{"id":"7"},"messaging_type":"RESPONSE","message":{"text":"*hello*","metadata":"01234567-89ab-cdef-0123-456789abcdef"}}"#,
    );
    chat.calls(
        CallOf::TypingOff,
        "POST https://graph.facebook.com/v26.0/me/messages",
        r#"{"recipient":{"id":"7"},"sender_action":"typing_off"}"#,
    );
    let echo = json!({"entry": [{"messaging": [{"message": {"is_echo": true, "mid": "m1", "metadata": KEY.to_string()}}]}]});
    let proofs = chat.spec.proofs("page", &echo);
    assert_eq!(proofs.len(), 1);
    assert_eq!(proofs[0].end, ProofEnd::Sent(Some(json!("m1"))));
    chat.verdicts(&[
        (200, r#"{"message_id":"m2"}"#, "Sent"),
        (
            400,
            r#"{"error":{"code":10,"message":"outside of the window"}}"#,
            "Dead",
        ),
        (400, r#"{"error":{"code":613}}"#, "Wait"),
        (401, r#"{"error":{"code":190}}"#, "Alarm"),
    ]);
}

#[test]
fn twilio_takes_a_form_with_the_numbers_the_other_way_round() {
    let chat = Chat::of_form(
        "twilio",
        &[
            ("From", "+15551"),
            ("To", "+15552"),
            ("AccountSid", "AC1"),
            ("Body", "hi"),
        ],
    );
    chat.calls(
        CallOf::Send(0),
        "POST https://api.twilio.com/2010-04-01/Accounts/AC1/Messages.json",
        "To=%2B15551&From=%2B15552&Body=*hello*",
    );
    chat.verdicts(&[
        (
            201,
            r#"{"sid":"SM1","status":"queued"}"#,
            "Sent { id: Some(String(\"SM1\"))",
        ),
        (400, r#"{"code":21617,"message":"too long"}"#, "Smaller"),
        (400, r#"{"code":21610,"message":"STOP"}"#, "Gone"),
        (400, r#"{"code":63016}"#, "Dead"),
        (429, r#"{"code":20429}"#, "Wait"),
        (500, "", "Doubt"),
    ]);
}
