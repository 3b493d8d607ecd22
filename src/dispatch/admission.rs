//! Admission of one claim: the room that the throttle has, less what the claim has taken already.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::throttle::{Rules, TakenByClaim, Throttle};
use crate::inbox::Terms;
use crate::model::{Account, Destination, Overlap, Route};

/// The largest number of deliveries in one claim.
const CLAIM: usize = 128;

/// The room for one claim.
pub(super) struct Admission {
    throttle: Arc<Throttle>,
    rules: Arc<Rules>,
    replicas: u32,
    now: Instant,
    room: usize,
    probes: [usize; 2],
    accounts: HashMap<Account, usize>,
    destinations: HashMap<(Account, Destination), usize>,
    sources: HashMap<String, usize>,
}

impl Admission {
    /// The room at a time.
    pub(super) fn new(
        throttle: Arc<Throttle>,
        rules: Arc<Rules>,
        replicas: u32,
        now: Instant,
    ) -> Self {
        let (accounts, destinations, sources) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut offer = Self {
            throttle,
            rules,
            replicas,
            now,
            room: 0,
            probes: [0; 2],
            accounts,
            destinations,
            sources,
        };
        offer.begin();
        offer
    }
}

impl Terms for Admission {
    fn begin(&mut self) {
        self.room = self
            .throttle
            .room(&self.rules, self.replicas, self.now)
            .min(CLAIM);
        self.probes = [0; 2];
        self.accounts.clear();
        self.destinations.clear();
        self.sources.clear();
    }

    fn room(&self) -> usize {
        self.room
    }

    fn open(&mut self, route: &Route) -> usize {
        if self.room == 0 {
            return 0;
        }
        let called = (route.account.clone(), route.destination.clone());
        let others = self
            .accounts
            .iter()
            .filter(|(account, _)| **account != Account::Operator);
        let taken = TakenByClaim {
            account: self
                .accounts
                .get(&route.account)
                .copied()
                .unwrap_or_default(),
            others: others.map(|(_, count)| *count).sum(),
            shared_key: self.rules.taken_by_key(&self.accounts),
            destination: self.destinations.get(&called).copied().unwrap_or_default(),
            source: self.sources.get(&route.source).copied().unwrap_or_default(),
            probes: self.probes[usize::from(route.account.is_foreign())],
        };
        self.throttle
            .open(route, &self.rules, self.replicas, taken, self.now)
            .min(self.room)
    }

    fn took(&mut self, route: &Route, count: usize) {
        self.room = self.room.saturating_sub(count);
        if count == 0 {
            return;
        }
        if self.throttle.is_probe(route, self.now) {
            self.probes[usize::from(route.account.is_foreign())] += count;
        }
        *self.accounts.entry(route.account.clone()).or_default() += count;
        *self
            .destinations
            .entry((route.account.clone(), route.destination.clone()))
            .or_default() += count;
        *self.sources.entry(route.source.clone()).or_default() += count;
    }

    fn overlap(&self, source: &str) -> Overlap {
        self.rules.overlap(source)
    }

    fn weight(&self, source: &str) -> u32 {
        self.rules.weight(source)
    }

    fn foreign_share(&self) -> u32 {
        self.rules.foreign_share()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::breaker::{BreakerState, Sign};
    use super::super::throttle::{Closed, InFlight};
    use super::*;
    use crate::config::{Config, Problems};
    use crate::inbox::Pause;
    use crate::model::Class;
    use crate::telemetry::Metrics;
    use crate::upstream::Budget;

    const SECOND: Duration = Duration::from_secs(1);

    struct World {
        throttle: Arc<Throttle>,
        rules: Arc<Rules>,
        replicas: u32,
        now: Instant,
        places: Vec<InFlight>,
    }

    impl World {
        fn new(dispatch: &str) -> Self {
            let file = format!(
                "[dispatch]\nbreaker_calls = 2\n{dispatch}\n[sources.small]\nprovider = \"custom\"\nagent = \"a\"\n\
                 verify = {{ scheme = \"none\" }}\nconcurrency = 2\noverlap = \"latest\""
            );
            let problems = Problems::default();
            let config = Config::parse(
                "t",
                &file,
                std::path::Path::new("."),
                std::iter::empty(),
                &problems,
            );
            assert!(!problems.any_error(), "{:?}", problems.into_sorted());
            let throttle = Throttle::new(Budget::default(), Arc::new(Metrics::new()));
            let rules = Arc::new(Rules::new(&config.unwrap()));
            Self {
                throttle,
                rules,
                replicas: 1,
                now: Instant::now(),
                places: Vec::new(),
            }
        }

        fn offer(&self) -> Admission {
            Admission::new(
                self.throttle.clone(),
                self.rules.clone(),
                self.replicas,
                self.now,
            )
        }

        /// How many a claim would get of each of these routes, in turn.
        fn would_take(&self, routes: &[Route]) -> Vec<usize> {
            let mut offer = self.offer();
            let take = |route| {
                let open = offer.open(route);
                offer.took(route, open);
                open
            };
            routes.iter().map(take).collect()
        }

        /// How many of this route alone.
        fn room(&self, route: &Route) -> usize {
            self.offer().open(route)
        }

        fn enter(&mut self, route: &Route, count: usize) {
            for _ in 0..count {
                self.places.push(self.throttle.enter(
                    route.clone(),
                    &self.rules,
                    self.replicas,
                    self.now,
                ));
            }
        }

        /// Calls, one after the other, that all end so.
        fn calls(&self, route: &Route, sign: Sign, count: usize) {
            for _ in 0..count {
                let mut place =
                    self.throttle
                        .enter(route.clone(), &self.rules, self.replicas, self.now);
                place.tell(sign, &self.rules, self.replicas, self.now, 0.0);
            }
        }

        fn opens_in(&self) -> Option<Duration> {
            Some(
                self.throttle
                    .opens_at(&self.rules, self.replicas, self.now)?
                    - self.now,
            )
        }

        fn closed(&self, destination: &str) -> Option<Closed> {
            let statuses = self.throttle.statuses(&self.rules, self.replicas, self.now);
            statuses
                .into_iter()
                .find(|status| status.destination.to_string() == destination)?
                .closed
                .map(|(why, _)| why)
        }
    }

    fn route(source: &str, agent: &str) -> Route {
        let destination = format!("agent/{agent}").parse().unwrap();
        Route {
            source: source.into(),
            destination,
            account: Account::Operator,
            class: Class::Normal,
        }
    }

    #[test]
    fn caps_hold_whole_per_destination_and_per_source() {
        let mut world = World::new(
            "concurrency = 10\ndestination_concurrency = 4\n[destinations.\"agent/b\"]\nconcurrency = 5\nrate = \"9/h\"",
        );
        let (a, b, c, small) = (
            route("s", "a"),
            route("s", "b"),
            route("s", "c"),
            route("small", "c"),
        );
        assert_eq!(
            world.would_take(&[a.clone(), small.clone(), c.clone(), b.clone()]),
            [4, 2, 2, 1]
        );
        assert_eq!(
            world.would_take(&[a.clone(), c.clone(), route("s", "d")]),
            [4, 4, 2]
        );
        world.enter(&a, 3);
        world.enter(&small, 1);
        assert_eq!(
            world.would_take(&[a.clone(), small.clone(), c.clone(), b.clone()]),
            [1, 1, 2, 1]
        );
        world.enter(&a, 1);
        assert_eq!(
            (world.room(&a), world.closed("agent/a")),
            (0, Some(Closed::Concurrency))
        );
        assert_eq!(
            world.opens_in(),
            None,
            "a place that is freed is no matter of time"
        );
        world.enter(&c, 5);
        assert_eq!(
            (world.offer().room(), world.closed("agent/c")),
            (0, Some(Closed::Concurrency))
        );
        world.places.clear();
        assert_eq!(world.would_take(&[a, small]), [4, 2]);
        assert_eq!(
            world.offer().overlap("small"),
            Overlap {
                mode: crate::model::OverlapMode::Latest,
                ..Overlap::QUEUE
            }
        );
        assert_eq!(world.offer().overlap("gone"), Overlap::QUEUE);
    }

    #[test]
    fn a_claim_that_begins_anew_has_taken_nothing() {
        let world = World::new("concurrency = 3");
        let mut offer = world.offer();
        let a = route("s", "a");
        offer.took(&a, offer.room());
        assert_eq!((offer.room(), offer.open(&a)), (0, 0));
        offer.begin();
        assert_eq!((offer.room(), offer.open(&a)), (3, 3));
    }

    #[test]
    fn rates_close_and_open_by_time() {
        let mut world = World::new("rate = \"200/s\"\n[destinations.\"agent/a\"]\nrate = \"20/s\"");
        let (a, b) = (route("s", "a"), route("s", "b"));
        assert_eq!(world.would_take(&[a.clone(), b.clone()]), [2, 18]);
        world.enter(&a, 2);
        world.places.clear();
        assert_eq!(
            (world.would_take(&[a.clone(), b.clone()]), world.opens_in()),
            (vec![0, 18], Some(SECOND / 20))
        );
        assert_eq!(world.closed("agent/a"), Some(Closed::Rate));
        world.enter(&b, 18);
        assert_eq!(
            (world.offer().room(), world.opens_in()),
            (0, Some(SECOND / 200))
        );
        assert_eq!(world.closed("agent/b"), Some(Closed::AllRate));
        world.now += SECOND / 20;
        assert_eq!(
            (world.would_take(&[a, b]), world.opens_in()),
            (vec![1, 9], None)
        );
    }

    #[test]
    fn replicas_share_every_cap_and_rate_and_each_has_something() {
        let mut world =
            World::new("concurrency = 8\ndestination_concurrency = 4\ndestination_rate = \"80/s\"");
        world.replicas = 3;
        assert_eq!(
            world.would_take(&[route("s", "a"), route("small", "b"), route("s", "c")]),
            [1, 1, 0]
        );
        world.replicas = 100;
        assert_eq!(world.would_take(&[route("s", "a")]), [1]);
    }

    #[test]
    fn the_budget_bounds_what_is_claimed() {
        let world = World::new("");
        world.throttle.budget.set(Some(crate::config::Rate {
            count: 30,
            per: SECOND,
        }));
        let _expected = world.throttle.budget.expect();
        assert_eq!(
            world.would_take(&[route("s", "a"), route("s", "b")]),
            [2, 0]
        );
        let _more = [
            world.throttle.budget.expect(),
            world.throttle.budget.expect(),
        ];
        assert_eq!(
            (world.offer().room(), world.opens_in()),
            (0, Some(SECOND / 30))
        );
    }

    #[test]
    fn what_is_held_is_closed_and_keeps_nothing_else_waiting() {
        let world = World::new("");
        let (a, b) = (route("s", "a"), route("small", "b"));
        world
            .throttle
            .set_pauses([Pause::Destination(a.destination.clone())], 0);
        assert_eq!(world.would_take(&[a.clone(), b.clone()]), [0, 2]);
        world
            .throttle
            .set_pauses([Pause::Source("small".into())], 0);
        assert_eq!(world.would_take(&[a, b]), [128, 0]);
        assert!(world.throttle.has_pauses());
    }

    #[tokio::test]
    async fn a_hold_answers_when_no_run_is_about_to_begin() {
        let world = World::new("");
        let (a, b) = (route("s", "a"), route("small", "b"));
        let begun = world.throttle.set_out(&a).expect("nothing is held");
        let read = world.throttle.pause_changes();
        let gone = world.throttle.pause_here(&Pause::Source("s".into()), true);
        assert!(world.throttle.set_out(&a).is_none() && world.throttle.set_out(&b).is_some());
        assert_eq!(
            world.throttle.closed(&a, &world.rules, 1, world.now),
            Some((Closed::Paused, None))
        );
        assert!(!gone.is_closed(), "one is about to begin");
        drop(begun);
        gone.closed().await;
        // What was read from the inbox before that is older, and lets nothing go.
        world.throttle.set_pauses([], read);
        assert!(world.throttle.set_out(&a).is_none());
        world
            .throttle
            .set_pauses([], world.throttle.pause_changes());
        assert!(world.throttle.set_out(&a).is_some());
    }

    #[test]
    fn f11_a_destination_that_fails_is_left_alone_tried_and_ramped_up() {
        let mut world = World::new("destination_concurrency = 7");
        let (a, b) = (route("s", "a"), route("s", "b"));
        world.calls(&a, Sign::Failing, 1);
        assert_eq!(
            (world.would_take(&[a.clone(), b.clone()]), world.opens_in()),
            (vec![0, 7], Some(10 * SECOND))
        );
        assert_eq!(world.closed("agent/a"), Some(Closed::Breaker));
        world.now += 10 * SECOND;
        assert_eq!(
            (world.would_take(&[a.clone(), a.clone()]), world.opens_in()),
            (vec![1, 0], None)
        );
        world.enter(&a, 1);
        assert_eq!((world.room(&a), world.opens_in()), (0, None));
        assert_eq!(world.closed("agent/a"), Some(Closed::Probing));
        // Given up without a word, as by a panic: the next may try.
        world.places.clear();
        assert_eq!(world.room(&a), 1);
        let rooms: Vec<usize> = (0..4)
            .map(|_| {
                world.calls(&a, Sign::Alive, 1);
                world.room(&a)
            })
            .collect();
        assert_eq!(rooms, [2, 4, 7, 7]);
    }

    #[test]
    fn a_reset_opens_what_rests() {
        let mut world = World::new("");
        let a = route("s", "a");
        assert!(!world.throttle.call_again(&a.destination, world.now));
        world.calls(&a, Sign::Failing, 1);
        assert!(world.throttle.call_again(&a.destination, world.now));
        world.enter(&a, 1);
        world.throttle.rest(&a, true, world.now + SECOND);
        assert_eq!((world.room(&a), world.opens_in()), (0, Some(SECOND)));
        world.throttle.rest(&a, false, world.now + 2 * SECOND);
        world.now += SECOND;
        assert_eq!(
            (
                world.would_take(&[a.clone(), route("s", "b")]),
                world.opens_in()
            ),
            (vec![0, 128], Some(SECOND))
        );
        assert!(world.throttle.call_again(&a.destination, world.now));
        assert_eq!(world.room(&a), 128);
    }

    #[test]
    fn a_thousand_destinations_that_failed_are_tried_a_few_at_once() {
        let mut world = World::new("concurrency = 20");
        let routes: Vec<Route> = (0..1000).map(|n| route("s", &n.to_string())).collect();
        routes
            .iter()
            .for_each(|route| world.calls(route, Sign::Failing, 1));
        world.now += 10 * SECOND;
        assert_eq!(world.would_take(&routes).iter().sum::<usize>(), 8);
        routes
            .iter()
            .take(8)
            .for_each(|route| world.enter(route, 1));
        assert_eq!(
            (
                world.would_take(&routes).iter().sum::<usize>(),
                world.opens_in()
            ),
            (0, None)
        );
        // One answers: the upstream is back, and the others may be tried sooner.
        let mut places = std::mem::take(&mut world.places);
        places
            .remove(0)
            .tell(Sign::Alive, &world.rules, 1, world.now, 0.0);
        let (closed, tried) = (
            world.would_take(&routes[..1])[0],
            world.would_take(&routes[8..]).iter().sum::<usize>(),
        );
        assert_eq!((closed, tried), (2, 9));
        places
            .remove(0)
            .tell(Sign::Failing, &world.rules, 1, world.now, 0.0);
        assert_eq!(world.would_take(&routes[8..]).iter().sum::<usize>(), 2);
    }

    #[test]
    fn destinations_that_callers_name_do_not_fill_the_memory() {
        let mut world = World::new("");
        world.enter(&route("s", "kept"), 1);
        for n in 0..50_000 {
            world.now += SECOND / 1000;
            world.calls(&route("s", &n.to_string()), Sign::Failing, 1);
        }
        let statuses = world.throttle.statuses(&world.rules, 1, world.now);
        assert!(statuses.len() <= 10_001, "{}", statuses.len());
        assert!(statuses.iter().any(|status| status.in_flight == 1));
        assert!(
            statuses
                .iter()
                .all(|status| status.breaker != BreakerState::Closed || status.in_flight == 1)
        );
        // What was called long ago and is called as before is forgotten.
        world.places.clear();
        world.now += 1000 * SECOND;
        world.enter(&route("s", "new"), 1);
        let statuses = world.throttle.statuses(&world.rules, 1, world.now);
        assert!(
            !statuses
                .iter()
                .any(|status| status.destination.id == "kept")
        );
    }
}
