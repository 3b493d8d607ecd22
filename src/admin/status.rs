//! Whether all is well, and what is not: one answer that names everything an operator has to look at, each with what to
//! do about it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;

use super::AdminState;
use super::error::AdminError;
use super::health::{standing_word, unready};
use super::secret::EndingSecret;
use super::waiting::{own, paused_list, refusal_of};
use crate::api::status::{AttentionView, BacklogView, LastEventView, OpenView, StatusPage};
use crate::dispatch::{BreakerState, Closed};
use crate::inbox::{Count, Pause, SourceFare, Usage};
use crate::model::{self, Account, Timestamp};

/// How long events may wait that nobody holds before it is said.
const LONG: Duration = Duration::from_secs(15 * 60);

/// From how much of its ceiling on, in percent, an inbox is said to be filling up.
const FULL: u64 = 80;

/// How many things are listed of a kind.
const MANY: usize = 100;

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

/// `GET /status`
pub(super) async fn show(
    State(state): State<Arc<AdminState>>,
) -> Result<Json<StatusPage>, AdminError> {
    let now = state.clock.now();
    let holds = state.inbox.pauses().await?;
    let counts = state.inbox.counts().await?;
    let fares = state.in_time(state.inbox.source_fares()).await?;
    let spent = state.in_time(state.inbox.spent(now.day())).await?;
    let usage = state.inbox.usage().await?;
    let standing = state.inbox.replica_status();
    let loaded = state.loaded.view();

    let mut attention = Vec::new();
    if let Some(reason) = unready(&state).await {
        let todo = "read the log; GET /api/v1/health/ready says when it is over";
        attention.push(AttentionView::new(
            "unready",
            format!("new events are not taken: {reason}"),
            todo,
        ));
    }
    if !standing.good {
        let text = "this process lost its standing: others may have its work, and it sends nothing";
        attention.push(AttentionView::new(
            "standing",
            text,
            "look at the database and at the clock of this machine",
        ));
    }
    paused(&holds, &mut attention);
    keys(&state, &mut attention);
    closed(&state, &mut attention);
    budgets(&state, &spent, now, &mut attention);
    open(&fares, &mut attention);
    behind(&state, &fares, &holds, now, &mut attention);
    disk(&usage, &mut attention);
    for setting in &loaded.restart_for {
        let text = format!("{setting} has changed; it needs a restart to take effect");
        attention.push(AttentionView::new("restart", text, "restart the gateway").about(setting));
    }
    for EndingSecret {
        source,
        secret,
        until,
    } in state.ending_secrets(now).take(MANY)
    {
        let text =
            format!("the secret {secret} of {source} still proves requests and ends at {until}");
        let todo = format!(
            "give the sender the next secret; sluicegate source secrets {source} shows which is used"
        );
        attention.push(AttentionView::new("secret", text, todo).about(source));
    }
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

    let count = |wanted: model::DeliveryState| {
        counts
            .iter()
            .filter(|count| count.state == wanted)
            .map(total)
            .sum::<u64>()
    };
    let sum = |of: fn(&SourceFare) -> u64| fares.iter().map(of).sum::<u64>();
    let oldest = fares
        .iter()
        .filter_map(|fare| Some((fare.oldest_pending?, &fare.source)))
        .min();
    let last = fares
        .iter()
        .filter_map(|fare| Some((fare.last_event?, &fare.source)))
        .max();
    Ok(Json(StatusPage {
        well: attention.is_empty(),
        attention,
        at: now,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: state.loaded.started_at(),
        configuration: loaded,
        roles: state.roles.to_string(),
        replicas: standing.replicas,
        standing: standing_word(standing.good).to_owned(),
        sources: state.sources.len(),
        paused: paused_list(&holds),
        waiting: BacklogView {
            pending: count(model::DeliveryState::Pending),
            running: count(model::DeliveryState::Leased),
            oldest_at: oldest.map(|(at, _)| at),
            oldest_source: oldest.map(|(_, source)| source.clone()),
        },
        open: OpenView {
            dead: sum(|fare| fare.dead),
            unknown: sum(|fare| fare.unknown),
            unmappable: sum(|fare| fare.unmappable),
        },
        last_event: last.map(|(at, source)| LastEventView {
            at,
            source: source.clone(),
        }),
        budgets: state.budget_views(spent.into_iter().take(MANY), now),
        disk: usage.into(),
    }))
}

fn total(count: &Count) -> u64 {
    count.count
}

fn paused(holds: &[(Pause, Timestamp)], attention: &mut Vec<AttentionView>) {
    for (hold, since) in holds.iter().take(MANY) {
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

/// Destinations that are left alone, as this process sees them. What callers with foreign keys come to is nothing that
/// the operator can mend.
fn closed(state: &AdminState, attention: &mut Vec<AttentionView>) {
    let fares = state
        .dispatcher
        .iter()
        .flat_map(|dispatcher| dispatcher.destinations());
    let ours = fares.filter(|fare| !fare.account.is_foreign());
    let open = ours.filter(|fare| {
        fare.breaker != BreakerState::Closed || fare.closed == Some(Closed::AskedToWait)
    });
    for fare in open.take(MANY) {
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

/// Keys of the gateway's own that the upstream refuses, as this process sees them.
fn keys(state: &AdminState, attention: &mut Vec<AttentionView>) {
    let Some(dispatcher) = &state.dispatcher else {
        return;
    };
    for key in dispatcher.refused_keys().into_iter().take(MANY) {
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
    // A user's budget keeps that user waiting and nobody else.
    let whole = spent
        .iter()
        .filter(|(budget, _)| !budget.starts_with("user/"));
    let full =
        whole.filter_map(|(budget, runs)| Some((budget, *runs, state.budgets.most(budget)?)));
    for (budget, runs, most) in full.filter(|(_, runs, most)| runs >= most).take(MANY) {
        let text = format!("the budget {budget} is spent: {runs} of {most} runs today");
        let item = AttentionView::new("runs_per_day", text, "wait, or allow more: runs_per_day")
            .about(budget);
        attention.push(AttentionView {
            until: Some(now.tomorrow()),
            ..item
        });
    }
}

/// What ended badly and was not sent again since.
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

/// What waits for long, and is held by nobody.
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
