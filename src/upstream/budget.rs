//! Budget of requests to the upstream: runs and questions for runs draw on one rate, each waiting for its permit.
//!
//! Promises: permits are shared by the same rule as the places of a claim (`inbox/fair.rs`), so that no account and no class
//! keeps another waiting; those of one account and class come in the order in which they were asked for; a request that
//! gives up waiting has taken no permit. A tenth of the rate may go at once ([`crate::limit::Bucket`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::config::Rate;
use crate::inbox::{Shares, Terms};
use crate::limit::{Bucket, SharedRate};
use crate::model::{Account, Class, Destination, DestinationKind, Overlap, Route};

/// The share of the budget that a request draws on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Draw {
    /// The account that the request is made for.
    pub account: Account,
    /// Its urgency.
    pub class: Class,
    /// True for a request of a delivery that was claimed for it.
    pub claimed: bool,
}

/// A budget; without a rate there is always a permit. Clones draw on the same budget.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<BudgetState>);

#[derive(Debug, Default)]
struct BudgetState {
    drawn: Mutex<Drawn>,
    /// Held by the one waiting request that hands the permits out.
    hands_out: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Drawn {
    rate: Option<Rate>,
    replicas: u32,
    foreign_share: u32,
    bucket: Bucket,
    /// The number of requests that were promised to come and have not yet asked for their permit.
    expected: usize,
    waiting: BTreeMap<Draw, VecDeque<oneshot::Sender<()>>>,
    shares: Shares,
}

impl Default for Drawn {
    fn default() -> Self {
        Self {
            rate: None,
            replicas: 1,
            foreign_share: 100,
            bucket: Bucket::default(),
            expected: 0,
            waiting: BTreeMap::new(),
            shares: Shares::default(),
        }
    }
}

/// The longest sleep of the request that hands permits out: the rate may be another one by then.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

impl Drawn {
    fn flow(&self) -> Option<SharedRate> {
        self.rate.map(|rate| SharedRate::new(rate, self.replicas))
    }

    /// Gives the permits that there are to the next requests. Returns the time of the next permit.
    fn hand_out(&mut self, now: Instant) -> Instant {
        while let Some(flow) = self.flow() {
            if let Some(at) = self.bucket.opens_at(flow, now) {
                return at;
            }
            let Some(next) = self.next() else {
                return now + flow.each;
            };
            // A request that has given up takes no permit.
            if next.send(()).is_ok() {
                self.bucket.take(flow, 1, now);
            }
        }
        while let Some(next) = self.next() {
            // Without a rate there is a permit for every request.
            let _ = next.send(());
        }
        now + LONGEST_SLEEP
    }

    /// Takes the next of the waiting requests.
    fn next(&mut self) -> Option<oneshot::Sender<()>> {
        let mut groups: Vec<(i64, Route)> = Vec::new();
        for (number, draw) in (0..).zip(self.waiting.keys()) {
            groups.push((number, draw.as_route()));
        }
        let dealt = self
            .shares
            .deal(&groups, &mut Everything(self.foreign_share), 1);
        let place = dealt.iter().position(|dealt| *dealt > 0)?;
        let draw = self.waiting.keys().nth(place)?.clone();
        let line = self.waiting.get_mut(&draw)?;
        let next = line.pop_front();
        if line.is_empty() {
            self.waiting.remove(&draw);
        }
        next
    }

    /// The number of waiting requests of claimed deliveries.
    fn claimed(&self) -> usize {
        self.waiting
            .iter()
            .filter(|(draw, _)| draw.claimed)
            .map(|(_, line)| line.len())
            .sum()
    }
}

impl Draw {
    /// The route by which the rule of sharing knows it.
    fn as_route(&self) -> Route {
        let destination = Destination {
            kind: DestinationKind::Agent,
            id: String::new(),
        };
        Route {
            source: String::new(),
            destination,
            account: self.account.clone(),
            class: self.class,
        }
    }
}

/// The terms on which permits are shared: every waiting request may have one.
struct Everything(u32);

impl Terms for Everything {
    fn begin(&mut self) {}
    fn room(&self) -> usize {
        1
    }
    fn open(&mut self, _: &Route) -> usize {
        1
    }
    fn took(&mut self, _: &Route, _: usize) {}
    fn overlap(&self, _: &str) -> Overlap {
        Overlap::QUEUE
    }
    fn foreign_share(&self) -> u32 {
        self.0
    }
}

impl Budget {
    /// Keeps to this rate from now on; permits that were taken stay taken.
    pub fn set(&self, rate: Option<Rate>) {
        self.drawn().rate = rate;
    }

    /// Sets the percentage of permits for callers with foreign keys while others wait as well.
    pub fn set_foreign_share(&self, share: u32) {
        self.drawn().foreign_share = share;
    }

    /// Keeps to the share of one among this many processes.
    pub fn share(&self, replicas: u32) {
        self.drawn().replicas = replicas.max(1);
    }

    /// The number of requests that may be promised to come now. While others wait for permits it is one, which then waits
    /// among them: the rule of sharing decides which is next.
    pub fn room(&self, now: Instant) -> usize {
        let drawn = self.drawn();
        let Some(flow) = drawn.flow() else {
            return usize::MAX;
        };
        if drawn.waiting.is_empty() {
            return drawn.bucket.room(flow, now).saturating_sub(drawn.expected);
        }
        1_usize.saturating_sub(drawn.expected + drawn.claimed())
    }

    /// The time at which there is room again; `None` where there is room now.
    pub fn opens_at(&self, now: Instant) -> Option<Instant> {
        let drawn = self.drawn();
        let flow = drawn.flow()?;
        if !drawn.waiting.is_empty() {
            return (drawn.expected + drawn.claimed() > 0).then(|| now + flow.each);
        }
        let room = drawn.bucket.room(flow, now);
        match drawn.bucket.opens_at(flow, now) {
            // Everything that may go is promised already.
            None if room <= drawn.expected => Some(now + flow.each),
            opens_at => opens_at,
        }
    }

    /// Promises a request. The promise is dropped just before the request asks for its permit, or if it will not come.
    pub fn expect(&self) -> Expected {
        self.drawn().expected += 1;
        Expected(self.clone())
    }

    /// The time that a request would wait for its permit now, approximately.
    pub(super) fn wait(&self, draw: &Draw, now: Instant) -> Duration {
        let drawn = self.drawn();
        let Some(flow) = drawn.flow() else {
            return Duration::ZERO;
        };
        let opens_in = drawn
            .bucket
            .opens_at(flow, now)
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let before = drawn
            .waiting
            .iter()
            .filter(|(other, _)| other.class <= draw.class)
            .map(|(_, line)| line.len());
        opens_in
            + flow
                .each
                .saturating_mul(u32::try_from(before.sum::<usize>()).unwrap_or(u32::MAX))
    }

    /// Waits for a permit and takes it.
    pub(super) async fn acquire(&self, draw: &Draw) {
        let told = {
            let mut drawn = self.drawn();
            let Some(flow) = drawn.flow() else { return };
            let now = tokio::time::Instant::now().into_std();
            if drawn.waiting.is_empty() && drawn.bucket.room(flow, now) > 0 {
                drawn.bucket.take(flow, 1, now);
                return;
            }
            let (tell, told) = oneshot::channel();
            drawn
                .waiting
                .entry(draw.clone())
                .or_default()
                .push_back(tell);
            told
        };
        let mut waiting = BudgetWaiter {
            budget: self,
            told,
            had: false,
        };
        tokio::select! {
            biased;
            _ = &mut waiting.told => {}
            () = self.hand_out() => {}
        }
        waiting.had = true;
    }

    /// Hands permits out as they come, as soon as no other request does. Does not return.
    async fn hand_out(&self) {
        let _only = self.0.hands_out.lock().await;
        loop {
            let now = tokio::time::Instant::now();
            let at = tokio::time::Instant::from_std(self.drawn().hand_out(now.into_std()));
            tokio::time::sleep_until(at.min(now + LONGEST_SLEEP)).await;
        }
    }

    // Each change is one step: a panic leaves nothing half done.
    fn drawn(&self) -> MutexGuard<'_, Drawn> {
        self.0.drawn.lock()
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

/// A request that waits for a permit. If it gives up, the permit is given back.
struct BudgetWaiter<'a> {
    budget: &'a Budget,
    told: oneshot::Receiver<()>,
    had: bool,
}

impl Drop for BudgetWaiter<'_> {
    fn drop(&mut self) {
        if self.had {
            return;
        }
        let mut drawn = self.budget.drawn();
        // The permit came, and the request was gone before it was taken.
        if self.told.try_recv().is_ok()
            && let Some(flow) = drawn.flow()
        {
            drawn.bucket.give_back(flow);
        }
        // The request is not counted any more.
        self.told.close();
        for line in drawn.waiting.values_mut() {
            line.retain(|other| !other.is_closed());
        }
        drawn.waiting.retain(|_, line| !line.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(count: u32, per: Duration) -> Rate {
        Rate { count, per }
    }

    #[tokio::test]
    async fn permits_beyond_the_budget_come_in_order_and_one_given_up_is_not_taken() {
        let budget = Budget::default();
        for _ in 0..1000 {
            budget.acquire(&Draw::default()).await;
        }
        budget.set(Some(rate(10, SECOND)));
        let begun = tokio::time::Instant::now();
        budget.acquire(&Draw::default()).await;
        assert!(begun.elapsed() < SECOND / 20);
        assert!(
            tokio::time::timeout(SECOND / 50, budget.acquire(&Draw::default()))
                .await
                .is_err(),
            "the second is over it"
        );
        assert!(budget.wait(&Draw::default(), begun.into_std()) >= SECOND / 10);
        budget.acquire(&Draw::default()).await;
        budget.acquire(&Draw::default()).await;
        let took = begun.elapsed();
        assert!(
            took >= SECOND / 5 && took < SECOND / 10 * 3,
            "a permit given up is not taken: {took:?}"
        );
    }

    #[tokio::test]
    async fn what_is_promised_is_not_promised_twice() {
        let budget = Budget::default();
        let now = tokio::time::Instant::now().into_std();
        assert_eq!((budget.room(now), budget.opens_at(now)), (usize::MAX, None));
        budget.set(Some(rate(20, SECOND)));
        assert_eq!(budget.room(now), 2);
        let (one, two) = (budget.expect(), budget.expect());
        assert_eq!(
            (budget.room(now), budget.opens_at(now)),
            (0, Some(now + SECOND / 20))
        );
        drop(one);
        budget.acquire(&Draw::default()).await;
        assert_eq!(budget.room(Instant::now()), 0);
        drop(two);
        assert_eq!(budget.room(Instant::now()), 1);
    }

    #[tokio::test]
    async fn s3_permits_are_shared_by_accounts_and_classes() {
        let budget = Budget::default();
        budget.set(Some(rate(100, SECOND)));
        budget.set_foreign_share(25);
        let gone = |count: usize| {
            let flow = budget.drawn().flow().unwrap();
            budget.drawn().bucket.take(flow, count, Instant::now());
        };
        gone(10);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        let draw = |account: &str, class| Draw {
            account: account.parse().unwrap(),
            class,
            claimed: false,
        };
        let groups = [
            (draw("foreign", Class::Interactive), 40),
            (draw("operator", Class::Bulk), 40),
            (draw("operator", Class::Interactive), 1),
        ];
        for (number, (draw, count)) in groups.into_iter().enumerate() {
            for _ in 0..count {
                let (budget, draw, order) = (budget.clone(), draw.clone(), order.clone());
                tasks.spawn(async move {
                    budget.acquire(&draw).await;
                    order.lock().push(number);
                });
            }
        }
        tasks.join_all().await;
        let order = order.lock().clone();
        let ours = order.iter().take(40).filter(|number| **number > 0).count();
        assert!(ours >= 28, "{order:?}");
        assert!(
            order.iter().position(|number| *number == 2).unwrap() < 3,
            "{order:?}"
        );
    }
}
