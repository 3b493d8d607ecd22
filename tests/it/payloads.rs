//! What real senders send: every payload of `tests/payloads` is signed as its provider does, kept, and reaches the agent
//! in words that make sense. The multipart bodies that parsers of other languages are tested with come the same way.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::SigningKey as _;
use serde_json::{Value, json};
use sluicegate::model::Clock;

use crate::world::{Gateway, Upstream, borrowed, corpus, hmac_sha256, wait_for};

const SECRET: &str = "a-secret-of-the-payload-test";
const STRIPE: &str = "whsec_0123456789abcdef0123456789abcdef";

/// Prompts as operators write them, by folder: what every event of the provider has, or a default.
const WORDS: [(&str, &str); 5] = [
    (
        "github",
        "{{ event_type }} by {{ body.sender.login if body.sender else 'nobody' }}",
    ),
    (
        "gitlab",
        "{{ event_type }} in {{ body.project.web_url if body.project else body.group_name | default('-') }}",
    ),
    (
        "shopify",
        "{{ event_type }} of {{ body.id | default('-') }}: {{ body.total_price | default('no price') }}",
    ),
    (
        "stripe",
        "{{ event_type }} of {{ body.data.object.id }}: {{ body.data.object.amount | default('-') }}",
    ),
    (
        "mailgun",
        "{{ event_type }} to {{ body['event-data'].recipient }}",
    ),
];

/// How the messages of people are mapped, by folder.
const MESSAGES: [(&str, &str); 3] = [
    (
        "slack",
        r#"{ task_id = "event.channel", prompt = "event.text", user_id = "event.user" }"#,
    ),
    (
        "telegram",
        r#"{ task_id = "message.chat.id", prompt = "message.text", user_id = "message.from.id" }"#,
    ),
    (
        "whatsapp",
        r#"{ task_id = "entry.0.changes.0.value.messages.0.from", prompt = "entry.0.changes.0.value.messages.0.text.body" }"#,
    ),
];

/// A payload, and the source that it is posted to.
struct Payload {
    source: String,
    folder: String,
    /// Its file's name.
    name: String,
    body: Vec<u8>,
    /// Lines of the source that say what is made of it.
    mapping: String,
}

impl Payload {
    /// Whether the agent is told of it. What no person said at a messenger may be filtered.
    fn runs(&self) -> bool {
        !matches!(
            self.folder.as_str(),
            "slack" | "slack-form" | "telegram" | "whatsapp"
        ) || self.name.starts_with("human.")
    }

    /// The source's table.
    fn table(&self, key: &str) -> String {
        let (provider, secret, more) = match self.folder.as_str() {
            "inbound-mail" => (
                "custom",
                SECRET,
                "files = true\nverify = { signature = \"header:X-Signature\" }\n\
                 params_mapping = { prompt = \"stripped-text\" }",
            ),
            "stripe" => ("stripe", STRIPE, ""),
            "sendgrid" => ("sendgrid", key, ""),
            "whatsapp" => (
                "whatsapp",
                SECRET,
                "values = { verify_token = \"verify-me-please\" }",
            ),
            folder => (folder, SECRET, ""),
        };
        let (source, mapping) = (&self.source, &self.mapping);
        format!(
            "[sources.{source}]\nprovider = \"{provider}\"\nagent = \"{source}\"\nsecrets = [\"literal:{secret}\"]\n\
             {more}\n{mapping}\n"
        )
    }

    /// The body and the headers, as the provider signs them at this time.
    fn signed(&self, key: &rcgen::KeyPair, now: i64) -> (Vec<u8>, Vec<(&'static str, String)>) {
        let mut body = self.body.clone();
        let word = self.name.trim_end_matches(".json");
        let id = format!("{:032x}", fastrand::u128(..));
        let mac = |text: &[u8]| hmac_sha256(SECRET.as_bytes(), text);
        let mut headers = vec![match self.name.rsplit('.').next() {
            Some("form") => (
                "content-type",
                "application/x-www-form-urlencoded".to_owned(),
            ),
            Some("multipart") => (
                "content-type",
                format!("multipart/form-data; boundary={}", boundary(&body)),
            ),
            _ => ("content-type", "application/json; charset=utf-8".to_owned()),
        }];
        match self.folder.as_str() {
            "github" => headers.extend([
                (
                    "x-github-event",
                    word.split('.').next().unwrap_or_default().to_owned(),
                ),
                ("x-github-delivery", id),
                ("x-hub-signature-256", format!("sha256={}", mac(&body))),
            ]),
            "stripe" => {
                let text = [format!("{now}.").as_bytes(), &body].concat();
                headers.push((
                    "stripe-signature",
                    format!("t={now},v1={}", hmac_sha256(STRIPE.as_bytes(), &text)),
                ));
            }
            "slack" | "slack-form" => {
                let text = [format!("v0:{now}:").as_bytes(), &body].concat();
                headers.push(("x-slack-request-timestamp", now.to_string()));
                headers.push(("x-slack-signature", format!("v0={}", mac(&text))));
            }
            "telegram" => headers.push(("x-telegram-bot-api-secret-token", SECRET.to_owned())),
            "whatsapp" => headers.push(("x-hub-signature-256", format!("sha256={}", mac(&body)))),
            "gitlab" => headers.extend([
                ("x-gitlab-token", SECRET.to_owned()),
                (
                    "x-gitlab-event",
                    word.split('.').next().unwrap_or_default().to_owned(),
                ),
                ("idempotency-key", id),
            ]),
            "shopify" => {
                let sum = hex::decode(mac(&body)).expect("hex");
                headers.extend([
                    ("x-shopify-topic", word.replacen('.', "/", 1)),
                    ("x-shopify-webhook-id", id),
                    ("x-shopify-hmac-sha256", STANDARD.encode(sum)),
                ]);
            }
            "mailgun" => {
                let (time, sum) = (now.to_string(), mac(format!("{now}{id}").as_bytes()));
                let text = String::from_utf8(body).expect("text");
                let text =
                    text.replacen(r#""timestamp":"""#, &format!(r#""timestamp":"{time}""#), 1);
                let text = text.replacen(r#""token":"""#, &format!(r#""token":"{id}""#), 1);
                body = text
                    .replacen(r#""signature":"""#, &format!(r#""signature":"{sum}""#), 1)
                    .into_bytes();
            }
            "sendgrid" => {
                let sum = key
                    .sign(&[now.to_string().as_bytes(), &body].concat())
                    .expect("a signature");
                headers.push(("x-twilio-email-event-webhook-timestamp", now.to_string()));
                headers.push((
                    "x-twilio-email-event-webhook-signature",
                    STANDARD.encode(sum),
                ));
            }
            _ => headers.push(("x-signature", mac(&body))),
        }
        (body, headers)
    }
}

/// The boundary of a body in parts: what stands on its first line.
fn boundary(body: &[u8]) -> String {
    let line = body
        .split(|byte| matches!(byte, b'\r' | b'\n'))
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(line)
        .trim_start_matches("--")
        .to_owned()
}

/// Every file of `tests/payloads`, once as its source takes it with four lines, and once with a prompt or a mapping.
fn payloads() -> Vec<Payload> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/payloads");
    let mut found = Vec::new();
    let mut folders: Vec<_> = fs::read_dir(root)
        .expect("they are there")
        .map(|entry| entry.expect("one").path())
        .collect();
    folders.sort();
    for folder in folders.iter().filter(|path| path.is_dir()) {
        let folder_name = folder
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let mut files: Vec<_> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("one").path())
            .collect();
        files.sort();
        let is_payload = |path: &Path| {
            path.extension()
                .is_some_and(|end| end == "json" || end == "form" || end == "multipart")
        };
        for file in files.iter().filter(|path| is_payload(path)) {
            let name = file
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let words = WORDS
                .iter()
                .find(|(of, _)| *of == folder_name)
                .map(|(_, words)| format!("prompt = \"{words}\""));
            let message = MESSAGES
                .iter()
                .find(|(of, _)| *of == folder_name && name.starts_with("human."));
            let message = message.map(|(_, mapping)| format!("params_mapping = {mapping}"));
            for mapping in [Some(String::new()), words.or(message)]
                .into_iter()
                .flatten()
            {
                let body = fs::read(file).expect("a payload");
                let source = format!("{folder_name}-{}", found.len());
                found.push(Payload {
                    source,
                    folder: folder_name.clone(),
                    name: name.clone(),
                    body,
                    mapping,
                });
            }
        }
    }
    found
}

/// What is wrong with what the agent was told, if something is.
fn nonsense(told: &str, payload: &Payload, sent: &[u8]) -> Option<String> {
    let sent = String::from_utf8_lossy(sent);
    let is_json = payload.name.ends_with(".json");
    if told.trim().is_empty() {
        return Some("the agent was told nothing".into());
    }
    for raw in ["undefined", "{{", "{%", "template"] {
        if told.contains(raw) && !sent.contains(raw) {
            return Some(format!("{raw:?} is no word of the payload"));
        }
    }
    // Marks beside quotation marks and in the lines of a fence are the gateway's.
    let beside = told
        .split('«')
        .filter_map(|before| before.get(before.len().saturating_sub(8)..));
    let fences = ["[data ", "[event ", "[names "];
    let lines = told
        .lines()
        .filter_map(|line| fences.iter().find_map(|fence| line.strip_prefix(fence)));
    let marks: Vec<&str> = beside
        .chain(lines.filter_map(|rest| rest.split(']').next()))
        .collect();
    for word in told.split(|c: char| !c.is_ascii_alphanumeric()) {
        let is_number = word.len() >= 6 && word.bytes().all(|byte| byte.is_ascii_digit());
        if is_json && is_number && !sent.contains(word) && !marks.contains(&word) {
            return Some(format!("the digits {word} were not sent"));
        }
    }
    let whole: (Option<Value>, Option<Value>) = (
        serde_json::from_str(told).ok(),
        serde_json::from_str(&sent).ok(),
    );
    match whole {
        (Some(told @ Value::Object(_)), Some(sent @ Value::Object(_)))
            if payload.folder != "whatsapp" && told != sent =>
        {
            Some("the event's JSON is another one".into())
        }
        _ => None,
    }
}

#[tokio::test]
async fn every_payload_is_kept_and_reaches_the_agent_in_words_that_make_sense() {
    let payloads = payloads();
    let folders: HashMap<&str, usize> =
        payloads
            .iter()
            .fold(HashMap::new(), |mut counted, payload| {
                *counted.entry(payload.folder.as_str()).or_default() += 1;
                counted
            });
    assert!(
        payloads.len() >= 380 && folders.len() >= 11,
        "saw {folders:?}"
    );
    let key = rcgen::KeyPair::generate().expect("a key pair");
    let public = STANDARD.encode(rcgen::PublicKeyData::subject_public_key_info(&key));
    let upstream = Upstream::start(&[]).await;
    let sources: String = payloads
        .iter()
        .map(|payload| payload.table(&public))
        .collect();
    let gateway = Gateway::start(upstream.address, &sources).await;
    let mut sent = HashMap::new();
    for payload in &payloads {
        let now = Clock::system().now().seconds();
        let (body, headers) = payload.signed(&key, now);
        let headers = borrowed(&headers);
        let answer = gateway
            .post(
                &format!("/hooks/{}", payload.source),
                &headers,
                body.clone(),
            )
            .await;
        let (folder, name) = (&payload.folder, &payload.name);
        assert!(
            answer.status().is_success(),
            "{folder}/{name}: {} {:?}",
            answer.status(),
            answer.body()
        );
        sent.insert(payload.source.as_str(), body);
    }
    let expected: Vec<&Payload> = payloads.iter().filter(|payload| payload.runs()).collect();
    let told: HashMap<String, String> = wait_for("every payload to run", async || {
        let runs = upstream.runs().await;
        let told: HashMap<String, String> = runs
            .iter()
            .map(|run| {
                let agent = run["destination"]
                    .as_str()
                    .expect("a destination")
                    .trim_start_matches("agents/");
                let text = run["body"]["input"]["text"].as_str().expect("a text");
                (
                    agent.trim_start_matches("agent/").to_owned(),
                    text.to_owned(),
                )
            })
            .collect();
        expected
            .iter()
            .all(|payload| told.contains_key(&payload.source))
            .then_some(told)
    })
    .await;
    let mut wrong = Vec::new();
    for payload in &payloads {
        let Some(told) = told.get(&payload.source) else {
            continue;
        };
        if let Some(what) = nonsense(told, payload, &sent[payload.source.as_str()]) {
            wrong.push(format!(
                "{}/{} ({}): {what}: {told:.200}",
                payload.folder, payload.name, payload.mapping
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        payloads.len(),
        wrong.join("\n")
    );
    let dead = gateway.admin_json("/events?state=dead").await;
    assert_eq!(dead["items"], json!([]), "{dead:#}");
}

#[tokio::test]
async fn the_bodies_of_other_parsers_tests_are_kept_or_refused_as_they_do() {
    let upstream = Upstream::start(&[]).await;
    let source = format!(
        "[sources.parts]\nprovider = \"custom\"\nagent = \"a-parts\"\nsecrets = [\"literal:{SECRET}\"]\nfiles = true\n\
         verify = {{ signature = \"header:X-Signature\" }}\ndefaults = {{ prompt = \"read it\" }}\n"
    );
    let gateway = Gateway::start(upstream.address, &source).await;
    let cases: Vec<Value> = ["multipart-python", "multipart-node"]
        .into_iter()
        .flat_map(|folder| {
            let file = corpus(&format!("{folder}/cases.json"));
            let cases = fs::read_to_string(file).expect("the corpus is there");
            serde_json::from_str::<Vec<Value>>(&cases).expect("JSON")
        })
        .collect();
    assert!(cases.len() >= 46, "saw {} cases", cases.len());
    for case in &cases {
        // Each character of the corpus is a byte.
        let body: Vec<u8> = case["body"]
            .as_str()
            .expect("a body")
            .chars()
            .map(|c| c as u8)
            .collect();
        let kind = format!(
            "multipart/form-data; boundary=\"{}\"",
            case["boundary"].as_str().expect("a boundary")
        );
        let signature = hmac_sha256(SECRET.as_bytes(), &body);
        let answer = gateway
            .post(
                "/hooks/parts",
                &[("content-type", &kind), ("x-signature", &signature)],
                body,
            )
            .await;
        let name = &case["name"];
        match case["parts"].as_array() {
            Some(parts) => {
                assert!(
                    answer.status().is_success(),
                    "{name}: {} {:?}",
                    answer.status(),
                    answer.body()
                );
                let id = answer.headers()["sluicegate-event-id"]
                    .to_str()
                    .expect("an id")
                    .to_owned();
                let event = gateway.settled(&id).await;
                let files = parts
                    .iter()
                    .filter(|part| !part["file_name"].is_null())
                    .count();
                assert_eq!(
                    event["attachments"].as_array().map(Vec::len),
                    Some(files),
                    "{name}: {event:#}"
                );
            }
            None => assert_eq!(answer.status(), 400, "{name}: {:?}", answer.body()),
        }
    }
}
