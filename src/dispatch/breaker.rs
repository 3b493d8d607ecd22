//! Circuit breaker of a destination: one that fails rests, and is tried again with one call at a time. Pure: times and
//! random numbers are arguments.
//!
//! Promises: while it rests nothing is claimed for it, so an outage costs no writes; the first call after its
//! return comes within the configured rest (which does not grow, and is only ever cut short by chance); after that the
//! calls grow from one by doubling, up to its caps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config;

/// The largest part of a rest that chance takes away, so that destinations which failed together do not return together.
const EARLIER: f64 = 0.2;

/// The sign that an attempt gives about its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It answers: with a run, or with a refusal that is about this delivery.
    Alive,
    /// It could not be reached, broke off, or answered that it cannot.
    Failing,
    /// No sign: it was not called, or asked for time, or the call was broken off here.
    Nothing,
}

/// The change that a sign brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BreakerChange {
    /// No change that an operator sees.
    None,
    /// It is left alone from now on.
    Opened,
    /// The call that tried it failed: it rests again.
    Reopened,
    /// It is called as before.
    Closed,
}

/// The state of a breaker as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It is called.
    Closed,
    /// It is left alone.
    Open,
    /// One call tries it, or may.
    HalfOpen,
}

impl BreakerState {
    /// A stable word for display.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The permit of a call that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallPermit {
    epoch: u32,
    /// True if it tries a destination that was left alone.
    pub(super) probe: bool,
}

/// The breaker of one destination.
#[derive(Clone, Debug)]
pub(super) struct Breaker {
    state: BreakerPhase,
    /// The time since when it is left alone or called.
    pub(super) since: Instant,
    /// The last calls, the oldest first; true for each that failed.
    last: VecDeque<bool>,
    /// The number of times it has opened: a call that began before the last time is ignored.
    epoch: u32,
}

/// The state of a breaker with its times and its room.
#[derive(Clone, Copy, Debug)]
enum BreakerPhase {
    /// Called, with room for so many calls; `None`: as many as its caps allow.
    Closed {
        room: Option<usize>,
    },
    Open {
        until: Instant,
    },
    Probing,
}

impl Breaker {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            state: BreakerPhase::Closed { room: None },
            since: now,
            last: VecDeque::new(),
            epoch: 0,
        }
    }

    /// The state for an operator.
    pub(super) fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            BreakerPhase::Closed { .. } => BreakerState::Closed,
            BreakerPhase::Open { until } if now < until => BreakerState::Open,
            BreakerPhase::Open { .. } | BreakerPhase::Probing => BreakerState::HalfOpen,
        }
    }

    /// The number of calls that it lets through beside those in flight.
    pub(super) fn room(&self, in_flight: usize, now: Instant) -> usize {
        match self.state {
            BreakerPhase::Closed { room: None } => usize::MAX,
            BreakerPhase::Closed { room: Some(room) } => room.saturating_sub(in_flight),
            BreakerPhase::Open { until } => usize::from(now >= until),
            BreakerPhase::Probing => 0,
        }
    }

    /// The time at which it lets a call through again, where only time is needed.
    pub(super) fn opens_at(&self, now: Instant) -> Option<Instant> {
        match self.state {
            BreakerPhase::Open { until } if now < until => Some(until),
            _ => None,
        }
    }

    /// The number of failures among the last calls.
    pub(super) fn failures(&self) -> usize {
        self.last.iter().filter(|failed| **failed).count()
    }

    /// Lets a call through.
    pub(super) fn begin(&mut self, now: Instant) -> CallPermit {
        let probe = matches!(self.state, BreakerPhase::Open { until } if now >= until);
        if probe {
            self.state = BreakerPhase::Probing;
        }
        CallPermit {
            epoch: self.epoch,
            probe,
        }
    }

    /// Notes the end of a call that was let through. `most` is the number of calls that its caps allow.
    pub(super) fn end(
        &mut self,
        begun: CallPermit,
        sign: Sign,
        rules: &config::BreakerConfig,
        most: usize,
        now: Instant,
        chance: f64,
    ) -> BreakerChange {
        if begun.epoch != self.epoch {
            return BreakerChange::None;
        }
        match (self.state, sign) {
            (BreakerPhase::Probing, Sign::Nothing) if begun.probe => {
                self.state = BreakerPhase::Open { until: now }
            }
            (BreakerPhase::Probing, Sign::Failing) if begun.probe => {
                self.state = BreakerPhase::Open {
                    until: now + rest(rules.rest, chance),
                };
                return BreakerChange::Reopened;
            }
            (BreakerPhase::Probing, Sign::Alive) if begun.probe => {
                self.last.clear();
                self.since = now;
                self.state = BreakerPhase::Closed {
                    room: (most > 2).then_some(2),
                };
                return BreakerChange::Closed;
            }
            (BreakerPhase::Closed { room }, Sign::Alive) => {
                self.note(false, rules);
                let room = room
                    .map(|room| room.saturating_mul(2))
                    .filter(|room| *room < most);
                self.state = BreakerPhase::Closed { room };
            }
            (BreakerPhase::Closed { room }, Sign::Failing) => {
                self.note(true, rules);
                self.state = BreakerPhase::Closed {
                    room: room.map(|room| (room / 2).max(1)),
                };
                if rules.percent > 0 && self.failures() >= enough(rules) {
                    self.since = now;
                    self.epoch = self.epoch.wrapping_add(1);
                    self.state = BreakerPhase::Open {
                        until: now + rest(rules.rest, chance),
                    };
                    return BreakerChange::Opened;
                }
            }
            _ => {}
        }
        BreakerChange::None
    }

    /// True if this call is the one that tries it.
    pub(super) fn is_probed_by(&self, begun: CallPermit) -> bool {
        begun.probe && begun.epoch == self.epoch && matches!(self.state, BreakerPhase::Probing)
    }

    /// Lets another call try it: the one that tried it was given up without a sign.
    pub(super) fn abandon(&mut self, begun: CallPermit) {
        if self.is_probed_by(begun) {
            self.state = BreakerPhase::Open { until: self.since };
        }
    }

    /// Calls it as before, whatever it did. True if it was left alone.
    pub(super) fn reset(&mut self, now: Instant) -> bool {
        let was_closed = matches!(self.state, BreakerPhase::Closed { .. });
        self.state = BreakerPhase::Closed { room: None };
        self.last.clear();
        if !was_closed {
            self.since = now;
            self.epoch = self.epoch.wrapping_add(1);
        }
        !was_closed
    }

    fn note(&mut self, failed: bool, rules: &config::BreakerConfig) {
        while self.last.len() >= rules.calls.max(1) {
            self.last.pop_front();
        }
        self.last.push_back(failed);
    }
}

/// The number of failures among the last calls that opens it.
fn enough(rules: &config::BreakerConfig) -> usize {
    (rules.calls.saturating_mul(rules.percent))
        .div_ceil(100)
        .max(1)
}

fn rest(rest: Duration, chance: f64) -> Duration {
    rest.mul_f64(1.0 - EARLIER * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(10);
    const RULES: config::BreakerConfig = config::BreakerConfig {
        calls: 4,
        percent: 50,
        rest: REST,
    };
    const MOST: usize = 16;

    fn call(breaker: &mut Breaker, sign: Sign, now: Instant) -> BreakerChange {
        let begun = breaker.begin(now);
        breaker.end(begun, sign, &RULES, MOST, now, 0.0)
    }

    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(now);
        assert_eq!(call(&mut breaker, Sign::Failing, now), BreakerChange::None);
        assert_eq!(
            call(&mut breaker, Sign::Failing, now),
            BreakerChange::Opened
        );
        breaker
    }

    #[test]
    fn it_opens_by_the_share_of_failures_among_the_last_calls() {
        use Sign::{Alive, Failing, Nothing};
        let now = Instant::now();
        for (signs, opens) in [
            (&[Failing, Failing][..], true),
            (
                &[Alive, Alive, Failing, Alive, Alive, Failing, Nothing],
                false,
            ),
            (&[Failing, Alive, Alive, Alive, Failing], false),
            (&[Failing, Alive, Alive, Failing], true),
            (&[Nothing; 9], false),
        ] {
            let mut breaker = Breaker::new(now);
            let changes: Vec<_> = signs
                .iter()
                .map(|sign| call(&mut breaker, *sign, now))
                .collect();
            assert_eq!(
                changes.last() == Some(&BreakerChange::Opened),
                opens,
                "{signs:?}"
            );
            assert!(breaker.last.len() <= RULES.calls);
        }
        let never = config::BreakerConfig {
            percent: 0,
            ..RULES
        };
        let mut breaker = Breaker::new(now);
        for _ in 0..100 {
            let begun = breaker.begin(now);
            assert_eq!(
                breaker.end(begun, Failing, &never, MOST, now, 0.0),
                BreakerChange::None
            );
        }
    }

    #[test]
    fn f11_one_call_at_a_time_tries_it_once_a_rest_that_does_not_grow() {
        let mut now = Instant::now();
        let mut breaker = open(now);
        for _ in 0..10 {
            let state = |breaker: &Breaker, now| {
                (
                    breaker.state(now),
                    breaker.room(0, now),
                    breaker.opens_at(now),
                )
            };
            assert_eq!(
                state(&breaker, now),
                (BreakerState::Open, 0, Some(now + REST))
            );
            now += REST;
            assert_eq!(state(&breaker, now), (BreakerState::HalfOpen, 1, None));
            let begun = breaker.begin(now);
            assert!(begun.probe);
            assert_eq!(
                state(&breaker, now + 9 * REST),
                (BreakerState::HalfOpen, 0, None)
            );
            now += REST / 2;
            assert_eq!(
                breaker.end(begun, Sign::Failing, &RULES, MOST, now, 0.0),
                BreakerChange::Reopened
            );
        }
        let begun = breaker.begin(now + REST);
        breaker.end(begun, Sign::Failing, &RULES, MOST, now, 1.0);
        assert_eq!(
            breaker.opens_at(now),
            Some(now + REST.mul_f64(0.8)),
            "chance only makes it earlier"
        );
    }

    #[test]
    fn a_success_closes_it_and_the_calls_double_up_to_the_cap() {
        let now = Instant::now();
        let mut breaker = open(now);
        let now = now + REST;
        assert_eq!(call(&mut breaker, Sign::Alive, now), BreakerChange::Closed);
        let mut rooms = Vec::new();
        for sign in [
            Sign::Alive,
            Sign::Failing,
            Sign::Alive,
            Sign::Alive,
            Sign::Alive,
        ] {
            rooms.push(breaker.room(0, now));
            assert_eq!(call(&mut breaker, sign, now), BreakerChange::None);
        }
        assert_eq!(rooms, [2, 4, 2, 4, 8]);
        assert_eq!(breaker.room(3, now), usize::MAX, "then its caps hold alone");
    }

    #[test]
    fn what_began_before_it_opened_says_nothing_after() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        let old = breaker.begin(now);
        call(&mut breaker, Sign::Failing, now);
        call(&mut breaker, Sign::Failing, now);
        let now = now + REST;
        let probe = breaker.begin(now);
        assert_eq!(
            breaker.end(old, Sign::Alive, &RULES, MOST, now, 0.0),
            BreakerChange::None
        );
        assert_eq!(breaker.state(now), BreakerState::HalfOpen);
        // A probe that called nobody makes room for the next one.
        assert_eq!(
            breaker.end(probe, Sign::Nothing, &RULES, MOST, now, 0.0),
            BreakerChange::None
        );
        assert_eq!(breaker.room(0, now), 1);
        assert!(breaker.reset(now) && !breaker.reset(now));
        assert_eq!((breaker.room(9, now), breaker.failures()), (usize::MAX, 0));
    }
}
