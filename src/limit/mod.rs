//! How much, how fast: the whole gateway, each caller's address, each source. Asked before anything of the body is
//! read. Everything is bounded, whoever calls. Processes that share an inbox divide what is configured.

pub mod keyed;
pub mod limiter;
pub mod share;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::config::{Config, Rate};
use crate::model::Refusal;

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

/// The key of a caller: an IPv4 address, or the /64 that an IPv6 caller can choose addresses in.
fn bucket(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_caller_has_one_bucket_for_its_64() {
        let bucket_of = |text: &str| bucket(text.parse().expect("an address"));
        assert_eq!(bucket_of("2001:db8::1"), bucket_of("2001:db8::ffff:1"));
        assert_ne!(bucket_of("2001:db8:0:1::1"), bucket_of("2001:db8::1"));
        assert_eq!(bucket_of("::ffff:192.0.2.1"), bucket_of("192.0.2.1"));
    }
}
