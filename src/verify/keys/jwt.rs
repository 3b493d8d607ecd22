//! Signed tokens (RFC 7515, RFC 7519): compact, of bounded length, by the algorithms that the provider's file names.
//!
//! What a token's header says is compared with the file, never followed. A key that was read as a public key proves no
//! HMAC, and a shared secret nothing else, whatever a token asks for. The body is proved only where a claim holds its
//! digest, where it is the signed payload itself, or where it is the token.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::mac::{Algorithm, Key, same};
use super::public::{PublicKey, PublicKeyAlgorithm, PublicKeyEncoding};
use crate::config::{Located, Section};
use crate::model::{OriginFault, Received, Strength, Timestamp, TokenClaims};
use crate::verify::content::{ContentTemplate, Context, TemplateSetup};
use crate::verify::document::Json;
use crate::verify::field::{Field, RequestView};
use crate::verify::judge::missing;
use crate::verify::scheme::SchemeInputs;
use crate::verify::signature::{ProofError, SignaturePlace, SignaturePlaces};
use crate::verify::signing_oracle::{self, SigningOracle};

/// The longest token that stands in a header or a field.
const LONGEST: usize = 16 * 1024;

/// The longest token that is the whole body.
const LONGEST_BODY: usize = 2 * 1024 * 1024;

/// How far a sender's clock may run ahead of ours.
const AHEAD: Duration = Duration::from_secs(60);

/// A way to sign a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JwtAlgorithm {
    Hmac(Algorithm),
    Pair(PublicKeyAlgorithm, Algorithm),
}

/// The names of RFC 7518 and RFC 8037. `none` is no way to sign.
const WAYS: [(&str, JwtAlgorithm); 11] = [
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

/// A `jwt` scheme, compiled.
#[derive(Debug)]
pub(crate) struct Jwt {
    pub(crate) places: SignaturePlaces,
    pub(crate) ways: Vec<(&'static str, JwtAlgorithm)>,
    pub(crate) claims: Vec<(String, ContentTemplate)>,
    pub(crate) required: Vec<String>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) kid: Option<ContentTemplate>,
    pub(crate) detached: bool,
    pub(crate) notation: PublicKeyEncoding,
    pub(crate) keys: Vec<Key>,
    pub(crate) public: Vec<PublicKey>,
    pub(crate) strength: Strength,
    /// What handshakes have signed with the same secrets for whoever asks.
    pub(crate) asked: Vec<SigningOracle>,
}

/// A token, taken apart and not yet believed.
struct UnverifiedToken<'t> {
    signed: &'t [u8],
    way: (&'static str, JwtAlgorithm),
    kid: Option<String>,
    payload: Vec<u8>,
    signature: Vec<u8>,
    /// Of a detached one: whether the body is signed as base64url.
    encoded: bool,
}

/// A token that was found good.
pub(crate) struct ProvedToken {
    /// What the key goes by that made it.
    pub(crate) name: String,
    /// The digest of what was signed.
    pub(crate) signed: [u8; 32],
}

impl Jwt {
    /// Reads the keys of `[verify]` that have to do with tokens.
    pub(crate) fn read(
        section: &Section<'_>,
        setup: &TemplateSetup<'_>,
        given: &SchemeInputs<'_>,
    ) -> Option<Self> {
        let problems = section.problems();
        let places = SignaturePlaces::read(section, setup);
        let mut sound = true;
        let mut ways = Vec::new();
        for word in section.texts("algorithms").unwrap_or_default() {
            match WAYS.iter().find(|(name, _)| *name == word.value) {
                Some(way) => ways.push(*way),
                None => {
                    sound = false;
                    let what = format!(
                        "no algorithm of tokens is called \"{}\"",
                        word.value.escape_debug()
                    );
                    let known = WAYS.map(|(name, _)| name).join(", ");
                    problems.error_hint(
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
            problems.error_hint(
                section.place(),
                what,
                "name those that the provider uses: [\"HS256\"]",
            );
        }
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

    /// Proves the token.
    pub(crate) fn judge(
        &self,
        request: &RequestView<'_>,
        now: Timestamp,
    ) -> Result<ProvedToken, ProofError> {
        let texts = self.places.texts(request, None)?;
        let [text] = texts.as_slice() else {
            return Err(malformed("there is more than one token"));
        };
        let token = self.take_apart(text)?;
        let mut context = Context {
            request,
            item: None,
            fields: &[],
            ts: None,
            key: None,
        };
        if let Some(expected) = &self.kid {
            let expected = expected.bytes(&context).map_err(missing)?;
            if !token
                .kid
                .as_ref()
                .is_some_and(|kid| same(&expected, kid.as_bytes()))
            {
                return Err((
                    OriginFault::UnknownKey,
                    "the token names another key".into(),
                ));
            }
        }
        let detached;
        let signed = if self.detached {
            let body = &request.received.body;
            let (head, _) =
                split(token.signed).ok_or_else(|| malformed("the token has not three parts"))?;
            let body = if token.encoded {
                BASE64_URL_SAFE_NO_PAD.encode(body).into_bytes()
            } else {
                body.to_vec()
            };
            detached = [head, b".", body.as_slice()].concat();
            detached.as_slice()
        } else {
            token.signed
        };
        let (name, key) = self.key(&token, signed, now)?;
        context.key = key;
        signing_oracle::refuse(&self.asked, signed)?;
        if !self.detached {
            let claims = Json::parse(&token.payload)
                .map_err(|_| malformed("the token's claims are no JSON"))?;
            self.hold(&claims, &context, now)?;
        }
        Ok(ProvedToken {
            name,
            signed: Sha256::digest(signed).into(),
        })
    }

    /// What a token that was found good says.
    pub(crate) fn claims(&self, received: &Received) -> Option<TokenClaims> {
        if self.detached {
            return None;
        }
        let request = RequestView::new(received, &crate::verify::field::DocumentPlace::Body);
        let texts = self.places.texts(&request, None).ok()?;
        let [text] = texts.as_slice() else {
            return None;
        };
        let is_body = matches!(
            self.places.list.as_slice(),
            [SignaturePlace::Field(Field::Body)]
        );
        Some(TokenClaims {
            json: self.take_apart(text).ok()?.payload.into(),
            is_body,
        })
    }

    fn take_apart<'t>(&self, text: &'t [u8]) -> Result<UnverifiedToken<'t>, ProofError> {
        let whole = matches!(
            self.places.list.as_slice(),
            [SignaturePlace::Field(Field::Body)]
        );
        let text = if whole { text.trim_ascii() } else { text };
        if text.len() > if whole { LONGEST_BODY } else { LONGEST } {
            return Err(malformed("the token is too long"));
        }
        let three = || malformed("the token has not three parts");
        let (signed, signature) = split(text).ok_or_else(three)?;
        let (head, payload) = split(signed).ok_or_else(three)?;
        if head.contains(&b'.') {
            return Err(three());
        }
        let decode = |part: &[u8]| {
            BASE64_URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| malformed("a part of the token is not base64url"))
        };
        let (payload, signature) = (decode(payload)?, decode(signature)?);
        let head =
            Json::parse(&decode(head)?).map_err(|_| malformed("the token's header is no JSON"))?;
        let member = |name: &str| head.at(&[name.to_owned()]);
        let word = member("alg").and_then(Json::as_text).unwrap_or_default();
        let way = self.ways.iter().find(|(name, _)| *name == word);
        let way = *way
            .ok_or_else(|| malformed("the token is signed by an algorithm that is not allowed"))?;
        // Extensions that have to be understood (RFC 7515, 4.1.11): only the one of RFC 7797 is.
        let encoded = member("b64") != Some(&Json::Bool(false));
        let understood = match member("crit") {
            None => encoded,
            Some(Json::List(names)) => {
                self.detached && matches!(names.as_slice(), [Json::Text(name)] if name == "b64")
            }
            Some(_) => false,
        };
        if !understood && (member("crit").is_some() || !self.detached) {
            return Err(malformed("the token asks for what is not understood"));
        }
        if signature.is_empty() || payload.is_empty() != self.detached {
            return Err(malformed("a part of the token is empty, or is not"));
        }
        let kid = member("kid").and_then(Json::as_text).map(str::to_owned);
        Ok(UnverifiedToken {
            signed,
            way,
            kid,
            payload,
            signature,
            encoded,
        })
    }

    /// The key that made it.
    fn key(
        &self,
        token: &UnverifiedToken<'_>,
        signed: &[u8],
        now: Timestamp,
    ) -> Result<(String, Option<&Key>), ProofError> {
        match token.way.1 {
            JwtAlgorithm::Hmac(algorithm) => {
                let made = |key: &&Key| {
                    let mut mac = key.hmac(algorithm);
                    mac.take(signed);
                    mac.finish().is(&token.signature)
                };
                if self.keys.is_empty() {
                    return Err((
                        OriginFault::NotAttempted,
                        "this source has no secret for such a token".into(),
                    ));
                }
                self.keys
                    .iter()
                    .find(made)
                    .map(|key| (key.name().to_owned(), Some(key)))
                    .ok_or_else(wrong)
            }
            JwtAlgorithm::Pair(kind, algorithm) => {
                // A key with an id proves only tokens that name it.
                let named = |key: &&PublicKey| match (&key.kid, &token.kid) {
                    (Some(known), Some(kid)) => known == kid,
                    (Some(_), None) => self.public.len() == 1,
                    (None, _) => true,
                };
                let mut fit = self
                    .public
                    .iter()
                    .filter(|key| key.is(kind))
                    .filter(named)
                    .peekable();
                if fit.peek().is_none() {
                    return Err((
                        OriginFault::UnknownKey,
                        "the token names a key that this source has not".into(),
                    ));
                }
                let made = |key: &&PublicKey| {
                    key.holds_at(now) && key.proves(kind, algorithm, signed, &token.signature)
                };
                fit.find(made)
                    .map(|key| (key.name.clone(), None))
                    .ok_or_else(wrong)
            }
        }
    }

    /// Checks what the token says.
    fn hold(
        &self,
        claims: &Json,
        context: &Context<'_, '_>,
        now: Timestamp,
    ) -> Result<(), ProofError> {
        let Json::Object(entries) = claims else {
            return Err(malformed("the token's claims are no object"));
        };
        for name in &self.required {
            if at(claims, name).is_none_or(|claim| *claim == Json::Null) {
                return Err((
                    OriginFault::MissingPart,
                    format!("the token has no claim {name}"),
                ));
            }
        }
        for (name, template) in &self.claims {
            let expected = template.bytes(context).map_err(missing)?;
            let is = |claim: &Json| {
                claim
                    .as_text()
                    .is_some_and(|claim| same(&expected, claim.as_bytes()))
            };
            let good = match at(claims, name) {
                Some(Json::List(any)) => any.iter().any(is),
                Some(one) => is(one),
                None => {
                    return Err((
                        OriginFault::MissingPart,
                        format!("the token has no claim {name}"),
                    ));
                }
            };
            if !good {
                return Err(if template.holds_body() {
                    (
                        OriginFault::BodyChanged,
                        format!("the body is not the one that the claim {name} is about"),
                    )
                } else {
                    (
                        OriginFault::ClaimMismatch,
                        format!("the claim {name} is not what it has to be"),
                    )
                });
            }
        }
        let time = |name: &str| match entries.get(name) {
            None => Ok(None),
            Some(claim) => seconds(claim).map(Some).ok_or_else(|| {
                (
                    OriginFault::BadTimestamp,
                    format!("the claim {name} is no time"),
                )
            }),
        };
        if let Some(until) = time("exp")?
            && until <= now
        {
            return Err((
                OriginFault::Stale,
                format!("the token ran out {} s ago", now.since(until).as_secs()),
            ));
        }
        for name in ["nbf", "iat"] {
            if let Some(at) = time(name)?
                && at.since(now) > AHEAD
            {
                let lead = at.since(now).as_secs();
                return Err((
                    OriginFault::Future,
                    format!("the claim {name} lies {lead} s ahead of our clock"),
                ));
            }
        }
        if let Some(most) = self.max_age {
            let made = time("iat")?.ok_or_else(|| {
                (
                    OriginFault::BadTimestamp,
                    "the token has no claim iat".into(),
                )
            })?;
            if now.since(made) > most {
                let age = now.since(made).as_secs();
                return Err((
                    OriginFault::Stale,
                    format!("made {age} s ago, {} s are allowed", most.as_secs()),
                ));
            }
        }
        Ok(())
    }
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

/// Everything before the last dot, and what stands behind it.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().rposition(|byte| *byte == b'.')?;
    Some((&text[..at], &text[at + 1..]))
}

/// A claim by its name, which may have dots in it, or by a dotted path.
fn at<'c>(claims: &'c Json, name: &str) -> Option<&'c Json> {
    claims
        .at(&[name.to_owned()])
        .or_else(|| claims.at(&crate::verify::field::steps(name)))
}

/// A NumericDate, which may have a fraction.
fn seconds(claim: &Json) -> Option<Timestamp> {
    let Json::Number(digits) = claim else {
        return None;
    };
    let seconds: f64 = digits.parse().ok()?;
    let millis = seconds * 1000.0;
    // Within what a whole number of 64 bits holds without loss.
    (millis.is_finite() && millis.abs() < 9.0e15).then_some(Timestamp::from_millis(millis as i64))
}

fn malformed(what: &str) -> ProofError {
    (OriginFault::MalformedSignature, what.to_owned())
}

fn wrong() -> ProofError {
    (
        OriginFault::WrongSignature,
        "no key of this source makes this token: the key is another, or it was changed".into(),
    )
}
