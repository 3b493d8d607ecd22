//! Proof of a request at its source: preparation, challenges, the judgement, and the status of a refusal.

use http::Method;

use super::{Source, WebClient};
use crate::model::{Proof, Received, Refusal, Strength, Timestamp, TokenClaims, Verified, Verify};
use crate::verify::{ChallengeResponse, ForwardAuthProof, Prepared, Scheme, inflated_body};

impl Source {
    /// The scheme at a moment: secrets end.
    pub(super) fn scheme_at(&self, now: Timestamp) -> &Scheme {
        let later = self.later.iter().rev().find(|(from, _)| *from <= now);
        later.map_or(&self.scheme, |(_, scheme)| scheme)
    }

    /// The request with the body that is signed: of a compressed one perhaps what it was before.
    pub fn opened(&self, received: Received) -> Result<Received, Refusal> {
        self.scheme.opened(received)
    }

    /// Prepares the judgement of a request: fetches the certificate that it names, or asks the service that judges it.
    pub async fn prepare(
        &self,
        received: &Received,
        web: &dyn WebClient,
        now: Timestamp,
    ) -> Result<Prepared, Refusal> {
        let scheme = self.scheme_at(now);
        let prepared = match scheme.asks() {
            // Only a POST brings an event.
            Some(service) if received.method == Method::POST => {
                self.questions.judgement(service, received, web).await
            }
            _ => self
                .fetches
                .fetch_wanted(scheme, received, web, now)
                .await
                .map(|()| Prepared::default()),
        };
        match prepared {
            Err(refusal) if self.config.enforce => Err(self.rejected(refusal)),
            Err(_) => Ok(Prepared::default()),
            prepared => prepared,
        }
    }

    /// Answers a provider's challenge. None: the request is not a challenge and goes on. Only a POST can go on; any other
    /// method is refused.
    pub fn handshake(
        &self,
        received: &Received,
        now: Timestamp,
    ) -> Option<Result<ChallengeResponse, Refusal>> {
        let brought = self
            .enrolment
            .as_ref()
            .map(|enrolment| enrolment.now.load());
        let scheme = brought
            .as_ref()
            .and_then(|now| now.as_deref())
            .map_or_else(|| self.scheme_at(now), |(scheme, _)| scheme);
        let met = self
            .challenges
            .iter()
            .find_map(|challenge| challenge.answer(received, scheme, now));
        match met {
            None if received.method != Method::POST => Some(Err(Refusal::Method(self.allow()))),
            None => None,
            Some(Err(refusal)) => Some(Err(self.rejected(refusal))),
            Some(Ok(met)) => Some(match met.secret {
                None => Ok(met.answer),
                Some(secret) => self
                    .enrol(scheme, received, &secret, now)
                    .map(|()| met.answer),
            }),
        }
    }

    /// Proves the origin of a request, or refuses it. A source that does not enforce lets every request pass, with the
    /// fault noted in its proof.
    pub fn verify(
        &self,
        received: Received,
        now: Timestamp,
    ) -> Result<Verified, Box<(Received, Refusal)>> {
        let brought = self
            .enrolment
            .as_ref()
            .map(|enrolment| enrolment.now.load());
        let scheme = brought
            .as_ref()
            .and_then(|now| now.as_deref())
            .map_or_else(|| self.scheme_at(now), |(scheme, _)| scheme);
        let verified = if self.config.enforce {
            received.verify(scheme, now)
        } else {
            received.verify(&ObserveOnly(scheme), now)
        };
        self.ended(scheme, verified)
    }

    /// Proves a request that was prepared; see [`Source::prepare`]. The headers that another service answered with take the
    /// place of the sender's.
    pub fn verify_prepared(
        &self,
        mut received: Received,
        prepared: Prepared,
        now: Timestamp,
    ) -> Result<Verified, Box<(Received, Refusal)>> {
        let scheme = self.scheme_at(now);
        let Some(ask) = scheme.asks() else {
            return self.verify(received, now);
        };
        ask.strip(&mut received.headers);
        let (said, headers) = prepared.said();
        received.headers.extend(headers);
        let told = ForwardAuthProof { scheme, said };
        let verified = if self.config.enforce {
            received.verify(&told, now)
        } else {
            received.verify(&ObserveOnly(&told), now)
        };
        self.ended(scheme, verified)
    }

    fn ended(
        &self,
        scheme: &Scheme,
        verified: Result<Verified, Box<(Received, Refusal)>>,
    ) -> Result<Verified, Box<(Received, Refusal)>> {
        match verified {
            Ok(verified) => inflated(scheme, verified, self.config.enforce),
            Err(mut refused) => {
                refused.1 = self.rejected(refused.1);
                Err(refused)
            }
        }
    }

    /// A refusal with the status that the provider wants.
    pub(super) fn rejected(&self, refusal: Refusal) -> Refusal {
        match (self.scheme.reject_status, &refusal) {
            (Some(status), Refusal::Origin(..)) => refusal.answered(status),
            _ => refusal,
        }
    }
}

/// Proof that lets every request pass and notes the fault.
pub(super) struct ObserveOnly<'s, V>(pub(super) &'s V);

impl<V: Verify> Verify for ObserveOnly<'_, V> {
    fn judge(&self, received: &Received, now: Timestamp) -> Result<Proof, Refusal> {
        match self.0.judge(received, now) {
            Err(Refusal::Origin(fault, _)) => Ok(Proof {
                strength: Strength::Observed(fault),
                secret: None,
                marks: Vec::new(),
            }),
            judged => judged,
        }
    }

    fn claims(&self, received: &Received) -> Option<TokenClaims> {
        self.0.claims(received)
    }
}

/// The proved request with the body as it was before compression.
fn inflated(
    scheme: &Scheme,
    verified: Verified,
    enforce: bool,
) -> Result<Verified, Box<(Received, Refusal)>> {
    if scheme.compressed.is_none() {
        return Ok(verified);
    }
    match inflated_body(&verified.request().headers, &verified.request().body) {
        Ok(Some(body)) => {
            let verified = verified.with_body(body);
            match scheme.bodies.check(verified.request()) {
                Err((fault, cause)) if enforce => Err(Box::new((
                    verified.into_parts().0,
                    Refusal::Origin(fault, cause),
                ))),
                _ => Ok(verified),
            }
        }
        Ok(None) => Ok(verified),
        Err(refusal) => Err(Box::new((verified.into_parts().0, refusal))),
    }
}
