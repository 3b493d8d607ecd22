//! The problems that need an operator, each with advice.

use std::time::Duration;

use super::AdminState;
use super::health::unready;
use super::secret::EndingSecret;
use super::waiting::{own, refusal_of};
use crate::api::status::{AttentionView, LoadedView};
use crate::dispatch::{BreakerState, Closed};
use crate::inbox::{Pause, SourceFare, Usage};
use crate::model::{Account, Timestamp};

/// Age of the oldest pending event from which on it is a problem, unless it is held.
const LONG: Duration = Duration::from_secs(15 * 60);

/// Used part of the inbox's ceiling, in percent, from which on it is a problem.
const FULL: u64 = 80;

/// Largest number of entries of one kind.
pub(super) const LISTED: usize = 100;

impl AttentionView {
    fn new(code: &str, text: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            about: None,
            text: text.into(),
            since: None,
            until: None,
            todo: todo.into(),
        }
    }

    fn about(self, about: impl Into<String>) -> Self {
        Self {
            about: Some(about.into()),
            ..self
        }
    }
}

/// Facts in which the problems show.
pub(super) struct Findings<'f> {
    pub(super) state: &'f AdminState,
    pub(super) now: Timestamp,
    pub(super) holds: &'f [(Pause, Timestamp)],
    pub(super) fares: &'f [SourceFare],
    /// Budgets with the runs that were counted against them today.
    pub(super) spent: &'f [(String, u64)],
    pub(super) usage: &'f Usage,
    pub(super) loaded: &'f LoadedView,
}

impl Findings<'_> {
    /// Lists the problems, those of the process first.
    pub(super) async fn attention(&self) -> Vec<AttentionView> {
        let mut attention = Vec::new();
        process(self.state, &mut attention).await;
        paused(self.holds, &mut attention);
        keys(self.state, &mut attention);
        closed(self.state, &mut attention);
        budgets(self.state, self.spent, self.now, &mut attention);
        open(self.fares, &mut attention);
        behind(self.state, self.fares, self.holds, self.now, &mut attention);
        disk(self.usage, &mut attention);
        restart(self.loaded, &mut attention);
        secrets(self.state, self.now, &mut attention);
        configuration(self.loaded, &mut attention);
        attention
    }
}

/// A process that accepts no events, or that lost its work to others.
async fn process(state: &AdminState, attention: &mut Vec<AttentionView>) {
    if let Some(reason) = unready(state).await {
        let todo = "read the log; GET /api/v1/health/ready says when it is over";
        attention.push(AttentionView::new(
            "unready",
            format!("new events are not taken: {reason}"),
            todo,
        ));
    }
    if !state.inbox.replica_status().good {
        let text = "this process lost its standing: others may have its work, and it sends nothing";
        attention.push(AttentionView::new(
            "standing",
            text,
            "look at the database and at the clock of this machine",
        ));
    }
}

/// Settings that take effect after a restart only.
fn restart(loaded: &LoadedView, attention: &mut Vec<AttentionView>) {
    for setting in &loaded.restart_for {
        let text = format!("{setting} has changed; it needs a restart to take effect");
        attention.push(AttentionView::new("restart", text, "restart the gateway").about(setting));
    }
}

/// Secrets that are in use and end soon.
fn secrets(state: &AdminState, now: Timestamp, attention: &mut Vec<AttentionView>) {
    for EndingSecret {
        source,
        secret,
        until,
    } in state.ending_secrets(now).take(LISTED)
    {
        let text =
            format!("the secret {secret} of {source} still proves requests and ends at {until}");
        let todo = format!(
            "give the sender the next secret; sluicegate source secrets {source} shows which is used"
        );
        attention.push(AttentionView::new("secret", text, todo).about(source));
    }
}

/// A configuration that was read and refused.
fn configuration(loaded: &LoadedView, attention: &mut Vec<AttentionView>) {
    if let Some(refused) = &loaded.refused {
        let text = format!(
            "the configuration was read again and not taken: {}",
            refused.why
        );
        let item = AttentionView::new(
            "configuration",
            text,
            "sluicegate check; when it is mended: sluicegate reload",
        );
        attention.push(AttentionView {
            since: Some(refused.at),
            ..item
        });
    }
}

fn paused(holds: &[(Pause, Timestamp)], attention: &mut Vec<AttentionView>) {
    for (hold, since) in holds.iter().take(LISTED) {
        let (about, text, todo) = match hold {
            Pause::All => (
                "all".to_owned(),
                "every run is paused by an operator".to_owned(),
                "sluicegate resume".into(),
            ),
            Pause::Source(name) => {
                let todo = format!("sluicegate source resume {name}");
                (
                    name.clone(),
                    format!("the source {name} is paused by an operator"),
                    todo,
                )
            }
            Pause::Destination(to) => (
                to.to_string(),
                format!("{to} is paused by an operator"),
                format!("sluicegate destination resume {to}"),
            ),
        };
        attention.push(AttentionView {
            since: Some(*since),
            ..AttentionView::new("paused", text, todo).about(about)
        });
    }
}

/// Destinations that this process does not call now. Failures of callers with foreign keys are left out, because the
/// operator cannot mend them.
fn closed(state: &AdminState, attention: &mut Vec<AttentionView>) {
    let fares = state
        .dispatcher
        .iter()
        .flat_map(|dispatcher| dispatcher.destinations());
    let ours = fares.filter(|fare| !fare.account.is_foreign());
    let open = ours.filter(|fare| {
        fare.breaker != BreakerState::Closed || fare.closed == Some(Closed::AskedToWait)
    });
    for fare in open.take(LISTED) {
        let to = &fare.destination;
        let whose = match &fare.account {
            Account::Operator => String::new(),
            account => format!(" for {account}"),
        };
        let item = if fare.breaker == BreakerState::Closed {
            let item = AttentionView::new(
                "asked_to_wait",
                format!("{to} asked for a pause{whose}"),
                "wait",
            );
            AttentionView {
                until: fare.closed_until,
                ..item
            }
        } else {
            let text = format!(
                "the breaker of {to} is open{whose}: {} of its last calls failed",
                fare.failures
            );
            let todo = format!(
                "sluicegate event list --destination {to}; when it is mended: destination reset {to}"
            );
            let item = AttentionView::new("breaker", text, todo);
            AttentionView {
                since: Some(fare.since),
                until: fare.next_probe,
                ..item
            }
        };
        attention.push(item.about(to.to_string()));
    }
}

/// Keys that the upstream refused to this process.
fn keys(state: &AdminState, attention: &mut Vec<AttentionView>) {
    let Some(dispatcher) = &state.dispatcher else {
        return;
    };
    for key in dispatcher.refused_keys().into_iter().take(LISTED) {
        let mut text = refusal_of(&key);
        if !key.detail.is_empty() {
            text.push_str(&format!(", saying {:?}", key.detail));
        }
        let (held, mend) = match &key.destination {
            None => ("all deliveries to it are held".to_owned(), String::new()),
            Some(to) => (
                format!("deliveries to {to} are held"),
                " or correct the agent's id,".to_owned(),
            ),
        };
        let todo = format!(
            "set the right {} and reload,{mend} or have the upstream take this one ({}); what is held then goes on by itself",
            key.setting,
            dispatcher.server()
        );
        let item = AttentionView::new("key_refused", format!("{text}; {held}"), todo);
        let about = key
            .destination
            .as_ref()
            .map_or(key.setting, ToString::to_string);
        attention.push(
            AttentionView {
                since: Some(key.since),
                until: key.next_try,
                ..item
            }
            .about(about),
        );
    }
}

fn budgets(
    state: &AdminState,
    spent: &[(String, u64)],
    now: Timestamp,
    attention: &mut Vec<AttentionView>,
) {
    // A spent budget of one user delays only that user.
    let whole = spent
        .iter()
        .filter(|(budget, _)| !budget.starts_with("user/"));
    let full =
        whole.filter_map(|(budget, runs)| Some((budget, *runs, state.budgets.most(budget)?)));
    for (budget, runs, most) in full.filter(|(_, runs, most)| runs >= most).take(LISTED) {
        let text = format!("the budget {budget} is spent: {runs} of {most} runs today");
        let item = AttentionView::new("runs_per_day", text, "wait, or allow more: runs_per_day")
            .about(budget);
        attention.push(AttentionView {
            until: Some(now.tomorrow()),
            ..item
        });
    }
}

/// Events whose last delivery did not end well.
fn open(fares: &[SourceFare], attention: &mut Vec<AttentionView>) {
    for fare in fares {
        let name = &fare.source;
        if fare.dead > 0 {
            let text = format!(
                "{} of {name} will not be tried again by itself",
                events(fare.dead)
            );
            let todo = format!(
                "sluicegate event list --source {name} --state dead; then: event replay --source {name} --state dead"
            );
            attention.push(AttentionView::new("dead", text, todo).about(name));
        }
        if fare.unmappable > 0 {
            let text = format!("{} of {name} could not be mapped", events(fare.unmappable));
            let todo = format!(
                "sluicegate event list --source {name} --state unmappable says why; mend the mapping of {name}, then: \
                 event replay --source {name} --state unmappable"
            );
            attention.push(AttentionView::new("unmappable", text, todo).about(name));
        }
        if fare.unknown > 0 {
            let text = format!(
                "{} of {name}: nobody can tell whether the agent ran",
                events(fare.unknown)
            );
            let todo = format!(
                "sluicegate event list --source {name} --state unknown; then: event settle"
            );
            attention.push(AttentionView::new("unknown", text, todo).about(name));
        }
    }
}

/// Sources whose oldest pending event is old and not held.
fn behind(
    state: &AdminState,
    fares: &[SourceFare],
    holds: &[(Pause, Timestamp)],
    now: Timestamp,
    attention: &mut Vec<AttentionView>,
) {
    let held = |name: &str| {
        let to = state
            .source(name)
            .and_then(|source| source.config.destination.clone());
        let route = to.map(|destination| own(name, destination));
        holds.iter().any(|(hold, _)| match hold {
            Pause::All => true,
            Pause::Source(held) => held == name,
            Pause::Destination(held) => route
                .as_ref()
                .is_some_and(|route| route.destination == *held),
        })
    };
    for fare in fares {
        let Some(oldest) = fare
            .oldest_pending
            .filter(|oldest| now.since(*oldest) >= LONG)
        else {
            continue;
        };
        if !held(&fare.source) {
            let text = format!("an event of {} waits for long", fare.source);
            let todo = format!(
                "sluicegate event list --source {} --state pending --oldest",
                fare.source
            );
            let item = AttentionView::new("behind", text, todo).about(&fare.source);
            attention.push(AttentionView {
                since: Some(oldest),
                ..item
            });
        }
    }
}

fn disk(usage: &Usage, attention: &mut Vec<AttentionView>) {
    let used = usage.bytes.saturating_sub(usage.reusable);
    let Some(ceiling) = usage.ceiling.filter(|ceiling| *ceiling > 0) else {
        return;
    };
    let percent = used.saturating_mul(100) / ceiling;
    if percent >= FULL {
        let text = format!("the inbox has {percent} % of its ceiling of {ceiling} bytes");
        attention.push(AttentionView::new(
            "disk",
            text,
            "raise inbox.max_disk, or keep events for less long",
        ));
    }
}

fn events(count: u64) -> String {
    format!("{count} event{}", if count == 1 { "" } else { "s" })
}
