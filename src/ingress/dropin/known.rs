//! Memory of callers' keys that are not the gateway's own: those that the upstream took lately, those that it refused, and
//! the addresses that keep bringing bad keys.
//!
//! Promises: everything is bounded, in memory only, and forgotten within minutes. No key can be read from it: keys are
//! kept as digests under a secret of this process. A key that is not remembered is judged by the upstream again, so
//! forgetting costs time and nothing else.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ring::hmac;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use uuid::Uuid;

use crate::ingress::recent::Recent;
use crate::model::{Refusal, bucket};

/// Time for which a key that the upstream took counts as good.
const PROVED: Duration = Duration::from_secs(300);

/// Time for which a key that the upstream refused is refused here.
const REFUSED: Duration = Duration::from_secs(60);

/// Number of keys of either kind that are remembered, in each of two halves.
const HALF: usize = 8192;

/// Number of keys of one address that the upstream may refuse in a [`WINDOW`] before unknown keys from it are refused here.
const MOST_FAILURES: u32 = 120;
const WINDOW: Duration = Duration::from_secs(60);

/// Number of addresses with refused keys that are remembered in a window.
const ADDRESSES: usize = 65_536;

/// A key, or a key at an agent, as a digest.
type KeyTag = [u8; 16];

/// The keys of callers as far as they are known.
pub struct ForeignKeys {
    secret: hmac::Key,
    proved: Mutex<Recent<KeyTag>>,
    refused: Mutex<Recent<KeyTag>>,
    failures: Mutex<Failures>,
    turns: Mutex<HashMap<KeyTag, Arc<tokio::sync::Mutex<()>>>>,
}

impl ForeignKeys {
    /// Nothing is known yet.
    pub fn new() -> Arc<Self> {
        let random = [*Uuid::new_v4().as_bytes(), *Uuid::new_v4().as_bytes()].concat();
        Arc::new(Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, &random),
            proved: Mutex::new(Recent::new(PROVED, HALF)),
            refused: Mutex::new(Recent::new(REFUSED, HALF)),
            failures: Mutex::default(),
            turns: Mutex::default(),
        })
    }

    /// True if the upstream took this key lately, for any agent.
    pub(in crate::ingress) fn is_known(&self, key: &[u8]) -> bool {
        self.proved.lock().holds(&self.tag(key, ""), Instant::now())
    }

    /// True if the upstream took this key for this agent lately.
    pub(super) fn is_proved(&self, key: &[u8], agent: &str) -> bool {
        self.proved
            .lock()
            .holds(&self.tag(key, agent), Instant::now())
    }

    /// The upstream took the key; for an agent where one is named.
    pub(super) fn proved(&self, key: &[u8], agent: Option<&str>) {
        let (now, mut proved) = (Instant::now(), self.proved.lock());
        proved.keep(self.tag(key, ""), now);
        if let Some(agent) = agent {
            proved.keep(self.tag(key, agent), now);
        }
    }

    /// The upstream takes the key no longer: for an agent where one is named, else for none.
    pub(super) fn forget(&self, key: &[u8], agent: &str) {
        let mut proved = self.proved.lock();
        proved.remove(&self.tag(key, ""));
        proved.remove(&self.tag(key, agent));
    }

    /// The upstream refused the key with this status: 401 is the key's, 403 may be that of the agent alone.
    pub(super) fn refused(&self, key: &[u8], agent: &str, status: u16) {
        self.forget(key, agent);
        let tag = self.tag(key, if status == 401 { "" } else { agent });
        self.refused.lock().keep(tag, Instant::now());
    }

    /// Refuses a key that the upstream refused lately.
    pub(super) fn judge(&self, key: &[u8], agent: &str) -> Result<(), Refusal> {
        let (now, refused) = (Instant::now(), self.refused.lock());
        match refused.holds(&self.tag(key, ""), now) || refused.holds(&self.tag(key, agent), now) {
            true => Err(Refusal::KeyRefused(
                "the upstream refused this key within the last minute".into(),
            )),
            false => Ok(()),
        }
    }

    /// Counts a key that the upstream refused against the address that brought it.
    pub(super) fn failed(&self, address: IpAddr) {
        self.failures.lock().count(bucket(address), Instant::now());
    }

    /// Refuses a caller with an unknown key whose address has brought too many refused ones.
    pub(super) fn may_try(&self, address: IpAddr) -> Result<(), Refusal> {
        match self.failures.lock().wait(bucket(address), Instant::now()) {
            Some(wait) => Err(Refusal::Limited(wait)),
            None => Ok(()),
        }
    }

    /// The turn of a conversation whose key is not known yet: one at a time, so that the second finds the key known, or
    /// refused. None where it is taken and nobody is to wait.
    pub(super) async fn turn(&self, agent: &str, thread: &str, waits: bool) -> Option<KeyTurn<'_>> {
        let tag = self.tag(agent.as_bytes(), thread);
        let lock = self.turns.lock().entry(tag).or_default().clone();
        let mut turn = KeyTurn {
            keys: self,
            tag,
            held: None,
        };
        turn.held = match waits {
            true => Some(lock.lock_owned().await),
            false => Some(lock.try_lock_owned().ok()?),
        };
        Some(turn)
    }

    fn tag(&self, first: &[u8], second: &str) -> KeyTag {
        let mut mac = hmac::Context::with_key(&self.secret);
        mac.update(&(first.len() as u64).to_be_bytes());
        mac.update(first);
        mac.update(second.as_bytes());
        let mut tag = [0; 16];
        tag.copy_from_slice(&mac.sign().as_ref()[..16]);
        tag
    }
}

impl fmt::Debug for ForeignKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignKeys").finish_non_exhaustive()
    }
}

/// A turn that is taken, until it is dropped.
pub(super) struct KeyTurn<'k> {
    keys: &'k ForeignKeys,
    tag: KeyTag,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for KeyTurn<'_> {
    fn drop(&mut self) {
        self.held = None;
        let mut turns = self.keys.turns.lock();
        // Nothing but this table refers to the lock.
        if turns
            .get(&self.tag)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            turns.remove(&self.tag);
        }
    }
}

/// Number of refused keys that each address brought in this window.
#[derive(Default)]
struct Failures {
    until: Option<Instant>,
    counts: HashMap<IpAddr, u32>,
}

impl Failures {
    fn count(&mut self, address: IpAddr, now: Instant) {
        if self.until.is_none_or(|until| until <= now) {
            *self = Self {
                until: Some(now + WINDOW),
                counts: HashMap::new(),
            };
        }
        let is_full = self.counts.len() >= ADDRESSES;
        match self.counts.get_mut(&address) {
            Some(count) => *count = count.saturating_add(1),
            None if is_full => {}
            None => drop(self.counts.insert(address, 1)),
        }
    }

    /// The time that an address with too many refused keys has to wait.
    fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let left = self.until?.checked_duration_since(now)?;
        self.counts
            .get(&address)
            .filter(|count| **count >= MOST_FAILURES)
            .map(|_| left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_for_its_agent_and_a_refusal_is_the_keys_or_the_agents() {
        let keys = ForeignKeys::new();
        keys.proved(b"k", Some("a"));
        assert!(keys.is_known(b"k") && keys.is_proved(b"k", "a") && !keys.is_proved(b"k", "b"));
        keys.refused(b"k", "b", 403);
        assert!(keys.judge(b"k", "b").is_err() && keys.judge(b"k", "a").is_ok());
        keys.refused(b"k", "a", 401);
        assert!(
            keys.judge(b"k", "c").is_err() && !keys.is_known(b"k") && !keys.is_proved(b"k", "a")
        );
        assert!(keys.judge(b"other", "a").is_ok());
    }

    #[test]
    fn an_address_with_too_many_bad_keys_waits_and_the_others_do_not() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let address = |number: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(number));
        (0..MOST_FAILURES).for_each(|_| failures.count(address(1), now));
        assert_eq!(failures.wait(address(1), now), Some(WINDOW));
        assert_eq!(failures.wait(address(2), now), None);
        assert_eq!(failures.wait(address(1), now + WINDOW * 2), None);
        (0..200_000).for_each(|number| failures.count(address(number), now));
        assert!(failures.counts.len() <= ADDRESSES);
    }

    #[tokio::test]
    async fn turns_of_a_conversation_go_one_by_one_and_leave_nothing() {
        let keys = ForeignKeys::new();
        let first = keys.turn("a", "t", false).await;
        assert!(first.is_some() && keys.turn("a", "t", false).await.is_none());
        assert!(keys.turn("a", "u", false).await.is_some());
        drop(first);
        assert!(keys.turn("a", "t", true).await.is_some());
        assert!(keys.turns.lock().is_empty());
    }
}
