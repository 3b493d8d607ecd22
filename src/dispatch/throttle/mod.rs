//! How much at once and how fast: caps and rates, whole, per account, per destination and per source; what is held; who
//! rests. Pure: time and chance come in.
//!
//! What is promised: no cap is passed, whatever waits; a destination that is closed keeps no other waiting; what one
//! account's calls come to changes nothing for another's, and none takes the last places from the operator; the tables
//! are bounded, however many destinations callers name. It outlives a configuration: what is in flight, resting or
//! used up is so under the next one too.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::breaker::{Breaker, BreakerChange, BreakerState, CallPermit, Sign};
use super::keys::{KeyChange, KeyRefusal, KeySign, LATER, refuse};
use crate::config::{self, Caps, Config};
use crate::inbox::{Pause, budget};
use crate::limit::{Bucket, SharedRate};
use crate::model::{Account, Destination, DestinationKind, Overlap, Route};
use crate::telemetry::Metrics;
use crate::upstream::Budget;

/// How many destinations that were left alone are tried at once, while none of those tried answers.
const PROBES: usize = 8;

/// How long a destination is remembered that nothing is to be remembered of.
const IDLE: Duration = Duration::from_secs(600);

/// How many destinations are remembered at most, apart from those with calls in flight.
const MAX_DESTINATIONS: usize = 10_000;

/// How often the table is looked through for idle ones.
const TIDY: Duration = Duration::from_secs(60);

/// What the operator decided. A new configuration brings new ones.
#[derive(Debug)]
pub(super) struct Rules {
    concurrency: usize,
    rate: Option<config::Rate>,
    each: Caps,
    destinations: HashMap<Destination, Caps>,
    pub(super) breaker: config::BreakerConfig,
    sources: HashMap<String, (Overlap, Option<usize>)>,
    /// How much a source has of what the operator has, where it says.
    weights: HashMap<String, u32>,
    /// Gateway keys that have an upstream key of their own.
    own_keys: HashSet<String>,
    /// Of a hundred places, how many callers with foreign keys may have, how many those with one gateway key, and how
    /// many all of them together.
    foreign: usize,
    key: usize,
    others: usize,
}

/// Of a hundred places, how many callers with one gateway key may have, and how many all callers with keys. The rest is
/// kept for sources, where there are any.
const OF_KEY: usize = 50;
const OF_OTHERS: usize = 75;

impl Rules {
    /// Those of a configuration.
    pub(super) fn new(config: &Config) -> Self {
        let dispatch = &config.dispatch;
        let sources = config.sources.iter();
        let (foreign, alone) = (config.foreign_share() as usize, config.sources.is_empty());
        let others = if alone { 100 } else { OF_OTHERS.max(foreign) };
        Self {
            foreign,
            key: if alone { OF_OTHERS } else { OF_KEY },
            others,
            weights: sources
                .clone()
                .map(|source| (source.name.clone(), source.weight))
                .collect(),
            own_keys: (config.keys.iter())
                .filter(|key| key.upstream_key.is_some())
                .map(|key| key.name.clone())
                .collect(),
            concurrency: dispatch.concurrency,
            rate: dispatch.rate,
            each: dispatch.each_destination,
            destinations: dispatch.destinations.clone(),
            breaker: dispatch.breaker,
            sources: sources
                .map(|source| (source.name.clone(), (source.overlap, source.concurrency)))
                .collect(),
        }
    }

    /// What becomes of turns that wait. A source that is gone, and a caller's own door, let them wait.
    pub(super) fn overlap(&self, source: &str) -> Overlap {
        self.sources
            .get(source)
            .map_or(Overlap::QUEUE, |(overlap, _)| *overlap)
    }

    fn caps(&self, destination: &Destination) -> Caps {
        self.destinations
            .get(destination)
            .copied()
            .unwrap_or(self.each)
    }

    /// How many calls of a destination may be in flight.
    fn most(&self, destination: &Destination, replicas: u32) -> usize {
        self.caps(destination)
            .concurrency
            .map_or(usize::MAX, |most| share(most, replicas))
    }

    /// How many calls an account may have in flight.
    fn most_of_account(&self, account: &Account, replicas: u32) -> usize {
        let all = share(self.concurrency, replicas);
        match account {
            Account::Operator => all,
            Account::Key(_) => part(all, self.key),
            Account::Foreign => part(all, self.foreign),
        }
    }

    /// How many calls all accounts but the operator's may have in flight.
    fn most_of_others(&self, replicas: u32) -> usize {
        part(share(self.concurrency, replicas), self.others)
    }

    /// [`crate::inbox::Terms::weight`]
    pub(super) fn weight(&self, source: &str) -> u32 {
        self.weights.get(source).copied().unwrap_or(1)
    }

    /// Whether an account's calls are made with `upstream.api_key`.
    fn shares_key(&self, account: &Account) -> bool {
        match account {
            Account::Operator => true,
            Account::Key(name) => !self.own_keys.contains(name),
            Account::Foreign => false,
        }
    }

    /// How many of these are of accounts whose calls are made with `upstream.api_key`.
    pub(super) fn taken_by_key(&self, accounts: &HashMap<Account, usize>) -> usize {
        accounts
            .iter()
            .filter(|(account, _)| self.shares_key(account))
            .map(|(_, count)| *count)
            .sum()
    }

    /// The setting that holds the key of an account's calls.
    pub(super) fn key_setting(&self, account: &Account) -> String {
        match account {
            Account::Key(name) if self.own_keys.contains(name) => {
                format!("keys.{name}.upstream_key")
            }
            _ => "upstream.api_key".to_owned(),
        }
    }

    /// [`crate::inbox::Terms::foreign_share`]
    pub(super) fn foreign_share(&self) -> u32 {
        u32::try_from(self.foreign).unwrap_or(100)
    }

    fn most_of_source(&self, source: &str, replicas: u32) -> usize {
        self.sources
            .get(source)
            .and_then(|(_, most)| *most)
            .map_or(usize::MAX, |most| share(most, replicas))
    }
}

/// The share of a cap that one of several processes has: rounded down, but never nothing.
fn share(most: usize, replicas: u32) -> usize {
    let replicas = usize::try_from(replicas.max(1)).unwrap_or(usize::MAX);
    (most / replicas).max(1)
}

/// So many of a hundred: rounded down, but never nothing.
fn part(all: usize, percent: usize) -> usize {
    (all.saturating_mul(percent) / 100).max(1)
}

/// A destination as an account calls it.
type Called = (Account, Destination);

fn called(route: &Route) -> Called {
    (route.account.clone(), route.destination.clone())
}

/// What is in flight, resting and used up.
#[derive(Debug)]
pub struct Throttle {
    table: Mutex<ThrottleState>,
    /// Told when something that was closed may have opened otherwise than by time.
    opened: Notify,
    pub(super) budget: Budget,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct ThrottleState {
    destinations: HashMap<Called, CallState>,
    /// Calls in flight, by account.
    accounts: HashMap<Account, usize>,
    /// Calls in flight, by source.
    sources: HashMap<String, usize>,
    in_flight: usize,
    bucket: Bucket,
    /// Until when the upstream asked to be left alone altogether.
    rest: Option<Instant>,
    /// That the upstream refuses `upstream.api_key`, and when it last took it.
    key: Option<KeyRefusal>,
    key_good: Option<Instant>,
    held: HashSet<Pause>,
    /// How often an operator's word changed that in this process.
    hold_changes: u64,
    /// Every run that is about to begin has a receiver of it; a hold puts another in its place.
    setting_out: watch::Sender<()>,
    /// Budgets of runs that are spent, and until when.
    spent: HashMap<String, Instant>,
    /// Calls in flight that try a destination, and how many there may be: ours and the foreign apart.
    probing: [usize; 2],
    most_probing: [usize; 2],
    /// Destinations whose breaker is not closed.
    broken: usize,
    /// Whether the last claim found something closed.
    closed: bool,
    tidied: Option<Instant>,
}

#[derive(Debug)]
struct CallState {
    in_flight: usize,
    breaker: Breaker,
    bucket: Bucket,
    /// Until when it asked to be left alone.
    rest: Option<Instant>,
    /// That the upstream refuses the account's key here, and when it last refused it as such, since it last took it.
    key: Option<KeyRefusal>,
    key_refused: Option<Instant>,
    touched: Instant,
}

impl CallState {
    fn new(now: Instant) -> Self {
        let (breaker, bucket) = (Breaker::new(now), Bucket::default());
        Self {
            in_flight: 0,
            breaker,
            bucket,
            rest: None,
            key: None,
            key_refused: None,
            touched: now,
        }
    }

    /// Nothing would be lost with it.
    fn is_idle(&self, now: Instant) -> bool {
        self.in_flight == 0
            && self.key.is_none()
            && self.rest.is_none_or(|until| until <= now)
            && self.bucket.is_full(now)
            && self.breaker.state(now) == BreakerState::Closed
            && now.saturating_duration_since(self.touched) >= IDLE
    }
}

/// Why nothing is sent to a destination now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// An operator holds it.
    Held,
    /// The upstream refuses the gateway's own key.
    KeyRefused,
    /// It asked to be left alone for a while.
    AskedToWait,
    /// It failed, and is left alone for a while.
    Breaker,
    /// It failed, and a call that tries it is in flight, or those to others are.
    Probing,
    /// Its cap on calls in flight is reached.
    Concurrency,
    /// The cap of its source on calls in flight is reached.
    SourceConcurrency,
    /// Its rate is used up.
    Rate,
    /// The upstream asked to be left alone altogether.
    AllAskedToWait,
    /// `dispatch.concurrency` is reached.
    AllConcurrency,
    /// The account has its share of `dispatch.concurrency`.
    Share,
    /// `dispatch.rate` is used up.
    AllRate,
    /// `upstream.budget` is used up.
    Budget,
    /// A budget of runs is spent for today.
    Spent,
}

impl Closed {
    /// A stable word for display.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::KeyRefused => "key_refused",
            Self::AskedToWait => "asked_to_wait",
            Self::Breaker => "breaker",
            Self::Probing => "probing",
            Self::Concurrency => "concurrency",
            Self::SourceConcurrency => "source_concurrency",
            Self::Rate => "rate",
            Self::AllAskedToWait => "all_asked_to_wait",
            Self::AllConcurrency => "all_concurrency",
            Self::Share => "share",
            Self::AllRate => "all_rate",
            Self::Budget => "budget",
            Self::Spent => "runs_per_day",
        }
    }
}

/// How a destination statuses that an account calls.
#[derive(Clone, Debug)]
pub(super) struct CallStatus {
    pub(super) destination: Destination,
    pub(super) account: Account,
    pub(super) breaker: BreakerState,
    pub(super) since: Instant,
    pub(super) failures: usize,
    pub(super) in_flight: usize,
    /// Why nothing is sent to it now, and until when where that is known.
    pub(super) closed: Option<(Closed, Option<Instant>)>,
    pub(super) next_probe: Option<Instant>,
}

impl Throttle {
    /// With nothing in flight. Requests that it lets through draw on `budget`.
    pub fn new(budget: Budget, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::new(ThrottleState {
                destinations: HashMap::new(),
                accounts: HashMap::new(),
                sources: HashMap::new(),
                in_flight: 0,
                bucket: Bucket::default(),
                rest: None,
                key: None,
                key_good: None,
                held: HashSet::new(),
                hold_changes: 0,
                setting_out: watch::Sender::new(()),
                spent: HashMap::new(),
                probing: [0; 2],
                most_probing: [PROBES; 2],
                broken: 0,
                closed: false,
                tidied: None,
            }),
            opened: Notify::new(),
            budget,
            metrics,
        })
    }

    /// Waits until something that the last claim found closed may have opened, otherwise than by time.
    pub(super) async fn opened(&self) {
        self.opened.notified().await;
    }

    /// Nothing is begun that counts against a budget, until then. False: that was known.
    pub(super) fn spent(&self, budget: String, until: Instant) -> bool {
        let mut table = self.table();
        // Whichever goes is found again by the next delivery that counts against it.
        if table.spent.len() >= MAX_DESTINATIONS
            && let Some(any) = table.spent.keys().next().cloned()
        {
            table.spent.remove(&any);
        }
        table
            .spent
            .insert(budget, until)
            .is_none_or(|before| until.saturating_duration_since(before) > TIDY)
    }

    /// Has the loop look again at once: what it goes by has changed. A refused key may be another one now, and is tried.
    pub fn changed(&self) {
        let now = tokio::time::Instant::now().into_std();
        let mut table = self.table();
        table.spent.clear();
        let each = table
            .destinations
            .values_mut()
            .filter_map(|entry| entry.key.as_mut());
        each.for_each(|refused| refused.hurry(now));
        if let Some(refused) = &mut table.key {
            refused.hurry(now);
        }
        drop(table);
        self.opened.notify_one();
    }

    /// How often what is held was changed here: for whoever is about to read it from the inbox.
    pub(super) fn hold_changes(&self) -> u64 {
        self.table().hold_changes
    }

    /// What is held, as it was read from the inbox. When an operator has changed it here since `changes` was asked for,
    /// what was read may be older than that and is not taken.
    pub(super) fn hold(&self, held: impl IntoIterator<Item = Pause>, changes: u64) {
        let mut table = self.table();
        if table.hold_changes == changes {
            table.held = held.into_iter().collect();
            self.show_held(&table);
        }
    }

    /// An operator holds something in this process, or lets it go. What is given ends when every run has begun, or
    /// will not, that was about to begin before.
    pub(super) fn hold_here(&self, what: &Pause, on: bool) -> watch::Sender<()> {
        let mut table = self.table();
        table.hold_changes += 1;
        match on {
            true => drop(table.held.insert(what.clone())),
            false => drop(table.held.remove(what)),
        }
        self.show_held(&table);
        self.opened.notify_one();
        std::mem::replace(&mut table.setting_out, watch::Sender::new(()))
    }

    /// A run of this route is about to begin, until what is given is dropped. None: an operator holds it.
    pub(super) fn set_out(&self, route: &Route) -> Option<watch::Receiver<()>> {
        let table = self.table();
        (!table.is_held(route)).then(|| table.setting_out.subscribe())
    }

    /// Why nothing of a route is sent now, and until when where that is known.
    pub(super) fn waits(
        &self,
        route: &Route,
        rules: &Rules,
        replicas: u32,
        now: Instant,
    ) -> Option<(Closed, Option<Instant>)> {
        let table = self.table();
        if table.is_held(route) {
            return Some((Closed::Held, None));
        }
        if let Some(until) = table.is_spent(|| budget::of_source(&route.source), now) {
            return Some((Closed::Spent, Some(until)));
        }
        let (account, none) = (&route.account, TakenByClaim::default());
        if let Err(why) = table.closed_account(account, rules, replicas, none, now) {
            return Some(why);
        }
        if let Err(why) = table.closed_to(account, &route.destination, rules, replicas, none, now) {
            return Some(why);
        }
        let in_flight = table
            .sources
            .get(&route.source)
            .copied()
            .unwrap_or_default();
        if in_flight >= rules.most_of_source(&route.source, replicas) {
            return Some((Closed::SourceConcurrency, None));
        }
        table.closed_whole(rules, replicas, &self.budget, now).err()
    }

    fn show_held(&self, table: &ThrottleState) {
        let count = |is: fn(&Pause) -> bool| table.held.iter().filter(|hold| is(hold)).count();
        self.metrics
            .held("all", count(|hold| matches!(hold, Pause::All)));
        self.metrics
            .held("source", count(|hold| matches!(hold, Pause::Source(_))));
        self.metrics.held(
            "destination",
            count(|hold| matches!(hold, Pause::Destination(_))),
        );
    }

    /// Whether anything is held.
    pub(super) fn holds_any(&self) -> bool {
        !self.table().held.is_empty()
    }

    /// How many more deliveries may be in flight in all.
    pub(super) fn room(&self, rules: &Rules, replicas: u32, now: Instant) -> usize {
        let mut table = self.table();
        table.closed = false;
        let room = table
            .closed_whole(rules, replicas, &self.budget, now)
            .unwrap_or(0);
        table.closed = room == 0;
        room
    }

    /// How many more of a route may be in flight, beside what a claim has taken already.
    pub(super) fn open(
        &self,
        route: &Route,
        rules: &Rules,
        replicas: u32,
        taken: TakenByClaim,
        now: Instant,
    ) -> usize {
        let mut table = self.table();
        let room = table.room_of(route, rules, replicas, taken, now);
        table.closed |= room == 0;
        room
    }

    /// Whether a call by this route would try a destination that was left alone.
    pub(super) fn is_probe(&self, route: &Route, now: Instant) -> bool {
        let table = self.table();
        table
            .destinations
            .get(&called(route))
            .is_some_and(|entry| entry.breaker.state(now) == BreakerState::HalfOpen)
    }

    /// When the next of what is closed opens by time alone.
    pub(super) fn opens_at(&self, rules: &Rules, replicas: u32, now: Instant) -> Option<Instant> {
        let table = self.table();
        let ahead = |until: Option<Instant>| until.filter(|until| *until > now);
        let whole = rules
            .rate
            .and_then(|rate| table.bucket.opens_at(SharedRate::new(rate, replicas), now));
        let each = table
            .destinations
            .iter()
            .flat_map(|((_, destination), entry)| {
                let rate = rules.caps(destination).rate;
                let rate = rate
                    .and_then(|rate| entry.bucket.opens_at(SharedRate::new(rate, replicas), now));
                let key = ahead(entry.key.as_ref().and_then(KeyRefusal::next));
                [ahead(entry.rest), entry.breaker.opens_at(now), rate, key]
                    .into_iter()
                    .flatten()
            });
        let key = ahead(table.key.as_ref().and_then(KeyRefusal::next));
        [ahead(table.rest), key, whole, self.budget.opens_at(now)]
            .into_iter()
            .flatten()
            .chain(each)
            .min()
    }

    /// A delivery of this route is in flight from now on, until what is given is dropped.
    pub(super) fn enter(
        self: &Arc<Self>,
        route: Route,
        rules: &Rules,
        replicas: u32,
        now: Instant,
    ) -> InFlight {
        let mut table = self.table();
        table.tidy(now);
        table.in_flight += 1;
        *table.accounts.entry(route.account.clone()).or_default() += 1;
        *table.sources.entry(route.source.clone()).or_default() += 1;
        if let Some(rate) = rules.rate {
            table.bucket.take(SharedRate::new(rate, replicas), 1, now);
        }
        let rate = rules.caps(&route.destination).rate;
        let entry = table
            .destinations
            .entry(called(&route))
            .or_insert_with(|| CallState::new(now));
        entry.in_flight += 1;
        entry.touched = now;
        if let Some(rate) = rate {
            entry.bucket.take(SharedRate::new(rate, replicas), 1, now);
        }
        let begun = entry.breaker.begin(now);
        let tries_here = entry.key.as_mut().is_some_and(|refused| refused.begin(now));
        let shared = table
            .key
            .as_mut()
            .filter(|_| rules.shares_key(&route.account));
        let tries_all = shared.is_some_and(|refused| refused.begin(now));
        table.probing[side(&route.account)] += usize::from(begun.probe);
        self.show(&table);
        self.metrics.in_flight(kind(&route.destination), 1);
        let key = Some(KeyUse {
            at: now,
            tries_here,
            tries_all,
        });
        InFlight {
            throttle: self.clone(),
            route,
            begun: Some(begun),
            key,
        }
    }

    /// Until when a route's destination, or the upstream altogether, asked the route's account to leave it alone. What
    /// is asked of other accounts than the operator's says nothing of the upstream altogether.
    pub(super) fn rest(&self, route: &Route, whole: bool, until: Instant) {
        let mut table = self.table();
        let rest = if whole && route.account == Account::Operator {
            &mut table.rest
        } else {
            match table.destinations.get_mut(&called(route)) {
                Some(entry) => &mut entry.rest,
                None => return,
            }
        };
        *rest = Some(rest.map_or(until, |before| before.max(until)));
    }

    /// Calls a destination as before for every account, whatever it did or asked for. False: nothing kept it from
    /// being called.
    pub(super) fn reset(&self, destination: &Destination, now: Instant) -> bool {
        let mut table = self.table();
        let table = &mut *table;
        let mut changed = table.rest.take().is_some_and(|until| until > now);
        let (mut known, probing, broken) = (false, &mut table.probing, &mut table.broken);
        let of_it = table
            .destinations
            .iter_mut()
            .filter(|((_, called), _)| called == destination);
        for ((account, _), entry) in of_it {
            known = true;
            let probes = matches!(
                (entry.breaker.room(0, now), entry.breaker.state(now)),
                (0, BreakerState::HalfOpen)
            );
            let was_open = entry.breaker.reset(now);
            let asked = entry.rest.take().is_some_and(|until| until > now);
            if let Some(refused) = &mut entry.key {
                refused.hurry(now);
                changed = true;
            }
            let of_side = &mut probing[side(account)];
            *of_side = of_side.saturating_sub(usize::from(probes));
            *broken = broken.saturating_sub(usize::from(was_open));
            changed |= was_open || asked;
        }
        if known {
            self.show(table);
            self.opened.notify_one();
        }
        changed
    }

    /// How every destination statuses of which anything is known, by name.
    pub(super) fn statuses(&self, rules: &Rules, replicas: u32, now: Instant) -> Vec<CallStatus> {
        let table = self.table();
        let whole = table.closed_whole(rules, replicas, &self.budget, now).err();
        let mut statuses: Vec<CallStatus> = table
            .destinations
            .iter()
            .map(|((account, destination), entry)| CallStatus {
                destination: destination.clone(),
                account: account.clone(),
                breaker: entry.breaker.state(now),
                since: entry.breaker.since,
                failures: entry.breaker.failures(),
                in_flight: entry.in_flight,
                closed: table
                    .closed_account(account, rules, replicas, TakenByClaim::default(), now)
                    .and_then(|_| {
                        table.closed_to(
                            account,
                            destination,
                            rules,
                            replicas,
                            TakenByClaim::default(),
                            now,
                        )
                    })
                    .err()
                    .or(whole),
                next_probe: entry.breaker.opens_at(now),
            })
            .collect();
        statuses.sort_by(|a, b| (&a.destination, &a.account).cmp(&(&b.destination, &b.account)));
        statuses
    }

    /// Which keys are refused: the shared one, and those of accounts at single destinations.
    pub(super) fn refused_keys(
        &self,
        rules: &Rules,
    ) -> Vec<(Option<Destination>, Account, KeyRefusal)> {
        let table = self.table();
        let of_all = table
            .key
            .iter()
            .map(|refused| (None, Account::Operator, refused.clone()));
        let said = |account: &Account, refused: &KeyRefusal| {
            table.key.is_some() && refused.status == 401 && rules.shares_key(account)
        };
        let here = table
            .destinations
            .iter()
            .filter_map(|((account, to), entry)| {
                let refused = entry
                    .key
                    .as_ref()
                    .filter(|refused| !said(account, refused))?;
                Some((Some(to.clone()), account.clone(), refused.clone()))
            });
        let mut list: Vec<_> = of_all.chain(here).collect();
        list.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        list
    }

    /// Whether the key of a route is refused, so that a call which does not try it is not to be made.
    pub(super) fn refuses_key(&self, route: &Route, rules: &Rules) -> bool {
        let table = self.table();
        (table.key.is_some() && rules.shares_key(&route.account))
            || table
                .destinations
                .get(&called(route))
                .is_some_and(|entry| entry.key.is_some())
    }

    fn show(&self, table: &ThrottleState) {
        let probing = table.probing.iter().sum();
        self.metrics
            .breakers(table.broken.saturating_sub(probing), probing);
        let here = table
            .destinations
            .values()
            .filter(|entry| entry.key.is_some())
            .count();
        self.metrics
            .keys_refused(usize::from(table.key.is_some()), here);
    }

    // Counts only, changed in one go each: a panic leaves nothing half done.
    fn table(&self) -> MutexGuard<'_, ThrottleState> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a claim has taken already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TakenByClaim {
    /// Of the account, and of all accounts but the operator's.
    pub(super) account: usize,
    pub(super) others: usize,
    /// Of all accounts whose calls are made with the shared key.
    pub(super) shared_key: usize,
    /// To the destination, of the account.
    pub(super) destination: usize,
    pub(super) source: usize,
    pub(super) probes: usize,
}

impl ThrottleState {
    /// How many more in all, or why none.
    fn closed_whole(
        &self,
        rules: &Rules,
        replicas: u32,
        upstream: &Budget,
        now: Instant,
    ) -> Result<usize, (Closed, Option<Instant>)> {
        if let Some(until) = self.rest.filter(|until| *until > now) {
            return Err((Closed::AllAskedToWait, Some(until)));
        }
        let places = share(rules.concurrency, replicas).saturating_sub(self.in_flight);
        let flow = rules.rate.map(|rate| SharedRate::new(rate, replicas));
        let rate = flow.map_or(usize::MAX, |flow| self.bucket.room(flow, now));
        let budgeted = upstream.room(now);
        match (places, rate, budgeted) {
            (0, ..) => Err((Closed::AllConcurrency, None)),
            (_, 0, _) => Err((
                Closed::AllRate,
                flow.and_then(|flow| self.bucket.opens_at(flow, now)),
            )),
            (.., 0) => Err((Closed::Budget, upstream.opens_at(now))),
            _ => Ok(places.min(rate).min(budgeted)),
        }
    }

    /// How many more of an account, or why none.
    fn closed_account(
        &self,
        account: &Account,
        rules: &Rules,
        replicas: u32,
        taken: TakenByClaim,
        now: Instant,
    ) -> Result<usize, (Closed, Option<Instant>)> {
        if let Some(until) = self.is_spent(|| budget::of_account(account).to_owned(), now) {
            return Err((Closed::Spent, Some(until)));
        }
        let tries = match self.key.as_ref().filter(|_| rules.shares_key(account)) {
            None => usize::MAX,
            Some(refused) => {
                let room = refused
                    .room(now)
                    .map_err(|until| (Closed::KeyRefused, until))?;
                match room.saturating_sub(taken.shared_key) {
                    0 => return Err((Closed::KeyRefused, None)),
                    room => room,
                }
            }
        };
        if *account == Account::Operator {
            return Ok(tries);
        }
        let of = |account: &Account| self.accounts.get(account).copied().unwrap_or_default();
        let others = self.in_flight.saturating_sub(of(&Account::Operator)) + taken.others;
        let room = rules
            .most_of_account(account, replicas)
            .saturating_sub(of(account) + taken.account);
        let room = room.min(rules.most_of_others(replicas).saturating_sub(others));
        if room == 0 {
            Err((Closed::Share, None))
        } else {
            Ok(room.min(tries))
        }
    }

    /// How many more of an account to a destination, or why none.
    fn closed_to(
        &self,
        account: &Account,
        destination: &Destination,
        rules: &Rules,
        replicas: u32,
        taken: TakenByClaim,
        now: Instant,
    ) -> Result<usize, (Closed, Option<Instant>)> {
        if self.held.contains(&Pause::All)
            || self.held.contains(&Pause::Destination(destination.clone()))
        {
            return Err((Closed::Held, None));
        }
        if let Some(until) = self.is_spent(|| budget::of_destination(account, destination), now) {
            return Err((Closed::Spent, Some(until)));
        }
        let most = rules.most(destination, replicas);
        let flow = rules
            .caps(destination)
            .rate
            .map(|rate| SharedRate::new(rate, replicas));
        let Some(entry) = self
            .destinations
            .get(&(account.clone(), destination.clone()))
        else {
            let rate = flow.map_or(usize::MAX, |flow| Bucket::default().room(flow, now));
            let room = most.min(rate).saturating_sub(taken.destination);
            return if room == 0 {
                Err((Closed::Concurrency, None))
            } else {
                Ok(room)
            };
        };
        let tries = match &entry.key {
            None => usize::MAX,
            Some(refused) => refused
                .room(now)
                .map_err(|until| (Closed::KeyRefused, until))?,
        };
        if tries.saturating_sub(taken.destination) == 0 {
            return Err((Closed::KeyRefused, None));
        }
        if let Some(until) = entry.rest.filter(|until| *until > now) {
            return Err((Closed::AskedToWait, Some(until)));
        }
        let places = most.saturating_sub(entry.in_flight + taken.destination);
        let rate = flow
            .map_or(usize::MAX, |flow| entry.bucket.room(flow, now))
            .saturating_sub(taken.destination);
        let breaker = if rules.breaker.percent == 0 {
            usize::MAX
        } else {
            let room = entry
                .breaker
                .room(entry.in_flight, now)
                .saturating_sub(taken.destination);
            match entry.breaker.state(now) {
                BreakerState::Open => return Err((Closed::Breaker, entry.breaker.opens_at(now))),
                BreakerState::HalfOpen => {
                    let side = side(account);
                    room.min(
                        self.most_probing[side].saturating_sub(self.probing[side] + taken.probes),
                    )
                }
                BreakerState::Closed => room,
            }
        };
        match (breaker, places, rate) {
            (0, ..) => Err((Closed::Probing, None)),
            (_, 0, _) => Err((Closed::Concurrency, None)),
            (.., 0) => Err((
                Closed::Rate,
                flow.and_then(|flow| entry.bucket.opens_at(flow, now)),
            )),
            _ => Ok(breaker.min(places).min(rate).min(tries)),
        }
    }

    fn room_of(
        &self,
        route: &Route,
        rules: &Rules,
        replicas: u32,
        taken: TakenByClaim,
        now: Instant,
    ) -> usize {
        let spent = self.is_spent(|| budget::of_source(&route.source), now);
        if spent.is_some() || self.held.contains(&Pause::Source(route.source.clone())) {
            return 0;
        }
        let in_flight = self.sources.get(&route.source).copied().unwrap_or_default();
        let of_source = rules
            .most_of_source(&route.source, replicas)
            .saturating_sub(in_flight + taken.source);
        let of_account = self
            .closed_account(&route.account, rules, replicas, taken, now)
            .unwrap_or(0);
        if of_account.min(of_source) == 0 {
            return 0;
        }
        let to = self
            .closed_to(
                &route.account,
                &route.destination,
                rules,
                replicas,
                taken,
                now,
            )
            .unwrap_or(0);
        to.min(of_source).min(of_account)
    }

    /// A call that tried a key has said nothing of it: another may.
    fn abandon_key(&mut self, route: &Route, shown: KeyUse, now: Instant) {
        let here = self
            .destinations
            .get_mut(&called(route))
            .and_then(|entry| entry.key.as_mut());
        if let Some(refused) = here.filter(|_| shown.tries_here) {
            refused.abandon(now);
        }
        if let Some(refused) = self.key.as_mut().filter(|_| shown.tries_all) {
            refused.abandon(now);
        }
    }

    /// The upstream took a key. A call that began before the key was refused says nothing of it.
    fn key_is_good(
        &mut self,
        route: &Route,
        shown: KeyUse,
        rules: &Rules,
        now: Instant,
    ) -> KeyChange {
        let shares = rules.shares_key(&route.account);
        let newer = |refused: &KeyRefusal| refused.since <= shown.at;
        let mut change = KeyChange::None;
        if let Some(entry) = self.destinations.get_mut(&called(route))
            && entry.key.as_ref().is_none_or(newer)
        {
            entry.key_refused = None;
            if entry.key.take().is_some() {
                change = KeyChange::Good;
            }
        }
        if shares && self.key.as_ref().is_none_or(newer) {
            self.key_good = Some(now);
            if self.key.take().is_some() {
                change = KeyChange::Good;
                // What was refused as the key itself is tried again at once.
                for ((account, _), entry) in &mut self.destinations {
                    if rules.shares_key(account) {
                        entry.key.take_if(|refused| refused.status == 401);
                    }
                }
            }
        }
        change
    }

    fn is_held(&self, route: &Route) -> bool {
        !self.held.is_empty()
            && (self.held.contains(&Pause::All)
                || self.held.contains(&Pause::Source(route.source.clone()))
                || self
                    .held
                    .contains(&Pause::Destination(route.destination.clone())))
    }

    fn is_spent(&self, budget: impl FnOnce() -> String, now: Instant) -> Option<Instant> {
        let until = if self.spent.is_empty() {
            None
        } else {
            self.spent.get(&budget()).copied()
        };
        until.filter(|until| *until > now)
    }

    /// Forgets destinations that nothing is known of; with too many, those that were called longest ago.
    fn tidy(&mut self, now: Instant) {
        let due = self
            .tidied
            .is_none_or(|last| now.saturating_duration_since(last) >= TIDY);
        if !due && self.destinations.len() < MAX_DESTINATIONS {
            return;
        }
        self.tidied = Some(now);
        self.spent.retain(|_, until| *until > now);
        self.destinations.retain(|_, entry| !entry.is_idle(now));
        if self.destinations.len() >= MAX_DESTINATIONS {
            // Foreign callers name any destination they like: theirs go first, as long as they are half of all.
            let foreign = self
                .destinations
                .keys()
                .filter(|(account, _)| account.is_foreign())
                .count();
            let only_foreign = foreign >= MAX_DESTINATIONS / 2;
            let may_go = |account: &Account, entry: &CallState| {
                entry.in_flight == 0 && (account.is_foreign() || !only_foreign)
            };
            let resting = self
                .destinations
                .iter()
                .filter(|((account, _), entry)| may_go(account, entry));
            let mut ages: Vec<Instant> = resting.map(|(_, entry)| entry.touched).collect();
            ages.sort_unstable();
            let edge = ages.get(ages.len() / 2).copied();
            self.destinations.retain(|(account, _), entry| {
                !may_go(account, entry) || edge.is_some_and(|edge| entry.touched > edge)
            });
            let broken = |entry: &&CallState| entry.breaker.state(now) != BreakerState::Closed;
            self.broken = self.destinations.values().filter(broken).count();
        }
    }
}

/// A delivery in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    throttle: Arc<Throttle>,
    route: Route,
    /// None: what it says of its destination is said.
    begun: Option<CallPermit>,
    /// None: what it says of its key is said.
    key: Option<KeyUse>,
}

/// A call that shows a key.
#[derive(Clone, Copy, Debug)]
struct KeyUse {
    at: Instant,
    /// It tries a refused key: at its destination, or for all.
    tries_here: bool,
    tries_all: bool,
}

impl InFlight {
    /// Whether it tries a key that is refused.
    pub(super) fn tries_key(&self) -> bool {
        self.key
            .is_some_and(|shown| shown.tries_here || shown.tries_all)
    }

    /// What the attempt says of the key that it was made with. Returns what that changed.
    pub(super) fn tell_key(
        &mut self,
        sign: KeySign,
        detail: &str,
        rules: &Rules,
        now: Instant,
    ) -> KeyChange {
        let Some(shown) = self.key.take() else {
            return KeyChange::None;
        };
        let mut table = self.throttle.table();
        let shares = rules.shares_key(&self.route.account);
        let change = match sign {
            KeySign::Nothing => {
                table.abandon_key(&self.route, shown, now);
                KeyChange::None
            }
            KeySign::Good => table.key_is_good(&self.route, shown, rules, now),
            KeySign::Refused(status) => {
                let good = table.key_good;
                let Some(entry) = table.destinations.get_mut(&called(&self.route)) else {
                    return KeyChange::None;
                };
                // One that was taken elsewhere since it was refused here is good, and not for this destination.
                let only_here =
                    status != 401 || !shares || entry.key_refused.is_some_and(|at| good > Some(at));
                entry.key_refused = (status == 401).then_some(now).or(entry.key_refused);
                let new_here = refuse(
                    &mut entry.key,
                    shown.tries_here,
                    (status, detail),
                    LATER,
                    now,
                );
                if only_here {
                    if let Some(refused) = table.key.as_mut().filter(|_| shown.tries_all) {
                        refused.abandon(now);
                    }
                    if new_here {
                        KeyChange::HeldTo
                    } else {
                        KeyChange::None
                    }
                } else if refuse(
                    &mut table.key,
                    shown.tries_all,
                    (status, detail),
                    Duration::ZERO,
                    now,
                ) {
                    KeyChange::Held
                } else {
                    KeyChange::None
                }
            }
        };
        self.throttle.show(&table);
        if change != KeyChange::None || std::mem::take(&mut table.closed) {
            self.throttle.opened.notify_one();
        }
        change
    }

    /// What the attempt says of the destination. The place stays taken. Returns what that changed.
    pub(super) fn tell(
        &mut self,
        sign: Sign,
        rules: &Rules,
        replicas: u32,
        now: Instant,
        chance: f64,
    ) -> BreakerChange {
        let Some(begun) = self.begun.take() else {
            return BreakerChange::None;
        };
        let mut table = self.throttle.table();
        let side = side(&self.route.account);
        let most = rules
            .most(&self.route.destination, replicas)
            .min(share(rules.concurrency, replicas));
        let Some(entry) = table.destinations.get_mut(&called(&self.route)) else {
            return BreakerChange::None;
        };
        let was_probing = begun.probe && entry.breaker.is_probed_by(begun);
        let change = entry
            .breaker
            .end(begun, sign, &rules.breaker, most, now, chance);
        if was_probing {
            table.probing[side] = table.probing[side].saturating_sub(1);
        }
        match change {
            BreakerChange::None => {}
            BreakerChange::Opened => {
                table.broken += 1;
                self.throttle.metrics.breaker_opened.inc();
            }
            BreakerChange::Reopened => table.most_probing[side] = PROBES,
            BreakerChange::Closed => {
                table.broken = table.broken.saturating_sub(1);
                // The upstream is back: the others need not wait for long.
                table.most_probing[side] = table.most_probing[side]
                    .saturating_mul(2)
                    .min(share(rules.concurrency, replicas).max(PROBES));
            }
        }
        self.throttle.show(&table);
        if std::mem::take(&mut table.closed) {
            self.throttle.opened.notify_one();
        }
        change
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut table = self.throttle.table();
        if let Some(shown) = self.key.take() {
            table.abandon_key(&self.route, shown, tokio::time::Instant::now().into_std());
        }
        table.in_flight = table.in_flight.saturating_sub(1);
        leave(&mut table.sources, &self.route.source);
        leave(&mut table.accounts, &self.route.account);
        let mut probing = false;
        if let Some(entry) = table.destinations.get_mut(&called(&self.route)) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
            if let Some(begun) = self
                .begun
                .take()
                .filter(|begun| entry.breaker.is_probed_by(*begun))
            {
                entry.breaker.abandon(begun);
                probing = true;
            }
        }
        let of_side = &mut table.probing[side(&self.route.account)];
        *of_side = of_side.saturating_sub(usize::from(probing));
        self.throttle.show(&table);
        self.throttle
            .metrics
            .in_flight(kind(&self.route.destination), -1);
        if std::mem::take(&mut table.closed) {
            self.throttle.opened.notify_one();
        }
    }
}

/// One fewer in flight.
fn leave<K: std::hash::Hash + Eq>(table: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = table.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            table.remove(key);
        }
    }
}

/// Ours and the foreign apart.
fn side(account: &Account) -> usize {
    usize::from(account.is_foreign())
}

const fn kind(destination: &Destination) -> &'static str {
    match destination.kind {
        DestinationKind::Agent => "agent",
        DestinationKind::Workflow => "workflow",
    }
}
