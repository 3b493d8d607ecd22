//! The reply that a run owes when it ends: its text, the parts of it, and the address that the event names.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use uuid::Uuid;

use super::{ChannelTarget, parts};
use crate::channel::{ChannelReply, EventFields, ReplyAddress, ReplyStart, SourceChannel};
use crate::config::reply::SourceReply;
use crate::inbox::{Claimed, Next, OwedDelivery};
use crate::model::{Account, Destination, DestinationKind, NewDelivery, RunStatus};
use crate::text;

/// Sentence for a run that failed, where the source says nothing.
const FAILED: &str = "Sorry, something went wrong. Please try again.";

/// Header of an event that an operator made of an earlier one. Nobody in the chat asked for it.
const MADE_BY_HAND: &str = "sluicegate-resent-from";

/// Namespace of chats, from which the names of their lanes are made. Its value has no meaning but must never change.
const CHATS: Uuid = Uuid::from_u128(0x2f0e_9d5b_7a41_4d0c_8a57_31e6_0b9c_44d2);

/// The reply that a delivery owes when it ends like this; none where its source has no channel, or where there is nothing
/// to say.
pub(in crate::dispatch) fn owed(
    target: &ChannelTarget,
    claimed: &Claimed,
    next: &Next,
) -> Option<OwedDelivery> {
    let channel = target.channels().get(&claimed.source)?;
    let rules = target.sources().get(&claimed.source)?.reply.as_ref()?;
    if is_made_by_hand(claimed) {
        return None;
    }
    let (status, text) = said(rules, next)?;
    let address = match address(channel, claimed) {
        Ok(address) => address,
        Err(error) => {
            tracing::warn!(
                source = claimed.source, delivery = %claimed.id, %error,
                "the answer cannot go back: the event does not say where to"
            );
            return None;
        }
    };
    let parts = parts::of(&channel.spec, rules, &text);
    if parts.is_empty() {
        return None;
    }
    let destination = Destination {
        kind: DestinationKind::Channel,
        id: claimed.source.clone(),
    };
    let chat = format!("{}\0{}", claimed.source, channel.spec.chat(&address));
    let upstream_id = Uuid::new_v5(&CHATS, chat.as_bytes()).to_string();
    let reply = ChannelReply::new(
        ReplyStart {
            id: claimed.id.to_string(),
            event_id: claimed.id.event.to_string(),
            status,
            received_at: claimed.received_at,
            address,
            placeholder: None,
        },
        parts,
    );
    let payload = serde_json::to_vec(&reply).ok()?.into();
    Some(OwedDelivery {
        delivery: NewDelivery {
            lane: destination.lane(&Account::Operator, &upstream_id),
            destination,
            upstream_id,
            account: Account::Operator,
            class: claimed.class,
            sealed: None,
        },
        payload,
    })
}

/// True for a replay and for an event that an operator has sent again: neither posts anything.
pub(super) fn is_made_by_hand(claimed: &Claimed) -> bool {
    claimed.id.number > 0 || claimed.headers.iter().any(|(name, _)| name == MADE_BY_HAND)
}

/// The status of the run and the text that is posted; none where there is nothing to say.
fn said(rules: &SourceReply, next: &Next) -> Option<(String, String)> {
    let sentences = &rules.sentences;
    let failure = || {
        let sentence = sentences.on_failure.as_deref().unwrap_or(FAILED);
        ("failed".to_owned(), sentence.to_owned())
    };
    let (status, text) = match next {
        Next::Delivered(answer) => match RunStatus::parse(&answer.status) {
            RunStatus::Failed => failure(),
            RunStatus::Stopped => return None,
            _ => {
                let result = answer.result.as_deref().unwrap_or_default();
                let text = result_text(rules, result);
                if text.trim().is_empty() {
                    let empty = sentences.on_empty.clone().unwrap_or_default();
                    (answer.status.clone(), empty)
                } else {
                    (answer.status.clone(), text)
                }
            }
        },
        Next::Dead(_) => failure(),
        // Whoever looks at it settles it, and nobody can tell yet what to say.
        Next::Unknown | Next::Retry { .. } | Next::Released { .. } => return None,
    };
    (!text.trim().is_empty()).then_some((status, text))
}

/// The part of a run's result that is posted.
fn result_text(rules: &SourceReply, result: &str) -> String {
    let path = rules.result.as_ref().map(|path| path.value.as_str());
    let Some(path) = path
        .and_then(|path| path.strip_prefix("result."))
        .filter(|path| !path.is_empty())
    else {
        return result.to_owned();
    };
    let Ok(document) = serde_json::from_str::<Value>(result) else {
        return String::new();
    };
    let found = path
        .split('.')
        .try_fold(&document, |value, key| match value {
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            value => value.get(key),
        });
    match found {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The address of the answer: of several messages that were answered together, that of the last.
pub(super) fn address(
    channel: &SourceChannel,
    claimed: &Claimed,
) -> Result<ReplyAddress, crate::channel::AddressError> {
    let (kept, body) = match claimed.merged.last() {
        Some(last) => (&last.headers, &last.body),
        None => (&claimed.headers, &claimed.body),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in kept {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    let is_form = headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    let form: Vec<(String, String)> = match is_form {
        true => form_urlencoded::parse(body).into_owned().collect(),
        false => Vec::new(),
    };
    let json = match is_form {
        true => Value::Null,
        false => {
            let read = text::mended(text::json(body, None).text);
            serde_json::from_str(&read).unwrap_or_default()
        }
    };
    channel.spec.address(&EventFields {
        json: &json,
        form: &form,
        query: &[],
        headers: &headers,
    })
}
