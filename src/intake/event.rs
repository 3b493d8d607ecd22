//! The event that a proved and mapped request becomes.

use crate::inbox::UNMAPPABLE;
use crate::mapping::Mapped;
use crate::model::{Backlog, DeliveryId, EventId, NewEvent, Strength, Verified};
use crate::source::Source;

/// Prefix of the dedup key of an event that nothing proves.
const UNPROVED: &str = "unproved:";

/// Makes the event of a proved and mapped request, with the delivery that its source owes.
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
    // An event that is not to be sent waits behind nothing, and no sender is turned away for it.
    let waits = mapped.unmappable.is_none();
    // A source without a destination owes nothing: there the reason is kept as the filter that stops the event.
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

/// The dedup key of an event. An event whose proof failed gets a key that no proved event has: otherwise a stranger could
/// take the place of an event that is still to come.
fn own_key(key: String, strength: Strength) -> String {
    match strength {
        Strength::Observed(_) => format!("{UNPROVED}{key}"),
        _ => key,
    }
}
