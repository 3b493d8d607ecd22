//! Text as people's senders write it, over real sockets: kept when it is proved, byte for byte, and read as well as it
//! can be.

use http::Response;
use serde_json::{Value, json};
use sluicegate::model::Clock;

use crate::world::{API_KEY, Gateway, TOKEN, Upstream, free_address, hmac_sha256};

const SECRET: &str = "try-me-please-1";

async fn started() -> (Upstream, Gateway) {
    let upstream = Upstream::start(&[]).await;
    let (public, upstream_at) = (free_address(), upstream.address);
    let source = |name: &str, more: &str| {
        format!(
            "[sources.{name}]\nprovider = \"custom\"\nsecrets = [\"literal:{SECRET}\"]\nagent = \"a-{name}\"\n\
             verify = {{ signature = \"header:X-Signature\", prefix = \"sha256=\", event_id = \"header:X-Delivery\" }}\n{more}\n"
        )
    };
    let sources = [
        source("c", "params_mapping = { prompt = \"text\" }\nfiles = true"),
        source("plain", "params_mapping = { prompt = \"text\" }"),
        source("total", "prompt = \"total {{ body.total }}\""),
        "[sources.mail]\nprovider = \"custom\"\nsecrets = [\"literal:mailgun-key-12345\"]\nagent = \"a-mail\"\nfiles = true\n\
         verify = { signature = \"form:signature\", signed_content = \"{ts}{form:token}\", timestamp = { from = \
         \"form:timestamp\", unit = \"s\", tolerance = 900 }, event_id = \"form:token\", event_type = \"form:event\" }\n"
            .to_owned(),
        "[sources.sp]\nprovider = \"microsoft-sharepoint\"\nsecrets = [\"literal:client-state-77\"]\nagent = \"a-sp\"\n"
            .to_owned(),
    ]
    .concat();
    let gateway = Gateway::start_config(&format!(
        "[server]\nlisten = \"{public}\"\npublic_url = \"http://{public}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         token = \"literal:{TOKEN}\"\n[upstream]\nbase_url = \"http://{upstream_at}\"\napi_key = \"literal:{API_KEY}\"\n\
         [inbox]\nurl = \"sqlite:data/inbox.db\"\n[log]\nformat = \"json\"\n{sources}"
    ))
    .await;
    (upstream, gateway)
}

/// Sends a signed body. The answer must be that it is kept; what is kept.
async fn kept(gateway: &Gateway, source: &str, kind: &str, body: &[u8]) -> Value {
    let signature = format!("sha256={}", hmac_sha256(SECRET.as_bytes(), body));
    let id = format!("{:x}", fastrand::u64(..));
    let headers = [
        ("content-type", kind),
        ("x-signature", &signature),
        ("x-delivery", &id),
    ];
    event(
        gateway,
        &gateway
            .post(&format!("/hooks/{source}"), &headers, body.to_vec())
            .await,
    )
    .await
}

async fn event(gateway: &Gateway, answer: &Response<bytes::Bytes>) -> Value {
    assert!(
        answer.status().is_success(),
        "{} {:?}",
        answer.status(),
        answer.body()
    );
    let id = answer.headers()["sluicegate-event-id"]
        .to_str()
        .expect("an id")
        .to_owned();
    gateway.settled(&id).await
}

/// What the agent was told last.
async fn told(upstream: &Upstream) -> String {
    let runs = upstream.runs().await;
    runs.last().expect("a run")["body"]["input"]["text"]
        .as_str()
        .expect("a text")
        .to_owned()
}

fn notes(event: &Value) -> String {
    event["notes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect::<Vec<_>>()
        .join(" ")
}

fn prompt(event: &Value) -> &str {
    event["params"][0]["value"].as_str().expect("a text")
}

fn names(event: &Value) -> Vec<(&str, u64)> {
    let files = event["attachments"].as_array().expect("a list");
    files
        .iter()
        .map(|file| {
            (
                file["name"].as_str().unwrap_or(""),
                file["bytes"].as_u64().unwrap_or(0),
            )
        })
        .collect()
}

/// A form of parts: heads and bytes.
fn form(boundary: &str, parts: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (head, bytes) in parts {
        body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        body.extend_from_slice(&[*head, b"\r\n\r\n", *bytes, b"\r\n"].concat());
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    body
}

const PARTS: &str = "multipart/form-data; boundary=XbX";
const TEXT: &[u8] = b"Content-Disposition: form-data; name=\"text\"";
const JSON: &str = "application/json";

#[tokio::test]
async fn a2_a_field_in_parts_names_an_event_as_an_urlencoded_one_does() {
    let (_upstream, gateway) = started().await;
    let now = Clock::system().now().seconds().to_string();
    let part = |name: &str| format!("Content-Disposition: form-data; name=\"{name}\"").into_bytes();
    for (token, is_parts) in [("t-1", true), ("t-2", false)] {
        let signature = hmac_sha256(b"mailgun-key-12345", format!("{now}{token}").as_bytes());
        let fields = [
            ("timestamp", &*now),
            ("token", token),
            ("signature", &signature),
            ("event", "mail"),
            ("text", "hi"),
        ];
        let parts: Vec<(Vec<u8>, &[u8])> = fields
            .iter()
            .map(|(name, value)| (part(name), value.as_bytes()))
            .collect();
        let parts: Vec<(&[u8], &[u8])> = parts
            .iter()
            .map(|(head, value)| (&head[..], *value))
            .collect();
        let (kind, body) = match is_parts {
            true => (PARTS, form("XbX", &parts)),
            false => (
                "application/x-www-form-urlencoded",
                fields
                    .map(|(name, value)| format!("{name}={value}"))
                    .join("&")
                    .into_bytes(),
            ),
        };
        let answer = gateway
            .post("/hooks/mail", &[("content-type", kind)], body.clone())
            .await;
        let first = event(&gateway, &answer).await;
        assert_eq!(
            (&first["dedup"], &first["event_type"]),
            (&token.into(), &"mail".into()),
            "{kind}"
        );
        let again = gateway
            .post("/hooks/mail", &[("content-type", kind)], body)
            .await;
        assert_eq!(crate::world::json(&again)["status"], "duplicate", "{kind}");
    }
}

#[tokio::test]
async fn a3_byte_order_marks_rfc_8259_8_1() {
    let (upstream, gateway) = started().await;
    let body = br#"{"value":[{"clientState":"client-state-77","resource":"r"}]}"#;
    for body in [body.to_vec(), [b"\xef\xbb\xbf", &body[..]].concat()] {
        let answer = gateway
            .post("/hooks/sp", &[("content-type", JSON)], body)
            .await;
        assert!(answer.status().is_success(), "{answer:?}");
    }
    let text = r#"{"text":"hi é"}"#;
    let wide = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        std::iter::once(0xfeff)
            .chain(text.encode_utf16())
            .flat_map(bytes)
            .collect()
    };
    for body in [
        [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        wide(u16::to_le_bytes),
        wide(u16::to_be_bytes),
    ] {
        let event = kept(&gateway, "c", JSON, &body).await;
        assert_eq!(prompt(&event), "hi é");
        assert_eq!(event["body_bytes"], body.len(), "kept as it came");
        assert_eq!(told(&upstream).await, "hi é");
    }
}

#[tokio::test]
async fn a4_other_character_sets() {
    let (_upstream, gateway) = started().await;
    let urlencoded = "application/x-www-form-urlencoded";
    for (kind, body, wanted) in [
        (urlencoded, &b"text=caf%E9&charset=windows-1252"[..], "café"),
        (urlencoded, b"_charset_=shift_jis&text=%93%FA%96%7B", "日本"),
        (
            "application/json; charset=iso-8859-1",
            b"{\"text\":\"caf\xe9\"}",
            "café",
        ),
        (
            "application/json",
            b"{\"text\": \"caf\xe9\"}",
            "caf\u{fffd}",
        ),
    ] {
        for source in ["c", "plain"] {
            let event = kept(&gateway, source, kind, body).await;
            assert_eq!(prompt(&event), wanted, "{kind}");
            assert!(!notes(&event).is_empty(), "{kind}");
        }
    }
    // RFC 7578, 5.1.2 and 4.6.
    let own = b"Content-Disposition: form-data; name=text\r\nContent-Type: text/plain; charset=ISO-8859-1";
    let named: (&[u8], &[u8]) = (
        b"Content-Disposition: form-data; name=_charset_",
        b"windows-1252",
    );
    for body in [
        form("XbX", &[(own, b"caf\xe9")]),
        form("XbX", &[named, (TEXT, b"caf\xe9")]),
    ] {
        for source in ["c", "plain"] {
            let event = kept(&gateway, source, PARTS, &body).await;
            assert_eq!(prompt(&event), "café");
        }
    }
}

#[tokio::test]
async fn a5_half_an_emoji_and_a_nul_are_kept() {
    let (upstream, gateway) = started().await;
    for (body, wanted, note) in [
        (
            r#"{"text":"cut here: \ud83d"}"#,
            "cut here: \u{fffd}",
            "half a character",
        ),
        (
            r#"{"text":"fine","other":"\ud83d"}"#,
            "fine",
            "half a character",
        ),
        (r#"{"text":"a\u0000b"}"#, "a\u{fffd}b", "NUL"),
    ] {
        let event = kept(&gateway, "c", JSON, body.as_bytes()).await;
        assert_eq!(
            (prompt(&event), event["body"].as_str()),
            (wanted, Some(body))
        );
        assert!(notes(&event).contains(note), "{event}");
        assert_eq!(told(&upstream).await, wanted);
    }
    // Nobody asks for anything, and the agent gets the event: as JSON that every reader takes.
    kept(&gateway, "c", JSON, br#"{"other": "\ud83d"}"#).await;
    assert_eq!(told(&upstream).await, "{\"other\":\"\u{fffd}\"}");
    let event = kept(&gateway, "c", JSON, br#"{"text":"plain"}"#).await;
    assert_eq!(event["notes"], json!([]));
}

#[tokio::test]
async fn a6_file_names_in_any_character_set_are_names_of_files() {
    let (_upstream, gateway) = started().await;
    for (disposition, wanted) in [
        (&b"filename=\"caf\xe9.txt\""[..], "caf\u{fffd}.txt"),
        (
            b"filename=\"plain.txt\"; filename*=UTF-8''caf%C3%A9.txt",
            "café.txt",
        ),
        (b"filename*=iso-8859-1''caf%E9.txt", "café.txt"),
        (b"FileName=\"=?UTF-8?B?Y2Fmw6kudHh0?=\"", "café.txt"),
        (b"filename=\"a%22b.txt\"", "a\"b.txt"),
        (b"filename=\"a\\\"b.txt\"", "a\"b.txt"),
    ] {
        let head = [
            b"Content-Disposition: form-data; name=\"f\"; ",
            disposition,
            b"\r\nContent-Type: text/plain",
        ]
        .concat();
        for bytes in [&b"THE FILE"[..], b"\xff\0\xfe"] {
            let event = kept(
                &gateway,
                "c",
                PARTS,
                &form("XbX", &[(TEXT, b"read it"), (&head, bytes)]),
            )
            .await;
            assert_eq!(names(&event), [(wanted, bytes.len() as u64)]);
        }
    }
}

#[tokio::test]
async fn a7_a8_boundaries_and_heads_as_senders_write_them() {
    let (_upstream, gateway) = started().await;
    let long = "b".repeat(70);
    for boundary in ["----=_Part_0_1.2", "a b", &long] {
        for kind in [
            format!("multipart/form-data; boundary=\"{boundary}\""),
            format!("Multipart/Form-Data;BOUNDARY={boundary}"),
        ] {
            for source in ["c", "plain"] {
                let event = kept(&gateway, source, &kind, &form(boundary, &[(TEXT, b"x")])).await;
                assert_eq!(prompt(&event), "x", "{kind}");
            }
        }
    }
    for head in [
        "Content-Disposition: form-data; NAME=\"text\"",
        "CONTENT-DISPOSITION: Form-Data;\r\n name=text",
    ] {
        let event = kept(
            &gateway,
            "c",
            PARTS,
            &form("XbX", &[(head.as_bytes(), b"x")]),
        )
        .await;
        assert_eq!(prompt(&event), "x", "{head}");
    }
    let lf = String::from_utf8(form("XbX", &[(TEXT, b"x")]))
        .expect("a text")
        .replace("\r\n", "\n");
    assert_eq!(
        prompt(&kept(&gateway, "c", PARTS, lf.as_bytes()).await),
        "x"
    );
}

#[tokio::test]
async fn a9_a_file_that_nobody_chose_is_no_file() {
    let (_upstream, gateway) = started().await;
    let none: &[u8] =
        b"Content-Disposition: form-data; name=\"f\"; filename=\"\"\r\nContent-Type: application/octet-stream";
    for source in ["c", "plain"] {
        let event = kept(
            &gateway,
            source,
            PARTS,
            &form("XbX", &[(TEXT, b"nobody chose a file"), (none, b"")]),
        )
        .await;
        assert_eq!(
            (prompt(&event), names(&event)),
            ("nobody chose a file", vec![])
        );
    }
    let empty = b"Content-Disposition: form-data; name=\"f\"; filename=\"empty.txt\"";
    let event = kept(
        &gateway,
        "c",
        PARTS,
        &form("XbX", &[(TEXT, b"x"), (empty, b"")]),
    )
    .await;
    assert_eq!(
        names(&event),
        [("empty.txt", 0)],
        "an empty file that somebody chose is one"
    );
}

#[tokio::test]
async fn a14_a_large_event_reaches_the_agent_as_json() {
    let (upstream, gateway) = started().await;
    let body = json!({ "big": vec!["y".repeat(1000); 300], "after": 1.5 }).to_string();
    kept(&gateway, "c", JSON, body.as_bytes()).await;
    let text = told(&upstream).await;
    let read: Value = serde_json::from_str(&text).expect("what the agent gets is JSON");
    assert!(text.len() <= 256 * 1024, "{}", text.len());
    assert_eq!(
        (
            read["big"].as_array().map(Vec::len),
            read["after"].to_string()
        ),
        (Some(300), "1.5".into())
    );
    assert!(text.contains("bytes left out]"));
}
