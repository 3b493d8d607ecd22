//! Mechanism of a scheme: a signature, a token, basic auth, another service, or none.

use super::items::SignedItems;
use super::key_material::SigningMethod;
use super::signed::Signed;
use crate::config::section::nearest;
use crate::config::{Located, Section};
use crate::model::CertificatePattern;
use crate::verify::client_certificate;
use crate::verify::forward_auth::ForwardAuth;
use crate::verify::inputs::SchemeInputs;
use crate::verify::keys::jwt::Jwt;
use crate::verify::keys::mac::Key;
use crate::verify::shared_secret::{Basic, SharedToken};
use crate::verify::signature::places::{SignaturePlace, SignaturePlaces};
use crate::verify::template::parse::TemplateSetup;

/// Mechanism that proves a request, with its keys.
#[derive(Debug)]
pub(crate) enum Mechanism {
    /// A digest or a signature over a text of the request.
    Signed(Box<Signed>),
    /// A signed token with claims.
    Jwt(Box<Jwt>),
    /// A shared token; once per item where there is a list.
    Token(SharedToken, Option<SignedItems>),
    /// HTTP basic auth.
    Basic(Basic),
    /// The client certificate of the connection.
    Certificate(Vec<Located<CertificatePattern>>),
    /// Another service judges.
    Ask(Box<ForwardAuth>),
    /// No check at all.
    Open,
}

/// The words of `scheme`.
const SCHEMES: [&str; 12] = [
    "hmac",
    "hash",
    "ed25519",
    "ecdsa-p256",
    "rsa-pkcs1",
    "rsa-pss",
    "jwt",
    "token",
    "basic",
    "client-cert",
    "ask",
    "none",
];

impl Mechanism {
    /// Reads `scheme` and the keys that belong to it.
    pub(super) fn read(
        section: &Section<'_>,
        setup: &TemplateSetup<'_>,
        given: &SchemeInputs<'_>,
    ) -> Option<Self> {
        let written = section.text("scheme");
        let word = written.as_ref().map_or("hmac", |word| word.value.as_str());
        if let Some(method) = SigningMethod::read(word, section) {
            let signed = Signed::read(method, section, setup, given)?;
            return Some(Self::Signed(Box::new(signed)));
        }
        match word {
            "jwt" => Some(Self::Jwt(Box::new(Jwt::read(section, setup, given)?))),
            "token" => Self::token(section, setup, given),
            "basic" => Self::basic(section, given),
            "client-cert" => client_certificate::read(section, given).map(Self::Certificate),
            "ask" => Some(Self::Ask(Box::new(ForwardAuth::read(section, given)?))),
            "none" => Some(Self::Open),
            _ => {
                unknown(word, written.as_ref(), section);
                None
            }
        }
    }

    fn token(
        section: &Section<'_>,
        setup: &TemplateSetup<'_>,
        given: &SchemeInputs<'_>,
    ) -> Option<Self> {
        let places = SignaturePlaces::read(section, setup);
        let each = SignedItems::read(section);
        let keys = given.keys(section, &[]);
        let token = SharedToken {
            places: places?,
            keys: keys?,
        };
        Some(Self::Token(token, each?))
    }

    fn basic(section: &Section<'_>, given: &SchemeInputs<'_>) -> Option<Self> {
        let keys = given.keys(section, &[])?;
        let mut whole = true;
        for (key, secret) in keys.iter().zip(given.secrets) {
            if !key.expose().contains(&b':') {
                whole = false;
                given.problems.error_hint(
                    &secret.place,
                    "a secret for basic auth must hold name and password",
                    "write both with a colon between them: \"name:password\"",
                );
            }
        }
        whole.then_some(Self::Basic(Basic { keys }))
    }

    /// The places where callers show the secret itself.
    pub(crate) fn shown(&self) -> &[SignaturePlace] {
        match self {
            Self::Token(token, _) => token.places.list.as_slice(),
            Self::Jwt(jwt) => jwt.places.list.as_slice(),
            _ => &[],
        }
    }

    /// The shared secrets.
    pub(crate) fn keys(&self) -> &[Key] {
        match self {
            Self::Signed(signed) => signed.keys.secrets(),
            Self::Jwt(jwt) => &jwt.keys,
            Self::Token(token, _) => &token.keys,
            Self::Basic(basic) => &basic.keys,
            Self::Certificate(_) | Self::Ask(_) | Self::Open => &[],
        }
    }
}

/// Reports a scheme that does not exist.
fn unknown(word: &str, written: Option<&Located<String>>, section: &Section<'_>) {
    // The other keys belong to a scheme that is not known, so none of them is an unknown key.
    for (key, _) in section.keys() {
        section.has(key);
    }
    let place = written.map_or(section.place(), |word| &word.place);
    let hint = match nearest(word, SCHEMES.into_iter()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known are {}", SCHEMES.join(", ")),
    };
    let what = format!("no scheme is called \"{}\"", word.escape_debug());
    section.problems().error_hint(place, what, hint);
}
