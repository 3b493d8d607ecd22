//! Shared tokens and basic auth: the caller shows the secret itself. That proves the sender, and not the body.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;

use crate::model::OriginFault;
use crate::verify::keys::mac::{Key, same};
use crate::verify::proof_error::ProofError;
use crate::verify::request::RequestTexts;
use crate::verify::request::document::Json;
use crate::verify::signature::places::SignaturePlaces;

/// A shared token, shown in the request.
#[derive(Debug)]
pub(crate) struct SharedToken {
    pub(crate) places: SignaturePlaces,
    pub(crate) keys: Vec<Key>,
}

impl SharedToken {
    /// The key that the request shows.
    pub(crate) fn judge(
        &self,
        request: &RequestTexts<'_>,
        item: Option<&Json>,
    ) -> Result<&Key, ProofError> {
        let shown = self.places.texts(request, item)?;
        shown
            .iter()
            .find_map(|shown| shown_key(&self.keys, shown))
            .ok_or_else(|| (OriginFault::WrongSecret, "wrong token".into()))
    }
}

/// Name and password by HTTP basic auth (RFC 7617); a key is the two with a colon between them.
#[derive(Debug)]
pub(crate) struct Basic {
    pub(crate) keys: Vec<Key>,
}

impl Basic {
    /// The key that the request shows.
    pub(crate) fn judge(&self, request: &RequestTexts<'_>) -> Result<&Key, ProofError> {
        let malformed = |cause: &str| (OriginFault::MalformedSignature, cause.to_owned());
        let mut lines = request.header_lines(&AUTHORIZATION);
        let line = match (lines.next(), lines.next()) {
            (Some(line), None) if !line.is_empty() => line,
            (Some(_), Some(_)) => {
                return Err(malformed("the header authorization is there twice"));
            }
            _ => {
                return Err((
                    OriginFault::MissingSignature,
                    "there are no credentials".into(),
                ));
            }
        };
        let (_, encoded) = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.split_once(' '))
            .filter(|(kind, _)| kind.eq_ignore_ascii_case("basic"))
            .ok_or_else(|| malformed("the credentials are not of the kind Basic"))?;
        let shown = BASE64_STANDARD
            .decode(encoded.trim())
            .map_err(|_| malformed("the credentials are not written as base64"))?;
        shown_key(&self.keys, &shown).ok_or_else(|| {
            (
                OriginFault::WrongSecret,
                "wrong user name or password".into(),
            )
        })
    }
}

/// The key that is this very value. Every key is compared, whichever matches.
fn shown_key<'k>(keys: &'k [Key], shown: &[u8]) -> Option<&'k Key> {
    keys.iter().fold(None, |found, key| {
        if same(key.expose(), shown) {
            Some(key)
        } else {
            found
        }
    })
}
