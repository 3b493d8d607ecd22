//! Resolving a doubt: finding out what became of an earlier attempt that the service may have received.
//!
//! A run that is found is adopted and never run twice. In a conversation the record that is found may be of an earlier
//! message; the two are told apart by their messages and times ([`super::run_identity`]).

use std::time::Duration;

use super::attempt::DeliveryAttempt;
use super::breaker::Sign;
use super::run_identity::{OurMessage, RunOwner, owner_of};
use super::target::Shipment;
use super::verdict::{RestRequest, Verdict, key_refused};
use crate::config::OnUnknown;
use crate::inbox::{InboxError, Next, Turn};
use crate::model::{AttemptResult, Lookup, Run, Timestamp};

/// The time after a doubtful send from which a "not found" of the service is believed: the request may still be on its
/// way through proxies.
const SETTLING: Duration = Duration::from_secs(2);

/// The service's knowledge of a delivery that may have been sent before.
enum EarlierSend {
    /// It ran, or it is running.
    Ran(Run),
    /// It did not run.
    NeverRan,
    /// There is no way to find out; a sentence.
    CannotTell(String),
    /// The service did not answer the question.
    NotAnswered(Unanswered),
    /// The program stops.
    Interrupted,
}

/// A question that was not answered.
struct Unanswered {
    /// A sentence for the operator.
    detail: String,
    /// The sign that this gives about the service.
    sign: Sign,
    /// The rest that the service asked for.
    rest: Option<RestRequest>,
    /// The status with which the service refused the key.
    key_refused: Option<u16>,
}

impl DeliveryAttempt<'_> {
    /// Finds the run of an earlier attempt, if there may be one. Without a run the delivery can be sent.
    pub(super) async fn resolve_doubt(
        &self,
        shipment: &dyn Shipment,
    ) -> Result<Option<Run>, Verdict> {
        let Some(since) = self.claimed.doubt else {
            return Ok(None);
        };
        let on_unknown = self
            .source
            .map_or(OnUnknown::Hold, |source| source.on_unknown);
        match self.earlier_send(shipment, since).await {
            EarlierSend::Ran(run) => Ok(Some(run)),
            EarlierSend::NeverRan => Ok(None),
            EarlierSend::CannotTell(_) if on_unknown == OnUnknown::Retry => Ok(None),
            EarlierSend::CannotTell(detail) => Err(Verdict {
                sign: Sign::Alive,
                ..Verdict::unsent(Next::Unknown, "cannot_tell", detail)
            }),
            EarlierSend::NotAnswered(why) => Err(self.judge_unanswered(why, since)),
            EarlierSend::Interrupted => Err(self.interrupted(Some(since))),
        }
    }

    fn judge_unanswered(&self, why: Unanswered, since: Timestamp) -> Verdict {
        if let Some(status) = why.key_refused.filter(|_| self.uses_gateway_key()) {
            return key_refused(status, &why.detail, Some(since));
        }
        let result = AttemptResult::NotSent(why.detail);
        let mut verdict = Verdict::of_result(result, self.facts(Some(since)), &self.policy());
        if let (Next::Retry { at, .. }, Some(rest)) = (&mut verdict.next, why.rest) {
            *at = (*at).max(self.dispatcher.clock.now() + rest.wait);
        }
        Verdict {
            result: "not_answered",
            sign: why.sign,
            rest: why.rest,
            ..verdict
        }
    }

    async fn earlier_send(&self, shipment: &dyn Shipment, since: Timestamp) -> EarlierSend {
        let settled = SETTLING.saturating_sub(self.dispatcher.clock.now().since(since));
        tokio::select! {
            () = tokio::time::sleep(settled) => {}
            () = self.stopped() => return EarlierSend::Interrupted,
        }
        if !self.has_lease() {
            return EarlierSend::Interrupted;
        }
        let lookup = tokio::select! {
            lookup = shipment.look_up() => lookup,
            () = self.stopped() => return EarlierSend::Interrupted,
        };
        let run = match lookup {
            Lookup::Found(run) => run,
            Lookup::NotFound => return EarlierSend::NeverRan,
            Lookup::Unsupported(why) => return EarlierSend::CannotTell(why),
            Lookup::Failed {
                status,
                detail,
                retry_after,
            } => {
                let asks_for_time = retry_after.is_some();
                return EarlierSend::NotAnswered(Unanswered {
                    detail,
                    sign: if asks_for_time {
                        Sign::Nothing
                    } else {
                        Sign::Failing
                    },
                    rest: RestRequest::of(status, retry_after),
                    // A 403 may be about the record alone.
                    key_refused: status.filter(|status| *status == 401),
                });
            }
        };
        if self.is_surely_ours() {
            return EarlierSend::Ran(run);
        }
        let earlier = match self.earlier_message().await {
            Ok(earlier) => earlier,
            Err(error) => {
                return EarlierSend::NotAnswered(Unanswered {
                    detail: format!("the turn before cannot be read: {error}"),
                    sign: Sign::Nothing,
                    rest: None,
                    key_refused: None,
                });
            }
        };
        match owner_of(&run, earlier.beside(shipment.text(), since)) {
            RunOwner::Ours => EarlierSend::Ran(run),
            RunOwner::Earlier => EarlierSend::NeverRan,
            RunOwner::CannotTell => EarlierSend::CannotTell(
                "the upstream's record of this conversation does not show whether this turn has run"
                    .to_owned(),
            ),
        }
    }

    /// True if a record under the delivery's id cannot be of another message.
    fn is_surely_ours(&self) -> bool {
        let runs_again = self.source.is_some_and(|source| source.retry_failed_runs);
        !self.target.has_record_per_conversation() || (self.claimed.thread.is_none() && !runs_again)
    }

    /// Reads the message of the conversation before this one.
    pub(super) async fn earlier_message(&self) -> Result<EarlierMessage, InboxError> {
        let turn = self.dispatcher.inbox.earlier_turn(self.claimed).await?;
        let text = turn
            .as_ref()
            .map(|turn| self.target.text_of(self.claimed, turn));
        Ok(EarlierMessage {
            turn,
            text: text.unwrap_or_default(),
        })
    }
}

/// The message of a conversation before the delivery's own, where there is one.
pub(super) struct EarlierMessage {
    turn: Option<Turn>,
    text: String,
}

impl EarlierMessage {
    /// Both messages, for telling whose a record is.
    pub(super) fn beside<'a>(&'a self, text: &'a str, not_before: Timestamp) -> OurMessage<'a> {
        let earlier = self.turn.as_ref().map(|turn| (turn, self.text.as_str()));
        OurMessage {
            text,
            not_before,
            earlier,
        }
    }
}
