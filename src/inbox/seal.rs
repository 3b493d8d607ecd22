//! Sealing of texts that must not be read in the inbox: callers' keys and tokens, and events where the operator wants
//! it, lie in it, in its log and in every backup of it only as a text that nobody reads without the gateway's key.
//!
//! What is promised: a sealed text opens with the same key as the same part of the same event (or delivery) or not at
//! all, and a wrong key is told apart from a damaged text. Two seals of one text differ. Each event's seals have a
//! key of their own, so that random nonces never come near the 2^32 that one key may have, however many events there
//! are. The key itself is in neither. From the same key, by other derivations, come the tokens of status links, the
//! key for links to files and that for the marks of fences.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, hkdf, hmac};
use subtle::ConstantTimeEq as _;

use crate::config::Secret;
use crate::model::{DeliveryId, EventId, Marks};

/// Shortest length of a key, as text.
pub const MIN_KEY: usize = 32;

/// The form of a sealed text: form, key id, nonce, and the closed text with its tag.
const FORM: u8 = 2;

/// The same of before each event had a key of its own. It is opened and not made.
const FORMER: u8 = 1;

/// Length of what stands before the closed text.
const HEAD: usize = 2 + NONCE_LEN;

/// Keeps keys for unlike uses unlike; its value has no meaning but must never change.
const SALT: &[u8] = b"sluicegate inbox key";

/// Closes, and opens what it or one of the keys before closed.
pub struct Sealer {
    current: DerivedKeys,
    old: Vec<DerivedKeys>,
    random: SystemRandom,
}

/// The part that is closed, and its event or delivery: it opens in no other place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedPart {
    /// A caller's own call. Its deliveries share it.
    Call(EventId),
    /// Request line, parameters and headers.
    Said(EventId),
    /// The body.
    Body(EventId),
    /// The agent's answer to a delivery.
    Answer(DeliveryId),
    /// The task object of a delivery's run.
    Task(DeliveryId),
    /// The payload of a delivery that answers another one.
    Payload(DeliveryId),
}

impl SealedPart {
    const fn event(&self) -> EventId {
        match self {
            Self::Call(event) | Self::Said(event) | Self::Body(event) => *event,
            Self::Answer(delivery) | Self::Task(delivery) | Self::Payload(delivery) => {
                delivery.event
            }
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Call(_) => "call",
            Self::Said(_) => "said",
            Self::Body(_) => "body",
            Self::Answer(_) => "answer",
            Self::Task(_) => "task",
            Self::Payload(_) => "payload",
        }
    }

    /// The text that the seal is bound to.
    fn bound(&self) -> Vec<u8> {
        let mut bound = [self.event().as_bytes().as_slice(), self.word().as_bytes()].concat();
        if let Self::Answer(delivery) | Self::Task(delivery) | Self::Payload(delivery) = self {
            bound.extend_from_slice(&delivery.number.to_be_bytes());
        }
        bound
    }

    /// The same in the former form.
    fn formerly_bound(&self) -> Vec<u8> {
        match self {
            Self::Call(event) => event.as_bytes().to_vec(),
            Self::Said(event) | Self::Body(event) => {
                [event.as_bytes().as_slice(), self.word().as_bytes()].concat()
            }
            // Payloads came after the former form.
            Self::Answer(_) | Self::Task(_) | Self::Payload(_) => b"answer".to_vec(),
        }
    }
}

/// The keys that are derived from one key, each for a use of its own.
struct DerivedKeys {
    name: String,
    /// The key that the keys of events are derived from.
    events: hkdf::Prk,
    /// The key that everything was closed with in the former form.
    former: LessSafeKey,
    seal_id: u8,
    links: hmac::Key,
    files: [u8; 32],
    queries: hmac::Key,
    mark: String,
    marks: Marks,
}

/// Errors of closing and opening.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key is too short, or none can be made of it.
    #[error(
        "the key {0} is no key: 32 bytes as hex or base64, or a text of 32 or more characters, is needed"
    )]
    NoKey(String),
    /// It was closed with another key.
    #[error("it was sealed with another key than {0}")]
    OtherKey(String),
    /// It is not what was closed, or was closed for something else.
    #[error("it was changed, or sealed for something else")]
    Damaged,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
}

impl DerivedKeys {
    fn new(key: &Secret) -> Result<Self, SealError> {
        let no_key = || SealError::NoKey(key.name().to_owned());
        let secret = bytes_of(key).ok_or_else(no_key)?;
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(&secret);
        let derive = |use_: &'static [u8]| {
            let mut out = [0_u8; 32];
            root.expand(&[use_], hkdf::HKDF_SHA256)
                .and_then(|made| made.fill(&mut out))
                .map(|()| out)
        };
        let sealing = derive(b"seal").map_err(|_| no_key())?;
        let links = derive(b"link").map_err(|_| no_key())?;
        let files = derive(b"file").map_err(|_| no_key())?;
        let queries = derive(b"query").map_err(|_| no_key())?;
        let mark = derive(b"mark").map_err(|_| no_key())?;
        let fences = derive(b"fence").map_err(|_| no_key())?;
        Ok(Self {
            name: key.name().to_owned(),
            seal_id: digest::digest(&digest::SHA256, &sealing)
                .as_ref()
                .first()
                .copied()
                .unwrap_or_default(),
            events: hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &sealing),
            former: LessSafeKey::new(
                UnboundKey::new(&AES_256_GCM, &sealing).map_err(|_| no_key())?,
            ),
            links: hmac::Key::new(hmac::HMAC_SHA256, &links),
            files,
            queries: hmac::Key::new(hmac::HMAC_SHA256, &queries),
            mark: hex::encode(&mark[..8]),
            marks: Marks::new(&fences),
        })
    }

    /// The key for what is closed of an event.
    fn of_event(&self, event: EventId) -> Result<LessSafeKey, SealError> {
        let info = [b"event".as_slice(), event.as_bytes()];
        let key = self
            .events
            .expand(&info, &AES_256_GCM)
            .map_err(|_| SealError::Damaged)?;
        Ok(LessSafeKey::new(UnboundKey::from(key)))
    }

    fn link_token(&self, event: EventId) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.links, event.to_string().as_bytes()))
    }

    fn query_seal(&self, text: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.queries, text))
    }
}

impl Sealer {
    /// A sealer for a key: 32 bytes as hex or base64, or any text of 32 or more characters.
    pub fn new(key: &Secret) -> Result<Self, SealError> {
        Ok(Self {
            current: DerivedKeys::new(key)?,
            old: Vec::new(),
            random: SystemRandom::new(),
        })
    }

    /// The same, which opens what was closed with these keys as well, and holds their links good.
    pub fn with_old<'a>(
        mut self,
        keys: impl IntoIterator<Item = &'a Secret>,
    ) -> Result<Self, SealError> {
        self.old = keys
            .into_iter()
            .map(DerivedKeys::new)
            .collect::<Result<_, _>>()?;
        Ok(self)
    }

    fn keys(&self) -> impl Iterator<Item = &DerivedKeys> {
        std::iter::once(&self.current).chain(&self.old)
    }

    /// A new key, as the text that is kept in a file.
    pub fn fresh_key() -> Result<String, SealError> {
        let mut key = [0_u8; 32];
        SystemRandom::new()
            .fill(&mut key)
            .map_err(|_| SealError::NoRandom)?;
        Ok(hex::encode(key))
    }

    /// The name of the key: the setting or the file.
    pub fn name(&self) -> &str {
        &self.current.name
    }

    /// A name for whoever has this key, which says nothing of the key.
    pub fn mark(&self) -> &str {
        &self.current.mark
    }

    /// Makes the marks of the fences around what strangers say.
    pub fn marks(&self) -> &Marks {
        &self.current.marks
    }

    /// Closes a text as a part of something; only as the same part it opens again.
    pub fn seal(&self, text: &[u8], part: SealedPart) -> Result<Bytes, SealError> {
        let mut nonce = [0_u8; NONCE_LEN];
        self.random
            .fill(&mut nonce)
            .map_err(|_| SealError::NoRandom)?;
        let mut sealed = Vec::with_capacity(HEAD + text.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&[FORM, self.current.seal_id]);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(text);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let key = self.current.of_event(part.event())?;
        let tag =
            key.seal_in_place_separate_tag(nonce, Aad::from(part.bound()), &mut sealed[HEAD..]);
        sealed.extend_from_slice(tag.map_err(|_| SealError::Damaged)?.as_ref());
        Ok(sealed.into())
    }

    /// Opens what was closed as this part.
    pub fn open(&self, sealed: &[u8], part: SealedPart) -> Result<Vec<u8>, SealError> {
        let Some((&[form, id], rest)) = sealed.split_first_chunk::<2>() else {
            return Err(SealError::Damaged);
        };
        let Some((nonce, closed)) = rest.split_first_chunk::<NONCE_LEN>() else {
            return Err(SealError::Damaged);
        };
        let bound = match form {
            FORM => part.bound(),
            FORMER => part.formerly_bound(),
            _ => return Err(SealError::Damaged),
        };
        let mut end = SealError::OtherKey(self.current.name.clone());
        // An id is a byte: two keys may have the same.
        for keys in self.keys().filter(|keys| keys.seal_id == id) {
            let mut text = closed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let own;
            let key = match form {
                FORMER => &keys.former,
                _ => {
                    own = keys.of_event(part.event())?;
                    &own
                }
            };
            match key
                .open_in_place(nonce, Aad::from(&bound), &mut text)
                .map(|open| open.len())
            {
                Ok(length) => {
                    text.truncate(length);
                    return Ok(text);
                }
                Err(_) => end = SealError::Damaged,
            }
        }
        Err(end)
    }

    /// True if a text has the form of a sealed one.
    pub fn has_form(sealed: &[u8]) -> bool {
        matches!(sealed, [FORM | FORMER, _, rest @ ..] if rest.len() >= NONCE_LEN + AES_256_GCM.tag_len())
    }

    /// The token of an event's status link.
    pub fn link_token(&self, event: EventId) -> String {
        self.current.link_token(event)
    }

    /// The seal of a text that stands in an address.
    pub fn query_seal(&self, text: &[u8]) -> String {
        self.current.query_seal(text)
    }

    /// True if a seal is that of a text.
    pub fn is_query_seal(&self, text: &[u8], seal: &str) -> bool {
        self.keys().any(|keys| {
            keys.query_seal(text)
                .as_bytes()
                .ct_eq(seal.as_bytes())
                .into()
        })
    }

    /// The keys that links to files are signed with; the current one first.
    pub fn file_keys(&self) -> Vec<[u8; 32]> {
        self.keys().map(|keys| keys.files).collect()
    }

    /// True if a token is that of an event's status link.
    pub fn is_link_token(&self, event: EventId, token: &str) -> bool {
        self.keys().any(|keys| {
            keys.link_token(event)
                .as_bytes()
                .ct_eq(token.as_bytes())
                .into()
        })
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({})", self.current.name)
    }
}

/// The bytes that a key's text stands for.
fn bytes_of(key: &Secret) -> Option<Vec<u8>> {
    let text = key.expose().trim_ascii();
    if let Some(bytes) = hex::decode(text).ok().filter(|bytes| bytes.len() == 32) {
        return Some(bytes);
    }
    for engine in [&STANDARD, &URL_SAFE_NO_PAD] {
        if let Some(bytes) = engine.decode(text).ok().filter(|bytes| bytes.len() == 32) {
            return Some(bytes);
        }
    }
    (text.len() >= MIN_KEY).then(|| text.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: EventId = EventId::from_bytes([1; 16]);
    const TWO: EventId = EventId::from_bytes([2; 16]);

    fn sealer(key: &str) -> Sealer {
        Sealer::new(&Secret::new("file:k", key)).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_context_only() {
        let ours = sealer("a text that is long enough for a key");
        let sealed = ours
            .seal(b"the caller's key", SealedPart::Call(ONE))
            .unwrap();
        assert_eq!(
            ours.open(&sealed, SealedPart::Call(ONE)).unwrap(),
            b"the caller's key"
        );
        assert!(!sealed.windows(6).any(|part| part == b"caller"));
        assert_ne!(
            sealed,
            ours.seal(b"the caller's key", SealedPart::Call(ONE))
                .unwrap(),
            "no two seals are alike"
        );
        assert_eq!(
            ours.open(&sealed, SealedPart::Call(TWO)),
            Err(SealError::Damaged)
        );
        let again = sealer("a text that is long enough for a key");
        assert_eq!(
            again.open(&sealed, SealedPart::Call(ONE)).unwrap(),
            b"the caller's key",
            "the key outlives the process"
        );
        let other = (0..64).map(|n| sealer(&format!("another text that is a key, number {n}")));
        let other = other
            .map(|other| other.open(&sealed, SealedPart::Call(ONE)).unwrap_err())
            .collect::<Vec<_>>();
        assert!(
            other.contains(&SealError::OtherKey("file:k".into())),
            "{other:?}"
        );
    }

    #[test]
    fn what_older_keys_closed_still_opens_and_nothing_new_is_closed_with_them() {
        let secret = |text: &str| Secret::new("k", text.to_owned());
        let (before, now) = (
            "the key that was used before this one",
            "the key that is used from now on, 1",
        );
        let (old, new) = (
            sealer(before),
            sealer(now).with_old([&secret(before)]).unwrap(),
        );
        let event = EventId::from_bytes([1; 16]);
        assert_eq!(
            new.open(
                &old.seal(b"x", SealedPart::Body(ONE)).unwrap(),
                SealedPart::Body(ONE)
            )
            .unwrap(),
            b"x"
        );
        assert!(new.is_link_token(event, &old.link_token(event)));
        assert!(
            old.open(
                &new.seal(b"x", SealedPart::Body(ONE)).unwrap(),
                SealedPart::Body(ONE)
            )
            .is_err()
        );
        assert_ne!(new.link_token(event), old.link_token(event));
        assert_eq!(
            new.file_keys(),
            [sealer(now).file_keys(), old.file_keys()].concat()
        );
        assert!(sealer(now).with_old([&secret("short")]).is_err());
    }

    #[test]
    fn no_byte_of_a_sealed_text_can_be_changed_or_left_out() {
        let ours = sealer(&"ab".repeat(32));
        let sealed = ours.seal(b"text", SealedPart::Body(ONE)).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert!(
                ours.open(&changed, SealedPart::Body(ONE)).is_err(),
                "byte {at}"
            );
            assert!(
                ours.open(&sealed[..at], SealedPart::Body(ONE)).is_err(),
                "cut at {at}"
            );
        }
        assert_eq!(
            ours.open(
                &ours.seal(b"", SealedPart::Body(ONE)).unwrap(),
                SealedPart::Body(ONE)
            )
            .unwrap(),
            b""
        );
    }

    #[test]
    fn a_key_is_32_bytes_or_a_long_text_and_is_never_printed() {
        let fresh = Sealer::fresh_key().unwrap();
        for good in [
            fresh.as_str(),
            &STANDARD.encode([7; 32]),
            "thirty-two characters, or more!!",
        ] {
            assert!(Sealer::new(&Secret::new("k", good)).is_ok(), "{good}");
        }
        let sealed = sealer(&hex::encode([7; 32]))
            .seal(b"x", SealedPart::Body(ONE))
            .unwrap();
        assert!(
            sealer(&STANDARD.encode([7; 32]))
                .open(&sealed, SealedPart::Body(ONE))
                .is_ok(),
            "two spellings of one key"
        );
        for bad in ["", "short", &hex::encode([7; 15])] {
            assert!(Sealer::new(&Secret::new("k", bad)).is_err(), "{bad}");
        }
        assert_eq!(format!("{:?}", sealer(&fresh)), "Sealer(file:k)");
    }

    #[test]
    fn a_link_token_is_good_for_its_event_only() {
        let ours = sealer(&"ab".repeat(32));
        let (one, two) = (EventId::from_bytes([1; 16]), EventId::from_bytes([2; 16]));
        let token = ours.link_token(one);
        assert!(ours.is_link_token(one, &token));
        for wrong in [
            "",
            &token[1..],
            &ours.link_token(two),
            &sealer(&"cd".repeat(32)).link_token(one),
        ] {
            assert!(!ours.is_link_token(one, wrong), "{wrong}");
        }
    }

    #[test]
    fn s29_an_answer_opens_as_that_of_its_delivery_only() {
        let ours = sealer(&"ab".repeat(32));
        let of = |event, number| DeliveryId { event, number };
        let parts = [
            SealedPart::Answer(of(ONE, 0)),
            SealedPart::Answer(of(ONE, 1)),
            SealedPart::Answer(of(TWO, 0)),
            SealedPart::Task(of(ONE, 0)),
            SealedPart::Call(ONE),
            SealedPart::Said(ONE),
            SealedPart::Body(ONE),
        ];
        for part in parts {
            let sealed = ours.seal(b"yes", part).unwrap();
            for other in parts {
                assert_eq!(
                    ours.open(&sealed, other).is_ok(),
                    other == part,
                    "{part:?} as {other:?}"
                );
            }
        }
    }

    #[test]
    fn s29_each_event_has_a_key_of_its_own() {
        let keys = DerivedKeys::new(&Secret::new("k", "ab".repeat(32))).unwrap();
        // With one key, nonce and text the closed text would be the same.
        let closed = |key: LessSafeKey| {
            let mut text = *b"a text";
            let _tag = key
                .seal_in_place_separate_tag(
                    Nonce::assume_unique_for_key([0; NONCE_LEN]),
                    Aad::empty(),
                    &mut text,
                )
                .unwrap();
            text
        };
        assert_eq!(
            closed(keys.of_event(ONE).unwrap()),
            closed(keys.of_event(ONE).unwrap())
        );
        assert_ne!(
            closed(keys.of_event(ONE).unwrap()),
            closed(keys.of_event(TWO).unwrap())
        );
    }

    #[test]
    fn what_was_closed_in_the_former_form_still_opens() {
        let ours = sealer(&"ab".repeat(32));
        let former = |text: &[u8], bound: &[u8]| {
            let nonce = [5; NONCE_LEN];
            let mut closed = text.to_vec();
            let key = &ours.current.former;
            key.seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound),
                &mut closed,
            )
            .unwrap();
            [&[FORMER, ours.current.seal_id][..], &nonce, &closed].concat()
        };
        let delivery = DeliveryId {
            event: ONE,
            number: 3,
        };
        for (part, bound) in [
            (SealedPart::Call(ONE), ONE.as_bytes().to_vec()),
            (
                SealedPart::Said(ONE),
                [ONE.as_bytes().as_slice(), b"said"].concat(),
            ),
            (
                SealedPart::Body(ONE),
                [ONE.as_bytes().as_slice(), b"body"].concat(),
            ),
            (SealedPart::Answer(delivery), b"answer".to_vec()),
            (SealedPart::Task(delivery), b"answer".to_vec()),
        ] {
            let sealed = former(b"text", &bound);
            assert!(Sealer::has_form(&sealed));
            assert_eq!(ours.open(&sealed, part).unwrap(), b"text", "{part:?}");
        }
        assert_eq!(
            ours.open(&former(b"text", TWO.as_bytes()), SealedPart::Call(ONE)),
            Err(SealError::Damaged)
        );
    }
}
