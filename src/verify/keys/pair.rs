//! Key pair made for the occasion: to sign as a provider does that keeps a private key, for trying out and for tests.
//!
//! Nothing that comes in is judged with these, and none is kept unless the operator names a file.

use std::fmt;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use num_bigint::BigUint;
use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::der::{self, INTEGER, SEQUENCE};
use super::mac::Algorithm;
use super::public::{PublicKeyAlgorithm, PublicKeyEncoding, pem};
use super::rsa_pair::{RsaPair, digest, random};
use crate::model::Timestamp;

const OCTET_STRING: u8 = 0x04;

/// A private key and its public one.
pub struct KeyPair(Private);

enum Private {
    Ed25519([u8; 32]),
    P256(SigningKey),
    Rsa(RsaPair),
}

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
            PublicKeyAlgorithm::RsaPkcs1 | PublicKeyAlgorithm::RsaPss => {
                Private::Rsa(RsaPair::make()?)
            }
        }))
    }

    /// Reads one that [`KeyPair::to_pem`] wrote.
    pub fn from_pem(text: &[u8]) -> Option<Self> {
        let (label, bytes) = pem(text)?;
        let mut key = der::only(&bytes, SEQUENCE)?;
        if label == "RSA PRIVATE KEY" {
            key.unsigned()?;
            let mut number = || key.unsigned().map(BigUint::from_bytes_be);
            return Some(Self(Private::Rsa(RsaPair {
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

    /// The kind of its private key, in the words of `PublicKeyAlgorithm::private_key`.
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
            Private::Rsa(RsaPair { n, e, d, p, q }) => {
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

    /// Signs a message.
    pub(crate) fn sign(
        &self,
        kind: PublicKeyAlgorithm,
        algorithm: Algorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, String> {
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
            (Private::Rsa(rsa), PublicKeyAlgorithm::RsaPkcs1) => rsa.sign_pkcs1(algorithm, message),
            (Private::Rsa(rsa), PublicKeyAlgorithm::RsaPss) => rsa.sign_pss(algorithm, message),
            _ => Err(format!("the key pair is not of the kind {}", kind.what())),
        }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair")
    }
}

fn write_small(number: u8) -> Vec<u8> {
    der::write(INTEGER, &[number])
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
    use super::*;
    use crate::verify::keys::public::PublicKey;

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
