//! Calls of made-up channels: the exact requests, and values that try to change them.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::channel::tests::{problems, spec, telegram};

const TOKEN: &str = "123:AAbb-_x";

/// Makes the first call of a channel for one part.
fn made(spec: &ChannelSpec, address: Value, part: OutgoingPart) -> Result<ChannelCall, CallError> {
    made_with(spec, ReplyAddress::of(address, json!({})), part)
}

fn made_with(
    spec: &ChannelSpec,
    address: ReplyAddress,
    part: OutgoingPart,
) -> Result<ChannelCall, CallError> {
    let without = BTreeSet::new();
    let values = [("account".to_owned(), "AC/1".to_owned())];
    let context = CallContext {
        address: &address,
        without: &without,
        values: &values,
        secrets: ChannelSecrets {
            token: Some(TOKEN),
            basic: Some(("user", "pass")),
            signing_key: Some(b"key"),
        },
        event_id: "e1",
        status: "completed",
        now: Timestamp::from_seconds(1_700_000_000),
    };
    let parts = [part];
    let message = CallMessage {
        parts: &parts,
        total: 1,
        quotes: true,
        key: Some(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)),
        ..CallMessage::default()
    };
    spec.call(CallOf::Send(0), &context, message)
}

fn text(text: &str) -> OutgoingPart {
    OutgoingPart {
        text: text.into(),
        markup: Some(text.into()),
        plain: text.into(),
        ..OutgoingPart::default()
    }
}

fn channel(auth: &str, way: &str) -> ChannelSpec {
    spec(&format!(
        "[reply]\napi = 'https://api.example.com/v1/'\nhosts = ['hooks.example.com']\nauth = '{auth}'\nlimit = 100\nvalues = ['account']\nto.chat = 'json:chat'\nto.url = 'json?:url'\nto.secret = ['url']\n[[reply.send]]\n{way}\n"
    ))
}

#[test]
fn a_body_keeps_types_and_digits_and_leaves_out_what_is_absent() {
    let chat: Value = serde_json::from_str("-1001234567890123456789012").unwrap();
    let call = made(
        &telegram(),
        json!({"chat": chat, "topic": 5}),
        text("a \"b\"\n"),
    )
    .unwrap();
    assert_eq!(
        call.url,
        "https://api.telegram.org/bot123:AAbb-_x/sendMessage"
    );
    assert_eq!(
        call.shown,
        "POST https://api.telegram.org/bot{token}/sendMessage"
    );
    assert_eq!(
        call.body,
        r#"{"chat_id":-1001234567890123456789012,"message_thread_id":5,"text":"a \"b\"\n","link_preview_options":{"is_disabled":true}}"#
    );
    let entities = OutgoingPart {
        entities: vec![json!({"type": "bold", "offset": 0, "length": 1})],
        ..text("a")
    };
    let call = made(&telegram(), json!({"chat": 1, "message": 9}), entities).unwrap();
    assert_eq!(
        call.body,
        r#"{"chat_id":1,"text":"a","entities":[{"type":"bold","offset":0,"length":1}],"link_preview_options":{"is_disabled":true},"reply_parameters":{"message_id":9,"allow_sending_without_reply":true}}"#
    );
}

#[test]
fn a_value_that_must_be_there_and_is_not_makes_no_call() {
    let missing = made(&telegram(), json!({}), text("a")).unwrap_err();
    assert_eq!(missing, CallError::Fill(FillError::Missing("chat".into())));
}

#[test]
fn nothing_that_is_printed_has_a_token_in_it() {
    let spec = channel(
        "bearer",
        "target = '{url}'\nheaders = { X-Token = '{token}' }\nbody = { text = '{text}' }",
    );
    let address = ReplyAddress::of(
        json!({"chat": 1}),
        json!({"url": "https://hooks.example.com/T0KEN"}),
    );
    let call = made_with(&spec, address, text("a")).unwrap();
    assert_eq!(call.url, "https://hooks.example.com/T0KEN");
    assert_eq!(call.shown, "POST {url}");
    let printed = format!("{call:?} {:?}", call.headers);
    assert!(
        !printed.contains("T0KEN") && !printed.contains(TOKEN),
        "{printed}"
    );
    assert!(
        !call.headers.contains_key(AUTHORIZATION),
        "the token of api stays with api"
    );
}

#[test]
fn a_form_a_query_and_a_path_are_encoded_each_in_its_way() {
    let spec = channel(
        "basic",
        "method = 'PUT'\ntarget = '/rooms/{chat}/{account}/{key}'\nquery = { k = '{key.25}', none = '{url?}' }\nform = { To = '{chat}', Body = '{text}', None = '{url?}' }",
    );
    let call = made(&spec, json!({"chat": "!a/b:c?d#e&f"}), text("1 + 1 = 2&x")).unwrap();
    assert_eq!(call.method, Method::PUT);
    assert_eq!(
        call.url,
        "https://api.example.com/v1/rooms/%21a%2Fb%3Ac%3Fd%23e%26f/AC%2F1/01234567-89ab-cdef-0123-456789abcdef?k=0123456789abcdef012345678"
    );
    assert_eq!(
        call.body,
        "To=%21a%2Fb%3Ac%3Fd%23e%26f&Body=1+%2B+1+%3D+2%26x"
    );
    assert_eq!(call.headers[AUTHORIZATION], "Basic dXNlcjpwYXNz");
    assert_eq!(
        call.headers[CONTENT_TYPE],
        "application/x-www-form-urlencoded"
    );
}

#[test]
fn a_value_leads_to_no_other_path() {
    let whole = channel(
        "none",
        "target = '/rooms/{chat}/send'\nbody = { text = '{text}' }",
    );
    let slashes = channel(
        "none",
        "target = '/{+chat}/send'\nbody = { text = '{text}' }",
    );
    for bad in [".", "..", ""] {
        assert!(
            made(&whole, json!({"chat": bad}), text("a")).is_err(),
            "{bad}"
        );
    }
    let call = made(&whole, json!({"chat": "../x"}), text("a")).unwrap();
    assert_eq!(call.url, "https://api.example.com/v1/rooms/..%2Fx/send");
    let call = made(&slashes, json!({"chat": "spaces/AAA"}), text("a")).unwrap();
    assert_eq!(call.url, "https://api.example.com/v1/spaces/AAA/send");
    for bad in ["spaces/../x", "a//b", "/a", "a/", "a/.", ".."] {
        assert!(
            made(&slashes, json!({"chat": bad}), text("a")).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn a_foreign_address_gets_no_call() {
    let spec = channel(
        "none",
        "target = '{url}/v3/{chat}'\nbody = { text = '{text}' }",
    );
    let at = |url: &str| made(&spec, json!({"chat": "c", "url": url}), text("a"));
    assert_eq!(
        at("https://hooks.example.com/emea/").unwrap().url,
        "https://hooks.example.com/emea/v3/c"
    );
    for bad in [
        "https://hooks.example.com/?x=y",
        "https://evil.example.com/",
        "http://hooks.example.com/",
        "https://hooks.example.com@evil.example.com",
    ] {
        assert_eq!(
            at(bad).unwrap_err(),
            CallError::ForeignHost("url".into()),
            "{bad}"
        );
    }
}

#[test]
fn a_header_takes_no_control_characters() {
    let spec = channel(
        "none",
        "target = '/x'\nheaders = { X-Chat = '{chat}' }\nbody = { text = '{text}' }",
    );
    assert!(made(&spec, json!({"chat": "a\r\nX: y"}), text("a")).is_err());
    assert_eq!(
        made(&spec, json!({"chat": 5}), text("a")).unwrap().headers["x-chat"],
        "5"
    );
}

#[test]
fn a_callback_is_signed_over_its_body() {
    let spec = channel(
        "standard-webhooks",
        "target = '/cb'\nbody = { result = '{text}' }",
    );
    let call = made(&spec, json!({"chat": "c"}), text("a")).unwrap();
    assert_eq!(
        call.headers["webhook-id"],
        "01234567-89ab-cdef-0123-456789abcdef"
    );
    assert!(
        call.headers["webhook-signature"]
            .to_str()
            .unwrap()
            .starts_with("v1,")
    );
}

#[test]
fn every_mistake_of_a_file_is_named_at_once() {
    let found = problems(
        "[reply]\nlimit = 0\nformat = 'telegramm'\nhosts = ['localhost']\nto.chat = 'jsn:chat'\nto.text = 'json:x'\nto.secret = ['nobody']\nvalues = ['chat']\n[[reply.send]]\nmethod = 'TRACE'\ntarget = '/x?y=1'\nwhen = { room = '*' }\nheaders = { 'X Y' = 'a' }\nkey_window = '3s'\nbody = { a = '{nothing}', b = '{open', c = '{sent}' }\n[[reply.send]]\ntarget = 'x/{chat}'\nbody = { a = 'b' }\n[reply.check]\ntarget = '/m'\neach = 'a..b'\nsame = { k = 'v' }\n[reply.typing]\ntarget = '/t'\nbody = { text = '{text}' }\n[reply.sent]\nid = 'a..b'\nother = 1\n",
    );
    let all = found.join("\n");
    for part in [
        "at least 1",
        "nothing is called reply.sent.other",
        "key_window and no key",
    ] {
        assert!(all.contains(part), "{part} in\n{all}");
    }
    let found = problems(
        "[reply]\nlimit = 9\nformat = 'telegramm'\nhosts = ['localhost']\nto.chat = 'jsn:chat'\nto.text = 'json:x'\nto.topic = 'json?:t'\nto.secret = ['nobody']\nvalues = ['chat']\n[[reply.send]]\nmethod = 'TRACE'\ntarget = '/x?y=1'\nwhen = { room = '*' }\nheaders = { 'X Y' = 'a' }\nbody = { a = '{nothing}' }\n[[reply.send]]\ntarget = 'x/{chat}'\nbody = { a = 'b', c = '{sent}' }\n[[reply.send]]\ntarget = '{chat}'\nkey = 'k'\nbody = { b = 'x{y' }\n[reply.check]\ntarget = '/m'\neach = 'a..b'\nsame = { k = 'v' }\n[[reply.send]]\ntarget = '{chat}.evil.com'\nbody = { b = '{text}' }\n[[reply.send]]\ntarget = '/r/{topic?}'\nbody = { b = '{text}' }\n[reply.typing]\ntarget = '/t'\nbody = { text = '{text}' }\n[reply.sent]\nid = 'a..b'\n",
    );
    let all = found.join("\n");
    for part in [
        "did you mean telegram?",
        "\"localhost\" is no host",
        "names no place in an event",
        "the name text has a meaning already",
        "no name of the address is \"nobody\"",
        "the name chat has a meaning already",
        "no call is made by TRACE",
        "a target below api needs an api",
        "no name of the address is \"room\"",
        "is no name of a header",
        "nothing is called {nothing} here",
        "a target begins with a slash",
        "something stands directly behind the address",
        "{topic} in a target cannot be absent",
        "{sent} has no value in this call",
        "too many; write it twice",
        "\"a..b\" is no path",
        "{text} has no value in this call",
    ] {
        assert!(all.contains(part), "{part} in\n{all}");
    }
    assert!(
        all.contains("channel.toml:3: "),
        "problems have their place:\n{all}"
    );
}

proptest! {
    #[test]
    fn no_value_changes_the_structure_around_it(chat in "\\PC{0,40}", words in any::<String>()) {
        let json_way = channel("none", "target = '/r/{chat}/send'\nheaders = { X-Chat = '{chat}' }\nquery = { q = '{chat}' }\nbody = { text = '{text}', chat = 'x{chat}' }");
        if let Ok(call) = made(&json_way, json!({"chat": chat}), text(&words)) {
            let body: Value = serde_json::from_slice(&call.body).unwrap();
            prop_assert_eq!(&body, &json!({"text": words, "chat": format!("x{chat}")}));
            let uri: http::Uri = call.url.parse().unwrap();
            prop_assert_eq!(uri.host(), Some("api.example.com"));
            let segments: Vec<&str> = uri.path().split('/').collect();
            prop_assert_eq!(segments.len(), 5);
            prop_assert!(uri.path().ends_with("/send") && uri.path().starts_with("/v1/r/"));
            let pairs: Vec<_> = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).collect();
            prop_assert_eq!(pairs, [("q".into(), chat.as_str().into())]);
        }
        let form_way = channel("none", "target = '/s'\nform = { A = '{text}', B = 'x{chat}' }");
        let call = made(&form_way, json!({"chat": chat}), text(&words)).unwrap();
        let pairs: Vec<_> = form_urlencoded::parse(&call.body).collect();
        prop_assert_eq!(pairs, [("A".into(), words.as_str().into()), ("B".into(), format!("x{chat}").into())]);
    }
}
