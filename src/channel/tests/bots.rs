//! Bots of chats: Telegram, Discord, LINE, Mattermost, Zulip, Viber.

use serde_json::json;

use super::Chat;
use crate::channel::{CallOf, ChannelVerdict};

fn telegram() -> Chat {
    Chat::of_json(
        "telegram",
        json!({"update_id": 1, "message": {"message_id": 5, "chat": {"id": -1001}, "message_thread_id": 9, "is_topic_message": true, "text": "hi"}}),
    )
}

#[test]
fn telegram_answers_in_the_topic_of_the_message() {
    let chat = telegram();
    chat.calls(
        CallOf::Send(0),
        "POST https://api.telegram.org/botT0KEN/sendMessage",
        r#"{"chat_id":-1001,"message_thread_id":9,"text":"*hello*","link_preview_options":{"is_disabled":true},"reply_parameters":{"message_id":5,"allow_sending_without_reply":true}}"#,
    );
    chat.calls(
        CallOf::Typing,
        "POST https://api.telegram.org/botT0KEN/sendChatAction",
        r#"{"chat_id":-1001,"message_thread_id":9,"action":"typing"}"#,
    );
    chat.calls(
        CallOf::Edit,
        "POST https://api.telegram.org/botT0KEN/editMessageText",
        r#"{"chat_id":-1001,"message_id":"m7","text":"*hello*","link_preview_options":{"is_disabled":true}}"#,
    );
    let button = Chat::of_json(
        "telegram",
        json!({"callback_query": {"id": "1", "data": "x", "message": {"message_id": 7, "chat": {"id": 3}}}}),
    );
    assert_eq!(button.address.text("chat").as_deref(), Some("3"));
    assert_eq!(button.address.text("message").as_deref(), Some("7"));
}

#[test]
fn telegram_says_what_is_to_be_done() {
    let refused = |code: u16, text: &str| {
        format!(r#"{{"ok":false,"error_code":{code},"description":"{text}"}}"#)
    };
    let chat = telegram();
    for (status, text, expected) in [
        (
            400,
            "Bad Request: can't parse entities: Unsupported start tag",
            "Plain",
        ),
        (400, "Bad Request: message is too long", "Smaller"),
        (
            400,
            "Bad Request: message thread not found",
            "Without(\"topic\")",
        ),
        (
            400,
            "Bad Request: message to be replied not found",
            "Without(\"message\")",
        ),
        (
            400,
            "Bad Request: message is not modified: specified new content",
            "Sent",
        ),
        (400, "Bad Request: chat not found", "Gone"),
        (403, "Forbidden: bot was blocked by the user", "Gone"),
        (401, "Unauthorized", "Alarm"),
        (404, "Not Found", "Alarm"),
        (400, "Bad Request: something new", "Dead"),
        (500, "Internal Server Error", "Doubt"),
        (502, "Bad Gateway", "Doubt"),
    ] {
        chat.verdicts(&[(status, &refused(status, text), expected)]);
    }
    let wait = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 7","parameters":{"retry_after":7}}"#;
    chat.verdicts(&[(429, wait, "Wait { pause: Some(7s), scope: Chat }")]);
}

fn discord() -> Chat {
    Chat::of_json(
        "discord",
        json!({"type": 2, "application_id": "123", "token": "aW50ZXI", "channel_id": "456", "id": "789"}),
    )
}

#[test]
fn discord_changes_its_first_answer_then_adds_to_it_then_posts_as_the_bot() {
    let chat = discord();
    chat.calls(
        CallOf::Send(0),
        "PATCH https://discord.com/api/v10/webhooks/123/aW50ZXI/messages/@original",
        r#"{"content":"*hello*","allowed_mentions":{"parse":[]},"flags":4}"#,
    );
    let call = chat.call(CallOf::Send(0)).unwrap();
    assert_eq!(
        call.shown,
        "PATCH https://discord.com/api/v10/webhooks/123/{interaction}/messages/@original"
    );
    assert!(!call.headers.contains_key("authorization"));
    chat.calls(
        CallOf::Send(1),
        "POST https://discord.com/api/v10/webhooks/123/aW50ZXI",
        r#"{"content":"*hello*","allowed_mentions":{"parse":[]},"flags":4}"#,
    );
    chat.calls(
        CallOf::Send(2),
        "POST https://discord.com/api/v10/channels/456/messages",
        r#"{"content":"*hello*","nonce":"0123456789abcdef012345678","enforce_nonce":true,"allowed_mentions":{"parse":[]},"flags":4}"#,
    );
    assert_eq!(chat.header(CallOf::Send(2), "authorization"), "Bot T0KEN");
}

#[test]
fn discord_closes_a_way_by_its_codes() {
    discord().verdicts(&[
        (200, r#"{"id":"1"}"#, "Sent"),
        (404, r#"{"code":10015,"message":"Unknown Webhook"}"#, "Next"),
        (
            401,
            r#"{"code":50027,"message":"Invalid Webhook Token"}"#,
            "Next",
        ),
        (401, r#"{"code":0,"message":"401: Unauthorized"}"#, "Alarm"),
        (
            429,
            r#"{"retry_after":0.65,"global":false}"#,
            "Wait { pause: Some(650ms), scope: Chat }",
        ),
        (
            429,
            r#"{"retry_after":2.0,"global":true}"#,
            "Wait { pause: Some(2s), scope: Token }",
        ),
        (
            400,
            r#"{"code":50035,"errors":{"content":{"_errors":[{"code":"BASE_TYPE_MAX_LENGTH"}]}}}"#,
            "Smaller",
        ),
        (
            403,
            r#"{"code":50013,"message":"Missing Permissions"}"#,
            "Gone",
        ),
        (500, "", "Doubt"),
    ]);
}

#[test]
fn line_uses_the_token_of_the_message_first_and_pushes_with_a_key_then() {
    let chat = Chat::of_json(
        "line",
        json!({"events": [{"type": "message", "replyToken": "rt", "source": {"type": "group", "groupId": "G1", "userId": "U1"}}]}),
    );
    chat.calls(
        CallOf::Send(0),
        "POST https://api.line.me/v2/bot/message/reply",
        r#"{"replyToken":"rt","messages":[{"type":"text","text":"*hello*"}]}"#,
    );
    chat.calls(
        CallOf::Send(1),
        "POST https://api.line.me/v2/bot/message/push",
        r#"{"to":"G1","messages":[{"type":"text","text":"*hello*"}]}"#,
    );
    assert_eq!(
        chat.header(CallOf::Send(1), "x-line-retry-key"),
        "01234567-89ab-cdef-0123-456789abcdef"
    );
    assert!(
        chat.call(CallOf::Typing).is_err(),
        "there is no sign of typing in a group"
    );
    chat.verdicts(&[
        (
            200,
            r#"{"sentMessages":[{"id":"46"}]}"#,
            "Sent { id: Some(String(\"46\"))",
        ),
        (
            409,
            r#"{"message":"The retry key is already accepted"}"#,
            "Sent",
        ),
        (400, r#"{"message":"Invalid reply token"}"#, "Next"),
        (
            429,
            r#"{"message":"You have reached your monthly limit."}"#,
            "Dead",
        ),
        (
            429,
            r#"{"message":"The API rate limit has been exceeded."}"#,
            "Wait",
        ),
        (500, "", "Doubt"),
    ]);
    let person = Chat::of_json(
        "line",
        json!({"events": [{"source": {"type": "user", "userId": "U1"}}]}),
    );
    person.calls(
        CallOf::Typing,
        "POST https://api.line.me/v2/bot/chat/loading/start",
        r#"{"chatId":"U1","loadingSeconds":60}"#,
    );
}

#[test]
fn mattermost_answers_in_the_thread_at_the_host_of_the_operator() {
    let form = [("channel_id", "c1"), ("post_id", "p1"), ("text", "hi")];
    let chat = Chat::of_form("mattermost", &form).at("https://chat.example.com/");
    chat.calls(
        CallOf::Send(0),
        "POST https://chat.example.com/api/v4/posts",
        r#"{"channel_id":"c1","root_id":"p1","message":"*hello*","pending_post_id":"01234567-89ab-cdef-0123-456789abcdef"}"#,
    );
    chat.calls(
        CallOf::Edit,
        "PUT https://chat.example.com/api/v4/posts/m7/patch",
        r#"{"message":"*hello*"}"#,
    );
    chat.verdicts(&[
        (201, r#"{"id":"abc"}"#, "Sent { id: Some(String(\"abc\"))"),
        (
            400,
            r#"{"id":"api.post.create_post.root_id.app_error","message":"x"}"#,
            "Without(\"thread\")",
        ),
        (403, r#"{"id":"api.context.permissions.app_error"}"#, "Gone"),
    ]);
    assert!(
        Chat::of_form("mattermost", &form)
            .call(CallOf::Send(0))
            .is_err()
    );
}

#[test]
fn zulip_answers_in_the_topic_or_to_the_person() {
    let stream = json!({"message": {"id": 1, "type": "stream", "stream_id": 4, "subject": "a & b", "sender_id": 9}});
    let chat = Chat::of_json("zulip", stream).at("https://zulip.example.com");
    chat.calls(
        CallOf::Send(0),
        "POST https://zulip.example.com/api/v1/messages",
        "type=stream&to=4&topic=a+%26+b&content=*hello*",
    );
    assert_eq!(
        chat.header(CallOf::Send(0), "authorization"),
        "Basic dXNlcjpUMEtFTg=="
    );
    let direct = json!({"message": {"id": 1, "type": "private", "subject": "", "sender_id": 9}});
    let chat = Chat::of_json("zulip", direct).at("https://zulip.example.com");
    assert_eq!(chat.address.get("stream"), None);
    chat.calls(
        CallOf::Send(1),
        "POST https://zulip.example.com/api/v1/messages",
        "type=direct&to=%5B9%5D&content=*hello*",
    );
    chat.verdicts(&[
        (
            200,
            r#"{"result":"success","id":42}"#,
            "Sent { id: Some(Number(42))",
        ),
        (
            400,
            r#"{"result":"error","code":"STREAM_DOES_NOT_EXIST","msg":"x"}"#,
            "Gone",
        ),
        (
            429,
            r#"{"result":"error","code":"RATE_LIMIT_HIT","retry-after":1.5}"#,
            "Wait { pause: Some(1.5s)",
        ),
        (401, "", "Alarm"),
    ]);
}

#[test]
fn viber_says_in_the_body_how_it_went() {
    let chat = Chat::of_json("viber", json!({"event": "message", "sender": {"id": "u="}}));
    chat.calls(
        CallOf::Send(0),
        "POST https://chatapi.viber.com/pa/send_message",
        r#"{"receiver":"u=","type":"text","sender":{"name":"Gate"},"text":"*hello*"}"#,
    );
    assert_eq!(chat.header(CallOf::Send(0), "x-viber-auth-token"), "T0KEN");
    chat.verdicts(&[
        (
            200,
            r#"{"status":0,"message_token":57}"#,
            "Sent { id: Some(Number(57))",
        ),
        (200, r#"{"status":2}"#, "Alarm"),
        (200, r#"{"status":6}"#, "Gone"),
        (200, r#"{"status":12}"#, "Wait"),
        (200, r#"{"status":1}"#, "Dead"),
        (200, "", "Doubt"),
    ]);
    assert_eq!(chat.verdict(502, ""), ChannelVerdict::Doubt);
}
