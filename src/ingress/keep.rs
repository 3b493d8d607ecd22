//! From a proved and mapped request to an event on disk. Whatever brings an event in, the public listener, the
//! provider's own log or an operator, it is made and kept here.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::dispatch::replay::Remap;
use crate::inbox::{Anew, EventDetail, Inbox, InboxError, UNMAPPABLE};
use crate::mapping::Mapped;
use crate::model::{
    Accepted, Backlog, DeliveryId, EventId, NewEvent, Outcome, Proof, Received, Refusal, RequestId,
    Strength, Timestamp, Verified, Verify,
};
use crate::source::{Source, Sources};

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
        None => source.owed(
            DeliveryId {
                event: id,
                number: 0,
            },
            mapped.thread.as_deref(),
        ),
    };
    // What is not to be sent waits behind nothing, and nobody is turned away for it.
    let waits = mapped.unmappable.is_none();
    // A source that sends nowhere owes nothing: there the reason stands as what keeps the event from going further.
    let (filtered, unmappable) = match (mapped.filtered, mapped.unmappable) {
        (None, Some(why)) if owed.is_none() => (Some(format!("{UNMAPPABLE}{why}")), None),
        read => read,
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
        filtered,
        unmappable,
        thread: mapped.thread,
        params: mapped.params,
        request_line: kept.request_line,
        headers: kept.headers,
        body: request.body.clone(),
        attachments: Vec::new(),
        most_ahead: source.config.overlap.most_ahead().filter(|_| waits),
        backlog: (source.config.backlog.filter(|_| waits)).map(|backlog| Backlog {
            turns_away: source.sender_retries,
            ..backlog
        }),
        deliveries: owed.into_iter().collect(),
    }
}

/// The request that an event came by, as far as it was kept.
pub fn request_of(event: &EventDetail) -> Received {
    let (method, target) = event
        .request_line
        .split_once(' ')
        .unwrap_or(("POST", event.request_line.as_str()));
    let headers = event
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
    Received {
        id: RequestId::new(),
        at: event.summary.received_at,
        method: method.parse().unwrap_or(Method::POST),
        target: target.to_owned(),
        url: String::new(),
        headers: headers.collect(),
        body: event.body.clone(),
        peer: Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// The request of a kept event: it was proved before it was kept.
struct ProvedBefore;

impl Verify for ProvedBefore {
    fn judge(&self, _: &Received, _: Timestamp) -> Result<Proof, Refusal> {
        Ok(Proof {
            strength: Strength::Operator,
            secret: None,
            marks: Vec::new(),
        })
    }
}

/// Maps kept events anew, by what their sources are configured to now.
#[derive(Debug)]
pub struct Remapper(pub Arc<Sources>);

impl Remap for Remapper {
    fn anew(&self, event: &EventDetail) -> Result<Anew, String> {
        let name = &event.summary.source;
        let source = self
            .0
            .get(name)
            .ok_or_else(|| format!("no source is called {name} any more"))?;
        let verified = request_of(event)
            .verify(&ProvedBefore, event.summary.received_at)
            .map_err(|refused| refused.1.cause())?;
        let mapped = source
            .apply(&verified, !event.attachments.is_empty())
            .map_err(|refusal| refusal.cause())?;
        Ok(Anew {
            // What was said by something that is not kept stays.
            event_type: mapped
                .event_type
                .or_else(|| event.summary.event_type.clone()),
            thread: mapped.thread,
            filtered: mapped.filtered,
            request_line: event.request_line.clone(),
            params: mapped.params,
            headers: event.headers.clone(),
        })
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
    kept.into_iter()
        .next()
        .ok_or_else(|| Refusal::Internal("the inbox says nothing of an event".into()))
}

/// Keeps the events of one request, all of them or none.
pub(super) async fn keep_all(
    inbox: &dyn Inbox,
    events: Vec<NewEvent>,
) -> Result<Vec<(Outcome, EventId)>, Refusal> {
    let becomes = |event: &NewEvent| match event {
        NewEvent {
            filtered: Some(_), ..
        } => Outcome::Filtered,
        NewEvent {
            unmappable: Some(_),
            ..
        } => Outcome::Unmappable,
        _ => Outcome::Accepted,
    };
    let ids: Vec<_> = events
        .iter()
        .map(|event| (event.id, becomes(event)))
        .collect();
    let accepted = inbox.accept_all(events).await.map_err(unkept)?;
    let told = ids
        .into_iter()
        .zip(accepted)
        .map(|((id, becomes), accepted)| match accepted {
            Accepted::New => Ok((becomes, id)),
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
