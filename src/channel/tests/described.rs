//! Channels that no provider file has yet, to prove that the vocabulary is enough for them: addresses that come with the
//! event, ids with slashes, keys in the path, signed callbacks.

use serde_json::json;

use super::{Chat, TextAndEvent, spec};
use crate::channel::{CallOf, OncePromise, WaitScope};

const ADDRESS_OF_EVENT: &str = r#"
[reply]
hosts = ["smba.trafficmanager.net", "*.botframework.com"]
auth  = "oauth-client"
token_url = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"
scope = "https://api.botframework.com/.default"
to.service      = "json:serviceUrl"
to.conversation = "json:conversation.id"
to.activity     = "json:id"
format = "teams"
limit  = 20000
unit   = "utf16"
pace   = [{ per = "{conversation}", rate = "7/s" }, { per = "token", rate = "30/s" }]

[[reply.send]]
target  = "{service}/v3/conversations/{conversation}/activities/{activity}"
headers = { Authorization = "Bearer {token}" }
body    = { type = "message", textFormat = "markdown", text = "{text}", replyToId = "{activity}" }

[reply.sent]
id    = "id"
code  = "error.code"
error = "error.message"

[[reply.verdict]]
status = 412
then   = "retry"

[[reply.verdict]]
status = 413
then   = "smaller"

[reply.edit]
method  = "PUT"
target  = "{service}/v3/conversations/{conversation}/activities/{sent}"
headers = { Authorization = "Bearer {token}" }
body    = { type = "message", textFormat = "markdown", text = "{text}" }

[reply.typing]
target  = "{service}/v3/conversations/{conversation}/activities"
headers = { Authorization = "Bearer {token}" }
body    = { type = "typing" }
every   = "3s"
"#;

fn activity(service: &str) -> TextAndEvent {
    let event = json!({"type": "message", "id": "17", "serviceUrl": service, "conversation": {"id": "19:a@thread.tacv2;messageid=5"}});
    (ADDRESS_OF_EVENT, event)
}

#[test]
fn an_address_of_the_event_gets_the_token_only_at_a_listed_host() {
    let chat = Chat::described(activity("https://smba.trafficmanager.net/emea/"));
    chat.calls(
        CallOf::Send(0),
        "POST https://smba.trafficmanager.net/emea/v3/conversations/19%3Aa%40thread.tacv2%3Bmessageid%3D5/activities/17",
        r#"{"type":"message","textFormat":"markdown","text":"*hello*","replyToId":"17"}"#,
    );
    assert_eq!(
        chat.header(CallOf::Send(0), "authorization"),
        "Bearer T0KEN"
    );
    let line = "PUT https://smba.trafficmanager.net/emea/v3/conversations/19%3Aa%40thread.tacv2%3Bmessageid%3D5/activities/m7";
    let call = chat.call(CallOf::Edit).unwrap();
    assert_eq!(format!("{} {}", call.method, call.url), line);
    for foreign in [
        "https://smba.trafficmanager.net.example.com/",
        "http://smba.trafficmanager.net/",
        "https://10.0.0.1/",
    ] {
        let chat = Chat::described(activity(foreign));
        for of in [CallOf::Send(0), CallOf::Edit, CallOf::Typing] {
            assert!(chat.call(of).is_err(), "{foreign}");
        }
    }
    chat.verdicts(&[
        (201, r#"{"id":"1:x"}"#, "Sent { id: Some(String(\"1:x\"))"),
        (412, "", "Retry"),
        (413, r#"{"error":{"code":"MessageSizeTooBig"}}"#, "Smaller"),
        (429, "", "Wait"),
        (502, "", "Doubt"),
        (504, "", "Doubt"),
        (401, "", "Alarm"),
    ]);
}

#[test]
fn the_rate_of_a_token_is_counted_after_those_of_a_chat() {
    let (file, event) = activity("https://smba.trafficmanager.net/emea/");
    let pace =
        r#"pace = [{ per = "token", rate = "30/s" }, { per = "{conversation}", rate = "7/s" }]"#;
    let line = file.lines().find(|line| line.starts_with("pace")).unwrap();
    let file = file.replace(line, pace);
    let chat = Chat::of_spec(spec(&file), &event, &[]);
    let scopes = chat.spec.pace(&chat.address).into_iter();
    let scopes: Vec<WaitScope> = scopes.map(|limit| limit.scope).collect();
    assert_eq!(scopes, [WaitScope::Chat, WaitScope::Token]);
}

const NAMES_WITH_SLASHES: &str = r#"
[reply]
api  = "https://chat.googleapis.com"
auth = "google-service-account"
to.space  = "json:space.name"
to.thread = "json?:message.thread.name"
format = "google-chat"
limit  = 32000
unit   = "bytes"

[[reply.send]]
target = "/v1/{+space}/messages"
query  = { requestId = "{key}", messageReplyOption = "REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD" }
key    = "{key}"
key_window = "10min"
body   = { text = "{text}", thread = { name = "{thread?}" } }

[reply.sent]
id    = "name"
code  = "error.status"
error = "error.message"

[reply.edit]
method = "PATCH"
target = "/v1/{+sent}"
query  = { updateMask = "text" }
body   = { text = "{text}" }
"#;

#[test]
fn a_name_with_slashes_is_a_path_and_leads_nowhere_else() {
    let event = |space: &str| json!({"space": {"name": space}, "message": {"thread": {"name": "spaces/A/threads/T"}}});
    let chat = Chat::described((NAMES_WITH_SLASHES, event("spaces/A")));
    chat.calls(
        CallOf::Send(0),
        "POST https://chat.googleapis.com/v1/spaces/A/messages?requestId=01234567-89ab-cdef-0123-456789abcdef&messageReplyOption=REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD",
        r#"{"text":"*hello*","thread":{"name":"spaces/A/threads/T"}}"#,
    );
    chat.calls(
        CallOf::Edit,
        "PATCH https://chat.googleapis.com/v1/m7?updateMask=text",
        r#"{"text":"*hello*"}"#,
    );
    for bad in ["spaces/../../x", "/spaces", "spaces//A", "spaces/."] {
        assert!(
            Chat::described((NAMES_WITH_SLASHES, event(bad)))
                .call(CallOf::Send(0))
                .is_err()
        );
    }
    let alone = Chat::described((NAMES_WITH_SLASHES, json!({"space": {"name": "spaces/A"}})));
    let call = alone.call(CallOf::Send(0)).unwrap();
    assert_eq!(
        call.body, r#"{"text":"*hello*"}"#,
        "a table of what is absent is left out"
    );
}

const KEY_IN_THE_PATH: &str = r#"
[reply]
api  = "source"
auth = "bearer"
to.room = "json:room_id"
format  = "matrix"
limit   = 50000
unit    = "bytes"

[[reply.send]]
method = "PUT"
target = "/_matrix/client/v3/rooms/{room}/send/m.room.message/{key}"
key    = "{key}"
body   = { msgtype = "m.notice", body = "{plain}", format = "org.matrix.custom.html", formatted_body = "{html?}", "m.mentions" = {} }

[reply.sent]
id    = "event_id"
code  = "errcode"
error = "error"
wait  = { at = "retry_after_ms", unit = "ms" }

[[reply.verdict]]
code = "M_UNKNOWN_TOKEN"
then = "alarm"

[[reply.verdict]]
code = "M_FORBIDDEN"
then = "gone"

[[reply.verdict]]
code = "M_TOO_LARGE"
then = "smaller"
"#;

#[test]
fn a_key_in_the_path_is_remembered_without_an_end() {
    let event = json!({"room_id": "!a/b:example.com"});
    let chat = Chat::described((KEY_IN_THE_PATH, event)).at("https://matrix.example.com");
    chat.calls(
        CallOf::Send(0),
        "PUT https://matrix.example.com/_matrix/client/v3/rooms/%21a%2Fb%3Aexample.com/send/m.room.message/01234567-89ab-cdef-0123-456789abcdef",
        r#"{"msgtype":"m.notice","body":"hello","format":"org.matrix.custom.html","m.mentions":{}}"#,
    );
    assert_eq!(chat.spec.doc().once[0].1, [OncePromise::Key(None)]);
    chat.verdicts(&[
        (200, r#"{"event_id":"$1"}"#, "Sent"),
        (
            429,
            r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":1500}"#,
            "Wait { pause: Some(1.5s)",
        ),
        (403, r#"{"errcode":"M_FORBIDDEN"}"#, "Gone"),
        (401, r#"{"errcode":"M_UNKNOWN_TOKEN"}"#, "Alarm"),
        (413, r#"{"errcode":"M_TOO_LARGE"}"#, "Smaller"),
    ]);
}

const SIGNED_CALLBACK: &str = r#"
[reply]
api  = "source"
auth = "standard-webhooks"
to.order = "json?:order"
limit = 1000000

[[reply.send]]
target = "/"
key    = "{key}"
body   = { type = "run.ended", event_id = "{event_id}", order = "{order?}", status = "{status}", result = "{text}" }

[[reply.verdict]]
status = 410
then   = "gone"
"#;

#[test]
fn a_callback_goes_to_its_address_and_is_signed() {
    let chat = Chat::described((SIGNED_CALLBACK, json!({"order": 12.50})))
        .at("https://shop.example.com/callback/");
    chat.calls(
        CallOf::Send(0),
        "POST https://shop.example.com/callback",
        r#"{"type":"run.ended","event_id":"e1","order":12.5,"status":"completed","result":"*hello*"}"#,
    );
    let id = chat.header(CallOf::Send(0), "webhook-id");
    assert_eq!(id, "01234567-89ab-cdef-0123-456789abcdef");
    assert!(
        chat.header(CallOf::Send(0), "webhook-signature")
            .starts_with("v1,")
    );
    chat.verdicts(&[(204, "", "Sent"), (410, "", "Gone"), (503, "", "Doubt")]);
}
