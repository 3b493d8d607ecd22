//! The calls of `[reply]` as written: ways to send, the edit, the question and the signs of life.

use std::time::Duration;

use super::TextPair;
use crate::config::node::Node;
use crate::config::problem::{Located, Place};
use crate::config::section::Section;

/// A call to a channel: templates of its target, headers and body.
#[derive(Clone, Debug)]
pub struct CallConfig {
    /// Place of the call in the file.
    pub place: Place,
    /// The method; POST where nothing is said.
    pub method: Option<Located<String>>,
    /// The target: a path below `api`, or an address that begins with a name.
    pub target: Located<String>,
    /// The headers.
    pub headers: Vec<TextPair>,
    /// The pairs of the query.
    pub query: Vec<TextPair>,
    /// The JSON body.
    pub body: Option<Node>,
    /// The fields of a form body.
    pub form: Vec<TextPair>,
}

/// Parts of an answer that a way is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayPart {
    /// Only the first.
    First,
    /// All but the first.
    Rest,
    /// Every part.
    All,
}

/// A `[[reply.send]]` table.
#[derive(Clone, Debug)]
pub struct SendConfig {
    /// The call.
    pub call: CallConfig,
    /// Names of the address and patterns that must fit.
    pub when: Vec<TextPair>,
    /// Time after the event in which the way is open.
    pub until: Option<Duration>,
    /// Number of calls that the way takes for one event.
    pub uses: Option<u32>,
    /// Parts that it is for.
    pub part: WayPart,
    /// Template of the key by which the channel drops a second message.
    pub key: Option<Located<String>>,
    /// Time for which the channel remembers a key; always where nothing is said.
    pub key_window: Option<Located<Duration>>,
    /// True if the same call made twice leaves one message, as with an edit.
    pub idempotent: bool,
}

/// The `[reply.check]` table: a question by which a message of ours is found.
#[derive(Clone, Debug)]
pub struct QuestionConfig {
    /// The call; its method is GET where nothing is said.
    pub call: CallConfig,
    /// Path to the list of messages in the answer; the whole answer where nothing is said. Without it nothing is proved.
    pub list: Option<Located<String>>,
    /// Path to the messages below the list.
    pub each: Located<String>,
    /// Number of messages with which an answer may not be whole.
    pub page: Option<usize>,
    /// Paths in a message, and the templates that stand there if it is ours.
    pub same: Vec<TextPair>,
    /// Path to the id in a message.
    pub id: Option<Located<String>>,
    /// Time to wait before the question, in which a broken call may still take effect.
    pub after: Duration,
}

/// The `[reply.proof]` table: a later event that proves a message.
#[derive(Clone, Debug)]
pub struct ProofConfig {
    /// Place of the table.
    pub place: Place,
    /// Types of events that are proofs; every type where nothing is said.
    pub events: Vec<Located<String>>,
    /// Paths to the proofs in an event.
    pub each: Vec<Located<String>>,
    /// Path to the key in a proof.
    pub key: Located<String>,
    /// Path to the id of the message in a proof.
    pub id: Option<Located<String>>,
    /// Time for which a proof is waited for.
    pub within: Duration,
    /// Paths and patterns of a proof that reports a failure; `code` is the path to its code.
    pub failed: Vec<TextPair>,
}

/// A sign of life: `[reply.typing]` or `[reply.mark]`.
#[derive(Clone, Debug)]
pub struct SignConfig {
    /// The call.
    pub call: CallConfig,
    /// Time after which it is repeated.
    pub every: Option<Duration>,
    /// The longest time for which it is repeated.
    pub most: Option<Duration>,
    /// Call that ends it (`off`, or `undo` of a mark).
    pub off: Option<Box<CallConfig>>,
}

impl CallConfig {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let method = section.text("method");
        let headers = section.text_table("headers").unwrap_or_default();
        let query = section.text_table("query").unwrap_or_default();
        let body = section.node("body").cloned();
        let form = section.text_table("form").unwrap_or_default();
        if let (Some(body), false) = (&body, form.is_empty()) {
            section.problems().error_hint(
                &body.place,
                format!("{} has a body and a form", section.name()),
                "leave one of them out",
            );
        }
        let hint = "write the path below api, or the name of an address that comes with the event";
        Some(Self {
            place: section.place().clone(),
            method,
            target: section.required_text("target", hint)?,
            headers,
            query,
            body,
            form,
        })
    }
}

impl SendConfig {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let call = CallConfig::read(section);
        let uses = section.integer("uses").map(|uses| uses.value);
        let part = section.one_of(
            "part",
            &[
                ("first", WayPart::First),
                ("rest", WayPart::Rest),
                ("all", WayPart::All),
            ],
        );
        let when = section.text_table("when").unwrap_or_default();
        let until = section.duration("until").map(|until| until.value);
        let (key, key_window) = (section.text("key"), section.duration("key_window"));
        if let (None, Some(window)) = (&key, &key_window) {
            let what = format!("{} has a key_window and no key", section.name());
            let hint = "write key = \"{key}\", or leave key_window out";
            section.problems().error_hint(&window.place, what, hint);
        }
        let idempotent = section.bool("idempotent");
        Some(Self {
            call: call?,
            when,
            until,
            uses: uses.map(|uses| u32::try_from(uses).unwrap_or(u32::MAX)),
            part: part.map_or(WayPart::All, |part| part.value),
            key,
            key_window,
            idempotent: idempotent.is_some_and(|yes| yes.value),
        })
    }
}

impl QuestionConfig {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let call = CallConfig::read(section);
        let (list, page) = (section.text("list"), section.integer("page"));
        let each = section.required_text("each", "write the path to the messages");
        let same = section.text_table("same").unwrap_or_default();
        if same.is_empty() {
            let what = format!("{} does not say which message is ours", section.name());
            let hint = "write same = { path = \"{key}\" }";
            section.problems().error_hint(section.place(), what, hint);
        }
        let (id, after) = (section.text("id"), section.duration("after"));
        Some(Self {
            call: call?,
            list,
            each: each?,
            page: page.and_then(|page| usize::try_from(page.value).ok()),
            same,
            id,
            after: after.map_or(Duration::from_secs(5), |after| after.value),
        })
    }
}

impl ProofConfig {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let each = section.texts("each").unwrap_or_default();
        let events = section.texts("events").unwrap_or_default();
        let (id, within) = (section.text("id"), section.duration("within"));
        let failed = section.text_table("failed").unwrap_or_default();
        Some(Self {
            place: section.place().clone(),
            events,
            each,
            key: section.required_text("key", "write the path to the key in a proof")?,
            id,
            within: within.map_or(Duration::from_secs(120), |within| within.value),
            failed,
        })
    }
}

impl SignConfig {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let every = section.duration("every").map(|every| every.value);
        let most = section.duration("most").map(|most| most.value);
        let off = section.section("off").or_else(|| section.section("undo"));
        let off = off.and_then(|off| CallConfig::read(&off)).map(Box::new);
        Some(Self {
            call: CallConfig::read(section)?,
            every,
            most,
            off,
        })
    }
}
