//! The order of a source's deliveries: their urgency, how many may wait, and what happens to those that do.

use crate::config::section::Section;
use crate::config::size;
use crate::model::{Backlog, Class, Overlap, OverlapMode};

/// `class`, of a source or of a provider.
pub(in crate::config) fn class(section: &Section<'_>) -> Option<Class> {
    section
        .one_of("class", &Class::ALL.map(|class| (class.as_str(), class)))
        .map(|class| class.value)
}

/// The largest weight: enough to tell sources apart, and not so much that one has nothing.
const MOST_WEIGHT: usize = 100;

pub(super) fn weight(section: &Section<'_>) -> u32 {
    let Some(weight) = size(section, "weight") else {
        return 1;
    };
    if weight > MOST_WEIGHT
        && let Some(node) = section.node("weight")
    {
        let most = format!("{} must be at most {MOST_WEIGHT}", section.path("weight"));
        section.problems().error(&node.place, most);
    }
    u32::try_from(weight.min(MOST_WEIGHT)).unwrap_or(1)
}

pub(super) fn backlog(section: &Section<'_>) -> Option<Backlog> {
    let most = size(section, "max_waiting").map(|most| most as u64);
    let age = section.duration("max_lag").map(|age| age.value);
    (most.is_some() || age.is_some()).then_some(Backlog {
        most,
        age,
        turns_away: true,
    })
}

pub(super) fn overlap(section: &Section<'_>) -> Overlap {
    let modes = [
        ("queue", OverlapMode::Queue),
        ("collect", OverlapMode::Collect),
        ("latest", OverlapMode::Latest),
        ("reject", OverlapMode::Reject),
    ];
    let mode = section
        .one_of("overlap", &modes)
        .map_or(OverlapMode::Queue, |mode| mode.value);
    let depth = size(section, "overlap_depth");
    let age = section.duration("overlap_age");
    if matches!(mode, OverlapMode::Latest | OverlapMode::Reject)
        && let Some(depth) = section.node("overlap_depth")
    {
        section.problems().error_hint(
            &depth.place,
            "overlap_depth says nothing here: with this overlap none or one event waits",
            "it is for overlap = \"queue\" and \"collect\"",
        );
    }
    Overlap {
        mode,
        depth: depth.map(|depth| u32::try_from(depth).unwrap_or(u32::MAX)),
        age: age.map(|age| age.value),
    }
}
