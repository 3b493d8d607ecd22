//! Proof of requests that carry no signature: the only maker of a [`Verified`] beside a source's own check.

use crate::model::{Proof, Received, Refusal, Strength, Timestamp, Verified, Verify};

/// Grounds on which a request without a signature counts as proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The request was read from the provider's own API, under the operator's token of this name.
    Fetched {
        /// The name of the token, never its value.
        token: String,
    },
    /// An operator sent the request by hand, or has it mapped again after it was proved and kept.
    Operator,
}

impl Trust {
    /// Vouches for a request. Its own time is the time of the proof.
    pub fn vouch_for(self, request: Received) -> Result<Verified, Refusal> {
        let at = request.at;
        request.verify(&self, at).map_err(|refused| refused.1)
    }
}

impl Verify for Trust {
    fn judge(&self, _: &Received, _: Timestamp) -> Result<Proof, Refusal> {
        let (strength, secret) = match self {
            Self::Fetched { token } => (Strength::Fetched, Some(token.clone())),
            Self::Operator => (Strength::Operator, None),
        };
        Ok(Proof {
            strength,
            secret,
            marks: Vec::new(),
        })
    }
}
