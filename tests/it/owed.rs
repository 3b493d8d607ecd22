//! A delivery that owes another delivery, end to end, with the process killed between the two: nothing is lost and nothing
//! is sent twice.
//!
//! The target is this test's own, added in the way that any target is. It appends a line to a journal for every delivery
//! that it sends, and finds its line there when it is asked what became of one.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use sluicegate::config::{Config, Problems, Secret};
use sluicegate::dispatch::{Dispatcher, DispatcherParts, PrepareError, Shipment, Target, Throttle};
use sluicegate::inbox::seal::Sealer;
use sluicegate::inbox::sqlite::{SqliteInbox, SqliteOptions};
use sluicegate::inbox::*;
use sluicegate::model::{
    Account, AttemptResult, Class, Clock, DeliveryState, Destination, DestinationKind, EventId,
    Lookup, NewDelivery, NewEvent, Params, Run, RunStatus, Strength,
};
use sluicegate::net::Client;
use sluicegate::telemetry::Metrics;
use sluicegate::upstream::{Budget, Upstream};

use crate::world::wait_for;
use tokio_util::sync::CancellationToken;

/// The folder of the process that is killed.
const FOLDER: &str = "SLUICEGATE_TEST_FOLDER";

/// The number of events; each owes two deliveries, one after the other.
const EVENTS: usize = 30;

/// The number of times that the process is killed.
const KILLS: usize = 5;

const CONFIG: &str = r#"
[upstream]
base_url = "http://127.0.0.1:9"
[dispatch]
concurrency = 2
[sources.s]
provider = "custom"
agent = "a"
verify = { scheme = "none" }
"#;

/// A target that writes a journal.
#[derive(Debug)]
struct Journal {
    path: PathBuf,
}

impl Journal {
    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// A line that is to be written.
struct JournalLine<'a> {
    journal: &'a Journal,
    line: String,
}

#[async_trait]
impl Target for Journal {
    async fn prepare<'a>(
        &'a self,
        claimed: &'a Claimed,
    ) -> Result<Box<dyn Shipment + 'a>, PrepareError> {
        // What the first delivery came to goes with the second one.
        let answered = claimed.answers.as_ref().map(|answered| {
            assert_eq!(
                (answered.id.event, answered.id.number),
                (claimed.id.event, 0)
            );
            String::from_utf8_lossy(&answered.payload).into_owned()
        });
        let line = line(
            &claimed.destination.id,
            claimed.id.event,
            answered.as_deref().unwrap_or("nothing"),
        );
        Ok(Box::new(JournalLine {
            journal: self,
            line,
        }))
    }

    fn owes(&self, claimed: &Claimed, next: &Next) -> Vec<OwedDelivery> {
        match (next, claimed.destination.id.as_str()) {
            (Next::Delivered(_), "first") => vec![OwedDelivery {
                delivery: delivery("second", claimed.id.event),
                payload: bytes::Bytes::from_static(b"done"),
            }],
            _ => Vec::new(),
        }
    }
}

#[async_trait]
impl Shipment for JournalLine<'_> {
    fn text(&self) -> &str {
        &self.line
    }

    async fn send(&self) -> AttemptResult {
        // Long enough for a kill to come before the line and after it.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.journal.path)
            .unwrap();
        file.write_all(format!("{}\n", self.line).as_bytes())
            .unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        AttemptResult::Ran(completed())
    }

    async fn look_up(&self) -> Lookup {
        match self.journal.lines().contains(&self.line) {
            true => Lookup::Found(completed()),
            false => Lookup::NotFound,
        }
    }
}

/// The line of a delivery, with the payload of the one that it answers.
fn line(channel: &str, event: EventId, answered: &str) -> String {
    format!("channel/{channel} {event} answers {answered}")
}

fn completed() -> Run {
    Run {
        status: RunStatus::Completed,
        status_text: "written".into(),
        result: None,
        finished_at: None,
        started_at: None,
        input_text: None,
        task: None,
    }
}

fn delivery(channel: &str, event: EventId) -> NewDelivery {
    let destination = Destination {
        kind: DestinationKind::Channel,
        id: channel.to_owned(),
    };
    let upstream_id = event.to_string();
    NewDelivery {
        lane: destination.lane(&Account::Operator, &upstream_id),
        destination,
        upstream_id,
        account: Account::Operator,
        class: Class::Normal,
        sealed: None,
    }
}

fn event(id: EventId) -> NewEvent {
    NewEvent {
        id,
        source: "s".into(),
        dedup: None,
        event_type: None,
        received_at: Clock::system().now(),
        strength: Strength::None,
        secret: None,
        proof: None,
        filtered: None,
        unmappable: None,
        thread: None,
        params: Params::default(),
        request_line: "POST /hooks/s".into(),
        headers: Vec::new(),
        body: bytes::Bytes::from_static(b"{}"),
        deliveries: vec![delivery("first", id)],
        attachments: vec![],
        most_ahead: None,
        backlog: None,
    }
}

async fn inbox(folder: &Path) -> Arc<SqliteInbox> {
    let options = SqliteOptions::default();
    let inbox = SqliteInbox::open(&folder.join("inbox.db"), options).await;
    Arc::new(inbox.unwrap())
}

/// A dispatcher over the inbox of a folder, whose channels are its journal.
fn dispatcher(folder: &Path, inbox: Arc<SqliteInbox>) -> Dispatcher {
    let problems = Problems::default();
    let config = Config::parse("t", CONFIG, folder, std::iter::empty(), &problems);
    let config = config.unwrap_or_else(|| panic!("{:?}", problems.into_sorted()));
    let (budget, metrics) = (Budget::default(), Arc::new(Metrics::new()));
    let client = Client::new(Duration::from_secs(5), None).unwrap();
    let key = Secret::new("k", "0123456789abcdef0123456789abcdef");
    let parts = DispatcherParts {
        inbox,
        sealer: Arc::new(Sealer::new(&key).unwrap()),
        throttle: Throttle::new(budget.clone(), metrics.clone()),
        metrics,
        clock: Clock::system(),
    };
    let journal = Journal {
        path: folder.join("journal"),
    };
    Dispatcher::new(
        &config,
        Upstream::new(&config.upstream, client, budget),
        parts,
    )
    .with_target(DestinationKind::Channel, Arc::new(journal))
}

/// Dispatches until the process is killed, or for as long as the future that is given does not end.
async fn dispatch(folder: &Path, inbox: Arc<SqliteInbox>, until: impl Future<Output = ()>) {
    let dispatcher = Arc::new(ArcSwap::from_pointee(dispatcher(folder, inbox)));
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    let running = tokio::spawn(Dispatcher::run(dispatcher, stop.clone(), hurry));
    until.await;
    stop.cancel();
    running.await.unwrap();
}

/// The process that is killed. It runs alone only if a folder is named.
#[tokio::test]
#[ignore = "it is started, and killed, by the test below"]
async fn a_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let inbox = inbox(&folder).await;
    dispatch(&folder, inbox, std::future::pending()).await;
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["owed::a_process_that_is_killed", "--exact", "--ignored"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_delivery_that_is_owed_by_another_is_sent_once_however_often_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal {
        path: folder.path().join("journal"),
    };
    let ids: Vec<EventId> = (0..EVENTS).map(|_| EventId::new()).collect();
    let before = inbox(folder.path()).await;
    for id in &ids {
        before.accept(event(*id)).await.unwrap();
    }
    before.close().await;
    drop(before);

    for kill in 1..=KILLS {
        let mut child = start(folder.path());
        let lines = kill * EVENTS * 2 / (KILLS + 1);
        wait_for("the journal to grow", async || {
            (journal.lines().len() >= lines).then_some(())
        })
        .await;
        child.kill().unwrap();
        child.wait().unwrap();
    }

    let after = inbox(folder.path()).await;
    let done = wait_for("every delivery to end", async || {
        let mut all = Vec::new();
        for id in &ids {
            let event = after.event(*id).await.unwrap().expect("it is kept");
            let states: Vec<(String, DeliveryState)> = event
                .deliveries
                .iter()
                .map(|one| (one.destination.to_string(), one.state))
                .collect();
            all.push(states);
        }
        let delivered = |state: DeliveryState| state == DeliveryState::Delivered;
        let is_done = |states: &Vec<(String, DeliveryState)>| {
            states.len() == 2 && states.iter().all(|(_, state)| delivered(*state))
        };
        all.iter().all(is_done).then_some(all)
    });
    let mut states = Vec::new();
    dispatch(folder.path(), after.clone(), async {
        states = done.await;
    })
    .await;

    for each in states {
        let names: Vec<&str> = each.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["channel/first", "channel/second"]);
    }
    let lines = journal.lines();
    for id in ids {
        let at = |channel: &str, answered: &str| {
            let line = line(channel, id, answered);
            let at: Vec<usize> = (0..lines.len()).filter(|at| lines[*at] == line).collect();
            assert_eq!(at.len(), 1, "{line} stands once");
            at[0]
        };
        assert!(at("first", "nothing") < at("second", "done"));
    }
}
