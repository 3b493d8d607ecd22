//! The operator's rules: caps, rates, shares and weights. A new configuration brings new ones.

use std::collections::{HashMap, HashSet};

use crate::config::{self, Caps, Config};
use crate::model::{Account, Destination, Overlap};

/// The rules of a configuration.
#[derive(Debug)]
pub(in crate::dispatch) struct Rules {
    pub(super) concurrency: usize,
    pub(super) rate: Option<config::Rate>,
    each: Caps,
    destinations: HashMap<Destination, Caps>,
    pub(in crate::dispatch) breaker: config::BreakerConfig,
    sources: HashMap<String, (Overlap, Option<usize>)>,
    /// The weight of a source against the operator's other sources.
    weights: HashMap<String, u32>,
    /// The gateway keys that have an upstream key of their own.
    own_keys: HashSet<String>,
    /// Percent of the places for callers with foreign keys, for callers with one gateway key, and for all of them
    /// together.
    foreign: usize,
    key: usize,
    others: usize,
}

/// Percent of the places for callers with one gateway key, and for all callers with keys. The rest is kept for sources,
/// if there are any.
const OF_KEY: usize = 50;
const OF_OTHERS: usize = 75;

impl Rules {
    /// Reads the rules of a configuration.
    pub(in crate::dispatch) fn new(config: &Config) -> Self {
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

    /// The handling of messages that wait behind another of their conversation. Those of a source that is gone, and of a
    /// caller's own door, wait.
    pub(in crate::dispatch) fn overlap(&self, source: &str) -> Overlap {
        self.sources
            .get(source)
            .map_or(Overlap::QUEUE, |(overlap, _)| *overlap)
    }

    pub(super) fn caps(&self, destination: &Destination) -> Caps {
        self.destinations
            .get(destination)
            .copied()
            .unwrap_or(self.each)
    }

    /// The largest number of calls to a destination.
    pub(super) fn most(&self, destination: &Destination, replicas: u32) -> usize {
        self.caps(destination)
            .concurrency
            .map_or(usize::MAX, |most| share(most, replicas))
    }

    /// The largest number of calls of an account.
    pub(super) fn most_of_account(&self, account: &Account, replicas: u32) -> usize {
        let all = share(self.concurrency, replicas);
        match account {
            Account::Operator => all,
            Account::Key(_) => part(all, self.key),
            Account::Foreign => part(all, self.foreign),
        }
    }

    /// The largest number of calls of all accounts but the operator's.
    pub(super) fn most_of_others(&self, replicas: u32) -> usize {
        part(share(self.concurrency, replicas), self.others)
    }

    /// The weight of a source; see [`crate::inbox::Terms::weight`].
    pub(in crate::dispatch) fn weight(&self, source: &str) -> u32 {
        self.weights.get(source).copied().unwrap_or(1)
    }

    /// True if an account's calls are made with `upstream.api_key`.
    pub(super) fn shares_key(&self, account: &Account) -> bool {
        match account {
            Account::Operator => true,
            Account::Key(name) => !self.own_keys.contains(name),
            Account::Foreign => false,
        }
    }

    /// The number of these calls that are made with `upstream.api_key`.
    pub(in crate::dispatch) fn taken_by_key(&self, accounts: &HashMap<Account, usize>) -> usize {
        accounts
            .iter()
            .filter(|(account, _)| self.shares_key(account))
            .map(|(_, count)| *count)
            .sum()
    }

    /// The setting that holds the key of an account's calls.
    pub(in crate::dispatch) fn key_setting(&self, account: &Account) -> String {
        match account {
            Account::Key(name) if self.own_keys.contains(name) => {
                format!("keys.{name}.upstream_key")
            }
            _ => "upstream.api_key".to_owned(),
        }
    }

    /// The share of callers with foreign keys; see [`crate::inbox::Terms::foreign_share`].
    pub(in crate::dispatch) fn foreign_share(&self) -> u32 {
        u32::try_from(self.foreign).unwrap_or(100)
    }

    pub(super) fn most_of_source(&self, source: &str, replicas: u32) -> usize {
        self.sources
            .get(source)
            .and_then(|(_, most)| *most)
            .map_or(usize::MAX, |most| share(most, replicas))
    }
}

/// This process's share of a cap among several processes: rounded down, and at least one.
pub(super) fn share(most: usize, replicas: u32) -> usize {
    let replicas = usize::try_from(replicas.max(1)).unwrap_or(usize::MAX);
    (most / replicas).max(1)
}

/// A percentage, rounded down, and at least one.
fn part(all: usize, percent: usize) -> usize {
    (all.saturating_mul(percent) / 100).max(1)
}
