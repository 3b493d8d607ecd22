//! What an event says: compiled when the configuration is read, applied once per event.

use crate::config::{Located, Problems, Provider, SourceConfig};
use crate::model::{Params, Refusal, Verified};

/// A source's mapping, compiled.
#[derive(Debug)]
pub struct Mapping {}

/// What the mapping found in an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// The provider's own name for the event.
    pub dedup: Option<String>,
    /// The provider's word for what happened.
    pub event_type: Option<String>,
    /// The conversation at the source.
    pub thread: Option<String>,
    /// The rule that keeps it from going further.
    pub filtered: Option<String>,
    /// The named values.
    pub params: Params,
}

impl Mapping {
    /// Compiles a source's mapping over its provider's. `event_id` and `event_type` are the sources named by the
    /// `[verify]` section. What cannot be compiled is a problem.
    pub fn compile(
        _source: &SourceConfig,
        _provider: Option<&Provider>,
        _event_id: &[Located<String>],
        _event_type: &[Located<String>],
        _problems: &Problems,
    ) -> Option<Self> {
        unimplemented!()
    }

    /// Reads an event.
    pub fn apply(&self, _verified: &Verified) -> Result<Mapped, Refusal> {
        unimplemented!()
    }
}
