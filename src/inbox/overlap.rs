//! Overlap policy: the fate of the turns that wait in a conversation when the first of them is about to be tried. Pure,
//! and the same for both engines: it sees times and sizes, and no SQL.
//!
//! A decision is written to disk and holds for good, so a retry sends the same group again. Only turns of one source to
//! one destination that stand next to each other are given here, so that order holds whatever is between them. However
//! many wait, an engine shows a bounded number of them ([`LaneView`]); where these do not suffice, the turns that certainly
//! go nowhere are dropped first, and the rest is decided at the next look.

use super::bounds::{MERGED_BYTES, MERGED_EVENTS, WAITING_TURNS};
use crate::model::{Overlap, OverlapMode, Timestamp};

/// A turn that waits and was never tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaitingTurn {
    /// The time when its event was received.
    pub(super) received_at: Timestamp,
    /// The size of its event.
    pub(super) bytes: u64,
}

/// The turns of a lane as far as an engine has read them.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneView<'a> {
    /// The oldest turns, oldest first. Two of them at least, where more wait than these.
    pub(super) turns: &'a [WaitingTurn],
    /// Number of turns that wait in all, as far as they were counted.
    pub(super) in_all: usize,
    /// True if all were counted; otherwise more than these may wait.
    pub(super) counted_all: bool,
}

impl LaneView<'_> {
    /// True if no turn waits that is not in the list.
    fn shows_all(&self) -> bool {
        self.counted_all && self.in_all == self.turns.len()
    }
}

/// The fate of the turns of a look, each by its place in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// The turn that goes out; `None` where that is not known yet, or where no turn goes out.
    pub(super) leader: Option<usize>,
    /// The turns that go out with it.
    pub(super) merged: Vec<usize>,
    /// The turns that are never sent.
    pub(super) dropped: Vec<usize>,
}

/// True if the turns of a source go out one by one however many wait, as long as the first is not too old.
pub(super) const fn is_queue(overlap: &Overlap) -> bool {
    matches!(overlap.mode, OverlapMode::Queue | OverlapMode::Reject)
}

/// True if a turn has waited longer than its source allows.
pub(super) fn is_too_old(overlap: &Overlap, received_at: Timestamp, now: Timestamp) -> bool {
    overlap.age.is_some_and(|age| received_at + age < now)
}

/// Number of turns that an engine counts before it reads any, so that it need not read those that are too many; `None`
/// where the number does not matter.
pub(super) fn turns_to_count(overlap: &Overlap) -> Option<usize> {
    match (overlap.mode, overlap.depth) {
        (OverlapMode::Collect, Some(depth)) => Some(depth_of(depth).saturating_add(WAITING_TURNS)),
        _ => None,
    }
}

/// Number of turns that an engine reads at most, where it has counted so many.
pub(super) fn turns_to_read(overlap: &Overlap, counted: usize) -> usize {
    match (overlap.mode, overlap.age, overlap.depth) {
        (OverlapMode::Collect, None, None) => MERGED_EVENTS,
        (OverlapMode::Collect, None, Some(depth)) => {
            counted.saturating_sub(depth_of(depth)) + MERGED_EVENTS
        }
        (OverlapMode::Collect, Some(_), _) => WAITING_TURNS + MERGED_EVENTS,
        _ => WAITING_TURNS,
    }
}

/// The depth as a number of turns; one may always wait.
fn depth_of(depth: u32) -> usize {
    usize::try_from(depth.max(1)).unwrap_or(usize::MAX)
}

/// Decides over the turns of a lane. A decision without a leader drops at least one turn, so the next look sees others.
pub(super) fn decide(overlap: Overlap, look: &LaneView<'_>, now: Timestamp) -> Decision {
    match overlap.mode {
        OverlapMode::Queue | OverlapMode::Reject => first_that_is_young(overlap, look, now),
        OverlapMode::Latest => last_of_all(overlap, look, now),
        OverlapMode::Collect => together(overlap, look, now),
    }
}

fn first_that_is_young(overlap: Overlap, look: &LaneView<'_>, now: Timestamp) -> Decision {
    let young = look
        .turns
        .iter()
        .position(|turn| !is_too_old(&overlap, turn.received_at, now));
    Decision {
        leader: young,
        merged: Vec::new(),
        dropped: (0..young.unwrap_or(look.turns.len())).collect(),
    }
}

fn last_of_all(overlap: Overlap, look: &LaneView<'_>, now: Timestamp) -> Decision {
    let Some(last) = look.turns.len().checked_sub(1) else {
        return Decision::default();
    };
    let is_old = is_too_old(&overlap, look.turns[last].received_at, now);
    // The last turn of an incomplete look stays: it may be the last of all.
    let goes_nowhere = look.shows_all() && is_old;
    Decision {
        leader: (look.shows_all() && !is_old).then_some(last),
        merged: Vec::new(),
        dropped: (0..last + usize::from(goes_nowhere)).collect(),
    }
}

fn together(overlap: Overlap, look: &LaneView<'_>, now: Timestamp) -> Decision {
    let (mut dropped, mut young): (Vec<usize>, Vec<usize>) = (0..look.turns.len())
        .partition(|place| is_too_old(&overlap, look.turns[*place].received_at, now));
    if let Some(depth) = overlap.depth {
        let unseen = look.in_all.saturating_sub(look.turns.len());
        let too_many = (young.len() + unseen).saturating_sub(depth_of(depth));
        dropped.extend(young.drain(..too_many.min(young.len())));
        dropped.sort_unstable();
    }
    let undecided = Decision {
        dropped,
        ..Decision::default()
    };
    let more_may_be_too_many = overlap.depth.is_some() && !look.counted_all;
    let Some((&leader, rest)) = young.split_first().filter(|_| !more_may_be_too_many) else {
        return undecided;
    };
    // The first goes however large it is.
    let mut bytes = look.turns[leader].bytes;
    let mut merged = Vec::new();
    let mut has_reached_a_bound = false;
    for place in rest {
        bytes = bytes.saturating_add(look.turns[*place].bytes);
        has_reached_a_bound = bytes > MERGED_BYTES || merged.len() + 1 == MERGED_EVENTS;
        if has_reached_a_bound {
            break;
        }
        merged.push(*place);
    }
    let is_full = has_reached_a_bound || merged.len() + 1 == MERGED_EVENTS;
    if !is_full && !look.shows_all() && !undecided.dropped.is_empty() {
        // More of those that wait may go along; the next look shows them.
        return undecided;
    }
    Decision {
        leader: Some(leader),
        merged,
        ..undecided
    }
}

#[cfg(test)]
mod tests;
