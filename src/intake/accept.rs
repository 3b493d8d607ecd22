//! Commit of events to the inbox, and the outcome of each.

use std::time::Duration;

use super::Intake;
use crate::model::{Accepted, Attachment, DeliveryState, EventId, NewEvent, Outcome, Refusal};
use crate::run::inbox_refusal;

/// Time after which a sender should try again while too much of its source waits.
const BACKLOG_WAIT: Duration = Duration::from_secs(30);

/// Result of one event's commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The outcome of the event.
    pub outcome: Outcome,
    /// The event in the inbox: the new one, or the earlier one that it repeats.
    pub event: EventId,
}

impl Intake {
    /// Commits the events of one request, all of them or none, in their order. Answers are made after the commit,
    /// never before. Files of an event that is not kept are removed.
    pub async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Receipt>, Refusal> {
        let _queued = self.queue.join();
        let unmappable = Unmappable::of(&events);
        let files = EventFiles::of(&events);
        let receipts = self.commit(events).await;
        if let Ok(receipts) = &receipts {
            self.report(unmappable, receipts);
        }
        if let Some(files) = files {
            self.settle(files, &receipts).await;
        }
        receipts
    }

    /// Commits one event.
    pub async fn accept_one(&self, event: NewEvent) -> Result<Receipt, Refusal> {
        let receipts = self.accept(vec![event]).await?;
        receipts
            .into_iter()
            .next()
            .ok_or_else(|| Refusal::Internal("the inbox reports nothing of an event".into()))
    }

    /// Commits events. Those of a sender that never tries again are kept however much waits.
    async fn commit(&self, events: Vec<NewEvent>) -> Result<Vec<Receipt>, Refusal> {
        let is_lost = events
            .iter()
            .any(|event| event.backlog.is_some_and(|backlog| !backlog.turns_away));
        let unbounded = is_lost.then(|| {
            let unbounded = events.iter().cloned().map(|event| NewEvent {
                backlog: None,
                ..event
            });
            unbounded.collect::<Vec<_>>()
        });
        match (self.commit_bounded(events).await, unbounded) {
            (Err(Refusal::Behind(_)), Some(events)) => {
                for event in &events {
                    tracing::warn!(
                        source = event.source,
                        event = %event.id,
                        "more waits than max_waiting or max_lag allow, kept all the same: its sender does not try again"
                    );
                }
                self.commit_bounded(events).await
            }
            (receipts, _) => receipts,
        }
    }

    /// Commits events within the bounds of their sources' backlogs.
    async fn commit_bounded(&self, events: Vec<NewEvent>) -> Result<Vec<Receipt>, Refusal> {
        let expected: Vec<_> = events.iter().map(Receipt::if_new).collect();
        let accepted = self.inbox.accept_all(events).await.map_err(inbox_refusal)?;
        let receipts =
            expected
                .into_iter()
                .zip(accepted)
                .map(|(expected, accepted)| match accepted {
                    Accepted::New => Ok(expected),
                    Accepted::Duplicate(event) => Ok(Receipt {
                        outcome: Outcome::Duplicate,
                        event,
                    }),
                    Accepted::Replayed(event) => Ok(Receipt {
                        outcome: Outcome::Replayed,
                        event,
                    }),
                    Accepted::Busy => Err(Refusal::Busy),
                    Accepted::Behind => Err(Refusal::Behind(BACKLOG_WAIT)),
                });
        receipts.collect()
    }

    /// Counts and logs the new events that could not be mapped.
    fn report(&self, unmappable: Vec<Unmappable>, receipts: &[Receipt]) {
        for Unmappable { event, source, why } in unmappable {
            let receipt = Receipt {
                outcome: Outcome::Unmappable,
                event,
            };
            if !receipts.contains(&receipt) {
                continue;
            }
            self.metrics
                .deliveries(&source, DeliveryState::Unmappable.as_str(), 1);
            if self.lines.admits() {
                tracing::warn!(
                    source, %event, why,
                    "this event is proved and cannot be mapped, so it is kept and no agent runs: mend the mapping of its \
                     source, reload, and replay it with `sluicegate event replay`"
                );
            }
        }
    }

    /// Counts the files of a kept event, and removes those of an event that is not kept.
    async fn settle(&self, files: EventFiles, receipts: &Result<Vec<Receipt>, Refusal>) {
        let Some(store) = &self.files else { return };
        let receipt = receipts.as_ref().map(|receipts| receipts.get(files.place));
        match receipt {
            Ok(Some(Receipt {
                outcome: Outcome::Duplicate,
                event,
            })) if *event == files.event => {}
            Ok(Some(Receipt {
                outcome: Outcome::Duplicate | Outcome::Replayed,
                ..
            })) => store.remove(&files.files).await,
            Ok(_) => self.metrics.files(&files.source, &files.files),
            // The event may be kept all the same; the sweep finds out.
            Err(Refusal::Inbox(_)) => {}
            Err(_) => store.remove(&files.files).await,
        }
    }
}

impl Receipt {
    /// The receipt of an event that the inbox does not know yet.
    fn if_new(event: &NewEvent) -> Self {
        let outcome = match event {
            NewEvent {
                filtered: Some(_), ..
            } => Outcome::Filtered,
            NewEvent {
                unmappable: Some(_),
                ..
            } => Outcome::Unmappable,
            _ => Outcome::Accepted,
        };
        Self {
            outcome,
            event: event.id,
        }
    }
}

/// An event that could not be mapped.
struct Unmappable {
    event: EventId,
    source: String,
    why: String,
}

impl Unmappable {
    fn of(events: &[NewEvent]) -> Vec<Self> {
        let unmappable = events.iter().filter_map(|event| {
            Some(Self {
                event: event.id,
                source: event.source.clone(),
                why: event.unmappable.clone()?,
            })
        });
        unmappable.collect()
    }
}

/// The files of a request, all of which came with one of its events.
struct EventFiles {
    /// The event's place among those of the request.
    place: usize,
    event: EventId,
    source: String,
    files: Vec<Attachment>,
}

impl EventFiles {
    fn of(events: &[NewEvent]) -> Option<Self> {
        let place = events
            .iter()
            .position(|event| !event.attachments.is_empty())?;
        let event = &events[place];
        Some(Self {
            place,
            event: event.id,
            source: event.source.clone(),
            files: event.attachments.clone(),
        })
    }
}
