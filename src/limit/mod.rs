//! How much, how fast: the whole gateway, each caller's address, each source. Asked before anything of the body is
//! read. Everything is bounded, whoever calls.

pub mod keyed;

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::config::{Config, Rate};
use crate::model::{Refusal, bucket};

use keyed::Keyed;

/// The limits of one gateway.
#[derive(Debug)]
pub struct Limits {
    whole: Option<DefaultDirectRateLimiter>,
    callers: Option<Keyed<IpAddr>>,
    sources: HashMap<String, DefaultDirectRateLimiter>,
    dropin: Option<DefaultDirectRateLimiter>,
    keys: HashMap<String, DefaultDirectRateLimiter>,
}

impl Limits {
    /// The limits of a configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            whole: config.limits.whole.map(|rate| RateLimiter::direct(quota(rate))),
            callers: config.limits.caller.map(|rate| Keyed::new(quota(rate))),
            sources: named_rates(config)
                .filter_map(|(name, rate)| Some((name, RateLimiter::direct(quota(rate?)))))
                .collect(),
            dropin: config.dropin.rate.map(|rate| RateLimiter::direct(quota(rate))),
            keys: config
                .keys
                .iter()
                .filter_map(|key| Some((key.name.clone(), RateLimiter::direct(quota(key.rate?)))))
                .collect(),
        }
    }

    /// Counts one request at the drop-in.
    pub fn dropin(&self) -> Result<(), Refusal> {
        self.dropin.as_ref().map_or(Ok(()), |limiter| check(limiter).map_err(Refusal::Limited))
    }

    /// Counts one request of a caller, before it is known what it wants.
    pub fn caller(&self, peer: IpAddr) -> Result<(), Refusal> {
        if let Some(callers) = &self.callers {
            callers.check(&bucket(peer)).map_err(Refusal::Limited)?;
        }
        match &self.whole {
            // The whole gateway's limit is our own trouble, not this caller's doing.
            Some(whole) => check(whole).map_err(Refusal::Overloaded),
            None => Ok(()),
        }
    }

    /// Counts one use of a gateway key, by the key's name.
    pub fn key(&self, name: &str) -> Result<(), Refusal> {
        self.keys.get(name).map_or(Ok(()), |limiter| check(limiter).map_err(Refusal::Limited))
    }

    /// Counts one request at a source or at a proxied prefix (`proxy:/v1`).
    pub fn source(&self, name: &str) -> Result<(), Refusal> {
        self.sources.get(name).map_or(Ok(()), |limiter| check(limiter).map_err(Refusal::Limited))
    }
}

/// Sources and proxied prefixes. No source is called so that it could be taken for a prefix.
fn named_rates(config: &Config) -> impl Iterator<Item = (String, Option<Rate>)> {
    let sources = config.sources.iter().map(|source| (source.name.clone(), source.rate));
    let proxies = config.proxies.iter().map(|proxy| (proxy.label(), proxy.rate));
    sources.chain(proxies)
}

fn check(limiter: &DefaultDirectRateLimiter) -> Result<(), Duration> {
    limiter.check().map_err(|until| until.wait_time_from(DefaultClock::default().now()))
}

/// A rate as a quota: the whole count may come at once, and comes back evenly.
fn quota(rate: Rate) -> Quota {
    let count = NonZeroU32::new(rate.count).unwrap_or(NonZeroU32::MIN);
    let each = rate.per / count.get();
    Quota::with_period(each).map_or_else(|| Quota::per_second(count), |quota| quota.allow_burst(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_lets_its_count_through_and_says_when_to_come_back() {
        let limiter = RateLimiter::direct(quota(Rate { count: 3, per: Duration::from_secs(60) }));
        for _ in 0..3 {
            assert_eq!(check(&limiter), Ok(()));
        }
        let wait = check(&limiter).expect_err("the fourth is over");
        assert!(wait > Duration::from_secs(15) && wait <= Duration::from_secs(20), "{wait:?}");
    }
}
