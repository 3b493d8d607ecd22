//! A new configuration while the gateway serves: whole, or not at all.

use serde_json::json;

use crate::world::{Gateway, TOKEN, Upstream, signal, wait_for};

const KEYS: &str = r#"
[keys.ci]
key = "literal:gateway-key-of-ci-0001"
[sources.open]
provider = "custom"
agent = "before"
verify = { scheme = "none" }
defaults = { prompt = "hello" }
"#;

fn write(gateway: &Gateway, upstream: &Upstream, sources: &str) {
    let file = gateway.folder.path().join("sluicegate.toml");
    std::fs::write(file, Gateway::config(upstream.address, sources, ""))
        .expect("the folder takes files");
    signal(gateway.pid(), "HUP");
}

async fn status(gateway: &Gateway, key: &str) -> u16 {
    let headers = [("x-api-key", key), ("content-type", "application/json")];
    gateway
        .post("/?agent_id=a", &headers, r#"{"prompt":"hi"}"#)
        .await
        .status()
        .as_u16()
}

#[tokio::test]
async fn t105_a_reload_takes_sources_and_keys_and_a_wrong_one_changes_nothing() {
    let upstream = Upstream::start(&["--api-key", crate::world::API_KEY]).await;
    let gateway = Gateway::start(upstream.address, KEYS).await;
    assert_eq!(status(&gateway, "gateway-key-of-ci-0001").await, 200);
    assert_eq!(gateway.post("/hooks/open", &[], "{}").await.status(), 202);
    upstream.wait_for_runs(2).await;

    // Everything wrong is named with its place, and nothing changes.
    let wrong = KEYS
        .replace("\"before\"", "\"after\"")
        .replace("provider = \"custom\"", "provider = \"costum\"");
    write(&gateway, &upstream, &wrong);
    wait_for("the problems to be logged", async || {
        gateway
            .log()
            .contains("configuration not reloaded")
            .then_some(())
    })
    .await;
    let log = gateway.log();
    assert!(
        log.contains("did you mean custom?") && log.contains("sluicegate.toml:"),
        "{log}"
    );
    assert_eq!(status(&gateway, "gateway-key-of-ci-0001").await, 200);

    // A key that is gone is revoked, and a source goes where it is told now.
    let next = KEYS
        .replace("\"before\"", "\"after\"")
        .replace("gateway-key-of-ci-0001", "gateway-key-of-ci-0002");
    write(&gateway, &upstream, &next);
    wait_for("the reload", async || {
        gateway
            .log()
            .contains("configuration reloaded")
            .then_some(())
    })
    .await;
    // The old key is now one like any other, and only the gateway's own are taken.
    assert_eq!(status(&gateway, "gateway-key-of-ci-0001").await, 403);
    assert_eq!(status(&gateway, "gateway-key-of-ci-0002").await, 200);
    assert_eq!(gateway.post("/hooks/open", &[], "{}").await.status(), 202);
    let runs = upstream.wait_for_runs(5).await;
    assert_eq!(
        runs.last().map(|run| run["destination"].clone()),
        Some(json!("agents/after"))
    );
    let sources = gateway.admin_json("/sources").await;
    assert_eq!(
        sources["items"][0]["destination"], "agent/after",
        "{sources:#} {TOKEN}"
    );
}

#[tokio::test]
async fn f19_requests_under_way_at_a_reload_are_answered() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, KEYS).await;
    let send = async {
        for _ in 0..300 {
            assert_eq!(gateway.post("/hooks/open", &[], "{}").await.status(), 202);
        }
    };
    let reload = async {
        for _ in 0..10 {
            signal(gateway.pid(), "HUP");
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
    };
    tokio::join!(send, reload);
    upstream.wait_for_runs(300).await;
}

/// The configuration file of a gateway.
fn file(gateway: &Gateway) -> std::path::PathBuf {
    gateway.folder.path().join("sluicegate.toml")
}

/// Writes a configuration and leaves it to the gateway to see it.
fn put(gateway: &Gateway, text: &str) {
    std::fs::write(file(gateway), text).expect("the folder takes files");
}

/// Has the configuration read again: the status and the answer.
async fn order(gateway: &Gateway) -> (u16, serde_json::Value) {
    gateway.tell("/reload", json!({})).await
}

async fn hook(gateway: &Gateway, name: &str) -> u16 {
    gateway
        .post(&format!("/hooks/{name}"), &[], "{}")
        .await
        .status()
        .as_u16()
}

async fn logged(gateway: &Gateway, words: &str) {
    wait_for(words, async || gateway.log().contains(words).then_some(())).await;
}

/// A line says so often that a setting waits for a restart, and not more often.
async fn said(gateway: &Gateway, setting: &str, often: usize) {
    let line = format!("\"setting\":\"{setting}\"");
    let count = async || Some(gateway.log().matches(&line).count()).filter(|count| *count >= often);
    assert_eq!(wait_for(&line, count).await, often, "{setting}");
}

/// What needs attention, by its words.
async fn attention(gateway: &Gateway) -> Vec<(String, String)> {
    let status = gateway.admin_json("/status").await;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let items = status["attention"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .map(|item| (text(&item["code"]), text(&item["text"])))
        .collect()
}

const TWO: &str = r#"
[sources.one]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
defaults = { prompt = "hello" }
[sources.two]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
defaults = { prompt = "hello" }
"#;

#[tokio::test]
async fn a10_a_file_that_is_being_written_never_takes_the_place_of_one_that_works() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, TWO).await;
    let whole = Gateway::config(upstream.address, TWO, "");

    put(&gateway, "");
    logged(&gateway, "says nothing").await;
    assert_eq!(
        (hook(&gateway, "one").await, hook(&gateway, "two").await),
        (202, 202)
    );
    let told = attention(&gateway).await;
    assert!(
        told.iter()
            .any(|(code, text)| code == "configuration" && text.contains("says nothing")),
        "{told:?}"
    );
    let (status, answer) = order(&gateway).await;
    assert!(
        status == 409 && answer["code"] == "not_reloaded",
        "an order does not take nothing either: {answer}"
    );

    let (head, _) = whole.split_once("[sources.one]").expect("it stands there");
    put(&gateway, head);
    logged(&gateway, "has no source any more").await;
    assert_eq!(hook(&gateway, "one").await, 202);

    // Cut inside of a table: no TOML, or not all of the sources.
    let (cut, _) = whole.split_once("[sources.two]").expect("it stands there");
    put(&gateway, cut);
    logged(&gateway, "says less than before").await;
    assert_eq!(hook(&gateway, "two").await, 202);
    put(&gateway, &whole);
    let (status, answer) = order(&gateway).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        (hook(&gateway, "one").await, hook(&gateway, "two").await),
        (202, 202)
    );
    assert!(
        attention(&gateway)
            .await
            .iter()
            .all(|(code, _)| code != "configuration"),
        "what was refused is mended"
    );

    // What cannot be read is said, and changes nothing.
    std::fs::write(file(&gateway), [whole.as_bytes(), b"# caf\xe9\n"].concat())
        .expect("the folder takes files");
    logged(&gateway, "not UTF-8").await;
    assert_eq!(hook(&gateway, "one").await, 202);

    // Whoever means it says so.
    put(&gateway, head);
    let (status, answer) = order(&gateway).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(hook(&gateway, "one").await, 404);
}

/// Settings that are read at the start only, and another value of each.
const AT_START: &str = r#"
[server]
listen = "127.0.0.1:1"
public_url = "https://hooks.example.com"
max_head = "33KiB"
head_timeout = "11s"
idle_timeout = "61s"
write_stall = "31s"
max_connections = 9999
max_connections_per_address = 255
max_requests = 8191
trusted_proxies = ["192.0.2.1"]
forwarded = "forwarded"
proxy_protocol = true
http2_cleartext = true
drain_timeout = "9s"
[admin]
listen = "127.0.0.1:2"
token = "literal:test-token-0123456789-0123456789"
[inbox]
url = "sqlite:data/other.db"
batch = 511
queue = 4095
search = true
max_disk = "1GiB"
min_free = "255MiB"
lease = "16s"
connections = 9
key = "literal:0123456789abcdef0123456789abcdef"
old_keys = ["literal:0123456789abcdef0123456789abcdee"]
[attachments]
store = "file:data/other"
uploads = 31
[log]
format = "text"
filter = "debug"
"#;

#[tokio::test]
async fn a10_each_setting_holds_or_a_line_says_that_it_does_not() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, TWO).await;
    let before = gateway.admin_json("/status").await["configuration"].clone();
    assert_eq!(before["generation"], 1);
    let rest = format!(
        "[upstream]\nbase_url = \"http://{}\"\napi_key = \"literal:{}\"\n{TWO}",
        upstream.address,
        crate::world::API_KEY
    );
    put(&gateway, &format!("{AT_START}{rest}"));
    let (status, answer) = order(&gateway).await;
    assert_eq!(status, 200, "{answer}");
    let (mut section, mut wanted) = (String::new(), Vec::new());
    for line in AT_START.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((key, _)) = line.split_once(" = ") {
            wanted.push(format!("{section}.{key}"));
        }
    }
    // These two are what they were.
    wanted.retain(|name| !matches!(name.as_str(), "server.public_url" | "admin.token"));
    wanted.sort();
    let waiting = |answer: &serde_json::Value| {
        let list = answer["configuration"]["restart_for"]
            .as_array()
            .expect("a list")
            .clone();
        list.iter()
            .map(|name| name.as_str().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(waiting(&answer), wanted);
    assert!(
        answer["configuration"]["generation"] == 2
            && answer["configuration"]["digest"] != before["digest"]
    );
    for name in &wanted {
        said(&gateway, name, 1).await;
    }
    let told = attention(&gateway).await;
    assert_eq!(
        told.iter().filter(|(code, _)| code == "restart").count(),
        wanted.len(),
        "{told:?}"
    );
    assert_eq!(hook(&gateway, "one").await, 202, "what holds goes on");

    // It is said at each reload, until the old values are back or a restart has taken the new ones over.
    let (_, answer) = order(&gateway).await;
    assert_eq!(waiting(&answer), wanted);
    said(&gateway, "inbox.batch", 2).await;
    put(&gateway, &Gateway::config(upstream.address, TWO, ""));
    let (_, answer) = order(&gateway).await;
    assert_eq!(
        (waiting(&answer), answer["configuration"]["digest"].clone()),
        (Vec::new(), before["digest"].clone())
    );
}

#[tokio::test]
async fn a10_what_is_said_to_hold_holds() {
    let upstream = Upstream::start(&[]).await;
    let other = Upstream::start(&[]).await;
    let sources = format!("{TWO}[keys.k]\nkey = \"literal:a-key-of-our-own-0001\"\n");
    let gateway = Gateway::start(upstream.address, &sources).await;
    let with = async |change: &dyn Fn(String) -> String| {
        put(
            &gateway,
            &change(Gateway::config(upstream.address, &sources, "")),
        );
        let (status, answer) = order(&gateway).await;
        assert!(
            status == 200 && answer["configuration"]["restart_for"] == json!([]),
            "{answer}"
        );
    };
    let section = |name: &'static str, line: &'static str| {
        move |text: String| {
            let head = format!("[{name}]\n");
            if text.contains(&head) {
                text.replace(&head, &format!("{head}{line}\n"))
            } else {
                format!("{text}\n{head}{line}\n")
            }
        }
    };
    with(&section("server", "max_body = \"8B\"")).await;
    assert_eq!(
        gateway
            .post("/hooks/one", &[], "{\"a\":\"0123456789\"}")
            .await
            .status(),
        413
    );
    with(&section("dropin", "enabled = false")).await;
    assert_eq!(status(&gateway, "a-key-of-our-own-0001").await, 404);
    with(&section("limits", "caller = \"1/h\"")).await;
    let codes = [hook(&gateway, "one").await, hook(&gateway, "one").await];
    assert_eq!(codes, [202, 429]);
    // A reload that leaves a limit as it is gives nobody a second helping.
    let (code, answer) = order(&gateway).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(hook(&gateway, "one").await, 429);
    with(&section("limits.runs_per_day", "whole = 1")).await;
    let budgets = gateway.admin_json("/budgets").await;
    assert!(budgets["items"].is_array(), "{budgets}");
    let begun = other.runs().await.len();
    let there = other.address.to_string();
    with(&|text: String| text.replace(&upstream.address.to_string(), &there)).await;
    assert_eq!(hook(&gateway, "two").await, 202);
    other.wait_for_runs(begun + 1).await;
    with(&|text: String| text.replace("agent = \"a\"", "agent = \"b\"")).await;
    let sources = gateway.admin_json("/sources").await;
    assert_eq!(sources["items"][0]["destination"], "agent/b", "{sources:#}");
}

#[tokio::test]
async fn a_public_url_holds_from_the_reload_on_for_files_as_well() {
    let upstream = Upstream::start(&[]).await;
    let source = "[sources.f]\nprovider = \"custom\"\nagent = \"a\"\nverify = { scheme = \"none\" }\nfiles = true\n";
    let without = Gateway::config(upstream.address, source, "")
        .replace("public_url = \"https://hooks.example.com\"", "");
    let gateway = Gateway::start_config(&without).await;
    let body = "--X\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nread it\r\n--X\r\n\
                Content-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\r\nhello\r\n--X--\r\n";
    let send = async || {
        let kind = [("content-type", "multipart/form-data; boundary=X")];
        gateway
            .post("/hooks/f", &kind, body)
            .await
            .status()
            .as_u16()
    };
    assert_eq!(send().await, 501);
    put(
        &gateway,
        &Gateway::config(upstream.address, source, "")
            .replace("hooks.example.com", "files.example.com"),
    );
    let (status, answer) = order(&gateway).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(send().await, 202);
    let runs = upstream.wait_for_runs(1).await;
    assert!(
        runs[0]
            .to_string()
            .contains("https://files.example.com/files/"),
        "{:#}",
        runs[0]
    );
}

#[tokio::test]
async fn a_secret_file_that_changes_is_taken_without_an_order() {
    use crate::world::{borrowed, github};
    let upstream = Upstream::start(&[]).await;
    let folder = std::sync::Arc::new(tempfile::tempdir().expect("a folder"));
    let write = |secret: &str| {
        let new = folder.path().join("secret.new");
        std::fs::write(&new, secret).expect("the folder takes files");
        std::fs::rename(new, folder.path().join("secret")).expect("a new name");
    };
    write("the-first-secret-of-all");
    let source = "[sources.g]\nprovider = \"github\"\nsecrets = [\"file:secret\"]\nagent = \"a\"\nprompt = \"hi\"\n";
    let gateway = Gateway::start_in(folder.clone(), upstream.address, source).await;
    let send = async |secret: &str, id: &str| {
        let headers = github(secret, id, "push", "{}");
        gateway
            .post("/hooks/g", &borrowed(&headers), "{}")
            .await
            .status()
            .as_u16()
    };
    assert_eq!(send("the-first-secret-of-all", "d-1").await, 202);
    write("another-secret-takes-over");
    logged(&gateway, "configuration reloaded").await;
    assert_eq!(send("another-secret-takes-over", "d-2").await, 202);
    assert_eq!(send("the-first-secret-of-all", "d-3").await, 401);
}

#[tokio::test]
async fn a_reload_is_proved_by_the_command_that_orders_it() {
    let upstream = Upstream::start(&[]).await;
    let gateway = Gateway::start(upstream.address, TWO).await;
    let run = || {
        let output = std::process::Command::new(crate::world::binary())
            .args([
                "reload",
                "--wait",
                "--admin",
                &format!("http://{}", gateway.admin),
            ])
            .env("SLUICEGATE_ADMIN_TOKEN", TOKEN)
            .output()
            .expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    put(
        &gateway,
        &Gateway::config(upstream.address, TWO, "max_head = \"33KiB\""),
    );
    let (code, out, err) = run();
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.contains("generation 2 holds") && out.contains("server.max_head"),
        "{out}"
    );
    let digest = gateway.admin_json("/status").await["configuration"]["digest"]
        .as_str()
        .expect("a text")
        .to_owned();
    assert!(out.contains(&digest), "{out}");
    put(
        &gateway,
        &Gateway::config(
            upstream.address,
            &TWO.replace("\"custom\"", "\"costum\""),
            "",
        ),
    );
    let (code, _, err) = run();
    assert!(code == Some(1) && err.contains("costum"), "{err}");
}
