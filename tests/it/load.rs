//! A load that can be judged: numbered messages in conversations and beside them, each sent until it is acknowledged,
//! and what must be true of the runs they end in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use serde_json::json;
use sluicegate::net::Client;
use tokio::task::JoinHandle;

use crate::world::{Gateway, Upstream};

/// The sources that the load goes to: one with conversations, one without.
pub const CHAT: &str = r#"
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

/// An upstream that fails in every way, and tells the truth when it is asked.
pub async fn flapping_upstream() -> Upstream {
    let faults = [
        "429=0.04",
        "503=0.04",
        "unavailable=0.04",
        "drop-before=0.04",
        "drop-after=0.04",
        "gateway=0.04",
    ];
    let mut arguments = vec!["--delay", "20ms"];
    for fault in faults {
        arguments.extend(["--fail", fault]);
    }
    Upstream::start(&arguments).await
}

/// One sender a thread: the next message goes out when the one before is acknowledged, as people write.
pub struct Load {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    senders: Vec<JoinHandle<usize>>,
}

/// What was sent.
pub struct Sent {
    /// How many messages of each thread were acknowledged.
    pub acknowledged: BTreeMap<usize, usize>,
    /// How many requests were answered otherwise.
    pub refused: usize,
}

impl Load {
    /// Begins; every message goes to one of these doors, and to the next when there is no answer.
    pub fn start(doors: &[SocketAddr], threads: usize) -> Self {
        let (stop, refused) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let doors: Arc<[SocketAddr]> = doors.into();
        let senders = (0..threads)
            .map(|thread| {
                tokio::spawn(sender(doors.clone(), thread, stop.clone(), refused.clone()))
            })
            .collect();
        Self {
            stop,
            refused,
            senders,
        }
    }

    /// Ends it. The gateways are up or about to be.
    pub async fn finish(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        let mut acknowledged = BTreeMap::new();
        for (thread, sender) in self.senders.into_iter().enumerate() {
            acknowledged.insert(thread, sender.await.expect("a sender does not panic"));
        }
        Sent {
            acknowledged,
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

impl Sent {
    /// How many messages were acknowledged.
    pub fn total(&self) -> usize {
        self.acknowledged.values().sum()
    }

    /// Once nothing is owed any more: everything acknowledged ran, once, and in a conversation in order and one at a
    /// time; nothing is unknown. Returns how many runs there were.
    pub async fn judge(&self, upstream: &Upstream, gateway: &Gateway) -> usize {
        let runs = upstream.runs().await;
        let mut said: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for run in &runs {
            let text = run["text"].as_str().expect("a text");
            let (thread, number) = text.split_once('-').expect("thread-number");
            said.entry(thread.parse().expect("a number"))
                .or_default()
                .push(number.parse().expect("a number"));
        }
        let unknown = gateway.admin_json("/events?state=unknown").await["items"]
            .as_array()
            .map_or(0, Vec::len);
        let mut wrong = Vec::new();
        for (thread, count) in &self.acknowledged {
            let numbers = said.remove(thread).unwrap_or_default();
            // The very last may have been kept without its answer arriving.
            let ordered: Vec<usize> = (0..numbers.len()).collect();
            let loose = thread % 2 == 1;
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            let right = if loose { &sorted } else { &numbers } == &ordered;
            if !right || numbers.len() < *count || numbers.len() > count + 1 {
                wrong.push(format!(
                    "thread {thread}: {count} acknowledged, ran {numbers:?}"
                ));
            }
        }
        let stats = upstream.stats().await;
        assert!(
            wrong.is_empty(),
            "{unknown} unknown, {stats}\n{}",
            wrong.join("\n")
        );
        assert_eq!(
            stats["overlaps"], 0,
            "two turns of a conversation at once: {stats}"
        );
        assert_eq!(
            unknown, 0,
            "an upstream that tells the truth leaves nothing unknown"
        );
        runs.len()
    }
}

/// Sends numbered messages of one thread, each until it is acknowledged. Returns how many were.
async fn sender(
    doors: Arc<[SocketAddr]>,
    thread: usize,
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
) -> usize {
    let client = Client::new(Duration::from_secs(1), None).expect("a client");
    let source = if thread.is_multiple_of(2) {
        "chat"
    } else {
        "loose"
    };
    let mut number = 0;
    loop {
        let text = format!("{thread}-{number}");
        let body = json!({"id": text, "chat": format!("c{thread}"), "text": text}).to_string();
        let first = fastrand::usize(..doors.len());
        for door in doors.iter().cycle().skip(first) {
            let request = Request::post(format!("http://{door}/hooks/{source}"))
                .body(Bytes::from(body.clone()))
                .expect("a request");
            match client.send(request, Duration::from_secs(5), 1 << 20).await {
                Ok(answer) if answer.status().is_success() => break,
                Ok(answer) => {
                    assert!(answer.status().is_server_error(), "{answer:?}");
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {}
            }
            if stop.load(Ordering::Relaxed) {
                // A message that is not acknowledged need not arrive.
                return number;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        number += 1;
        // A doubtful call holds its lane for seconds; faster senders would only make the end of the test wait.
        tokio::time::sleep(Duration::from_millis(250)).await;
        if stop.load(Ordering::Relaxed) {
            return number;
        }
    }
}

/// Waits until nothing is owed any more, as long as it becomes less.
pub async fn drain(gateway: &Gateway) {
    let (mut least, mut since) = (u64::MAX, Instant::now());
    loop {
        let states = gateway.admin_json("").await["deliveries"].clone();
        let owed: u64 = ["pending", "leased"]
            .iter()
            .filter_map(|state| states[*state].as_u64())
            .sum();
        if owed == 0 {
            return;
        }
        if owed < least {
            (least, since) = (owed, Instant::now());
        }
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "{owed} deliveries are still owed:\n{}",
            gateway.log()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
