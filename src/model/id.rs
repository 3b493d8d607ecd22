//! Names for what comes in and goes out. Made before the commit, so that a log line written before it can carry them.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// An accepted event: `evt_` and 32 hex digits, in order of creation (UUIDv7, RFC 9562).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

impl EventId {
    /// A new id.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The 16 bytes an inbox keeps.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From the bytes an inbox kept.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl EventId {
    /// The first and the last id that begin with a text, which may lack `evt_` and may end in dots; none where it is no
    /// beginning, or one so short that it would name half of the inbox.
    pub fn beginning(text: &str) -> Option<(Self, Self)> {
        let hex = text
            .strip_prefix("evt_")
            .unwrap_or(text)
            .trim_end_matches(['.', '…']);
        if !(MIN_BEGINNING..=32).contains(&hex.len())
            || !hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return None;
        }
        let fill = |with: char| {
            Uuid::try_parse(&format!("{hex}{}", with.to_string().repeat(32 - hex.len()))).ok()
        };
        Some((Self(fill('0')?), Self(fill('f')?)))
    }
}

/// Hex digits of an id that are enough to search for it.
const MIN_BEGINNING: usize = 6;

impl Default for EventId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evt_{}", self.0.simple())
    }
}

impl FromStr for EventId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let hex = text
            .strip_prefix("evt_")
            .filter(|hex| hex.len() == 32)
            .ok_or(InvalidId)?;
        Uuid::try_parse(hex).map(Self).map_err(|_| InvalidId)
    }
}

impl serde::Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for EventId {
    fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let text: std::borrow::Cow<'de, str> = serde::Deserialize::deserialize(reader)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One delivery of an event: `dlv_`, the event's 32 hex digits, `_`, and its number within the event.
/// The first is 0; each replay counts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The event that is owed.
    pub event: EventId,
    /// Its number within the event.
    pub number: u32,
}

impl DeliveryId {
    /// The upstream `id` of a run that belongs to no conversation: a UUIDv7, which is the event's own with the number of the
    /// delivery in its last bits. Ids of events that follow each other are neighbours in an index.
    pub fn as_uuid(&self) -> Uuid {
        Uuid::from_u128(self.event.0.as_u128() ^ u128::from(self.number))
    }
}

impl DeliveryId {
    /// The events that may be meant by a text like `dlv_0193ab` or `dlv_0193ab_2`, and the number where it has one.
    pub fn beginning(text: &str) -> Option<((EventId, EventId), Option<u32>)> {
        let rest = text.strip_prefix("dlv_")?;
        match rest.split_once('_') {
            Some((event, number)) => Some((EventId::beginning(event)?, Some(number.parse().ok()?))),
            None => Some((EventId::beginning(rest)?, None)),
        }
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dlv_{}_{}", self.event.0.simple(), self.number)
    }
}

impl FromStr for DeliveryId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (event, number) = text
            .strip_prefix("dlv_")
            .and_then(|rest| rest.split_once('_'))
            .ok_or(InvalidId)?;
        let event = format!("evt_{event}").parse()?;
        Ok(Self {
            event,
            number: number.parse().map_err(|_| InvalidId)?,
        })
    }
}

impl serde::Serialize for DeliveryId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for DeliveryId {
    fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let text: std::borrow::Cow<'de, str> = serde::Deserialize::deserialize(reader)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One request at a listener: `req_` and 16 hex digits; for finding its log line, not for safekeeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// A new id.
    pub fn new() -> Self {
        Self(fastrand::u64(..))
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "req_{:016x}", self.0)
    }
}

/// The text is no id of the kind asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this kind")]
pub struct InvalidId;

/// True if a text can be the id of an agent or a workflow. Every id of the upstream has this form, and such a text can
/// stand in paths, tables and log lines unchanged.
pub fn is_agent_id(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_as_printed() {
        let event = EventId::new();
        assert_eq!(event.to_string().parse(), Ok(event));
        let delivery = DeliveryId { event, number: 3 };
        assert_eq!(delivery.to_string().parse(), Ok(delivery));
        for wrong in ["", "evt_", "evt_zz", "dlv_1", "evt_0193-", "dlv__1"] {
            assert_eq!(wrong.parse::<EventId>(), Err(InvalidId), "{wrong}");
            assert_eq!(wrong.parse::<DeliveryId>(), Err(InvalidId), "{wrong}");
        }
    }

    #[test]
    fn a_beginning_names_a_span_of_ids() {
        let id: EventId = "evt_0193ab00000000000000000000000007"
            .parse()
            .expect("an id");
        for text in [
            "evt_0193ab",
            "0193ab",
            "evt_0193ab000…",
            "evt_0193AB000...",
            &id.to_string(),
        ] {
            let (from, to) = EventId::beginning(text).expect(text);
            assert!(from <= id && id <= to, "{text}");
        }
        for wrong in [
            "",
            "evt_",
            "evt_0193a",
            "evt_0193ag",
            "dlv_0193ab",
            "evt_…",
            &format!("{id}0"),
        ] {
            assert_eq!(EventId::beginning(wrong), None, "{wrong}");
        }
        assert_eq!(
            DeliveryId::beginning("dlv_0193ab_2").map(|(_, number)| number),
            Some(Some(2))
        );
        assert_eq!(
            DeliveryId::beginning("dlv_0193ab").map(|(_, number)| number),
            Some(None)
        );
        for wrong in ["evt_0193ab", "dlv_1", "dlv_0193ab_", "dlv_0193ab_x"] {
            assert_eq!(DeliveryId::beginning(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_delivery_keeps_one_uuid() {
        let event = EventId::from_bytes([7; 16]);
        let first = DeliveryId { event, number: 0 };
        assert_eq!(first.as_uuid(), first.as_uuid());
        assert_ne!(first.as_uuid(), DeliveryId { event, number: 1 }.as_uuid());
    }
}
