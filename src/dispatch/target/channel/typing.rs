//! The sign of typing in a chat while its run goes on. It is best effort: it is never tried again, gives way to answers,
//! and ends with the attempt, however that ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::attempt::{CALL_TIME, MAX_ANSWER};
use super::{ChannelTarget, SourceSecrets, answer};
use crate::channel::{CallContext, CallMessage, CallOf, ChannelCall, ReplyAddress, SourceChannel};
use crate::inbox::Claimed;

/// Time between two signs, where the channel's file says nothing.
const EVERY: Duration = Duration::from_secs(5);

/// Longest time for which a sign is shown, where the channel's file says nothing.
const MOST: Duration = Duration::from_secs(30 * 60);

/// Shows the sign as long as it lives.
pub(in crate::dispatch) struct Typing(JoinHandle<()>);

impl Drop for Typing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ChannelTarget {
    /// Shows in the chat of a delivery that its run goes on; none where its source or its channel shows nothing.
    pub(in crate::dispatch) fn typing(self: &Arc<Self>, claimed: &Claimed) -> Option<Typing> {
        let channel = self.channels.get(&claimed.source)?.clone();
        let rules = self.sources.get(&claimed.source)?.reply.as_ref()?;
        let (every, most) = channel.spec.typing()?;
        if !rules.typing || answer::is_made_by_hand(claimed) {
            return None;
        }
        let address = answer::address(&channel, claimed).ok()?;
        let (target, source) = (self.clone(), claimed.source.clone());
        let event = claimed.id.event.to_string();
        let signs = async move {
            let limits = channel.spec.pace(&address);
            loop {
                if target.paces.wait(&source, &limits).is_none()
                    && let Some(call) = target.sign(&source, &channel, &address, &event)
                {
                    target.show(call).await;
                }
                tokio::time::sleep(every.unwrap_or(EVERY)).await;
            }
        };
        let bounded = tokio::time::timeout(most.unwrap_or(MOST), signs);
        Some(Typing(tokio::spawn(async move {
            let _ = bounded.await;
        })))
    }

    fn sign(
        &self,
        source: &str,
        channel: &SourceChannel,
        address: &ReplyAddress,
        event: &str,
    ) -> Option<ChannelCall> {
        let none = SourceSecrets::default();
        let context = CallContext {
            address,
            without: &Default::default(),
            values: &channel.values,
            secrets: self.secrets.get(source).unwrap_or(&none).exposed(),
            event_id: event,
            status: "running",
            now: self.clock.now(),
        };
        let message = CallMessage::default();
        channel.spec.call(CallOf::Typing, &context, message).ok()
    }

    async fn show(&self, call: ChannelCall) {
        let request = http::Request::builder()
            .method(call.method)
            .uri(call.url)
            .body(call.body);
        let Ok(mut request) = request else { return };
        request.headers_mut().extend(call.headers);
        let sent = self.client.send(request, CALL_TIME, MAX_ANSWER).await;
        if sent.is_err() {
            tracing::debug!(call = call.shown, "the sign of typing was not shown");
        }
    }
}
