//! A provider file as written: how one kind of third party signs, what its events mean, what answer it wants.
//!
//! This module knows the shape of the file. `source` compiles `[verify]` and `[[challenge]]`, `mapping` compiles
//! `[map]`; each reports what it cannot compile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::WrittenTable;
use super::chat::ChatConfig;
use super::fetch::FetchRule;
use super::node::Table;
use super::problem::{Located, Place, Problems};
use super::reconcile::ProviderLog;
use super::reply::ReplyConfig;
use super::section::{Section, nearest};
use crate::model::Class;

/// Folder of the provider files that the program brings along.
const SHIPPED: &str = "config/providers/";

/// One provider.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The name sources call it by: the file's name without `.toml`.
    pub name: String,
    /// Other names that people use for it. Each leads to one provider only.
    pub aliases: Vec<Located<String>>,
    /// Name for people.
    pub title: String,
    /// The name of the document that describes the scheme.
    pub docs: String,
    /// Evidence for the scheme: `sdk`, `doc`, `catalogue` or `recall`.
    pub evidence: String,
    /// The `[verify]` section, for `source::Scheme`.
    pub verify: Option<Table>,
    /// The `[[challenge]]` tables, for `source`.
    pub challenges: Vec<Table>,
    /// The `[map]` section: mappings that hold unless the source has its own.
    pub map: Map,
    /// Paths to the sender of an event; the first one with a value counts.
    pub sender: Vec<Located<String>>,
    /// The answer to an accepted event.
    pub ack: Ack,
    /// Kinds of events that are answered in their own way, or that run no agent.
    pub kinds: Vec<Kind>,
    /// Time for which the sender waits for an answer.
    pub deadline: Option<Duration>,
    /// True if a top-level `prompt`, `user_id` and so on of its bodies are parameters, because people fill them in by hand.
    pub implicit: bool,
    /// Whether two requests of the sender may be alike to the last byte of what proves them: its bodies have no id and no
    /// time. Where the file does not say, they may if it names neither.
    pub repeats: Option<bool>,
    /// Class of its events, where people wait for answers to them.
    pub class: Option<Class>,
    /// Time for which the sender tries again: `never`, `hours` or `days`.
    pub retries: Option<String>,
    /// The largest body the sender makes.
    pub max_body: Option<u64>,
    /// The sender's own log of what it sent, where it keeps one that can be read.
    pub reconcile: Option<ProviderLog>,
    /// The parts of its events that make them messages of a chat.
    pub chat: Option<ChatConfig>,
    /// The way an answer goes back to the chat.
    pub reply: Option<ReplyConfig>,
    /// Steps to fetch files that the sender keeps and only names.
    pub files: Option<FetchRule>,
    /// The types of its events, as patterns; empty where nobody has written them down.
    pub types: Vec<String>,
    /// The steps that connect it, for people.
    pub setup: Setup,
    /// Events as the sender makes them, to try a source with.
    pub samples: Vec<Sample>,
    /// The file as it was written, if it is the operator's own: a reload compares it with the one before.
    pub written: Option<WrittenTable>,
    /// Begin of the file, for problems without a better place.
    pub place: Place,
}

/// Mappings of a provider or a source.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// Parameter to path.
    pub params_mapping: Vec<(Located<String>, Located<String>)>,
    /// Paths to the items of a request, each of which is an event; without a path a request is one event.
    pub each: Option<Vec<Located<String>>>,
    /// Paths to the thread; the first one with a value counts.
    pub thread: Vec<Located<String>>,
    /// The prompt template.
    pub prompt: Option<Located<String>>,
}

/// The steps that connect a provider: which page, which field, which secret, which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The page where the webhook is made, or that describes how.
    pub page: Option<String>,
    /// Steps, in order.
    pub steps: Vec<String>,
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
    /// Rule for runs of an agent.
    pub runs: Runs,
    /// The answer to its sender, where it is not that of all events.
    pub ack: Option<Ack>,
}

/// Rule for events of a kind: they run an agent or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// As any other.
    Always,
    /// No human said it: only at sources with `humans_only = false`.
    Unless,
    /// Never: it asks for nothing.
    Never,
}

/// Answer that the sender expects.
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
    /// The provider's name for such an event.
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
        Self {
            name: name.to_owned(),
            aliases: aliases(name, &file),
            title: file
                .required_text("title", "the name people know it by")
                .map_or_else(String::new, |t| t.value),
            docs: file.text("docs").map_or_else(String::new, |t| t.value),
            evidence: evidence(&file),
            verify: verify(name, &file, problems),
            challenges: file
                .sections("challenge")
                .into_iter()
                .map(Section::into_table)
                .collect(),
            map: file
                .section("map")
                .map(|map| Map::read(&map))
                .unwrap_or_default(),
            ack: file
                .section("ack")
                .map(|ack| Ack::read(&ack))
                .unwrap_or_default(),
            sender: file.one_or_more("sender"),
            kinds: file.sections("kind").iter().map(Kind::read).collect(),
            deadline: file.duration("deadline").map(|d| d.value),
            implicit: file.bool("implicit").is_some_and(|implicit| implicit.value),
            repeats: file.bool("repeats").map(|repeats| repeats.value),
            retries: file
                .one_of(
                    "retries",
                    &[("never", "never"), ("hours", "hours"), ("days", "days")],
                )
                .map(|r| r.value.to_owned()),
            class: super::source::class(&file),
            max_body: file.bytes("max_body").map(|b| b.value),
            reconcile: file
                .section("reconcile")
                .and_then(|log| ProviderLog::read(&log)),
            chat: file.section("chat").map(|chat| ChatConfig::read(&chat)),
            reply: file
                .section("reply")
                .and_then(|reply| ReplyConfig::read(&reply)),
            files: file
                .section("attachments")
                .and_then(|files| files.section("fetch"))
                .and_then(|fetch| FetchRule::read(&fetch)),
            types: types(&file),
            setup: file
                .section("setup")
                .map(|setup| Setup::read(&setup))
                .unwrap_or_default(),
            samples: file.sections("sample").iter().map(Sample::read).collect(),
            written: (!table.place.file.starts_with(SHIPPED)).then(|| WrittenTable(table.clone())),
            place: table.place.clone(),
        }
    }
}

/// The `[verify]` section. Two of its keys may stand beside it as well.
fn verify(name: &str, file: &Section<'_>, problems: &Problems) -> Option<Table> {
    let mut verify = file.section("verify").map(Section::into_table);
    for key in ["reject_status", "confirm"] {
        if let (Some(node), Some(verify)) = (file.node(key), &mut verify) {
            verify
                .entries
                .push((key.to_owned(), node.place.clone(), node.clone()));
        }
    }
    if verify.is_none() {
        problems.error_hint(
            file.place(),
            format!("provider {name} has no [verify] section"),
            "say how its requests are proved; scheme = \"none\" if they are not",
        );
    }
    verify
}

fn evidence(file: &Section<'_>) -> String {
    let words = ["sdk", "doc", "catalogue", "recall"].map(|word| (word, word));
    file.one_of("evidence", &words)
        .map_or("recall", |evidence| evidence.value)
        .to_owned()
}

fn types(file: &Section<'_>) -> Vec<String> {
    let types = file
        .section("events")
        .and_then(|events| events.texts("types"))
        .unwrap_or_default();
    types.into_iter().map(|name| name.value).collect()
}

/// The other names of a provider. They are written as the names of files are, so that each reads as one word.
fn aliases(name: &str, file: &Section<'_>) -> Vec<Located<String>> {
    let mut all: Vec<Located<String>> = Vec::new();
    for alias in file.texts("aliases").unwrap_or_default() {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let what = if alias.is_empty() || !alias.chars().all(word) {
            format!(
                "the alias \"{}\" is no name of a provider",
                alias.escape_debug()
            )
        } else if alias.value == name
            || alias.value == "custom"
            || all.iter().any(|known| known.value == alias.value)
        {
            format!("the alias {} is a name already", alias.value)
        } else {
            all.push(alias);
            continue;
        };
        file.problems().error_hint(
            &alias.place,
            what,
            "write another name in small letters, digits and '-'",
        );
    }
    all
}

/// The provider that is called so, by its own name or by another one. A name goes before an alias.
pub fn find_provider<'p>(
    all: &'p BTreeMap<String, Arc<Provider>>,
    name: &str,
) -> Option<&'p Arc<Provider>> {
    all.get(name).or_else(|| {
        all.values()
            .find(|provider| provider.aliases.iter().any(|alias| alias.value == name))
    })
}

/// What somebody may have meant who wrote a name that no provider has: a name with other capitals or marks in it, or
/// one that differs in a letter or two.
pub fn near_provider<'p>(
    all: &'p BTreeMap<String, Arc<Provider>>,
    written: &str,
) -> Option<&'p str> {
    let names = || {
        let of = |provider: &'p Arc<Provider>| {
            std::iter::once(provider.name.as_str())
                .chain(provider.aliases.iter().map(|alias| alias.value.as_str()))
        };
        all.values().flat_map(of)
    };
    let folded = fold(written);
    let alike = names().find(|name| !folded.is_empty() && fold(name) == folded);
    alike.or_else(|| nearest(written, names().chain(["custom"])))
}

/// A name as people remember it: letters and digits, in small letters.
pub fn fold(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Gives the names and aliases of a provider from the operator's folder to it alone: of those compiled in, none keeps
/// them. Two files of the folder must not want the same alias.
pub(super) fn settle_aliases(
    all: &mut BTreeMap<String, Arc<Provider>>,
    own: &[String],
    problems: &Problems,
) {
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    for name in own {
        let Some(provider) = all.get(name) else {
            continue;
        };
        for alias in &provider.aliases {
            if all.contains_key(&alias.value) {
                let what = format!(
                    "the alias {} of provider {name} is the name of another provider",
                    alias.value
                );
                problems.error_hint(&alias.place, what, "leave it out, or rename the other file");
            } else if let Some(other) = taken.insert(alias.value.clone(), name.clone()) {
                let what = format!(
                    "the alias {} of provider {name} is one of {other} as well",
                    alias.value
                );
                problems.error_hint(&alias.place, what, "leave it in one of the two files");
            }
        }
    }
    for provider in all
        .values_mut()
        .filter(|provider| !own.contains(&provider.name))
    {
        if provider
            .aliases
            .iter()
            .any(|alias| taken.contains_key(&alias.value))
        {
            Arc::make_mut(provider)
                .aliases
                .retain(|alias| !taken.contains_key(&alias.value));
        }
    }
}

impl Setup {
    fn read(section: &Section<'_>) -> Self {
        let page = section.text("page").filter(|page| {
            let good = page
                .strip_prefix("https://")
                .is_some_and(|rest| rest.contains('.') && !page.contains(' '));
            if !good {
                let what = format!("setup.page is no address: {:?}", page.value);
                section.problems().error_hint(
                    &page.place,
                    what,
                    "write the whole address, from https:// on",
                );
            }
            good
        });
        let steps = section.texts("steps").unwrap_or_default();
        if steps.is_empty() {
            let hint = "write a sentence for each thing to do: steps = [\"…\"]";
            section
                .problems()
                .error_hint(section.place(), "setup has no steps", hint);
        }
        for step in steps.iter().filter(|step| step.trim().is_empty()) {
            section.problems().error_hint(
                &step.place,
                "a step of setup is empty",
                "write what to do, or leave it out",
            );
        }
        Self {
            page: page.map(|page| page.value),
            steps: steps.into_iter().map(|step| step.value).collect(),
        }
    }
}

impl Map {
    /// Reads `params_mapping`, `each`, `thread` and `prompt`, wherever they stand.
    pub fn read(section: &Section<'_>) -> Self {
        Self {
            params_mapping: section.text_table("params_mapping").unwrap_or_default(),
            each: section.texts("each"),
            thread: section.one_or_more("thread"),
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
            name: section
                .required_text("name", "what such events are called")
                .map_or_else(String::new, |t| t.value),
            when,
            any,
            runs: section
                .one_of(
                    "run",
                    &[
                        ("always", Runs::Always),
                        ("unless-humans-only", Runs::Unless),
                        ("never", Runs::Never),
                    ],
                )
                .map_or(Runs::Always, |runs| runs.value),
            ack: section.section("ack").map(|ack| Ack::read(&ack)),
        }
    }
}

impl Sample {
    fn read(section: &Section<'_>) -> Self {
        let text = |key: &str, hint: &str| {
            section
                .required_text(key, hint)
                .map_or_else(String::new, |t| t.value)
        };
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
    table
        .into_iter()
        .map(|(name, value)| (name.value, value.value))
        .collect()
}

impl Ack {
    fn read(section: &Section<'_>) -> Self {
        let status = section.integer("status").and_then(|status| {
            let value = u16::try_from(status.value)
                .ok()
                .filter(|code| (200..300).contains(code));
            if value.is_none() {
                section.problems().error_hint(
                    &status.place,
                    "ack.status must be from 200 to 299",
                    "every other answer counts as a failure with the sender",
                );
            }
            value
        });
        Self {
            status,
            text: section.text("text").map(|t| t.value),
            headers: pairs(section, "headers"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn config(text: &str, base: &Path) -> (Option<Config>, Vec<String>) {
        let problems = Problems::default();
        let config = Config::parse("t", text, base, std::iter::empty(), &problems);
        (
            config,
            problems
                .into_sorted()
                .iter()
                .map(ToString::to_string)
                .collect(),
        )
    }

    #[test]
    fn every_alias_of_the_shipped_files_leads_to_one_provider() {
        let (config, wrong) = config("", Path::new("."));
        assert_eq!(wrong, Vec::<String>::new());
        let all = config.unwrap().providers;
        let mut seen = BTreeMap::new();
        for provider in all.values() {
            for alias in &provider.aliases {
                assert!(
                    !all.contains_key(&alias.value),
                    "{} is the name of a file, and an alias",
                    alias.value
                );
                let other = seen.insert(alias.value.clone(), provider.name.clone());
                assert_eq!(
                    other, None,
                    "{} is an alias of {} as well",
                    alias.value, provider.name
                );
            }
        }
        for (word, name) in [
            ("lemonsqueezy", "lemon-squeezy"),
            ("customerio", "customer-io"),
            ("teams", "microsoft-teams"),
            ("msteams", "microsoft-teams"),
            ("ms-teams", "microsoft-teams"),
            ("huggingface", "hugging-face"),
            ("facebook", "meta"),
            ("instagram", "meta"),
            ("messenger", "meta"),
            ("ghe", "github"),
            ("hubspot", "hubspot-v3"),
            ("github", "github"),
        ] {
            assert_eq!(
                find_provider(&all, word).map(|provider| provider.name.as_str()),
                Some(name),
                "{word}"
            );
        }
        for (word, near) in [
            ("GitHub", "github"),
            ("MS Teams", "msteams"),
            ("Lemon_Squeezy", "lemon-squeezy"),
            ("gitlb", "gitlab"),
        ] {
            assert_eq!(near_provider(&all, word), Some(near), "{word}");
        }
        assert_eq!(near_provider(&all, "nothing-like-it"), None);
    }

    #[test]
    fn a_source_may_name_a_provider_by_an_alias_and_has_the_files_own_name() {
        let (config, wrong) = config(
            "[sources.s]\nprovider = \"lemonsqueezy\"\nagent = \"a\"",
            Path::new("."),
        );
        assert_eq!(wrong, Vec::<String>::new());
        assert_eq!(
            config
                .unwrap()
                .sources
                .iter()
                .next()
                .unwrap()
                .provider
                .value,
            "lemon-squeezy"
        );
    }

    #[test]
    fn a_file_of_the_operators_takes_its_aliases_and_two_of_them_must_not_want_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, lines: &str| {
            let text = format!("title = \"Own\"\n{lines}\n[verify]\nscheme = \"none\"\n");
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        file("own.toml", "aliases = [\"lemonsqueezy\"]");
        let text = "[providers]\nfolder = \".\"";
        let (found, wrong) = config(text, folder.path());
        assert_eq!(wrong, Vec::<String>::new());
        let all = found.unwrap().providers;
        assert_eq!(find_provider(&all, "lemonsqueezy").unwrap().name, "own");
        assert_eq!(
            find_provider(&all, "lemon-squeezy").unwrap().name,
            "lemon-squeezy"
        );

        file(
            "other.toml",
            "aliases = [\"lemonsqueezy\", \"github\", \"Other Name\", \"other\", \"custom\"]",
        );
        let wrong = config(text, folder.path()).1.join("\n");
        for part in [
            "the alias lemonsqueezy of provider own is one of other as well",
            "the alias github of provider other is the name of another provider",
            "the alias \"Other Name\" is no name of a provider",
            "the alias other is a name already",
            "the alias custom is a name already",
        ] {
            assert!(wrong.contains(part), "{part}: {wrong}");
        }
    }

    #[test]
    fn the_steps_of_a_setup_are_read_strictly() {
        let read = |lines: &str| {
            let problems = Problems::default();
            let text = format!("title = \"P\"\n[verify]\nscheme = \"none\"\n[setup]\n{lines}");
            let provider =
                Provider::read("p", &Table::parse("p.toml", &text, &problems), &problems);
            (
                provider.setup,
                problems
                    .into_sorted()
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n"),
            )
        };
        let (setup, wrong) =
            read("page = \"https://example.com/hooks\"\nsteps = [\"Open it.\", \"Save.\"]");
        assert_eq!(wrong, "");
        assert_eq!(
            (setup.page.as_deref(), setup.steps.len()),
            (Some("https://example.com/hooks"), 2)
        );
        for (lines, part) in [
            (
                "page = \"example.com\"\nsteps = [\"a\"]",
                "setup.page is no address",
            ),
            ("page = \"https://example.com\"", "setup has no steps"),
            ("steps = [\"a\", \" \"]", "a step of setup is empty"),
            ("steps = [\"a\"]\nstep = \"b\"", "step"),
        ] {
            let wrong = read(lines).1;
            assert!(wrong.contains(part), "{lines}: {wrong}");
        }
    }
}
