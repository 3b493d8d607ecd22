//! Gateway keys, which callers present instead of the upstream's key.
//!
//! A key is found by its digest, so that neither the time of the search nor the table in memory gives a key away. A key
//! inside a longer text is found by a fingerprint under a secret of this process, then by its digest.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use sha2::{Digest as _, Sha256};

use crate::config::{Config, GatewayKey, Secret};

/// The keys of a configuration.
#[derive(Debug, Default)]
pub struct Keyring {
    keys: HashMap<[u8; 32], GatewayKey>,
    spans: Vec<Span>,
}

/// Keys of one length, as fingerprints (Rabin and Karp's, with a secret base).
#[derive(Debug)]
struct Span {
    length: usize,
    base: u64,
    /// Weight of the first byte of a window.
    top: u64,
    prints: Vec<u64>,
}

/// Fingerprints are remainders by this prime, 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;

impl Keyring {
    /// The keys of a configuration.
    pub fn new(config: &Config) -> Self {
        let base = RandomState::new().hash_one(0) % PRIME;
        let mut spans: Vec<Span> = Vec::new();
        let live = |key: &'_ GatewayKey| {
            key.keys
                .iter()
                .map(|key| key.expose().to_vec())
                .collect::<Vec<_>>()
        };
        for key in config
            .keys
            .iter()
            .flat_map(live)
            .filter(|key| !key.is_empty())
        {
            match spans.iter_mut().find(|span| span.length == key.len()) {
                Some(span) => span.prints.push(print(base, &key)),
                None => spans.push(Span::new(base, &key)),
            }
        }
        let digests = |key: &GatewayKey| {
            let key = key.clone();
            let all: Vec<[u8; 32]> = key
                .keys
                .iter()
                .map(|live| Sha256::digest(live.expose()).into())
                .collect();
            all.into_iter().map(move |digest| (digest, key.clone()))
        };
        Self {
            keys: config.keys.iter().flat_map(digests).collect(),
            spans,
        }
    }

    /// The gateway key that a caller presents; none where it is another text.
    pub fn find(&self, presented: &[u8]) -> Option<&GatewayKey> {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        self.keys.get(&digest)
    }

    /// The name of a presented key among those of its table.
    pub fn name_of<'k>(&self, key: &'k GatewayKey, presented: &[u8]) -> Option<&'k str> {
        let wanted = Sha256::digest(presented);
        key.keys
            .iter()
            .find(|live| Sha256::digest(live.expose()) == wanted)
            .map(Secret::name)
    }

    /// True if a gateway key stands anywhere in a text.
    pub fn is_within(&self, text: &[u8]) -> bool {
        self.spans.iter().any(|span| {
            span.ends(text)
                .any(|end| self.find(&text[end - span.length..end]).is_some())
        })
    }
}

impl Span {
    fn new(base: u64, key: &[u8]) -> Self {
        let top = (1..key.len()).fold(1, |top, _| times(top, base));
        Self {
            length: key.len(),
            base,
            top,
            prints: vec![print(base, key)],
        }
    }

    /// The ends of the windows whose fingerprint is that of a key.
    fn ends<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = usize> + 't {
        let mut so_far = 0;
        (1..=text.len()).filter(move |&end| {
            if let Some(gone) = end.checked_sub(self.length + 1) {
                so_far = (so_far + PRIME - times(self.top, u64::from(text[gone]))) % PRIME;
            }
            so_far = (times(so_far, self.base) + u64::from(text[end - 1])) % PRIME;
            end >= self.length && self.prints.contains(&so_far)
        })
    }
}

fn print(base: u64, text: &[u8]) -> u64 {
    text.iter().fold(0, |so_far, byte| {
        (times(so_far, base) + u64::from(*byte)) % PRIME
    })
}

fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b) % u128::from(PRIME);
    // A remainder by 61 bits fits.
    u64::try_from(product).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Problems;

    #[test]
    fn s26_a_key_is_found_inside_of_any_text_and_nothing_else_is() {
        let keys = [
            "a-gateway-key-of-ours",
            "another-key-of-its-own!!",
            "one-more-key-of-ours!",
        ];
        let tables: String = keys
            .iter()
            .enumerate()
            .map(|(at, key)| format!("[keys.k{at}]\nkey = \"literal:{key}\"\n"))
            .collect();
        let problems = Problems::default();
        let config = Config::parse("t", &tables, Path::new("."), std::iter::empty(), &problems)
            .expect("it is good");
        let keyring = Keyring::new(&config);
        for key in keys {
            for text in [
                key.to_owned(),
                format!("x{key}"),
                format!("{key}y"),
                format!("{}{key}{key}", "é".repeat(99)),
            ] {
                assert!(keyring.is_within(text.as_bytes()), "{text}");
            }
            for text in [&key[1..], &key[..key.len() - 1], &key.to_uppercase(), ""] {
                assert!(!keyring.is_within(text.as_bytes()), "{text}");
            }
        }
        assert!(!Keyring::default().is_within(b"a-gateway-key-of-ours"));
    }
}
