//! Identity of an event: its dedup key, its type, and its thread.
//!
//! All three are used in indexes and lanes, so they are bounded: a longer key or thread is kept as its digest, a longer
//! type is cut.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::document::ParsedRequest;
use super::path::{Path, Paths};
use super::template::{Template, TemplateUse};
use super::value::{Text, head, says_something, text};
use crate::config::{Located, Problems};
use crate::json::Dotted;
use crate::model::Refusal;

/// The longest key, thread and type, in bytes.
const LONGEST: usize = 512;

/// One source of a key or a type.
#[derive(Clone, Debug)]
pub(super) enum KeySource {
    /// `header:Name`
    Header(http::HeaderName),
    /// `query:name`
    Query(String),
    /// `form:name`
    Form(String),
    /// `json:path`; whether it may be missing, as in `json?:path`.
    Json(Path, bool),
    /// `claim:name`: what a signed token says.
    Claim(String),
    /// `json-key:a|b`: the first of these keys that the document has.
    Key(Vec<(String, usize)>),
}

/// Sources of a key or a type, in order. An event of a mapping without sources has no key or type.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySources(Vec<KeySource>);

impl KeySources {
    /// Compiles the sources. Invalid ones are reported to `problems`.
    pub(super) fn compile(
        written: &[Located<String>],
        paths: &mut Paths,
        problems: &Problems,
    ) -> Self {
        Self(
            written
                .iter()
                .filter_map(|part| KeySource::compile(part, paths, problems))
                .collect(),
        )
    }

    /// True if all sources are headers.
    pub(super) fn are_headers(&self) -> bool {
        self.0
            .iter()
            .all(|part| matches!(part, KeySource::Header(_)))
    }

    /// True if the value is the same for all items of a request, because no source stands in the document.
    pub(super) fn are_of_request(&self) -> bool {
        !self
            .0
            .iter()
            .any(|part| matches!(part, KeySource::Json(..) | KeySource::Key(_)))
    }

    /// The values of all sources, joined; nothing if a required value is missing.
    pub(super) fn joined(
        &self,
        view: &ParsedRequest<'_>,
        between: char,
    ) -> Result<Option<String>, Refusal> {
        let mut joined = String::new();
        for part in &self.0 {
            let value = part.read(view)?;
            match value {
                Some(value) => {
                    if !joined.is_empty() {
                        joined.push(between);
                    }
                    joined.push_str(&value);
                }
                None if matches!(part, KeySource::Json(_, true)) => {}
                None => return Ok(None),
            }
        }
        Ok(Some(joined).filter(|joined| !joined.is_empty()))
    }
}

impl KeySource {
    /// Compiles a source. An invalid one is reported to `problems`.
    pub(super) fn compile(
        written: &Located<String>,
        paths: &mut Paths,
        problems: &Problems,
    ) -> Option<Self> {
        let (kind, name) = written.split_once(':').unwrap_or(("", ""));
        let part = match kind {
            _ if name.is_empty() => None,
            "header" => name.parse().ok().map(Self::Header),
            "query" => Some(Self::Query(name.to_owned())),
            "form" => Some(Self::Form(name.to_owned())),
            "json" | "json?" => {
                let path = Located {
                    value: name.to_owned(),
                    place: written.place.clone(),
                };
                return Path::compile(&path, paths, problems)
                    .map(|path| Self::Json(path, kind == "json?"));
            }
            "claim" => Some(Self::Claim(name.to_owned())),
            "json-key" => Some(Self::Key(
                name.split('|')
                    .map(|key| (key.to_owned(), paths.add(Dotted::of_key(key))))
                    .collect(),
            )),
            _ => None,
        };
        if part.is_none() {
            problems.error_hint(
                &written.place,
                format!("{:?} is no source of a value", written.value),
                "write header:Name, query:name, form:name, json:path, json?:path, claim:name or json-key:a|b",
            );
        }
        part
    }

    /// True if the source has a value; a list or an object counts.
    pub(super) fn is_there(&self, view: &ParsedRequest<'_>) -> Result<bool, Refusal> {
        match self {
            Self::Json(path, _) => Ok(view.find(path)?.is_some_and(|raw| says_something(&raw))),
            other => Ok(other.read(view)?.is_some()),
        }
    }

    /// The text there.
    pub(super) fn read(&self, view: &ParsedRequest<'_>) -> Result<Option<String>, Refusal> {
        let plain =
            |value: Option<&str>| value.filter(|value| !value.is_empty()).map(str::to_owned);
        Ok(match self {
            Self::Header(name) => {
                let line = view
                    .request
                    .headers
                    .get(name)
                    .map(|line| crate::text::header(line.as_bytes()));
                plain(line.as_deref())
            }
            Self::Query(name) => plain(view.in_query(name)),
            Self::Form(name) => plain(view.in_form(name)),
            Self::Claim(name) => view.claim(name),
            Self::Json(path, _) => {
                let raw = view.find(path)?;
                return Ok(match raw.as_deref().map(text) {
                    Some(Text::One(value)) => {
                        Some(distinct(value.into_owned(), raw.as_deref(), view))
                    }
                    _ => None,
                });
            }
            Self::Key(keys) => keys
                .iter()
                .find(|(_, path)| view.piece(*path).is_some())
                .map(|(key, _)| key.clone()),
        }
        .map(|value| distinct(value, None, view)))
    }
}

/// Place at which an event names its thread.
#[derive(Debug)]
pub(super) enum Thread {
    /// At a path, as written and compiled.
    Path(String, Path),
    /// By a template.
    Template(Box<Template>),
}

impl Thread {
    /// The template that it is; none for a path.
    pub(super) fn template(&self) -> Option<&Template> {
        match self {
            Self::Template(template) => Some(template),
            Self::Path(..) => None,
        }
    }

    /// Compiles what was written: a template if it has `{{` or `{%` in it, a path otherwise.
    pub(super) fn compile(
        written: &Located<String>,
        strict: bool,
        paths: &mut Paths,
        problems: &Problems,
    ) -> Option<Self> {
        if written.contains("{{") || written.contains("{%") {
            Template::compile(TemplateUse::Thread, written, strict, problems)
                .map(|template| Self::Template(Box::new(template)))
        } else {
            Path::compile(written, paths, problems)
                .map(|path| Self::Path(written.value.clone(), path))
        }
    }
}

/// Keeps names distinct. Where characters of a name were lost, a digest of the original bytes takes its place, so that two
/// unreadable names do not become equal.
pub(super) fn distinct(value: String, raw: Option<&str>, view: &ParsedRequest<'_>) -> String {
    if !value.contains(['\0', char::REPLACEMENT_CHARACTER]) {
        return value;
    }
    let raw = raw.unwrap_or(&value);
    let mut digest = Sha256::new_with_prefix(raw);
    // Where the spelling itself is there, as with an escape, it is enough to tell names apart by.
    if raw.contains(char::REPLACEMENT_CHARACTER) {
        for bytes in view.behind() {
            digest.update(bytes);
        }
    }
    format!("sha256:{}", hex::encode(digest.finalize()))
}

/// A key or thread of any length as one of at most 512 bytes; different ones stay different.
pub(super) fn bounded(value: String) -> String {
    if value.len() <= LONGEST {
        return value;
    }
    let mut short = String::from("sha256:");
    for byte in Sha256::digest(value.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(short, "{byte:02x}");
    }
    short
}

/// A type of any length, cut to 512 bytes.
pub(super) fn cut(mut value: String) -> String {
    value.truncate(head(&value, LONGEST).len());
    value
}
