//! The keys of the gateway's own, which callers present instead of the upstream's.
//!
//! A key is found by its digest, so that neither the time it takes nor the table in memory tells one key from another.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use crate::config::{Config, GatewayKey};

/// The keys of a configuration.
#[derive(Debug, Default)]
pub struct Keyring(HashMap<[u8; 32], GatewayKey>);

impl Keyring {
    /// The keys of a configuration.
    pub fn new(config: &Config) -> Self {
        let digest = |key: &GatewayKey| Sha256::digest(key.key.expose()).into();
        Self(config.keys.iter().map(|key| (digest(key), key.clone())).collect())
    }

    /// The gateway key that a caller presents, if it is one.
    pub fn find(&self, presented: &[u8]) -> Option<&GatewayKey> {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        self.0.get(&digest)
    }
}
