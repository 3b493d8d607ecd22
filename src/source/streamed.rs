//! The check of a request whose body is not held, with the scheme that holds at that time.

use std::sync::Arc;

use super::Source;
use super::proof::ObserveOnly;
use crate::config::SourceConfig;
use crate::model::{Received, Refusal, Verified};
use crate::verify::{Scheme, StreamedCheck};

/// A check under way.
pub struct Streamed {
    /// The scheme that was made since the start, where a handshake brought a secret.
    brought: Option<Arc<(Scheme, SourceConfig)>>,
    check: StreamedCheck,
}

impl Streamed {
    /// Takes the next bytes of the body.
    pub fn take(&mut self, piece: &[u8]) {
        self.check.take(piece);
    }
}

impl Source {
    /// Begins to check a request by its head; its body is still empty. None: the check needs the whole body. An error is a
    /// refusal that no body can avert.
    pub fn streamed(&self, head: &Received) -> Option<Result<Streamed, Refusal>> {
        let brought = self
            .enrolment
            .as_ref()
            .and_then(|enrolment| enrolment.now.load_full());
        let scheme = brought
            .as_ref()
            .map_or_else(|| self.scheme_at(head.at), |brought| &brought.0);
        if let Err((fault, cause)) = scheme.bodies.check_head(head)
            && self.config.enforce
        {
            return Some(Err(self.rejected(Refusal::Origin(fault, cause))));
        }
        let check = scheme.begin(head)?;
        Some(match check.hopeless() {
            Some(refusal) if self.config.enforce => Err(self.rejected(refusal)),
            _ => Ok(Streamed { brought, check }),
        })
    }

    /// Proves the origin of a request whose body has been fed, or refuses it. The request is the one that the check began
    /// with, its body still empty.
    pub fn verify_streamed(
        &self,
        streamed: Streamed,
        received: Received,
    ) -> Result<Verified, Box<(Received, Refusal)>> {
        let scheme = streamed
            .brought
            .as_ref()
            .map_or_else(|| self.scheme_at(received.at), |brought| &brought.0);
        let now = received.at;
        let ended = streamed.check.end(scheme, &received);
        let verified = match self.config.enforce {
            true => received.verify(&ended, now),
            false => received.verify(&ObserveOnly(&ended), now),
        };
        verified.map_err(|mut refused| {
            refused.1 = self.rejected(refused.1);
            refused
        })
    }
}
