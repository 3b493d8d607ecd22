//! A channel, compiled: everything that its provider file says about answers, with no mistake left in it.
//!
//! A specification is data. It does no I/O, holds no secret, and is shared by all sources of a provider.

mod compile;
mod proof;

use std::collections::BTreeSet;
use std::time::Duration;

use http::{HeaderName, Method};

pub(crate) use self::proof::ProofRule;
pub use self::proof::{KeyProof, ProofEnd};
use super::address::{AddressError, AddressRule, ReplyAddress};
use super::field::EventFields;
use super::path::ValuePath;
use super::pattern::TextPattern;
use super::template::{BodyTemplate, SlotUse, TextTemplate};
use super::verdict::{AnswerRule, WaitScope};
use crate::config::Rate;
use crate::config::reply::{LengthUnit, ReplyAuth, ReplyLimits, WayPart};

/// A compiled `[reply]` section.
#[derive(Clone, Debug)]
pub struct ChannelSpec {
    /// The address before every target that begins with a slash.
    pub(crate) api: Option<ApiBase>,
    /// Hosts that an address of the payload may have.
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) auth: ReplyAuth,
    pub(crate) address: AddressRule,
    /// Names that the source gives values for.
    pub(crate) values: Vec<String>,
    /// Name of the address by which an answer refers to the message.
    pub(crate) quote: Option<String>,
    pub(crate) format: String,
    pub(crate) limits: ReplyLimits,
    pub(crate) pace: Vec<PaceRule>,
    /// Time after the event in which the channel takes an answer.
    pub(crate) window: Option<Duration>,
    pub(crate) ways: Vec<SendWay>,
    pub(crate) answers: AnswerRule,
    pub(crate) edit: Option<CallTemplate>,
    pub(crate) check: Option<CheckRule>,
    pub(crate) proof: Option<ProofRule>,
    pub(crate) typing: Option<SignOfLife>,
    pub(crate) mark: Option<SignOfLife>,
    /// Keys of the file that are known from memory alone.
    pub(crate) recall: Vec<String>,
}

/// The one host that a token goes to, with the path before every target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiBase(pub(crate) String);

/// A host, or all hosts below a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostPattern {
    /// This host.
    Exact(String),
    /// Every host that ends with a dot and this name.
    Below(String),
}

impl HostPattern {
    /// True if a host fits, in any case of letters.
    pub(crate) fn fits(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        match self {
            Self::Exact(own) => host == *own,
            Self::Below(parent) => host
                .strip_suffix(parent.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

/// A compiled call.
#[derive(Clone, Debug)]
pub(crate) struct CallTemplate {
    pub(crate) method: Method,
    pub(crate) target: TargetTemplate,
    pub(crate) headers: Vec<(HeaderName, TextTemplate)>,
    pub(crate) query: Vec<(String, TextTemplate)>,
    pub(crate) body: ChannelBody,
}

/// The target of a call.
#[derive(Clone, Debug)]
pub(crate) enum TargetTemplate {
    /// A path below `api`.
    Below(TextTemplate),
    /// An address that comes with the event, and what stands behind it.
    At { base: SlotUse, rest: TextTemplate },
}

/// The body of a call.
#[derive(Clone, Debug)]
pub(crate) enum ChannelBody {
    Empty,
    Json(BodyTemplate),
    Form(Vec<(String, TextTemplate)>),
}

impl CallTemplate {
    /// Values that the call names.
    pub(crate) fn slots(&self) -> Vec<&SlotUse> {
        let mut all = Vec::new();
        match &self.target {
            TargetTemplate::Below(target) => all.extend(target.slots()),
            TargetTemplate::At { base, rest } => {
                all.push(base);
                all.extend(rest.slots());
            }
        }
        all.extend(self.headers.iter().flat_map(|(_, text)| text.slots()));
        all.extend(self.query.iter().flat_map(|(_, text)| text.slots()));
        match &self.body {
            ChannelBody::Empty => {}
            ChannelBody::Json(body) => all.extend(body.slots()),
            ChannelBody::Form(fields) => {
                all.extend(fields.iter().flat_map(|(_, text)| text.slots()))
            }
        }
        all
    }

    /// True if some value in it meets `is`.
    pub(crate) fn any(&self, is: impl Fn(&SlotUse) -> bool) -> bool {
        self.slots().into_iter().any(is)
    }
}

/// A compiled way to send.
#[derive(Clone, Debug)]
pub(crate) struct SendWay {
    pub(crate) call: CallTemplate,
    /// True if the call needs a secret of the source.
    pub(crate) needs_secret: bool,
    /// Names of the address and patterns that must fit.
    pub(crate) when: Vec<(String, TextPattern)>,
    /// Time after the event in which the way is open.
    pub(crate) until: Option<Duration>,
    /// Number of calls that it takes for one event.
    pub(crate) uses: Option<u32>,
    pub(crate) part: WayPart,
    /// Time for which the channel drops a second message of a key; nothing for a way without a key.
    pub(crate) key: Option<KeyMemory>,
    /// True if the channel gets the key with the message, so that it is found by it later.
    pub(crate) carries_key: bool,
    /// True if the same call made twice leaves one message.
    pub(crate) is_idempotent: bool,
    /// Most parts of one call.
    pub(crate) batch: usize,
    /// Words that name the way in a kept reply, so that a changed file is noticed.
    pub(crate) label: String,
}

/// Time for which a channel remembers a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyMemory {
    /// For ever, as far as its documentation says.
    Always,
    /// For a time.
    For(Duration),
}

impl KeyMemory {
    /// True if the channel still knows a key that it saw so long ago.
    pub(crate) fn holds(self, age: Duration) -> bool {
        match self {
            Self::Always => true,
            Self::For(time) => age < time,
        }
    }
}

impl SendWay {
    /// True if the way is for a part of this number.
    pub(crate) const fn is_for(&self, part: usize) -> bool {
        match self.part {
            WayPart::First => part == 0,
            WayPart::Rest => part > 0,
            WayPart::All => true,
        }
    }

    /// True if the address meets the conditions of the way. Names in `without` count as absent.
    pub(crate) fn fits(&self, address: &ReplyAddress, without: &BTreeSet<String>) -> bool {
        self.when.iter().all(|(name, pattern)| {
            let text = address.text(name).filter(|_| !without.contains(name));
            pattern.fits(text.as_deref())
        })
    }
}

/// True if an address meets all conditions.
fn meets(when: &[(String, TextPattern)], address: &ReplyAddress) -> bool {
    when.iter()
        .all(|(name, pattern)| pattern.fits(address.text(name).as_deref()))
}

/// A compiled question for a message.
#[derive(Clone, Debug)]
pub(crate) struct CheckRule {
    pub(crate) call: CallTemplate,
    /// Path to the list; the whole answer where nothing is said.
    pub(crate) list: Option<ValuePath>,
    pub(crate) each: ValuePath,
    /// Number of messages with which an answer may not be whole.
    pub(crate) page: Option<usize>,
    pub(crate) same: Vec<(ValuePath, TextTemplate)>,
    pub(crate) id: Option<ValuePath>,
    /// Time to wait before the question.
    pub(crate) after: Duration,
}

/// A compiled sign of life.
#[derive(Clone, Debug)]
pub(crate) struct SignOfLife {
    pub(crate) call: CallTemplate,
    pub(crate) every: Option<Duration>,
    pub(crate) most: Option<Duration>,
    pub(crate) off: Option<CallTemplate>,
}

/// A compiled rate.
#[derive(Clone, Debug)]
pub(crate) struct PaceRule {
    pub(crate) per: PaceScope,
    pub(crate) rate: Rate,
    pub(crate) burst: Option<u32>,
    pub(crate) when: Vec<(String, TextPattern)>,
}

/// Calls that share a rate.
#[derive(Clone, Debug)]
pub(crate) enum PaceScope {
    Chat,
    Token,
    /// Those for which these names have the same values.
    Of(Vec<String>),
}

/// One rate that a call counts against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaceLimit {
    /// Words that are the same for all calls that share the rate, among those of one token.
    pub key: String,
    /// Calls that wait when the rate is used up.
    pub scope: WaitScope,
    /// Number of calls in a time.
    pub rate: Rate,
    /// Number of calls that may be made at once, where it is not that of the rate.
    pub burst: Option<u32>,
}

impl ChannelSpec {
    /// Reads the address of an answer from an event.
    pub fn address(&self, event: &EventFields<'_>) -> Result<ReplyAddress, AddressError> {
        self.address.read(event)
    }

    /// Word of the dialect in which messages are written.
    pub fn format(&self) -> &str {
        &self.format
    }

    /// Bounds on a message: length, unit, marks and number of parts.
    pub const fn limits(&self) -> &ReplyLimits {
        &self.limits
    }

    /// Way to prove that a call is ours.
    pub const fn auth(&self) -> ReplyAuth {
        self.auth
    }

    /// Names that a source must give values for.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// The one host that a token is sent to, with the path before every target; nothing if addresses come with events.
    pub fn api(&self) -> Option<&str> {
        self.api.as_ref().map(|api| api.0.as_str())
    }

    /// The same channel at another host, for a source with `api`.
    #[must_use]
    pub fn at(mut self, api: &http::Uri) -> Self {
        self.api = Some(ApiBase::of(api));
        self
    }

    /// The chat of an address. Answers to one chat go out one after the other.
    pub fn chat(&self, address: &ReplyAddress) -> String {
        let first = self.address.names().next().unwrap_or("chat");
        let text = address.text("chat").or_else(|| address.text(first));
        text.unwrap_or_default()
    }

    /// Rates that a call to an address counts against. Those of a token come last: a chat that has to wait uses nothing up
    /// of what all chats share.
    pub fn pace(&self, address: &ReplyAddress) -> Vec<PaceLimit> {
        let chat = || format!("chat/{}", self.chat(address));
        let rules = self.pace.iter().enumerate();
        let rules = rules.filter(|(_, rule)| meets(&rule.when, address));
        let mut limits: Vec<PaceLimit> = rules
            .map(|(number, rule)| {
                let shared = match &rule.per {
                    PaceScope::Chat => chat(),
                    PaceScope::Token => "token".to_owned(),
                    PaceScope::Of(names) => {
                        let texts = names.iter().map(|name| address.text(name));
                        let texts: Vec<String> = texts.map(Option::unwrap_or_default).collect();
                        format!("of/{}", texts.join("/"))
                    }
                };
                PaceLimit {
                    key: format!("{number}/{shared}"),
                    scope: match rule.per {
                        PaceScope::Token => WaitScope::Token,
                        PaceScope::Chat | PaceScope::Of(_) => WaitScope::Chat,
                    },
                    rate: rule.rate,
                    burst: rule.burst,
                }
            })
            .collect();
        limits.sort_by_key(|limit| limit.scope == WaitScope::Token);
        limits
    }

    /// Time after which the sign of typing is repeated, and the longest time for which it is.
    pub fn typing(&self) -> Option<(Option<Duration>, Option<Duration>)> {
        let typing = self.typing.as_ref();
        typing.map(|typing| (typing.every, typing.most))
    }
}

impl ApiBase {
    pub(crate) fn of(api: &http::Uri) -> Self {
        Self(api.to_string().trim_end_matches('/').to_owned())
    }
}

/// Word of a unit in sentences.
pub(crate) const fn unit_name(unit: LengthUnit) -> &'static str {
    match unit {
        LengthUnit::Utf16 => "UTF-16 units",
        LengthUnit::Chars => "characters",
        LengthUnit::Bytes => "bytes",
    }
}
