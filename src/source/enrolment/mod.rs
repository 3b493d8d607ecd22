//! Enrolment of a secret that a provider's handshake brings.
//!
//! Anybody can reach a source. So an operator opens a slot by a word in the query of its address, which only the operator
//! and the provider know. A secret that comes in by it waits until the operator has compared its fingerprint and origin.

mod slot;

use std::sync::Arc;

use arc_swap::ArcSwapOption;

pub(super) use self::slot::EnrolmentSlot;
pub use self::slot::PendingSecret;
use super::Source;
use crate::config::{Located, Problems, Provider, Secret, SourceConfig};
use crate::model::{ENROL, Received, Refusal, Timestamp};
use crate::verify::{Scheme, compile_source, same};

/// Enrolment of one source: its slot, and the scheme with the secrets that were brought.
#[derive(Debug)]
pub(super) struct Enrolment {
    pub(super) slot: EnrolmentSlot,
    /// The provider, and whether the public address is known; the scheme is compiled again with both.
    pub(super) provider: Provider,
    pub(super) has_public_url: bool,
    /// The scheme with the secrets that were brought since the start, and those secrets.
    pub(super) now: ArcSwapOption<(Scheme, SourceConfig)>,
}

impl Source {
    /// Takes a secret that a handshake brought, if the operator has opened the slot to its sender. The secret counts once
    /// the operator has confirmed it.
    pub(super) fn enrol(
        &self,
        scheme: &Scheme,
        received: &Received,
        secret: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        // Brought again, because the answer was lost: the sender knows it.
        if scheme.keys().iter().any(|key| same(key.expose(), secret)) {
            return Ok(());
        }
        let closed = || {
            let cause = "a handshake brought a secret, and no window is open to who brought it: \
                         `sluicegate source enrol` prints the address that the provider has to be given";
            Refusal::Challenge(cause.into())
        };
        let enrolment = self.enrolment.as_ref().ok_or_else(closed)?;
        let text = std::str::from_utf8(secret).map_err(|_| closed())?;
        let query = form_urlencoded::parse(received.query().as_bytes());
        let words: Vec<_> = query
            .filter(|(name, _)| name == ENROL)
            .map(|(_, word)| word)
            .collect();
        let word = if let [word] = words.as_slice() {
            Some(&**word)
        } else {
            None
        };
        if !enrolment.slot.take(word, text, received.peer, now) {
            return Err(closed());
        }
        if let Some(brought) = enrolment.slot.brought() {
            let (source, peer) = (&self.config.name, brought.peer);
            tracing::info!(
                audit = "source.brought",
                source,
                fingerprint = brought.fingerprint,
                %peer,
                "a handshake brought a secret, which counts when an operator has confirmed it"
            );
        }
        Ok(())
    }

    /// Opens the slot for a secret, and gives the word that the provider's address must have behind `?enrol=`. None: this
    /// source takes no secret.
    pub fn open_window(&self, until: Timestamp) -> Option<Result<String, String>> {
        self.enrolment
            .as_ref()
            .map(|enrolment| enrolment.slot.open(until))
    }

    /// The secret that a handshake brought and no operator has confirmed yet.
    pub fn brought(&self) -> Option<PendingSecret> {
        self.enrolment.as_ref()?.slot.brought()
    }

    /// Confirms the brought secret with this fingerprint, so that it counts. None: no such secret waits.
    pub fn confirm_secret(&self, fingerprint: &str, now: Timestamp) -> Option<Result<(), String>> {
        let enrolment = self.enrolment.as_ref()?;
        let secret = enrolment.slot.waiting(fingerprint)?;
        Some(self.adopt(enrolment, &secret, now))
    }

    fn adopt(&self, enrolment: &Enrolment, secret: &str, now: Timestamp) -> Result<(), String> {
        let mut config = enrolment
            .now
            .load()
            .as_deref()
            .map_or_else(|| (*self.config).clone(), |(_, config)| config.clone());
        let name = format!("enrolled at {now}");
        config.secrets.push(Located {
            value: Secret::new(name, secret),
            place: self.config.place.clone(),
        });
        let problems = Problems::default();
        let (Some(scheme), _) = compile_source(
            &config,
            Some(&enrolment.provider),
            enrolment.has_public_url,
            &problems,
        ) else {
            return Err("the secret that was brought does not fit this scheme".into());
        };
        enrolment
            .slot
            .keep(secret)
            .map_err(|error| format!("cannot keep the secret: {error}"))?;
        enrolment.now.store(Some(Arc::new((scheme, config))));
        enrolment.slot.settle();
        Ok(())
    }
}
