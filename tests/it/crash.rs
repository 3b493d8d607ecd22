//! kill -9 in a loop under load, with an upstream that fails in every way: nothing acknowledged is lost, no event is
//! run twice, every thread keeps its order.

use std::sync::Arc;
use std::time::Duration;

use crate::load::{CHAT, Load, drain, flapping_upstream};
use crate::world::{Gateway, free_address};

/// How often the gateway is killed.
fn kills() -> u32 {
    std::env::var("SLUICEGATE_TEST_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20)
}

const THREADS: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_kill_9_loses_nothing_doubles_nothing_and_keeps_order() {
    let upstream = flapping_upstream().await;
    let public = free_address();
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let load = Load::start(&[public], THREADS);
    for _ in 0..kills() {
        let gateway = Gateway::start_at(public, folder.clone(), upstream.address, CHAT).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(150..900))).await;
        gateway.kill();
    }
    let gateway = Gateway::start_at(public, folder, upstream.address, CHAT).await;
    let sent = load.finish().await;
    assert!(
        sent.total() > 100,
        "the load was too thin to show anything: {}",
        sent.total()
    );
    drain(&gateway).await;
    let runs = sent.judge(&upstream, &gateway).await;
    eprintln!(
        "{} kills, {} acknowledged, {runs} runs, 0 lost, 0 doubled",
        kills(),
        sent.total()
    );
}
