//! Reading a table key by key. What is wrong is noted with its place and reading goes on, so that one run of
//! `sluicegate check` names everything.
//!
//! A key that nobody asked for is a problem too; it is noted when the section is dropped.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use http::Uri;

use super::node::{Node, Table, Value};
use super::problem::{Located, Place, Problems};
use super::secret::Secret;
use super::unit::{self, Rate};
use crate::model::block::InvalidBlock;
use crate::model::{Block, CertificatePattern, InvalidPattern, Timestamp};

/// One table, being read.
pub struct Section<'a> {
    table: &'a Table,
    name: String,
    asked: RefCell<HashSet<String>>,
    problems: &'a Problems,
}

impl<'a> Section<'a> {
    /// Begins to read a table; `name` is its dotted path in the document, empty for the whole.
    pub fn new(table: &'a Table, name: impl Into<String>, problems: &'a Problems) -> Self {
        Self {
            table,
            name: name.into(),
            asked: RefCell::default(),
            problems,
        }
    }

    /// Place at which the table begins.
    pub const fn place(&self) -> &'a Place {
        &self.table.place
    }

    /// Collector of problems.
    pub const fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// Its dotted path in the document.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The keys that stand in it, in the order of the file.
    pub fn keys(&self) -> impl Iterator<Item = (&'a str, &'a Place)> + use<'a> {
        self.table
            .entries
            .iter()
            .map(|(key, place, _)| (key.as_str(), place))
    }

    /// True if the table has a key. The key counts as known from then on.
    pub fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// Whether a key that nobody asks for stands where this one is missing, and is probably meant to be it. It is told of
    /// once, as what it is.
    pub fn is_misspelt(&self, key: &str) -> bool {
        let asked = self.asked.borrow();
        let mut others = self.table.entries.iter().map(|(name, ..)| name.as_str());
        self.table.get(key).is_none()
            && others
                .any(|name| !asked.contains(name) && nearest(name, [key].into_iter()).is_some())
    }

    /// A value as it stands, for readers of their own.
    pub fn node(&self, key: &str) -> Option<&'a Node> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.table.get(key)
    }

    /// Reads a text.
    pub fn text(&self, key: &str) -> Option<Located<String>> {
        self.read(key, "a text", |value| match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// A text that must be there and not be empty.
    pub fn required_text(&self, key: &str, hint: &str) -> Option<Located<String>> {
        match self.text(key) {
            Some(text) if text.is_empty() => {
                self.problems
                    .error_hint(&text.place, format!("{} is empty", self.path(key)), hint);
                None
            }
            Some(text) => Some(text),
            None => {
                if !self.has(key) && !self.is_misspelt(key) {
                    self.problems.error_hint(
                        self.place(),
                        format!("{} is missing", self.path(key)),
                        hint,
                    );
                }
                None
            }
        }
    }

    /// A whole number that is not negative.
    pub fn integer(&self, key: &str) -> Option<Located<u64>> {
        self.read(
            key,
            "a whole number that is not negative",
            |value| match value {
                Value::Integer(number) => u64::try_from(*number).ok(),
                _ => None,
            },
        )
    }

    /// True or false.
    pub fn bool(&self, key: &str) -> Option<Located<bool>> {
        self.read(key, "true or false", |value| match value {
            Value::Bool(yes) => Some(*yes),
            _ => None,
        })
    }

    /// A span of time.
    pub fn duration(&self, key: &str) -> Option<Located<Duration>> {
        self.read(
            key,
            "a time like \"30s\", \"5min\" or \"2h\"",
            |value| match value {
                Value::Text(text) => unit::duration(text),
                _ => None,
            },
        )
    }

    /// A moment: a date, which is its beginning in UTC, or a date with a time.
    pub fn time(&self, key: &str) -> Option<Located<Timestamp>> {
        self.read(
            key,
            "a date like 2026-12-31 or a time like 2026-12-31T12:00:00Z",
            |value| match value {
                Value::Text(text) | Value::Time(text) => unit::time(text),
                _ => None,
            },
        )
    }

    /// A size in bytes.
    pub fn bytes(&self, key: &str) -> Option<Located<u64>> {
        self.read(
            key,
            "a size like \"1MiB\" or \"512KiB\"",
            |value| match value {
                Value::Text(text) => unit::bytes(text),
                Value::Integer(number) => u64::try_from(*number).ok(),
                _ => None,
            },
        )
    }

    /// Reads a rate.
    pub fn rate(&self, key: &str) -> Option<Located<Rate>> {
        self.read(
            key,
            "a rate like \"100/s\" or \"600/min\"",
            |value| match value {
                Value::Text(text) => unit::rate(text),
                _ => None,
            },
        )
    }

    /// Anything that reads itself from text, such as a socket address.
    pub fn parsed<T: std::str::FromStr>(&self, key: &str, what: &str) -> Option<Located<T>> {
        self.read(key, what, |value| match value {
            Value::Text(text) => text.parse().ok(),
            _ => None,
        })
    }

    /// One of a few words.
    pub fn one_of<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<Located<T>> {
        let listed = words
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect::<Vec<_>>()
            .join(", ");
        self.read(key, &format!("one of {listed}"), |value| match value {
            Value::Text(text) => words
                .iter()
                .find(|(word, _)| word == text)
                .map(|(_, meaning)| *meaning),
            _ => None,
        })
    }

    /// A list of texts; one text alone is a list of one.
    pub fn texts(&self, key: &str) -> Option<Vec<Located<String>>> {
        let node = self.node(key)?;
        let items = match &node.value {
            Value::Text(_) => std::slice::from_ref(node),
            Value::List(items) => items.as_slice(),
            other => {
                self.wrong(key, &node.place, "a list of texts", other);
                return None;
            }
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match &item.value {
                Value::Text(text) => texts.push(Located {
                    value: text.clone(),
                    place: item.place.clone(),
                }),
                other => self.wrong(key, &item.place, "a list of texts", other),
            }
        }
        Some(texts)
    }

    /// A text, or a list of them.
    pub fn one_or_more(&self, key: &str) -> Vec<Located<String>> {
        match self.node(key).map(|node| &node.value) {
            Some(Value::Text(_)) => self.text(key).into_iter().collect(),
            _ => self.texts(key).unwrap_or_default(),
        }
    }

    /// A list of addresses and blocks of them.
    pub fn blocks(&self, key: &str) -> Option<Vec<Block>> {
        let mut blocks = Vec::new();
        for text in self.texts(key)? {
            match text.parse() {
                Ok(block) => blocks.push(block),
                Err(InvalidBlock) => self.problems.error_hint(
                    &text.place,
                    format!("{} has \"{}\" in it, which is no address", self.path(key), text.escape_debug()),
                    "write addresses (\"192.0.2.7\") or blocks of them (\"10.0.0.0/8\", \"2001:db8::/32\")",
                ),
            }
        }
        Some(blocks)
    }

    /// A list of patterns for client certificates.
    pub fn certificate_patterns(&self, key: &str) -> Vec<Located<CertificatePattern>> {
        let mut patterns = Vec::new();
        for text in self.texts(key).unwrap_or_default() {
            match text.parse() {
                Ok(value) => patterns.push(Located {
                    value,
                    place: text.place,
                }),
                Err(InvalidPattern) => self.problems.error_hint(
                    &text.place,
                    format!(
                        "{} has \"{}\" in it, which is not a pattern for certificates",
                        self.path(key),
                        text.escape_debug()
                    ),
                    "write \"dns:NAME\", \"uri:…\", \"email:…\", \"ip:…\", \"cn:…\", \"subject:…\", \"sha256:FINGERPRINT\" or \"any\"",
                ),
            }
        }
        patterns
    }

    /// The address of a host that a token may be shown to; nothing but a path may follow it.
    pub fn api(&self, key: &str) -> Option<Uri> {
        let written = self.text(key)?;
        let wrong = |what: &str, hint: &str| {
            self.problems()
                .error_hint(&written.place, format!("{} {what}", self.path(key)), hint);
            None
        };
        let whole = |uri: &Uri| {
            uri.authority()
                .is_some_and(|host| !host.as_str().contains('@'))
                && uri.query().is_none()
        };
        let Some(uri) = written.value.parse::<Uri>().ok().filter(whole) else {
            return wrong(
                "is no address",
                "write for example \"https://api.example.com\"; a path after the host is kept",
            );
        };
        let local = uri.host().is_some_and(|host| {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        });
        match uri.scheme_str() {
            Some("https") => Some(uri),
            Some("http") if local => Some(uri),
            Some("http") => wrong(
                "would show the token to everybody on the way",
                "write https://",
            ),
            _ => wrong(
                "is no address",
                "write for example \"https://api.example.com\"",
            ),
        }
    }

    /// A table of texts, in the order of the file. Numbers and truth values are taken as their text.
    pub fn text_table(&self, key: &str) -> Option<Vec<(Located<String>, Located<String>)>> {
        let section = self.section(key)?;
        let mut pairs = Vec::new();
        for (name, place, node) in &section.table.entries {
            section.asked.borrow_mut().insert(name.clone());
            let text = match &node.value {
                Value::Text(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                Value::Bool(yes) => yes.to_string(),
                other => {
                    section.wrong(name, &node.place, "a text", other);
                    continue;
                }
            };
            pairs.push((
                Located {
                    value: name.clone(),
                    place: place.clone(),
                },
                Located {
                    value: text,
                    place: node.place.clone(),
                },
            ));
        }
        Some(pairs)
    }

    /// A secret; `base` is the folder that `file:` paths start from.
    pub fn secret(&self, key: &str, base: &Path) -> Option<Secret> {
        let written = self.text(key)?;
        Secret::resolve(&written, 0, base, self.problems)
    }

    /// A list of secrets.
    pub fn secrets(&self, key: &str, base: &Path) -> Option<Vec<Located<Secret>>> {
        let written = self.texts(key)?;
        Some(
            written
                .iter()
                .enumerate()
                .filter_map(|(number, text)| {
                    let value = Secret::resolve(text, number, base, self.problems)?;
                    Some(Located {
                        value,
                        place: text.place.clone(),
                    })
                })
                .collect(),
        )
    }

    /// A list of secrets, each a text or a table with `value` and perhaps `name` and `until`.
    pub fn dated_secrets(&self, key: &str, base: &Path) -> Option<Vec<Located<Secret>>> {
        let node = self.node(key)?;
        let items = match &node.value {
            Value::List(items)
                if items
                    .iter()
                    .any(|item| matches!(item.value, Value::Table(_))) =>
            {
                items
            }
            Value::Table(_) => std::slice::from_ref(node),
            _ => return self.secrets(key, base),
        };
        let read = |(number, item): (usize, &Node)| {
            let written = |text: &str| Located {
                value: text.to_owned(),
                place: item.place.clone(),
            };
            let value = match &item.value {
                Value::Text(text) => Secret::resolve(&written(text), number, base, self.problems)?,
                Value::Table(table) => {
                    let section = Section::new(
                        table,
                        format!("{}[{number}]", self.path(key)),
                        self.problems,
                    );
                    let (name, until) = (section.text("name"), section.time("until"));
                    let value = section
                        .required_text("value", "say where it is kept: env:NAME or file:PATH")?;
                    let secret = Secret::resolve(&value, number, base, self.problems)?;
                    let name = name.map(|name| name.value).filter(|name| !name.is_empty());
                    secret.called(name, until.map(|until| until.value))
                }
                other => {
                    self.wrong(key, &item.place, "a list of texts and tables", other);
                    return None;
                }
            };
            Some(Located {
                value,
                place: item.place.clone(),
            })
        };
        let all: Vec<Located<Secret>> = items.iter().enumerate().filter_map(read).collect();
        for (at, secret) in all.iter().enumerate() {
            if all[..at].iter().any(|other| other.name() == secret.name()) {
                let what = format!(
                    "two secrets of {} are called {}",
                    self.path(key),
                    secret.name()
                );
                self.problems
                    .error_hint(&secret.place, what, "give each a name of its own");
            }
        }
        if let Some(last) = all
            .last()
            .filter(|_| all.iter().all(|secret| secret.until().is_some()))
        {
            self.problems.error_hint(
                &last.place,
                format!(
                    "each secret of {} ends: after the last one nobody could prove anything",
                    self.path(key)
                ),
                "leave until out where the newest one stands",
            );
        }
        Some(all)
    }

    /// A table inside this one.
    pub fn section(&self, key: &str) -> Option<Section<'a>> {
        let node = self.node(key)?;
        match &node.value {
            Value::Table(table) => Some(Section::new(table, self.path(key), self.problems)),
            other => {
                self.wrong(key, &node.place, "a table", other);
                None
            }
        }
    }

    /// A list of tables inside this one (`[[key]]`); one table alone is a list of one.
    pub fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(node) = self.node(key) else {
            return Vec::new();
        };
        let items = match &node.value {
            Value::Table(_) => std::slice::from_ref(node),
            Value::List(items) => items.as_slice(),
            other => {
                self.wrong(key, &node.place, "a list of tables", other);
                return Vec::new();
            }
        };
        let mut sections = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            match &item.value {
                Value::Table(table) => {
                    sections.push(Section::new(
                        table,
                        format!("{}[{at}]", self.path(key)),
                        self.problems,
                    ));
                }
                other => self.wrong(key, &item.place, "a list of tables", other),
            }
        }
        sections
    }

    /// The table itself, for another module that will read it as a section of its own.
    pub fn into_table(self) -> Table {
        self.asked
            .borrow_mut()
            .extend(self.table.entries.iter().map(|(key, ..)| key.clone()));
        self.table.clone()
    }

    /// The dotted path of a key.
    pub fn path(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    pub(super) fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<Located<T>> {
        let node = self.node(key)?;
        match read(&node.value) {
            Some(value) => Some(Located {
                value,
                place: node.place.clone(),
            }),
            None => {
                self.wrong(key, &node.place, expected, &node.value);
                None
            }
        }
    }

    fn wrong(&self, key: &str, place: &Place, expected: &str, found: &Value) {
        let found = match found {
            // Long texts and whatever may be a secret stay out of the message.
            Value::Text(text)
                if text.len() <= 40 && !key.contains("secret") && !key.contains("key") =>
            {
                format!("\"{}\"", text.escape_debug())
            }
            Value::Integer(number) => number.to_string(),
            other => other.kind().to_owned(),
        };
        self.problems.error(
            place,
            format!("{} must be {expected}, not {found}", self.path(key)),
        );
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let asked = self.asked.borrow();
        for (key, place, _) in &self.table.entries {
            if asked.contains(key) {
                continue;
            }
            let what = format!("nothing is called {}", self.path(key));
            match nearest(key, asked.iter().map(String::as_str)) {
                Some(near) => {
                    self.problems
                        .error_hint(place, what, format!("did you mean {near}?"))
                }
                None => {
                    let mut known: Vec<&str> = asked.iter().map(String::as_str).collect();
                    known.sort_unstable();
                    self.problems.error_hint(
                        place,
                        what,
                        format!("known here: {}", known.join(", ")),
                    );
                }
            }
        }
    }
}

/// The known word that is at most two slips away from a written one.
pub fn nearest<'w>(written: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    known
        .map(|word| (slips(written, word), word))
        .filter(|(slips, word)| *slips <= 2 && *slips < word.len().max(2))
        .min()
        .map(|(_, word)| word)
}

/// Number of letters to insert, remove or replace that make one word of the other (Levenshtein).
fn slips(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = before + usize::from(ca != *cb);
            before = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(before + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_everything_that_is_wrong_at_once() {
        let problems = Problems::default();
        let table = Table::parse(
            "t.toml",
            "listen = 5\nlisten_adress = 'x'\nwait = 'soon'\nmode = 'fast'\n",
            &problems,
        );
        let section = Section::new(&table, "server", &problems);
        assert!(section.text("listen").is_none());
        assert!(section.duration("wait").is_none());
        assert!(section.one_of("mode", &[("slow", 1)]).is_none());
        assert!(section.text("listen_address").is_none());
        assert!(section.required_text("name", "give it one").is_none());
        drop(section);
        let list = problems.into_sorted();
        let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 5, "{texts:#?}");
        assert!(
            texts
                .iter()
                .any(|t| t.contains("t.toml:2") && t.contains("did you mean listen_address?")),
            "{texts:#?}"
        );
    }

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        assert_eq!(
            nearest("secrts", ["secrets", "sources"].into_iter()),
            Some("secrets")
        );
        assert_eq!(nearest("banana", ["secrets", "sources"].into_iter()), None);
    }
}
