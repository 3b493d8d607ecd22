//! Runs that are dropped before they are sent, and the budgets and proofs that they give back.

use std::path::Path;

use super::*;
use crate::config::{Config, Problems};
use crate::inbox::sqlite::{SqliteInbox, SqliteOptions};
use crate::model::{Account, Class, Destination, DestinationKind};
use crate::net::Client;
use crate::upstream::Budget;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// Runs at an upstream that does not answer, one a day.
async fn runs(folder: &Path) -> Arc<RunContext> {
    let text = "[limits.runs_per_day]\nwhole = 1\n[upstream]\nbase_url = \"http://127.0.0.1:1\"\napi_key = \"literal:k\"\n";
    let problems = Problems::default();
    let config = Config::parse("t", text, folder, std::iter::empty(), &problems)
        .unwrap_or_else(|| panic!("{:?}", problems.into_sorted()));
    let client = Client::new(Duration::from_secs(1), None).unwrap();
    let inbox = SqliteInbox::open(&folder.join("inbox.db"), SqliteOptions::default())
        .await
        .unwrap();
    Arc::new(RunContext {
        upstream: Upstream::new(&config.upstream, client, Budget::default()),
        budgets: Budgets::new(&config),
        inbox: Arc::new(inbox),
        files: None,
        metrics: Arc::new(Metrics::new()),
        paused: Arc::new(AtomicBool::new(false)),
        clock: Clock::stopped(NOW),
    })
}

fn route() -> Route {
    Route {
        source: "s".to_owned(),
        destination: Destination {
            kind: DestinationKind::Agent,
            id: "a".to_owned(),
        },
        account: Account::Operator,
        class: Class::Interactive,
    }
}

async fn prepared(runs: &Arc<RunContext>) -> Result<Option<PreparedRun>, Refusal> {
    let order = RunOrder {
        route: &route(),
        params: &Params::default(),
        proof: None,
        files: Vec::new(),
        is_counted: true,
    };
    PreparedRun::new(runs, order).await
}

#[tokio::test]
async fn a_run_that_is_dropped_before_it_is_sent_gives_its_count_back() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let first = prepared(&runs).await.unwrap();
    assert!(matches!(prepared(&runs).await, Err(Refusal::Spent(..))));
    drop(first);
    // It is given back by a task of its own.
    loop {
        match prepared(&runs).await {
            Err(Refusal::Spent(..)) => tokio::task::yield_now().await,
            next => break assert!(next.unwrap().is_some()),
        }
    }
}

#[tokio::test]
async fn a_run_that_was_sent_keeps_its_count_unless_it_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let taken = prepared(&runs).await.unwrap().unwrap().sent();
    assert!(matches!(prepared(&runs).await, Err(Refusal::Spent(..))));
    taken.give_back().await;
    let again = prepared(&runs).await.unwrap().unwrap();
    drop(again.sent());
    assert!(matches!(prepared(&runs).await, Err(Refusal::Spent(..))));
}

#[tokio::test]
async fn no_run_begins_while_runs_are_paused() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    runs.paused.store(true, Ordering::Relaxed);
    assert_eq!(prepared(&runs).await.err(), Some(Refusal::Stopped));
    runs.paused.store(false, Ordering::Relaxed);
    assert!(
        prepared(&runs).await.unwrap().is_some(),
        "nothing was counted"
    );
}
