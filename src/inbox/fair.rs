//! Fair shares: the places of a claim are dealt to those that have something due. Pure.
//!
//! What is promised: while both wait, callers with foreign keys have no more than their share, and everybody else the
//! rest; of those, the more urgent class goes first, and no class that waits has less than a tenth; in a class every
//! account has an equal share, and in an account every source as much as its weight says. Whoever has nothing due costs
//! the others nothing and saves nothing up.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

use super::Terms;
use crate::model::{Account, Class, Route};

/// Number of ranks; numbers of routes are given out in one range for each, so that a claim finds some of every
/// rank however many routes another has. Rank 0 holds routes from before there were ranks.
pub(super) const RANKS: i64 = 10;

/// Number of open routes of a rank a claim looks at.
pub(super) const ROUTES: usize = 128;

/// Cost of one place at weight 1.
const COST: u64 = 1_000_000;

/// After how many places that others had a class has one.
const PATIENCE: u32 = 9;

/// Names that are remembered in each table. Accounts and sources come from the configuration, so there are few.
const MOST: usize = 1_000;

/// The rank of a route.
pub(super) fn rank(account: &Account, class: Class) -> i64 {
    let whose = match account {
        Account::Operator => 0,
        Account::Key(_) => 1,
        Account::Foreign => 2,
    };
    let class = match class {
        Class::Interactive => 0,
        Class::Normal => 1,
        Class::Bulk => 2,
    };
    1 + 3 * class + whose
}

/// The places given of late, by account and source.
#[derive(Debug, Default)]
pub struct Shares {
    /// Ours and the foreign (true).
    sides: WeightedTurns<bool>,
    /// Places that each class has waited for, by side.
    waited: [[u32; 3]; 2],
    accounts: HashMap<(bool, Class), WeightedTurns<Account>>,
    sources: HashMap<(Class, Account), WeightedTurns<String>>,
    /// The last route of each source.
    last: HashMap<(Class, Account, String), i64>,
    /// The place where the last look at a rank ended that did not see all of it.
    pub(super) walked: HashMap<i64, i64>,
}

/// Some who share by weight: whoever has had the least for its weight is next.
#[derive(Debug)]
struct WeightedTurns<K> {
    had: HashMap<K, u64>,
    /// The places that the last one had before its turn. One that comes back begins there.
    floor: u64,
}

impl<K> Default for WeightedTurns<K> {
    fn default() -> Self {
        Self {
            had: HashMap::new(),
            floor: 0,
        }
    }
}

impl<K: Hash + Eq> WeightedTurns<K> {
    /// The next of these, with the first of equals.
    fn next<'a, Q>(&mut self, waiting: impl Iterator<Item = &'a Q>) -> Option<&'a Q>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized + 'a,
    {
        let (least, next) = waiting
            .map(|key| (self.had_by(key), key))
            .min_by_key(|(had, _)| *had)?;
        self.floor = least;
        Some(next)
    }

    fn had_by<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> u64
    where
        K: Borrow<Q>,
    {
        self.had.get(key).copied().unwrap_or(0).max(self.floor)
    }

    fn charge<Q>(&mut self, key: &Q, weight: u32)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let had = self
            .had_by(key)
            .saturating_add(COST / u64::from(weight.max(1)));
        if let Some(entry) = self.had.get_mut(key) {
            *entry = had;
            return;
        }
        bound(&mut self.had);
        self.had.insert(key.to_owned(), had);
    }

    fn refund<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, weight: u32, count: usize)
    where
        K: Borrow<Q>,
    {
        if let Some(had) = self.had.get_mut(key) {
            *had =
                had.saturating_sub((COST / u64::from(weight.max(1))).saturating_mul(count as u64));
        }
    }
}

/// Forgets all where there would be too many: everybody begins anew, which costs nobody more than a place or two.
fn bound<K: Hash + Eq, V>(table: &mut HashMap<K, V>) {
    if table.len() >= MOST {
        table.clear();
    }
}

/// Those that still wait, as places of the list that is dealt to: side, class, account, source.
type WaitingRoutes<'a> =
    BTreeMap<bool, BTreeMap<Class, BTreeMap<&'a Account, BTreeMap<&'a str, VecDeque<usize>>>>>;

impl Shares {
    /// Deals up to `room` places to routes that have something due. Says how many each gets; the terms are told.
    pub fn deal<N: Copy + Into<i64>>(
        &mut self,
        due: &[(N, Route)],
        terms: &mut dyn Terms,
        room: usize,
    ) -> Vec<usize> {
        let mut dealt = vec![0; due.len()];
        if let [(_, route)] = due {
            // Nobody else waits.
            dealt[0] = terms.open(route).min(room);
            terms.took(route, dealt[0]);
            return dealt;
        }
        let mut waiting = self.waiting(due);
        let mut left = room;
        while left > 0
            && let Some((foreign, class, account, source)) = self.next(&waiting)
        {
            let routes = waiting
                .get_mut(&foreign)
                .and_then(|side| side.get_mut(&class)?.get_mut(account)?.get_mut(source))
                .and_then(|routes| Some((routes.pop_front()?, routes)));
            let Some((place, routes)) = routes else { break };
            let Some((number, route)) = due.get(place) else {
                break;
            };
            if terms.open(route) == 0 {
                remove_empty(&mut waiting, foreign, class, account, source);
                continue;
            }
            terms.took(route, 1);
            routes.push_back(place);
            dealt[place] += 1;
            left -= 1;
            self.charge(route, terms, &waiting);
            let leaf = (class, account.clone(), source.to_owned());
            bound(&mut self.last);
            self.last.insert(leaf, (*number).into());
        }
        dealt
    }

    /// Takes back what was dealt to a route and not used.
    pub(super) fn refund(&mut self, route: &Route, terms: &dyn Terms, count: usize) {
        let foreign = route.account.is_foreign();
        self.sides
            .refund(&foreign, side_weight(foreign, terms), count);
        if let Some(line) = self.accounts.get_mut(&(foreign, route.class)) {
            line.refund(&route.account, 1, count);
        }
        if let Some(line) = self.sources.get_mut(&(route.class, route.account.clone())) {
            line.refund(route.source.as_str(), terms.weight(&route.source), count);
        }
    }

    fn waiting<'a, N: Copy + Into<i64>>(&self, due: &'a [(N, Route)]) -> WaitingRoutes<'a> {
        let mut waiting = WaitingRoutes::new();
        for (place, (_, route)) in due.iter().enumerate() {
            let side = waiting.entry(route.account.is_foreign()).or_default();
            let account = side
                .entry(route.class)
                .or_default()
                .entry(&route.account)
                .or_default();
            account.entry(&route.source).or_default().push_back(place);
        }
        // In turn by their numbers, beginning behind the last one.
        for (class, account, source, routes) in
            waiting
                .values_mut()
                .flatten()
                .flat_map(|(class, accounts)| {
                    accounts.iter_mut().flat_map(move |(account, sources)| {
                        sources
                            .iter_mut()
                            .map(move |(source, routes)| (*class, *account, *source, routes))
                    })
                })
        {
            let number = |place: &usize| due.get(*place).map_or(0, |(number, _)| (*number).into());
            let last = self
                .last
                .get(&(class, account.clone(), source.to_owned()))
                .copied();
            routes.make_contiguous().sort_by_key(|place| {
                let number: i64 = number(place);
                (last.is_some_and(|last| number <= last), number)
            });
        }
        waiting
    }

    /// Finds the one that is next.
    fn next<'a>(
        &mut self,
        waiting: &WaitingRoutes<'a>,
    ) -> Option<(bool, Class, &'a Account, &'a str)> {
        let foreign = *self.sides.next(waiting.keys())?;
        let classes = waiting.get(&foreign)?;
        let waited = &self.waited[usize::from(foreign)];
        let longest = classes
            .keys()
            .filter(|class| waited[**class as usize] >= PATIENCE);
        let longest =
            longest.max_by_key(|class| (waited[**class as usize], std::cmp::Reverse(**class)));
        let class = *longest.or_else(|| classes.keys().next())?;
        let accounts = classes.get(&class)?;
        let account = {
            let line = self.accounts.entry((foreign, class)).or_default();
            *accounts
                .keys()
                .min_by_key(|account| line.had_by::<Account>(account))?
        };
        let sources = accounts.get(account)?;
        let source = {
            let line = self.sources.entry((class, account.clone())).or_default();
            *sources
                .keys()
                .min_by_key(|source| line.had_by::<str>(source))?
        };
        Some((foreign, class, account, source))
    }

    /// Notes that a route has had a place.
    fn charge(&mut self, route: &Route, terms: &dyn Terms, waiting: &WaitingRoutes<'_>) {
        let foreign = route.account.is_foreign();
        self.sides.charge(&foreign, side_weight(foreign, terms));
        let waited = &mut self.waited[usize::from(foreign)];
        for class in Class::ALL {
            let waits = waiting
                .get(&foreign)
                .is_some_and(|side| side.contains_key(&class));
            let entry = &mut waited[class as usize];
            *entry = match (waits, class == route.class) {
                (true, true) => entry.saturating_sub(PATIENCE),
                (true, false) => (*entry + 1).min(10 * PATIENCE),
                (false, _) => 0,
            };
        }
        let line = self.accounts.entry((foreign, route.class)).or_default();
        line.floor = line.had_by(&route.account);
        line.charge(&route.account, 1);
        bound(&mut self.sources);
        let line = self
            .sources
            .entry((route.class, route.account.clone()))
            .or_default();
        line.floor = line.had_by(route.source.as_str());
        line.charge(route.source.as_str(), terms.weight(&route.source));
    }
}

/// The weight of the foreign against all others.
fn side_weight(foreign: bool, terms: &dyn Terms) -> u32 {
    let share = terms.foreign_share().clamp(1, 99);
    if foreign { share } else { 100 - share }
}

fn remove_empty(
    waiting: &mut WaitingRoutes<'_>,
    foreign: bool,
    class: Class,
    account: &Account,
    source: &str,
) {
    let Some(side) = waiting.get_mut(&foreign) else {
        return;
    };
    if let Some(accounts) = side.get_mut(&class) {
        if let Some(sources) = accounts.get_mut(account) {
            if sources.get(source).is_some_and(VecDeque::is_empty) {
                sources.remove(source);
            }
            if sources.is_empty() {
                accounts.remove(account);
            }
        }
        if accounts.is_empty() {
            side.remove(&class);
        }
    }
    if side.is_empty() {
        waiting.remove(&foreign);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Overlap;

    /// Everything is open, up to so many of each route.
    struct Open(HashMap<Route, usize>);

    impl Terms for Open {
        fn begin(&mut self) {}
        fn room(&self) -> usize {
            usize::MAX
        }
        fn open(&mut self, route: &Route) -> usize {
            self.0.get(route).copied().unwrap_or(usize::MAX)
        }
        fn took(&mut self, route: &Route, count: usize) {
            if let Some(left) = self.0.get_mut(route) {
                *left -= count;
            }
        }
        fn overlap(&self, _: &str) -> Overlap {
            Overlap::QUEUE
        }
        fn weight(&self, source: &str) -> u32 {
            if source == "heavy" { 3 } else { 1 }
        }
        fn foreign_share(&self) -> u32 {
            25
        }
    }

    fn route(account: &str, class: Class, source: &str) -> Route {
        let destination = "agent/a".parse().unwrap();
        Route {
            source: source.into(),
            destination,
            account: account.parse().unwrap(),
            class,
        }
    }

    /// Deals so many places to these, a few at a time. Returns the places of each.
    fn shares(routes: &[Route], places: usize, at_once: usize) -> Vec<usize> {
        let due: Vec<(i64, Route)> = (1..).zip(routes.iter().cloned()).collect();
        let (mut shares, mut terms) = (Shares::default(), Open(HashMap::new()));
        let mut had = vec![0; due.len()];
        for _ in 0..places / at_once {
            for (had, dealt) in had.iter_mut().zip(shares.deal(&due, &mut terms, at_once)) {
                *had += dealt;
            }
        }
        had
    }

    #[test]
    fn the_urgent_go_first_and_no_class_has_less_than_a_tenth() {
        let routes = Class::ALL.map(|class| route("operator", class, "s"));
        for at_once in [1, 10, 1_000] {
            let had = shares(&routes, 1_000, at_once);
            assert!(had[0] >= 790 && had[1] >= 99 && had[2] >= 99, "{had:?}");
        }
        let had = shares(&routes[1..], 1_000, 1);
        assert!(had[0] >= 890 && had[1] >= 99, "{had:?}");
    }

    #[test]
    fn a_chat_waits_for_one_other_place_at_most_however_much_waits_in_bulk() {
        let (bulk, chat) = (
            route("operator", Class::Bulk, "s"),
            route("operator", Class::Interactive, "s"),
        );
        let (mut shares, mut terms) = (Shares::default(), Open(HashMap::new()));
        for round in 0..100 {
            for _ in 0..round {
                shares.deal(&[(1, bulk.clone())], &mut terms, 1);
            }
            let both = [(1, bulk.clone()), (2, chat.clone())];
            let turns = [
                shares.deal(&both, &mut terms, 1),
                shares.deal(&both, &mut terms, 1),
            ];
            assert!(turns.iter().any(|dealt| dealt[1] == 1), "{turns:?}");
        }
    }

    #[test]
    fn accounts_share_equally_and_sources_by_weight() {
        let of = |account, source| route(account, Class::Normal, source);
        let had = shares(
            &[
                of("operator", "a"),
                of("operator", "heavy"),
                of("key/ci", "dropin"),
            ],
            800,
            7,
        );
        assert!(
            had[0].abs_diff(100) < 4 && had[1].abs_diff(300) < 4 && had[2].abs_diff(400) < 4,
            "{had:?}"
        );
    }

    #[test]
    fn s3_the_foreign_have_their_share_and_never_more_while_others_wait() {
        let ours = route("operator", Class::Bulk, "s");
        let theirs: Vec<Route> = (0..50)
            .map(|n| route("foreign", Class::Interactive, &format!("source{n}")))
            .collect();
        let mut routes = vec![ours.clone()];
        routes.extend(theirs.iter().cloned());
        let had = shares(&routes, 1_000, 1);
        assert!(had[0] >= 749, "{had:?}");
        // Whoever comes while they have all of it is next.
        let due: Vec<(i64, Route)> = (1..).zip(routes).collect();
        let (mut shares, mut terms) = (Shares::default(), Open(HashMap::new()));
        assert_eq!(
            shares
                .deal(&due[1..], &mut terms, 500)
                .iter()
                .sum::<usize>(),
            500,
            "nobody else waits"
        );
        assert_eq!(shares.deal(&due, &mut terms, 1)[0], 1);
    }

    #[test]
    fn whoever_was_away_has_saved_nothing_up() {
        let (a, b) = (
            route("operator", Class::Normal, "a"),
            route("operator", Class::Normal, "b"),
        );
        let both = [(1, a.clone()), (2, b)];
        let (mut shares, mut terms) = (Shares::default(), Open(HashMap::new()));
        let others = [(1, a.clone()), (3, route("operator", Class::Normal, "c"))];
        shares.deal(&others, &mut terms, 1_000);
        let dealt = shares.deal(&both, &mut terms, 100);
        assert!(dealt[0].abs_diff(50) <= 1, "{dealt:?}");
    }

    #[test]
    fn what_one_may_not_take_is_for_the_others_and_what_was_not_used_is_not_counted() {
        let (a, b) = (
            route("operator", Class::Normal, "a"),
            route("operator", Class::Normal, "b"),
        );
        let due = [(1, a.clone()), (2, b)];
        let mut shares = Shares::default();
        let mut terms = Open(HashMap::from([(a.clone(), 3)]));
        assert_eq!(shares.deal(&due, &mut terms, 10), [3, 7]);
        shares.refund(&a, &terms, 3);
        let dealt = shares.deal(&due, &mut Open(HashMap::new()), 1);
        assert_eq!(dealt, [1, 0]);
    }

    #[test]
    fn routes_of_one_source_come_in_turn() {
        let due: Vec<(i64, Route)> = (1..=4)
            .map(|n| {
                (
                    n,
                    Route {
                        destination: format!("agent/{n}").parse().unwrap(),
                        ..route("foreign", Class::Bulk, "s")
                    },
                )
            })
            .collect();
        let (mut shares, mut terms) = (Shares::default(), Open(HashMap::new()));
        let turns: Vec<usize> = (0..8)
            .map(|_| {
                shares
                    .deal(&due, &mut terms, 1)
                    .iter()
                    .position(|dealt| *dealt == 1)
                    .unwrap()
            })
            .collect();
        assert_eq!(turns, [0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn names_that_come_and_go_do_not_fill_the_memory() {
        let (mut shares, mut terms) = (Shares::default(), Open(HashMap::new()));
        for n in 0..5_000 {
            let key = |n: i32| route(&format!("key/{n}"), Class::Normal, &format!("s{n}"));
            shares.deal(&[(1, key(n)), (2, key(n + 1))], &mut terms, 2);
        }
        let lines = shares
            .accounts
            .values()
            .map(|line| line.had.len())
            .sum::<usize>();
        assert!(lines <= MOST && shares.sources.len() <= MOST && shares.last.len() <= MOST);
    }
}
