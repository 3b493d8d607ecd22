//! Keyed digests, and the one comparison of things that must not leak.
//!
//! A key is prepared once, when the configuration is read; a check clones the prepared state and feeds it. Nothing
//! here prints a key or a digest, and nothing outside compares one: length first, then constant time.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

/// A digest, by the name it has in provider files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Md5,
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    /// The words of provider files.
    pub(crate) const WORDS: [(&'static str, Self); 5] = [
        ("sha256", Self::Sha256),
        ("sha1", Self::Sha1),
        ("sha384", Self::Sha384),
        ("sha512", Self::Sha512),
        ("md5", Self::Md5),
    ];

    /// Its word in provider files.
    pub(crate) fn word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, known)| *known == self)
            .map_or("", |(word, _)| word)
    }

    /// The algorithm of this word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::WORDS
            .iter()
            .find(|(known, _)| *known == word)
            .map(|(_, algorithm)| *algorithm)
    }
}

/// A digest being fed.
#[derive(Clone)]
pub(crate) enum RunningDigest {
    Md5(Md5),
    Sha1(Sha1),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
    HmacMd5(Hmac<Md5>),
    HmacSha1(Hmac<Sha1>),
    HmacSha256(Hmac<Sha256>),
    HmacSha384(Hmac<Sha384>),
    HmacSha512(Hmac<Sha512>),
}

impl RunningDigest {
    /// A digest without a key.
    pub(crate) fn plain(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Md5 => Self::Md5(Md5::new()),
            Algorithm::Sha1 => Self::Sha1(Sha1::new()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha384 => Self::Sha384(Sha384::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// An HMAC (RFC 2104).
    pub(crate) fn keyed(algorithm: Algorithm, key: &[u8]) -> Self {
        match algorithm {
            Algorithm::Md5 => Self::HmacMd5(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Algorithm::Sha1 => Self::HmacSha1(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Algorithm::Sha256 => Self::HmacSha256(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Algorithm::Sha384 => Self::HmacSha384(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Algorithm::Sha512 => Self::HmacSha512(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
        }
    }

    /// Takes the next bytes.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(d) => Digest::update(d, bytes),
            Self::Sha1(d) => Digest::update(d, bytes),
            Self::Sha256(d) => Digest::update(d, bytes),
            Self::Sha384(d) => Digest::update(d, bytes),
            Self::Sha512(d) => Digest::update(d, bytes),
            Self::HmacMd5(m) => Mac::update(m, bytes),
            Self::HmacSha1(m) => Mac::update(m, bytes),
            Self::HmacSha256(m) => Mac::update(m, bytes),
            Self::HmacSha384(m) => Mac::update(m, bytes),
            Self::HmacSha512(m) => Mac::update(m, bytes),
        }
    }

    /// Ends the digest.
    pub(crate) fn finish(self) -> FinishedDigest {
        match self {
            Self::Md5(d) => FinishedDigest::new(&d.finalize()),
            Self::Sha1(d) => FinishedDigest::new(&d.finalize()),
            Self::Sha256(d) => FinishedDigest::new(&d.finalize()),
            Self::Sha384(d) => FinishedDigest::new(&d.finalize()),
            Self::Sha512(d) => FinishedDigest::new(&d.finalize()),
            Self::HmacMd5(m) => FinishedDigest::new(&m.finalize().into_bytes()),
            Self::HmacSha1(m) => FinishedDigest::new(&m.finalize().into_bytes()),
            Self::HmacSha256(m) => FinishedDigest::new(&m.finalize().into_bytes()),
            Self::HmacSha384(m) => FinishedDigest::new(&m.finalize().into_bytes()),
            Self::HmacSha512(m) => FinishedDigest::new(&m.finalize().into_bytes()),
        }
    }
}

/// HMAC hashes keys that are longer than a block and pads the others.
const ANY_LENGTH: &str = "HMAC takes keys of any length";

/// A finished digest. Its bytes are never printed.
pub(crate) struct FinishedDigest {
    bytes: [u8; 64],
    length: usize,
}

impl FinishedDigest {
    fn new(digest: &[u8]) -> Self {
        let mut bytes = [0; 64];
        let length = digest.len().min(bytes.len());
        bytes[..length].copy_from_slice(&digest[..length]);
        Self { bytes, length }
    }

    /// The digest itself.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// True if a received signature is this digest, whole.
    pub(crate) fn is(&self, received: &[u8]) -> bool {
        same(self.as_bytes(), received)
    }
}

/// True if two values are the same and not empty. The time of the comparison depends on their lengths only.
pub(crate) fn same(expected: &[u8], received: &[u8]) -> bool {
    !expected.is_empty() && expected.len() == received.len() && bool::from(expected.ct_eq(received))
}

/// The checksum of ISO 3309 (CRC-32), which some senders sign in place of the body. It is not a digest and binds nothing.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1));
        }
        crc
    })
}

/// A secret as a key, prepared for every algorithm its scheme may ask for.
pub(crate) struct Key {
    name: String,
    bytes: Vec<u8>,
    prepared: Vec<(Algorithm, RunningDigest)>,
}

impl Key {
    /// Prepares a key. The scheme makes sure that it is not empty.
    pub(crate) fn new(name: &str, bytes: Vec<u8>, algorithms: &[Algorithm]) -> Self {
        let prepared = algorithms
            .iter()
            .map(|a| (*a, RunningDigest::keyed(*a, &bytes)))
            .collect();
        Self {
            name: name.to_owned(),
            bytes,
            prepared,
        }
    }

    /// The name of its secret.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The key itself, for texts that hold it and for tokens.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// An HMAC under this key, ready to be fed.
    pub(crate) fn hmac(&self, algorithm: Algorithm) -> RunningDigest {
        self.prepared
            .iter()
            .find(|(known, _)| *known == algorithm)
            .map_or_else(
                || RunningDigest::keyed(algorithm, &self.bytes),
                |(_, state)| state.clone(),
            )
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t53_every_wycheproof_vector_is_judged_as_it_says() {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora/wycheproof");
        let mut seen = 0;
        for (file, algorithm, full) in [
            ("hmac_sha1_test.json", Algorithm::Sha1, 160),
            ("hmac_sha256_test.json", Algorithm::Sha256, 256),
            ("hmac_sha512_test.json", Algorithm::Sha512, 512),
        ] {
            let path = folder.join(file);
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
                panic!(
                    "{} is needed, the HMAC vectors of Project Wycheproof: {error}",
                    path.display()
                )
            });
            let suite: serde_json::Value = serde_json::from_str(&text).unwrap();
            for group in suite["testGroups"].as_array().unwrap() {
                let whole = group["tagSize"].as_u64() == Some(full);
                for case in group["tests"].as_array().unwrap() {
                    let bytes = |key: &str| hex::decode(case[key].as_str().unwrap()).unwrap();
                    let mut mac = Key::new("k", bytes("key"), &[algorithm]).hmac(algorithm);
                    mac.take(&bytes("msg"));
                    let expected = whole && case["result"] == "valid";
                    assert_eq!(
                        mac.finish().is(&bytes("tag")),
                        expected,
                        "{file} {}",
                        case["tcId"]
                    );
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 258, "every vector of the three files");
    }

    #[test]
    fn t46_nothing_is_the_same_as_nothing() {
        assert!(!same(b"", b""));
        assert!(!same(b"abc", b"abcd"));
        assert!(same(b"abc", b"abc"));
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_key_prints_its_name_only() {
        let key = Key::new("env:KEY", b"hunter22".to_vec(), &[Algorithm::Sha256]);
        assert_eq!(format!("{key:?}"), "Key(env:KEY)");
    }
}
