//! A provider file as written: how one kind of third party signs, what its events mean, what answer it wants.
//!
//! This module knows the shape of the file. `source` compiles `[verify]` and `[[challenge]]`, `mapping` compiles
//! `[map]`; each reports what it cannot compile.

use std::time::Duration;

use super::channel::ChannelFiles;
use super::node::Table;
use super::problem::{Located, Place, Problems};
use super::reconcile::ProviderLog;
use super::section::Section;
use crate::model::Class;

/// One provider.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The name sources call it by: the file's name without `.toml`.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// The name of the document that describes the scheme.
    pub docs: String,
    /// How the scheme is known: `sdk`, `doc`, `catalogue` or `recall`.
    pub evidence: String,
    /// The `[verify]` section, for `source::Scheme`.
    pub verify: Option<Table>,
    /// The `[[challenge]]` tables, for `source`.
    pub challenges: Vec<Table>,
    /// The `[map]` section: mappings that hold unless the source has its own.
    pub map: Map,
    /// The answer to an accepted event.
    pub ack: Ack,
    /// Kinds of events that are answered in their own way, or that run no agent.
    pub kinds: Vec<Kind>,
    /// How long the sender waits for an answer.
    pub deadline: Option<Duration>,
    /// Whether a top-level `prompt`, `user_id` and so on of its bodies are parameters: people fill them in by hand.
    pub implicit: bool,
    /// Whether two requests of the sender may be alike to the last byte of what proves them: its bodies have no id and no
    /// time. Where the file does not say, they may if it names neither.
    pub repeats: Option<bool>,
    /// How urgent its events are, where people wait for answers to them.
    pub class: Option<Class>,
    /// Whether the sender tries again: `never`, `hours` or `days`.
    pub retries: Option<String>,
    /// The largest body the sender makes.
    pub max_body: Option<u64>,
    /// The sender's own log of what it sent, where it keeps one that can be read.
    pub reconcile: Option<ProviderLog>,
    /// How files are fetched that the sender keeps and only names.
    pub files: Option<ChannelFiles>,
    /// Events as the sender makes them, to try a source with.
    pub samples: Vec<Sample>,
    /// Where the file begins, for problems that have no better place.
    pub place: Place,
}

/// Mappings of a provider or a source.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// Parameter to path.
    pub params_mapping: Vec<(Located<String>, Located<String>)>,
    /// Where the items of a request stand, each of which is an event; none of them: a request is one event.
    pub each: Option<Vec<Located<String>>>,
    /// Where the conversation stands.
    pub thread: Option<Located<String>>,
    /// The prompt template.
    pub prompt: Option<Located<String>>,
}

/// A kind of events that is told from others by what stands in them.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The reason that an event is kept with which runs no agent for being of this kind.
    pub name: String,
    /// Places, and what stands at all of them: `*` anything, `!` nothing, else one of these texts with `|` between them,
    /// in which `*` stands for any run of characters.
    pub when: Vec<(Located<String>, Located<String>)>,
    /// Places at one of which something stands; without any nothing more is asked.
    pub any: Vec<Located<String>>,
    /// Whether it runs an agent.
    pub runs: Runs,
    /// The answer to its sender, where it is not that of all events.
    pub ack: Option<Ack>,
}

/// Whether events of a kind run an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// As any other.
    Always,
    /// No human said it: only at sources with `humans_only = false`.
    Unless,
    /// Never: it asks for nothing.
    Never,
}

/// What the sender wants to hear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// The status; 202 where nothing is said.
    pub status: Option<u16>,
    /// A plain text instead of our JSON.
    pub text: Option<String>,
    /// Extra headers.
    pub headers: Vec<(String, String)>,
}

/// An event as the provider sends it, before it is signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// What the provider calls such an event.
    pub name: String,
    /// Headers that come with it, beside the ones that prove it.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Provider {
    /// Reads a provider file.
    pub fn read(name: &str, table: &Table, problems: &Problems) -> Self {
        let file = Section::new(table, "", problems);
        let table_of = |key: &str| file.section(key).map(|section| section.into_table());
        let mut verify = table_of("verify");
        // These two may stand beside the section as well.
        for key in ["reject_status", "confirm"] {
            if let (Some(node), Some(verify)) = (file.node(key), &mut verify) {
                verify.entries.push((key.to_owned(), node.place.clone(), node.clone()));
            }
        }
        if verify.is_none() {
            problems.error_hint(
                &table.place,
                format!("provider {name} has no [verify] section"),
                "say how its requests are proved; scheme = \"none\" if they are not",
            );
        }
        let ack = file.section("ack").map(|ack| Ack::read(&ack)).unwrap_or_default();
        Self {
            name: name.to_owned(),
            title: file.required_text("title", "the name people know it by").map_or_else(String::new, |t| t.value),
            docs: file.text("docs").map_or_else(String::new, |t| t.value),
            evidence: file
                .one_of("evidence", &[("sdk", "sdk"), ("doc", "doc"), ("catalogue", "catalogue"), ("recall", "recall")])
                .map_or("recall", |e| e.value)
                .to_owned(),
            verify,
            challenges: file.sections("challenge").into_iter().map(Section::into_table).collect(),
            map: file.section("map").map(|map| Map::read(&map)).unwrap_or_default(),
            ack,
            kinds: file.sections("kind").iter().map(Kind::read).collect(),
            deadline: file.duration("deadline").map(|d| d.value),
            implicit: file.bool("implicit").is_some_and(|implicit| implicit.value),
            repeats: file.bool("repeats").map(|repeats| repeats.value),
            retries: file
                .one_of("retries", &[("never", "never"), ("hours", "hours"), ("days", "days")])
                .map(|r| r.value.to_owned()),
            class: super::source::class(&file),
            max_body: file.bytes("max_body").map(|b| b.value),
            reconcile: file.section("reconcile").and_then(|log| ProviderLog::read(&log)),
            files: file
                .section("attachments")
                .and_then(|files| files.section("fetch"))
                .and_then(|fetch| ChannelFiles::read(&fetch)),
            samples: file.sections("sample").iter().map(Sample::read).collect(),
            place: table.place.clone(),
        }
    }
}

impl Map {
    /// Reads `params_mapping`, `each`, `thread` and `prompt`, wherever they stand.
    pub fn read(section: &Section<'_>) -> Self {
        Self {
            params_mapping: section.text_table("params_mapping").unwrap_or_default(),
            each: section.texts("each"),
            thread: section.text("thread"),
            prompt: section.text("prompt"),
        }
    }
}

impl Kind {
    fn read(section: &Section<'_>) -> Self {
        let when = section.text_table("when").unwrap_or_default();
        let any = section.texts("any").unwrap_or_default();
        if when.is_empty() && any.is_empty() {
            section.problems().error_hint(
                section.place(),
                format!("{} would be every event", section.name()),
                "say which with when = { \"json:type\" = \"4\" } or any = [\"json:edited_message\"]",
            );
        }
        Self {
            name: section.required_text("name", "what such events are called").map_or_else(String::new, |t| t.value),
            when,
            any,
            runs: section
                .one_of(
                    "run",
                    &[("always", Runs::Always), ("unless-humans-only", Runs::Unless), ("never", Runs::Never)],
                )
                .map_or(Runs::Always, |runs| runs.value),
            ack: section.section("ack").map(|ack| Ack::read(&ack)),
        }
    }
}

impl Sample {
    fn read(section: &Section<'_>) -> Self {
        let text = |key: &str, hint: &str| section.required_text(key, hint).map_or_else(String::new, |t| t.value);
        Self {
            name: text("name", "what the provider calls such an event"),
            headers: pairs(section, "headers"),
            body: text("body", "the event as the provider sends it"),
        }
    }
}

/// A table of texts, without places.
fn pairs(section: &Section<'_>, key: &str) -> Vec<(String, String)> {
    let table = section.text_table(key).unwrap_or_default();
    table.into_iter().map(|(name, value)| (name.value, value.value)).collect()
}

impl Ack {
    fn read(section: &Section<'_>) -> Self {
        let status = section.integer("status").and_then(|status| {
            let value = u16::try_from(status.value).ok().filter(|code| (200..300).contains(code));
            if value.is_none() {
                section.problems().error_hint(
                    &status.place,
                    "ack.status must be from 200 to 299",
                    "every other answer counts as a failure with the sender",
                );
            }
            value
        });
        Self { status, text: section.text("text").map(|t| t.value), headers: pairs(section, "headers") }
    }
}
