//! Memory of a limiter per key: the time at which each key has all of its rate again.
//!
//! What is promised: the memory is bounded, and no key that is over its limit is ever forgotten for others. When the
//! table is full, a new key takes the place of one that has something left; where none is found, it is counted with the
//! other new keys of its crowd (the network of an address) until there is room.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;

use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use parking_lot::{Mutex, MutexGuard};

use crate::model::network;

/// Keys that a table holds at most.
pub(super) const MAX_KEYS: usize = 100_000;

/// Parts of a table, each with its own lock.
const SHARDS: usize = 16;

/// Buckets for the crowds of keys that find no room.
const CROWDS: usize = 4_096;

/// Keys that are searched for one whose place can be taken.
const LOOK_AT: usize = 16;

/// A key that belongs to a crowd, which is counted together where there is no room for each.
pub trait Crowd {
    /// The crowd it belongs to.
    fn crowd(&self) -> u128;
}

impl Crowd for IpAddr {
    fn crowd(&self) -> u128 {
        network(*self)
    }
}

impl Crowd for u64 {
    fn crowd(&self) -> u128 {
        (*self).into()
    }
}

/// The keys of a limiter.
pub(super) struct KeyTable<K> {
    shards: Vec<Mutex<Shard<K>>>,
    crowds: Vec<Mutex<Option<Nanos>>>,
    hasher: RandomState,
    spare: Spare,
}

/// Time by which another key may be whole again later than a key that was just seen for the first time, and still have
/// something left. It is negative where one use of a key leaves nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spare(pub(super) i64);

struct Shard<K> {
    places: HashMap<K, usize>,
    /// Keys with when they are whole again, in no order.
    list: Vec<(K, Nanos)>,
}

impl Spare {
    fn has_something_left(self, whole_again: Nanos, fresh: Nanos) -> bool {
        let beyond = i128::from(whole_again.as_u64()) - i128::from(fresh.as_u64());
        beyond <= i128::from(self.0)
    }
}

impl<K: Hash + Eq + Clone + Crowd> KeyTable<K> {
    pub(super) fn new(spare: Spare) -> Self {
        let shard = || {
            Mutex::new(Shard {
                places: HashMap::new(),
                list: Vec::new(),
            })
        };
        Self {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            crowds: std::iter::repeat_with(Mutex::default)
                .take(CROWDS)
                .collect(),
            hasher: RandomState::new(),
            spare,
        }
    }

    /// One of `count` things, chosen by a hash that nobody outside foresees.
    fn chosen(&self, what: impl Hash, count: usize) -> usize {
        // The remainder is less than `count`.
        usize::try_from(self.hasher.hash_one(what) % count as u64).unwrap_or_default()
    }
}

impl<K: Hash + Eq + Clone> Shard<K> {
    /// Takes a new key in, if there is room or some other has something left.
    fn take(&mut self, key: &K, whole_again: Nanos, spare: Spare) -> bool {
        if self.list.len() >= MAX_KEYS / SHARDS {
            let looked_at =
                std::iter::repeat_with(|| fastrand::usize(..self.list.len())).take(LOOK_AT);
            let best = looked_at.min_by_key(|at| {
                self.list
                    .get(*at)
                    .map(|(_, whole_again)| whole_again.as_u64())
            });
            let Some(at) = best.filter(|at| {
                self.list
                    .get(*at)
                    .is_some_and(|(_, other)| spare.has_something_left(*other, whole_again))
            }) else {
                return false;
            };
            let (gone, _) = self.list.swap_remove(at);
            self.places.remove(&gone);
            if let Some((moved, _)) = self.list.get(at) {
                self.places.insert(moved.clone(), at);
            }
        }
        self.places.insert(key.clone(), self.list.len());
        self.list.push((key.clone(), whole_again));
        true
    }
}

impl<K: Hash + Eq + Clone + Crowd> StateStore for KeyTable<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let Some(shard) = self.shards.get(self.chosen(key, SHARDS)) else {
            return measure(None).map(|(said, _)| said);
        };
        let mut shard = held(shard);
        if let Some(at) = shard.places.get(key).copied()
            && let Some((_, kept)) = shard.list.get_mut(at)
        {
            let (said, whole_again) = measure(Some(*kept))?;
            *kept = whole_again;
            return Ok(said);
        }
        let (said, whole_again) = measure(None)?;
        if shard.take(key, whole_again, self.spare) {
            return Ok(said);
        }
        drop(shard);
        let Some(crowd) = self.crowds.get(self.chosen(key.crowd(), CROWDS)) else {
            return Ok(said);
        };
        let mut crowd = held(crowd);
        let (said, whole_again) = measure(*crowd)?;
        *crowd = Some(whole_again);
        Ok(said)
    }
}

impl<K: Hash + Eq + Clone + Crowd> ShrinkableKeyedStateStore<K> for KeyTable<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        for shard in &self.shards {
            let Shard { places, list } = &mut *held(shard);
            list.retain(|(_, whole_again)| *whole_again > drop_below);
            *places = list
                .iter()
                .enumerate()
                .map(|(at, (key, _))| (key.clone(), at))
                .collect();
        }
    }

    fn len(&self) -> usize {
        self.shards.iter().map(|shard| held(shard).list.len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock()
}

impl<K> fmt::Debug for KeyTable<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyTable")
            .field("spare", &self.spare)
            .finish_non_exhaustive()
    }
}
