//! Memory of the stand-in: the state of every task, every run that began, and the number of runs at the same time.
//!
//! A task is a record that later calls with the same id continue, each as a new turn; only the latest turn shows. A run is
//! one turn that began, and tests count runs. Memory is bounded: the oldest runs and the oldest finished tasks are
//! forgotten first.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use super::request::{InvokeRequest, RequestRecord};
use super::stats::Stats;
use super::task::{Task, TaskFacts};
use crate::model::{RunStatus, Timestamp};

/// Most runs that are remembered.
const MAX_RUNS: usize = 200_000;
/// Most of the last runs that are remembered with their whole request, and the largest size of those requests.
const MAX_REQUESTS: usize = 1_000;
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;
/// Most tasks that are remembered, and their largest total size.
const MAX_TASKS: usize = 200_000;
const MAX_TASK_BYTES: usize = 256 * 1024 * 1024;
/// Longest text that is remembered with a run, in characters.
const MAX_RUN_TEXT: usize = 200;

/// The memory of a stand-in.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    tasks: HashMap<Arc<str>, Task>,
    /// Task ids by age, with the turn that put them there.
    by_age: VecDeque<(Arc<str>, u32)>,
    task_bytes: usize,
    runs: VecDeque<RunRecord>,
    requests: VecDeque<(u64, RequestRecord)>,
    request_bytes: usize,
    /// Number of runs of each id and text, by their digest.
    said: HashMap<u64, u32>,
    /// Number of calls for each id and text, for messages that want to fail a number of times.
    asked: HashMap<u64, u32>,
    next_run: u64,
    pub(super) stats: Stats,
    journal: Option<File>,
}

#[derive(Debug, Serialize)]
struct RunRecord {
    number: u64,
    task_id: String,
    destination: String,
    turn: u32,
    /// The beginning of `input.text`.
    text: String,
    /// The whole text's length.
    text_bytes: usize,
    started_at: Timestamp,
    finished_at: Option<Timestamp>,
    status: String,
    /// Number of runs of this id at its begin, itself included.
    concurrent: u32,
    /// True if this id and text had run before.
    duplicate: bool,
    #[serde(skip)]
    digest: u64,
}

/// A run that has begun.
#[derive(Debug)]
pub(super) struct Started {
    number: u64,
    destination: Arc<str>,
    pub(super) id: Arc<str>,
    turn: u32,
    /// Told when somebody stops it.
    pub(super) stop: Arc<Notify>,
}

impl Ledger {
    /// An empty memory, and the file that every beginning and end is written to.
    pub(super) fn new(journal: Option<File>) -> Self {
        Self {
            journal,
            ..Self::default()
        }
    }

    /// Counts this call and returns the number of equal calls so far.
    pub(super) fn ask(&mut self, told: &InvokeRequest) -> u32 {
        if self.asked.len() >= MAX_RUNS {
            self.asked.clear();
        }
        let asked = self.asked.entry(told.digest()).or_default();
        *asked = asked.saturating_add(1);
        *asked
    }

    /// A run begins: a new task, or the next turn of one.
    pub(super) fn begin(&mut self, told: InvokeRequest, status: &str, now: Timestamp) -> Started {
        let digest = told.digest();
        let text = told.text();
        let (short, text_bytes) = (
            text.chars().take(MAX_RUN_TEXT).collect::<String>(),
            text.len(),
        );
        let id: Arc<str> = told
            .id
            .clone()
            .unwrap_or_else(|| Uuid::new_v4().to_string())
            .into();

        let before = self.tasks.remove(&id);
        let stop = Arc::new(Notify::new());
        let bytes = 512 + 2 * id.len() + told.request.body.len();
        let task = Task {
            turn: before
                .as_ref()
                .map_or(1, |task| task.turn.saturating_add(1)),
            running: before.as_ref().map_or(0, |task| task.running) + 1,
            created_at: before.as_ref().map_or(now, |task| task.created_at),
            agent_id: told.agent_id,
            status: status.to_owned(),
            result: None,
            started_at: (status != "pending").then_some(now),
            finished_at: None,
            stopped: false,
            input: told.input,
            fields: told.fields,
            stop: Arc::clone(&stop),
            bytes,
        };
        let (turn, concurrent) = (task.turn, task.running);
        self.task_bytes = self.task_bytes + bytes - before.map_or(0, |task| task.bytes);
        self.tasks.insert(Arc::clone(&id), task);
        self.by_age.push_back((Arc::clone(&id), turn));

        let times = self.said.entry(digest).or_default();
        *times = times.saturating_add(1);
        let duplicate = *times > 1;
        let number = self.next_run;
        self.next_run += 1;
        let stats = &mut self.stats;
        stats.begin(&told.destination);
        stats.overlaps += u64::from(concurrent > 1);
        stats.duplicates += u64::from(duplicate);
        self.request_bytes += told.request.size();
        self.requests.push_back((number, told.request));
        let destination = Arc::from(told.destination.as_str());
        let record = RunRecord {
            number,
            task_id: id.as_ref().to_owned(),
            destination: told.destination,
            turn,
            text: short,
            text_bytes,
            started_at: now,
            finished_at: None,
            status: status.to_owned(),
            concurrent,
            duplicate,
            digest,
        };
        note(&mut self.journal, "begin", &record, now);
        self.runs.push_back(record);
        self.forget();
        Started {
            number,
            destination,
            id,
            turn,
            stop,
        }
    }

    /// A run that was queued goes on.
    pub(super) fn execute(&mut self, run: &Started, now: Timestamp) {
        if let Some(task) = self
            .tasks
            .get_mut(&run.id)
            .filter(|task| task.turn == run.turn && !task.stopped)
        {
            task.status = "executing".into();
            task.started_at = Some(now);
        }
    }

    /// A run ends, unless it was stopped before.
    pub(super) fn end(
        &mut self,
        run: &Started,
        status: &str,
        result: Option<String>,
        now: Timestamp,
    ) {
        self.stats.end(&run.destination);
        let mut ended_as = status;
        if let Some(task) = self.tasks.get_mut(&run.id) {
            task.running = task.running.saturating_sub(1);
            if task.turn == run.turn && task.stopped {
                ended_as = "stopped";
            } else if task.turn == run.turn {
                task.status = status.to_owned();
                task.result = result;
                task.finished_at = RunStatus::parse(status).is_final().then_some(now);
            }
        }
        // Runs stand in order of their numbers, without gaps.
        let first = self.runs.front().map_or(0, |first| first.number);
        let place = run
            .number
            .checked_sub(first)
            .and_then(|place| usize::try_from(place).ok());
        if let Some(record) = place.and_then(|place| self.runs.get_mut(place)) {
            record.status = ended_as.to_owned();
            record.finished_at = Some(now);
            note(&mut self.journal, "end", record, now);
        }
    }

    /// Stops a task; one that has ended stays as it is. False when it is not there.
    pub(super) fn stop(&mut self, id: &str, now: Timestamp) -> bool {
        let Some(task) = self.tasks.get_mut(id) else {
            return false;
        };
        if !RunStatus::parse(&task.status).is_final() {
            task.stopped = true;
            task.status = "stopped".into();
            task.result = None;
            task.finished_at = Some(now);
            task.stop.notify_one();
        }
        true
    }

    /// A task as the API shows it.
    pub(super) fn task(&self, id: &str) -> Option<Value> {
        self.tasks.get(id).map(|task| task.view(id))
    }

    /// A page of tasks, newest first, and how many there are in all.
    pub(super) fn list(
        &self,
        keep: impl Fn(&TaskFacts<'_>) -> bool,
        skip: usize,
        limit: usize,
    ) -> (Vec<Value>, usize) {
        let mut found = 0;
        let mut items = Vec::new();
        for (id, turn) in self.by_age.iter().rev() {
            let Some(task) = self.tasks.get(id).filter(|task| task.turn == *turn) else {
                continue;
            };
            let user_id = task
                .input
                .get("user")
                .and_then(|user| user.get("id"))
                .and_then(Value::as_str);
            if keep(&TaskFacts {
                agent_id: &task.agent_id,
                user_id,
                status: &task.status,
            }) {
                if found >= skip && items.len() < limit {
                    items.push(task.view(id));
                }
                found += 1;
            }
        }
        (items, found)
    }

    /// Every run that is remembered, in order of beginning; the last ones with their requests, unless `brief`.
    pub(super) fn runs(&self, after: Option<u64>, limit: usize, brief: bool) -> Vec<Value> {
        let mut requests = self.requests.iter().peekable();
        self.runs
            .iter()
            .filter(|run| after.is_none_or(|after| run.number > after))
            .take(limit)
            .map(|run| {
                let mut view = json!(run);
                while requests
                    .next_if(|(number, _)| *number < run.number)
                    .is_some()
                {}
                if !brief
                    && let Some((_, request)) =
                        requests.next_if(|(number, _)| *number == run.number)
                {
                    view["query"] = request.query.as_str().into();
                    view["headers"] = json!(request.headers);
                    view["body"] = serde_json::from_slice(&request.body).unwrap_or_default();
                }
                view
            })
            .collect()
    }

    /// Forgets runs and counts, but no task: what ran has run.
    pub(super) fn clear_runs(&mut self) {
        self.runs.clear();
        self.requests.clear();
        self.request_bytes = 0;
        self.said.clear();
        self.asked.clear();
        let (running, running_by) = (
            self.stats.running,
            std::mem::take(&mut self.stats.running_by),
        );
        let max_running_by = running_by.clone();
        self.stats = Stats {
            running,
            max_running: running,
            running_by,
            max_running_by,
            ..Stats::default()
        };
    }

    fn forget(&mut self) {
        while self.runs.len() > MAX_RUNS {
            let Some(run) = self.runs.pop_front() else {
                break;
            };
            if let Some(times) = self.said.get_mut(&run.digest) {
                *times -= 1;
                if *times == 0 {
                    self.said.remove(&run.digest);
                }
            }
        }
        while self.requests.len() > MAX_REQUESTS || self.request_bytes > MAX_REQUEST_BYTES {
            let Some((_, request)) = self.requests.pop_front() else {
                break;
            };
            self.request_bytes = self.request_bytes.saturating_sub(request.size());
        }
        // At most once around: what is still running stays.
        for _ in 0..self.by_age.len() {
            if self.by_age.len() <= MAX_TASKS && self.task_bytes <= MAX_TASK_BYTES {
                break;
            }
            let Some((id, turn)) = self.by_age.pop_front() else {
                break;
            };
            match self.tasks.get(&id) {
                Some(task) if task.turn == turn && task.running > 0 => {
                    self.by_age.push_back((id, turn))
                }
                Some(task) if task.turn == turn => {
                    self.task_bytes = self.task_bytes.saturating_sub(task.bytes);
                    self.tasks.remove(&id);
                }
                _ => {}
            }
        }
    }
}

/// One line in the journal. A journal that cannot be written must not stop the API it stands in for.
fn note(journal: &mut Option<File>, event: &str, run: &RunRecord, now: Timestamp) {
    let Some(file) = journal else { return };
    let mut line = json!({"event": event, "at": now});
    if let (Value::Object(line), Value::Object(run)) = (&mut line, json!(run)) {
        line.extend(run);
    }
    if let Err(error) = file.write_all(format!("{line}\n").as_bytes()) {
        tracing::warn!(%error, "the stub's journal cannot be written, it ends here");
        *journal = None;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::Map;

    use super::*;

    fn told(id: &str, body: &Bytes) -> InvokeRequest {
        InvokeRequest {
            destination: "agents/a".into(),
            agent_id: "a".into(),
            id: Some(id.into()),
            input: Map::new(),
            fields: Map::new(),
            request: RequestRecord {
                query: String::new(),
                headers: vec![],
                body: body.clone(),
            },
        }
    }

    #[test]
    fn only_the_last_requests_are_remembered_whole() {
        let mut ledger = Ledger::default();
        for n in 0..MAX_REQUESTS + 2 {
            ledger.begin(
                told(&n.to_string(), &Bytes::from_static(b"{}")),
                "executing",
                Timestamp::default(),
            );
        }
        let runs = ledger.runs(None, usize::MAX, false);
        assert_eq!(runs.len(), MAX_REQUESTS + 2);
        let whole: Vec<bool> = runs.iter().map(|run| run.get("body").is_some()).collect();
        assert!(!whole[1] && whole[2] && whole[MAX_REQUESTS + 1]);
        assert_eq!(ledger.runs(Some(999), 2, true).len(), 2);
    }

    #[test]
    fn the_oldest_tasks_that_rest_are_forgotten_first() {
        let mut ledger = Ledger::default();
        let large = Bytes::from(vec![b' '; 1024 * 1024]);
        let running = ledger.begin(told("running", &large), "executing", Timestamp::default());
        for n in 0..300 {
            let run = ledger.begin(
                told(&n.to_string(), &large),
                "executing",
                Timestamp::default(),
            );
            ledger.end(&run, "completed", None, Timestamp::default());
        }
        assert!(ledger.task_bytes <= MAX_TASK_BYTES && ledger.request_bytes <= MAX_REQUEST_BYTES);
        assert!(
            ledger.task("running").is_some()
                && ledger.task("0").is_none()
                && ledger.task("299").is_some()
        );
        ledger.end(&running, "completed", None, Timestamp::default());
        assert_eq!((ledger.stats.running, ledger.stats.ended), (0, 301));
    }
}
