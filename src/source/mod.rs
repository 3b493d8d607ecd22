//! Who is calling: the configured sources, and the proof of where a request comes from.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{Ack, Config, Problems, SourceConfig};
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
    /// What its events say.
    pub mapping: Mapping,
    /// The answer its sender wants to an accepted event.
    pub ack: Ack,
    /// The largest body, where the source or its provider says.
    pub max_body: Option<u64>,
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
    pub fn compile(_config: &Config, _problems: &Problems) -> Self {
        unimplemented!()
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
    /// The methods it answers to, as an `Allow` header says them.
    pub fn allow(&self) -> &'static str {
        unimplemented!()
    }

    /// Answers a provider's challenge. None: it is none, and the request goes its way.
    pub fn handshake(&self, _received: &Received, _now: Timestamp) -> Option<Result<Answer, Refusal>> {
        unimplemented!()
    }

    /// Proves the origin, or says why not.
    pub fn verify(&self, _received: Received, _now: Timestamp) -> Result<Verified, Box<(Received, Refusal)>> {
        unimplemented!()
    }

    /// What may be kept of a request.
    pub fn kept(&self, _received: &Received) -> Kept {
        unimplemented!()
    }
}
