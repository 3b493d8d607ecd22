//! Events that nobody reads in the inbox without its key.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;

use crate::world::{API_KEY, Gateway, Upstream, binary, event_id, wait_for};

const SOURCES: &str = r#"
[sources.open]
provider = "custom"
agent = "a"
thread = "chat"
verify = { scheme = "none", event_id = "json:id" }
"#;

/// What must not be found where events are kept: of a body, of a query, of a header, of an answer.
const SAID: [&str; 4] = [
    "said-in-the-body-4711",
    "said-in-the-query-4712",
    "said-in-a-header-4713",
    "echo: ",
];

fn config(upstream: &Upstream, inbox: &str) -> String {
    Gateway::config(upstream.address, SOURCES, "")
        .replace("[inbox]\n", &format!("[inbox]\n{inbox}\n"))
}

fn key(number: u8) -> String {
    format!("literal:{}", number.to_string().repeat(32))
}

async fn accept_secretive(gateway: &Gateway, id: u32) -> String {
    let body = format!(r#"{{"id":"{id}","chat":"c","prompt":"{}"}}"#, SAID[0]);
    let path = format!("/hooks/open?note={}", SAID[1]);
    let answer = gateway.post(&path, &[("x-note", SAID[2])], body).await;
    assert_eq!(answer.status(), 202, "{:?}", answer.body());
    event_id(&answer)
}

/// The event once it is delivered.
async fn delivered(gateway: &Gateway, id: &str) -> Value {
    wait_for("the event to be delivered", async || {
        let event = gateway.admin_json(&format!("/events/{id}")).await;
        (event["deliveries"][0]["state"] == "delivered").then_some(event)
    })
    .await
}

/// The files of an inbox that have a text in them.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
            {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[tokio::test]
async fn an_event_is_closed_in_the_inbox_and_open_to_whoever_has_the_key() {
    let upstream = Upstream::start(&[]).await;
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let start = async |inbox: String| {
        Gateway::start_config_in(folder.clone(), &config(&upstream, &inbox)).await
    };
    let shows = async |gateway: &Gateway, id: &str| {
        let event = delivered(gateway, id).await.to_string();
        SAID.iter()
            .for_each(|said| assert!(event.contains(said), "{said} is not shown: {event}"));
    };

    let gateway = start(format!("key = \"{}\"\nencrypt = true", key(1))).await;
    let first = accept_secretive(&gateway, 1).await;
    shows(&gateway, &first).await;
    let sent = &upstream.runs().await[0]["body"];
    assert!(sent.to_string().contains(SAID[0]), "{sent}");
    gateway.stop().await;
    for said in SAID {
        assert_eq!(
            files_with(folder.path(), said),
            [""; 0],
            "{said} is kept in clear"
        );
    }

    // Another key, and the one before beside it: what either closed is read.
    let rotated = format!("key = \"{}\"\nold_keys = [\"{}\"]", key(2), key(1));
    let gateway = start(format!("{rotated}\nencrypt = true")).await;
    shows(&gateway, &first).await;
    let second = accept_secretive(&gateway, 2).await;
    shows(&gateway, &second).await;
    gateway.stop().await;

    // Not closed any more: what comes now is kept in clear, what was closed still opens.
    let gateway = start(rotated).await;
    shows(&gateway, &second).await;
    let third = accept_secretive(&gateway, 3).await;
    shows(&gateway, &third).await;
    gateway.stop().await;
    assert_ne!(
        files_with(folder.path(), SAID[0]),
        [""; 0],
        "what is kept in clear is found by the same search"
    );
}

#[tokio::test]
async fn whoever_mislays_the_key_is_told_before_anything_is_taken_in() {
    let upstream = Upstream::start(&[]).await;
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let one = config(&upstream, &format!("key = \"{}\"\nencrypt = true", key(1)));
    let gateway = Gateway::start_config_in(folder.clone(), &one).await;
    let id = accept_secretive(&gateway, 1).await;
    delivered(&gateway, &id).await;
    gateway.stop().await;

    let file = folder.path().join("sluicegate.toml");
    std::fs::write(&file, one.replace(&key(1), &key(2))).expect("written");
    let serve = Command::new(binary())
        .args(["serve", "--config"])
        .arg(&file)
        .env("XPANDER_API_KEY", API_KEY)
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&serve.stderr).into_owned()
        + &String::from_utf8_lossy(&serve.stdout);
    assert!(
        !serve.status.success() && said.contains("inbox.old_keys"),
        "{said}"
    );
}

#[tokio::test]
async fn an_event_that_does_not_open_is_dead_says_so_and_goes_on_when_its_key_is_back() {
    let upstream = Upstream::start(&[]).await;
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let start = async |inbox: String| {
        Gateway::start_config_in(folder.clone(), &config(&upstream, &inbox)).await
    };
    // In clear, closed, in clear: those at the ends open with any key.
    let gateway = start(format!("key = \"{}\"", key(1))).await;
    let first = accept_secretive(&gateway, 1).await;
    delivered(&gateway, &first).await;
    assert_eq!(
        gateway
            .tell("/sources/open/pause", serde_json::json!({}))
            .await
            .0,
        200
    );
    gateway.stop().await;
    let gateway = start(format!("key = \"{}\"\nencrypt = true", key(1))).await;
    let closed = accept_secretive(&gateway, 2).await;
    gateway.stop().await;
    let gateway = start(format!("key = \"{}\"", key(1))).await;
    let last = accept_secretive(&gateway, 3).await;
    gateway.stop().await;

    let gateway = start(format!("key = \"{}\"", key(2))).await;
    assert_eq!(
        gateway
            .tell("/sources/open/resume", serde_json::json!({}))
            .await
            .0,
        200
    );
    delivered(&gateway, &last).await;
    let dead = gateway.admin_json("/events?state=dead").await;
    assert_eq!(dead["items"][0]["id"], closed.as_str(), "{dead}");
    assert!(
        gateway.log().contains("inbox.old_keys"),
        "the log says what to do"
    );
    gateway.stop().await;

    let gateway = start(format!("key = \"{}\"\nold_keys = [\"{}\"]", key(2), key(1))).await;
    let event = gateway.admin_json(&format!("/events/{closed}")).await;
    assert_eq!(
        event["deliveries"][0]["attempts"][0]["result"], "cannot_open",
        "{event}"
    );
    let (status, told) = gateway
        .tell(&format!("/events/{closed}/replay"), serde_json::json!({}))
        .await;
    assert!(status < 300, "{told}");
    wait_for("the event to be delivered", async || {
        let event = gateway.admin_json(&format!("/events/{closed}")).await;
        (event["deliveries"][1]["state"] == "delivered").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_index_of_words_and_encryption_exclude_each_other() {
    let upstream = Upstream::start(&[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sluicegate.toml");
    std::fs::write(&file, config(&upstream, "encrypt = true\nsearch = true")).expect("written");
    let check = Command::new(binary())
        .args(["check", "--config"])
        .arg(&file)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&check.stderr).into_owned()
        + &String::from_utf8_lossy(&check.stdout);
    assert!(
        !check.status.success() && said.contains("both on"),
        "{said}"
    );
}
