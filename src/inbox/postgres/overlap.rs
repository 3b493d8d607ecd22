//! What becomes of the turns that wait in a conversation when the first of them is about to be tried. Pure: it sees
//! numbers and times, and no SQL.

use crate::model::{Overlap, OverlapMode, Timestamp};

/// How many events go out as one turn at most.
const MOST_MERGED: usize = 100;

/// How many bytes of bodies go out as one turn at most, the one that passes the bound excluded.
const MERGED_BYTES: u64 = 4 << 20;

/// A delivery that waits: never tried, of the same source and destination as the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Its number.
    pub(super) key: i64,
    /// When its event came.
    pub(super) received_at: Timestamp,
    /// How large its event is.
    pub(super) bytes: u64,
}

/// What becomes of a run of those, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Goes out; none: nothing of the run does, now.
    pub(super) leader: Option<i64>,
    /// Go with it.
    pub(super) merged: Vec<i64>,
    /// Go nowhere.
    pub(super) dropped: Vec<i64>,
}

/// Decides over a run. `whole`: nothing waits behind it that belongs to it; otherwise the run is only its oldest part,
/// as long as one claim looks.
pub(super) fn decide(overlap: Overlap, run: &[Waiting], whole: bool, now: Timestamp) -> Decision {
    let old = |one: &Waiting| overlap.age.is_some_and(|age| one.received_at + age < now);
    let keys = |run: &[Waiting]| run.iter().map(|one| one.key).collect::<Vec<_>>();
    match overlap.mode {
        OverlapMode::Queue | OverlapMode::Reject => {
            let fresh = run.iter().position(|one| !old(one)).unwrap_or(run.len());
            Decision {
                leader: run.get(fresh).map(|one| one.key),
                merged: vec![],
                dropped: keys(&run[..fresh]),
            }
        }
        OverlapMode::Latest if !whole => Decision {
            dropped: keys(run),
            ..Decision::default()
        },
        OverlapMode::Latest => {
            let newest = run.last().filter(|one| !old(one));
            let before = if newest.is_some() {
                run.len() - 1
            } else {
                run.len()
            };
            Decision {
                leader: newest.map(|one| one.key),
                merged: vec![],
                dropped: keys(&run[..before]),
            }
        }
        OverlapMode::Collect => {
            let (mut dropped, mut fresh): (Vec<Waiting>, Vec<Waiting>) =
                run.iter().partition(|one| old(one));
            if let Some(depth) = overlap.depth {
                let over = fresh
                    .len()
                    .saturating_sub(usize::try_from(depth).unwrap_or(usize::MAX).max(1));
                dropped.extend(fresh.drain(..over));
                dropped.sort_unstable_by_key(|one| one.key);
                if !whole && over > 0 {
                    // How many more are too many shows when the rest has been looked at.
                    return Decision {
                        dropped: keys(&dropped),
                        ..Decision::default()
                    };
                }
            }
            // The first goes however large it is.
            let leader = fresh.first().copied();
            let mut bytes = leader.map_or(0, |one| one.bytes);
            let fits = |one: &&Waiting| {
                bytes += one.bytes;
                bytes <= MERGED_BYTES
            };
            let merged = fresh
                .iter()
                .skip(1)
                .take(MOST_MERGED - 1)
                .take_while(fits)
                .map(|one| one.key)
                .collect();
            Decision {
                leader: leader.map(|one| one.key),
                merged,
                dropped: keys(&dropped),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(ages: &[i64]) -> Vec<Waiting> {
        let one = |(key, age): (i64, &i64)| Waiting {
            key,
            received_at: Timestamp::from_seconds(1000 - age),
            bytes: 1000,
        };
        (1..).zip(ages).map(one).collect()
    }

    fn decided(
        mode: OverlapMode,
        depth: Option<u32>,
        ages: &[i64],
        whole: bool,
    ) -> (Option<i64>, Vec<i64>, Vec<i64>) {
        let overlap = Overlap {
            mode,
            depth,
            age: Some(Duration::from_secs(60)),
        };
        let Decision {
            leader,
            merged,
            dropped,
        } = decide(overlap, &run(ages), whole, Timestamp::from_seconds(1000));
        (leader, merged, dropped)
    }

    #[test]
    fn a_queue_drops_what_is_too_old_and_goes_on_with_the_next() {
        assert_eq!(
            decided(OverlapMode::Queue, None, &[90, 70, 50, 10], true),
            (Some(3), vec![], vec![1, 2])
        );
        assert_eq!(
            decided(OverlapMode::Queue, None, &[90, 70], true),
            (None, vec![], vec![1, 2])
        );
    }

    #[test]
    fn the_latest_goes_alone() {
        assert_eq!(
            decided(OverlapMode::Latest, None, &[90, 50, 10], true),
            (Some(3), vec![], vec![1, 2])
        );
        assert_eq!(
            decided(OverlapMode::Latest, None, &[90, 50, 10], false),
            (None, vec![], vec![1, 2, 3])
        );
        assert_eq!(
            decided(OverlapMode::Latest, None, &[90], true),
            (None, vec![], vec![1])
        );
    }

    #[test]
    fn what_waited_goes_together_within_depth_and_bounds() {
        assert_eq!(
            decided(OverlapMode::Collect, None, &[90, 50, 10], true),
            (Some(2), vec![3], vec![1])
        );
        assert_eq!(
            decided(OverlapMode::Collect, Some(2), &[50, 40, 30], true),
            (Some(2), vec![3], vec![1])
        );
        assert_eq!(
            decided(OverlapMode::Collect, Some(2), &[50, 40, 30], false),
            (None, vec![], vec![1])
        );
        let many = vec![10; 150];
        let (leader, merged, dropped) = decided(OverlapMode::Collect, None, &many, true);
        assert_eq!((leader, merged.len(), dropped.len()), (Some(1), 99, 0));
        let overlap = Overlap {
            mode: OverlapMode::Collect,
            depth: None,
            age: None,
        };
        let large: Vec<Waiting> = run(&[1, 1, 1])
            .into_iter()
            .map(|one| Waiting {
                bytes: 3 << 20,
                ..one
            })
            .collect();
        let Decision {
            leader,
            merged,
            dropped,
        } = decide(overlap, &large, true, Timestamp::default());
        assert_eq!((leader, merged, dropped), (Some(1), vec![], vec![]));
    }
}
