//! Reader of the keys of `[verify]` that have to do with tokens.

use std::time::Duration;

use super::{Jwt, JwtAlgorithm};
use crate::config::{Located, Section};
use crate::model::Strength;
use crate::verify::inputs::SchemeInputs;
use crate::verify::keys::mac::{Algorithm, Key};
use crate::verify::keys::public::{PublicKey, PublicKeyAlgorithm, PublicKeyEncoding};
use crate::verify::request::field::Field;
use crate::verify::signature::places::{SignaturePlace, SignaturePlaces};
use crate::verify::template::ContentTemplate;
use crate::verify::template::parse::TemplateSetup;

/// The names of RFC 7518 and RFC 8037, without `none`.
const ALGORITHMS: [(&str, JwtAlgorithm); 11] = [
    ("HS256", JwtAlgorithm::Hmac(Algorithm::Sha256)),
    ("HS384", JwtAlgorithm::Hmac(Algorithm::Sha384)),
    ("HS512", JwtAlgorithm::Hmac(Algorithm::Sha512)),
    (
        "RS256",
        JwtAlgorithm::Pair(PublicKeyAlgorithm::RsaPkcs1, Algorithm::Sha256),
    ),
    (
        "RS384",
        JwtAlgorithm::Pair(PublicKeyAlgorithm::RsaPkcs1, Algorithm::Sha384),
    ),
    (
        "RS512",
        JwtAlgorithm::Pair(PublicKeyAlgorithm::RsaPkcs1, Algorithm::Sha512),
    ),
    (
        "PS256",
        JwtAlgorithm::Pair(PublicKeyAlgorithm::RsaPss, Algorithm::Sha256),
    ),
    (
        "PS384",
        JwtAlgorithm::Pair(PublicKeyAlgorithm::RsaPss, Algorithm::Sha384),
    ),
    (
        "PS512",
        JwtAlgorithm::Pair(PublicKeyAlgorithm::RsaPss, Algorithm::Sha512),
    ),
    (
        "ES256",
        JwtAlgorithm::Pair(
            PublicKeyAlgorithm::EcdsaP256 { raw: true },
            Algorithm::Sha256,
        ),
    ),
    (
        "EdDSA",
        JwtAlgorithm::Pair(PublicKeyAlgorithm::Ed25519, Algorithm::Sha512),
    ),
];

impl Jwt {
    /// Reads the keys of `[verify]` that have to do with tokens.
    pub(crate) fn read(
        section: &Section<'_>,
        setup: &TemplateSetup<'_>,
        given: &SchemeInputs<'_>,
    ) -> Option<Self> {
        let places = SignaturePlaces::read(section, setup);
        let algorithms = algorithms(section);
        let mut sound = algorithms.is_some();
        let ways = algorithms.unwrap_or_default();
        let mut claims = Vec::new();
        for (name, text) in section.text_table("claims").unwrap_or_default() {
            match ContentTemplate::compile(&text, setup) {
                Some(template) => claims.push((name.value, template)),
                None => sound = false,
            }
        }
        let required = section
            .texts("required_claims")
            .unwrap_or_default()
            .into_iter()
            .map(|name| name.value)
            .collect();
        let max_age = section
            .integer("max_age")
            .map(|seconds| Duration::from_secs(seconds.value));
        let kid = match section.text("kid") {
            Some(text) => {
                let template = ContentTemplate::compile(&text, setup);
                sound &= template.is_some();
                template
            }
            None => None,
        };
        let detached = section.bool("detached").is_some_and(|yes| yes.value);
        let (keys, public) = keys(&ways, section, setup, given)?;
        let notation = PublicKeyEncoding::read(section);
        let places = places?;
        let whole = matches!(places.list.as_slice(), [SignaturePlace::Field(Field::Body)]);
        let bound = detached || whole || claims.iter().any(|(_, template)| template.holds_body());
        let strength = if bound {
            Strength::Signed
        } else {
            Strength::Origin
        };
        sound.then_some(Self {
            places,
            ways,
            claims,
            required,
            max_age,
            kid,
            detached,
            notation,
            keys,
            public,
            strength,
            asked: Vec::new(),
        })
    }
}

/// Reads `algorithms`; none where a name is not known or the list is missing.
fn algorithms(section: &Section<'_>) -> Option<Vec<(&'static str, JwtAlgorithm)>> {
    let mut sound = true;
    let mut ways = Vec::new();
    for word in section.texts("algorithms").unwrap_or_default() {
        match ALGORITHMS.iter().find(|(name, _)| *name == word.value) {
            Some(way) => ways.push(*way),
            None => {
                sound = false;
                let what = format!(
                    "no algorithm of tokens is called \"{}\"",
                    word.value.escape_debug()
                );
                let known = ALGORITHMS.map(|(name, _)| name).join(", ");
                section.problems().error_hint(
                    &word.place,
                    what,
                    format!("known are {known}; none is not one"),
                );
            }
        }
    }
    if ways.is_empty() && sound {
        sound = false;
        let what = format!("{} is missing", section.path("algorithms"));
        section.problems().error_hint(
            section.place(),
            what,
            "name those that the provider uses: [\"HS256\"]",
        );
    }
    sound.then_some(ways)
}

/// The keys by what they are: shared secrets and public keys. A scheme that allows both takes a secret that reads as a
/// public key for one, and for nothing else.
fn keys(
    ways: &[(&str, JwtAlgorithm)],
    section: &Section<'_>,
    setup: &TemplateSetup<'_>,
    given: &SchemeInputs<'_>,
) -> Option<(Vec<Key>, Vec<PublicKey>)> {
    let hmac: Vec<Algorithm> = ways
        .iter()
        .filter_map(|(_, way)| match way {
            JwtAlgorithm::Hmac(algorithm) => Some(*algorithm),
            JwtAlgorithm::Pair(..) => None,
        })
        .collect();
    let kinds: Vec<PublicKeyAlgorithm> = ways
        .iter()
        .filter_map(|(_, way)| match way {
            JwtAlgorithm::Pair(kind, _) => Some(*kind),
            JwtAlgorithm::Hmac(_) => None,
        })
        .collect();
    let fits = |key: &PublicKey| kinds.iter().any(|kind| key.is(*kind));
    let what = kinds.first().map_or("public", |kind| kind.what());
    match (hmac.is_empty(), kinds.is_empty()) {
        (_, true) => Some((given.keys(section, &hmac)?, Vec::new())),
        (true, false) => Some((
            Vec::new(),
            given.public_keys(section, setup, false, &fits, what)?,
        )),
        (false, false) => {
            let marked = |text: &[u8]| {
                text.trim_ascii_start().starts_with(b"-----BEGIN ")
                    || text.trim_ascii_start().starts_with(b"{")
            };
            let (pairs, secrets): (Vec<Located<_>>, Vec<Located<_>>) = given
                .secrets
                .iter()
                .cloned()
                .partition(|secret| marked(secret.expose()));
            let public = SchemeInputs {
                secrets: &pairs,
                ..*given
            };
            let shared = SchemeInputs {
                secrets: &secrets,
                enrols: given.enrols || !pairs.is_empty(),
                ..*given
            };
            let (keys, public) = (
                shared.keys(section, &hmac),
                public.public_keys(section, setup, true, &fits, what),
            );
            Some((keys?, public?))
        }
    }
}
