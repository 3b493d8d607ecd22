//! Key pairs made for the occasion: to sign as a provider does that keeps a private key, for trying out and for tests.
//!
//! Nothing that comes in is judged with these, and none is kept unless the operator names a file.

use std::fmt;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use num_bigint::BigUint;
use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::der::{self, INTEGER, SEQUENCE};
use super::mac::{Algorithm, RunningDigest};
use super::public::{PublicKeyAlgorithm, PublicKeyEncoding, pem};
use crate::model::Timestamp;

const OCTET_STRING: u8 = 0x04;

/// A private key and its public one.
pub struct KeyPair(Private);

enum Private {
    Ed25519([u8; 32]),
    P256(SigningKey),
    Rsa(Rsa),
}

struct Rsa {
    n: BigUint,
    e: BigUint,
    d: BigUint,
    p: BigUint,
    q: BigUint,
}

/// Bits of each of the two primes of an RSA key.
const PRIME_BITS: u32 = 1024;

impl KeyPair {
    /// Makes one for a way to sign.
    pub(crate) fn make(kind: PublicKeyAlgorithm) -> Result<Self, String> {
        Ok(Self(match kind {
            PublicKeyAlgorithm::Ed25519 => Private::Ed25519(random()?),
            PublicKeyAlgorithm::EcdsaP256 { .. } => loop {
                // Nearly every 32 bytes are a scalar of the curve.
                if let Ok(key) = SigningKey::from_slice(&random::<32>()?) {
                    break Private::P256(key);
                }
            },
            PublicKeyAlgorithm::RsaPkcs1 | PublicKeyAlgorithm::RsaPss => Private::Rsa(Rsa::make()?),
        }))
    }

    /// Reads one that [`KeyPair::to_pem`] wrote.
    pub fn from_pem(text: &[u8]) -> Option<Self> {
        let (label, bytes) = pem(text)?;
        let mut key = der::only(&bytes, SEQUENCE)?;
        if label == "RSA PRIVATE KEY" {
            key.unsigned()?;
            let mut number = || key.unsigned().map(BigUint::from_bytes_be);
            return Some(Self(Private::Rsa(Rsa {
                n: number()?,
                e: number()?,
                d: number()?,
                p: number()?,
                q: number()?,
            })));
        }
        if label != "PRIVATE KEY" {
            return None;
        }
        key.unsigned()?;
        key.value(SEQUENCE)?;
        let inner = key.value(OCTET_STRING)?;
        if let Some(mut ec) = der::only(inner, SEQUENCE) {
            ec.unsigned()?;
            return SigningKey::from_slice(ec.value(OCTET_STRING)?)
                .ok()
                .map(|key| Self(Private::P256(key)));
        }
        let seed = der::DerReader::new(inner).value(OCTET_STRING)?;
        Some(Self(Private::Ed25519(seed.try_into().ok()?)))
    }

    /// The kind of its private key, in the words of [`PublicKeyAlgorithm::private_key`].
    pub fn kind(&self) -> &'static str {
        match &self.0 {
            Private::Ed25519(_) => PublicKeyAlgorithm::Ed25519.private_key(),
            Private::P256(_) => PublicKeyAlgorithm::EcdsaP256 { raw: false }.private_key(),
            Private::Rsa(_) => PublicKeyAlgorithm::RsaPkcs1.private_key(),
        }
    }

    /// The private key as text, for a file that only its owner reads.
    pub fn to_pem(&self) -> String {
        let pkcs8 = |algorithm: Vec<u8>, key: Vec<u8>| {
            let parts = [
                write_small(0),
                der::write(SEQUENCE, &algorithm),
                der::write(OCTET_STRING, &key),
            ];
            armoured("PRIVATE KEY", &der::write(SEQUENCE, &parts.concat()))
        };
        let oid = |name: &[u8]| der::write(0x06, name);
        match &self.0 {
            Private::Ed25519(seed) => pkcs8(oid(der::ED25519), der::write(OCTET_STRING, seed)),
            Private::P256(key) => {
                let scalar = der::write(OCTET_STRING, &key.to_bytes());
                let inner = der::write(SEQUENCE, &[write_small(1), scalar].concat());
                pkcs8([oid(der::EC), oid(der::P256)].concat(), inner)
            }
            Private::Rsa(Rsa { n, e, d, p, q }) => {
                let one = BigUint::from(1_u8);
                let inverse = q.modinv(p).unwrap_or_default();
                let numbers = [
                    n,
                    e,
                    d,
                    p,
                    q,
                    &(d % (p - &one)),
                    &(d % (q - &one)),
                    &inverse,
                ];
                let numbers: Vec<u8> = numbers
                    .iter()
                    .flat_map(|n| der::write_unsigned(&n.to_bytes_be()))
                    .collect();
                armoured(
                    "RSA PRIVATE KEY",
                    &der::write(SEQUENCE, &[write_small(0), numbers].concat()),
                )
            }
        }
    }

    /// The public key, written the way a provider would; a certificate holds for a year around `now`.
    pub(crate) fn public(
        &self,
        notation: PublicKeyEncoding,
        now: Timestamp,
    ) -> Result<String, String> {
        let (bare, spki) = (self.bare(), self.spki());
        Ok(match notation {
            PublicKeyEncoding::Pem => armoured("PUBLIC KEY", &spki),
            PublicKeyEncoding::SpkiBase64 => BASE64_STANDARD.encode(spki),
            PublicKeyEncoding::Hex => hex::encode(bare),
            PublicKeyEncoding::Base64 => BASE64_STANDARD.encode(bare),
            PublicKeyEncoding::Base64Url => BASE64_URL_SAFE_NO_PAD.encode(bare),
            PublicKeyEncoding::Whpk => format!("whpk_{}", BASE64_STANDARD.encode(bare)),
            PublicKeyEncoding::X509 => armoured("CERTIFICATE", &self.certificate(now)?),
            PublicKeyEncoding::Jwk => {
                let b64 = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
                let jwk = match &self.0 {
                    Private::Ed25519(_) => {
                        serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(&bare) })
                    }
                    Private::P256(_) => {
                        serde_json::json!({ "kty": "EC", "crv": "P-256", "x": b64(&bare[1..33]), "y": b64(&bare[33..]) })
                    }
                    Private::Rsa(rsa) => serde_json::json!({
                        "kty": "RSA", "n": b64(&rsa.n.to_bytes_be()), "e": b64(&rsa.e.to_bytes_be()),
                    }),
                };
                jwk.to_string()
            }
        })
    }

    /// The public key without its wrapping: 32 bytes, an uncompressed point, an RSAPublicKey.
    fn bare(&self) -> Vec<u8> {
        match &self.0 {
            Private::Ed25519(seed) => Ed25519KeyPair::from_seed_unchecked(seed)
                .map(|pair| pair.public_key().as_ref().to_vec())
                .unwrap_or_default(),
            Private::P256(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Private::Rsa(rsa) => {
                let numbers =
                    [&rsa.n, &rsa.e].map(|number| der::write_unsigned(&number.to_bytes_be()));
                der::write(SEQUENCE, &numbers.concat())
            }
        }
    }

    fn spki(&self) -> Vec<u8> {
        let (algorithm, curve) = match &self.0 {
            Private::Ed25519(_) => (der::ED25519, None),
            Private::P256(_) => (der::EC, Some(der::P256)),
            Private::Rsa(_) => (der::RSA, None),
        };
        der::write_spki(algorithm, curve, &self.bare())
    }

    /// A certificate that this key signs for itself.
    pub(crate) fn certificate(&self, now: Timestamp) -> Result<Vec<u8>, String> {
        // sha256WithRSAEncryption, ecdsa-with-SHA256, Ed25519
        let (oid, kind): (&[u8], _) = match &self.0 {
            Private::Ed25519(_) => (der::ED25519, PublicKeyAlgorithm::Ed25519),
            Private::P256(_) => (
                &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
                PublicKeyAlgorithm::EcdsaP256 { raw: false },
            ),
            Private::Rsa(_) => (
                &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
                PublicKeyAlgorithm::RsaPkcs1,
            ),
        };
        let algorithm = der::write(SEQUENCE, &der::write(0x06, oid));
        // CN=sluicegate
        let common_name = [
            der::write(0x06, &[0x55, 0x04, 0x03]),
            der::write(0x0c, b"sluicegate"),
        ]
        .concat();
        let name = der::write(
            SEQUENCE,
            &der::write(0x31, &der::write(SEQUENCE, &common_name)),
        );
        let half_a_year = std::time::Duration::from_secs(182 * 86_400);
        let time = |at: Timestamp| {
            let digits: String = at
                .to_string()
                .chars()
                .take(19)
                .filter(char::is_ascii_digit)
                .collect();
            der::write(0x18, format!("{digits}Z").as_bytes())
        };
        let validity = der::write(
            SEQUENCE,
            &[time(now - half_a_year), time(now + half_a_year)].concat(),
        );
        let version = der::write(0xa0, &write_small(2));
        let body = [
            version,
            write_small(1),
            algorithm.clone(),
            name.clone(),
            validity,
            name,
            self.spki(),
        ]
        .concat();
        let body = der::write(SEQUENCE, &body);
        let signature = self.sign(kind, Algorithm::Sha256, &body)?;
        let signature = der::write(0x03, &[&[0], signature.as_slice()].concat());
        Ok(der::write(SEQUENCE, &[body, algorithm, signature].concat()))
    }

    /// Signs.
    pub(crate) fn sign(
        &self,
        kind: PublicKeyAlgorithm,
        algorithm: Algorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, String> {
        let digest = |algorithm, bytes: &[&[u8]]| {
            let mut digest = RunningDigest::plain(algorithm);
            bytes.iter().for_each(|bytes| digest.take(bytes));
            digest.finish().as_bytes().to_vec()
        };
        match (&self.0, kind) {
            (Private::Ed25519(seed), PublicKeyAlgorithm::Ed25519) => {
                let pair = Ed25519KeyPair::from_seed_unchecked(seed)
                    .map_err(|_| "the key cannot sign".to_owned())?;
                Ok(pair.sign(message).as_ref().to_vec())
            }
            (Private::P256(key), PublicKeyAlgorithm::EcdsaP256 { raw }) => {
                let signature: p256::ecdsa::Signature = key
                    .sign_prehash(&digest(algorithm, &[message]))
                    .map_err(|_| "the key cannot sign such a digest".to_owned())?;
                Ok(if raw {
                    signature.to_bytes().to_vec()
                } else {
                    signature.to_der().as_bytes().to_vec()
                })
            }
            (Private::Rsa(rsa), PublicKeyAlgorithm::RsaPkcs1) => {
                let info = digest_info(algorithm).ok_or("RSA does not sign such a digest")?;
                let text = [info, &digest(algorithm, &[message])].concat();
                let size = rsa.n.bits().div_ceil(8) as usize;
                let padding = size
                    .checked_sub(text.len() + 3)
                    .ok_or("the key is too short")?;
                Ok(rsa.power(&[&[0, 1][..], &vec![0xff; padding], &[0], &text].concat()))
            }
            (Private::Rsa(rsa), PublicKeyAlgorithm::RsaPss) => {
                // EMSA-PSS of RFC 8017, 9.1.1, with a salt as long as the digest.
                let hashed = digest(algorithm, &[message]);
                let salt = &random::<64>()?[..hashed.len()];
                let size = rsa.n.bits().div_ceil(8) as usize;
                let mixed = digest(algorithm, &[&[0; 8], &hashed, salt]);
                let room = size
                    .checked_sub(2 * hashed.len() + 2)
                    .ok_or("the key is too short")?;
                let mut block = [vec![0; room], vec![1], salt.to_vec()].concat();
                for (number, chunk) in block.chunks_mut(hashed.len()).enumerate() {
                    let number = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
                    let mask = digest(algorithm, &[&mixed, &number]);
                    chunk
                        .iter_mut()
                        .zip(mask)
                        .for_each(|(byte, mask)| *byte ^= mask);
                }
                block[0] &= 0x7f;
                Ok(rsa.power(&[block, mixed, vec![0xbc]].concat()))
            }
            _ => Err(format!("this is no {} key", kind.what())),
        }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair")
    }
}

impl Rsa {
    fn make() -> Result<Self, String> {
        let e = BigUint::from(65_537_u32);
        let one = BigUint::from(1_u8);
        loop {
            let (p, q) = (prime()?, prime()?);
            let n = &p * &q;
            let phi = (&p - &one) * (&q - &one);
            if let (true, Some(d)) = (
                n.bits() == u64::from(2 * PRIME_BITS) && p != q,
                e.modinv(&phi),
            ) {
                return Ok(Self { n, e, d, p, q });
            }
        }
    }

    /// The signature of an encoded message. Takes a time that depends on the key, which is why these keys are only for
    /// trying out.
    fn power(&self, encoded: &[u8]) -> Vec<u8> {
        let power = BigUint::from_bytes_be(encoded)
            .modpow(&self.d, &self.n)
            .to_bytes_be();
        let size = self.n.bits().div_ceil(8) as usize;
        [vec![0; size.saturating_sub(power.len())], power].concat()
    }
}

/// A random prime with its two highest bits set, so that two of them make a number of full length.
fn prime() -> Result<BigUint, String> {
    let small: Vec<u32> = (3..2_000_u32)
        .filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0))
        .collect();
    let one = BigUint::from(1_u8);
    'candidates: loop {
        let mut bytes = random::<{ PRIME_BITS as usize / 8 }>()?;
        bytes[0] |= 0xc0;
        bytes[PRIME_BITS as usize / 8 - 1] |= 1;
        let candidate = BigUint::from_bytes_be(&bytes);
        if small.iter().any(|d| &candidate % d == BigUint::ZERO) {
            continue;
        }
        // Miller and Rabin. For random numbers of this size a few rounds leave less doubt than the machine does.
        let below = &candidate - &one;
        let twos = below.trailing_zeros().unwrap_or(0);
        let odd = &below >> twos;
        for _ in 0..16 {
            let base = BigUint::from_bytes_be(&random::<64>()?) + 2_u8;
            let mut power = base.modpow(&odd, &candidate);
            if power == one || power == below {
                continue;
            }
            let mut rounds = 1;
            while power != below {
                if rounds >= twos {
                    continue 'candidates;
                }
                power = &power * &power % &candidate;
                rounds += 1;
            }
        }
        return Ok(candidate);
    }
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| "the system gives no random numbers".to_owned())?;
    Ok(bytes)
}

fn write_small(number: u8) -> Vec<u8> {
    der::write(INTEGER, &[number])
}

/// What stands before a digest in an RSA signature (RFC 8017, 9.2).
fn digest_info(algorithm: Algorithm) -> Option<&'static [u8]> {
    Some(match algorithm {
        Algorithm::Sha1 => &[
            0x30, 0x21, 0x30, 0x09, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0, 4, 0x14,
        ],
        Algorithm::Sha256 => &[
            0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20,
        ],
        Algorithm::Sha384 => &[
            0x30, 0x41, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2, 5, 0, 4, 0x30,
        ],
        Algorithm::Sha512 => &[
            0x30, 0x51, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3, 5, 0, 4, 0x40,
        ],
        Algorithm::Md5 => return None,
    })
}

fn armoured(label: &str, bytes: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(bytes);
    let mut lines = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        lines.push_str(line);
        lines.push('\n');
        rest = after;
    }
    lines.push_str(&format!("-----END {label}-----\n"));
    lines
}

#[cfg(test)]
mod tests {
    use super::super::public::PublicKey;
    use super::*;

    #[test]
    fn what_a_made_pair_signs_its_public_key_proves_in_every_notation() {
        let now = Timestamp::from_seconds(1_700_000_000);
        for (kind, algorithms) in [
            (PublicKeyAlgorithm::Ed25519, &[Algorithm::Sha512][..]),
            (
                PublicKeyAlgorithm::EcdsaP256 { raw: false },
                &[Algorithm::Sha256, Algorithm::Sha1],
            ),
            (
                PublicKeyAlgorithm::EcdsaP256 { raw: true },
                &[Algorithm::Sha256],
            ),
            (
                PublicKeyAlgorithm::RsaPkcs1,
                &[
                    Algorithm::Sha1,
                    Algorithm::Sha256,
                    Algorithm::Sha384,
                    Algorithm::Sha512,
                ],
            ),
            (
                PublicKeyAlgorithm::RsaPss,
                &[Algorithm::Sha256, Algorithm::Sha512],
            ),
        ] {
            let made = KeyPair::make(kind).unwrap();
            let pair = KeyPair::from_pem(made.to_pem().as_bytes()).unwrap();
            for (_, notation) in PublicKeyEncoding::WORDS {
                let text = made.public(notation, now).unwrap();
                let key = &PublicKey::read("k", notation, text.as_bytes())
                    .unwrap_or_else(|| panic!("{text}"))[0];
                for algorithm in algorithms {
                    let signature = pair.sign(kind, *algorithm, b"message").unwrap();
                    assert!(
                        key.proves(kind, *algorithm, b"message", &signature),
                        "{kind:?} {algorithm:?} {notation:?}"
                    );
                    assert!(!key.proves(kind, *algorithm, b"Message", &signature));
                    assert!(!key.proves(kind, *algorithm, b"message", &signature[1..]));
                }
                let year = std::time::Duration::from_secs(365 * 86_400);
                assert_eq!(
                    key.holds_at(now + year),
                    notation != PublicKeyEncoding::X509
                );
            }
        }
    }
}
