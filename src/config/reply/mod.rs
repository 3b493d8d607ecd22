//! The `[reply]` section of a provider file as written: the way an answer goes back to the chat that an event came from.
//!
//! This file knows the shape of the section. `channel` compiles it and reports templates, paths and patterns that cannot
//! be used.

mod address;
mod call;
mod judgement;
mod source;
mod words;

use std::time::Duration;

use http::Uri;

pub use address::{AddressCandidate, AddressConfig};
pub use call::{CallConfig, ProofConfig, QuestionConfig, SendConfig, SignConfig, WayPart};
pub use judgement::{SentConfig, VerdictConfig, VerdictThen, WaitConfig};

pub use source::{
    ChatThreads, OverflowRule, PlaceholderConfig, QuoteRule, ReplySentences, SourceReply,
};

pub use words::FORMATS;

pub use crate::render::LengthUnit;

use super::node::Value;
use super::problem::{Located, Place};
use super::section::Section;
use super::unit::Rate;

/// A named text of the file: a header and its value, a place and its pattern.
pub type TextPair = (Located<String>, Located<String>);

/// The `[reply]` section of a provider file.
#[derive(Clone, Debug)]
pub struct ReplyConfig {
    /// Begin of the section.
    pub place: Place,
    /// The one host that the token is sent to, with a path that stands before every target.
    pub api: Option<Uri>,
    /// True if every source names the host itself (`api = "source"`), because each operator runs an own one.
    pub is_api_of_source: bool,
    /// Hosts that an address of the payload may have, as names or as `*.example.com`.
    pub hosts: Vec<Located<String>>,
    /// Way to prove to the channel that a call is ours.
    pub auth: ReplyAuth,
    /// Target of the request for a token, with the kinds of proof that have one.
    pub token_url: Option<Located<String>>,
    /// Scope of such a token.
    pub scope: Option<Located<String>>,
    /// Names of further values that a source gives.
    pub values: Vec<Located<String>>,
    /// Names of the address and the places of an event that they are read from.
    pub to: Vec<AddressConfig>,
    /// Names of the address that let their holder write to the chat. Nothing shows them.
    pub secret: Vec<Located<String>>,
    /// Name of the address by which an answer refers to the message.
    pub quote: Option<Located<String>>,
    /// Dialect of the messages.
    pub format: Located<String>,
    /// Length of a message and the bounds beside it.
    pub limits: ReplyLimits,
    /// Rates that all calls to the channel share.
    pub pace: Vec<PaceConfig>,
    /// Headers by which the channel says how much of a rate is left.
    pub pace_headers: Option<PaceHeaders>,
    /// Time after the event in which the channel takes an answer.
    pub window: Option<Located<Duration>>,
    /// Ways to send, in the order in which they are tried.
    pub send: Vec<SendConfig>,
    /// Rules that read an answer of the channel.
    pub sent: SentConfig,
    /// Verdicts on answers that are no success.
    pub verdicts: Vec<VerdictConfig>,
    /// Call that changes a message.
    pub edit: Option<CallConfig>,
    /// Call that asks if a message is there.
    pub check: Option<QuestionConfig>,
    /// Later event that proves a message.
    pub proof: Option<ProofConfig>,
    /// Sign of life that is repeated while a run lasts.
    pub typing: Option<SignConfig>,
    /// Sign of life on the message that is answered.
    pub mark: Option<SignConfig>,
    /// Keys of this section that are known from memory alone and were not looked up.
    pub recall: Vec<Located<String>>,
}

/// Way to prove to a channel that a call is the gateway's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyAuth {
    /// Nothing is proved: an address of the payload is itself the permission.
    None,
    /// A token of the operator, put where `{token}` stands.
    Token,
    /// A token of the operator in `Authorization: Bearer`, on every call to `api`.
    Bearer,
    /// A name and a password in `Authorization: Basic`.
    Basic,
    /// A token that is asked for with a client id and secret; sent as with [`Self::Bearer`].
    OauthClient,
    /// A token of a service account of Google; sent as with [`Self::Bearer`].
    GoogleServiceAccount,
    /// A token of an installation of an app; sent as with [`Self::Bearer`].
    GithubApp,
    /// A signature over the body, as in the specification Standard Webhooks.
    StandardWebhooks,
}

/// Bounds on the messages of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Length of one message.
    pub length: usize,
    /// Unit of the length.
    pub unit: LengthUnit,
    /// True if the length is of the text after the channel has parsed it, without markup.
    pub is_after_parsing: bool,
    /// Most marks (entities) in a message.
    pub entities: Option<usize>,
    /// Messages that one call may carry.
    pub batch: usize,
    /// Most messages of one answer.
    pub max_parts: usize,
}

/// One rate of a channel.
#[derive(Clone, Debug)]
pub struct PaceConfig {
    /// Calls that share the rate: `chat`, `token` or a template.
    pub per: Located<String>,
    /// Calls in a time.
    pub rate: Located<Rate>,
    /// Calls that may be made at once.
    pub burst: Option<u32>,
    /// Names of the address and patterns; the rate holds where all of them fit.
    pub when: Vec<TextPair>,
}

/// Names of the headers in which a channel reports its rate.
#[derive(Clone, Debug)]
pub struct PaceHeaders {
    /// Number of calls that are left.
    pub remaining: Located<String>,
    /// Seconds until more are given.
    pub reset_after: Located<String>,
}

impl ReplyConfig {
    /// Reads the section. Nothing is returned if a part is missing without which no answer can be sent; that is a problem.
    pub fn read(section: &Section<'_>) -> Option<Self> {
        let is_api_of_source = matches!(
            section.node("api").map(|node| &node.value),
            Some(Value::Text(text)) if text == "source"
        );
        let api = (!is_api_of_source).then(|| section.api("api")).flatten();
        let hosts = section.texts("hosts");
        if !section.has("api") && !section.has("hosts") {
            section.problems().error_hint(
                section.place(),
                format!("{} names no host", section.name()),
                "write api = \"https://…\", or hosts = […] if an address comes with the event",
            );
        }
        let (to, secret) = address::read(section);
        let send: Vec<SendConfig> = section
            .sections("send")
            .iter()
            .filter_map(SendConfig::read)
            .collect();
        if !section.has("send") {
            section.problems().error_hint(
                section.place(),
                format!("{} says no way to send", section.name()),
                "add a table [[reply.send]] with target and body",
            );
        }
        let format = section.text("format").unwrap_or_else(|| Located {
            value: "plain".to_owned(),
            place: section.place().clone(),
        });
        let (pace, pace_headers) = (pace(section), pace_headers(section));
        let sent = section
            .section("sent")
            .map(|sent| SentConfig::read(&sent))
            .unwrap_or_default();
        let verdicts = section.sections("verdict");
        let call = |key: &str| section.section(key);
        let (edit, check) = (call("edit"), call("check"));
        let (proof, typing, mark) = (call("proof"), call("typing"), call("mark"));
        Some(Self {
            place: section.place().clone(),
            api,
            is_api_of_source,
            hosts: hosts.unwrap_or_default(),
            auth: section
                .one_of("auth", &ReplyAuth::WORDS)
                .map_or(ReplyAuth::Token, |auth| auth.value),
            token_url: section.text("token_url"),
            scope: section.text("scope"),
            values: section.texts("values").unwrap_or_default(),
            to,
            secret,
            quote: section.text("quote"),
            format,
            pace,
            pace_headers,
            window: window(section),
            send,
            sent,
            verdicts: verdicts.iter().filter_map(VerdictConfig::read).collect(),
            edit: edit.and_then(|edit| CallConfig::read(&edit)),
            check: check.and_then(|check| QuestionConfig::read(&check)),
            proof: proof.and_then(|proof| ProofConfig::read(&proof)),
            typing: typing.and_then(|typing| SignConfig::read(&typing)),
            mark: mark.and_then(|mark| SignConfig::read(&mark)),
            recall: section.texts("recall").unwrap_or_default(),
            // Last, as without a limit nothing is returned and all else has to be read by then.
            limits: limits(section)?,
        })
    }
}

fn limits(section: &Section<'_>) -> Option<ReplyLimits> {
    let count = |key: &str| {
        let number = section.integer(key)?;
        let fits = usize::try_from(number.value)
            .ok()
            .filter(|count| *count > 0);
        if fits.is_none() {
            let what = format!("{} must be at least 1", section.path(key));
            section.problems().error(&number.place, what);
        }
        fits
    };
    let (entities, batch, max_parts) = (count("entities"), count("batch"), count("max_parts"));
    let unit = section.one_of(
        "unit",
        &[
            ("utf16", LengthUnit::Utf16),
            ("chars", LengthUnit::Chars),
            ("bytes", LengthUnit::Bytes),
        ],
    );
    let over = section.one_of("over", &[("text", true), ("rendered", false)]);
    let length = count("limit");
    if !section.has("limit") {
        section.problems().error_hint(
            section.place(),
            format!("{} does not say how long a message may be", section.name()),
            "write limit = 4096 or the like, and unit",
        );
    }
    Some(ReplyLimits {
        length: length?,
        unit: unit.map_or(LengthUnit::Chars, |unit| unit.value),
        is_after_parsing: over.is_some_and(|over| over.value),
        entities,
        batch: batch.unwrap_or(1),
        max_parts: max_parts.unwrap_or(6),
    })
}

fn pace(section: &Section<'_>) -> Vec<PaceConfig> {
    let read = |table: &Section<'_>| {
        let burst = table.integer("burst");
        let when = table.text_table("when").unwrap_or_default();
        let per = table.required_text("per", "write \"chat\", \"token\" or a template");
        let rate = table.rate("rate");
        if !table.has("rate") {
            let what = format!("{} has no rate", table.name());
            let hint = "write for example rate = \"1/s\"";
            table.problems().error_hint(table.place(), what, hint);
        }
        Some(PaceConfig {
            per: per?,
            rate: rate?,
            burst: burst.and_then(|burst| u32::try_from(burst.value).ok()),
            when,
        })
    };
    section.sections("pace").iter().filter_map(read).collect()
}

fn pace_headers(section: &Section<'_>) -> Option<PaceHeaders> {
    let table = section.section("headers")?;
    let hint = "name the header";
    let remaining = table.required_text("remaining", hint);
    let reset_after = table.required_text("reset_after", hint);
    Some(PaceHeaders {
        remaining: remaining?,
        reset_after: reset_after?,
    })
}

fn window(section: &Section<'_>) -> Option<Located<Duration>> {
    let table = section.section("window")?;
    // The one moment that is kept with every reply; a word for it leaves room for others.
    table.one_of("of", &[("received", ())]);
    table.duration("open")
}
