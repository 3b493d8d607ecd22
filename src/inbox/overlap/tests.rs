//! The policy by examples, and against the code that the two engines had before it.

use std::time::Duration;

use super::*;
use crate::inbox::bounds::WAITING_TURNS;

/// Turns that came so many seconds before second 1000.
fn turns(ages: &[i64]) -> Vec<WaitingTurn> {
    ages.iter()
        .map(|age| WaitingTurn {
            received_at: Timestamp::from_seconds(1000 - age),
            bytes: 1000,
        })
        .collect()
}

fn decided(
    mode: OverlapMode,
    depth: Option<u32>,
    ages: &[i64],
    counted_all: bool,
) -> (Option<usize>, Vec<usize>, Vec<usize>) {
    let overlap = Overlap {
        mode,
        depth,
        age: Some(Duration::from_secs(60)),
    };
    let turns = turns(ages);
    let look = LaneView {
        turns: &turns,
        in_all: turns.len(),
        counted_all,
    };
    let decision = decide(overlap, &look, Timestamp::from_seconds(1000));
    (decision.leader, decision.merged, decision.dropped)
}

#[test]
fn a_queue_drops_what_is_too_old_and_goes_on_with_the_next() {
    assert_eq!(
        decided(OverlapMode::Queue, None, &[90, 70, 50, 10], true),
        (Some(2), vec![], vec![0, 1])
    );
    assert_eq!(
        decided(OverlapMode::Queue, None, &[90, 70], true),
        (None, vec![], vec![0, 1])
    );
}

#[test]
fn the_latest_goes_alone() {
    assert_eq!(
        decided(OverlapMode::Latest, None, &[90, 50, 10], true),
        (Some(2), vec![], vec![0, 1])
    );
    assert_eq!(
        decided(OverlapMode::Latest, None, &[90, 50, 10], false),
        (None, vec![], vec![0, 1]),
        "the last of those that were read may be the last of all"
    );
    assert_eq!(
        decided(OverlapMode::Latest, None, &[90], true),
        (None, vec![], vec![0])
    );
}

#[test]
fn what_waited_goes_together_within_depth_and_bounds() {
    assert_eq!(
        decided(OverlapMode::Collect, None, &[90, 50, 10], true),
        (Some(1), vec![2], vec![0])
    );
    assert_eq!(
        decided(OverlapMode::Collect, Some(2), &[50, 40, 30], true),
        (Some(1), vec![2], vec![0])
    );
    assert_eq!(
        decided(OverlapMode::Collect, Some(2), &[50, 40, 30], false),
        (None, vec![], vec![0])
    );
    let (leader, merged, dropped) = decided(OverlapMode::Collect, None, &[10; 150], true);
    assert_eq!((leader, merged.len(), dropped.len()), (Some(0), 99, 0));
    let large: Vec<WaitingTurn> = turns(&[1, 1, 1])
        .into_iter()
        .map(|turn| WaitingTurn {
            bytes: 3 << 20,
            ..turn
        })
        .collect();
    let overlap = Overlap {
        mode: OverlapMode::Collect,
        depth: None,
        age: None,
    };
    let look = LaneView {
        turns: &large,
        in_all: 3,
        counted_all: true,
    };
    let decision = decide(overlap, &look, Timestamp::default());
    assert_eq!(
        (decision.leader, decision.merged, decision.dropped),
        (Some(0), vec![], vec![])
    );
}

#[test]
fn one_that_waited_too_long_is_dropped_wherever_it_stands_in_a_group() {
    assert_eq!(
        decided(OverlapMode::Collect, None, &[50, 90, 10], true),
        (Some(0), vec![2], vec![1])
    );
}

/// The former code of the two engines, as pure functions over a whole lane.
mod former {
    use super::*;

    pub(super) type Decided = (Option<usize>, Vec<usize>, Vec<usize>);

    /// The former decision of the SQLite engine, with its reads as slices.
    pub(super) fn sqlite(overlap: Overlap, lane: &[WaitingTurn], now: Timestamp) -> Decided {
        const TOGETHER: usize = 100;
        const BYTES: u64 = 4 << 20;
        const LOOK: usize = 1000;
        let is_old = |at: Timestamp| overlap.age.is_some_and(|age| at + age < now);
        let waits = matches!(overlap.mode, OverlapMode::Queue | OverlapMode::Reject);
        if waits && !is_old(lane[0].received_at) {
            return (Some(0), vec![], vec![]);
        }
        let beyond = match (overlap.mode, overlap.depth) {
            (OverlapMode::Collect, Some(depth)) => {
                let depth = usize::try_from(depth.max(1)).unwrap();
                lane.len()
                    .min(depth.saturating_add(LOOK))
                    .saturating_sub(depth)
            }
            _ => 0,
        };
        let most = match overlap.mode {
            OverlapMode::Collect if overlap.age.is_none() => beyond + TOGETHER,
            OverlapMode::Collect => LOOK + TOGETHER,
            _ => LOOK,
        };
        let mut list: Vec<usize> = (0..lane.len().min(most)).collect();
        let whole = list.len() < most;
        let old = list
            .iter()
            .take_while(|place| is_old(lane[**place].received_at))
            .count();
        match overlap.mode {
            OverlapMode::Queue | OverlapMode::Reject => {
                list.truncate(old);
                (None, vec![], list)
            }
            OverlapMode::Latest => match list.pop() {
                Some(last) if whole && !is_old(lane[last].received_at) => {
                    (Some(last), vec![], list)
                }
                Some(last) if whole => {
                    list.push(last);
                    (None, vec![], list)
                }
                _ => (None, vec![], list),
            },
            OverlapMode::Collect => {
                let mut rest = list.split_off(beyond.max(old).min(list.len()));
                let more = beyond >= LOOK || rest.is_empty() && !whole;
                if rest.is_empty() && more {
                    rest.extend(list.pop());
                }
                if rest.is_empty() || more {
                    return (None, vec![], list);
                }
                let first = rest.remove(0);
                let mut bytes = lane[first].bytes;
                let fits = rest.iter().take(TOGETHER - 1).take_while(|place| {
                    bytes = bytes.saturating_add(lane[**place].bytes);
                    bytes <= BYTES
                });
                let along = fits.count();
                (Some(first), rest[..along].to_vec(), list)
            }
        }
    }

    /// The former decision of the PostgreSQL engine.
    pub(super) fn postgres(overlap: Overlap, lane: &[WaitingTurn], now: Timestamp) -> Decided {
        const TURNS: usize = 1000;
        if is_queue(&overlap) && overlap.age.is_none() {
            return (Some(0), vec![], vec![]);
        }
        let most = TURNS + usize::try_from(overlap.depth.unwrap_or(0).min(100_000)).unwrap();
        let run: Vec<usize> = (0..lane.len().min(most)).collect();
        let whole = run.len() < most;
        let old = |place: &usize| {
            overlap
                .age
                .is_some_and(|age| lane[*place].received_at + age < now)
        };
        match overlap.mode {
            OverlapMode::Queue | OverlapMode::Reject => {
                let fresh = run.iter().position(|one| !old(one)).unwrap_or(run.len());
                (run.get(fresh).copied(), vec![], run[..fresh].to_vec())
            }
            OverlapMode::Latest if !whole => (None, vec![], run),
            OverlapMode::Latest => {
                let newest = run.last().copied().filter(|one| !old(one));
                let before = run.len() - usize::from(newest.is_some());
                (newest, vec![], run[..before].to_vec())
            }
            OverlapMode::Collect => {
                let (mut dropped, mut fresh): (Vec<usize>, Vec<usize>) =
                    run.iter().partition(|one| old(one));
                if let Some(depth) = overlap.depth {
                    let over = fresh
                        .len()
                        .saturating_sub(usize::try_from(depth).unwrap().max(1));
                    dropped.extend(fresh.drain(..over));
                    dropped.sort_unstable();
                    if !whole && over > 0 {
                        return (None, vec![], dropped);
                    }
                }
                let leader = fresh.first().copied();
                let mut bytes = leader.map_or(0, |one| lane[one].bytes);
                let merged = fresh
                    .iter()
                    .skip(1)
                    .take(99)
                    .take_while(|one| {
                        bytes += lane[**one].bytes;
                        bytes <= 4 << 20
                    })
                    .copied()
                    .collect();
                (leader, merged, dropped)
            }
        }
    }
}

/// The policy over what the SQLite engine reads of a lane.
fn by_narrow_look(overlap: Overlap, lane: &[WaitingTurn], now: Timestamp) -> former::Decided {
    if is_queue(&overlap) && !is_too_old(&overlap, lane[0].received_at, now) {
        return (Some(0), vec![], vec![]);
    }
    let to_count = turns_to_count(&overlap);
    let counted = to_count.map_or(0, |most| lane.len().min(most));
    let to_read = turns_to_read(&overlap, counted);
    let turns = &lane[..lane.len().min(to_read)];
    let (in_all, counted_all) = match to_count {
        Some(most) => (counted, counted < most),
        None => (turns.len(), turns.len() < to_read),
    };
    let decision = decide(
        overlap,
        &LaneView {
            turns,
            in_all,
            counted_all,
        },
        now,
    );
    (decision.leader, decision.merged, decision.dropped)
}

/// The policy over what the PostgreSQL engine reads of a lane.
fn by_wide_look(overlap: Overlap, lane: &[WaitingTurn], now: Timestamp) -> former::Decided {
    if is_queue(&overlap) && overlap.age.is_none() {
        return (Some(0), vec![], vec![]);
    }
    let most = WAITING_TURNS + usize::try_from(overlap.depth.unwrap_or(0).min(100_000)).unwrap();
    let turns = &lane[..lane.len().min(most)];
    let look = LaneView {
        turns,
        in_all: turns.len(),
        counted_all: turns.len() < most,
    };
    let decision = decide(overlap, &look, now);
    (decision.leader, decision.merged, decision.dropped)
}

/// Claims until a turn goes out or the lane is empty: which one goes, with which others, and how many were dropped.
fn played(
    overlap: Overlap,
    lane: &[WaitingTurn],
    now: Timestamp,
    decide: impl Fn(Overlap, &[WaitingTurn], Timestamp) -> former::Decided,
) -> former::Decided {
    let mut left: Vec<usize> = (0..lane.len()).collect();
    let mut all_dropped = Vec::new();
    while !left.is_empty() {
        let seen: Vec<WaitingTurn> = left.iter().map(|place| lane[*place]).collect();
        let (leader, merged, dropped) = decide(overlap, &seen, now);
        assert!(
            leader.is_some() || !dropped.is_empty(),
            "{overlap:?}: a look brings it on"
        );
        all_dropped.extend(dropped.iter().map(|place| left[*place]));
        if let Some(leader) = leader {
            let merged = merged.iter().map(|place| left[*place]).collect();
            all_dropped.sort_unstable();
            return (Some(left[leader]), merged, all_dropped);
        }
        let mut place = 0;
        left.retain(|_| {
            place += 1;
            !dropped.contains(&(place - 1))
        });
    }
    all_dropped.sort_unstable();
    (None, vec![], all_dropped)
}

/// A lane of so many turns: the first of them too old, as far as there is an age; sizes that reach the bound now and
/// then. `disorder`: receipt times may go back.
fn lane(random: &mut fastrand::Rng, length: usize, disorder: bool) -> Vec<WaitingTurn> {
    let step = random.i64(0..40);
    let large = random.u8(0..4) == 0;
    (0..i64::try_from(length).unwrap())
        .map(|place| {
            let back = if disorder {
                random.i64(0..4 * step.max(10))
            } else {
                0
            };
            WaitingTurn {
                received_at: Timestamp::from_millis(place * step - back),
                bytes: if large { random.u64(1..1 << 20) } else { 1000 },
            }
        })
        .collect()
}

fn overlaps(random: &mut fastrand::Rng, length: usize) -> Overlap {
    let modes = [
        OverlapMode::Queue,
        OverlapMode::Reject,
        OverlapMode::Latest,
        OverlapMode::Collect,
        OverlapMode::Collect,
    ];
    let depths = [
        None,
        None,
        Some(0),
        Some(1),
        Some(2),
        Some(50),
        Some(150),
        Some(1100),
    ];
    let ages = [
        None,
        Some(u64::try_from(random.usize(0..=length * 40)).unwrap()),
    ];
    Overlap {
        mode: modes[random.usize(0..modes.len())],
        depth: depths[random.usize(0..depths.len())],
        age: ages[random.usize(0..2)].map(Duration::from_millis),
    }
}

/// On lanes that one look shows whole and whose receipt times rise, the two former engines never differed.
#[test]
fn both_former_engines_and_the_policy_agree_on_lanes_in_order() {
    let mut random = fastrand::Rng::with_seed(16);
    for _ in 0..20_000 {
        let length = random.usize(1..140);
        let lane = lane(&mut random, length, false);
        let overlap = overlaps(&mut random, length);
        let now = Timestamp::from_millis(random.i64(0..i64::try_from(length * 50).unwrap()));
        let want = played(overlap, &lane, now, by_wide_look);
        assert_eq!(
            played(overlap, &lane, now, by_narrow_look),
            want,
            "{overlap:?} {length}"
        );
        assert_eq!(
            played(overlap, &lane, now, former::sqlite),
            want,
            "{overlap:?} {length}"
        );
        assert_eq!(
            played(overlap, &lane, now, former::postgres),
            want,
            "{overlap:?} {length}"
        );
    }
}

/// With receipt times out of order they differed for `collect` with an age: the SQLite engine sent a turn that had
/// waited too long where it stood behind one that had not. The policy drops it, as the PostgreSQL engine did.
#[test]
fn out_of_order_the_former_engines_differed_for_collect_and_the_policy_drops_what_is_too_old() {
    let mut random = fastrand::Rng::with_seed(17);
    let mut differed = 0;
    for _ in 0..20_000 {
        let length = random.usize(1..140);
        let lane = lane(&mut random, length, true);
        let overlap = overlaps(&mut random, length);
        let now = Timestamp::from_millis(random.i64(0..i64::try_from(length * 50).unwrap()));
        let want = played(overlap, &lane, now, by_wide_look);
        assert_eq!(
            played(overlap, &lane, now, former::postgres),
            want,
            "{overlap:?} {length}"
        );
        if played(overlap, &lane, now, former::sqlite) != want {
            assert!(
                overlap.mode == OverlapMode::Collect && overlap.age.is_some(),
                "{overlap:?}"
            );
            differed += 1;
        }
    }
    assert!(differed > 0, "the difference shows");
}

/// On lanes longer than a look they differed, too: the PostgreSQL engine dropped the latest turn where exactly as many
/// waited as it looks at, and let more go out than `depth` allows where a thousand before them were too old; both put
/// fewer together than would have gone where a look ended behind many that were dropped. The policy does the same
/// whatever a look shows.
#[test]
fn the_policy_decides_the_same_however_much_a_look_shows() {
    let mut random = fastrand::Rng::with_seed(18);
    let lengths = [
        990, 999, 1000, 1001, 1002, 1050, 1099, 1100, 1101, 1999, 2000, 2001, 2300,
    ];
    let (mut sqlite, mut postgres) = (0, 0);
    for _ in 0..1_500 {
        let length = lengths[random.usize(0..lengths.len())];
        let lane = lane(&mut random, length, false);
        let overlap = overlaps(&mut random, length);
        let now = Timestamp::from_millis(random.i64(0..i64::try_from(length * 50).unwrap()));
        let want = played(overlap, &lane, now, by_wide_look);
        assert_eq!(
            played(overlap, &lane, now, by_narrow_look),
            want,
            "{overlap:?} {length}"
        );
        let differs = |former: fn(Overlap, &[WaitingTurn], Timestamp) -> former::Decided| {
            let differs = played(overlap, &lane, now, former) != want;
            assert!(
                !differs || !is_queue(&overlap),
                "a queue is a queue: {overlap:?} {length}"
            );
            usize::from(differs)
        };
        sqlite += differs(former::sqlite);
        postgres += differs(former::postgres);
    }
    assert!(postgres > 0 && sqlite < postgres, "{sqlite} {postgres}");
}

#[test]
fn the_latest_of_exactly_as_many_as_a_look_shows_goes_out() {
    let overlap = Overlap {
        mode: OverlapMode::Latest,
        depth: None,
        age: None,
    };
    let lane = turns(&[1; WAITING_TURNS]);
    let now = Timestamp::from_seconds(1000);
    let (leader, _, dropped) = played(overlap, &lane, now, by_wide_look);
    assert_eq!(
        (leader, dropped.len()),
        (Some(WAITING_TURNS - 1), WAITING_TURNS - 1)
    );
    let (leader, ..) = played(overlap, &lane, now, former::postgres);
    assert_eq!(leader, None, "the former code dropped it");
}
