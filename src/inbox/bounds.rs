//! Bounds that both engines keep to, each of them once.
//!
//! Bounds of one engine alone (its chunks, pauses and pages) stay with the code that needs them.

use std::time::Duration;

/// Bytes of records that may wait for the writers.
pub(super) const QUEUE_BYTES: usize = 128 << 20;

/// Bytes of records that share a commit; the record that passes the bound is part of it.
pub(super) const BATCH_BYTES: usize = 4 << 20;

/// Leases that one claim gives at most.
pub(super) const CLAIM_LEASES: usize = 1024;

/// Bytes of events that one claim gives at most; the event that passes the bound is part of it.
pub(super) const CLAIM_BYTES: usize = 32 << 20;

/// Events that go upstream together as one turn at most.
pub(super) const MERGED_EVENTS: usize = 100;

/// Bytes of events that go upstream together as one turn at most. The first event goes however large it is.
pub(super) const MERGED_BYTES: u64 = 4 << 20;

/// Waiting turns of one lane that a claim looks at beyond those that may stay.
pub(super) const WAITING_TURNS: usize = 1000;

/// Attempts of a delivery that are kept.
pub(super) const KEPT_ATTEMPTS: u32 = 50;

/// Bytes of the agent's answer that are kept.
pub(super) const MAX_RESULT: usize = 256 << 10;

/// Size of the largest task object that is kept. A larger one is not kept at all, as half of it would not be JSON.
pub(super) const MAX_TASK: usize = 1 << 20;

/// Bytes that are kept of any shorter text: status, result word, detail, note.
pub(super) const MAX_TEXT: usize = 4 << 10;

/// Entries of a page of events or files at most.
pub(super) const PAGE: usize = 200;

/// Events that are looked at for one page. A page may come out short for this reason, or empty, and still have a next
/// one.
pub(super) const LIST_WINDOW: usize = 10_000;

/// Events that are looked at for one page where their bodies have to be read for it.
pub(super) const LIST_BODIES: usize = 2_000;

/// Deliveries of one event that are shown.
pub(super) const SHOWN_DELIVERIES: i64 = 1000;

/// Largest distance between the arrival of an event and its receipt: a body may take its time after its head was read.
/// Where a list is cut by time, an event further out of order is not looked for.
pub(super) const DISORDER: Duration = Duration::from_secs(3600);

/// Events whose waiting deliveries are looked up at once.
pub(super) const WAITING_EVENTS: usize = 200;

/// Destinations that are listed at most.
pub(super) const DESTINATIONS: usize = 10_000;

/// Jobs in bulk that are listed.
pub(super) const LISTED_JOBS: i64 = 100;

/// Events that one transaction of a sweep removes. More would hold up the requests behind it.
pub(super) const SWEPT_EVENTS: usize = 200;

/// Proofs that one transaction of a sweep removes.
pub(super) const SWEPT_PROOFS: i64 = 1000;

/// Deliveries whose end may be waited for with a notice. Callers beyond it look from time to time.
pub(super) const AWAITED: usize = 10_000;

/// Time between two looks of a caller who waits for a delivery's end and was not notified.
pub(super) const END_POLL: Duration = Duration::from_secs(1);

/// The beginning of a text, of so many bytes at most.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
