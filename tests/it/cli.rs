//! What an operator types, against a gateway that runs.

use std::net::SocketAddr;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::operate::with_postgres;
use crate::world::{Gateway, TOKEN, Upstream, binary, event_id, free_address};

const OPEN: &str = r#"
[sources.open]
provider = "custom"
agent = "a"
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text" }
"#;

fn run(arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .env("SLUICEGATE_ADMIN_TOKEN", TOKEN)
        .output()
        .expect("it runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn help_teaches_and_version_is_one_line() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    for word in ["serve", "check", "demo", "stub", "event", "First steps"] {
        assert!(out(&help).contains(word), "{word}");
    }
    assert_eq!(
        out(&run(&["--version"])),
        format!("sluicegate {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(run(&["serv"]).status.code(), Some(2));
}

#[test]
fn providers_are_listed() {
    let list: Value =
        serde_json::from_slice(&run(&["provider", "list", "--json"]).stdout).expect("JSON");
    let names: Vec<&str> = list
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|p| p["name"].as_str())
        .collect();
    for name in [
        "clerk",
        "github",
        "gitlab",
        "openai",
        "resend",
        "shopify",
        "slack",
        "standard-webhooks",
        "stripe",
        "svix",
        "telegram",
    ] {
        assert!(names.contains(&name), "{name} of {names:?}");
    }
}

#[test]
fn serving_with_a_wrong_configuration_starts_nothing_and_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.toml");
    std::fs::write(&file, "[server]\nlisten = 5\n").expect("a file");
    let output = run(&["serve", "--config", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("x.toml:2: error: server.listen"), "{said}");
    assert!(!folder.path().join("data").exists());
    let output = run(&["check", "--config", "/no/such/file.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(out(&output).contains("cannot be read"), "{}", out(&output));
}

#[tokio::test]
async fn events_are_listed_shown_and_replayed() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, OPEN).await;
    let text = "bell \u{7} and \u{1b}[31mred";
    let answer = gateway
        .post(
            "/hooks/open",
            &[],
            json!({"id": 1, "text": text}).to_string(),
        )
        .await;
    let id = event_id(&answer);
    gateway.settled(&id).await;
    let admin = format!("http://{}", gateway.admin);
    let asked = |words: &[&str]| {
        let mut all = vec!["event"];
        all.extend(words);
        all.extend(["--admin", &admin]);
        run(&all)
    };
    let list = asked(&["list"]);
    assert!(
        out(&list).contains(&id) && out(&list).contains("delivered"),
        "{}",
        out(&list)
    );
    let shown = asked(&["show", &id]);
    assert!(out(&shown).contains("completed"), "{}", out(&shown));
    assert!(
        !out(&shown).contains('\u{1b}') && !out(&shown).contains('\u{7}'),
        "control characters reach the terminal"
    );
    let whole: Value =
        serde_json::from_slice(&asked(&["show", &id, "--json"]).stdout).expect("JSON");
    assert_eq!(
        whole["params"][0]["origin"],
        json!({"from": "mapping", "path": "text"}),
        "{whole:#}"
    );
    let replayed = asked(&["replay", &id]);
    assert!(
        replayed.status.success(),
        "{}",
        String::from_utf8_lossy(&replayed.stderr)
    );
    let event = gateway.settled(&id).await;
    assert_eq!(event["deliveries"].as_array().map(Vec::len), Some(2));
    assert_eq!(upstream.runs().await.len(), 2);
    let missing = asked(&["show", &format!("evt_{}", "0".repeat(32))]);
    assert_eq!(
        missing.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&missing.stderr)
    );
}

#[tokio::test]
async fn events_are_replayed_in_bulk_changed_and_sources_held_on_sqlite() {
    let upstream = Upstream::start(&["--fail", "422=1/1"]).await;
    let gateway = Gateway::start(upstream.address, OPEN).await;
    operate(upstream, gateway).await;
}

#[tokio::test]
async fn events_are_replayed_in_bulk_changed_and_sources_held_on_postgres() {
    let upstream = Upstream::start(&["--fail", "422=1/1"]).await;
    let config = with_postgres(&Gateway::config(upstream.address, OPEN, "")).await;
    operate(upstream, Gateway::start_config(&config).await).await;
}

async fn operate(upstream: Upstream, gateway: Gateway) {
    let mut ids = Vec::new();
    for number in 0..3 {
        let answer = gateway
            .post(
                "/hooks/open",
                &[],
                json!({"id": number, "text": "hi"}).to_string(),
            )
            .await;
        ids.push(event_id(&answer));
    }
    for id in &ids {
        gateway.settled(id).await;
    }
    upstream.set(json!({ "fail": [] })).await;
    let admin = format!("http://{}", gateway.admin);
    let asked = |words: &[&str]| {
        let mut all = words.to_vec();
        all.extend(["--admin", &admin]);
        run(&all)
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let dead = [
        "event", "replay", "--source", "open", "--state", "dead", "--since", "1h",
    ];
    let plan = asked(&[&dead[..], &["--dry-run"]].concat());
    assert!(
        plan.status.success() && out(&plan).contains("events     3"),
        "{}{}",
        out(&plan),
        said(&plan)
    );
    let unasked = asked(&dead);
    assert_eq!(unasked.status.code(), Some(1));
    assert!(
        said(&unasked).contains("--yes") && out(&unasked).is_empty(),
        "{}",
        said(&unasked)
    );
    let begun = asked(&[&dead[..], &["--yes", "--pace", "100/s", "--json"]].concat());
    let job: Value = serde_json::from_slice(&begun.stdout).expect("JSON alone on standard output");
    assert_eq!(
        (&job["total"], &job["pace"]),
        (&json!(3), &json!(6000)),
        "{job:#}"
    );
    let number = job["id"].to_string();
    crate::world::wait_for("the replay to end", async || {
        out(&asked(&["replay", "show", &number]))
            .contains("done       3 of 3")
            .then_some(())
    })
    .await;
    assert!(out(&asked(&["replay", "list"])).contains("state=dead"));
    assert_eq!(
        asked(&["replay", "pause", &number]).status.code(),
        Some(1),
        "it has ended"
    );
    assert_eq!(asked(&["replay", "show", "4711"]).status.code(), Some(3));
    for id in &ids {
        gateway.settled(id).await;
    }
    assert_eq!(upstream.runs().await.len(), 3);

    let list = asked(&["event", "list", "--oldest", "--limit", "1"]);
    assert!(out(&list).contains(&ids[0]), "{}", out(&list));
    let dry = asked(&["event", "replay", "--dry-run", &ids[0]]);
    assert!(
        out(&dry).starts_with("POST /v1/agents/a/invoke\n") && out(&dry).contains("x-api-key: ***"),
        "{}",
        out(&dry)
    );
    let body = asked(&["event", "show", &ids[0], "--body"]);
    assert_eq!(out(&body), json!({"id": 0, "text": "hi"}).to_string());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("body.json");
    std::fs::write(&file, r#"{"text":"mended"}"#).expect("a file");
    let resent = asked(&[
        "event",
        "resend",
        &ids[0],
        "--body",
        &file.display().to_string(),
        "--header",
        "X-Why: test",
    ]);
    let new = out(&resent)
        .split_whitespace()
        .next()
        .expect("an id")
        .to_owned();
    let event = gateway.settled(&new).await;
    assert_eq!(event["params"][0]["value"], "mended");
    let shown = out(&asked(&["event", "show", &new]));
    assert!(
        shown.contains(&format!("verified   operator, who made it of {}", ids[0])),
        "{shown}"
    );

    let delivery = event["deliveries"][0]["id"].as_str().expect("an id");
    for words in [
        &["event", "settle", delivery, "--as", "dead"][..],
        &["event", "cancel", delivery],
    ] {
        let output = asked(words);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("delivered"), "{}", said(&output));
    }
    assert_eq!(
        out(&asked(&["source", "pause", "open"])).lines().next(),
        Some("open paused")
    );
    let list = out(&asked(&["source", "list", "--time", "utc"]));
    assert!(
        list.lines()
            .next()
            .is_some_and(|line| line.starts_with("PAUSED: the source open, since ")),
        "{list}"
    );
    assert_eq!(out(&asked(&["source", "resume", "open"])), "open running\n");
    assert_eq!(
        out(&asked(&["source", "resume", "open"])),
        "open running (it was so already)\n"
    );
    assert_eq!(
        out(&asked(&["destination", "pause", "agent/a"]))
            .lines()
            .next(),
        Some("agent/a paused")
    );
    assert!(out(&asked(&["destination", "list"])).contains("agent/a"));
    assert_eq!(
        out(&asked(&["destination", "resume", "agent/a"])),
        "agent/a running\n"
    );
    assert_eq!(asked(&["source", "pause", "nobody"]).status.code(), Some(3));
}

#[test]
fn the_demo_shows_what_it_promises_and_ends_well() {
    let output = run(&["demo"]);
    let said = out(&output);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for words in [
        "GitHub",
        "Stripe",
        "Telegram",
        "Slack",
        "Standard Webhooks",
        "401 bad_signature",
        "202 duplicate",
        "completed: echo",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn an_idle_gateway_is_small_and_leans_on_the_c_library_only() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, OPEN).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("Linux");
    let kib: u64 = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse()
                .ok()
        })
        .expect("a figure");
    // What is built for finding bugs is larger.
    let most = if binary()
        .components()
        .any(|part| part.as_os_str() == "release")
    {
        24 * 1024
    } else {
        80 * 1024
    };
    assert!(kib < most, "{kib} KiB");
    let needs = Command::new("ldd")
        .arg(binary())
        .output()
        .expect("ldd is there");
    for line in out(&needs).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let known = [
            "linux-vdso.so",
            "libgcc_s.so",
            "libm.so",
            "libc.so",
            "/lib64/ld-linux",
            "/lib/ld-linux",
        ];
        assert!(known.iter().any(|known| name.starts_with(known)), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_has_one_owner_and_every_command_says_so_in_words() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, "").await;
    let folder = gateway.folder.clone();
    let file = folder.path().join("sluicegate.toml");
    let run = |arguments: &[&str], admin: SocketAddr| {
        let output = Command::new(binary())
            .args(arguments)
            .arg("--config")
            .arg(&file)
            .env("SLUICEGATE__ADMIN__LISTEN", admin.to_string())
            .output()
            .expect("it runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let elsewhere = free_address();
    let run = |arguments: &[&str], admin: SocketAddr| {
        tokio::task::block_in_place(|| run(arguments, admin))
    };
    let (code, said) = run(&["migrate"], elsewhere);
    assert!(
        code == Some(1)
            && said.contains("open in another process")
            && said.contains("up to date already"),
        "{said}"
    );
    assert_eq!(run(&["health"], gateway.admin).0, Some(0));

    let admin = gateway.admin;
    gateway.stop().await;
    assert_eq!(run(&["health"], admin).0, Some(1));
    let (code, said) = run(&["serve", "--roles", "ingress,admin"], elsewhere);
    assert!(
        code == Some(1) && said.contains("one owner") && said.contains("postgres://"),
        "{said}"
    );
    let (code, said) = run(&["serve", "--roles", "ingres"], elsewhere);
    assert!(
        code == Some(2) && said.contains("roles are ingress, dispatch and admin"),
        "{said}"
    );
    for _ in 0..2 {
        let (code, said) = run(&["migrate"], elsewhere);
        assert!(code == Some(0) && said.contains("is up to date"), "{said}");
    }
}
