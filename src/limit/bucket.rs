//! A rate that is kept evenly: a tenth of it may go at once, and the rest comes evenly, so that no stretch of time sees
//! more than a tenth over the rate. Pure: the time is an argument.

use std::time::{Duration, Instant};

use crate::config::Rate;

/// The share of a rate that one of several processes keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedRate {
    /// The time between two that go.
    pub each: Duration,
    /// The number that may go at once.
    burst: u32,
}

impl SharedRate {
    /// The share of a rate that one of `replicas` processes has.
    pub fn new(rate: Rate, replicas: u32) -> Self {
        let replicas = replicas.max(1);
        let each = (rate.per / rate.count.max(1))
            .max(Duration::from_nanos(1))
            .saturating_mul(replicas);
        Self {
            each,
            burst: (rate.count / 10 / replicas).max(1),
        }
    }

    fn span(&self) -> Duration {
        self.each.saturating_mul(self.burst)
    }
}

/// The part of a rate that is used up. Pure: the time is an argument.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// The time at which all of the rate is there again; `None`: now.
    full: Option<Instant>,
}

impl Bucket {
    /// The number that may go now.
    pub fn room(&self, flow: SharedRate, now: Instant) -> usize {
        let room = flow.span().saturating_sub(self.ahead(now)).as_nanos() / flow.each.as_nanos();
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Uses up this many.
    pub fn take(&mut self, flow: SharedRate, count: usize, now: Instant) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let from = self.full.map_or(now, |full| full.max(now));
        self.full = from.checked_add(flow.each.saturating_mul(count));
    }

    /// The time at which the next may go; `None` where one may go now.
    pub fn opens_at(&self, flow: SharedRate, now: Instant) -> Option<Instant> {
        if self.room(flow, now) > 0 {
            return None;
        }
        Some(now + (self.ahead(now) + flow.each).saturating_sub(flow.span()))
    }

    /// True if all of the rate is there.
    pub fn is_full(&self, now: Instant) -> bool {
        self.ahead(now).is_zero()
    }

    /// Gives back one that was not used.
    pub fn give_back(&mut self, flow: SharedRate) {
        self.full = self.full.and_then(|full| full.checked_sub(flow.each));
    }

    fn ahead(&self, now: Instant) -> Duration {
        self.full
            .map_or(Duration::ZERO, |full| full.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(count: u32, per: Duration) -> Rate {
        Rate { count, per }
    }

    #[test]
    fn a_tenth_goes_at_once_and_the_rest_evenly() {
        let (flow, begun) = (SharedRate::new(rate(600, 60 * SECOND), 1), Instant::now());
        let mut bucket = Bucket::default();
        assert_eq!(bucket.room(flow, begun), 60);
        let mut gone = 0;
        for tenth in 0..600 {
            let now = begun + tenth * SECOND / 10;
            gone += bucket.room(flow, now);
            bucket.take(flow, bucket.room(flow, now), now);
        }
        assert!((600..=660).contains(&gone), "{gone} in a minute");
        let now = begun + 60 * SECOND;
        bucket.take(flow, bucket.room(flow, now), now);
        assert_eq!(bucket.opens_at(flow, now), Some(now + SECOND / 10));
        assert_eq!(bucket.opens_at(flow, now + SECOND), None);
        assert!(!bucket.is_full(now + 5 * SECOND) && bucket.is_full(now + 6 * SECOND));
    }

    #[test]
    fn replicas_together_keep_to_the_rate() {
        let (whole, third) = (
            SharedRate::new(rate(90, SECOND), 1),
            SharedRate::new(rate(90, SECOND), 3),
        );
        assert_eq!(
            third,
            SharedRate {
                each: whole.each * 3,
                burst: 3
            }
        );
        assert_eq!(
            SharedRate::new(rate(1, SECOND), 3),
            SharedRate {
                each: 3 * SECOND,
                burst: 1
            }
        );
    }
}
