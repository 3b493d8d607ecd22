//! The event that a proved and mapped request is, and a request whose proof is an operator's word.

use super::Source;
use crate::mapping::Mapped;
use crate::model::{DeliveryId, EventId, NewEvent, Proof, Received, Refusal, Strength, Timestamp, Verified, Verify};

impl Source {
    /// The event that a verified and mapped request is.
    pub fn event(&self, verified: &Verified, mapped: Mapped) -> NewEvent {
        let (request, proof) = (verified.request(), verified.proof());
        let id = EventId::new();
        let owed = match mapped.filtered {
            Some(_) => None,
            None => self.config.owed(DeliveryId { event: id, number: 0 }, mapped.thread.as_deref()),
        };
        let kept = self.kept(request);
        NewEvent {
            id,
            source: self.config.name.clone(),
            dedup: mapped.dedup,
            event_type: mapped.event_type,
            received_at: request.at,
            strength: proof.strength,
            secret: proof.secret.clone(),
            filtered: mapped.filtered,
            thread: mapped.thread,
            params: mapped.params,
            request_line: kept.request_line,
            headers: kept.headers,
            body: request.body.clone(),
            most_ahead: self.config.overlap.most_ahead(),
            deliveries: owed.into_iter().collect(),
        }
    }

    /// The event that an operator sends by hand, as this source reads it. It has no double and waits behind any
    /// number of turns: nobody turns an operator away. Whoever calls this knows that it was an operator.
    pub fn event_by_hand(&self, request: Received) -> Result<NewEvent, Refusal> {
        let at = request.at;
        let verified = request.verify(&ByHand, at).map_err(|refused| refused.1)?;
        let mapped = self.mapping.apply(&verified)?;
        Ok(NewEvent { dedup: None, most_ahead: None, ..self.event(&verified, mapped) })
    }
}

/// Lets a request pass on an operator's word.
struct ByHand;

impl Verify for ByHand {
    fn judge(&self, _: &Received, _: Timestamp) -> Result<Proof, Refusal> {
        Ok(Proof { strength: Strength::Operator, secret: None })
    }
}
