//! Signed tokens (RFC 7515, RFC 7519): compact, of bounded length, by the algorithms that the provider's file names.
//!
//! The header of a token is compared with the file, never followed. A key that was read as a public key proves no HMAC,
//! and a shared secret proves nothing else, whatever a token asks for. The body is proved only where a claim holds its
//! digest, where it is the signed payload itself, or where it is the token.

mod claims;
mod read;

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::mac::{Algorithm, Key, same};
use super::public::{PublicKey, PublicKeyAlgorithm, PublicKeyEncoding};
use crate::model::{OriginFault, Received, Strength, Timestamp, TokenClaims};
use crate::verify::challenge::signing_oracle::{self, SigningOracle};
use crate::verify::proof_error::{ProofError, malformed, missing};
use crate::verify::request::RequestTexts;
use crate::verify::request::document::Json;
use crate::verify::request::field::{DocumentPlace, Field};
use crate::verify::signature::places::{SignaturePlace, SignaturePlaces};
use crate::verify::template::ContentTemplate;
use crate::verify::template::render::Context;

/// The longest token that stands in a header or a field.
const LONGEST: usize = 16 * 1024;

/// The longest token that is the whole body.
const LONGEST_BODY: usize = 2 * 1024 * 1024;

/// A way to sign a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JwtAlgorithm {
    Hmac(Algorithm),
    Pair(PublicKeyAlgorithm, Algorithm),
}

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
    /// The texts that handshakes have signed with the same secrets for any caller.
    pub(crate) asked: Vec<SigningOracle>,
}

/// A token, taken apart and not verified yet.
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
    /// The name of the key that made it.
    pub(crate) name: String,
    /// The digest of the signed text.
    pub(crate) signed: [u8; 32],
}

impl Jwt {
    /// Proves the token.
    pub(crate) fn judge(
        &self,
        request: &RequestTexts<'_>,
        now: Timestamp,
    ) -> Result<ProvedToken, ProofError> {
        let texts = self.places.texts(request, None)?;
        let [text] = texts.as_slice() else {
            return Err(malformed("there is more than one token"));
        };
        let token = self.take_apart(text)?;
        let mut context = Context::new(request);
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
        let signed = self.signed_text(&token, request)?;
        let (name, key) = self.key(&token, &signed, now)?;
        context.key = key;
        signing_oracle::refuse(&self.asked, &signed)?;
        if !self.detached {
            let claims = Json::parse(&token.payload)
                .map_err(|_| malformed("the token's claims are not JSON"))?;
            self.hold(&claims, &context, now)?;
        }
        Ok(ProvedToken {
            name,
            signed: Sha256::digest(&signed).into(),
        })
    }

    /// The text that the token's signature is over; of a detached one it has the body in it.
    fn signed_text<'t>(
        &self,
        token: &UnverifiedToken<'t>,
        request: &RequestTexts<'_>,
    ) -> Result<Cow<'t, [u8]>, ProofError> {
        if !self.detached {
            return Ok(Cow::Borrowed(token.signed));
        }
        let body = &request.received.body;
        let (head, _) =
            split(token.signed).ok_or_else(|| malformed("the token has not three parts"))?;
        Ok(Cow::Owned(if token.encoded {
            let body = BASE64_URL_SAFE_NO_PAD.encode(body);
            [head, b".", body.as_bytes()].concat()
        } else {
            [head, b".", body].concat()
        }))
    }

    /// The claims of a token that was found good.
    pub(crate) fn claims(&self, received: &Received) -> Option<TokenClaims> {
        if self.detached {
            return None;
        }
        let request = RequestTexts::new(received, &DocumentPlace::Body);
        let texts = self.places.texts(&request, None).ok()?;
        let [text] = texts.as_slice() else {
            return None;
        };
        let is_body = self.is_body();
        Some(TokenClaims {
            json: self.take_apart(text).ok()?.payload.into(),
            is_body,
        })
    }

    /// True if the token is the body.
    pub(crate) fn is_body(&self) -> bool {
        matches!(
            self.places.list.as_slice(),
            [SignaturePlace::Field(Field::Body)]
        )
    }

    fn take_apart<'t>(&self, text: &'t [u8]) -> Result<UnverifiedToken<'t>, ProofError> {
        let whole = self.is_body();
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
            Json::parse(&decode(head)?).map_err(|_| malformed("the token's header is not JSON"))?;
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
            return Err(malformed(
                "the token needs an extension that is not supported",
            ));
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
}

/// Everything before the last dot, and what stands behind it.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().rposition(|byte| *byte == b'.')?;
    Some((&text[..at], &text[at + 1..]))
}

fn wrong() -> ProofError {
    (
        OriginFault::WrongSignature,
        "no key of this source makes this token: the key is another, or it was changed".into(),
    )
}
