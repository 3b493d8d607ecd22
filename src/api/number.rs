//! Numbers in flattened structs. Serde keeps the fields of a flattened struct in a buffer of its own, and a number of
//! serde_json with arbitrary precision arrives there as a map. Only serde_json's own number type reads that map.

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer};

/// Reads an unsigned number in a struct that may be flattened into another one.
pub(super) fn unsigned<'de, D: Deserializer<'de>>(reader: D) -> Result<u64, D::Error> {
    serde_json::Number::deserialize(reader)?
        .as_u64()
        .ok_or_else(|| D::Error::custom("the number must be unsigned, of at most 64 bits"))
}
