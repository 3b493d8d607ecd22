//! Who is calling: the configured sources, and the proof of where a request comes from.
//!
//! How a provider signs is data (`config/providers`), compiled into a [`Scheme`] when the configuration is read; no
//! provider's name stands in this module. Everything that is wrong comes out at once, and a source that could let
//! anybody in by accident, without a secret or with one that everybody knows, is not made.

mod certificate;
mod challenge;
mod content;
mod der;
mod document;
mod field;
mod jwt;
mod kept;
mod key;
mod keypair;
mod keyring;
mod mac;
#[cfg(test)]
mod proofs;
mod scheme;
mod sign;
mod signature;
mod token;
#[cfg(test)]
mod vectors;
mod verify;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;

pub use self::certificate::Fetch;
use self::challenge::Challenge;
pub use self::keypair::KeyPair;
pub use self::keyring::Keyring;
use self::scheme::Given;
pub use self::scheme::Scheme;
pub use self::sign::Signer;
use crate::config::section::nearest;
use crate::config::{Ack, Config, Located, Problems, Provider, Secret, Section, SourceConfig, Table};
use crate::mapping::Mapping;
use crate::model::{Received, Refusal, Timestamp, Verified};

/// The configured sources, by name.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<String, Arc<Source>>);

/// One configured way in, compiled.
#[derive(Debug)]
pub struct Source {
    /// As written.
    pub config: SourceConfig,
    /// How its callers are known.
    pub scheme: Scheme,
    /// What its events say.
    pub mapping: Mapping,
    /// The answer its sender wants to an accepted event.
    pub ack: Ack,
    /// The largest body, where the source or its provider says.
    pub max_body: Option<u64>,
    challenges: Vec<Challenge>,
}

/// An answer given at the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The type of the body.
    pub content_type: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// What may be kept of a request: nothing that proves who somebody is by being known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Method and target.
    pub request_line: String,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Sources {
    /// Compiles every source; what cannot be compiled is a problem.
    pub fn compile(config: &Config, problems: &Problems) -> Self {
        let mut all = BTreeMap::new();
        for source in &config.sources {
            if let Some(compiled) = Source::compile(source, config, problems) {
                all.insert(source.name.clone(), Arc::new(compiled));
            }
        }
        Self(all)
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
    fn compile(source: &SourceConfig, config: &Config, problems: &Problems) -> Option<Self> {
        let provider = provider(source, config, problems);
        let has_public_url = !config.server.public_url.is_empty();
        let (scheme, challenges) = prove(source, provider, has_public_url, problems);
        let (event_id, event_type) = match &scheme {
            Some(scheme) => (scheme.event_id.as_slice(), scheme.event_type.as_slice()),
            None => Default::default(),
        };
        let mapping = Mapping::compile(source, provider, event_id, event_type, problems);
        Some(Self {
            config: source.clone(),
            scheme: scheme?,
            mapping: mapping?,
            ack: provider.map(|provider| provider.ack.clone()).unwrap_or_default(),
            max_body: source.max_body.or(provider.and_then(|provider| provider.max_body)),
            challenges: challenges?,
        })
    }

    /// The methods it answers to, as an `Allow` header says them.
    pub fn allow(&self) -> &'static str {
        allow(&self.challenges)
    }

    /// Answers a provider's challenge. None: it is none, and the request goes its way; only a POST has one to go.
    pub fn handshake(&self, received: &Received, now: Timestamp) -> Option<Result<Answer, Refusal>> {
        let answer = self.challenges.iter().find_map(|challenge| challenge.answer(received, &self.scheme, now));
        match answer {
            None if received.method != Method::POST => Some(Err(Refusal::Method(self.allow()))),
            answer => answer,
        }
    }

    /// Proves the origin, or says why not.
    pub fn verify(&self, received: Received, now: Timestamp) -> Result<Verified, Box<(Received, Refusal)>> {
        received.verify(&self.scheme, now)
    }
}

/// The provider of a source; none for one of its own.
fn provider<'c>(source: &SourceConfig, config: &'c Config, problems: &Problems) -> Option<&'c Provider> {
    let name = source.provider.value.as_str();
    match (config.providers.get(name), name) {
        (Some(provider), _) => Some(provider),
        // A missing name is reported where the source is read.
        (None, "") => None,
        (None, "custom") => {
            if source.verify.is_none() {
                problems.error_hint(
                    &source.provider.place,
                    format!("source {} does not say how its callers are known", source.name),
                    "a custom source needs a verify table, for example verify = { signature = \"header:X-Signature\" }",
                );
            }
            None
        }
        (None, name) => {
            let known = config.providers.keys().map(String::as_str).chain(["custom"]);
            let hint = match nearest(name, known) {
                Some(near) => format!("did you mean {near}?"),
                None => "`sluicegate provider list` shows them all; custom takes a verify table of your own".to_owned(),
            };
            let what = format!("no provider is called \"{}\"", name.escape_debug());
            problems.error_hint(&source.provider.place, what, hint);
            None
        }
    }
}

/// Compiles what proves a source's callers, and its challenges.
fn prove(
    source: &SourceConfig,
    provider: Option<&Provider>,
    has_public_url: bool,
    problems: &Problems,
) -> (Option<Scheme>, Option<Vec<Challenge>>) {
    for secret in &source.secrets {
        weigh(secret, problems);
    }
    let inline = source.verify.as_ref().map(|table| (table, format!("sources.{}.verify", source.name)));
    let shipped = provider.and_then(|provider| provider.verify.as_ref()).map(|table| (table, "verify".to_owned()));
    // What is missing here is reported already.
    let Some((table, name)) = inline.or(shipped) else { return (None, None) };
    let given = Given {
        secrets: &source.secrets,
        values: &source.values,
        has_public_url,
        enrols: false,
        source: (&source.name, &source.place),
        problems,
    };
    let scheme = Scheme::compile(table, &name, &given);
    let challenges = provider.map_or(&[][..], |provider| provider.challenges.as_slice());
    (scheme, compile_challenges(challenges, table, &given))
}

fn compile_challenges(tables: &[Table], verify: &Table, given: &Given<'_>) -> Option<Vec<Challenge>> {
    if tables.is_empty() {
        return Some(Vec::new());
    }
    // The values that templates may use are declared by the verify section, which has reported what is wrong with it.
    let quiet = Problems::default();
    let section = Section::new(verify, "verify", &quiet);
    let declared = section.texts("config").unwrap_or_default().into_iter().map(|name| name.value).collect();
    let setup = given.setup(declared);
    let compiled: Vec<Option<Challenge>> = tables
        .iter()
        .enumerate()
        .map(|(number, table)| Challenge::compile(table, &format!("challenge[{number}]"), &setup, given))
        .collect();
    compiled.into_iter().collect()
}

/// Secrets that stand in documentation, and so in everybody's hands.
const WELL_KNOWN: [&str; 14] = [
    "secret",
    "changeme",
    "change-me",
    "password",
    "your-secret",
    "your_secret",
    "yoursecret",
    "your-webhook-secret",
    "my-secret",
    "mysecret",
    "webhook-secret",
    "webhooksecret",
    "supersecret",
    "test-secret",
];

/// A secret that can be guessed is a problem; one that was written for trying out is only pointed at.
fn weigh(secret: &Located<Secret>, problems: &Problems) {
    let value = String::from_utf8_lossy(secret.expose()).to_ascii_lowercase();
    let what = if WELL_KNOWN.contains(&value.as_str()) {
        format!("the secret {} is one that everybody knows", secret.name())
    } else if secret.expose().len() < 8 {
        format!("the secret {} is shorter than 8 characters", secret.name())
    } else {
        return;
    };
    let hint = "set a long random one here and with the provider, for example from: openssl rand -hex 32";
    if secret.name().starts_with("literal ") {
        problems.warn(&secret.place, what, hint);
    } else {
        problems.error_hint(&secret.place, what, hint);
    }
}

/// The `Allow` header of a source with these challenges.
fn allow(challenges: &[Challenge]) -> &'static str {
    let has = |method: Method| challenges.iter().any(|challenge| challenge.method.as_ref() == Some(&method));
    match (has(Method::GET), has(Method::HEAD), has(Method::OPTIONS)) {
        (false, false, false) => "POST",
        (true, false, false) => "GET, POST",
        (false, true, false) => "HEAD, POST",
        (true, true, false) => "GET, HEAD, POST",
        (false, false, true) => "OPTIONS, POST",
        (true, false, true) => "GET, OPTIONS, POST",
        (false, true, true) => "HEAD, OPTIONS, POST",
        (true, true, true) => "GET, HEAD, OPTIONS, POST",
    }
}
