//! kill -9 in a loop under load, with an upstream that fails in every way: nothing acknowledged is lost, no event is
//! run twice, every thread keeps its order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::json;
use sluicegate::net::Client;

use crate::world::{Gateway, Upstream, free_address, wait_for};

const CHAT: &str = r#"
[dispatch]
backoff = "50ms"
backoff_max = "500ms"
[sources.chat]
provider = "custom"
agent = "a"
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text", task_id = "chat" }
[sources.loose]
provider = "custom"
agent = "b"
verify = { scheme = "none", event_id = "json:id" }
params_mapping = { prompt = "text" }
"#;

/// Kills, threads, and how long the gateway lives between two kills.
fn kills() -> u32 {
    std::env::var("SLUICEGATE_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

const THREADS: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_kill_9_loses_nothing_doubles_nothing_and_keeps_order() {
    let faults = ["429=0.04", "503=0.04", "unavailable=0.04", "drop-before=0.04", "drop-after=0.04", "gateway=0.04"];
    let mut arguments = vec!["--delay", "20ms"];
    for fault in faults {
        arguments.extend(["--fail", fault]);
    }
    let upstream = Upstream::start(&arguments).await;
    let public = free_address();
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let stop = Arc::new(AtomicBool::new(false));
    // One sender a thread: the next message goes out when the one before is acknowledged, as people write.
    let senders: Vec<_> = (0..THREADS).map(|thread| tokio::spawn(sender(public, thread, stop.clone()))).collect();
    for _ in 0..kills() {
        let gateway = Gateway::start_at(public, folder.clone(), upstream.address, CHAT).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(150..900))).await;
        gateway.kill();
    }
    stop.store(true, Ordering::Relaxed);
    let gateway = Gateway::start_at(public, folder, upstream.address, CHAT).await;
    let mut acknowledged = BTreeMap::new();
    for (thread, sender) in senders.into_iter().enumerate() {
        acknowledged.insert(thread, sender.await.expect("a sender does not panic"));
    }
    let wanted: usize = acknowledged.values().sum();
    assert!(wanted > 100, "the load was too thin to show anything: {wanted}");
    drain(&gateway).await;

    let runs = upstream.runs().await;
    let mut said: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for run in &runs {
        let text = run["text"].as_str().expect("a text");
        let (thread, number) = text.split_once('-').expect("thread-number");
        said.entry(thread.parse().expect("a number")).or_default().push(number.parse().expect("a number"));
    }
    let unknown = gateway.admin_json("/events?state=unknown").await["items"].as_array().map_or(0, Vec::len);
    let mut wrong = Vec::new();
    for (thread, count) in &acknowledged {
        let numbers = said.remove(thread).unwrap_or_default();
        // Everything acknowledged, once, in order. The very last may have been kept without its answer arriving.
        let ordered: Vec<usize> = (0..numbers.len()).collect();
        let loose = thread % 2 == 1;
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        if (if loose { &sorted } else { &numbers }) != &ordered || numbers.len() < *count || numbers.len() > count + 1 {
            wrong.push(format!("thread {thread}: {count} acknowledged, ran {numbers:?}"));
        }
    }
    let stats = upstream.stats().await;
    assert!(wrong.is_empty(), "{unknown} unknown, {stats}\n{}", wrong.join("\n"));
    assert_eq!(stats["overlaps"], 0, "{stats}");
    assert_eq!(unknown, 0, "an upstream that tells the truth leaves nothing unknown");
    eprintln!("{} kills, {wanted} acknowledged, {} runs, 0 lost, 0 doubled", kills(), runs.len());
}

/// Sends numbered messages of one thread, each until it is acknowledged. Returns how many were.
async fn sender(public: std::net::SocketAddr, thread: usize, stop: Arc<AtomicBool>) -> usize {
    let client = Client::new(Duration::from_secs(1), None).expect("a client");
    let source = if thread.is_multiple_of(2) { "chat" } else { "loose" };
    let mut number = 0;
    loop {
        let text = format!("{thread}-{number}");
        let body = json!({"id": text, "chat": format!("c{thread}"), "text": text}).to_string();
        loop {
            let request = Request::post(format!("http://{public}/hooks/{source}"))
                .body(Bytes::from(body.clone()))
                .expect("a request");
            match client.send(request, Duration::from_secs(5), 1 << 20).await {
                Ok(answer) if answer.status().is_success() => break,
                Ok(answer) => assert!(answer.status().is_server_error(), "{answer:?}"),
                Err(_) => {}
            }
            if stop.load(Ordering::Relaxed) {
                // The last gateway is up or about to be; a message that is not acknowledged need not arrive.
                return number;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        number += 1;
        // A doubtful call holds its lane for seconds; faster senders would only make the end of the test wait.
        tokio::time::sleep(Duration::from_millis(80)).await;
        if stop.load(Ordering::Relaxed) {
            return number;
        }
    }
}

/// Waits until nothing is owed any more.
async fn drain(gateway: &Gateway) {
    for _ in 0..10 {
        let waited = tokio::time::timeout(Duration::from_secs(25), async {
            wait_for("nothing to be owed", async || {
                for state in ["pending", "leased"] {
                    let page = gateway.admin_json(&format!("/events?limit=1&state={state}")).await;
                    if page["items"].as_array().is_some_and(|items| !items.is_empty()) {
                        return None;
                    }
                }
                Some(())
            })
            .await;
        });
        if waited.await.is_ok() {
            return;
        }
    }
    panic!("deliveries are still owed:\n{}", gateway.log());
}
