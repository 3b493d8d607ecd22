//! Marks that fence in what strangers say: where it begins and where it ends. Nobody who writes an event foresees them.
//!
//! Promises: a mark is the same for the same event, purpose and key, so that a retry says what was said before; without
//! the key it cannot be told from chance.

use std::fmt;

use ring::hmac;

use super::{EventId, UpstreamIds};

/// Makes marks.
#[derive(Clone)]
pub struct Marks(hmac::Key);

impl Marks {
    /// Marks made with a key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The mark of an event for a purpose: 32 hex digits.
    pub fn of_event(&self, event: EventId, purpose: &str) -> String {
        self.of(purpose, &[event.as_bytes()])
    }

    /// The mark of what stands in these parts, for a purpose: 32 hex digits.
    pub fn of(&self, purpose: &str, parts: &[&[u8]]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose.as_bytes());
        for part in parts {
            context.update(&[0]);
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        hex::encode(&context.sign().as_ref()[..16])
    }
}

/// With a key that ends with the process: for showing what a mapping makes of an event, and for tests.
impl Default for Marks {
    fn default() -> Self {
        Self::new(&UpstreamIds::fresh_secret())
    }
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Marks(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s15_a_mark_is_of_its_event_its_purpose_and_its_key() {
        let marks = Marks::new(&[7; 32]);
        let (one, two) = (EventId::from_bytes([1; 16]), EventId::from_bytes([2; 16]));
        let mark = marks.of_event(one, "event");
        assert_eq!(mark.len(), 32);
        assert_eq!(
            mark,
            Marks::new(&[7; 32]).of_event(one, "event"),
            "a retry has the same"
        );
        let others = [
            marks.of_event(two, "event"),
            marks.of_event(one, "names"),
            Marks::new(&[8; 32]).of_event(one, "event"),
            Marks::default().of_event(one, "event"),
        ];
        assert!(!others.contains(&mark));
        assert_ne!(marks.of("p", &[b"ab", b"c"]), marks.of("p", &[b"a", b"bc"]));
        assert_eq!(format!("{marks:?}"), "Marks(***)");
    }
}
