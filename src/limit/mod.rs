//! How much, how fast: the whole gateway, each caller's address, each source. Asked before anything of the body is
//! read; only conversations are known when it was read and proved. Everything is bounded, whoever calls. Processes that share an inbox divide what is configured.

pub mod keyed;
pub mod limiter;
pub mod share;
pub mod table;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use crate::config::{Config, Rate};
use crate::model::{Refusal, bucket};

use keyed::Keyed;
pub use limiter::{Left, Limiter};
pub use share::Share;

/// The limits of one gateway.
#[derive(Debug)]
pub struct Limits {
    whole: Option<Limiter>,
    callers: Option<Keyed<IpAddr>>,
    sources: HashMap<String, Limiter>,
    threads: HashMap<String, Keyed<u64>>,
    names: RandomState,
    dropin: Option<Limiter>,
    keys: HashMap<String, Limiter>,
}

impl Limits {
    /// This process's share of a configuration's limits.
    pub fn new(config: &Config, share: &Share) -> Self {
        let limiter = |rate| Limiter::new(rate, share.clone());
        Self {
            whole: config.limits.whole.map(limiter),
            callers: config.limits.caller.map(|rate| Keyed::new(rate, share.clone())),
            sources: named_rates(config).filter_map(|(name, rate)| Some((name, limiter(rate?)))).collect(),
            threads: config
                .sources
                .iter()
                .filter_map(|source| Some((source.name.clone(), Keyed::new(source.thread_rate?, share.clone()))))
                .collect(),
            names: RandomState::new(),
            dropin: config.dropin.rate.map(limiter),
            keys: config.keys.iter().filter_map(|key| Some((key.name.clone(), limiter(key.rate?)))).collect(),
        }
    }

    /// Counts one request at the drop-in.
    pub fn dropin(&self, told: &mut Told) -> Result<(), Refusal> {
        self.dropin.as_ref().map_or(Ok(()), |limiter| told.take("dropin", limiter.check()))
    }

    /// Counts one request of a caller, before it is known what it wants.
    pub fn caller(&self, peer: IpAddr, told: &mut Told) -> Result<(), Refusal> {
        if let Some(callers) = &self.callers {
            told.take("caller", callers.check(&bucket(peer)))?;
        }
        match &self.whole {
            // The whole gateway's limit is our own trouble, not this caller's doing, and none of its business.
            Some(whole) => whole.check().map(|_| ()).map_err(|left| Refusal::Overloaded(left.reset)),
            None => Ok(()),
        }
    }

    /// Counts one use of a gateway key, by the key's name.
    pub fn key(&self, name: &str, told: &mut Told) -> Result<(), Refusal> {
        self.keys.get(name).map_or(Ok(()), |limiter| told.take("key", limiter.check()))
    }

    /// Counts one request at a source or at a proxied prefix (`proxy:/v1`).
    pub fn source(&self, name: &str, told: &mut Told) -> Result<(), Refusal> {
        self.sources.get(name).map_or(Ok(()), |limiter| told.take("source", limiter.check()))
    }

    /// Counts one event of a source's conversation. What the conversation is called is not kept.
    pub fn thread(&self, source: &str, thread: &str, told: &mut Told) -> Result<(), Refusal> {
        let check = |threads: &Keyed<u64>| told.take("thread", threads.check(&self.names.hash_one(thread)));
        self.threads.get(source).map_or(Ok(()), check)
    }
}

/// What a caller may be told of the limits it was counted by, in the words of the RateLimit header fields
/// (draft-ietf-httpapi-ratelimit-headers).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told(Vec<(&'static str, Left)>);

impl Told {
    fn take(&mut self, name: &'static str, counted: Result<Left, Left>) -> Result<(), Refusal> {
        let (left, over) = match counted {
            Ok(left) => (left, Ok(())),
            Err(left) => (left, Err(Refusal::Limited(left.reset))),
        };
        self.0.push((name, left));
        over
    }

    /// `RateLimit-Policy` and `RateLimit`; none where there was no limit.
    pub fn fields(&self) -> Option<(String, String)> {
        let list = |item: fn(&(&'static str, Left)) -> String| self.0.iter().map(item).collect::<Vec<_>>().join(", ");
        let policy = list(|(name, left)| format!("\"{name}\";q={};w={}", left.rate.count, whole(left.rate.per)));
        let state = list(|(name, left)| format!("\"{name}\";r={};t={}", left.remaining, whole(left.reset)));
        (!self.0.is_empty()).then_some((policy, state))
    }
}

/// Whole seconds, never too few.
fn whole(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Sources and proxied prefixes. No source is called so that it could be taken for a prefix.
fn named_rates(config: &Config) -> impl Iterator<Item = (String, Option<Rate>)> {
    let sources = config.sources.iter().map(|source| (source.name.clone(), source.rate));
    let proxies = config.proxies.iter().map(|proxy| (proxy.label(), proxy.rate));
    sources.chain(proxies)
}
