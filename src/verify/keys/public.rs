//! Public keys: the notations they come in, and the signatures they prove.
//!
//! A key is read once, with the configuration. A key that does not fit its scheme, or is too weak, is a problem then and not
//! a refusal later. The scheme and the digest come from the provider's file, never from the request.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use ring::signature::{self as proof, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;

use super::der;
use super::mac::{Algorithm, RunningDigest};
use crate::config::Section;
use crate::model::Timestamp;
use crate::verify::keys::secret_encoding::PASTED;

/// Algorithm to sign with a key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublicKeyAlgorithm {
    /// Ed25519 (RFC 8032), which has a digest of its own.
    Ed25519,
    /// ECDSA over P-256, the signature as DER or as the two numbers one after the other.
    EcdsaP256 { raw: bool },
    /// RSASSA-PKCS1-v1_5
    RsaPkcs1,
    /// RSASSA-PSS with a salt as long as the digest.
    RsaPss,
}

impl PublicKeyAlgorithm {
    /// The kind of private key that signs with it, in words.
    pub(crate) const fn private_key(self) -> &'static str {
        match self {
            Self::Ed25519 => "an Ed25519 private key",
            Self::EcdsaP256 { .. } => "a P-256 private key",
            Self::RsaPkcs1 | Self::RsaPss => "an RSA private key",
        }
    }

    /// True if a digest can be used with it.
    pub(crate) const fn takes(self, algorithm: Algorithm) -> bool {
        match self {
            Self::Ed25519 => true,
            Self::EcdsaP256 { .. } | Self::RsaPkcs1 => !matches!(algorithm, Algorithm::Md5),
            Self::RsaPss => !matches!(algorithm, Algorithm::Md5 | Algorithm::Sha1),
        }
    }

    /// The name of its keys in messages.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Ed25519 => "Ed25519",
            Self::EcdsaP256 { .. } => "P-256",
            Self::RsaPkcs1 | Self::RsaPss => "RSA",
        }
    }
}

/// Encoding of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublicKeyEncoding {
    Pem,
    SpkiBase64,
    Hex,
    Base64,
    Base64Url,
    Whpk,
    Jwk,
    X509,
}

impl PublicKeyEncoding {
    /// The words of provider files.
    pub(crate) const WORDS: [(&'static str, Self); 8] = [
        ("pem", Self::Pem),
        ("spki-base64", Self::SpkiBase64),
        ("hex", Self::Hex),
        ("base64", Self::Base64),
        ("base64url", Self::Base64Url),
        ("whpk", Self::Whpk),
        ("jwk", Self::Jwk),
        ("x509", Self::X509),
    ];

    /// Reads the key `key_encoding`.
    pub(crate) fn read(section: &Section<'_>) -> Self {
        section
            .one_of("key_encoding", &Self::WORDS)
            .map_or(Self::Pem, |word| word.value)
    }

    /// The expected text, for a message.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Pem => "PEM (-----BEGIN PUBLIC KEY-----)",
            Self::SpkiBase64 => "base64 of a SubjectPublicKeyInfo",
            Self::Hex => "hexadecimal digits",
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
            Self::Whpk => "whpk_ and base64",
            Self::Jwk => "a JSON Web Key or a set of them",
            Self::X509 => "a certificate (-----BEGIN CERTIFICATE-----)",
        }
    }
}

/// A public key of some kind.
#[derive(Clone)]
pub(crate) struct PublicKey {
    /// Its name.
    pub(crate) name: String,
    /// The id that tokens name it by, where it has one.
    pub(crate) kid: Option<String>,
    /// The times between which its certificate is valid, where it came in one.
    pub(crate) holds: Option<(Timestamp, Timestamp)>,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Ed25519(Vec<u8>),
    /// The uncompressed point.
    P256(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

/// The smallest RSA modulus, in bits.
const RSA_BITS: usize = 2048;

impl PublicKey {
    /// Reads the keys that a text holds: one, or those of a set.
    pub(crate) fn read(name: &str, notation: PublicKeyEncoding, text: &[u8]) -> Option<Vec<Self>> {
        let one = |material: Option<Material>| {
            Some(vec![Self {
                name: name.to_owned(),
                kid: None,
                holds: None,
                material: material?,
            }])
        };
        let text = text.trim_ascii();
        // A pasted PEM block is read whatever the encoding says.
        if text.starts_with(b"-----BEGIN ") {
            let (label, bytes) = pem(text)?;
            return match label {
                "CERTIFICATE" => Self::of_certificate(name, &bytes).map(|key| vec![key]),
                "PUBLIC KEY" => one(Material::of_spki(&bytes)),
                "RSA PUBLIC KEY" => one(Material::of_pkcs1(&bytes)),
                _ => None,
            };
        }
        match notation {
            PublicKeyEncoding::Pem | PublicKeyEncoding::SpkiBase64 => {
                one(Material::of_spki(&unwrapped(text)?))
            }
            PublicKeyEncoding::Hex => one(Material::of_bytes(&hex::decode(text).ok()?)),
            PublicKeyEncoding::Base64 => one(Material::of_bytes(&unwrapped(text)?)),
            PublicKeyEncoding::Base64Url => {
                let end = text
                    .iter()
                    .rposition(|byte| *byte != b'=')
                    .map_or(0, |at| at + 1);
                one(Material::of_bytes(
                    &BASE64_URL_SAFE_NO_PAD.decode(&text[..end]).ok()?,
                ))
            }
            PublicKeyEncoding::Whpk => {
                let key = text.strip_prefix(b"whpk_").unwrap_or(text);
                one(Material::of_bytes(&PASTED.decode(key).ok()?))
            }
            PublicKeyEncoding::X509 => {
                Self::of_certificate(name, &unwrapped(text)?).map(|key| vec![key])
            }
            PublicKeyEncoding::Jwk => {
                let json: Value = serde_json::from_slice(text).ok()?;
                let one = std::slice::from_ref(&json);
                let list = json
                    .get("keys")
                    .and_then(Value::as_array)
                    .map_or(one, Vec::as_slice);
                // A set may hold keys of other kinds; those that cannot be read are left out.
                let keys: Vec<Self> = list
                    .iter()
                    .filter_map(|jwk| Self::of_jwk(name, jwk))
                    .collect();
                (!keys.is_empty()).then_some(keys)
            }
        }
    }

    /// The key in a certificate.
    pub(crate) fn of_certificate(name: &str, der: &[u8]) -> Option<Self> {
        let certificate = der::certificate(der)?;
        let material = Material::of_spki(certificate.spki)?;
        Some(Self {
            name: name.to_owned(),
            kid: None,
            holds: Some((certificate.from, certificate.to)),
            material,
        })
    }

    fn of_jwk(name: &str, jwk: &Value) -> Option<Self> {
        let text = |key: &str| jwk.get(key).and_then(Value::as_str);
        let bytes = |key: &str| BASE64_URL_SAFE_NO_PAD.decode(text(key)?).ok();
        let material = match (text("kty")?, text("crv")) {
            ("OKP", Some("Ed25519")) => Material::of_bytes(&bytes("x")?)?,
            ("EC", Some("P-256")) => {
                Material::of_point(&[vec![4], bytes("x")?, bytes("y")?].concat())?
            }
            ("RSA", _) => Material::rsa(&bytes("n")?, &bytes("e")?)?,
            _ => return None,
        };
        Some(Self {
            name: name.to_owned(),
            kid: text("kid").map(str::to_owned),
            holds: None,
            material,
        })
    }

    /// True if it is a key for this algorithm.
    pub(crate) const fn is(&self, kind: PublicKeyAlgorithm) -> bool {
        matches!(
            (&self.material, kind),
            (Material::Ed25519(_), PublicKeyAlgorithm::Ed25519)
                | (Material::P256(_), PublicKeyAlgorithm::EcdsaP256 { .. })
                | (
                    Material::Rsa { .. },
                    PublicKeyAlgorithm::RsaPkcs1 | PublicKeyAlgorithm::RsaPss
                )
        )
    }

    /// True if its certificate is valid at a time; a bare key always is.
    pub(crate) fn holds_at(&self, now: Timestamp) -> bool {
        self.holds.is_none_or(|(from, to)| from <= now && now <= to)
    }

    /// True if the owner of this key made the signature.
    pub(crate) fn proves(
        &self,
        kind: PublicKeyAlgorithm,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        match (&self.material, kind) {
            (Material::Ed25519(key), PublicKeyAlgorithm::Ed25519) => {
                UnparsedPublicKey::new(&proof::ED25519, key)
                    .verify(message, signature)
                    .is_ok()
            }
            (Material::P256(key), PublicKeyAlgorithm::EcdsaP256 { raw }) => {
                match (algorithm, raw) {
                    (Algorithm::Sha256, false) => {
                        UnparsedPublicKey::new(&proof::ECDSA_P256_SHA256_ASN1, key)
                            .verify(message, signature)
                            .is_ok()
                    }
                    (Algorithm::Sha256, true) => {
                        UnparsedPublicKey::new(&proof::ECDSA_P256_SHA256_FIXED, key)
                            .verify(message, signature)
                            .is_ok()
                    }
                    (algorithm, raw) => prehashed(key, algorithm, raw, message, signature),
                }
            }
            (Material::Rsa { n, e }, kind) => rsa(kind, algorithm).is_some_and(|how| {
                RsaPublicKeyComponents { n, e }
                    .verify(how, message, signature)
                    .is_ok()
            }),
            _ => false,
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.name)
    }
}

impl Material {
    /// A key without its wrapping; a SubjectPublicKeyInfo is taken as well.
    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x04, ..] if bytes.len() == 65 => Self::of_point(bytes),
            [0x02 | 0x03, ..] if bytes.len() == 33 => Self::of_point(bytes),
            _ if bytes.len() == 32 => Some(Self::Ed25519(bytes.to_vec())),
            _ => Self::of_spki(bytes).or_else(|| Self::of_pkcs1(bytes)),
        }
    }

    fn of_spki(bytes: &[u8]) -> Option<Self> {
        let spki = der::spki(bytes)?;
        match (spki.algorithm, spki.curve) {
            (der::ED25519, None) if spki.key.len() == 32 => Some(Self::Ed25519(spki.key.to_vec())),
            (der::EC, Some(der::P256)) => Self::of_point(spki.key),
            (der::RSA | der::RSA_PSS, None) => Self::of_pkcs1(spki.key),
            _ => None,
        }
    }

    fn of_pkcs1(bytes: &[u8]) -> Option<Self> {
        let mut key = der::only(bytes, der::SEQUENCE)?;
        let (n, e) = (key.unsigned()?, key.unsigned()?);
        if key.is_done() { Self::rsa(n, e) } else { None }
    }

    fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let whole =
            |digits: &[u8]| digits[digits.iter().take_while(|byte| **byte == 0).count()..].to_vec();
        let (n, e) = (whole(n), whole(e));
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        (bits >= RSA_BITS && !e.is_empty()).then_some(Self::Rsa { n, e })
    }

    /// A point that is on the curve.
    fn of_point(bytes: &[u8]) -> Option<Self> {
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).ok()?;
        Some(Self::P256(key.to_sec1_point(false).as_bytes().to_vec()))
    }
}

/// ECDSA with the digests that have no entry of their own in `ring`.
fn prehashed(
    key: &[u8],
    algorithm: Algorithm,
    raw: bool,
    message: &[u8],
    signature: &[u8],
) -> bool {
    use p256::ecdsa::{Signature, VerifyingKey};
    let signature = if raw {
        Signature::from_slice(signature)
    } else {
        Signature::from_der(signature)
    };
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_sec1_bytes(key), signature) else {
        return false;
    };
    let mut digest = RunningDigest::plain(algorithm);
    digest.take(message);
    key.verify_prehash(digest.finish().as_bytes(), &signature)
        .is_ok()
}

fn rsa(kind: PublicKeyAlgorithm, algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match (kind, algorithm) {
        (PublicKeyAlgorithm::RsaPkcs1, Algorithm::Sha1) => {
            &proof::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY
        }
        (PublicKeyAlgorithm::RsaPkcs1, Algorithm::Sha256) => &proof::RSA_PKCS1_2048_8192_SHA256,
        (PublicKeyAlgorithm::RsaPkcs1, Algorithm::Sha384) => &proof::RSA_PKCS1_2048_8192_SHA384,
        (PublicKeyAlgorithm::RsaPkcs1, Algorithm::Sha512) => &proof::RSA_PKCS1_2048_8192_SHA512,
        (PublicKeyAlgorithm::RsaPss, Algorithm::Sha256) => &proof::RSA_PSS_2048_8192_SHA256,
        (PublicKeyAlgorithm::RsaPss, Algorithm::Sha384) => &proof::RSA_PSS_2048_8192_SHA384,
        (PublicKeyAlgorithm::RsaPss, Algorithm::Sha512) => &proof::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// The label and the bytes of the first block of a PEM text (RFC 7468).
pub(crate) fn pem(text: &[u8]) -> Option<(&str, Vec<u8>)> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, after) = text.split_once("-----BEGIN ")?;
    let (label, after) = after.split_once("-----")?;
    let (body, _) = after.split_once("-----END ")?;
    Some((label, unwrapped(body.as_bytes())?))
}

/// Base64 that may be broken into lines, also by the two letters `\n` that environment variables often carry.
fn unwrapped(text: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::with_capacity(text.len());
    let mut letters = text.iter().copied().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            b'\\'
                if letters
                    .next_if(|next| matches!(next, b'n' | b'r'))
                    .is_some() => {}
            letter if letter.is_ascii_whitespace() => {}
            letter => whole.push(letter),
        }
    }
    PASTED.decode(whole).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(file: &str) -> Value {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/corpora/wycheproof")
            .join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
            panic!(
                "{} is needed, vectors of Project Wycheproof: {error}",
                path.display()
            )
        });
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn t53_every_wycheproof_vector_is_judged_as_it_says_in_every_notation() {
        for (file, kind, expected) in [
            ("ed25519_test.json", PublicKeyAlgorithm::Ed25519, 72),
            (
                "ecdsa_secp256r1_sha256_test.json",
                PublicKeyAlgorithm::EcdsaP256 { raw: false },
                216,
            ),
            (
                "ecdsa_secp256r1_sha256_p1363_test.json",
                PublicKeyAlgorithm::EcdsaP256 { raw: true },
                141,
            ),
            (
                "rsa_signature_2048_sha256_test.json",
                PublicKeyAlgorithm::RsaPkcs1,
                134,
            ),
        ] {
            let mut seen = 0;
            for group in suite(file)["testGroups"].as_array().unwrap() {
                let text = |key: &str| group[key].as_str().unwrap_or_default().to_owned();
                let mut notations = vec![
                    (PublicKeyEncoding::Pem, text("publicKeyPem")),
                    (
                        PublicKeyEncoding::Pem,
                        text("publicKeyPem").replace('\n', "\\n"),
                    ),
                    (PublicKeyEncoding::Hex, text("publicKeyDer")),
                ];
                for key in ["publicKeyJwk", "keyJwk"] {
                    if group[key].is_object() {
                        notations.push((PublicKeyEncoding::Jwk, group[key].to_string()));
                    }
                }
                if let Some(bare) = group["publicKey"]["pk"]
                    .as_str()
                    .or(group["publicKey"]["uncompressed"].as_str())
                {
                    notations.push((PublicKeyEncoding::Hex, bare.to_owned()));
                }
                for (notation, text) in notations {
                    let keys = PublicKey::read("k", notation, text.as_bytes());
                    let key = &keys.unwrap_or_else(|| panic!("{file}: {notation:?} {text}"))[0];
                    assert!(key.is(kind));
                    for case in group["tests"].as_array().unwrap() {
                        let bytes = |key: &str| hex::decode(case[key].as_str().unwrap()).unwrap();
                        let good =
                            key.proves(kind, Algorithm::Sha256, &bytes("msg"), &bytes("sig"));
                        match case["result"].as_str().unwrap() {
                            "acceptable" => {}
                            result => {
                                assert_eq!(
                                    good,
                                    result == "valid",
                                    "{file} {} {}",
                                    case["tcId"],
                                    case["comment"]
                                )
                            }
                        }
                    }
                }
                seen += group["tests"].as_array().unwrap().len();
            }
            assert_eq!(seen, expected, "every vector of {file}");
        }
    }

    #[test]
    fn the_path_of_other_digests_judges_alike() {
        let mut seen = 0;
        for (file, raw) in [
            ("ecdsa_secp256r1_sha256_test.json", false),
            ("ecdsa_secp256r1_sha256_p1363_test.json", true),
        ] {
            for group in suite(file)["testGroups"].as_array().unwrap() {
                let key =
                    hex::decode(group["publicKey"]["uncompressed"].as_str().unwrap()).unwrap();
                for case in group["tests"].as_array().unwrap() {
                    let bytes = |key: &str| hex::decode(case[key].as_str().unwrap()).unwrap();
                    let good =
                        prehashed(&key, Algorithm::Sha256, raw, &bytes("msg"), &bytes("sig"));
                    assert_eq!(
                        good,
                        case["result"] == "valid",
                        "{file} {} {}",
                        case["tcId"],
                        case["comment"]
                    );
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 357);
    }

    #[test]
    fn an_invalid_or_weak_key_is_refused() {
        let short = der::write(
            der::SEQUENCE,
            &[der::write_unsigned(&[0xff; 128]), der::write_unsigned(&[3])].concat(),
        );
        for (notation, text) in [
            (PublicKeyEncoding::Hex, hex::encode(short)),
            (PublicKeyEncoding::Hex, "04".repeat(65)),
            (PublicKeyEncoding::Hex, "00".repeat(31)),
            (PublicKeyEncoding::Base64, "====".into()),
            (
                PublicKeyEncoding::Pem,
                "-----BEGIN PUBLIC KEY-----\nAAAA".into(),
            ),
            (
                PublicKeyEncoding::Pem,
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----".into(),
            ),
            (PublicKeyEncoding::Jwk, "{\"keys\":[]}".into()),
            (
                PublicKeyEncoding::Jwk,
                "{\"kty\":\"oct\",\"k\":\"AAAA\"}".into(),
            ),
            (PublicKeyEncoding::X509, "AAAA".into()),
        ] {
            assert!(
                PublicKey::read("k", notation, text.as_bytes()).is_none(),
                "{notation:?} {text}"
            );
        }
    }
}
