//! Signing: a scheme run backwards, so that a request is signed the way its provider would sign it.
//!
//! For the demo, for tests and for trying out. A signature can be put wherever it can be found: in headers, the query,
//! the form, the document. A value that the signed text asks for and the request lacks, such as an id in a header, is
//! made up.

mod draft;
mod jwt;
mod signed;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use self::draft::{Draft, header_value};
use super::keys::jwt::JwtAlgorithm;
use super::keys::mac::Key;
use super::keys::pair::KeyPair;
use super::keys::public::{PublicKeyAlgorithm, PublicKeyEncoding};
use super::request::RequestTexts;
use super::request::document::Json;
use super::request::field::DocumentPlace;
use super::scheme::Scheme;
use super::scheme::items::SignedItems;
use super::scheme::key_material::KeyMaterial;
use super::scheme::mechanism::Mechanism;
use crate::model::{Received, Timestamp, Verify as _};

/// Key that a request is signed with.
#[derive(Clone, Copy, Debug)]
pub enum Signer<'k> {
    /// The secret of this number, from 0.
    Secret(usize),
    /// A key pair.
    Pair(&'k KeyPair),
}

impl<'k> Signer<'k> {
    /// The secret to sign with, out of these; none for a key pair.
    fn secret<'s>(&self, keys: &'s [Key]) -> Result<Option<&'s Key>, String> {
        match self {
            Self::Secret(number) => keys
                .get(*number)
                .map(Some)
                .ok_or_else(|| format!("there is no secret number {}", number + 1)),
            Self::Pair(_) => Ok(None),
        }
    }

    /// The key pair to sign with, where it is one.
    const fn pair(&self) -> Option<&'k KeyPair> {
        match self {
            Self::Secret(_) => None,
            Self::Pair(pair) => Some(pair),
        }
    }
}

impl Scheme {
    /// The headers that sign a request as this provider would, with the secret of this number. An error: the signature
    /// cannot be made, or does not stand in headers.
    pub fn sign(
        &self,
        secret: usize,
        request: &Received,
        now: Timestamp,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let signed = self.signed(Signer::Secret(secret), request, now)?;
        if signed.body != request.body || signed.target != request.target {
            return Err("this signature does not stand in a header".into());
        }
        let new = signed
            .headers
            .iter()
            .filter(|(name, value)| request.headers.get(*name) != Some(*value));
        Ok(new
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect())
    }

    /// The request as this provider would send it. An error gives the reason why it cannot be made.
    pub fn signed(
        &self,
        by: Signer<'_>,
        request: &Received,
        now: Timestamp,
    ) -> Result<Received, String> {
        let way = self
            .way(&RequestTexts::new(request, &self.document))
            .map_err(|(_, cause)| cause)?;
        let mut draft = Draft::new(request.clone(), &self.document);
        match way {
            // Only the operator knows what the service wants to see.
            Mechanism::Open | Mechanism::Certificate(_) | Mechanism::Ask(_) => {}
            Mechanism::Basic(basic) => {
                let value = format!("Basic {}", BASE64_STANDARD.encode(shown(by, &basic.keys)?));
                let value = header_value(value.as_bytes())?;
                draft.request.headers.insert(AUTHORIZATION, value);
            }
            Mechanism::Token(token, each) => {
                let prefix = token.places.prefix.as_bytes();
                let value = token
                    .places
                    .wrapped(&[prefix, shown(by, &token.keys)?].concat());
                for item in items(each.as_ref(), &draft.request, &self.document)? {
                    draft.item = item;
                    draft.put_first(&token.places, &value)?;
                }
            }
            Mechanism::Signed(signed) => {
                for item in items(signed.each.as_ref(), &draft.request, &self.document)? {
                    draft.item = item;
                    signed.sign(by, &mut draft, now)?;
                }
            }
            Mechanism::Jwt(jwt) => jwt.sign(by, &mut draft, now)?,
        }
        let request = draft.request;
        // A signature inside the signed text cannot be made: the error is better here than at the receiver.
        // The judgement of another service is known to a running gateway only.
        if matches!(by, Signer::Secret(_)) && !matches!(way, Mechanism::Ask(_)) {
            self.judge(&request, now)
                .map_err(|refusal| format!("it cannot be signed so: {}", refusal.cause()))?;
        }
        Ok(request)
    }

    /// The algorithm of its key pair, and the encoding of the public key; none for schemes with a shared secret.
    fn pair(&self) -> Option<(PublicKeyAlgorithm, PublicKeyEncoding)> {
        match &self.base {
            Mechanism::Signed(signed) => match &signed.keys {
                KeyMaterial::Public(public) => Some((public.algorithm, public.encoding)),
                KeyMaterial::Hmac(_) | KeyMaterial::Plain(_) => None,
            },
            Mechanism::Jwt(jwt) if jwt.keys.is_empty() => {
                jwt.ways.iter().find_map(|(_, algorithm)| match algorithm {
                    JwtAlgorithm::Pair(algorithm, _) => Some((*algorithm, jwt.notation)),
                    JwtAlgorithm::Hmac(_) => None,
                })
            }
            _ => None,
        }
    }

    /// True if it has a key pair and no shared secret.
    pub fn has_key_pair(&self) -> bool {
        self.pair().is_some()
    }

    /// The kind of private key that signs for it, in words; none where it has a shared secret.
    pub fn private_key(&self) -> Option<&'static str> {
        self.pair().map(|(algorithm, _)| algorithm.private_key())
    }

    /// Makes a key pair for it.
    pub fn make_pair(&self) -> Result<KeyPair, String> {
        let (kind, _) = self.pair().ok_or(NO_PAIR)?;
        KeyPair::make(kind)
    }

    /// The public key of a pair, as this provider would show it.
    pub fn public_key(&self, pair: &KeyPair, now: Timestamp) -> Result<String, String> {
        let (_, notation) = self.pair().ok_or(NO_PAIR)?;
        pair.public(notation, now)
    }
}

const NO_PAIR: &str = "this scheme has a shared secret and no key pair";

/// The secret that a request shows itself.
fn shown<'k>(by: Signer<'_>, keys: &'k [Key]) -> Result<&'k [u8], String> {
    by.secret(keys)?
        .map(Key::expose)
        .ok_or_else(|| NO_PAIR.to_owned())
}

/// The paths of the items that are signed one by one; the empty path for a request that is signed as a whole.
fn items(
    each: Option<&SignedItems>,
    request: &Received,
    document: &DocumentPlace,
) -> Result<Vec<Vec<String>>, String> {
    let Some(each) = each else {
        return Ok(vec![Vec::new()]);
    };
    let request = RequestTexts::new(request, document);
    let Some(Json::List(list)) = request.json()?.at(&each.list) else {
        return Err("the body lacks the list whose items are signed".into());
    };
    Ok((0..list.len())
        .map(|at| [each.list.clone(), vec![at.to_string()], each.rest.clone()].concat())
        .collect())
}
