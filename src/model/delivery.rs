//! One event owed to one destination.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use uuid::Uuid;

use super::{Account, Class};

/// State of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Owed, waiting for its turn or its time.
    Pending,
    /// Claimed by a dispatcher, in flight.
    Leased,
    /// Done: the upstream took it and its run ended.
    Delivered,
    /// Will not be tried again by itself.
    Dead,
    /// Sent, but nobody can tell whether it ran; held for an operator.
    Unknown,
    /// Called off by an operator.
    Cancelled,
    /// Went out within the turn of another delivery of its conversation.
    Merged,
    /// Not sent, because of what its source says of turns that wait (see [`Overlap`]).
    Dropped,
    /// Its event was proved and could not be mapped: nothing was sent, and it waits for an operator who mends the
    /// mapping and replays the event.
    Unmappable,
}

impl DeliveryState {
    /// Every state, in the order of a delivery's life.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Leased,
        Self::Delivered,
        Self::Dead,
        Self::Unknown,
        Self::Cancelled,
        Self::Merged,
        Self::Dropped,
        Self::Unmappable,
    ];

    /// A stable word for storage and display.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Leased => "leased",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
            Self::Merged => "merged",
            Self::Dropped => "dropped",
            Self::Unmappable => "unmappable",
        }
    }

    /// The state of this word, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// True if an operator has to look at it, unless a later delivery of its event takes its place.
    pub const fn needs_attention(self) -> bool {
        matches!(self, Self::Dead | Self::Unknown | Self::Unmappable)
    }

    /// True if nothing more happens to it by itself.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Leased)
    }
}

/// The destination of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The kind of service.
    pub kind: DestinationKind,
    /// Its id, as the operator wrote it.
    pub id: String,
}

/// The kind of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DestinationKind {
    /// An agent of the upstream: `/v1/agents/{id}/…`
    Agent,
    /// A workflow of the upstream: `/v1/workflows/{id}/…`
    Workflow,
    /// A channel: a service that messages are sent to. It has no runs and none of the upstream's keys and budgets.
    Channel,
}

impl DestinationKind {
    /// A stable word for storage and display.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Workflow => "workflow",
            Self::Channel => "channel",
        }
    }

    /// True if deliveries of this kind are runs of the upstream.
    pub const fn is_upstream(self) -> bool {
        match self {
            Self::Agent | Self::Workflow => true,
            Self::Channel => false,
        }
    }
}

impl Destination {
    /// The upstream `id` that a conversation between `source` and this destination had before such names had a secret
    /// ([`super::UpstreamIds`]): a UUIDv5 that everybody can work out.
    pub fn former_thread_id(&self, source: &str, thread: &str) -> Uuid {
        let mut name = Vec::with_capacity(64 + thread.len());
        for part in [source, &self.to_string(), thread] {
            name.extend_from_slice(part.as_bytes());
            name.push(0);
        }
        Uuid::new_v5(&THREADS, &name)
    }

    /// An account's lane of an upstream `id` at this destination, whatever source it came by: the upstream takes one
    /// turn of it at a time. No account has a place in the lane of another, whatever ids its callers name.
    ///
    /// The lane of an id that begins with a time ([`super::DeliveryId::as_uuid`]) begins with that time as well. New lanes
    /// of single runs then lie side by side in the index of lanes, and a commit writes few of its pages.
    pub fn lane(&self, account: &Account, upstream_id: &str) -> Uuid {
        let name = match account {
            Account::Operator => format!("{self}\0{upstream_id}"),
            // No destination begins with a NUL.
            Account::Key(_) | Account::Foreign => format!("\0{account}\0{self}\0{upstream_id}"),
        };
        let digest = Uuid::new_v5(&LANES, name.as_bytes());
        match Uuid::try_parse(upstream_id) {
            Ok(id) if id.get_version_num() == 7 => with_time_of(digest, id),
            _ => digest,
        }
    }
}

/// A UUID whose first 48 bits are the time of a UUIDv7.
fn with_time_of(digest: Uuid, id: Uuid) -> Uuid {
    let mut bytes = digest.into_bytes();
    bytes[..6].copy_from_slice(&id.as_bytes()[..6]);
    Uuid::from_bytes(bytes)
}

/// The tie between a source and a destination, for an account and a class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The source's name.
    pub source: String,
    /// The destination.
    pub destination: Destination,
    /// The account on whose behalf it goes.
    pub account: Account,
    /// Its urgency.
    pub class: Class,
}

/// Rule for messages of a conversation that come while another one waits or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The treatment of such messages.
    pub mode: OverlapMode,
    /// Messages that may wait; `None`: any number. One more is refused (queue), or the oldest is dropped (collect).
    pub depth: Option<u32>,
    /// Longest wait; a message that waited longer is dropped and not sent.
    pub age: Option<Duration>,
}

/// Treatment of messages of a conversation that come while another one waits or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlapMode {
    /// They wait, and go out one by one.
    Queue,
    /// They wait, and go out together as one turn.
    Collect,
    /// Only the last one goes out, the others are dropped.
    Latest,
    /// They are turned away.
    Reject,
}

impl Overlap {
    /// Waits, in any number and for any time.
    pub const QUEUE: Self = Self {
        mode: OverlapMode::Queue,
        depth: None,
        age: None,
    };

    /// Deliveries that may be ahead of a new one in its lane; with more it is refused.
    pub const fn most_ahead(&self) -> Option<u32> {
        match (self.mode, self.depth) {
            (OverlapMode::Reject, _) => Some(0),
            (OverlapMode::Queue, depth) => depth,
            (OverlapMode::Collect | OverlapMode::Latest, _) => None,
        }
    }
}

/// The namespace of lanes; its value has no meaning but must never change.
const LANES: Uuid = Uuid::from_u128(0x9a41_06c5_3f0e_5d17_8c62_1d4b_7be0_5f38);

/// The namespace of thread names; its value has no meaning but must never change.
const THREADS: Uuid = Uuid::from_u128(0x1e64_9f0b_7c1d_5a53_8b1e_52a0_93d7_c4f2);

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.id)
    }
}

impl FromStr for Destination {
    type Err = super::id::InvalidId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, id) = text.split_once('/').ok_or(super::id::InvalidId)?;
        let kind = match kind {
            "agent" => DestinationKind::Agent,
            "workflow" => DestinationKind::Workflow,
            "channel" => DestinationKind::Channel,
            _ => return Err(super::id::InvalidId),
        };
        Ok(Self {
            kind,
            id: id.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_ids_differ_by_source_destination_and_thread() {
        let a = Destination {
            kind: DestinationKind::Agent,
            id: "a".into(),
        };
        let w = Destination {
            kind: DestinationKind::Workflow,
            id: "a".into(),
        };
        let ids = [
            a.former_thread_id("s", "1"),
            a.former_thread_id("s", "2"),
            a.former_thread_id("t", "1"),
            w.former_thread_id("s", "1"),
        ];
        for (i, id) in ids.iter().enumerate() {
            assert!(!ids[..i].contains(id));
        }
        assert_eq!(a.former_thread_id("s", "1"), ids[0]);
        let lanes = [
            &Account::Operator,
            &Account::Foreign,
            &Account::Key("k".into()),
        ]
        .map(|of| a.lane(of, "1"));
        assert_eq!(
            lanes[0].to_string(),
            "9b711a99-dc55-5707-b8f6-0fae999b9841",
            "lanes that exist keep their names"
        );
        assert!(lanes[0] != lanes[1] && lanes[1] != lanes[2] && lanes[0] != lanes[2]);
        assert_eq!("agent/a".parse(), Ok(a));
    }
}
