//! Fetches of certificates that requests name: a few at a time, and one at a time for networks that name useless addresses.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::WebClient;
use crate::model::{OriginFault, Received, Refusal, Timestamp};
use crate::verify::{Scheme, WantedCertificate};

/// Number of fetches at a time, and the time that a request waits for its turn.
const AT_ONCE: usize = 8;
const TURN: Duration = Duration::from_secs(5);

/// Turns of the fetches of one source.
#[derive(Debug)]
pub(super) struct CertificateFetches {
    /// The turns of networks that named few useless addresses, and the one turn of all others.
    turns: Semaphore,
    last_turn: Semaphore,
}

impl Default for CertificateFetches {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(AT_ONCE),
            last_turn: Semaphore::new(1),
        }
    }
}

impl CertificateFetches {
    /// Fetches the certificate that a request names, where its scheme wants one and the request is right in everything
    /// that can be told without. An error is a refusal.
    pub(super) async fn fetch_wanted(
        &self,
        scheme: &Scheme,
        received: &Received,
        web: &dyn WebClient,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Some(wanted) = scheme.wanted_certificate(received, now)? else {
            return Ok(());
        };
        match self.fetch(&wanted, received.peer, web, now).await {
            Err(what) if wanted.is_missing => {
                let address = &wanted.address;
                let cause = format!("the certificate at {address} cannot be had: {what}");
                // No fault of the sender's; it may try again.
                Err(Refusal::Origin(OriginFault::UnknownKey, cause).answered(503))
            }
            // The one at hand is still valid.
            _ => Ok(()),
        }
    }

    /// Fetches and keeps one, for a request of this peer.
    async fn fetch(
        &self,
        wanted: &WantedCertificate<'_>,
        peer: IpAddr,
        web: &dyn WebClient,
        now: Timestamp,
    ) -> Result<(), String> {
        let turns = if wanted.is_crowded(peer, now) {
            &self.last_turn
        } else {
            &self.turns
        };
        let turn = tokio::time::timeout(TURN, turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err("too many other addresses are being asked for".into());
        };
        // Another request may have fetched it while this one waited.
        if !wanted.begin(now) {
            return Ok(());
        }
        let fetched = web.get(&wanted.address).await;
        let bytes = fetched.as_deref().map_err(Clone::clone);
        wanted.end(bytes, peer, now)
    }
}
