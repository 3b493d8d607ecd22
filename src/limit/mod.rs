//! Rate limits: of each caller's address, the whole gateway, each source, door and key.
//!
//! A caller's address is counted before anything of the body is read. Everything else counts what is proved, so that
//! strangers use up nothing of it; what they do is counted apart. Everything is bounded, whoever calls. Processes that
//! share an inbox divide what is configured.

pub mod bucket;
pub mod keyed;
pub mod limiter;
pub mod share;
pub mod table;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, Rate};
use crate::model::{Refusal, bucket};

pub use bucket::{Bucket, SharedRate};
use keyed::Keyed;
pub use limiter::{LimitStatus, Limiter};
pub use share::Share;
use table::Crowd;

/// The limits of one gateway.
///
/// What nobody has proved is counted apart from what is proved: whoever has no key and no secret uses up nothing of
/// those who have.
#[derive(Debug)]
pub struct RateLimits {
    whole: Option<Arc<Split>>,
    callers: Option<Arc<Keyed<IpAddr>>>,
    sources: HashMap<String, Arc<AtSource>>,
    threads: HashMap<String, Arc<Keyed<u64>>>,
    names: RandomState,
    proxies: HashMap<String, Arc<Split>>,
    dropin: Option<Arc<AtDropin>>,
    keys: HashMap<String, Arc<Limiter>>,
}

/// A limit on what is proved, and one as large on everything else.
#[derive(Debug)]
struct Split {
    proved: Limiter,
    others: Limiter,
}

/// A source's limit: of what is proved, and of each address's failures.
#[derive(Debug)]
struct AtSource {
    proved: Limiter,
    failures: Keyed<IpAddr>,
}

/// The drop-in's limit: of callers with the gateway's own keys, of those whose keys the upstream is known to take, and
/// of all others together.
#[derive(Debug)]
struct AtDropin {
    own: Limiter,
    foreign: Limiter,
    others: Limiter,
}

impl Split {
    fn of(&self, is_proved: bool) -> &Limiter {
        if is_proved {
            &self.proved
        } else {
            &self.others
        }
    }
}

impl RateLimits {
    /// This process's share of a configuration's limits.
    pub fn new(config: &Config, share: &Share) -> Self {
        Self::next(config, share, None)
    }

    /// The same after a reload. A limit that is what it was before goes on counting: a reload gives nobody a second
    /// helping.
    pub fn next(config: &Config, share: &Share, before: Option<&Self>) -> Self {
        let limiter = |rate| Limiter::new(rate, share.clone());
        let split = |rate, old: Option<&Arc<Split>>| {
            let make = || Split {
                proved: limiter(rate),
                others: limiter(rate),
            };
            kept(old, |old| old.proved.rate() == rate, make)
        };
        let at_source = |rate, old: Option<&Arc<AtSource>>| {
            let make = || AtSource {
                proved: limiter(rate),
                failures: Keyed::new(rate, share.clone()),
            };
            kept(old, |old| old.proved.rate() == rate, make)
        };
        let old = |name: &str| before.and_then(|before| before.sources.get(name));
        let old_thread = |name: &str| before.and_then(|before| before.threads.get(name));
        let old_proxy = |label: &str| before.and_then(|before| before.proxies.get(label));
        let old_key = |name: &str| before.and_then(|before| before.keys.get(name));
        let (sources, proxies, keys) = (
            config.sources.iter(),
            config.proxies.iter(),
            config.keys.iter(),
        );
        Self {
            whole: config
                .limits
                .whole
                .map(|rate| split(rate, before.and_then(|before| before.whole.as_ref()))),
            callers: config.limits.caller.map(|rate| {
                let old = before.and_then(|before| before.callers.as_ref());
                keyed(rate, share, old)
            }),
            sources: sources
                .clone()
                .filter_map(|source| {
                    Some((
                        source.name.clone(),
                        at_source(source.rate?, old(&source.name)),
                    ))
                })
                .collect(),
            threads: sources
                .filter_map(|source| {
                    Some((
                        source.name.clone(),
                        keyed(source.thread_rate?, share, old_thread(&source.name)),
                    ))
                })
                .collect(),
            // What conversations are called here goes with their limits.
            names: before.map_or_else(RandomState::new, |before| before.names.clone()),
            proxies: proxies
                .filter_map(|proxy| {
                    let label = proxy.label();
                    let split = split(proxy.rate?, old_proxy(&label));
                    Some((label, split))
                })
                .collect(),
            dropin: config.dropin.rate.map(|rate| {
                let old = before.and_then(|before| before.dropin.as_ref());
                at_dropin(rate, share, old)
            }),
            keys: keys
                .filter_map(|key| {
                    let rate = key.rate?;
                    let limit = kept(
                        old_key(&key.name),
                        |old| old.rate() == rate,
                        || limiter(rate),
                    );
                    Some((key.name.clone(), limit))
                })
                .collect(),
        }
    }

    /// Counts one request of a caller's address, before it is known what it wants.
    pub fn caller(&self, peer: IpAddr, told: &mut LimitReport) -> Result<(), Refusal> {
        self.callers.as_ref().map_or(Ok(()), |callers| {
            told.take("caller", callers.check(&bucket(peer)))
        })
    }

    /// Counts one request to the whole gateway. `is_proved`: its caller has shown a key, a secret or a signature.
    pub fn whole(&self, is_proved: bool) -> Result<(), Refusal> {
        // The whole gateway's limit is our own trouble, not this caller's doing, and none of its business.
        self.whole
            .as_ref()
            .map_or(Ok(()), |whole| alone(whole.of(is_proved).check()))
    }

    /// Counts one request at the drop-in with a key of the gateway's own.
    pub fn dropin_own(&self, told: &mut LimitReport) -> Result<(), Refusal> {
        self.dropin
            .as_ref()
            .map_or(Ok(()), |dropin| told.take("dropin", dropin.own.check()))
    }

    /// Counts one request at the drop-in with another key that is known to be good.
    pub fn dropin_foreign(&self, told: &mut LimitReport) -> Result<(), Refusal> {
        self.dropin
            .as_ref()
            .map_or(Ok(()), |dropin| told.take("dropin", dropin.foreign.check()))
    }

    /// Counts one request at the drop-in with a key that nobody has judged. Others use this limit up, so its end is no
    /// fault of the caller.
    pub fn dropin_others(&self) -> Result<(), Refusal> {
        self.dropin
            .as_ref()
            .map_or(Ok(()), |dropin| alone(dropin.others.check()))
    }

    /// Counts one use of a gateway key, by the key's name.
    pub fn key(&self, name: &str, told: &mut LimitReport) -> Result<(), Refusal> {
        self.keys
            .get(name)
            .map_or(Ok(()), |limiter| told.take("key", limiter.check()))
    }

    /// Counts one proved request at a source.
    pub fn source(&self, name: &str, told: &mut LimitReport) -> Result<(), Refusal> {
        self.sources
            .get(name)
            .map_or(Ok(()), |source| told.take("source", source.proved.check()))
    }

    /// Counts one request at a source that is not proved, against its caller's address alone. It hears of the source's
    /// limit as well, which it does not use up.
    pub fn failed(&self, name: &str, peer: IpAddr, told: &mut LimitReport) -> Result<(), Refusal> {
        let Some(source) = self.sources.get(name) else {
            return Ok(());
        };
        match source.proved.full() {
            Some(left) => told.take("source", Err(left)),
            None => told.take("source", source.failures.check(&bucket(peer))),
        }
    }

    /// Counts one request at a proxied prefix, by its label. `is_proved`: it has a gateway key.
    pub fn proxied(
        &self,
        label: &str,
        is_proved: bool,
        told: &mut LimitReport,
    ) -> Result<(), Refusal> {
        let Some(proxy) = self.proxies.get(label) else {
            return Ok(());
        };
        told.take("source", proxy.of(is_proved).check())
    }

    /// Counts one event of a source's conversation. What the conversation is called is not kept.
    pub fn thread(
        &self,
        source: &str,
        thread: &str,
        told: &mut LimitReport,
    ) -> Result<(), Refusal> {
        let check = |threads: &Arc<Keyed<u64>>| {
            told.take("thread", threads.check(&self.names.hash_one(thread)))
        };
        self.threads.get(source).map_or(Ok(()), check)
    }
}

/// The limit of before where it fits, or else a new one.
fn kept<L>(
    old: Option<&Arc<L>>,
    fits: impl FnOnce(&L) -> bool,
    make: impl FnOnce() -> L,
) -> Arc<L> {
    old.filter(|old| fits(old))
        .map_or_else(|| Arc::new(make()), Arc::clone)
}

/// The limit of each caller or conversation; the one of before where its rate is the same.
fn keyed<K: Hash + Eq + Clone + Crowd>(
    rate: Rate,
    share: &Share,
    old: Option<&Arc<Keyed<K>>>,
) -> Arc<Keyed<K>> {
    kept(
        old,
        |old| old.rate() == rate,
        || Keyed::new(rate, share.clone()),
    )
}

/// The limit of the drop-in; the one of before where its rate is the same.
fn at_dropin(rate: Rate, share: &Share, old: Option<&Arc<AtDropin>>) -> Arc<AtDropin> {
    let limiter = || Limiter::new(rate, share.clone());
    let make = || AtDropin {
        own: limiter(),
        foreign: limiter(),
        others: limiter(),
    };
    kept(old, |old| old.own.rate() == rate, make)
}

/// Result of a limit that is not reported to the caller.
fn alone(counted: Result<LimitStatus, LimitStatus>) -> Result<(), Refusal> {
    counted
        .map(drop)
        .map_err(|left| Refusal::Overloaded(left.reset))
}

/// Report to a caller on the limits that counted it, in the words of the RateLimit header fields
/// (draft-ietf-httpapi-ratelimit-headers).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitReport(Vec<(&'static str, LimitStatus)>);

impl LimitReport {
    fn take(
        &mut self,
        name: &'static str,
        counted: Result<LimitStatus, LimitStatus>,
    ) -> Result<(), Refusal> {
        let (left, over) = match counted {
            Ok(left) => (left, Ok(())),
            Err(left) => (left, Err(Refusal::Limited(left.reset))),
        };
        self.0.push((name, left));
        over
    }

    /// `RateLimit-Policy` and `RateLimit`; none where there was no limit.
    pub fn fields(&self) -> Option<(String, String)> {
        let list = |item: fn(&(&'static str, LimitStatus)) -> String| {
            self.0.iter().map(item).collect::<Vec<_>>().join(", ")
        };
        let policy = list(|(name, left)| {
            format!(
                "\"{name}\";q={};w={}",
                left.rate.count,
                whole(left.rate.per)
            )
        });
        let state =
            list(|(name, left)| format!("\"{name}\";r={};t={}", left.remaining, whole(left.reset)));
        (!self.0.is_empty()).then_some((policy, state))
    }
}

/// Whole seconds, never too few.
fn whole(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Problems;

    fn config(text: &str) -> Config {
        Config::parse(
            "t",
            text,
            Path::new("."),
            std::iter::empty(),
            &Problems::default(),
        )
        .expect("it is good")
    }

    #[test]
    fn a10_a_reload_gives_nobody_a_second_helping() {
        let text = "[limits]\nwhole = \"2/h\"\n[keys.k]\nkey = \"literal:a-key-of-our-own-1\"\nrate = \"1/h\"\n";
        let share = Share::default();
        let first = RateLimits::new(&config(text), &share);
        let mut told = LimitReport::default();
        assert!(
            first.whole(true).is_ok()
                && first.whole(true).is_ok()
                && first.key("k", &mut told).is_ok()
        );
        let same = RateLimits::next(
            &config(&format!("{text}agents = [\"a\"]\n")),
            &share,
            Some(&first),
        );
        assert!(same.whole(true).is_err() && same.key("k", &mut told).is_err());
        let other = RateLimits::next(&config(&text.replace("2/h", "3/h")), &share, Some(&same));
        assert!(other.whole(true).is_ok(), "another limit counts anew");
        assert!(
            other.key("k", &mut told).is_err(),
            "and what is the same goes on"
        );
    }
}
