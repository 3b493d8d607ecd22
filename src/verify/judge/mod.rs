//! Judge: a scheme run over a request, at a given time.
//!
//! The order is fixed: the signature first, over the bytes as they came; then the values that must equal; then the time.
//! An error names the fault, never the value that would have been right.

pub(crate) mod certificate;
pub(crate) mod forward_auth;
pub(crate) mod mark;
pub(crate) mod signed;
pub(crate) mod streamed;
pub(crate) mod tolerance;

use http::header::CONTENT_ENCODING;

use super::client_certificate;
use super::proof_error::{ProofError, missing};
use super::request::RequestTexts;
use super::request::inflate::{self, Compressed};
use super::scheme::Scheme;
use super::scheme::items::each_item;
use super::scheme::mechanism::Mechanism;
use crate::model::{
    OriginFault, Proof, Received, Refusal, Strength, Timestamp, TokenClaims, Verify,
};

impl Verify for Scheme {
    fn claims(&self, received: &Received) -> Option<TokenClaims> {
        match self.way(&RequestTexts::new(received, &self.document)) {
            Ok(Mechanism::Jwt(jwt)) => jwt.claims(received),
            _ => None,
        }
    }

    fn judge(&self, received: &Received, now: Timestamp) -> Result<Proof, Refusal> {
        let request = RequestTexts::new(received, &self.document);
        self.way(&request)
            .and_then(|way| way.prove(&request, now))
            .and_then(|proof| match self.compressed {
                // The kind of a body that is compressed is judged when it is inflated.
                Some(Compressed::AsReceived) if received.headers.contains_key(CONTENT_ENCODING) => {
                    Ok(proof)
                }
                _ => self.bodies.check(received).map(|()| proof),
            })
            .map_err(|(fault, cause)| Refusal::Origin(fault, cause))
    }
}

impl Scheme {
    /// The request with the body that is signed: of a compressed one perhaps what it was before.
    pub(crate) fn opened(&self, mut received: Received) -> Result<Received, Refusal> {
        if self.compressed == Some(Compressed::Inflated)
            && let Some(body) = inflate::inflated(&received.headers, &received.body)?
        {
            received.body = body;
            received.headers.remove(CONTENT_ENCODING);
        }
        Ok(received)
    }

    /// The variant that this request chooses, or the base.
    pub(crate) fn way(&self, request: &RequestTexts<'_>) -> Result<&Mechanism, ProofError> {
        'variants: for (when, way) in &self.variants {
            for (field, want) in when {
                if !want.holds(field, request).map_err(missing)? {
                    continue 'variants;
                }
            }
            return Ok(way);
        }
        Ok(&self.base)
    }
}

impl Mechanism {
    /// Proves a request by this mechanism.
    fn prove(&self, request: &RequestTexts<'_>, now: Timestamp) -> Result<Proof, ProofError> {
        let mut marks = Vec::new();
        let (secret, strength) = match self {
            Self::Open => {
                return Ok(Proof {
                    strength: Strength::None,
                    secret: None,
                    marks: Vec::new(),
                });
            }
            // TLS keeps others from sending it again, so no mark is used up.
            Self::Certificate(accepted) => {
                let shown = request.received.certificate.as_deref();
                let name = client_certificate::accepted_as(accepted, shown)?;
                return Ok(Proof {
                    strength: Strength::Origin,
                    secret: Some(name.to_owned()),
                    marks: Vec::new(),
                });
            }
            Self::Ask(ask) => {
                let cause = format!(
                    "{} was not asked: only a running gateway asks it",
                    ask.told()
                );
                return Err((OriginFault::NotAttempted, cause));
            }
            Self::Basic(basic) => (basic.judge(request)?.name().to_owned(), Strength::Token),
            Self::Token(token, each) => {
                let judge = |item| token.judge(request, item).map(|key| key.name().to_owned());
                (each_item(each.as_ref(), request, judge)?, Strength::Token)
            }
            Self::Signed(signed) => {
                let judge = |item| {
                    let (name, mark) = signed.judge(request, item, now)?;
                    marks.push(mark);
                    Ok(name)
                };
                (
                    each_item(signed.each.as_ref(), request, judge)?,
                    signed.strength,
                )
            }
            Self::Jwt(jwt) => {
                let token = jwt.judge(request, now)?;
                marks.push(jwt.mark(request, &token.signed));
                (token.name, jwt.strength)
            }
        };
        if let Self::Basic(_) | Self::Token(..) = self {
            marks.push(mark::of_shown(request, self.shown()));
        }
        Ok(Proof {
            strength,
            secret: Some(secret),
            marks,
        })
    }
}
