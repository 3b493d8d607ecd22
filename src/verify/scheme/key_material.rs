//! Key material of a signature: shared secrets, or public keys and the certificates that requests name.

use crate::config::Section;
use crate::verify::inputs::SchemeInputs;
use crate::verify::keys::certificate::Certificates;
use crate::verify::keys::mac::{Algorithm, Key, RunningDigest};
use crate::verify::keys::public::{PublicKey, PublicKeyAlgorithm, PublicKeyEncoding};
use crate::verify::template::parse::TemplateSetup;

/// Method to make a signature, before its keys are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SigningMethod {
    /// HMAC with a shared secret.
    Hmac,
    /// A plain digest of a text that holds the secret.
    Plain,
    /// A private key of the provider.
    KeyPair(PublicKeyAlgorithm),
}

impl SigningMethod {
    /// The method that `scheme` names; none where the scheme is not a signature.
    pub(super) fn read(word: &str, section: &Section<'_>) -> Option<Self> {
        Some(match word {
            "hmac" => Self::Hmac,
            "hash" => Self::Plain,
            "ed25519" => Self::KeyPair(PublicKeyAlgorithm::Ed25519),
            "ecdsa-p256" => {
                let raw = section
                    .one_of("form", &[("der", false), ("raw", true)])
                    .is_some_and(|form| form.value);
                Self::KeyPair(PublicKeyAlgorithm::EcdsaP256 { raw })
            }
            "rsa-pkcs1" => Self::KeyPair(PublicKeyAlgorithm::RsaPkcs1),
            "rsa-pss" => Self::KeyPair(PublicKeyAlgorithm::RsaPss),
            _ => return None,
        })
    }
}

/// Keys that a signature is checked with.
#[derive(Debug)]
pub(crate) enum KeyMaterial {
    /// HMAC with a shared secret.
    Hmac(Vec<Key>),
    /// A plain digest of a text that holds the secret.
    Plain(Vec<Key>),
    /// Public keys of the provider.
    Public(PublicKeys),
}

/// Public keys of a provider, at hand or in certificates that requests name.
#[derive(Debug)]
pub(crate) struct PublicKeys {
    pub(crate) algorithm: PublicKeyAlgorithm,
    pub(crate) encoding: PublicKeyEncoding,
    pub(crate) keys: Vec<PublicKey>,
    pub(crate) certificates: Option<Box<Certificates>>,
}

impl KeyMaterial {
    /// Reads the keys for a method.
    pub(super) fn read(
        method: SigningMethod,
        algorithms: &[Algorithm],
        section: &Section<'_>,
        setup: &TemplateSetup<'_>,
        given: &SchemeInputs<'_>,
    ) -> Option<Self> {
        match method {
            SigningMethod::Hmac => given.keys(section, algorithms).map(Self::Hmac),
            SigningMethod::Plain => given.keys(section, &[]).map(Self::Plain),
            SigningMethod::KeyPair(algorithm) => {
                PublicKeys::read(algorithm, algorithms, section, setup, given).map(Self::Public)
            }
        }
    }

    /// The shared secrets; a key pair has none.
    pub(crate) fn secrets(&self) -> &[Key] {
        match self {
            Self::Hmac(keys) | Self::Plain(keys) => keys,
            Self::Public(_) => &[],
        }
    }

    /// A digest of the signed text under a shared secret, ready to be fed.
    pub(crate) fn digest(&self, key: &Key, algorithm: Algorithm) -> RunningDigest {
        match self {
            Self::Hmac(_) => key.hmac(algorithm),
            Self::Plain(_) | Self::Public(_) => RunningDigest::plain(algorithm),
        }
    }

    /// The certificates that requests name, where the operator gave no key.
    pub(crate) fn certificates(&self) -> Option<&Certificates> {
        match self {
            Self::Public(public) if public.keys.is_empty() => public.certificates.as_deref(),
            Self::Hmac(_) | Self::Plain(_) | Self::Public(_) => None,
        }
    }
}

impl PublicKeys {
    fn read(
        algorithm: PublicKeyAlgorithm,
        digests: &[Algorithm],
        section: &Section<'_>,
        setup: &TemplateSetup<'_>,
        given: &SchemeInputs<'_>,
    ) -> Option<Self> {
        let mut sound = true;
        if let Some(wrong) = digests.iter().find(|digest| !algorithm.takes(**digest)) {
            sound = false;
            let what = format!(
                "{} keys do not sign with {}",
                algorithm.what(),
                wrong.word()
            );
            given.problems.error(section.place(), what);
        }
        let certificates = match section.section("cert_url") {
            Some(table) => {
                let read = Certificates::read(&table).map(Box::new);
                sound &= read.is_some();
                read
            }
            None => None,
        };
        let keys = given.public_keys(
            section,
            setup,
            certificates.is_some(),
            &|key| key.is(algorithm),
            algorithm.what(),
        )?;
        let encoding = PublicKeyEncoding::read(section);
        sound.then_some(Self {
            algorithm,
            encoding,
            keys,
            certificates,
        })
    }
}
