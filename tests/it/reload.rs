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
    std::fs::write(file, Gateway::config(upstream.address, sources, "")).expect("the folder takes files");
    signal(gateway.pid(), "HUP");
}

async fn status(gateway: &Gateway, key: &str) -> u16 {
    let headers = [("x-api-key", key), ("content-type", "application/json")];
    gateway.post("/?agent_id=a", &headers, r#"{"prompt":"hi"}"#).await.status().as_u16()
}

#[tokio::test]
async fn t105_a_reload_takes_sources_and_keys_and_a_wrong_one_changes_nothing() {
    let upstream = Upstream::start(&["--api-key", crate::world::API_KEY]).await;
    let gateway = Gateway::start(upstream.address, KEYS).await;
    assert_eq!(status(&gateway, "gateway-key-of-ci-0001").await, 200);
    assert_eq!(gateway.post("/hooks/open", &[], "{}").await.status(), 202);
    upstream.wait_for_runs(2).await;

    // Everything wrong is named with its place, and nothing changes.
    let wrong = KEYS.replace("\"before\"", "\"after\"").replace("provider = \"custom\"", "provider = \"costum\"");
    write(&gateway, &upstream, &wrong);
    wait_for("the problems to be logged", async || gateway.log().contains("configuration not reloaded").then_some(()))
        .await;
    let log = gateway.log();
    assert!(log.contains("did you mean custom?") && log.contains("sluicegate.toml:"), "{log}");
    assert_eq!(status(&gateway, "gateway-key-of-ci-0001").await, 200);

    // A key that is gone is revoked, and a source goes where it is told now.
    let next = KEYS.replace("\"before\"", "\"after\"").replace("gateway-key-of-ci-0001", "gateway-key-of-ci-0002");
    write(&gateway, &upstream, &next);
    wait_for("the reload", async || gateway.log().contains("configuration reloaded").then_some(())).await;
    // The old key is now one like any other, and only the gateway's own are taken.
    assert_eq!(status(&gateway, "gateway-key-of-ci-0001").await, 403);
    assert_eq!(status(&gateway, "gateway-key-of-ci-0002").await, 200);
    assert_eq!(gateway.post("/hooks/open", &[], "{}").await.status(), 202);
    let runs = upstream.wait_for_runs(5).await;
    assert_eq!(runs.last().map(|run| run["destination"].clone()), Some(json!("agents/after")));
    let sources = gateway.admin_json("/sources").await;
    assert_eq!(sources["items"][0]["destination"], "agent/after", "{sources:#} {TOKEN}");
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
