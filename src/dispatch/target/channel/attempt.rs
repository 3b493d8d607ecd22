//! One attempt of a reply: it makes at most one call, and says how far the reply has come.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use super::super::Advance;
use super::pace::PaceWait;
use super::{ChannelTarget, SourceSecrets, parts};
use crate::channel::{
    CallContext, CallEnd, CallMessage, CallOf, ChannelAnswer, ChannelCall, ChannelReply, CheckEnd,
    NextStep, PaceLimit, PartState, SideEffects, SourceChannel, WaitScope,
};
use crate::config::reply::{QuoteRule, SourceReply};
use crate::inbox::{Answer, Next};
use crate::model::Timestamp;
use crate::net::SendError;

/// Longest time for one call to a channel.
pub(super) const CALL_TIME: Duration = Duration::from_secs(30);

/// Largest answer of a channel that is read.
pub(super) const MAX_ANSWER: u64 = 1 << 20;

/// Most decisions of one attempt that make no call, such as parts that are cut smaller.
const MAX_STEPS: u32 = 64;

/// Time for which calls with a token that was refused rest.
const ALARM_REST: Duration = Duration::from_secs(300);

/// One attempt of a reply.
pub(super) struct ReplyAttempt<'a> {
    pub(super) target: &'a ChannelTarget,
    pub(super) source: &'a str,
    pub(super) rules: Option<&'a SourceReply>,
    pub(super) channel: &'a Arc<SourceChannel>,
    pub(super) secrets: &'a SourceSecrets,
    pub(super) reply: ChannelReply,
}

/// The answer of a channel to one call, or the error by which no answer came.
struct Exchange {
    end: Result<http::Response<Bytes>, SendError>,
    shown: String,
}

impl ReplyAttempt<'_> {
    /// Brings the reply forward by at most one call.
    pub(super) async fn run(mut self, doubt: Option<Timestamp>) -> Advance {
        if let Some(since) = doubt.filter(|_| !self.reply.is_in_flight()) {
            // The process ended between the claim and the settlement: the call may have been made.
            let step = self.next(since);
            self.reply.begin(&step, &self.channel.spec, since);
        }
        for _ in 0..MAX_STEPS {
            let now = self.target.clock.now();
            match self.next(now) {
                NextStep::Smaller { part, length } => self.cut(part, length),
                step @ (NextStep::Send { .. } | NextStep::Edit { .. }) => {
                    if let Some(wait) = self.target.paces.wait(self.source, &self.limits()) {
                        return self.paced(wait, now);
                    }
                    return self.send(step, now).await;
                }
                NextStep::Check { key, since } => return self.check(key, since).await,
                step => return self.ended(&step, None),
            }
        }
        Advance::dead(
            "too_many_steps",
            "the reply does not come to a call".to_owned(),
        )
    }

    fn next(&mut self, now: Timestamp) -> NextStep {
        self.reply
            .next(&self.channel.spec, self.channel.policy, now)
    }

    fn limits(&self) -> Vec<PaceLimit> {
        self.channel.spec.pace(self.reply.address())
    }

    fn cut(&mut self, part: usize, length: usize) {
        let source = self.reply.source(part).unwrap_or_default().to_owned();
        let pieces = parts::smaller(&self.channel.spec, self.rules, &source, length);
        self.reply.replace(part, pieces);
    }

    /// Makes the call of a step, and records its end.
    async fn send(mut self, step: NextStep, now: Timestamp) -> Advance {
        let (of, range, key, sent) = match &step {
            NextStep::Send { way, parts, key } => (CallOf::Send(*way), parts.clone(), *key, None),
            NextStep::Edit { part, sent, key } => {
                (CallOf::Edit, *part..part + 1, *key, Some(sent.clone()))
            }
            _ => return self.ended(&step, None),
        };
        let first = range.start;
        let outgoing = self.reply.outgoing(range);
        let message = CallMessage {
            parts: &outgoing,
            first,
            total: self.reply.states().len(),
            key: Some(key),
            sent: sent.as_ref(),
            quotes: self.quotes(first),
            since: None,
        };
        let call = self.channel.spec.call(of, &self.context(now), message);
        self.reply.begin(&step, &self.channel.spec, now);
        let call = match call {
            Ok(call) => call,
            Err(error) => {
                let effects = self.reply.end(CallEnd::Impossible("call".to_owned()), now);
                return self.settled("impossible", None, error.to_string(), &effects);
            }
        };
        let exchange = self.exchange(call).await;
        let now = self.target.clock.now();
        let (end, status, detail) = self.judged(&exchange, now);
        let result = match &end {
            CallEnd::Answered(judgement) if judgement.code.is_empty() => "sent",
            CallEnd::Answered(_) => "refused",
            CallEnd::NotSent => "not_sent",
            CallEnd::Broken | CallEnd::Impossible(_) => "ambiguous",
        };
        let effects = self.reply.end(end, now);
        self.settled(result, status, detail, &effects)
    }

    /// Asks the channel for a message that may have been sent.
    async fn check(mut self, key: uuid::Uuid, since: Timestamp) -> Advance {
        let now = self.target.clock.now();
        let message = CallMessage {
            key: Some(key),
            since: Some(since),
            ..CallMessage::default()
        };
        let spec = &self.channel.spec;
        let call = match spec.call(CallOf::Check, &self.context(now), message) {
            Ok(call) => call,
            Err(error) => {
                // A question that cannot be asked has no answer, so that the doubt comes to an end.
                self.reply.checked(CheckEnd::Unreadable, now);
                let effects = SideEffects::default();
                return self.settled("not_asked", None, error.to_string(), &effects);
            }
        };
        let exchange = self.exchange(call).await;
        let end = match &exchange.end {
            Ok(answer) => {
                let answer = answer_of(answer);
                spec.checked(&answer, &self.context(now), message)
            }
            Err(_) => CheckEnd::Unreadable,
        };
        let answer = exchange.end.as_ref().ok();
        let status = answer.map(|answer| answer.status().as_u16());
        self.reply.checked(end, self.target.clock.now());
        self.settled("asked", status, exchange.shown, &SideEffects::default())
    }

    fn context(&self, now: Timestamp) -> CallContext<'_> {
        CallContext {
            address: self.reply.address(),
            without: self.reply.without(),
            values: &self.channel.values,
            secrets: self.secrets.exposed(),
            event_id: self.reply.event_id(),
            status: self.reply.status(),
            now,
        }
    }

    /// True if a part refers to the message that it answers.
    fn quotes(&self, part: usize) -> bool {
        match self.rules.and_then(|rules| rules.quote) {
            Some(QuoteRule::All) => true,
            Some(QuoteRule::Never) => false,
            Some(QuoteRule::First) | None => part == 0,
        }
    }

    async fn exchange(&self, call: ChannelCall) -> Exchange {
        let ChannelCall {
            method,
            url,
            headers,
            body,
            shown,
        } = call;
        let end = match Request::builder().method(method).uri(url).body(body) {
            Ok(mut request) => {
                request.headers_mut().extend(headers);
                self.target
                    .client
                    .send(request, CALL_TIME, MAX_ANSWER)
                    .await
            }
            Err(_) => Err(SendError::NotSent("its address is not valid".to_owned())),
        };
        Exchange { end, shown }
    }

    fn judged(&self, exchange: &Exchange, now: Timestamp) -> (CallEnd, Option<u16>, String) {
        let shown = &exchange.shown;
        match &exchange.end {
            Ok(answer) => {
                let judgement = self.channel.spec.judge(&answer_of(answer), now);
                let words = match (&*judgement.code, judgement.error.as_deref()) {
                    ("", _) => shown.clone(),
                    (code, None) => format!("{shown}: {code}"),
                    (code, Some(error)) => format!("{shown}: {code}: {error}"),
                };
                let status = Some(answer.status().as_u16());
                (CallEnd::Answered(judgement), status, words)
            }
            Err(SendError::NotSent(_)) => {
                (CallEnd::NotSent, None, format!("{shown}: no connection"))
            }
            Err(SendError::TooLarge { status, .. }) => {
                let words = format!("{shown}: the answer is too large");
                (CallEnd::Broken, Some(status.as_u16()), words)
            }
            // The address stands in the words of the client, and may hold a token.
            Err(SendError::Ambiguous(_)) => {
                let words = format!("{shown}: sent, and the answer did not come");
                (CallEnd::Broken, None, words)
            }
        }
    }

    /// The settlement after a call: the reply is done, or goes on.
    fn settled(
        mut self,
        result: &'static str,
        status: Option<u16>,
        detail: String,
        effects: &SideEffects,
    ) -> Advance {
        let now = self.target.clock.now();
        let step = self.next(now);
        let rest = effects
            .rest
            .and_then(|(scope, until)| (scope == WaitScope::Token).then(|| until.since(now)));
        if let Some(code) = &effects.alarm {
            tracing::error!(
                source = self.source,
                code,
                "the channel refuses the token of this source: replies are held; give the source a valid token and reload"
            );
        }
        let rest = rest.or(effects.alarm.as_ref().map(|_| ALARM_REST));
        let told = Told {
            result,
            status,
            detail,
        };
        Advance {
            rest,
            ..self.ended(&step, Some(told))
        }
    }

    /// The settlement for a call that has to wait for its rate. All that share the rate of a token wait with it.
    fn paced(&self, wait: PaceWait, now: Timestamp) -> Advance {
        Advance {
            next: retry(now + wait.time),
            result: "paced",
            status: None,
            detail: String::new(),
            progress: self.payload(),
            rest: (wait.scope == WaitScope::Token).then_some(wait.time),
        }
    }

    /// The settlement for a step that is not made in this attempt.
    fn ended(&self, step: &NextStep, told: Option<Told>) -> Advance {
        let now = self.target.clock.now();
        let told_result = told.as_ref().map(|told| told.result);
        let (next, result) = match step {
            NextStep::Done => (Next::Delivered(sent_answer(&self.reply)), "sent"),
            NextStep::Unknown => (Next::Unknown, "unknown"),
            NextStep::Dead(_) => (Next::Dead(None), "refused"),
            NextStep::WaitUntil(at) | NextStep::AwaitProof { until: at } => {
                (retry(*at), told_result.unwrap_or("waits"))
            }
            NextStep::Send { .. }
            | NextStep::Edit { .. }
            | NextStep::Check { .. }
            | NextStep::Smaller { .. } => (retry(now), told_result.unwrap_or("waits")),
        };
        let code = match step {
            NextStep::Dead(code) => code.clone(),
            _ => String::new(),
        };
        let (status, detail) =
            told.map_or((None, String::new()), |told| (told.status, told.detail));
        let detail = match (&*code, &*detail) {
            ("", _) => detail,
            (_, "") => code,
            (_, text) if text.contains(&code) => detail,
            _ => format!("{detail}: {code}"),
        };
        Advance {
            next,
            result,
            status,
            detail,
            progress: self.payload(),
            rest: None,
        }
    }

    fn payload(&self) -> Option<Bytes> {
        serde_json::to_vec(&self.reply).ok().map(Bytes::from)
    }
}

/// The words about a call for its attempt.
struct Told {
    result: &'static str,
    status: Option<u16>,
    detail: String,
}

const fn retry(at: Timestamp) -> Next {
    Next::Retry {
        at,
        doubt: None,
        counted: false,
    }
}

fn answer_of(answer: &http::Response<Bytes>) -> ChannelAnswer<'_> {
    ChannelAnswer {
        status: answer.status().as_u16(),
        headers: answer.headers(),
        body: answer.body(),
    }
}

/// The channel's last word on a reply: the ids of its messages.
fn sent_answer(reply: &ChannelReply) -> Answer {
    let ids: Vec<String> = reply
        .states()
        .filter_map(|state| match state {
            PartState::Sent { id: Some(id) } => {
                Some(id.as_str().map_or_else(|| id.to_string(), str::to_owned))
            }
            _ => None,
        })
        .collect();
    Answer {
        status: "sent".to_owned(),
        result: (!ids.is_empty()).then(|| ids.join(", ")),
        finished_at: None,
        task: None,
    }
}
