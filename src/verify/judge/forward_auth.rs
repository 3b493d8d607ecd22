//! Proof of a request by the answer of another service.

use http::Uri;

use super::mark::MarkBuilder;
use crate::model::{
    OriginFault, Proof, Received, Refusal, Strength, Timestamp, TokenClaims, Verify,
};
use crate::verify::forward_auth::ForwardAuth;
use crate::verify::scheme::Scheme;
use crate::verify::scheme::mechanism::Mechanism;

/// Verdict of a service, in the form that a request is proved by.
pub(crate) struct ForwardAuthProof<'s> {
    pub(crate) scheme: &'s Scheme,
    pub(crate) said: Option<Result<(), String>>,
}

impl Verify for ForwardAuthProof<'_> {
    fn judge(&self, received: &Received, now: Timestamp) -> Result<Proof, Refusal> {
        match &self.said {
            None => self.scheme.judge(received, now),
            Some(Err(cause)) => Err(Refusal::Origin(OriginFault::WrongSignature, cause.clone())),
            Some(Ok(())) => {
                self.scheme
                    .bodies
                    .check(received)
                    .map_err(|(fault, cause)| Refusal::Origin(fault, cause))?;
                let mut marking = MarkBuilder::of_shown(received, &[]);
                marking.take(&received.body);
                Ok(Proof {
                    strength: Strength::Asked,
                    secret: None,
                    marks: vec![marking.end()],
                })
            }
        }
    }

    fn claims(&self, received: &Received) -> Option<TokenClaims> {
        self.scheme.claims(received)
    }
}

impl Scheme {
    /// The service that judges its requests; none where the scheme judges them itself.
    pub(crate) fn asks(&self) -> Option<&ForwardAuth> {
        match &self.base {
            Mechanism::Ask(ask) => Some(ask),
            _ => None,
        }
    }

    /// The address of the service that judges its requests; none where the scheme judges them itself.
    pub fn judge_address(&self) -> Option<&Uri> {
        self.asks().map(|ask| &ask.url)
    }
}
