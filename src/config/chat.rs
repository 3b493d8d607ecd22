//! The `[chat]` section of a provider file as written: the parts of an event that make it a message of a chat.
//!
//! This file knows the shape of the section: places, templates and patterns are texts here. A source without `reply` does
//! not use it.

use std::time::Duration;

use super::node::Value;
use super::problem::Located;
use super::reply::TextPair;
use super::section::Section;

/// The `[chat]` section of a provider file.
#[derive(Clone, Debug, Default)]
pub struct ChatConfig {
    /// Paths to the messages of a request, where one holds several.
    pub each: Vec<Located<String>>,
    /// Places of the id of a message.
    pub event_id: Vec<Located<String>>,
    /// Places of a second id under which the same message may come.
    pub also: Vec<Located<String>>,
    /// Types of events that are messages; every type where nothing is said.
    pub events: Vec<Located<String>>,
    /// Events that are no message for an agent, with the reason.
    pub skip: Vec<SkipConfig>,
    /// Way to know our own id and name.
    pub own: Option<OwnAccount>,
    /// Templates of the conversation. The first one whose conditions fit counts.
    pub thread: Vec<ThreadConfig>,
    /// Template of the chat, whose messages share a pace.
    pub chat: Option<Located<String>>,
    /// Paths to the text.
    pub text: Vec<Located<String>>,
    /// Paths to the text that the message answers.
    pub quoted: Vec<Located<String>>,
    /// Paths to the id of the sender.
    pub user_id: Vec<Located<String>>,
    /// Paths to the name of the sender.
    pub user_name: Vec<Located<String>>,
    /// Paths to the mail address of the sender.
    pub user_email: Vec<Located<String>>,
    /// Places and patterns of a private chat.
    pub direct: Vec<TextPair>,
    /// Signs that a message is meant for us; one of them is enough.
    pub addressed: Vec<AddressedConfig>,
    /// Pieces that are cut from the text.
    pub strip: Vec<StripConfig>,
    /// Rule for messages that come in several requests.
    pub gather: Option<GatherConfig>,
    /// Places of the old and the new id of a chat that has moved.
    pub moved: Option<(Located<String>, Located<String>)>,
}

/// Events that are no message for an agent.
#[derive(Clone, Debug)]
pub struct SkipConfig {
    /// Places and patterns that must all fit.
    pub when: Vec<TextPair>,
    /// The reason, which is kept with the event.
    pub why: SkipReason,
}

/// Reason why an event of a chat runs no agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// It is a message of ours, or an echo of one.
    Own,
    /// Another program wrote it.
    Bot,
    /// It changes an earlier message.
    Edit,
    /// It reports that a message was sent, delivered or read.
    Receipt,
    /// It reports a change of the chat: joined, left, pinned, renamed.
    Service,
}

/// Way to know the account that the gateway writes with.
#[derive(Clone, Debug)]
pub enum OwnAccount {
    /// The channel is asked once: the target, and paths in its answer.
    Asked {
        /// Target of the question.
        get: Located<String>,
        /// Path to the id.
        id: Located<String>,
        /// Path to the name.
        name: Option<Located<String>>,
    },
    /// The source's values `self_id` and `self_name`.
    OfSource,
}

/// Template of a conversation.
#[derive(Clone, Debug)]
pub struct ThreadConfig {
    /// Places and patterns that must all fit.
    pub when: Vec<TextPair>,
    /// The template.
    pub is: Located<String>,
}

/// Sign that a message is meant for us.
#[derive(Clone, Debug)]
pub enum AddressedConfig {
    /// The text mentions this name or id.
    Mention(Located<String>),
    /// The text is a command to this name.
    Command(Located<String>),
    /// Places and patterns that must all fit.
    When(Vec<TextPair>),
}

/// Piece that is cut from the text of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StripConfig {
    /// The mention of us.
    Mention,
    /// The command and its name.
    Command,
    /// Every match of a regular expression, between slashes.
    Pattern(Located<String>),
}

/// Rule for messages that come in several requests.
#[derive(Clone, Debug)]
pub struct GatherConfig {
    /// Path to the name of the group.
    pub by: Located<String>,
    /// Time without another message of the group after which it is whole.
    pub quiet: Duration,
    /// The longest time for which the first one is held.
    pub most: Duration,
}

impl ChatConfig {
    /// Reads the section. Parts with mistakes are left out, and the mistakes are problems.
    pub fn read(section: &Section<'_>) -> Self {
        Self {
            each: section.one_or_more("each"),
            event_id: section.one_or_more("event_id"),
            also: section.one_or_more("also"),
            events: section.one_or_more("events"),
            skip: skip(section),
            own: own(section),
            thread: thread(section),
            chat: section.text("chat"),
            text: section.one_or_more("text"),
            quoted: section.one_or_more("quoted"),
            user_id: section.one_or_more("user_id"),
            user_name: section.one_or_more("user_name"),
            user_email: section.one_or_more("user_email"),
            direct: section.text_table("direct").unwrap_or_default(),
            addressed: addressed(section),
            strip: strip(section),
            gather: section.section("gather").and_then(|gather| {
                let (quiet, most) = (gather.duration("quiet"), gather.duration("most"));
                Some(GatherConfig {
                    by: gather.required_text("by", "write the path to the name of the group")?,
                    quiet: quiet.map_or(Duration::from_secs(2), |quiet| quiet.value),
                    most: most.map_or(Duration::from_secs(15), |most| most.value),
                })
            }),
            moved: section.section("moved").and_then(|moved| {
                let hint = "write the place of the id";
                let (from, to) = (
                    moved.required_text("from", hint),
                    moved.required_text("to", hint),
                );
                from.zip(to)
            }),
        }
    }
}

fn skip(section: &Section<'_>) -> Vec<SkipConfig> {
    let read = |table: &Section<'_>| {
        let when = table.text_table("when").unwrap_or_default();
        let words = [
            ("own", SkipReason::Own),
            ("bot", SkipReason::Bot),
            ("edit", SkipReason::Edit),
            ("receipt", SkipReason::Receipt),
            ("service", SkipReason::Service),
        ];
        let why = table.one_of("why", &words);
        for (is_missing, key) in [(when.is_empty(), "when"), (!table.has("why"), "why")] {
            if is_missing {
                let what = format!("{} has no {key}", table.name());
                let hint =
                    "write for example { when = { \"json:bot\" = \"true\" }, why = \"bot\" }";
                table.problems().error_hint(table.place(), what, hint);
            }
        }
        Some(SkipConfig {
            when,
            why: why?.value,
        })
    };
    section.sections("skip").iter().filter_map(read).collect()
}

fn own(section: &Section<'_>) -> Option<OwnAccount> {
    let table = section.section("self")?;
    if table.has("from") {
        let from = table.one_of("from", &[("source", ())]);
        return from.map(|_| OwnAccount::OfSource);
    }
    let (get, id) = (
        table.required_text("get", "write the target that says who we are"),
        table.required_text("id", "write the path to the id in its answer"),
    );
    let name = table.text("name");
    Some(OwnAccount::Asked {
        get: get?,
        id: id?,
        name,
    })
}

fn thread(section: &Section<'_>) -> Vec<ThreadConfig> {
    if let Some(Value::Text(_)) = section.node("thread").map(|node| &node.value) {
        let is = section.text("thread");
        let always = |is| ThreadConfig {
            when: Vec::new(),
            is,
        };
        return is.map(always).into_iter().collect();
    }
    let read = |table: &Section<'_>| {
        let when = table.text_table("when").unwrap_or_default();
        let is = table.required_text("is", "write the template of the conversation")?;
        Some(ThreadConfig { when, is })
    };
    section.sections("thread").iter().filter_map(read).collect()
}

fn addressed(section: &Section<'_>) -> Vec<AddressedConfig> {
    let items = section.sections("addressed");
    let read = |table: Section<'_>| {
        if table.has("mention") {
            return table.text("mention").map(AddressedConfig::Mention);
        }
        if table.has("command") {
            return table.text("command").map(AddressedConfig::Command);
        }
        // Every key of such a table is a place, so it is read as the tables of conditions are.
        let whole = table.into_table();
        let pairs = whole.entries.into_iter().filter_map(|(name, place, node)| {
            let Value::Text(text) = node.value else {
                let what = "the pattern of a condition must be a text";
                section.problems().error(&node.place, what);
                return None;
            };
            let (name, text) = (
                Located { value: name, place },
                Located {
                    value: text,
                    place: node.place,
                },
            );
            Some((name, text))
        });
        Some(AddressedConfig::When(pairs.collect()))
    };
    items.into_iter().filter_map(read).collect()
}

fn strip(section: &Section<'_>) -> Vec<StripConfig> {
    let read = |word: Located<String>| match word.as_str() {
        "mention" => Some(StripConfig::Mention),
        "command" => Some(StripConfig::Command),
        text if text.len() > 2 && text.starts_with('/') && text.ends_with('/') => {
            Some(StripConfig::Pattern(word))
        }
        _ => {
            let what = format!("nothing is cut by \"{}\"", word.escape_debug());
            let hint = "write \"mention\", \"command\" or a pattern between slashes";
            section.problems().error_hint(&word.place, what, hint);
            None
        }
    };
    let words = section.one_or_more("strip");
    words.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Problems, Table};

    fn read(text: &str) -> (ChatConfig, Vec<String>) {
        let problems = Problems::default();
        let table = Table::parse("chat.toml", text, &problems);
        let chat = {
            let section = Section::new(&table, "chat", &problems);
            ChatConfig::read(&section)
        };
        let list = problems.into_sorted();
        (chat, list.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_whole_section_is_read() {
        let (chat, problems) = read(
            r#"
events    = ["message"]
thread    = [{ when = { "json:*.is_topic_message" = "true" }, is = "{chat}/{topic}" }, { is = "{chat}" }]
chat      = "{chat}"
text      = ["*.text", "*.caption"]
user_id   = "*.from.id"
direct    = { "json:*.chat.type" = "private" }
addressed = [{ mention = "{self.name}" }, { "json:*.reply_to_message.from.id" = "{self.id}" }, { command = "{self.name}" }]
strip     = ["mention", "/^x/"]
skip      = [{ when = { "json:*.from.is_bot" = "true" }, why = "bot" }]
self      = { get = "/bot{token}/getMe", id = "result.id", name = "result.username" }
gather    = { by = "*.media_group_id", quiet = "2s", most = "15s" }
moved     = { from = "json:a", to = "json:b" }
"#,
        );
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!((chat.thread.len(), chat.text.len()), (2, 2));
        assert!(matches!(chat.addressed[1], AddressedConfig::When(ref pairs) if pairs.len() == 1));
        assert_eq!(chat.skip[0].why, SkipReason::Bot);
        assert!(matches!(chat.own, Some(OwnAccount::Asked { .. })));
        assert_eq!(
            chat.gather.map(|gather| gather.most),
            Some(Duration::from_secs(15))
        );
        assert!(chat.moved.is_some());
    }

    #[test]
    fn every_mistake_of_a_section_is_named() {
        let (_, problems) = read(
            "thread = [{ when = { a = 'b' } }]\nstrip = 'mentions'\nskip = [{ why = 'odd' }]\nself = { get = '/me' }\ngather = { quiet = '1s' }\ntexts = 'x'\n",
        );
        let all = problems.join("\n");
        for part in [
            "chat.thread[0].is is missing",
            "nothing is cut by \"mentions\"",
            "chat.skip[0] has no when",
            "chat.skip[0].why must be one of",
            "chat.self.id is missing",
            "chat.gather.by is missing",
            "did you mean text?",
        ] {
            assert!(all.contains(part), "{part} in\n{all}");
        }
    }
}
