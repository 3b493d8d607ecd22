//! The agent platform as a target: agents and workflows.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::channel::{ChannelTarget, owed};
use super::file::FileDelivery;
use super::{PrepareError, Shipment, Target};
use crate::config::{Config, RunMode, Secret, SourceMap};
use crate::inbox::seal::{SealError, Sealer};
use crate::inbox::{Claimed, Next, OwedDelivery, Turn};
use crate::model::{Account, AttemptResult, Lookup, Name};
use crate::upstream::{Call, Draw, Upstream, text_of_turn};

/// The agent platform.
#[derive(Debug)]
pub(in crate::dispatch) struct UpstreamTarget {
    upstream: Upstream,
    sealer: Arc<Sealer>,
    sources: SourceMap,
    /// The upstream keys of the gateway keys that have one of their own.
    keys: HashMap<String, Option<Secret>>,
    pub(in crate::dispatch) files: FileDelivery,
    /// The channels that answers go back to.
    pub(in crate::dispatch) channels: Option<Arc<ChannelTarget>>,
}

/// A call of an agent or a workflow.
struct UpstreamCall<'a> {
    target: &'a UpstreamTarget,
    /// The delivery, with the files that were fetched for it.
    claimed: Cow<'a, Claimed>,
    /// The upstream, with this delivery's place among those that share its budget.
    upstream: Upstream,
    call: Call,
}

impl UpstreamTarget {
    /// The platform of a configuration.
    pub(in crate::dispatch) fn new(
        config: &Config,
        upstream: Upstream,
        sealer: Arc<Sealer>,
        sources: SourceMap,
        files: FileDelivery,
    ) -> Self {
        let keys = config.keys.iter();
        Self {
            upstream,
            sealer,
            sources,
            keys: keys
                .map(|key| (key.name.clone(), key.upstream_key.clone()))
                .collect(),
            files,
            channels: None,
        }
    }

    /// A call that was made with one of the gateway's keys is sent with the upstream key that is configured for it now:
    /// the one it was sealed with may have been replaced since. A caller's own key stays.
    fn with_configured_key(&self, claimed: &Claimed, call: Call) -> Call {
        match &claimed.account {
            Account::Key(name) => match self.keys.get(name) {
                Some(key) => Call {
                    key: key.clone(),
                    ..call
                },
                None => call,
            },
            Account::Operator | Account::Foreign => call,
        }
    }

    fn cannot_open(&self, error: &SealError) -> PrepareError {
        PrepareError::Dead {
            result: "cannot_open",
            detail: format!(
                "the caller's call cannot be opened with the key {}: {error}; the caller has to send it again",
                self.sealer.name()
            ),
        }
    }
}

#[async_trait]
impl Target for UpstreamTarget {
    async fn prepare<'a>(
        &'a self,
        claimed: &'a Claimed,
    ) -> Result<Box<dyn Shipment + 'a>, PrepareError> {
        let (claimed, missing) = self
            .files
            .fetched(claimed)
            .await
            .map_err(PrepareError::NotNow)?;
        let call = match (&claimed.sealed, self.sources.get(&claimed.source)) {
            (Some(sealed), _) => {
                let call = Call::from_sealed(sealed, &self.sealer, claimed.id.event)
                    .map_err(|error| self.cannot_open(&error))?;
                self.with_configured_key(&claimed, call)
            }
            (None, Some(source)) => {
                Call::with_missing_files(&claimed, source, self.sealer.marks(), &missing)
            }
            (None, None) => {
                let name = &claimed.source;
                return Err(PrepareError::Dead {
                    result: "source_gone",
                    detail: format!(
                        "no source is called {name} any more; configure it and replay the event"
                    ),
                });
            }
        };
        let draw = Draw {
            account: claimed.account.clone(),
            class: claimed.class,
            claimed: true,
        };
        Ok(Box::new(UpstreamCall {
            target: self,
            claimed,
            upstream: self.upstream.of(draw),
            call,
        }))
    }

    fn has_record_per_conversation(&self) -> bool {
        true
    }

    fn owes(&self, claimed: &Claimed, next: &Next) -> Vec<OwedDelivery> {
        let channels = self.channels.as_ref();
        channels
            .and_then(|channels| owed(channels, claimed, next))
            .into_iter()
            .collect()
    }

    fn text_of(&self, claimed: &Claimed, earlier: &Turn) -> String {
        match self.sources.get(&claimed.source) {
            Some(source) => text_of_turn(earlier, source, self.sealer.marks()),
            // A caller's own call was erased when it ended; its prompt is still known.
            None => {
                let prompt = earlier.params.get(Name::Prompt);
                prompt.unwrap_or_default().to_owned()
            }
        }
    }
}

#[async_trait]
impl Shipment for UpstreamCall<'_> {
    fn text(&self) -> &str {
        self.call.text()
    }

    async fn complete(&mut self) -> Result<(), String> {
        let links = self.target.files.links(&self.claimed).await?;
        self.call.body.input.files = links;
        Ok(())
    }

    async fn send(&self) -> AttemptResult {
        self.upstream.invoke(&self.call).await
    }

    async fn look_up(&self) -> Lookup {
        let (id, key) = (&self.claimed.upstream_id, self.call.key.as_ref());
        self.upstream.task(id, key).await
    }

    fn longest_send(&self) -> Option<Duration> {
        let longest = self.call.timeout.unwrap_or(self.upstream.run_timeout());
        (self.call.run != RunMode::Async).then_some(longest)
    }

    fn is_started_only(&self) -> bool {
        self.call.run == RunMode::Async
    }

    fn has_own_key(&self) -> bool {
        self.call.key.is_some()
    }
}
