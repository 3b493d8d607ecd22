//! Verdict on an answer of a channel: a pure function from status, headers and body to what happens next.
//!
//! The answer may be hostile: of any length and depth, or no JSON at all. What cannot be read is judged by its status alone,
//! and a success that cannot be read is in doubt, never repeated by itself.

mod compile;
mod pause;

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use serde_json::Value;

use self::pause::{header_seconds, retry_after, seconds};
use super::path::{ValuePath, text_of};
use super::pattern::{ErrorPattern, TextPattern};
use super::spec::ChannelSpec;
use crate::model::Timestamp;

/// The longest body that is read, in bytes. Channels send the message back, so it is above the longest message.
const BODY: usize = 256 * 1024;

/// The longest code and the longest text of an error that are kept, in characters.
const CODE: usize = 100;
const ERROR: usize = 300;

/// The longest id of a message, in bytes.
const ID: usize = 1024;

/// An answer of a channel.
#[derive(Clone, Copy, Debug)]
pub struct ChannelAnswer<'a> {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body, as far as it was read.
    pub body: &'a [u8],
}

/// Meaning of an answer for the message that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelVerdict {
    /// The channel has it, with this id.
    Sent {
        /// Id of the message, with the type that the channel gave it.
        id: Option<Value>,
    },
    /// Surely not sent; the same again after a time.
    Retry,
    /// Surely not sent; the chat or the whole token has to rest.
    Wait {
        /// Length of the rest, where the channel says it.
        pause: Option<Duration>,
        /// Calls that rest.
        scope: WaitScope,
    },
    /// Surely not sent: the markup is refused. The same words go once more without markup.
    Plain,
    /// Surely not sent: too long. The text is cut smaller.
    Smaller,
    /// Surely not sent: a value of the address is refused. Once more without it.
    Without(String),
    /// Surely not sent: the chat has moved. Once more with these values.
    With(Vec<(String, Value)>),
    /// Surely not sent: this way is closed for the rest of the answer. The next one takes over.
    Next,
    /// Surely not sent, and never will be.
    Dead,
    /// The same; the chat is gone until somebody writes in it again.
    Gone,
    /// Surely not sent: the token is refused. The source is stopped until an operator looks at it.
    Alarm,
    /// Nobody can tell if it was sent.
    Doubt,
}

/// Calls that rest together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitScope {
    /// Those to one chat.
    Chat,
    /// Those with one token.
    Token,
}

/// A verdict with the words of the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: ChannelVerdict,
    /// Code of the error: the channel's own, or the status as `http_403`. Empty for a success.
    pub code: String,
    /// Text of the error, for the operator and never for a chat.
    pub error: Option<String>,
    /// Time for which the chat rests after this call although it was a success, where the channel says so.
    pub rest: Option<Duration>,
}

/// Compiled rules that judge an answer.
#[derive(Clone, Debug)]
pub(crate) struct AnswerRule {
    ok: Vec<(ValuePath, TextPattern)>,
    id: Option<ValuePath>,
    code: Option<ValuePath>,
    error: Option<ValuePath>,
    wait: Option<(ValuePath, Duration)>,
    pace: Option<(HeaderName, HeaderName)>,
    verdicts: Vec<VerdictRule>,
}

#[derive(Clone, Debug)]
struct VerdictRule {
    status: Vec<StatusPattern>,
    code: Vec<TextPattern>,
    error: Vec<ErrorPattern>,
    when: Vec<(ValuePath, TextPattern)>,
    then: RuleVerdict,
}

/// Statuses that a rule is for: all three digits, or fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatusPattern {
    One(u16),
    /// All of a hundred, as `5xx`.
    Hundred(u16),
}

/// Verdict of a rule, before the values of an answer are in it.
#[derive(Clone, Debug)]
enum RuleVerdict {
    Fixed(ChannelVerdict),
    Sent,
    With(Vec<(String, ValuePath)>),
    Wait(WaitScope, Option<Duration>),
}

impl StatusPattern {
    const fn fits(self, status: u16) -> bool {
        match self {
            Self::One(one) => status == one,
            Self::Hundred(hundred) => status / 100 == hundred,
        }
    }
}

/// An answer as the rules see it.
struct ReadAnswer<'a> {
    status: u16,
    headers: &'a HeaderMap,
    /// The body as JSON; nothing if it cannot be read.
    json: Option<Value>,
    code: Option<String>,
    error: Option<String>,
}

impl ReadAnswer<'_> {
    fn at(&self, path: &ValuePath) -> Option<&Value> {
        path.find(self.json.as_ref()?)
    }

    fn fits(&self, conditions: &[(ValuePath, TextPattern)]) -> bool {
        conditions.iter().all(|(path, pattern)| {
            let text = self.at(path).and_then(text_of);
            pattern.fits(text.as_deref())
        })
    }
}

impl ChannelSpec {
    /// Judges the answer to a send, an edit or a sign of life.
    pub fn judge(&self, answer: &ChannelAnswer<'_>, now: Timestamp) -> Judgement {
        self.answers.judge(answer, now)
    }
}

impl AnswerRule {
    fn judge(&self, answer: &ChannelAnswer<'_>, now: Timestamp) -> Judgement {
        let json = json(answer.body);
        let text = |path: &Option<ValuePath>, most| {
            let found = path.as_ref()?.find(json.as_ref()?).and_then(text_of)?;
            Some(cleaned(&found, most))
        };
        let (code, error) = (text(&self.code, CODE), text(&self.error, ERROR));
        let read = ReadAnswer {
            status: answer.status,
            headers: answer.headers,
            code,
            error,
            json,
        };
        let verdict = self.verdict(&read, now);
        let is_sent = matches!(verdict, ChannelVerdict::Sent { .. });
        let status = || format!("http_{}", read.status);
        Judgement {
            rest: self.rest(&read).filter(|_| is_sent),
            code: match is_sent {
                true => String::new(),
                false => read.code.clone().unwrap_or_else(status),
            },
            error: read.error.filter(|_| !is_sent),
            verdict,
        }
    }

    fn verdict(&self, read: &ReadAnswer<'_>, now: Timestamp) -> ChannelVerdict {
        let is_success = (200..300).contains(&read.status);
        if is_success && self.is_ok(read) {
            return ChannelVerdict::Sent { id: self.id(read) };
        }
        let mut rules = self.verdicts.iter();
        if let Some(rule) = rules.find(|rule| rule.fits(read)) {
            return self.of_rule(&rule.then, read, now);
        }
        match read.status {
            // A success by its status whose body cannot be read says nothing.
            200..300 if read.json.is_none() => ChannelVerdict::Doubt,
            200..300 => ChannelVerdict::Dead,
            429 => ChannelVerdict::Wait {
                pause: self.pause(read, now),
                scope: WaitScope::Chat,
            },
            401 => ChannelVerdict::Alarm,
            408 | 500.. => ChannelVerdict::Doubt,
            // A redirect is not followed, and nothing was done behind it.
            300..500 => ChannelVerdict::Dead,
            _ => ChannelVerdict::Doubt,
        }
    }

    fn is_ok(&self, read: &ReadAnswer<'_>) -> bool {
        self.ok.is_empty() || (read.json.is_some() && read.fits(&self.ok))
    }

    fn id(&self, read: &ReadAnswer<'_>) -> Option<Value> {
        let id = read.at(self.id.as_ref()?)?;
        let text = text_of(id)?;
        let fits = text.len() <= ID && !text.chars().any(char::is_control);
        fits.then(|| id.clone())
    }

    fn of_rule(&self, then: &RuleVerdict, read: &ReadAnswer<'_>, now: Timestamp) -> ChannelVerdict {
        match then {
            RuleVerdict::Fixed(verdict) => verdict.clone(),
            RuleVerdict::Sent => ChannelVerdict::Sent { id: self.id(read) },
            RuleVerdict::Wait(scope, pause) => ChannelVerdict::Wait {
                pause: self.pause(read, now).or(*pause),
                scope: *scope,
            },
            RuleVerdict::With(values) => {
                let value = |(name, path): &(String, ValuePath)| {
                    let value = read.at(path)?;
                    let text = text_of(value)?;
                    let fits = text.len() <= ID && !text.chars().any(char::is_control);
                    fits.then(|| (name.clone(), value.clone()))
                };
                let values: Option<Vec<_>> = values.iter().map(value).collect();
                values.map_or(ChannelVerdict::Dead, ChannelVerdict::With)
            }
        }
    }

    /// The pause that the answer asks for, in its body or its headers.
    fn pause(&self, read: &ReadAnswer<'_>, now: Timestamp) -> Option<Duration> {
        let in_body = self.wait.as_ref().and_then(|(path, unit)| {
            let number: f64 = text_of(read.at(path)?)?.parse().ok()?;
            seconds(number * unit.as_secs_f64())
        });
        let reset = || {
            let (_, reset_after) = self.pace.as_ref()?;
            header_seconds(read.headers, reset_after)
        };
        in_body
            .or_else(|| retry_after(read.headers, now))
            .or_else(reset)
    }

    /// The rest that a channel asks for by its headers of pace, when no call is left.
    fn rest(&self, read: &ReadAnswer<'_>) -> Option<Duration> {
        let (remaining, reset_after) = self.pace.as_ref()?;
        let left = read.headers.get(remaining)?.to_str().ok()?.trim();
        (left == "0")
            .then(|| header_seconds(read.headers, reset_after))
            .flatten()
    }
}

impl VerdictRule {
    fn fits(&self, read: &ReadAnswer<'_>) -> bool {
        let status = self.status.is_empty() || self.status.iter().any(|of| of.fits(read.status));
        let code = self.code.is_empty() || self.code.iter().any(|of| of.fits(read.code.as_deref()));
        let error = read.error.as_deref().unwrap_or_default();
        let error = self.error.is_empty() || self.error.iter().any(|of| of.fits(error));
        status && code && error && read.fits(&self.when)
    }
}

/// A body as JSON; nothing for one that is too long, too deep or no JSON.
pub(super) fn json(body: &[u8]) -> Option<Value> {
    let fits = body.len() <= BODY;
    fits.then(|| serde_json::from_slice(body).ok()).flatten()
}

/// A text of the channel for logs and attempts: one line, of bounded length.
fn cleaned(text: &str, most: usize) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(most)
        .collect()
}

#[cfg(test)]
mod tests;
