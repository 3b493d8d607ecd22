//! Answers that go back to the chat, over real sockets: the gateway, a stand-in for the platform, and a chat server that
//! answers as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::world::{Gateway, Upstream, wait_for};

const SECRET: &str = "the-secret-of-the-webhook";

/// The token of the bot, which nothing may show.
const BOT: &str = "123456:planted-bot-token";

/// What the chat server does with the next call.
#[derive(Clone)]
enum Behaviour {
    /// Answers with this status and body.
    Answers(u16, Value),
    /// Takes the message and ends the connection without an answer.
    Breaks,
    /// Takes the message and answers never.
    Hangs,
}

/// A call that the chat server took.
#[derive(Clone, Debug)]
struct Taken {
    path: String,
    body: Value,
    at: Instant,
}

#[derive(Clone)]
struct Chat {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Taken>>>,
    next: Arc<Mutex<VecDeque<Behaviour>>>,
    typing: Arc<AtomicUsize>,
}

impl Chat {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let chat = Self {
            address: listener.local_addr().unwrap(),
            calls: Arc::default(),
            next: Arc::default(),
            typing: Arc::default(),
        };
        let server = chat.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { server.take(request).await }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        chat
    }

    async fn take(&self, request: Request<Incoming>) -> std::io::Result<Response<Full<Bytes>>> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if path.ends_with("/sendChatAction") {
            self.typing.fetch_add(1, Ordering::Relaxed);
            return Ok(answer(200, &json!({ "ok": true, "result": true })));
        }
        let number = {
            let mut calls = self.calls.lock().unwrap();
            let at = Instant::now();
            calls.push(Taken { path, body, at });
            calls.len()
        };
        let next = self.next.lock().unwrap().pop_front();
        match next {
            None => Ok(answer(
                200,
                &json!({ "ok": true, "result": { "message_id": 1000 + number } }),
            )),
            Some(Behaviour::Answers(status, body)) => Ok(answer(status, &body)),
            Some(Behaviour::Breaks) => Err(std::io::Error::other("broken off")),
            Some(Behaviour::Hangs) => std::future::pending().await,
        }
    }

    fn does(&self, next: impl IntoIterator<Item = Behaviour>) {
        self.next.lock().unwrap().extend(next);
    }

    fn calls(&self) -> Vec<Taken> {
        self.calls.lock().unwrap().clone()
    }

    /// Signs of typing that were shown.
    fn signs(&self) -> usize {
        self.typing.load(Ordering::Relaxed)
    }

    /// The messages, once there are so many of them.
    async fn messages(&self, count: usize) -> Vec<Taken> {
        wait_for("messages in the chat", async || {
            let calls = self.calls();
            (calls.len() >= count).then_some(calls)
        })
        .await
    }

    fn source(&self, more: &str) -> String {
        format!(
            "[sources.desk]\nprovider = \"telegram\"\nsecrets = [\"literal:{SECRET}\"]\nagent = \"a-1\"\n\
             reply = {{ token = \"literal:{BOT}\", api = \"http://{}\"{more} }}\n",
            self.address
        )
    }
}

fn answer(status: u16, body: &Value) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .body(Full::from(body.to_string()))
        .unwrap()
}

fn refusal(code: u16, description: &str) -> Behaviour {
    let body = json!({ "ok": false, "error_code": code, "description": description });
    Behaviour::Answers(code, body)
}

/// A message to the bot.
async fn write(gateway: &Gateway, update: u64, chat: i64, text: &str, more: &Value) -> String {
    let mut message = json!({
        "message_id": 10 + update, "date": 1_700_000_000, "text": text,
        "chat": { "id": chat, "type": if chat > 0 { "private" } else { "supergroup" } },
        "from": { "id": 7, "first_name": "Ann" },
    });
    if let (Some(message), Some(more)) = (message.as_object_mut(), more.as_object()) {
        message.extend(more.clone());
    }
    let update = json!({ "update_id": update, "message": message });
    let headers = [("x-telegram-bot-api-secret-token", SECRET)];
    let answer = gateway
        .post("/hooks/desk", &headers, update.to_string())
        .await;
    assert_eq!(answer.status(), 202, "{:?}", answer.body());
    crate::world::event_id(&answer)
}

/// The deliveries of an event, once the one to the channel has come to this state.
async fn reply_is(gateway: &Gateway, event: &str, state: &str) -> Value {
    wait_for("the state of the reply", async || {
        let event = gateway.admin_json(&format!("/events/{event}")).await;
        let deliveries = event["deliveries"].as_array()?;
        let reply = deliveries.iter().find(|one| {
            one["destination"]
                .as_str()
                .is_some_and(|to| to.starts_with("channel/"))
        })?;
        (reply["state"] == state).then(|| reply.clone())
    })
    .await
}

async fn world(more: &str) -> (Upstream, Chat, Gateway) {
    let upstream = Upstream::start(&["--result", "the answer"]).await;
    let chat = Chat::start().await;
    let gateway = Gateway::start(upstream.address, &chat.source(more)).await;
    (upstream, chat, gateway)
}

#[tokio::test]
async fn a_message_is_answered_in_its_chat_and_topic_once() {
    let (upstream, chat, gateway) = world("").await;
    let more = json!({ "is_topic_message": true, "message_thread_id": 5 });
    let event = write(&gateway, 1, -100, "hello", &more).await;
    let reply = reply_is(&gateway, &event, "delivered").await;
    assert_eq!(reply["answer"]["status"], "sent", "{reply}");
    let calls = chat.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(calls[0].path, format!("/bot{BOT}/sendMessage"));
    let body = &calls[0].body;
    assert_eq!(
        (&body["chat_id"], &body["message_thread_id"], &body["text"]),
        (&json!(-100), &json!(5), &json!("the answer"))
    );
    assert_eq!(body["reply_parameters"]["message_id"], 11);
    assert_eq!(body["link_preview_options"]["is_disabled"], true);

    // The same message again runs nothing and posts nothing; neither does a replay.
    write(&gateway, 1, -100, "hello", &more).await;
    let (status, _) = gateway
        .tell(&format!("/events/{event}/replay"), json!({}))
        .await;
    assert_eq!(status, 202);
    upstream.wait_for_runs(2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(chat.calls().len(), 1);
    // The token stands in the address, and nowhere else.
    let shown = gateway
        .admin_json(&format!("/events/{event}"))
        .await
        .to_string();
    assert!(!shown.contains("planted-bot-token"), "{shown}");
    assert!(!gateway.log().contains("planted-bot-token"));
}

#[tokio::test]
async fn a_refused_pace_is_waited_out_and_a_topic_that_is_gone_is_left_out() {
    let (_upstream, chat, gateway) = world("").await;
    let wait = json!({ "ok": false, "error_code": 429, "description": "Too Many Requests: retry after 2",
        "parameters": { "retry_after": 2 } });
    chat.does([
        Behaviour::Answers(429, wait),
        refusal(400, "Bad Request: message thread not found"),
    ]);
    let more = json!({ "is_topic_message": true, "message_thread_id": 5 });
    let event = write(&gateway, 1, -100, "hello", &more).await;
    reply_is(&gateway, &event, "delivered").await;
    let calls = chat.calls();
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert!(calls[1].at - calls[0].at >= Duration::from_millis(1_900));
    assert_eq!(calls[1].body["message_thread_id"], 5);
    assert_eq!(calls[2].body.get("message_thread_id"), None);
    assert_eq!(calls[2].body["chat_id"], -100, "never to another chat");
}

#[tokio::test]
async fn a_send_whose_end_is_not_known_is_not_repeated_and_the_next_message_is_answered() {
    let (_upstream, chat, gateway) = world("").await;
    chat.does([Behaviour::Breaks]);
    let event = write(&gateway, 1, 100, "hello", &json!({})).await;
    let reply = reply_is(&gateway, &event, "unknown").await;
    let shown = reply.to_string();
    assert!(!shown.contains("planted-bot-token"), "{shown}");
    let next = write(&gateway, 2, 100, "are you there?", &json!({})).await;
    reply_is(&gateway, &next, "delivered").await;
    assert_eq!(chat.calls().len(), 2);
}

#[tokio::test]
async fn a_process_that_is_killed_while_it_sends_sends_nothing_twice_and_loses_nothing() {
    let (upstream, chat, gateway) = world("").await;
    chat.does([Behaviour::Hangs]);
    let first = write(&gateway, 1, 100, "hello", &json!({})).await;
    chat.messages(1).await;
    let other = write(&gateway, 2, 200, "hello", &json!({})).await;
    let folder = gateway.kill();
    let config = Gateway::config(upstream.address, &chat.source(""), "");
    let gateway = Gateway::start_config_in(folder, &config).await;
    reply_is(&gateway, &first, "unknown").await;
    reply_is(&gateway, &other, "delivered").await;
    let to = |chat: i64, calls: &[Taken]| {
        let of = calls.iter().filter(|call| call.body["chat_id"] == chat);
        of.count()
    };
    let calls = chat.calls();
    assert_eq!((to(100, &calls), to(200, &calls)), (1, 1), "{calls:?}");
    assert!(upstream.runs().await.len() <= 3, "a reply repeats no run");
}

#[tokio::test]
async fn a_wrong_token_is_tried_once_and_a_failed_run_is_answered_with_a_sentence() {
    let (upstream, chat, gateway) = world(", on_failure = \"Not today.\"").await;
    upstream.set(json!({ "fail": ["failed=1"] })).await;
    let event = write(&gateway, 1, 100, "hello", &json!({})).await;
    reply_is(&gateway, &event, "delivered").await;
    assert_eq!(chat.calls()[0].body["text"], "Not today.");
    chat.does([refusal(401, "Unauthorized"), refusal(401, "Unauthorized")]);
    write(&gateway, 2, 200, "hello", &json!({})).await;
    chat.messages(2).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(chat.calls().len(), 2, "it rests");
    assert!(gateway.log().contains("refuses the token of this source"));
}

#[tokio::test]
async fn typing_is_shown_within_a_second_as_long_as_the_run_goes_on() {
    let (_upstream, chat, gateway) = world("").await;
    let event = write(&gateway, 1, 100, "hello [[stub delay=6s]]", &json!({})).await;
    let begun = Instant::now();
    wait_for("the sign of typing", async || {
        (chat.signs() > 0).then_some(())
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    reply_is(&gateway, &event, "delivered").await;
    let signs = chat.signs();
    assert_eq!(signs, 2, "every four seconds");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        (chat.signs(), chat.calls().len()),
        (signs, 1),
        "it ends with the answer"
    );
}

#[tokio::test]
async fn a_long_answer_is_formatted_and_comes_in_order() {
    let upstream = Upstream::start(&[]).await;
    let chat = Chat::start().await;
    let gateway = Gateway::start(upstream.address, &chat.source("")).await;
    let long = format!(
        "**Result:** {}\n\n```sh\nls\n```\n@everyone",
        "many words. ".repeat(700)
    );
    upstream.set(json!({ "result": long })).await;
    let event = write(&gateway, 1, 100, "hello", &json!({})).await;
    reply_is(&gateway, &event, "delivered").await;
    let calls = chat.calls();
    assert_eq!(calls.len(), 3, "{calls:?}");
    let texts: Vec<&str> = calls
        .iter()
        .filter_map(|call| call.body["text"].as_str())
        .collect();
    assert!(texts.iter().all(|text| text.encode_utf16().count() <= 4096));
    assert!(texts[0].starts_with("Result: many words.") && texts[2].ends_with("@everyone"));
    assert_eq!(
        calls[0].body["entities"][0],
        json!({ "type": "bold", "offset": 0, "length": 7 })
    );
    assert_eq!(calls[2].body["entities"][0]["language"], "sh");
    assert_eq!(calls[0].body["reply_parameters"]["message_id"], 11);
    assert_eq!(calls[1].body["reply_parameters"].get("message_id"), None);
    assert!(
        calls[1].at - calls[0].at >= Duration::from_millis(900),
        "one a second in a chat"
    );
    assert!(
        !gateway.log().contains("attempt failed"),
        "a part that was sent and a wait for the pace are no failures"
    );
}
