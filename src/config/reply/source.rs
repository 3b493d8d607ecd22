//! The `reply` of a source as written: `reply = true`, or a table of what a source wants otherwise.

use std::path::Path;
use std::time::Duration;

use http::Uri;

use super::address;
use super::{AddressConfig, ReplyConfig, TextPair};
use crate::config::node::Value;
use crate::config::problem::{Located, Place};
use crate::config::secret::Secret;
use crate::config::section::Section;

/// `[sources.NAME.reply]`
#[derive(Clone, Debug)]
pub struct SourceReply {
    /// Place of the key or the table.
    pub place: Place,
    /// The token of the channel.
    pub token: Option<Secret>,
    /// Name of a client, an account or an app, for channels that know callers by a name.
    pub client_id: Option<Secret>,
    /// The secret or the password that belongs to the name.
    pub client_secret: Option<Secret>,
    /// A private key, for channels that make tokens of one or sign with it.
    pub key: Option<Secret>,
    /// Another host than that of the provider's file.
    pub api: Option<Uri>,
    /// Values that the provider's file asks for.
    pub values: Vec<TextPair>,
    /// Places of the event that win over those of the provider's file.
    pub to: Vec<AddressConfig>,
    /// Path or template of what is posted.
    pub result: Option<Located<String>>,
    /// True if every message is meant for us, also in a group without a mention.
    pub is_always_addressed: bool,
    /// Ids of programs that count as people.
    pub bots: Vec<Located<String>>,
    /// True if an edit of a message is a new message.
    pub edits_are_new: bool,
    /// Answers that refer to the message.
    pub quote: Option<QuoteRule>,
    /// Rule for threads of a chat.
    pub thread: ChatThreads,
    /// True if a sign of typing is shown.
    pub typing: bool,
    /// True if the message is marked.
    pub mark: bool,
    /// Message that stands until the answer is there.
    pub placeholder: Option<PlaceholderConfig>,
    /// True if the answer is shown as it grows.
    pub stream: bool,
    /// True if the answer takes the place of a message that was sent before, so that no second one can be made.
    pub exactly_by_edit: bool,
    /// Another dialect.
    pub format: Option<Located<String>>,
    /// Another number of messages.
    pub max_parts: Option<usize>,
    /// Rule for an answer with more messages.
    pub overflow: OverflowRule,
    /// True if users may be notified by the answer.
    pub mentions: bool,
    /// True if links and images are previewed.
    pub previews: bool,
    /// Sentences for ends without an answer.
    pub sentences: ReplySentences,
    /// The longest time from the event to a send.
    pub max_age: Duration,
    /// True if a part that may have been sent is sent once more.
    pub repeats_unknown: bool,
    /// Number of times that a chain of our own posts may come back.
    pub hops: u32,
}

/// Answers that refer to the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteRule {
    /// The first part of each.
    First,
    /// Every part.
    All,
    /// No part.
    Never,
}

/// Rule for threads of a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatThreads {
    /// The answer stays in the thread of the message.
    Keep,
    /// A mention starts a thread.
    Start,
    /// The answer goes to the chat itself.
    None,
}

/// Rule for an answer with too many messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverflowRule {
    /// The whole answer as a file.
    File,
    /// A link to the whole answer.
    Link,
    /// The beginning, with a sentence that says so.
    Cut,
}

/// Message that stands until the answer is there.
#[derive(Clone, Debug)]
pub struct PlaceholderConfig {
    /// The message.
    pub text: Located<String>,
    /// Time after which it is sent.
    pub after: Duration,
    /// The message while others are before it.
    pub queued: Option<Located<String>>,
}

/// Sentences for ends without an answer. An empty one is silence; none is the usual sentence.
#[derive(Clone, Debug, Default)]
pub struct ReplySentences {
    /// For a run that failed.
    pub on_failure: Option<String>,
    /// For an empty answer.
    pub on_empty: Option<String>,
    /// For a run that waits for somebody.
    pub on_paused: Option<String>,
    /// For a message that is not allowed.
    pub on_refused: Option<String>,
}

/// Time after which an answer is not posted any more, where a source says nothing.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

impl SourceReply {
    /// Reads the key `reply` of a source; nothing where it is absent or false.
    pub fn read(source: &Section<'_>, base: &Path) -> Option<Self> {
        let node = source.node("reply")?;
        match &node.value {
            Value::Table(_) => {
                let section = source.section("reply")?;
                Some(Self::of_table(&section, base))
            }
            Value::Bool(false) => None,
            Value::Bool(true) => {
                let table = crate::config::node::Table::empty(node.place.clone());
                let section = Section::new(&table, source.path("reply"), source.problems());
                Some(Self::of_table(&section, base))
            }
            other => {
                let what = format!(
                    "{} must be true or a table, not {}",
                    source.path("reply"),
                    other.kind()
                );
                source.problems().error(&node.place, what);
                None
            }
        }
    }

    fn of_table(section: &Section<'_>, base: &Path) -> Self {
        let flag = |key: &str| section.bool(key).map(|flag| flag.value);
        let to = match section.has("to") {
            true => address::read(section).0,
            false => Vec::new(),
        };
        let edits = section.one_of("edits", &[("ignore", false), ("new", true)]);
        let addressed = section.one_of("addressed", &[("mention", false), ("always", true)]);
        let unknown = section.one_of("on_unknown", &[("hold", false), ("retry", true)]);
        let exactly = section.one_of("exactly", &[("edit", ())]);
        Self {
            place: section.place().clone(),
            token: section.secret("token", base),
            client_id: section.secret("client_id", base),
            client_secret: section.secret("client_secret", base),
            key: section.secret("key", base),
            api: section.api("api"),
            values: section.text_table("values").unwrap_or_default(),
            to,
            result: section.text("result"),
            is_always_addressed: addressed.is_some_and(|always| always.value),
            bots: section.texts("bots").unwrap_or_default(),
            edits_are_new: edits.is_some_and(|edits| edits.value),
            quote: quote(section),
            thread: threads(section),
            typing: flag("typing").unwrap_or(true),
            mark: flag("mark").unwrap_or(true),
            placeholder: section.section("placeholder").and_then(|table| {
                let (after, queued) = (table.duration("after"), table.text("queued"));
                Some(PlaceholderConfig {
                    text: table.required_text("text", "write the message")?,
                    after: after.map_or(Duration::from_secs(8), |after| after.value),
                    queued,
                })
            }),
            stream: flag("stream").unwrap_or(false),
            exactly_by_edit: exactly.is_some(),
            format: section.text("format"),
            max_parts: count(section, "max_parts"),
            overflow: overflow(section),
            mentions: flag("mentions").unwrap_or(false),
            previews: flag("previews").unwrap_or(false),
            sentences: ReplySentences::read(section),
            max_age: section.duration("max_age").map_or(MAX_AGE, |age| age.value),
            repeats_unknown: unknown.is_some_and(|unknown| unknown.value),
            hops: count(section, "hops")
                .and_then(|hops| u32::try_from(hops).ok())
                .unwrap_or(3),
        }
    }
}

impl SourceReply {
    /// The section of the provider's file with what this source wants otherwise.
    pub fn over(&self, provider: &ReplyConfig) -> ReplyConfig {
        let mut whole = provider.clone();
        for own in &self.to {
            match whole
                .to
                .iter_mut()
                .find(|name| name.name.value == own.name.value)
            {
                Some(name) => *name = own.clone(),
                None => whole.to.push(own.clone()),
            }
        }
        if let Some(api) = &self.api {
            whole.api = Some(api.clone());
        }
        if let Some(format) = &self.format {
            whole.format = format.clone();
        }
        if let Some(parts) = self.max_parts {
            whole.limits.max_parts = parts;
        }
        whole
    }
}

impl ReplySentences {
    fn read(section: &Section<'_>) -> Self {
        let sentence = |key: &str| section.text(key).map(|text| text.value);
        Self {
            on_failure: sentence("on_failure"),
            on_empty: sentence("on_empty"),
            on_paused: sentence("on_paused"),
            on_refused: sentence("on_refused"),
        }
    }
}

fn count(section: &Section<'_>, key: &str) -> Option<usize> {
    let number = section.integer(key)?;
    let fits = usize::try_from(number.value)
        .ok()
        .filter(|count| *count > 0);
    if fits.is_none() {
        let what = format!("{} must be at least 1", section.path(key));
        section.problems().error(&number.place, what);
    }
    fits
}

fn quote(section: &Section<'_>) -> Option<QuoteRule> {
    let words = [
        ("first", QuoteRule::First),
        ("all", QuoteRule::All),
        ("never", QuoteRule::Never),
    ];
    section.one_of("quote", &words).map(|quote| quote.value)
}

fn threads(section: &Section<'_>) -> ChatThreads {
    let words = [
        ("keep", ChatThreads::Keep),
        ("start", ChatThreads::Start),
        ("none", ChatThreads::None),
    ];
    let thread = section.one_of("thread", &words);
    thread.map_or(ChatThreads::Keep, |thread| thread.value)
}

fn overflow(section: &Section<'_>) -> OverflowRule {
    let words = [
        ("file", OverflowRule::File),
        ("link", OverflowRule::Link),
        ("cut", OverflowRule::Cut),
    ];
    let overflow = section.one_of("overflow", &words);
    overflow.map_or(OverflowRule::Cut, |overflow| overflow.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Problems, Table};

    fn read(text: &str) -> (Option<SourceReply>, Vec<String>) {
        let problems = Problems::default();
        let table = Table::parse("gate.toml", text, &problems);
        let reply = {
            let section = Section::new(&table, "sources.a", &problems);
            SourceReply::read(&section, Path::new("."))
        };
        let list = problems.into_sorted();
        (reply, list.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn true_is_all_that_a_source_without_a_secret_needs() {
        let (reply, problems) = read("reply = true");
        let reply = reply.unwrap();
        assert!(problems.is_empty() && reply.typing && !reply.repeats_unknown);
        assert_eq!((reply.max_age, reply.hops), (MAX_AGE, 3));
        assert!(read("reply = false").0.is_none() && read("").0.is_none());
    }

    #[test]
    fn a_table_changes_what_it_names_and_hides_its_token() {
        let (reply, problems) = read(
            "[reply]\ntoken = 'literal:T0KEN-T0KEN-T0KEN'\nthread = 'start'\nquote = 'never'\non_unknown = 'retry'\nmax_age = '1h'\nto.chat = 'json:room'\non_empty = ''\nplaceholder = { text = 'one moment' }",
        );
        let reply = reply.unwrap();
        assert!(
            problems.iter().all(|line| line.contains("warning")),
            "{problems:?}"
        );
        assert_eq!(reply.thread, ChatThreads::Start);
        assert_eq!(reply.quote, Some(QuoteRule::Never));
        assert!(reply.repeats_unknown && reply.to.len() == 1);
        assert_eq!(reply.sentences.on_empty.as_deref(), Some(""));
        assert!(!format!("{reply:?}").contains("T0KEN-T0KEN"));
    }

    #[test]
    fn every_mistake_of_a_table_is_named() {
        let (_, problems) = read(
            "[reply]\ntokn = 'env:X'\nhops = 0\noverflow = 'drop'\nplaceholder = { after = '1s' }",
        );
        let all = problems.join("\n");
        for part in [
            "did you mean token?",
            "hops must be at least 1",
            "overflow must be one of",
            "placeholder.text is missing",
        ] {
            assert!(all.contains(part), "{part} in\n{all}");
        }
        assert!(read("reply = 'yes'").1[0].contains("must be true or a table"));
    }
}
