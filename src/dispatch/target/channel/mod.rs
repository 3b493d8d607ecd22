//! Channels as a target: replies that go back to the chat that an event came from.
//!
//! A reply is a delivery whose payload is a [`ChannelReply`]. It takes several attempts: each makes one call, and its
//! settlement keeps how far the reply has come. The claim of an attempt is on disk before the call is made, so a reply that
//! is claimed again after a crash is in doubt, and the reply itself says what that means for its channel. Nothing of the
//! agent's run is repeated because of a reply.

mod answer;
mod attempt;
mod pace;
mod parts;
mod typing;

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;

use self::attempt::ReplyAttempt;
use self::pace::Paces;
use super::{Advance, PrepareError, Shipment, Target};
use crate::channel::{ChannelReply, ChannelSecrets, Channels};
use crate::config::reply::SourceReply;
use crate::config::{Config, Problems, Secret, SourceMap};
use crate::inbox::Claimed;
use crate::limit::Share;
use crate::model::Clock;
use crate::net::Client;

pub(in crate::dispatch) use answer::owed;

/// The channels of all sources.
pub(in crate::dispatch) struct ChannelTarget {
    channels: Channels,
    sources: SourceMap,
    secrets: HashMap<String, SourceSecrets>,
    client: Client,
    clock: Clock,
    paces: Paces,
}

/// The secrets of one source for its channel.
#[derive(Default)]
struct SourceSecrets {
    token: Option<Secret>,
    basic: Option<(Secret, Secret)>,
    key: Option<Secret>,
}

impl fmt::Debug for ChannelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelTarget")
            .field("channels", &self.channels)
            .finish_non_exhaustive()
    }
}

impl ChannelTarget {
    /// The channels of a configuration.
    pub(in crate::dispatch) fn new(
        config: &Config,
        client: Client,
        clock: Clock,
        share: Share,
    ) -> Self {
        let replies = config
            .sources
            .iter()
            .filter_map(|source| Some((source.name.clone(), source.reply.as_ref()?)));
        Self {
            // Mistakes were reported when the configuration was checked.
            channels: Channels::of(config, &Problems::default()),
            sources: config.sources.clone(),
            secrets: replies
                .map(|(name, reply)| (name, SourceSecrets::of(reply)))
                .collect(),
            client,
            clock,
            paces: Paces::new(share),
        }
    }

    pub(super) fn channels(&self) -> &Channels {
        &self.channels
    }

    pub(super) fn sources(&self) -> &SourceMap {
        &self.sources
    }
}

impl SourceSecrets {
    fn of(reply: &SourceReply) -> Self {
        Self {
            token: reply.token.clone(),
            basic: reply.client_id.clone().zip(reply.client_secret.clone()),
            key: reply.key.clone(),
        }
    }

    fn exposed(&self) -> ChannelSecrets<'_> {
        ChannelSecrets {
            token: self.token.as_ref().and_then(text),
            basic: self
                .basic
                .as_ref()
                .and_then(|(name, password)| text(name).zip(text(password))),
            signing_key: self.key.as_ref().map(Secret::expose),
        }
    }
}

/// A secret as text; none where it is no text, which no channel takes.
fn text(secret: &Secret) -> Option<&str> {
    std::str::from_utf8(secret.expose()).ok()
}

#[async_trait]
impl Target for ChannelTarget {
    async fn prepare<'a>(&'a self, _: &'a Claimed) -> Result<Box<dyn Shipment + 'a>, PrepareError> {
        Err(PrepareError::Dead {
            result: "stepwise",
            detail: "a reply is sent step by step".to_owned(),
        })
    }

    fn is_stepwise(&self) -> bool {
        true
    }

    async fn advance(&self, claimed: &Claimed) -> Advance {
        let Some(answers) = &claimed.answers else {
            let detail = "the delivery has no reply; it cannot be sent to a channel";
            return Advance::dead("no_reply", detail.to_owned());
        };
        let Ok(reply) = serde_json::from_slice::<ChannelReply>(&answers.payload) else {
            let detail = "the reply cannot be read";
            return Advance::dead("unreadable", detail.to_owned());
        };
        let (Some(channel), Some(source)) = (
            self.channels.get(&claimed.source),
            self.sources.get(&claimed.source),
        ) else {
            let name = &claimed.source;
            let detail = format!(
                "the source {name} has no reply any more; configure it and send the reply again"
            );
            return Advance::dead("channel_gone", detail);
        };
        let secrets = SourceSecrets::default();
        let attempt = ReplyAttempt {
            target: self,
            source: &claimed.source,
            rules: source.reply.as_ref(),
            channel,
            secrets: self.secrets.get(&claimed.source).unwrap_or(&secrets),
            reply,
        };
        attempt.run(claimed.doubt).await
    }
}
