//! How many requests the upstream may get: runs and questions for runs draw on one budget, each waiting for its turn.
//!
//! What is promised: turns come in the order in which they were asked for, and whoever gives up waiting has taken
//! none. A tenth of a rate may go at once and the rest comes evenly, so that no stretch of time sees more than a tenth
//! over the rate.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Rate;

/// A rate, as one process of several keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The time between two.
    each: Duration,
    /// How many may go at once.
    burst: u32,
}

impl Flow {
    /// The share of a rate that one of `replicas` processes has.
    pub fn new(rate: Rate, replicas: u32) -> Self {
        let replicas = replicas.max(1);
        let each = (rate.per / rate.count.max(1)).max(Duration::from_nanos(1)).saturating_mul(replicas);
        Self { each, burst: (rate.count / 10 / replicas).max(1) }
    }

    fn span(&self) -> Duration {
        self.each.saturating_mul(self.burst)
    }
}

/// What has gone of a rate. Pure: the time comes in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// When it is as if nothing had gone; none: it is now.
    full: Option<Instant>,
}

impl Bucket {
    /// How many may go now.
    pub fn room(&self, flow: Flow, now: Instant) -> usize {
        let room = flow.span().saturating_sub(self.ahead(now)).as_nanos() / flow.each.as_nanos();
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// So many go.
    pub fn take(&mut self, flow: Flow, count: usize, now: Instant) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let from = self.full.map_or(now, |full| full.max(now));
        self.full = from.checked_add(flow.each.saturating_mul(count));
    }

    /// When the next may go, where none may now.
    pub fn opens_at(&self, flow: Flow, now: Instant) -> Option<Instant> {
        if self.room(flow, now) > 0 {
            return None;
        }
        Some(now + (self.ahead(now) + flow.each).saturating_sub(flow.span()))
    }

    /// Whether it is as if nothing had gone.
    pub fn is_full(&self, now: Instant) -> bool {
        self.ahead(now).is_zero()
    }

    /// Takes the next turn, and says when that is.
    fn reserve(&mut self, flow: Flow, now: Instant) -> Instant {
        self.take(flow, 1, now);
        now + self.ahead(now).saturating_sub(flow.span())
    }

    fn give_back(&mut self, flow: Flow) {
        self.full = self.full.and_then(|full| full.checked_sub(flow.each));
    }

    fn ahead(&self, now: Instant) -> Duration {
        self.full.map_or(Duration::ZERO, |full| full.saturating_duration_since(now))
    }
}

/// A budget; without a rate there is always a turn. Clones draw on the same.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<Mutex<Drawn>>);

#[derive(Debug)]
struct Drawn {
    rate: Option<Rate>,
    replicas: u32,
    bucket: Bucket,
    /// Requests that were promised to come and have not yet asked for their turn.
    expected: usize,
}

impl Default for Drawn {
    fn default() -> Self {
        Self { rate: None, replicas: 1, bucket: Bucket::default(), expected: 0 }
    }
}

impl Drawn {
    fn flow(&self) -> Option<Flow> {
        self.rate.map(|rate| Flow::new(rate, self.replicas))
    }
}

impl Budget {
    /// Holds this rate from now on; what has gone stays gone.
    pub fn set(&self, rate: Option<Rate>) {
        self.drawn().rate = rate;
    }

    /// Keeps to the share that one of so many processes has.
    pub fn share(&self, replicas: u32) {
        self.drawn().replicas = replicas.max(1);
    }

    /// How many requests may be promised to come now.
    pub fn room(&self, now: Instant) -> usize {
        let drawn = self.drawn();
        drawn.flow().map_or(usize::MAX, |flow| drawn.bucket.room(flow, now).saturating_sub(drawn.expected))
    }

    /// When there is room again, where there is none now.
    pub fn opens_at(&self, now: Instant) -> Option<Instant> {
        let drawn = self.drawn();
        let flow = drawn.flow()?;
        let room = drawn.bucket.room(flow, now);
        match drawn.bucket.opens_at(flow, now) {
            // All that may go is promised already.
            None if room <= drawn.expected => Some(now + flow.each),
            opens_at => opens_at,
        }
    }

    /// Promises a request. The promise is dropped just before the request asks for its turn, or when it will not come.
    pub fn expect(&self) -> Expected {
        self.drawn().expected += 1;
        Expected(self.clone())
    }

    /// How long a request would wait for its turn now.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let drawn = self.drawn();
        let opens_at = drawn.flow().and_then(|flow| drawn.bucket.opens_at(flow, now));
        opens_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// Waits for a turn, and takes it.
    pub(super) async fn turn(&self) {
        let now = tokio::time::Instant::now().into_std();
        let (flow, at) = {
            let mut drawn = self.drawn();
            let Some(flow) = drawn.flow() else { return };
            (flow, drawn.bucket.reserve(flow, now))
        };
        if at > now {
            let mut waiting = Waiting { budget: self, flow, had: false };
            tokio::time::sleep_until(at.into()).await;
            waiting.had = true;
        }
    }

    // Numbers only: there is nothing half done that a panic could leave behind.
    fn drawn(&self) -> MutexGuard<'_, Drawn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was promised to come.
#[derive(Debug)]
pub struct Expected(Budget);

impl Drop for Expected {
    fn drop(&mut self) {
        let mut drawn = self.0.drawn();
        drawn.expected = drawn.expected.saturating_sub(1);
    }
}

/// A turn that somebody waits for; given back when that one gives up.
struct Waiting<'a> {
    budget: &'a Budget,
    flow: Flow,
    had: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.had {
            self.budget.drawn().bucket.give_back(self.flow);
        }
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
        let (flow, begun) = (Flow::new(rate(600, 60 * SECOND), 1), Instant::now());
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
        let (whole, third) = (Flow::new(rate(90, SECOND), 1), Flow::new(rate(90, SECOND), 3));
        assert_eq!(third, Flow { each: whole.each * 3, burst: 3 });
        assert_eq!(Flow::new(rate(1, SECOND), 3), Flow { each: 3 * SECOND, burst: 1 });
    }

    #[tokio::test]
    async fn turns_beyond_the_budget_come_in_order_and_one_given_up_is_not_taken() {
        let budget = Budget::default();
        for _ in 0..1000 {
            budget.turn().await;
        }
        budget.set(Some(rate(10, SECOND)));
        let begun = tokio::time::Instant::now();
        budget.turn().await;
        assert!(begun.elapsed() < SECOND / 20);
        assert!(tokio::time::timeout(SECOND / 50, budget.turn()).await.is_err(), "the second is over it");
        assert!(budget.wait(begun.into_std()) >= SECOND / 10);
        budget.turn().await;
        budget.turn().await;
        let took = begun.elapsed();
        assert!(took >= SECOND / 5 && took < SECOND / 10 * 3, "a turn given up is not taken: {took:?}");
    }

    #[tokio::test]
    async fn what_is_promised_is_not_promised_twice() {
        let budget = Budget::default();
        let now = tokio::time::Instant::now().into_std();
        assert_eq!((budget.room(now), budget.opens_at(now)), (usize::MAX, None));
        budget.set(Some(rate(20, SECOND)));
        assert_eq!(budget.room(now), 2);
        let (one, two) = (budget.expect(), budget.expect());
        assert_eq!((budget.room(now), budget.opens_at(now)), (0, Some(now + SECOND / 20)));
        drop(one);
        budget.turn().await;
        assert_eq!(budget.room(Instant::now()), 0);
        drop(two);
        assert_eq!(budget.room(Instant::now()), 1);
    }
}
