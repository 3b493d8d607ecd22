//! A limiter per key, with a bounded number of keys. A flood of new keys takes the places of those that have something
//! left, and frees nobody who is over its limit.

use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;

use arc_swap::ArcSwap;
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::{Quota, RateLimiter};

use super::limiter::{Built, LimitStatus};
use super::share::Share;
use super::table::{Crowd, KeyTable, Spare};
use crate::config::Rate;

type PerKey<K> = RateLimiter<K, KeyTable<K>, DefaultClock, StateInformationMiddleware>;

/// A limiter per key.
pub struct Keyed<K: Hash + Eq + Clone + Crowd> {
    rate: Rate,
    share: Share,
    built: ArcSwap<Built<PerKey<K>>>,
}

impl<K: Hash + Eq + Clone + Crowd> Keyed<K> {
    /// The configured rate.
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// A share of the same rate for every key.
    pub fn new(rate: Rate, share: Share) -> Self {
        let processes = share.processes();
        let built = Built::new(rate, processes, |quota| keyed(quota, processes));
        Self {
            rate,
            share,
            built: ArcSwap::from_pointee(built),
        }
    }

    /// Counts one and says what is left; over the limit, when to come back.
    pub fn check(&self, key: &K) -> Result<LimitStatus, LimitStatus> {
        let processes = self.share.processes();
        let mut built = self.built.load();
        if !built.fits(self.rate, processes) {
            self.built
                .store(Built::new(self.rate, processes, |quota| keyed(quota, processes)).into());
            built = self.built.load();
        }
        match built.limiter.check_key_n(key, processes) {
            Ok(Ok(snapshot)) => Ok(LimitStatus::of(self.rate, processes, &snapshot)),
            Ok(Err(until)) => Err(LimitStatus::none(
                self.rate,
                until.wait_time_from(built.limiter.clock().now()),
            )),
            // It is built so that one request always fits.
            Err(_) => Err(LimitStatus::none(self.rate, self.rate.per)),
        }
    }
}

fn keyed<K: Hash + Eq + Clone + Crowd>(quota: Quota, processes: NonZeroU32) -> PerKey<K> {
    // A key that was seen once is whole after the cells of one use; one more use must fit into the burst.
    let cells = i64::from(quota.burst_size().get()) - 2 * i64::from(processes.get());
    let each = i64::try_from(quota.replenish_interval().as_nanos()).unwrap_or(i64::MAX);
    let keys = KeyTable::new(Spare(cells.saturating_mul(each)));
    RateLimiter::new(quota, keys, DefaultClock::default())
}

impl<K: Hash + Eq + Clone + Crowd> fmt::Debug for Keyed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed")
            .field("rate", &self.rate)
            .field("keys", &self.built.load().limiter.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::super::table::MAX_KEYS;
    use super::*;

    #[test]
    fn keys_do_not_share_and_the_table_is_bounded() {
        let keyed = Keyed::new(
            Rate {
                count: 1,
                per: Duration::from_secs(3600),
            },
            Share::default(),
        );
        assert!(keyed.check(&1_u64).is_ok());
        assert!(keyed.check(&1).is_err());
        assert!(keyed.check(&2).is_ok());
        for key in 10..250_000 {
            let _ = keyed.check(&key);
        }
        assert!(keyed.built.load().limiter.len() <= MAX_KEYS);
    }

    #[test]
    fn s24_a_flood_of_new_keys_frees_nobody_who_is_over_its_limit() {
        let keyed = Keyed::new(
            Rate {
                count: 3,
                per: Duration::from_secs(3600),
            },
            Share::default(),
        );
        let over: Vec<IpAddr> = (0..100_u32)
            .map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n).into())
            .collect();
        for address in &over {
            assert_eq!((0..4).filter(|_| keyed.check(address).is_ok()).count(), 3);
        }
        // A /46, each /64 of it once: none of them is over its limit.
        for n in 0..250_000_u128 {
            let _ = keyed.check(&Ipv6Addr::from_bits(0x2001_0db8 << 96 | n << 64).into());
        }
        assert!(over.iter().all(|address| keyed.check(address).is_err()));
        assert!(keyed.built.load().limiter.len() <= MAX_KEYS);
        assert!(
            keyed.check(&"192.0.2.1".parse().unwrap()).is_ok(),
            "others are counted by themselves"
        );
    }

    #[test]
    fn s24_with_everybody_over_the_limit_new_keys_are_counted_by_their_network() {
        let keyed = Keyed::new(
            Rate {
                count: 1,
                per: Duration::from_secs(3600),
            },
            Share::default(),
        );
        let of_network = |network: u128| {
            let address = |n: u128| {
                IpAddr::from(Ipv6Addr::from_bits(
                    0x2001_0db8 << 96 | network << 80 | n << 64,
                ))
            };
            (0..60_000_u128)
                .filter(|n| keyed.check(&address(*n)).is_ok())
                .count()
        };
        assert_eq!(
            (of_network(1), of_network(2)),
            (60_000, 40_001),
            "what finds no room has one share"
        );
        assert!(keyed.check(&"2001:db8:1::".parse().unwrap()).is_err());
        assert!(of_network(3) <= 1);
    }

    #[test]
    fn each_key_has_this_process_s_share() {
        let keyed = Keyed::new(
            Rate {
                count: 6,
                per: Duration::from_secs(3600),
            },
            Share::among(3),
        );
        for key in [1_u64, 2] {
            assert!(
                keyed.check(&key).is_ok()
                    && keyed.check(&key).is_ok()
                    && keyed.check(&key).is_err()
            );
        }
    }
}
