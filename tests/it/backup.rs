//! A backup that is made while the gateway runs, and a restore after which nothing runs a second time.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::world::{Gateway, Upstream, binary, wait_for};

const SOURCES: &str = r#"
[sources.open]
provider = "custom"
verify = { scheme = "none" }
agent = "a"
prompt = "{{ body.n }}"

[sources.chat]
provider = "custom"
verify = { scheme = "none" }
agent = "a"
thread = "{{ body.who }}"
prompt = "{{ body.n }}"
"#;

/// Runs a command with the configuration of a folder.
fn command(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .arg("--config")
        .arg(folder.join("sluicegate.toml"))
        .output()
        .expect("it runs")
}

fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = command(folder, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn fails(folder: &Path, arguments: &[&str]) -> String {
    let output = command(folder, arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn post(gateway: &Gateway, numbers: std::ops::Range<u32>) -> Vec<String> {
    let mut events = Vec::new();
    for n in numbers {
        events.push(gateway.accept("open", &json!({ "n": n })).await);
        events.push(
            gateway
                .accept("chat", &json!({ "n": n + 1000, "who": "ada" }))
                .await,
        );
    }
    events
}

#[tokio::test]
async fn what_ran_after_the_backup_does_not_run_again_after_the_restore() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    let done = post(&gateway, 0..3).await;
    upstream.wait_for_runs(6).await;
    for event in &done {
        gateway.settled(event).await;
    }
    assert_eq!(gateway.tell("/pause", Value::Null).await.0, 200);
    let open = post(&gateway, 3..6).await;

    let folder = gateway.folder.path().to_owned();
    let copy = folder.join("backup.db");
    let name = copy.to_str().expect("a name");
    let said = succeeds(&folder, &["backup", name]);
    assert!(said.contains("backup.db.key"), "{said}");
    let again = fails(&folder, &["backup", name]);
    assert!(again.contains("is there already"), "{again}");
    let running = fails(&folder, &["restore", name]);
    assert!(running.contains("move it away first"), "{running}");

    // What was open runs to its end, and all of it is lost.
    assert_eq!(gateway.tell("/resume", Value::Null).await.0, 200);
    upstream.wait_for_runs(12).await;
    for event in &open {
        gateway.settled(event).await;
    }
    let kept = gateway.kill();
    std::fs::remove_dir_all(folder.join("data")).expect("it was there");

    let said = succeeds(&folder, &["restore", name]);
    assert!(said.contains("12 events; 6 deliveries are open"), "{said}");
    let gateway = Gateway::start_in(kept, upstream.address, SOURCES).await;
    let status = gateway.admin_json("/status").await;
    assert!(status.to_string().contains("paused"), "{status}");
    assert_eq!(gateway.tell("/resume", Value::Null).await.0, 200);
    for event in &done {
        let event = gateway.settled(event).await;
        assert_eq!(event["deliveries"][0]["state"], "delivered", "{event}");
    }
    // The upstream shows the last run of a conversation: of the messages before it nobody can tell.
    let mut states = Vec::new();
    for event in &open {
        let event = gateway.settled(event).await;
        states.push(
            event["deliveries"][0]["state"]
                .as_str()
                .expect("a state")
                .to_owned(),
        );
    }
    let expected = [
        "delivered",
        "unknown",
        "delivered",
        "unknown",
        "delivered",
        "delivered",
    ];
    assert_eq!(states, expected);
    // What never ran does run, after the others of its conversation.
    let new = post(&gateway, 6..7).await;
    for event in &new {
        gateway.settled(event).await;
    }
    let runs = upstream.runs().await;
    assert_eq!(runs.len(), 14, "{runs:?}");
}

#[tokio::test]
async fn what_had_not_run_when_it_was_lost_runs_after_the_restore() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    assert_eq!(gateway.tell("/pause", Value::Null).await.0, 200);
    let open = post(&gateway, 0..3).await;
    let folder = gateway.folder.path().to_owned();
    let copy = folder.join("backup.db");
    succeeds(&folder, &["backup", copy.to_str().expect("a name")]);
    let kept = gateway.kill();
    // Put back by hand, and then marked.
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.join(format!("data/inbox.db{ending}")));
    }
    std::fs::copy(&copy, folder.join("data/inbox.db")).expect("a copy");
    let said = succeeds(&folder, &["restore"]);
    assert!(said.contains("6 deliveries are open"), "{said}");
    let gateway = Gateway::start_in(kept, upstream.address, SOURCES).await;
    assert!(upstream.runs().await.is_empty());
    assert_eq!(gateway.tell("/resume", Value::Null).await.0, 200);
    for event in &open {
        let event = gateway.settled(event).await;
        assert_eq!(event["deliveries"][0]["state"], "delivered", "{event}");
    }
    wait_for("each run once", async || {
        (upstream.runs().await.len() == 6).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_damaged_backup_and_a_foreign_file_are_refused_and_leave_nothing() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, SOURCES).await;
    let folder = gateway.folder.path().to_owned();
    post(&gateway, 0..1).await;
    let _kept = gateway.kill();
    std::fs::remove_dir_all(folder.join("data")).expect("it was there");
    for (name, bytes) in [
        ("text.db", b"no database".to_vec()),
        ("zeros.db", vec![0; 8192]),
    ] {
        let file = folder.join(name);
        std::fs::write(&file, bytes).expect("the folder takes files");
        let said = fails(&folder, &["restore", file.to_str().expect("a name")]);
        assert!(said.contains(name) || said.contains("inbox"), "{said}");
        let left = folder.join("data/inbox.db");
        let size = std::fs::metadata(left).map_or(0, |file| file.len());
        assert_eq!(size, 0, "{name}: nothing is put in place");
    }
    let missing = fails(&folder, &["restore", "/nowhere/backup.db"]);
    assert!(missing.contains("/nowhere/backup.db"), "{missing}");
}
