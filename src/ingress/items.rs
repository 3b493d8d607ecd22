//! Events of a proved request: one, or one for each item of a list.

use std::collections::HashSet;

use super::Ingress;
use super::memory_limit::MemoryPermit;
use super::request_log::RequestLog;
use crate::config::Ack;
use crate::intake;
use crate::model::{NewEvent, Refusal, Verified};
use crate::source::Source;

/// Memory that an item of a list takes beside its document, about: headers and names.
const ITEM_BYTES: u64 = 4 * 1024;

/// Events of one request, not kept yet.
pub(super) struct NewEvents {
    /// In their order; at least one.
    pub(super) events: Vec<NewEvent>,
    /// The answer to their sender, where it is not that of all of the source's events.
    pub(super) ack: Option<Ack>,
}

/// Maps a proved request to its events.
pub(super) fn events(
    ingress: &Ingress,
    source: &Source,
    verified: Verified,
    has_files: bool,
    memory: &MemoryPermit,
    log: &mut RequestLog,
) -> Result<NewEvents, Refusal> {
    let whole = verified.request().body.len() as u64;
    let items = source.items(verified)?;
    if items.len() > 1 {
        let of_items: u64 = items
            .iter()
            .map(|item| item.request().body.len() as u64 + ITEM_BYTES)
            .sum();
        memory.grow(whole + of_items)?;
    }
    let mut new = NewEvents {
        events: Vec::with_capacity(items.len()),
        ack: None,
    };
    // Several items of one conversation count as one message of it.
    let mut threads = HashSet::new();
    for (place, item) in items.iter().enumerate() {
        let mut mapped = source.apply_or_keep(item, has_files)?;
        mapped.dedup = source.mapping.key_of_item(mapped.dedup, place);
        if let (Some(thread), None) = (&mapped.thread, &mapped.filtered)
            && (items.len() == 1 || threads.insert(thread.clone()))
        {
            ingress
                .limits
                .thread(&source.config.name, thread, &mut log.limits)?;
        }
        if place == 0 {
            new.ack.clone_from(&mapped.ack);
        }
        new.events.push(intake::event(source, item, mapped));
    }
    Ok(new)
}
