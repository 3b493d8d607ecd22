//! A reply: the parts of one answer on their way to a channel, as plain data and as a state machine without a clock.
//!
//! The payload of a reply's delivery is the JSON of [`ChannelReply`]. The caller asks [`ChannelReply::next`] for the next
//! step, records with [`ChannelReply::begin`] that a send begins, keeps the payload, makes the call, records its end with
//! [`ChannelReply::end`], and keeps the payload again. A crash between the two leaves a flight in the payload, and `next`
//! treats it as a send whose end is not known.
//!
//! Promises: parts go out in order. A part that may have been sent is not sent again unless the channel drops a repeat (by
//! its key, or because the call changes one message), the channel says that it does not have the part, or the source says
//! `on_unknown = "retry"`. Every reply comes to an end: at the latest when `max_age` is over and the last question is asked.

mod next;
mod outcome;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

pub use next::NextStep;
pub use outcome::{CallEnd, CheckEnd, ReplyResolution, SideEffects};

use super::address::ReplyAddress;
use crate::model::Timestamp;

/// Namespace of the keys of parts (UUIDv5 of the reply and the part).
const KEYS: Uuid = Uuid::from_u128(0x6b1d_57a0_0f5c_4c8e_9a44_7d0d_5c1b_93e2);

/// Characters in front of a part that may be there twice.
const REPEAT_MARK: &str = "\u{21bb} ";

/// One part of an answer, as the renderer makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyPart {
    /// The text as the channel takes it.
    pub text: String,
    /// The same words without markup.
    pub plain: String,
    /// Marks of the text, in the form that the channel takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<Value>,
    /// The text as HTML, for channels that take both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// Markdown from which the part can be made again, smaller.
    pub source: String,
}

/// A part as one call sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutgoingPart {
    /// The text: with markup, or without it once the channel has refused it.
    pub text: String,
    /// The text with markup; nothing once the channel has refused it.
    pub markup: Option<String>,
    /// The words without markup.
    pub plain: String,
    /// Marks of the text.
    pub entities: Vec<Value>,
    /// The text as HTML.
    pub html: Option<String>,
}

/// State of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartState {
    /// Not sent yet, or on its way.
    Pending,
    /// The channel has it, with its id of the message.
    Sent {
        /// Id of the message. Parts that went out with another one have none.
        id: Option<Value>,
    },
    /// Nobody can tell if the channel has it.
    Unknown,
    /// The channel does not have it and will not get it; a code.
    Dead {
        /// The channel's code, or a word of ours: `window`, `max_age`, `no_way`.
        code: String,
    },
    /// Not sent, because a part before it was not.
    Skipped,
}

/// A part with its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TrackedPart {
    /// Number of the part among all that the reply ever had. Keys are made of it.
    serial: u32,
    content: ReplyPart,
    state: PartState,
    /// True once the channel has refused the markup.
    #[serde(default)]
    is_plain: bool,
    /// Number of times that it was cut smaller.
    #[serde(default)]
    cuts: u32,
    /// True if it has to be cut smaller before it is sent.
    #[serde(default)]
    is_too_long: bool,
    /// True if it goes out although it may be there already.
    #[serde(default)]
    is_repeat: bool,
}

/// A send that has begun and has no known end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Flight {
    action: FlightAction,
    /// Number of the first part.
    first: usize,
    /// Number of parts.
    count: usize,
    /// Time of the first try. Windows of keys begin with it.
    since: Timestamp,
    /// Time of the last try.
    begun: Timestamp,
    /// True if an earlier try may have been sent.
    #[serde(default)]
    in_doubt: bool,
    /// True if the channel has refused a later try, so that another one is of no use.
    #[serde(default)]
    is_refused: bool,
    /// Number of questions that had no answer.
    #[serde(default)]
    checks: u32,
}

/// Kind of call of a flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FlightAction {
    /// By the way with this number. Its target is kept, so that a changed file is noticed.
    Send { way: usize, label: String },
    /// As a change of this message.
    Edit { sent: Value },
}

/// The rules of a source for its replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyPolicy {
    /// True if the source has the secret that calls to the channel need. Without it only ways that need none are open.
    pub has_secret: bool,
    /// True if a part that may have been sent is sent once more, with a mark in front.
    pub repeats_unknown: bool,
    /// The longest time from the event to a send.
    pub max_age: Duration,
}

/// An answer on its way to a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelReply {
    /// Id of the reply. Keys are made of it.
    id: String,
    event_id: String,
    /// Status of the run.
    status: String,
    received_at: Timestamp,
    address: ReplyAddress,
    parts: Vec<TrackedPart>,
    /// Message that the first part takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    placeholder: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flight: Option<Flight>,
    /// Time before which nothing is sent or asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resume_at: Option<Timestamp>,
    /// Number of tries in a row that sent nothing.
    #[serde(default)]
    tries: u32,
    /// Number of calls by way.
    #[serde(default)]
    uses: BTreeMap<usize, u32>,
    /// Ways that the channel has closed.
    #[serde(default)]
    closed: BTreeSet<usize>,
    /// Names of the address that the channel has refused.
    #[serde(default)]
    without: BTreeSet<String>,
    /// Number of times that the chat has moved.
    #[serde(default)]
    moves: u32,
    next_serial: u32,
}

/// Facts about an answer from which a reply begins.
#[derive(Clone, Debug)]
pub struct ReplyStart {
    /// Id of the reply: the same whenever the same answer is owed.
    pub id: String,
    /// Id of the event that is answered.
    pub event_id: String,
    /// Status of the run.
    pub status: String,
    /// Time when the event was received.
    pub received_at: Timestamp,
    /// The address of the answer.
    pub address: ReplyAddress,
    /// Message that the first part takes the place of, where one was sent before.
    pub placeholder: Option<Value>,
}

impl ChannelReply {
    /// Begins a reply.
    pub fn new(start: ReplyStart, parts: Vec<ReplyPart>) -> Self {
        let mut reply = Self {
            id: start.id,
            event_id: start.event_id,
            status: start.status,
            received_at: start.received_at,
            address: start.address,
            parts: Vec::new(),
            placeholder: start.placeholder,
            flight: None,
            resume_at: None,
            tries: 0,
            uses: BTreeMap::new(),
            closed: BTreeSet::new(),
            without: BTreeSet::new(),
            moves: 0,
            next_serial: 0,
        };
        reply.parts = parts.into_iter().map(|part| reply.track(part, 0)).collect();
        reply
    }

    /// Reads a reply that was kept.
    pub fn read(payload: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }

    /// The reply as it is kept. It has secrets of the address in it.
    pub fn payload(&self) -> Result<Bytes, serde_json::Error> {
        serde_json::to_vec(self).map(Bytes::from)
    }

    fn track(&mut self, content: ReplyPart, cuts: u32) -> TrackedPart {
        let serial = self.next_serial;
        self.next_serial += 1;
        TrackedPart {
            serial,
            content,
            state: PartState::Pending,
            is_plain: false,
            cuts,
            is_too_long: false,
            is_repeat: false,
        }
    }

    /// Id of the event that is answered.
    pub fn event_id(&self) -> &str {
        &self.event_id
    }

    /// Status of the run.
    pub fn status(&self) -> &str {
        &self.status
    }

    /// The address of the answer.
    pub const fn address(&self) -> &ReplyAddress {
        &self.address
    }

    /// Names of the address that the channel has refused.
    pub const fn without(&self) -> &BTreeSet<String> {
        &self.without
    }

    /// True if a send has begun and its end is not known.
    pub const fn is_in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// States of the parts, in their order.
    pub fn states(&self) -> impl ExactSizeIterator<Item = &PartState> {
        self.parts.iter().map(|part| &part.state)
    }

    /// The key of a part: the same on every try.
    pub fn key(&self, part: usize) -> Uuid {
        let serial = self.parts.get(part).map_or(u32::MAX, |part| part.serial);
        Uuid::new_v5(&KEYS, format!("{}/{serial}", self.id).as_bytes())
    }

    /// Markdown of a part that has to be cut smaller.
    pub fn source(&self, part: usize) -> Option<&str> {
        self.parts
            .get(part)
            .map(|part| part.content.source.as_str())
    }

    /// Parts as a call sends them.
    pub fn outgoing(&self, parts: std::ops::Range<usize>) -> Vec<OutgoingPart> {
        let parts = self.parts.get(parts).unwrap_or_default();
        parts.iter().map(TrackedPart::outgoing).collect()
    }
}

impl TrackedPart {
    fn outgoing(&self) -> OutgoingPart {
        let content = &self.content;
        let mark = if self.is_repeat { REPEAT_MARK } else { "" };
        let plain = format!("{mark}{}", content.plain);
        if self.is_plain {
            return OutgoingPart {
                text: plain.clone(),
                plain,
                ..OutgoingPart::default()
            };
        }
        let text = format!("{mark}{}", content.text);
        OutgoingPart {
            markup: Some(text.clone()),
            text,
            plain,
            entities: moved(&content.entities, mark.encode_utf16().count()),
            html: content.html.as_ref().map(|html| format!("{mark}{html}")),
        }
    }
}

/// Marks of a text that has grown at its front. Their offsets count in UTF-16.
fn moved(entities: &[Value], by: usize) -> Vec<Value> {
    let mut entities = entities.to_vec();
    for entity in entities.iter_mut().filter(|_| by > 0) {
        let offset = entity.get("offset").and_then(Value::as_u64);
        if let (Some(offset), Some(place)) = (offset, entity.get_mut("offset")) {
            *place = Value::from(offset + by as u64);
        }
    }
    entities
}
