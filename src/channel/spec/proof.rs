//! Later events that prove a message: its key, and the id or the code of a failure.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::ChannelSpec;
use crate::channel::path::{ValuePath, text_of};
use crate::channel::pattern::TextPattern;

/// A compiled later proof.
#[derive(Clone, Debug)]
pub(crate) struct ProofRule {
    pub(super) events: Vec<String>,
    pub(super) each: Vec<ValuePath>,
    pub(super) key: ValuePath,
    pub(super) id: Option<ValuePath>,
    pub(crate) within: Duration,
    pub(super) failed: Vec<(ValuePath, TextPattern)>,
    /// Path to the code of a failure.
    pub(super) code: Option<ValuePath>,
}

/// Most proofs of one event.
const PROOFS: usize = 1_000;

/// A proof in a later event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyProof {
    /// The key of the message.
    pub key: Uuid,
    /// The end that is proved.
    pub end: ProofEnd,
}

/// The end of a message that a later event proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProofEnd {
    /// The channel has it, with this id.
    Sent(Option<Value>),
    /// The channel could not deliver it; the channel's code.
    Failed(String),
}

impl ChannelSpec {
    /// Proofs in an event: the key of each, and the id or the code of a failure.
    pub fn proofs(&self, event_type: &str, json: &Value) -> Vec<KeyProof> {
        let Some(rule) = &self.proof else {
            return Vec::new();
        };
        let is_meant = rule.events.is_empty() || rule.events.iter().any(|name| name == event_type);
        if !is_meant {
            return Vec::new();
        }
        let each = rule.each.iter().flat_map(|path| path.all(json, PROOFS));
        let items: Vec<_> = match rule.each.is_empty() {
            true => vec![json],
            false => each.collect(),
        };
        let proof = |item: &Value| {
            let at = |path: &ValuePath| path.find(item).and_then(text_of);
            let key = at(&rule.key)?.parse().ok()?;
            let is_failed = !rule.failed.is_empty()
                && rule
                    .failed
                    .iter()
                    .all(|(path, pattern)| pattern.fits(at(path).as_deref()));
            let id = rule.id.as_ref().and_then(|path| path.find(item)).cloned();
            let code = rule.code.as_ref().and_then(at);
            Some(KeyProof {
                key,
                end: match is_failed {
                    true => ProofEnd::Failed(code.unwrap_or_else(|| "failed".to_owned())),
                    false => ProofEnd::Sent(id),
                },
            })
        };
        items.into_iter().filter_map(proof).collect()
    }
}
