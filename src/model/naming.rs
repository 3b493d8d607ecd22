//! Names for conversations at the upstream. Nobody works them out who does not have the inbox's own secret.
//!
//! Promises: the same conversation has the same name in every process that shares the inbox, whatever becomes of
//! `inbox.key`; a conversation that was there before names had a secret keeps the name it had; the name that a gateway
//! key's caller was given says by itself whose it is, so that no list of them has to be kept.

use std::fmt;

use ring::hmac;
use uuid::{Builder, Uuid};

use super::Destination;

/// Makes names for conversations.
pub struct UpstreamIds {
    key: hmac::Key,
    /// The names of before there was a secret, in order.
    former: Vec<u128>,
}

/// Position of the proof in a name that belongs to a gateway key. The 48 bits of it say that the name was made for that
/// key: whoever wants to get into a conversation of others cannot choose its name, so there is nothing to try out.
const PROOF: usize = 10;

impl UpstreamIds {
    /// Names made with a secret; these conversations keep the names of [`Destination::former_thread_id`].
    pub fn new(secret: &[u8; 32], former: impl IntoIterator<Item = Uuid>) -> Self {
        let mut former: Vec<u128> = former.into_iter().map(|id| id.as_u128()).collect();
        former.sort_unstable();
        former.dedup();
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            former,
        }
    }

    /// A new secret.
    pub fn fresh_secret() -> [u8; 32] {
        let mut secret = [0; 32];
        for half in secret.chunks_exact_mut(16) {
            half.copy_from_slice(Uuid::new_v4().as_bytes());
        }
        secret
    }

    /// The name of a conversation between a source and a destination.
    pub fn of_thread(&self, source: &str, destination: &Destination, thread: &str) -> Uuid {
        if !self.former.is_empty() {
            let former = destination.former_thread_id(source, thread);
            if self.former.binary_search(&former.as_u128()).is_ok() {
                return former;
            }
        }
        Builder::from_custom_bytes(
            self.digest("thread", &[source, &destination.to_string(), thread]),
        )
        .into_uuid()
    }

    /// The name of what the caller with a gateway key calls `task`. One that was made for the same key stays as it is.
    pub fn of_key(&self, key: &str, task: &str) -> String {
        if self.owns(key, task) {
            return task.to_owned();
        }
        self.proved(key, self.digest("key", &[key, task]))
            .to_string()
    }

    /// A new name for a run that the caller with a gateway key begins.
    pub fn new_of_key(&self, key: &str) -> String {
        self.proved(key, *Uuid::new_v4().as_bytes()).to_string()
    }

    /// The name of the call that a caller makes under a key of its own choice.
    pub fn of_call(&self, caller: &str, agent: &str, key: &str) -> Uuid {
        Builder::from_custom_bytes(self.digest("call", &[caller, agent, key])).into_uuid()
    }

    /// True if a name was made for this gateway key.
    pub fn owns(&self, key: &str, id: &str) -> bool {
        let Ok(uuid) = Uuid::try_parse(id) else {
            return false;
        };
        self.proved(key, *uuid.as_bytes()) == uuid && uuid.to_string() == id
    }

    /// A name with the proof of whose it is in place of its end.
    fn proved(&self, key: &str, bytes: [u8; 16]) -> Uuid {
        let mut bytes = Builder::from_custom_bytes(bytes).into_uuid().into_bytes();
        let (head, proof) = bytes.split_at_mut(PROOF);
        let digest = self.digest("proof", &[key, &hex::encode(&*head)]);
        proof.copy_from_slice(&digest[..16 - PROOF]);
        Uuid::from_bytes(bytes)
    }

    /// A digest of parts, of which only the last may hold NUL.
    fn digest(&self, purpose: &str, parts: &[&str]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(purpose.as_bytes());
        for part in parts {
            context.update(&[0]);
            context.update(part.as_bytes());
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&context.sign().as_ref()[..16]);
        digest
    }
}

/// With a secret that ends with the process: for showing what a mapping makes of an event, and for tests.
impl Default for UpstreamIds {
    fn default() -> Self {
        Self::new(&Self::fresh_secret(), [])
    }
}

impl fmt::Debug for UpstreamIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpstreamIds({} former)", self.former.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DestinationKind;

    fn agent(id: &str) -> Destination {
        Destination {
            kind: DestinationKind::Agent,
            id: id.into(),
        }
    }

    #[test]
    fn s20_nobody_works_a_conversations_name_out_without_the_secret() {
        let ids = UpstreamIds::new(&[7; 32], []);
        let a = agent("a");
        let w = Destination {
            kind: DestinationKind::Workflow,
            id: "a".into(),
        };
        let made = [
            ("s", &a, "1"),
            ("s", &a, "2"),
            ("t", &a, "1"),
            ("s", &w, "1"),
            ("s", &agent("b"), "1"),
        ]
        .map(|(source, destination, thread)| ids.of_thread(source, destination, thread));
        for (at, id) in made.iter().enumerate() {
            assert_eq!(id.get_version_num(), 8);
            assert!(!made[..at].contains(id));
        }
        assert_eq!(
            made[0],
            UpstreamIds::new(&[7; 32], []).of_thread("s", &a, "1"),
            "it outlives the process"
        );
        assert_ne!(
            made[0],
            UpstreamIds::new(&[8; 32], []).of_thread("s", &a, "1")
        );
        assert_ne!(made[0], a.former_thread_id("s", "1"));
        assert_ne!(
            UpstreamIds::default().of_thread("s", &a, "1"),
            UpstreamIds::default().of_thread("s", &a, "1")
        );
    }

    #[test]
    fn a_conversation_of_before_keeps_its_name() {
        let a = agent("a");
        let former: Vec<Uuid> = (0..100)
            .map(|n| a.former_thread_id("s", &n.to_string()))
            .collect();
        let ids = UpstreamIds::new(&[7; 32], former.iter().copied().chain([former[3]]));
        assert_eq!(ids.of_thread("s", &a, "42"), former[42]);
        assert_eq!(ids.of_thread("s", &a, "100").get_version_num(), 8);
        assert_eq!(format!("{ids:?}"), "UpstreamIds(100 former)");
    }

    #[test]
    fn s20_what_a_keys_caller_names_is_below_the_keys_name() {
        let ids = UpstreamIds::new(&[7; 32], []);
        let mine = ids.of_key("ci", "4711");
        assert_eq!(mine, ids.of_key("ci", "4711"), "it continues");
        assert_ne!(mine, ids.of_key("shop", "4711"));
        let thread = ids.of_thread("telegram", &agent("a"), "4711").to_string();
        for foreign in [
            &thread,
            &ids.of_key("shop", "4711"),
            &ids.new_of_key("shop"),
            &Uuid::new_v4().to_string(),
        ] {
            assert!(!ids.owns("ci", foreign));
            assert_ne!(ids.of_key("ci", foreign), **foreign);
        }
        for given in [&mine, &ids.new_of_key("ci")] {
            assert!(ids.owns("ci", given));
            assert_eq!(
                ids.of_key("ci", given),
                **given,
                "what the caller was given goes on"
            );
        }
        let odd = [
            mine.to_uppercase(),
            mine.replace('-', ""),
            format!("{{{mine}}}"),
            String::new(),
            "4711".to_owned(),
        ];
        assert!(odd.iter().all(|odd| !ids.owns("ci", odd)));
        let mut other = Uuid::try_parse(&mine).unwrap().into_bytes();
        for at in 0..16 {
            other[at] ^= 1;
            assert!(
                !ids.owns("ci", &Uuid::from_bytes(other).to_string()),
                "byte {at}"
            );
            other[at] ^= 1;
        }
    }
}
