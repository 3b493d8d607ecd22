//! A limit on one thing: this process's share of a configured rate.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::share::Share;
use crate::config::Rate;

/// A limiter.
pub struct Limiter {
    rate: Rate,
    share: Share,
    built: ArcSwap<Built<Direct>>,
    /// Start of its clock, and the time after it at which more may come, in microseconds.
    epoch: Instant,
    full: AtomicU64,
}

type Direct = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// State of a limit after a caller was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitStatus {
    /// The limit.
    pub rate: Rate,
    /// Requests that may still come at once.
    pub remaining: u32,
    /// Time until the whole limit may be used again.
    pub reset: Duration,
}

impl LimitStatus {
    /// From a snapshot, in which each request takes as many cells as there are processes.
    pub(super) fn of(rate: Rate, processes: NonZeroU32, snapshot: &StateSnapshot) -> Self {
        let remaining = snapshot.remaining_burst_capacity() / processes;
        let used = rate
            .count
            .saturating_sub(snapshot.remaining_burst_capacity());
        Self {
            rate,
            remaining,
            reset: rate.per / rate.count.max(1) * used,
        }
    }

    /// Nothing is left for a while.
    pub(super) const fn none(rate: Rate, wait: Duration) -> Self {
        Self {
            rate,
            remaining: 0,
            reset: wait,
        }
    }
}

/// A limiter with the burst it was built for.
pub(super) struct Built<L> {
    burst: NonZeroU32,
    pub(super) limiter: L,
}

impl<L> Built<L> {
    /// A limiter for so many processes.
    pub(super) fn new(rate: Rate, processes: NonZeroU32, build: impl FnOnce(Quota) -> L) -> Self {
        let burst = burst(rate, processes);
        Self {
            burst,
            limiter: build(quota(rate, burst)),
        }
    }

    /// True if it was built for this number of processes.
    pub(super) fn fits(&self, rate: Rate, processes: NonZeroU32) -> bool {
        self.burst == burst(rate, processes)
    }
}

impl Limiter {
    /// The configured rate.
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// A share of a rate.
    pub fn new(rate: Rate, share: Share) -> Self {
        let built = Built::new(rate, share.processes(), direct);
        let (epoch, full) = (Instant::now(), AtomicU64::new(0));
        Self {
            rate,
            share,
            built: ArcSwap::from_pointee(built),
            epoch,
            full,
        }
    }

    /// Counts one and says what is left; over the limit, when to come back.
    pub fn check(&self) -> Result<LimitStatus, LimitStatus> {
        let processes = self.share.processes();
        let limiter = &self.built(processes).limiter;
        match limiter.check_n(processes) {
            Ok(Ok(snapshot)) => {
                let left = LimitStatus::of(self.rate, processes, &snapshot);
                if left.remaining == 0 {
                    self.is_full_for(self.rate.per / self.rate.count.max(1) * processes.get());
                }
                Ok(left)
            }
            // Its own clock: a new one first finds out what the processor can, which takes longer than all the rest.
            Ok(Err(until)) => {
                let wait = until.wait_time_from(limiter.clock().now());
                self.is_full_for(wait);
                Err(LimitStatus::none(self.rate, wait))
            }
            // It is built so that one request always fits.
            Err(_) => Err(LimitStatus::none(self.rate, self.rate.per)),
        }
    }

    /// The answer to one more request that is not counted; `None` while something is left. It may say "nothing left" a
    /// little too long: it is for callers that are refused either way.
    pub fn full(&self) -> Option<LimitStatus> {
        let full = Duration::from_micros(self.full.load(Ordering::Relaxed));
        let wait = full
            .checked_sub(self.epoch.elapsed())
            .filter(|wait| !wait.is_zero())?;
        Some(LimitStatus::none(self.rate, wait))
    }

    fn is_full_for(&self, wait: Duration) {
        let until = self.epoch.elapsed() + wait;
        self.full.store(
            u64::try_from(until.as_micros()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    fn built(&self, processes: NonZeroU32) -> Guard<std::sync::Arc<Built<Direct>>> {
        let built = self.built.load();
        if built.fits(self.rate, processes) {
            return built;
        }
        self.built
            .store(Built::new(self.rate, processes, direct).into());
        self.built.load()
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("rate", &self.rate)
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}

fn direct(quota: Quota) -> Direct {
    RateLimiter::direct(quota).with_middleware()
}

/// The whole count may come at once. Where there are more processes than that, each may let one through at a time.
fn burst(rate: Rate, processes: NonZeroU32) -> NonZeroU32 {
    NonZeroU32::new(rate.count)
        .unwrap_or(NonZeroU32::MIN)
        .max(processes)
}

/// A rate as a quota: what came at once comes back evenly.
fn quota(rate: Rate, burst: NonZeroU32) -> Quota {
    let count = NonZeroU32::new(rate.count).unwrap_or(NonZeroU32::MIN);
    let each = rate.per / count.get();
    Quota::with_period(each)
        .unwrap_or_else(|| Quota::per_second(count))
        .allow_burst(burst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(limiter: &Limiter) -> usize {
        (0..1000).take_while(|_| limiter.check().is_ok()).count()
    }

    #[test]
    fn a_rate_lets_its_count_through_and_says_when_to_come_back() {
        let limiter = Limiter::new(
            Rate {
                count: 3,
                per: Duration::from_secs(60),
            },
            Share::default(),
        );
        assert_eq!(passes(&limiter), 3);
        let wait = limiter.check().expect_err("the fourth is over").reset;
        assert!(
            wait > Duration::from_secs(15) && wait <= Duration::from_secs(20),
            "{wait:?}"
        );
    }

    #[test]
    fn what_is_left_and_when_it_is_whole_again_is_said() {
        let rate = Rate {
            count: 6,
            per: Duration::from_secs(60),
        };
        let limiter = Limiter::new(rate, Share::among(2));
        let left = limiter.check().expect("the first");
        assert_eq!(
            (left.rate, left.remaining, left.reset),
            (rate, 2, Duration::from_secs(20))
        );
        assert_eq!(limiter.check().map(|left| left.remaining), Ok(1));
        assert_eq!(limiter.check().map(|left| left.remaining), Ok(0));
        assert_eq!(limiter.check().map_err(|left| left.remaining), Err(0));
    }

    #[test]
    fn whether_it_is_full_is_told_without_counting() {
        let limiter = Limiter::new(
            Rate {
                count: 2,
                per: Duration::from_secs(3600),
            },
            Share::default(),
        );
        assert!(limiter.full().is_none() && limiter.check().is_ok() && limiter.full().is_none());
        assert!(limiter.check().is_ok());
        let wait = limiter.full().expect("nothing is left").reset;
        assert!(
            wait > Duration::from_secs(1700) && wait <= Duration::from_secs(1800),
            "{wait:?}"
        );
    }

    #[test]
    fn three_processes_have_a_third_each_and_what_is_used_stays_used() {
        let share = Share::among(3);
        let limiter = Limiter::new(
            Rate {
                count: 60,
                per: Duration::from_secs(3600),
            },
            share.clone(),
        );
        assert_eq!(passes(&limiter), 20);
        let wait = limiter.check().expect_err("over its share").reset;
        assert!(
            wait > Duration::from_secs(170) && wait <= Duration::from_secs(180),
            "{wait:?}"
        );
        share.set(1);
        assert_eq!(
            passes(&limiter),
            0,
            "a process that leaves gives no second helping"
        );
        share.set(4);
        let more = limiter.check().expect_err("a smaller share").reset;
        assert!(more > wait, "{more:?}");
    }

    #[test]
    fn a_limit_smaller_than_the_number_of_processes_still_lets_some_through() {
        let share = Share::among(5);
        let limiter = Limiter::new(
            Rate {
                count: 2,
                per: Duration::from_secs(60),
            },
            share.clone(),
        );
        assert_eq!(passes(&limiter), 1);
        let wait = limiter.check().expect_err("over its share").reset;
        assert!(
            wait > Duration::from_secs(140) && wait <= Duration::from_secs(150),
            "{wait:?}"
        );
        share.set(0);
        assert_eq!(passes(&limiter), 2, "alone again");
    }
}
