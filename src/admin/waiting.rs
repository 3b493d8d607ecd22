//! The reasons why pending deliveries wait, in a word and a sentence, and the holds of an operator.

use std::collections::HashMap;

use super::AdminState;
use super::error::AdminError;
use crate::api::delivery::WaitView;
use crate::api::page::PausedView;
use crate::dispatch::{Closed, RefusedKey};
use crate::inbox::{Pause, WaitingDelivery, budget};
use crate::model::{Account, Class, DeliveryId, Destination, EventId, Route, Timestamp};

/// Longest part of an upstream's words in a sentence, in characters.
const MAX_DETAIL: usize = 200;

/// Makes the views of the holds of an operator.
pub(super) fn paused_list(holds: &[(Pause, Timestamp)]) -> Vec<PausedView> {
    let view = |(hold, since): &(Pause, Timestamp)| {
        let (kind, what) = match hold {
            Pause::All => ("all", "all".to_owned()),
            Pause::Source(name) => ("source", name.clone()),
            Pause::Destination(destination) => ("destination", destination.to_string()),
        };
        PausedView {
            what,
            kind: kind.to_owned(),
            since: *since,
        }
    };
    holds.iter().map(view).collect()
}

impl WaitView {
    fn new(why: &str, text: impl Into<String>) -> Self {
        Self {
            why: why.to_owned(),
            text: text.into(),
            since: None,
            until: None,
            behind: None,
        }
    }

    /// A hold of an operator.
    pub(super) fn paused(what: &str, since: Timestamp) -> Self {
        Self {
            since: Some(since),
            ..Self::new("paused", format!("{what} is paused by an operator"))
        }
    }

    /// A reason of the dispatcher, like an open breaker or a spent rate.
    pub(super) fn closed(why: Closed, route: &Route, until: Option<Timestamp>) -> Self {
        let (source, destination) = (&route.source, &route.destination);
        let text = match why {
            Closed::Paused => "an operator paused it".to_owned(),
            Closed::KeyRefused => "the upstream refused the gateway's own key".to_owned(),
            Closed::AskedToWait => format!("{destination} asked for a pause"),
            Closed::Breaker => {
                format!("the breaker of {destination} is open: its last calls failed")
            }
            Closed::Probing => format!("one call tries {destination} again after failures"),
            Closed::Concurrency => {
                format!("{destination} has as many calls in flight as it may have")
            }
            Closed::SourceConcurrency => {
                format!("the source {source} has as many calls in flight as it may have")
            }
            Closed::Rate => format!("the rate of {destination} is used up"),
            Closed::AllAskedToWait => "the upstream asked for a pause".to_owned(),
            Closed::AllConcurrency => "dispatch.concurrency is reached".to_owned(),
            Closed::Share => {
                "its account has as many calls in flight as its share of dispatch.concurrency"
                    .to_owned()
            }
            Closed::AllRate => "dispatch.rate is used up".to_owned(),
            Closed::Budget => "upstream.budget is used up".to_owned(),
            Closed::Spent => "a budget of runs per day is spent".to_owned(),
        };
        Self {
            until,
            ..Self::new(why.as_str(), text)
        }
    }

    /// A key that the upstream refused.
    fn refused_key(key: &RefusedKey) -> Self {
        let word = Closed::KeyRefused.as_str();
        Self {
            since: Some(key.since),
            until: key.next_try,
            ..Self::new(word, refusal_of(key))
        }
    }

    fn behind(first: DeliveryId) -> Self {
        Self {
            behind: Some(first),
            ..Self::new("behind", format!("{first} of its conversation goes first"))
        }
    }

    fn retry(waiting: &WaitingDelivery, due: Timestamp) -> Self {
        let Some(last) = &waiting.last else {
            return Self {
                until: Some(due),
                ..Self::new("due", "its time")
            };
        };
        let status = last
            .status
            .map(|status| format!(" {status}"))
            .unwrap_or_default();
        let detail: String = last.detail.chars().take(MAX_DETAIL).collect();
        let why = if detail.is_empty() {
            format!("{}{status}", last.result)
        } else {
            detail
        };
        let text = format!("retry {}, after: {why}", last.number.saturating_add(1));
        Self {
            until: Some(due),
            ..Self::new("retry", text)
        }
    }
}

impl AdminState {
    /// Gives the reasons of the pending deliveries of these events.
    pub(super) async fn waits(
        &self,
        events: Vec<EventId>,
    ) -> Result<HashMap<DeliveryId, WaitView>, AdminError> {
        if events.is_empty() {
            return Ok(HashMap::new());
        }
        let waiting = self.in_time(self.inbox.waiting(events)).await?;
        let holds = self.inbox.pauses().await?;
        Ok(waiting
            .iter()
            .map(|waiting| (waiting.id, self.wait(waiting, &holds)))
            .collect())
    }

    fn wait(&self, waiting: &WaitingDelivery, holds: &[(Pause, Timestamp)]) -> WaitView {
        let route = &waiting.route;
        if let Some(paused) = held(route, holds) {
            return paused;
        }
        if let Some(first) = waiting.behind {
            return WaitView::behind(first);
        }
        if let Some(due) = waiting.due.filter(|due| *due > self.clock.now()) {
            return WaitView::retry(waiting, due);
        }
        match self.closed(route) {
            Some(closed) => closed,
            None => WaitView::new("turn", "its turn, which comes next"),
        }
    }

    /// Gives the reason why this process sends nothing by a route, if there is one.
    pub(super) fn closed(&self, route: &Route) -> Option<WaitView> {
        let dispatcher = self.dispatcher.as_ref()?;
        let (why, until) = dispatcher.waits(route)?;
        let of_route = |key: &RefusedKey| {
            key.destination
                .as_ref()
                .is_none_or(|to| *to == route.destination && key.account == route.account)
        };
        match dispatcher.refused_keys().into_iter().find(of_route) {
            Some(key) if why == Closed::KeyRefused => Some(WaitView::refused_key(&key)),
            _ => Some(WaitView::closed(why, route, until)),
        }
    }

    /// Gives the reason why all deliveries of a source wait, if there is one.
    pub(super) fn source_waits(
        &self,
        name: &str,
        spent: &[(String, u64)],
        holds: &[(Pause, Timestamp)],
    ) -> Option<WaitView> {
        let destination = self
            .source(name)
            .and_then(|source| source.config.destination.clone());
        let route = destination.map(|destination| own(name, destination));
        let paused = match &route {
            Some(route) => held(route, holds),
            None => holds.iter().find_map(|(hold, since)| match hold {
                Pause::All => Some(WaitView::paused("every run", *since)),
                Pause::Source(held) if held == name => Some(WaitView::paused("the source", *since)),
                _ => None,
            }),
        };
        paused
            .or_else(|| self.spent(&budget::of_source(name), spent))
            .or_else(|| self.closed(&route?))
    }

    /// Gives the reason that a budget is spent, if it is.
    fn spent(&self, name: &str, spent: &[(String, u64)]) -> Option<WaitView> {
        let most = self.budgets.most(name)?;
        let (_, runs) = spent.iter().find(|(budget, _)| budget == name)?;
        let text = format!("the budget {name} of {most} runs per day is spent");
        let until = Some(self.clock.now().tomorrow());
        (*runs >= most).then(|| WaitView {
            until,
            ..WaitView::new("runs_per_day", text)
        })
    }
}

/// Words the refusal of a key.
pub(super) fn refusal_of(key: &RefusedKey) -> String {
    let at = key
        .destination
        .as_ref()
        .map_or_else(String::new, |to| format!(" at {to}"));
    format!("the upstream refused {}{at} ({})", key.setting, key.status)
}

/// Makes the usual route of a source: the operator's account, in the default class.
pub(super) fn own(source: &str, destination: Destination) -> Route {
    Route {
        source: source.to_owned(),
        destination,
        account: Account::default(),
        class: Class::default(),
    }
}

/// Finds the widest hold on a route.
fn held(route: &Route, holds: &[(Pause, Timestamp)]) -> Option<WaitView> {
    let since = |wanted: &Pause| {
        holds
            .iter()
            .find(|(hold, _)| hold == wanted)
            .map(|(_, since)| *since)
    };
    if let Some(since) = since(&Pause::All) {
        return Some(WaitView::paused("every run", since));
    }
    if let Some(since) = since(&Pause::Source(route.source.clone())) {
        return Some(WaitView::paused(
            &format!("the source {}", route.source),
            since,
        ));
    }
    let since = since(&Pause::Destination(route.destination.clone()))?;
    Some(WaitView::paused(&route.destination.to_string(), since))
}
