//! `sluicegate map explain`: what a captured request would become, and why.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::world::{Gateway, binary};

const BOT: &str = r#"
[sources.bot]
provider = "telegram"
secrets = ["literal:telegram-secret-token"]
agent = "A"
thread = "message.chat.id"
params_mapping = { prompt = "message.text", user_id = "message.from.username", user_email = "message.mail", user_first_name = "message.from" }
defaults = { user_last_name = "Lee" }
[sources.phone]
provider = "whatsapp"
secrets = ["literal:an-app-secret-of-meta"]
values = { verify_token = "verify-me-please" }
agent = "A"
"#;

fn explain(request: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, file) = (folder.path().join("s.toml"), folder.path().join("request"));
    std::fs::write(
        &config,
        Gateway::config("127.0.0.1:9".parse().expect("an address"), BOT, ""),
    )
    .expect("written");
    std::fs::write(&file, request).expect("written");
    let mut command = Command::new(binary());
    command
        .args(["map", "explain", "--config"])
        .arg(&config)
        .arg("--request")
        .arg(&file)
        .args(arguments);
    command.output().expect("it runs")
}

fn view(request: &str, arguments: &[&str]) -> Value {
    let out = explain(request, &[arguments, &["--json"]].concat());
    serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{error}: {out:?}"))
}

#[test]
fn a_sources_mapping_is_explained_without_a_signature_and_without_a_network() {
    let request = "POST /hooks/bot?user_id=q HTTP/1.1\r\nhost: h\r\nx-telegram-bot-api-secret-token: planted\r\n\r\n\
                   {\"update_id\":5,\"message\":{\"chat\":{\"id\":-100},\"from\":{\"username\":\"dana\"},\"text\":\"Hi\",\"mail\":null}}";
    let seen = view(
        &request.replace("\"from\":{\"username\":\"dana\"}", "\"from\":\"\""),
        &["--source", "bot"],
    );
    assert_eq!(
        (&seen["thread"], &seen["filtered"]),
        (&json!("-100"), &Value::Null),
        "{seen:#}"
    );
    assert_eq!(seen["call"]["body"]["input"]["text"], "Hi");
    let whys: Vec<(&str, &str)> = seen["misses"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|miss| {
            (
                miss["of"].as_str().expect("text"),
                miss["why"].as_str().expect("text"),
            )
        })
        .collect();
    // The last one is asked for by the provider's file.
    let wanted = [
        ("user_id", "leads nowhere"),
        ("user_email", "leads to null"),
        ("user_first_name", "leads to an empty text"),
        ("user_last_name", "leads nowhere"),
    ];
    assert_eq!(whys, wanted);
    let user = seen["params"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|param| param["name"] == "user_id");
    assert_eq!(
        user.map(|user| &user["from"]),
        Some(&json!("the query's user_id"))
    );

    let refused = view(request, &["--source", "bot"]);
    assert_eq!(refused["refused"]["code"], "unmappable", "{refused:#}");
    assert!(
        refused["misses"]
            .to_string()
            .contains("a list or an object"),
        "{refused:#}"
    );
    let out = explain(
        &request.replace("\"from\":{\"username\":\"dana\"}", "\"from\":\"\""),
        &["--source", "bot"],
    );
    let text = String::from_utf8(out.stdout).expect("text");
    assert!(
        out.status.success()
            && text.contains("POST /v1/agents/A/invoke")
            && text.contains("found nothing"),
        "{text}"
    );
    assert!(!text.contains("planted"), "{text}");
}

#[test]
fn a_drop_in_call_is_explained_and_its_secrets_are_not_shown() {
    let request = json!({
        "url": "https://gateway.example/?agent_id=A&prompt=Q&x-api-key=planted&params_mapping=%7B%22task_id%22%3A%22no.such%22%7D",
        "headers": {"content-type": "application/json"},
        "body": {"prompt": "B", "agent_id": "Z", "user_tokens": {"i": "planted"}, "n": 1.5},
    });
    let seen = view(&request.to_string(), &["--dropin"]);
    assert_eq!(seen["params"][0]["from"], "the query's prompt", "{seen:#}");
    assert_eq!(seen["params"][0]["over"], json!(["the body's prompt"]));
    assert_eq!(
        seen["settings"][0],
        json!({"name": "agent_id", "from": "query", "over": ["body"]})
    );
    assert_eq!(
        seen["misses"],
        json!([{"of": "task_id", "path": "no.such", "why": "leads nowhere"}])
    );
    assert_eq!(seen["call"]["body"]["additional_context"], r#"{"n":1.5}"#);
    assert!(!seen.to_string().contains("planted"), "{seen:#}");
    let text =
        String::from_utf8(explain(&request.to_string(), &["--dropin"]).stdout).expect("text");
    assert!(
        text.contains("over the body") && !text.contains("planted"),
        "{text}"
    );
}

#[test]
fn what_is_no_request_or_no_source_is_said() {
    let out = explain("", &["--dropin"]);
    assert!(
        !out.status.success() && String::from_utf8_lossy(&out.stderr).contains("is no request"),
        "{out:?}"
    );
    let out = explain("POST /", &["--source", "nobody"]);
    assert!(
        !out.status.success() && String::from_utf8_lossy(&out.stderr).contains("there are: bot"),
        "{out:?}"
    );
}

#[test]
fn a1_a_request_that_brings_several_events_is_explained_by_its_first() {
    let message = |id: &str| {
        format!("{{\"id\":\"{id}\",\"from\":\"1\",\"type\":\"text\",\"text\":{{\"body\":\"hi\"}}}}")
    };
    let request = format!(
        "POST /hooks/phone HTTP/1.1\r\nhost: h\r\n\r\n{{\"entry\":[{{\"changes\":[{{\"field\":\"messages\",\"value\":{{\"messages\":\
         [{},{}]}}}}]}}]}}",
        message("m1"),
        message("m2")
    );
    let seen = view(&request, &["--source", "phone"]);
    assert_eq!(
        (&seen["items"], &seen["dedup"], &seen["thread"]),
        (&json!(2), &json!("m1"), &json!("1")),
        "{seen:#}"
    );
    let text = String::from_utf8(explain(&request, &["--source", "phone"]).stdout).expect("text");
    assert!(text.contains("2 in this request"), "{text}");
}
