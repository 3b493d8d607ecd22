//! Lists in requests, answers by kind of event, and who makes the agent run in chats. Over real sockets.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use http::Response;
use serde_json::{Value, json};

use crate::world::{Gateway, Upstream, borrowed, hmac_sha256, json as json_of};

const SECRET: &str = "a-secret-for-trying-1";

/// A source for each provider, named like it.
fn sources(providers: &[&str], more: &str) -> String {
    let source = |name: &&str| {
        format!(
            "[sources.{name}]\nprovider = \"{name}\"\nsecrets = [\"literal:{SECRET}\"]\nagent = \"a-{name}\"\n\
             values = {{ verify_token = \"verify-me-please\" }}\n{more}\n"
        )
    };
    providers.iter().map(source).collect()
}

/// As the channel of the bots signs that uses the older digest.
fn hmac_sha1(message: &str) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(SECRET.as_bytes()).expect("any key length");
    mac.update(message.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

fn now() -> i64 {
    sluicegate::model::Clock::system().now().seconds()
}

/// Sends a body as the provider signs it.
async fn post_signed(gateway: &Gateway, provider: &str, kind: &str, body: &str) -> Response<Bytes> {
    let hex = |text: &str| hmac_sha256(SECRET.as_bytes(), text.as_bytes());
    let ts = now().to_string();
    let (query, headers) = match provider {
        "whatsapp" | "meta" => (
            "",
            vec![("x-hub-signature-256", format!("sha256={}", hex(body)))],
        ),
        "line" => (
            "",
            vec![(
                "x-line-signature",
                STANDARD.encode(hex::decode(hex(body)).unwrap()),
            )],
        ),
        "viber" => ("", vec![("x-viber-content-signature", hex(body))]),
        "rocket-chat" | "mattermost" | "zulip" => ("", vec![]),
        "webex" => ("", vec![("x-spark-signature", hmac_sha1(body))]),
        "telegram" => (
            "",
            vec![("x-telegram-bot-api-secret-token", SECRET.to_owned())],
        ),
        "slack" => (
            "",
            vec![
                (
                    "x-slack-signature",
                    format!("v0={}", hex(&format!("v0:{ts}:{body}"))),
                ),
                ("x-slack-request-timestamp", ts),
            ],
        ),
        "azure-event-grid-query" => ("?secret=a-secret-for-trying-1", vec![]),
        // Its source looks at no signature.
        "discord" => ("", vec![]),
        other => panic!("nobody knows how {other} signs"),
    };
    let mut headers = borrowed(&headers);
    headers.push(("content-type", kind));
    gateway
        .post(
            &format!("/hooks/{provider}{query}"),
            &headers,
            body.to_owned(),
        )
        .await
}

async fn post(gateway: &Gateway, provider: &str, body: &Value) -> Response<Bytes> {
    let answer = post_signed(gateway, provider, "application/json", &body.to_string()).await;
    assert!(
        answer.status().is_success(),
        "{provider}: {} {:?}",
        answer.status(),
        answer.body()
    );
    answer
}

/// What the agents were told, in the order of the runs.
async fn told(upstream: &Upstream) -> Vec<String> {
    let text = |run: &Value| {
        run["body"]["input"]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    upstream.runs().await.iter().map(text).collect()
}

/// Everything that is kept, oldest first.
async fn events(gateway: &Gateway) -> Vec<Value> {
    let mut items = gateway.admin_json("/events?limit=200").await["items"]
        .as_array()
        .unwrap()
        .clone();
    items.reverse();
    items
}

fn whatsapp(messages: &[(&str, &str)]) -> Value {
    let message = |(id, text): &(&str, &str)| json!({ "id": id, "from": "15550001", "type": "text", "text": { "body": text } });
    let messages: Vec<_> = messages.iter().map(message).collect();
    let value = json!({ "metadata": { "phone_number_id": "27" }, "messages": messages });
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": "1", "changes": [{ "field": "messages", "value": value }] }] })
}

#[tokio::test]
async fn a1_a_batch_of_an_old_and_a_new_message_keeps_the_new() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(
        upstream.address,
        &sources(&["whatsapp", "azure-event-grid-query"], ""),
    )
    .await;
    post(&gateway, "whatsapp", &whatsapp(&[("m1", "one")])).await;
    let answer = json_of(
        &post(
            &gateway,
            "whatsapp",
            &whatsapp(&[("m1", "one"), ("m2", "two"), ("m3", "three")]),
        )
        .await,
    );
    assert_eq!(answer["status"], "accepted");
    let each: Vec<_> = answer["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["status"].clone())
        .collect();
    assert_eq!(each, ["duplicate", "accepted", "accepted"]);
    assert_eq!(
        answer["event_id"], answer["events"][1]["event_id"],
        "the first that is new"
    );
    upstream.wait_for_runs(3).await;
    let texts = told(&upstream).await;
    assert_eq!(texts, ["one", "two", "three"]);
    let kept = events(&gateway).await;
    for (event, word) in kept.iter().zip(["one", "two", "three"]) {
        let whole = gateway
            .admin_json(&format!("/events/{}", event["id"].as_str().unwrap()))
            .await;
        let said: Value = serde_json::from_str(whole["body"].as_str().unwrap())
            .expect("the event alone is its body");
        let value = &said["entry"][0]["changes"][0]["value"];
        assert_eq!(value["messages"].as_array().unwrap().len(), 1, "{whole}");
        assert_eq!(
            (
                &value["messages"][0]["text"]["body"],
                &value["metadata"]["phone_number_id"]
            ),
            (&json!(word), &json!("27"))
        );
    }
    let keys: Vec<_> = kept.iter().map(|event| event["dedup"].clone()).collect();
    assert_eq!(keys, ["m1", "m2", "m3"]);
    assert!(
        kept.iter()
            .all(|event| event["thread"] == "15550001" && event["event_type"] == "messages"),
        "{kept:?}"
    );

    let grid = |ids: &[&str]| {
        ids.iter()
            .map(|id| json!({ "id": id, "eventType": format!("t.{id}") }))
            .collect::<Value>()
    };
    post(&gateway, "azure-event-grid-query", &grid(&["e1"])).await;
    post(&gateway, "azure-event-grid-query", &grid(&["e2", "e1"])).await;
    let kept = events(&gateway).await;
    let of_grid: Vec<_> = kept[3..]
        .iter()
        .map(|event| (event["dedup"].clone(), event["event_type"].clone()))
        .collect();
    assert_eq!(
        of_grid,
        [(json!("e1"), json!("t.e1")), (json!("e2"), json!("t.e2"))]
    );
    upstream.wait_for_runs(5).await;
    assert_eq!(upstream.runs().await.len(), 5, "nothing ran twice");
}

#[tokio::test]
async fn a1_a_batch_that_is_sent_again_is_a_duplicate_as_a_whole() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &sources(&["meta", "line"], "")).await;
    // Nothing names the changes of a page; the signature does.
    let change = |text: &str| json!({ "field": "feed", "value": { "message": text } });
    let body = json!({ "object": "page", "entry": [{ "id": "1", "time": 1, "changes": [change("a"), change("b")] }, { "id": "2", "time": 1, "changes": [change("c")] }] });
    let first = json_of(&post(&gateway, "meta", &body).await);
    assert_eq!(first["events"].as_array().unwrap().len(), 3);
    let again = json_of(&post(&gateway, "meta", &body).await);
    assert_eq!(again["status"], "duplicate", "{again}");
    let line = |ids: &[&str]| {
        let event = |id: &&str| json!({ "webhookEventId": id, "type": "message", "source": { "userId": "u" }, "message": { "type": "text", "text": id } });
        json!({ "destination": "d", "events": ids.iter().map(event).collect::<Value>() })
    };
    post(&gateway, "line", &line(&["日本-1", "l2"])).await;
    post(&gateway, "line", &line(&["l2", "日本-1", "l3"])).await;
    // The test of the address brings no event.
    assert_eq!(post(&gateway, "line", &line(&[])).await.status(), 200);
    upstream.wait_for_runs(6).await;
    let kept = events(&gateway).await;
    let keys: Vec<_> = kept[3..]
        .iter()
        .map(|event| event["dedup"].clone())
        .collect();
    assert_eq!(keys, ["日本-1", "l2", "l3"], "ids of any characters");
    assert_eq!(upstream.runs().await.len(), 6);
}

#[tokio::test]
async fn a1_a_source_says_itself_where_its_items_stand_and_a_wait_is_for_one() {
    let upstream = Upstream::start(&[]).await;
    let source = |name: &str, more: &str| {
        format!(
            "[sources.{name}]\nprovider = \"custom\"\nsecrets = [\"literal:{SECRET}\"]\nagent = \"a\"\nthread = \"orders.0.customer\"\n\
             verify = {{ scheme = \"token\", signature = \"header:x-token\", event_id = \"header:x-id\" }}\n\
             params_mapping = {{ prompt = \"orders.0.note\" }}\n{more}\n"
        )
    };
    let each = "each = [\"orders.*\"]";
    let all = [
        source("list", each),
        source("wait", &format!("{each}\nrespond = \"wait\"")),
        source("proxy", &format!("{each}\nrespond = \"proxy\"")),
        source("wants", &format!("{each}\nwhen = \"body.orders[0].paid\"")),
    ];
    let gateway = Gateway::start(upstream.address, &all.concat()).await;
    let body = json!({ "orders": [{ "note": "first", "customer": 7, "paid": true }, { "note": "second", "customer": "é", "paid": false }] });
    let tell = async |name: &str, id: &str| {
        let headers = [
            ("x-token", SECRET),
            ("x-id", id),
            ("content-type", "application/json"),
        ];
        let answer = gateway
            .post(&format!("/hooks/{name}"), &headers, body.to_string())
            .await;
        assert!(answer.status().is_success(), "{name}: {:?}", answer.body());
        json_of(&answer)
    };
    assert_eq!(
        tell("list", "r1").await["events"].as_array().unwrap().len(),
        2
    );
    // Where the id names the request, the place in it tells its items apart.
    let kept: Vec<_> = events(&gateway)
        .await
        .iter()
        .map(|event| (event["dedup"].clone(), event["thread"].clone()))
        .collect();
    assert_eq!(
        kept,
        [(json!("r1"), json!("7")), (json!("r1/1"), json!("é"))]
    );
    assert_eq!(tell("list", "r1").await["status"], "duplicate");
    upstream.wait_for_runs(2).await;
    let mut texts = told(&upstream).await;
    texts.sort();
    assert_eq!(texts, ["first", "second"]);

    // One answer cannot be the end of two runs: both are acknowledged.
    assert_eq!(tell("wait", "r2").await["status"], "accepted");
    // What is passed on stays one call.
    assert_eq!(tell("proxy", "r3").await["status"], "completed");
    let judged = tell("wants", "r4").await;
    let each: Vec<_> = judged["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["status"].clone())
        .collect();
    assert_eq!(
        each,
        ["accepted", "filtered"],
        "the filters judge each item"
    );
}

/// Each request brings three messages. After a crash in the middle each is there whole or not at all, and whole where it was
/// acknowledged.
#[tokio::test]
async fn a1_a_crash_keeps_all_of_a_batch_or_nothing() {
    let upstream = Upstream::start(&[]).await;
    let all = sources(&["whatsapp"], "");
    let gateway = Gateway::start(upstream.address, &all).await;
    let ids: Vec<[String; 3]> = (0..120)
        .map(|n| ["a", "b", "c"].map(|item| format!("{n}-{item}")))
        .collect();
    let acknowledged = {
        let gateway = &gateway;
        let one = |ids: &[String; 3]| {
            let body = whatsapp(&[(&ids[0], "x"), (&ids[1], "y"), (&ids[2], "z")]).to_string();
            async move {
                post_signed(gateway, "whatsapp", "application/json", &body)
                    .await
                    .status()
                    .is_success()
            }
        };
        // Those of the first half have their answer before the crash; the others are on their way when it comes.
        let first = join_all(ids[..60].iter().map(one)).await;
        assert!(first.iter().all(|kept| *kept));
        60
    };
    let folder = {
        let rest: Vec<_> = ids[60..]
            .iter()
            .map(|ids| whatsapp(&[(&ids[0], "x"), (&ids[1], "y"), (&ids[2], "z")]).to_string())
            .collect();
        let (address, client) = (gateway.public, rest);
        let sent = client.into_iter().map(|body| {
            let signature = format!("sha256={}", hmac_sha256(SECRET.as_bytes(), body.as_bytes()));
            tokio::spawn(async move {
                let head = format!(
                    "POST /hooks/whatsapp HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\nx-hub-signature-256: {signature}\r\n\
                     content-length: {}\r\n\r\n",
                    body.len()
                );
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let mut socket = tokio::net::TcpStream::connect(address).await.ok()?;
                socket.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
                let mut begin = [0; 12];
                socket.read_exact(&mut begin).await.ok()?;
                Some(())
            })
        });
        let mut sent: Vec<_> = sent.collect();
        // The first answer says that the others are in the middle of it.
        let first = sent.remove(0).await.unwrap();
        assert!(first.is_some());
        let folder = gateway.kill();
        for one in sent {
            let _ = one.await;
        }
        folder
    };
    let gateway = Gateway::start_in(folder, upstream.address, &all).await;
    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = gateway
            .admin_json(&format!("/events?limit=200{cursor}"))
            .await;
        for event in page["items"].as_array().unwrap() {
            let key = event["dedup"].as_str().unwrap();
            *found
                .entry(key.split('-').next().unwrap().to_owned())
                .or_default() += 1;
        }
        match page["next_cursor"].as_str() {
            None => break,
            Some(next) => cursor = format!("&cursor={next}"),
        }
    }
    assert!(
        (0..acknowledged).all(|n| found.contains_key(&n.to_string())),
        "{found:?}"
    );
    assert!(found.values().all(|items| *items == 3), "{found:?}");
}

#[tokio::test]
async fn a2_ids_in_a_form_in_parts_are_ids_and_mail_that_comes_in_is_taken() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &sources(&["mailgun"], "files = true")).await;
    let ts = now().to_string();
    let signature = hmac_sha256(SECRET.as_bytes(), format!("{ts}token-é").as_bytes());
    let fields = [
        ("timestamp", ts.as_str()),
        ("token", "token-é"),
        ("signature", &signature),
        ("subject", "The door"),
        ("body-plain", "It is stuck."),
    ];
    let mut parts = String::new();
    for (name, value) in fields {
        parts.push_str(&format!(
            "--XbX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        ));
    }
    parts.push_str("--XbX\r\nContent-Disposition: form-data; name=\"attachment-1\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nthe file\r\n--XbX--\r\n");
    let kind = [("content-type", "multipart/form-data; boundary=XbX")];
    for status in ["accepted", "duplicate"] {
        let answer = gateway.post("/hooks/mailgun", &kind, parts.clone()).await;
        assert!(answer.status().is_success(), "{:?}", answer.body());
        assert_eq!(json_of(&answer)["status"], status);
    }
    let kept = events(&gateway).await;
    assert_eq!((kept.len(), &kept[0]["dedup"]), (1, &json!("token-é")));
    upstream.wait_for_runs(1).await;
    let text = told(&upstream).await.remove(0);
    assert!(text.contains("It is stuck."), "{text}");
}

#[tokio::test]
async fn a11_each_type_of_interaction_gets_its_own_answer() {
    let upstream = Upstream::start(&[]).await;
    // Any public key: this source says what is wrong with a signature, and takes the request.
    let key = format!("58{}", "66".repeat(31));
    let discord = format!(
        "[sources.discord]\nprovider = \"discord\"\nsecrets = [\"literal:{key}\"]\nagent = \"a\"\nenforce = false\n"
    );
    let gateway = Gateway::start(
        upstream.address,
        &[discord, sources(&["slack"], "")].concat(),
    )
    .await;
    let asked = |kind: u8, id: &str| json!({ "id": id, "application_id": "9", "type": kind, "data": { "name": "agent" } });
    for (kind, answer) in [
        (2, json!({ "type": 5 })),
        (3, json!({ "type": 6 })),
        (4, json!({ "type": 8, "data": { "choices": [] } })),
        (5, json!({ "type": 5 })),
    ] {
        let got = post(&gateway, "discord", &asked(kind, &format!("i{kind}"))).await;
        assert_eq!(
            (got.status().as_u16(), json_of(&got)),
            (200, answer),
            "type {kind}"
        );
        assert_eq!(got.headers()["content-type"], "application/json");
    }
    let event = json!({ "version": 1, "application_id": "9", "type": 1, "event": { "type": "APPLICATION_AUTHORIZED" } });
    let got = post(&gateway, "discord", &event).await;
    assert_eq!((got.status().as_u16(), got.body().len()), (204, 0));
    let runs = upstream.wait_for_runs(4).await;
    assert_eq!(runs.len(), 4, "an autocompletion runs nothing");
    let kept = events(&gateway).await;
    assert_eq!(kept[2]["filtered"], "kind: autocompletion");

    let form = "application/x-www-form-urlencoded";
    let menu = post_signed(
        &gateway,
        "slack",
        form,
        "payload=%7B%22type%22%3A%22block_suggestion%22%2C%22value%22%3A%22h%22%7D",
    )
    .await;
    assert_eq!(
        (menu.status().as_u16(), json_of(&menu)),
        (200, json!({ "options": [] }))
    );
    let command = post_signed(
        &gateway,
        "slack",
        form,
        "command=%2Fagent&text=hello&trigger_id=t1",
    )
    .await;
    assert_eq!(
        (command.status().as_u16(), command.body().len()),
        (200, 0),
        "a body would be shown"
    );
    let pressed = post_signed(
        &gateway,
        "slack",
        form,
        "payload=%7B%22type%22%3A%22block_actions%22%2C%22trigger_id%22%3A%22t2%22%7D",
    )
    .await;
    assert_eq!((pressed.status().as_u16(), pressed.body().len()), (200, 0));
    let check = gateway
        .post(
            "/hooks/slack",
            &[("content-type", form)],
            "ssl_check=1&token=x",
        )
        .await;
    assert_eq!(check.status(), 200, "the check of the certificate");
    assert_eq!(upstream.wait_for_runs(6).await.len(), 6);
    let keys: Vec<_> = events(&gateway)
        .await
        .iter()
        .map(|event| event["dedup"].clone())
        .collect();
    assert!(
        keys.contains(&json!("t1")) && keys.contains(&json!("t2")),
        "{keys:?}"
    );
}

/// What each channel sends, and whether a human says something with it.
fn updates() -> Vec<(&'static str, Value, bool)> {
    let slack = |event: Value| json!({ "type": "event_callback", "event_id": format!("Ev{:x}", fastrand::u64(..)), "event": event });
    let message = |more: Value| {
        let mut event = json!({ "type": "message", "user": "U1", "text": "hello", "channel": "C1", "ts": "1.1" });
        event
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        slack(event)
    };
    let telegram = |update: Value| {
        let mut update = update;
        update["update_id"] = json!(fastrand::u32(..));
        update
    };
    let chat = |more: Value| {
        let mut message = json!({ "message_id": 1, "date": 1, "chat": { "id": 5 }, "from": { "id": 7, "is_bot": false } });
        message
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        telegram(json!({ "message": message }))
    };
    let wa = |value: Value| json!({ "object": "whatsapp_business_account", "entry": [{ "id": "1", "changes": [{ "field": "messages", "value": value }] }] });
    let wa_message = |kind: &str| {
        wa(
            json!({ "messages": [{ "id": format!("{:x}", fastrand::u64(..)), "from": "1", "type": kind }] }),
        )
    };
    let meta = |object: &str, item: Value| {
        let mut item = item;
        item["sender"] = json!({ "id": "s" });
        item["timestamp"] = json!(fastrand::u32(..));
        json!({ "object": object, "entry": [{ "id": "1", "time": 1, "messaging": [item] }] })
    };
    let line = |event: Value| {
        let mut event = event;
        event["webhookEventId"] = json!(format!("{:x}", fastrand::u64(..)));
        json!({ "destination": "d", "events": [event] })
    };
    let viber = |kind: &str, more: Value| {
        let mut body = json!({ "event": kind, "message_token": fastrand::u32(..), "timestamp": 1 });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    let shown = |more: Value| {
        let mut body = json!({ "token": SECRET, "channel_id": "c", "text": "hello" });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    let webex = |event: &str, email: &str| {
        let data = json!({ "id": format!("{:x}", fastrand::u64(..)), "roomId": "r", "personEmail": email });
        json!({ "id": "hook", "resource": "messages", "event": event, "data": data })
    };
    vec![
        ("mattermost", shown(json!({ "post_id": "p1" })), true),
        (
            "rocket-chat",
            shown(json!({ "message_id": "r1", "bot": false })),
            true,
        ),
        (
            "rocket-chat",
            shown(json!({ "message_id": "r2", "bot": { "i": "x" } })),
            false,
        ),
        (
            "rocket-chat",
            shown(json!({ "message_id": "r3", "bot": false, "isEdited": true })),
            false,
        ),
        (
            "zulip",
            shown(json!({ "trigger": "mention", "message": { "id": 1, "content": "hello" } })),
            true,
        ),
        ("webex", webex("created", "ann@example.com"), true),
        ("webex", webex("created", "agent@webex.bot"), false),
        ("webex", webex("deleted", "ann@example.com"), false),
        ("slack", message(json!({})), true),
        (
            "slack",
            message(json!({ "subtype": "file_share", "files": [] })),
            true,
        ),
        (
            "slack",
            message(json!({ "subtype": "thread_broadcast" })),
            true,
        ),
        (
            "slack",
            slack(json!({ "type": "app_mention", "user": "U1", "text": "<@B> hi" })),
            true,
        ),
        ("slack", message(json!({ "bot_id": "B1" })), false),
        ("slack", message(json!({ "subtype": "bot_message" })), false),
        (
            "slack",
            message(json!({ "subtype": "message_changed", "message": { "text": "x" } })),
            false,
        ),
        (
            "slack",
            message(json!({ "subtype": "message_deleted", "hidden": true })),
            false,
        ),
        (
            "slack",
            message(json!({ "subtype": "channel_join" })),
            false,
        ),
        (
            "slack",
            slack(
                json!({ "type": "app_mention", "user": "U1", "text": "hi", "edited": { "ts": "2" } }),
            ),
            false,
        ),
        ("telegram", chat(json!({ "text": "hello" })), true),
        (
            "telegram",
            chat(json!({ "caption": "look", "photo": [] })),
            true,
        ),
        (
            "telegram",
            chat(
                json!({ "text": "hi", "from": { "id": 1_087_968_824, "is_bot": true }, "sender_chat": { "id": 5 } }),
            ),
            true,
        ),
        (
            "telegram",
            telegram(
                json!({ "callback_query": { "id": "1", "from": { "id": 7 }, "data": "yes" } }),
            ),
            true,
        ),
        (
            "telegram",
            chat(json!({ "text": "hi", "from": { "id": 8, "is_bot": true } })),
            false,
        ),
        (
            "telegram",
            chat(json!({ "sticker": { "file_id": "f" } })),
            false,
        ),
        (
            "telegram",
            chat(json!({ "new_chat_members": [{ "id": 9 }] })),
            false,
        ),
        (
            "telegram",
            chat(json!({ "pinned_message": { "message_id": 1 } })),
            false,
        ),
        (
            "telegram",
            chat(json!({ "text": "x", "is_automatic_forward": true })),
            false,
        ),
        (
            "telegram",
            telegram(json!({ "edited_message": { "message_id": 1, "text": "x" } })),
            false,
        ),
        (
            "telegram",
            telegram(json!({ "my_chat_member": { "new_chat_member": { "status": "kicked" } } })),
            false,
        ),
        (
            "telegram",
            telegram(json!({ "message_reaction": { "message_id": 1 } })),
            false,
        ),
        (
            "telegram",
            telegram(json!({ "poll": { "id": "1" } })),
            false,
        ),
        (
            "telegram",
            telegram(json!({ "inline_query": { "id": "1", "query": "h" } })),
            false,
        ),
        ("whatsapp", wa_message("text"), true),
        ("whatsapp", wa_message("image"), true),
        ("whatsapp", wa_message("button"), true),
        ("whatsapp", wa_message("sticker"), false),
        ("whatsapp", wa_message("reaction"), false),
        ("whatsapp", wa_message("unsupported"), false),
        (
            "whatsapp",
            wa(json!({ "statuses": [{ "id": "w1", "status": "delivered" }] })),
            false,
        ),
        (
            "whatsapp",
            wa(json!({ "statuses": [{ "id": "w1", "status": "read" }] })),
            false,
        ),
        ("whatsapp", wa(json!({ "errors": [{ "code": 1 }] })), false),
        (
            "meta",
            meta(
                "page",
                json!({ "message": { "mid": "a1", "text": "hello" } }),
            ),
            true,
        ),
        (
            "meta",
            meta(
                "instagram",
                json!({ "message": { "mid": "a2", "text": "hello" } }),
            ),
            true,
        ),
        (
            "meta",
            meta(
                "page",
                json!({ "postback": { "mid": "a3", "payload": "go" } }),
            ),
            true,
        ),
        (
            "meta",
            meta(
                "page",
                json!({ "message": { "mid": "a4", "text": "x", "is_echo": true } }),
            ),
            false,
        ),
        (
            "meta",
            meta(
                "instagram",
                json!({ "message": { "mid": "a2", "is_deleted": true } }),
            ),
            false,
        ),
        (
            "meta",
            meta(
                "page",
                json!({ "message": { "mid": "a5", "sticker_id": 1 } }),
            ),
            false,
        ),
        (
            "meta",
            meta("page", json!({ "delivery": { "watermark": 1 } })),
            false,
        ),
        (
            "meta",
            meta("page", json!({ "read": { "watermark": 1 } })),
            false,
        ),
        (
            "meta",
            meta(
                "instagram",
                json!({ "reaction": { "mid": "a2", "action": "react" } }),
            ),
            false,
        ),
        (
            "meta",
            meta(
                "instagram",
                json!({ "message_edit": { "mid": "a2", "text": "x" } }),
            ),
            false,
        ),
        (
            "line",
            line(json!({ "type": "message", "message": { "type": "text", "text": "hello" } })),
            true,
        ),
        (
            "line",
            line(json!({ "type": "postback", "postback": { "data": "go" } })),
            true,
        ),
        (
            "line",
            line(json!({ "type": "message", "message": { "type": "sticker" } })),
            false,
        ),
        (
            "line",
            line(json!({ "type": "message", "mode": "standby", "message": { "type": "text" } })),
            false,
        ),
        (
            "line",
            line(json!({ "type": "unsend", "unsend": { "messageId": "1" } })),
            false,
        ),
        ("line", line(json!({ "type": "unfollow" })), false),
        (
            "viber",
            viber(
                "message",
                json!({ "sender": { "id": "v" }, "message": { "type": "text", "text": "hello" } }),
            ),
            true,
        ),
        (
            "viber",
            viber(
                "message",
                json!({ "sender": { "id": "v" }, "message": { "type": "sticker" } }),
            ),
            false,
        ),
        (
            "viber",
            viber("delivered", json!({ "user_id": "v" })),
            false,
        ),
        ("viber", viber("seen", json!({ "user_id": "v" })), false),
        (
            "viber",
            viber("unsubscribed", json!({ "user_id": "v" })),
            false,
        ),
        (
            "viber",
            viber("conversation_started", json!({ "user": { "id": "v" } })),
            false,
        ),
    ]
}

const CHATS: [&str; 10] = [
    "mattermost",
    "rocket-chat",
    "zulip",
    "webex",
    "slack",
    "telegram",
    "whatsapp",
    "meta",
    "line",
    "viber",
];

/// Feeds a gateway with everything: of each update the rule that keeps it from running.
async fn fed(gateway: &Gateway) -> Vec<(String, bool, Value)> {
    let mut judged = Vec::new();
    for (provider, body, human) in updates() {
        let answer = post(gateway, provider, &body).await;
        let id = answer.headers()["sluicegate-event-id"]
            .to_str()
            .unwrap()
            .to_owned();
        let event = gateway.admin_json(&format!("/events/{id}")).await;
        judged.push((
            format!("{provider} {body}"),
            human,
            event["filtered"].clone(),
        ));
    }
    judged
}

#[tokio::test]
async fn only_what_humans_say_runs_the_agent() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &sources(&CHATS, "")).await;
    let judged = fed(&gateway).await;
    for (what, human, filtered) in &judged {
        match filtered.as_str() {
            None => assert!(*human, "runs: {what}"),
            Some(rule) => assert!(
                !human && rule.starts_with("humans_only: "),
                "{rule}: {what}"
            ),
        }
    }
    let humans = judged.iter().filter(|(_, human, _)| *human).count();
    assert!(
        humans >= 15 && judged.len() - humans >= 35,
        "{humans} of {}",
        judged.len()
    );
    upstream.wait_for_runs(humans).await;
}

#[tokio::test]
async fn an_operator_can_have_everything() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, &sources(&CHATS, "humans_only = false")).await;
    for (what, _, filtered) in fed(&gateway).await {
        assert!(filtered.is_null(), "{filtered}: {what}");
    }
}
