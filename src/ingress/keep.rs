//! From a proved and mapped request to an event on disk. Whatever brings an event in, the public listener, the
//! provider's own log or an operator, it is made and kept here.

use std::time::Duration;

use crate::inbox::{Inbox, InboxError};
use crate::mapping::Mapped;
use crate::model::{Accepted, Backlog, DeliveryId, EventId, NewEvent, Outcome, Refusal, Strength, Verified};
use crate::source::Source;

/// What stands before the dedup key of an event that nothing proves.
const UNPROVED: &str = "unproved:";

/// When a sender should come back whose source has too much waiting.
const BACKLOG_WAIT: Duration = Duration::from_secs(30);

/// The event that a verified and mapped request is.
pub fn event(source: &Source, verified: &Verified, mapped: Mapped) -> NewEvent {
    let (request, proof) = (verified.request(), verified.proof());
    let id = EventId::new();
    let owed = match mapped.filtered {
        Some(_) => None,
        None => source.owed(DeliveryId { event: id, number: 0 }, mapped.thread.as_deref()),
    };
    let kept = source.kept(request);
    NewEvent {
        id,
        source: source.config.name.clone(),
        dedup: mapped.dedup.map(|key| own_key(key, proof.strength)),
        event_type: mapped.event_type,
        received_at: request.at,
        strength: proof.strength,
        secret: proof.secret.clone(),
        proof: source.uses(verified),
        filtered: mapped.filtered,
        thread: mapped.thread,
        params: mapped.params,
        request_line: kept.request_line,
        headers: kept.headers,
        body: request.body.clone(),
        attachments: Vec::new(),
        most_ahead: source.config.overlap.most_ahead(),
        backlog: source.config.backlog.map(|backlog| Backlog { turns_away: source.sender_retries, ..backlog }),
        deliveries: owed.into_iter().collect(),
    }
}

/// The dedup key of an event. One whose proof failed is kept under a key that no proved event has: else a stranger could
/// take the place of an event that is still to come.
fn own_key(key: String, strength: Strength) -> String {
    match strength {
        Strength::Observed(_) => format!("{UNPROVED}{key}"),
        _ => key,
    }
}

/// Keeps the event. Answers are made after the commit, never before.
pub async fn keep(inbox: &dyn Inbox, event: NewEvent) -> Result<(Outcome, EventId), Refusal> {
    let kept = keep_all(inbox, vec![event]).await?;
    kept.into_iter().next().ok_or_else(|| Refusal::Internal("the inbox says nothing of an event".into()))
}

/// Keeps the events of one request, all of them or none.
pub(super) async fn keep_all(inbox: &dyn Inbox, events: Vec<NewEvent>) -> Result<Vec<(Outcome, EventId)>, Refusal> {
    let ids: Vec<_> = events.iter().map(|event| (event.id, event.filtered.is_some())).collect();
    let accepted = inbox.accept_all(events).await.map_err(unkept)?;
    let told = ids.into_iter().zip(accepted).map(|((id, filtered), accepted)| match accepted {
        Accepted::New if filtered => Ok((Outcome::Filtered, id)),
        Accepted::New => Ok((Outcome::Accepted, id)),
        Accepted::Duplicate(first) => Ok((Outcome::Duplicate, first)),
        Accepted::Replayed(first) => Ok((Outcome::Replayed, first)),
        Accepted::Busy => Err(Refusal::Busy),
        Accepted::Behind => Err(Refusal::Behind(BACKLOG_WAIT)),
    });
    told.collect()
}

/// Why something could not be written.
pub(super) fn unkept(error: InboxError) -> Refusal {
    match error {
        InboxError::Full(wait) => Refusal::Overloaded(wait),
        InboxError::NoSpace => Refusal::NoSpace,
        InboxError::Record(_) => Refusal::Unmappable(error.to_string()),
        error => Refusal::Inbox(error.to_string()),
    }
}
