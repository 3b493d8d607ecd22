//! How much, how fast: the whole gateway, each caller's address, each source. Asked before anything of the body is
//! read. Everything is bounded, whoever calls. Processes that share an inbox divide what is configured.

pub mod keyed;
pub mod limiter;
pub mod share;

use std::collections::HashMap;
use std::net::IpAddr;

use crate::config::{Config, Rate};
use crate::model::{Refusal, bucket};

use keyed::Keyed;
pub use limiter::Limiter;
pub use share::Share;

/// The limits of one gateway.
#[derive(Debug)]
pub struct Limits {
    whole: Option<Limiter>,
    callers: Option<Keyed<IpAddr>>,
    sources: HashMap<String, Limiter>,
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
            dropin: config.dropin.rate.map(limiter),
            keys: config.keys.iter().filter_map(|key| Some((key.name.clone(), limiter(key.rate?)))).collect(),
        }
    }

    /// Counts one request at the drop-in.
    pub fn dropin(&self) -> Result<(), Refusal> {
        self.dropin.as_ref().map_or(Ok(()), |limiter| limiter.check().map_err(Refusal::Limited))
    }

    /// Counts one request of a caller, before it is known what it wants.
    pub fn caller(&self, peer: IpAddr) -> Result<(), Refusal> {
        if let Some(callers) = &self.callers {
            callers.check(&bucket(peer)).map_err(Refusal::Limited)?;
        }
        match &self.whole {
            // The whole gateway's limit is our own trouble, not this caller's doing.
            Some(whole) => whole.check().map_err(Refusal::Overloaded),
            None => Ok(()),
        }
    }

    /// Counts one use of a gateway key, by the key's name.
    pub fn key(&self, name: &str) -> Result<(), Refusal> {
        self.keys.get(name).map_or(Ok(()), |limiter| limiter.check().map_err(Refusal::Limited))
    }

    /// Counts one request at a source or at a proxied prefix (`proxy:/v1`).
    pub fn source(&self, name: &str) -> Result<(), Refusal> {
        self.sources.get(name).map_or(Ok(()), |limiter| limiter.check().map_err(Refusal::Limited))
    }
}

/// Sources and proxied prefixes. No source is called so that it could be taken for a prefix.
fn named_rates(config: &Config) -> impl Iterator<Item = (String, Option<Rate>)> {
    let sources = config.sources.iter().map(|source| (source.name.clone(), source.rate));
    let proxies = config.proxies.iter().map(|proxy| (proxy.label(), proxy.rate));
    sources.chain(proxies)
}
