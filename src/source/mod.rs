//! Configured sources: each way in, compiled with its provider, its secrets and its mapping.
//!
//! A source without a secret, or with a well-known one, would let any caller in: it is a problem of the configuration.

mod backing;
mod certificates;
mod compile;
mod enrolment;
mod event;
mod forward_auth;
mod hint;
mod keyring;
mod proof;
mod sealed_query;
mod streamed;
#[cfg(test)]
mod tests;
mod web_client;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use self::certificates::CertificateFetches;
use self::enrolment::Enrolment;
pub use self::enrolment::PendingSecret;
use self::forward_auth::ServiceQuestions;
pub use self::keyring::Keyring;
pub use self::streamed::Streamed;
pub use self::web_client::WebClient;
use crate::attachment::Fetcher;
use crate::config::{Ack, ReplayWindow, SourceConfig};
use crate::dispatch::owed_delivery;
use crate::mapping::Mapping;
use crate::mapping::getter::Getter;
use crate::model::{
    ClientCertificate, DeliveryId, Marks, NewDelivery, Received, Refusal, Timestamp, UpstreamIds,
};
use crate::verify::{
    Challenge, CheckConfig, RedactedRequest, Scheme, accepted_as, allowed_methods, redacted,
};

/// The configured sources, by name.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<String, Arc<Source>>);

/// One configured source, compiled.
#[derive(Debug)]
pub struct Source {
    /// The source as written.
    pub config: Arc<SourceConfig>,
    /// The proof of its callers, with every secret.
    pub scheme: Scheme,
    /// The schemes without the secrets that have ended, each with the time from which it holds, in order of time.
    later: Vec<(Timestamp, Scheme)>,
    /// The mapping of its events.
    pub mapping: Mapping,
    /// The answer its sender wants to an accepted event.
    pub ack: Ack,
    /// The largest body, where the source or its provider sets one.
    pub max_body: Option<u64>,
    /// The time that a proof counts as used.
    pub replay_window: ReplayWindow,
    /// The time that its events are kept, roughly.
    kept_for: Duration,
    /// True if its sender tries again after a refusal.
    pub sender_retries: bool,
    /// The part of a run's task object that its callers get.
    pub getter: Option<Getter>,
    /// The time that a caller waits for the end of a run, where the source answers with it.
    pub wait: Duration,
    /// The ids of its conversations at the upstream.
    ids: Arc<UpstreamIds>,
    /// The fetcher of files that payloads only name.
    channel: Option<Fetcher>,
    challenges: Vec<Challenge>,
    enrolment: Option<Enrolment>,
    /// The check as written, to explain refusals with, and the time of the last explanation.
    written: Option<CheckConfig>,
    explained: Mutex<Option<Timestamp>>,
    fetches: CertificateFetches,
    questions: ServiceQuestions,
}

impl Sources {
    /// The sources with the ids that the inbox gives conversations, and the marks that fence in foreign text. Without them
    /// both last as long as the process.
    pub fn of_inbox(mut self, ids: &Arc<UpstreamIds>, marks: &Marks) -> Self {
        for source in self.0.values_mut() {
            let source =
                Arc::get_mut(source).expect("a source that was just compiled has one owner");
            source.ids = ids.clone();
            source.mapping.mark_with(marks.clone());
        }
        self
    }

    /// A source by name.
    pub fn get(&self, name: &str) -> Option<&Arc<Source>> {
        self.0.get(name)
    }

    /// All of them, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.0.values()
    }
}

impl Source {
    /// The delivery that an event of this source owes.
    pub fn owed(&self, id: DeliveryId, thread: Option<&str>) -> Option<NewDelivery> {
        owed_delivery(&self.config, id, thread, &self.ids)
    }

    /// The request without its secrets, as it may be kept.
    pub fn kept(&self, received: &Received) -> RedactedRequest {
        redacted(&self.scheme, received)
    }

    /// The time at which the secret of this name ends.
    pub fn ends(&self, secret: &str) -> Option<Timestamp> {
        self.config
            .secrets
            .iter()
            .find(|known| known.name() == secret)?
            .until()
    }

    /// The methods that it answers, in the form of an `Allow` header.
    pub fn allow(&self) -> &'static str {
        allowed_methods(&self.challenges)
    }

    /// Checks the client certificate of a connection against `client_certs`. It is a condition beside the scheme, and
    /// holds where `enforce` is off, too.
    pub fn accept_certificate(&self, shown: Option<&ClientCertificate>) -> Result<(), Refusal> {
        let accepted = &self.config.client_certs;
        if accepted.is_empty() {
            return Ok(());
        }
        match accepted_as(accepted, shown) {
            Ok(_) => Ok(()),
            Err((_, cause)) => Err(Refusal::Certificate(cause)),
        }
    }

    /// True if compressed bodies are taken.
    pub const fn takes_compressed(&self) -> bool {
        self.scheme.compressed.is_some()
    }
}
