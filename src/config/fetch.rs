//! Fetching files that a payload only names, as written: `[attachments.fetch]` in a provider file says where a payload names
//! a file and how the file is requested; `[sources.NAME.files.fetch]` has the token.

use http::{HeaderName, Uri};

use super::attachment::StorePlace;
use super::problem::Located;
use super::section::Section;
use super::{Config, Problems, Respond};

/// The `[attachments.fetch]` section of a provider file.
#[derive(Clone, Debug)]
pub struct FetchRule {
    /// The only host that files are requested from.
    pub api: Uri,
    /// The paths at which a payload may name files.
    pub each: Vec<Vec<FetchStep>>,
    /// The key of a file's id, below such a place.
    pub id: String,
    /// The key of its name.
    pub name: Option<String>,
    /// The key of its type.
    pub kind: Option<String>,
    /// The key of its size.
    pub size: Option<String>,
    /// The way to request it.
    pub way: FetchMethod,
    /// The headers of a request.
    pub headers: Vec<(HeaderName, FetchTarget)>,
}

/// One step of such a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchStep {
    /// The value of a key, or of an index of a list.
    Key(String),
    /// Every value of an object or a list.
    Each,
    /// The last of a list.
    Last,
}

/// The way to request a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchMethod {
    /// By the address below this key, which must be on the host.
    Named(String),
    /// By this target.
    Target(FetchTarget),
    /// By two requests: the answer to the first has the file's path below these keys.
    Asked {
        /// The target of the first request.
        ask: FetchTarget,
        /// The keys below which the answer has the path.
        found: Vec<String>,
        /// The target of the file.
        get: FetchTarget,
    },
}

/// A target, or the value of a header, with places to fill in.
pub type FetchTarget = Vec<TargetPart>;

/// A part of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPart {
    /// A fixed text.
    Text(String),
    /// The source's token.
    Token,
    /// The file's id.
    Id,
    /// The path that the answer to the first request has.
    Found,
}

impl FetchRule {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let missing = |key: &str, hint: &str| {
            if !section.has(key) {
                let what = format!("{} is missing", section.path(key));
                section
                    .problems()
                    .error_hint(section.place(), what, hint.to_owned());
            }
        };
        missing(
            "api",
            "where the channel keeps its files, for example \"https://files.example.com\"",
        );
        missing(
            "each",
            "where a payload names files, for example [\"event.files.*\"]",
        );
        let each = section.texts("each").unwrap_or_default();
        let each = each
            .iter()
            .filter_map(|path| steps(section, path))
            .collect();
        let key = |name: &str| section.text(name).map(|text| text.value);
        let (id, name, kind, size) = (key("id"), key("name"), key("type"), key("size"));
        let (way, headers) = (way(section), headers(section));
        Some(Self {
            api: section.api("api")?,
            each,
            id: id.unwrap_or_else(|| "id".into()),
            name,
            kind,
            size,
            way: way?,
            headers,
        })
    }
}

/// Reports sources that fetch what their provider file does not describe, or that could hand nothing on.
pub(super) fn check(config: &Config, problems: &Problems) {
    for source in &config.sources {
        let Some(fetch) = source.files.as_ref().and_then(|files| files.fetch.as_ref()) else {
            continue;
        };
        let described = config
            .providers
            .get(&source.provider.value)
            .is_some_and(|provider| provider.files.is_some());
        if !described {
            problems.error_hint(
                &fetch.place,
                format!("the provider {} does not say how its files are fetched", source.provider.value),
                "describe it in [attachments.fetch] of a provider file of your own, or leave fetch out",
            );
        }
        if matches!(source.respond, Respond::Proxy | Respond::Stream) {
            problems.error_hint(
                &fetch.place,
                "what is passed on at once waits for no files",
                "leave respond out, or write respond = \"ack\" or \"wait\"",
            );
        }
        let store = &config.attachments.store.value;
        if *store == StorePlace::None {
            problems.error_hint(
                &fetch.place,
                "there is no store for what is fetched",
                "set attachments.store",
            );
        } else if matches!(store, StorePlace::Folder(_)) && config.server.public_url.is_empty() {
            problems.error_hint(
                &fetch.place,
                "the agent could not load what is fetched: the gateway does not know its public address",
                "set server.public_url",
            );
        }
    }
}

fn steps(section: &Section<'_>, written: &Located<String>) -> Option<Vec<FetchStep>> {
    if written.split('.').any(str::is_empty) {
        section.problems().error_hint(
            &written.place,
            format!("{:?} is no path to files", written.value),
            "write keys with dots between; \"*\" is every value, \"-1\" the last of a list",
        );
        return None;
    }
    let step = |text: &str| match text {
        "*" => FetchStep::Each,
        "-1" => FetchStep::Last,
        key => FetchStep::Key(key.to_owned()),
    };
    Some(written.split('.').map(step).collect())
}

fn way(section: &Section<'_>) -> Option<FetchMethod> {
    let keys = ["url", "ask", "found", "get"].map(|key| section.has(key));
    let target = |key: &str, may: &[&str]| {
        let written = section.text(key)?;
        if !written.starts_with('/') {
            let what = format!("{} does not begin with a slash", section.path(key));
            section.problems().error_hint(
                &written.place,
                what,
                "it is the path below api, with its query",
            );
            return None;
        }
        parts(section, &written, may)
    };
    match keys {
        [true, false, false, false] => section.text("url").map(|key| FetchMethod::Named(key.value)),
        [false, false, false, true] => target("get", &["token", "id"]).map(FetchMethod::Target),
        [false, true, true, true] => {
            let (ask, get) = (
                target("ask", &["token", "id"]),
                target("get", &["token", "id", "found"]),
            );
            let found = section
                .text("found")?
                .split('.')
                .map(str::to_owned)
                .collect();
            Some(FetchMethod::Asked {
                ask: ask?,
                found,
                get: get?,
            })
        }
        _ => {
            section.problems().error_hint(
                section.place(),
                format!("{} does not say how a file is asked for", section.name()),
                "write url alone, get alone, or ask, found and get together",
            );
            None
        }
    }
}

fn headers(section: &Section<'_>) -> Vec<(HeaderName, FetchTarget)> {
    let table = section.text_table("headers").unwrap_or_default();
    let header = |(name, value): (Located<String>, Located<String>)| {
        let Ok(header) = HeaderName::try_from(name.value.as_str()) else {
            let what = format!("{:?} is no name of a header", name.value);
            section
                .problems()
                .error_hint(&name.place, what, "letters, digits and dashes");
            return None;
        };
        Some((header, parts(section, &value, &["token"])?))
    };
    table.into_iter().filter_map(header).collect()
}

/// A text with `{token}` and its like in it.
fn parts(section: &Section<'_>, written: &Located<String>, may: &[&str]) -> Option<FetchTarget> {
    let mut parts = Vec::new();
    let mut rest = written.as_str();
    while let Some((before, behind)) = rest.split_once('{') {
        let (name, after) = behind.split_once('}').unwrap_or((behind, ""));
        let part = match name {
            _ if !may.contains(&name) => None,
            "token" => Some(TargetPart::Token),
            "id" => Some(TargetPart::Id),
            _ => Some(TargetPart::Found),
        };
        let Some(part) = part else {
            let known = may
                .iter()
                .map(|name| format!("{{{name}}}"))
                .collect::<Vec<_>>()
                .join(", ");
            let what = format!("{{{}}} stands for nothing here", name.escape_debug());
            section
                .problems()
                .error_hint(&written.place, what, format!("known are {known}"));
            return None;
        };
        if !before.is_empty() {
            parts.push(TargetPart::Text(before.to_owned()));
        }
        parts.push(part);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(TargetPart::Text(rest.to_owned()));
    }
    Some(parts)
}
