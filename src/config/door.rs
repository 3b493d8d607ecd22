//! The doors beside `/hooks/…` as written: the stand-in for the hosted webhook, the keys callers present, and the
//! prefixes that are passed through.

use std::path::Path;
use std::time::Duration;

use super::Config;
use super::address;
use super::node::Value;
use super::problem::{Located, Place, Problems};
use super::secret::Secret;
use super::section::Section;
use super::unit::Rate;
use crate::model::{Timestamp, is_agent_id};

/// `[dropin]`: `POST /` and `POST /{agent_id}` as the platform's hosted webhook answers them.
#[derive(Clone, Debug)]
pub struct DropIn {
    /// True if the drop-in door is open.
    pub enabled: bool,
    /// Place for fields that are not parameters.
    pub extra_fields: ExtraFields,
    /// The address made for a user who has only an id; `{id}` stands for it.
    pub user_email_template: String,
    /// Rule for a second turn of a running thread: it waits, or is answered 409.
    pub waits_for_its_turn: bool,
    /// Rule for keys that are not the gateway's own.
    pub require_key: RequireKey,
    /// How much disk its calls may take before those with keys that are not the gateway's own are turned away.
    pub max_disk: u64,
    /// The largest body.
    pub max_body: Option<u64>,
    /// Rate of calls.
    pub rate: Option<Rate>,
    /// Of a hundred places, how many callers with foreign keys may have in all, where it is said.
    pub share: Option<u32>,
    /// How many runs a day callers with foreign keys may begin in all; [`super::RunBudgets::whole`] where it is not said.
    pub runs_per_day: Option<u64>,
}

/// Rule of the drop-in for keys that are not the gateway's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequireKey {
    /// As soon as there are some.
    Auto,
    /// Always.
    Always,
    /// Never: keys that the upstream takes are good.
    Never,
}

impl RequireKey {
    /// True if only the gateway's own keys are taken, given that there are `keys`.
    pub const fn holds(self, keys: usize) -> bool {
        match self {
            Self::Auto => keys > 0,
            Self::Always => true,
            Self::Never => false,
        }
    }

    fn read(section: &Section<'_>) -> Option<Self> {
        let read = section.read(
            "require_key",
            "\"auto\", true or false",
            |value| match value {
                Value::Text(text) if text == "auto" => Some(Self::Auto),
                Value::Bool(true) => Some(Self::Always),
                Value::Bool(false) => Some(Self::Never),
                _ => None,
            },
        );
        read.map(|read| read.value)
    }
}

/// Place for fields of a drop-in call that are not parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraFields {
    /// `additional_context`, as the hosted webhook does.
    Context,
    /// Below the prompt, fenced.
    Text,
}

/// `[keys.NAME]`: a key of the gateway's own, for callers who must not have the upstream's.
#[derive(Clone, Debug)]
pub struct GatewayKey {
    /// Name of the key in logs.
    pub name: String,
    /// Place of its table.
    pub place: Place,
    /// Values that callers present. All of them are valid, so that one can replace another.
    pub keys: Vec<Secret>,
    /// From when on none of them is good any more.
    pub expires: Option<Timestamp>,
    /// Most runs a day that its callers may begin.
    pub runs_per_day: Option<u64>,
    /// The largest body with files in it that its callers may send.
    pub max_upload: Option<u64>,
    /// Key that goes upstream in its place; absent for `upstream.api_key`.
    pub upstream_key: Option<Secret>,
    /// The agents and workflows it is good for; empty: all.
    pub agents: Vec<String>,
    /// The prefixes of `[[proxy]]` it is good for; empty: all.
    pub prefixes: Vec<String>,
    /// The paths that are open to it besides, as patterns of whole segments.
    pub paths: Vec<String>,
    /// The methods that those are open for.
    pub methods: Vec<http::Method>,
    /// Rate of uses.
    pub rate: Option<Rate>,
    /// True if threads that its callers name belong to these callers alone.
    pub isolate: bool,
}

/// `[[proxy]]`: a prefix of the path that is passed through.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The prefix, with a slash before it and none behind.
    pub prefix: Located<String>,
    /// Address of the server behind the prefix.
    pub upstream: http::Uri,
    /// `Authorization` for that server, made from a user name and password in its address.
    pub login: Option<Secret>,
    /// True if the prefix is removed before the rest is added to the upstream's own path.
    pub strip_prefix: bool,
    /// True if gateway keys are exchanged; any other key of a caller passes through either way.
    pub exchange_keys: bool,
    /// Key that replaces a gateway key here, in place of the one in the key's own table.
    pub upstream_key: Option<Secret>,
    /// True if callers without a gateway key are refused.
    pub require_key: bool,
    /// Whether a caller's `Authorization` goes upstream. It is the caller's word at another door, so it does not by
    /// itself.
    pub forward_authorization: bool,
    /// Silence of an event stream after which a comment line keeps it open; zero sends no comment lines.
    pub heartbeat: Duration,
    /// The largest request body; none: unbounded.
    pub max_body: Option<u64>,
    /// Rate of calls.
    pub rate: Option<Rate>,
    /// Time limit until the upstream begins its answer.
    pub timeout: Duration,
}

impl DropIn {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let enabled = section.bool("enabled");
        let extra_fields = section.one_of(
            "extra_fields",
            &[
                ("context", ExtraFields::Context),
                ("text", ExtraFields::Text),
            ],
        );
        let template = section.text("user_email_template");
        if let Some(template) = &template
            && !template.contains("{id}")
        {
            section.problems().error_hint(
                &template.place,
                "user_email_template has no {id}",
                "write for example \"{id}@webhook.invalid\"",
            );
        }
        let waits = section.one_of("overlap", &[("queue", true), ("reject", false)]);
        let (require_key, max_disk) = (RequireKey::read(section), section.bytes("max_disk"));
        let (max_body, rate) = (section.bytes("max_body"), section.rate("rate"));
        Some(Self {
            enabled: enabled?.value,
            extra_fields: extra_fields?.value,
            user_email_template: template?.value,
            waits_for_its_turn: waits?.value,
            require_key: require_key?,
            max_disk: max_disk?.value,
            max_body: max_body.map(|bytes| bytes.value),
            rate: rate.map(|rate| rate.value),
            share: share(section),
            runs_per_day: super::size(section, "runs_per_day").map(|most| most as u64),
        })
    }
}

/// A share of a hundred, as `25%`.
fn share(section: &Section<'_>) -> Option<u32> {
    let text = section.text("share")?;
    let percent = text
        .value
        .strip_suffix('%')
        .and_then(|number| number.trim().parse().ok());
    let percent = percent.filter(|percent| (1..=100).contains(percent));
    if percent.is_none() {
        section.problems().error_hint(
            &text.place,
            format!("{} is no share of a hundred", section.path("share")),
            "write for example \"25%\": so much of what is sent at once foreign callers may have in all",
        );
    }
    percent
}

impl GatewayKey {
    /// True if the key opens only the prefixes that its table lists.
    pub const fn is_limited(&self) -> bool {
        !self.agents.is_empty() || !self.paths.is_empty()
    }

    /// True if the key opens a prefix.
    pub fn is_good_at(&self, prefix: &str) -> bool {
        self.prefixes.is_empty()
            || self
                .prefixes
                .iter()
                .any(|good| good.trim_end_matches('/') == prefix)
    }

    pub(super) fn read_all(root: &Section<'_>, base: &Path) -> Vec<Self> {
        let Some(all) = root.section("keys") else {
            return Vec::new();
        };
        let mut keys: Vec<Self> = Vec::new();
        for (name, place) in all.keys() {
            if !super::is_name(name) {
                all.problems().error_hint(
                    place,
                    format!("\"{}\" cannot be the name of a key", name.escape_debug()),
                    "use letters, digits, '-' and '_'; it is what logs call the key",
                );
            }
            let Some(section) = all.section(name) else {
                continue;
            };
            let Some(key) = Self::read(name, &section, base) else {
                continue;
            };
            let is_twin = |other: &&Self| {
                other
                    .keys
                    .iter()
                    .any(|theirs| key.keys.iter().any(|ours| ours.expose() == theirs.expose()))
            };
            if let Some(twin) = keys.iter().find(is_twin) {
                section.problems().error_hint(
                    place,
                    format!("keys.{name} and keys.{} are the same key", twin.name),
                    "a key stands for one caller: make another, for example with: openssl rand -hex 24",
                );
            }
            keys.push(key);
        }
        keys
    }

    fn read(name: &str, section: &Section<'_>, base: &Path) -> Option<Self> {
        let keys = Self::live(name, section, base);
        let upstream_key = section.secret("upstream_key", base);
        let texts = |key: &str| {
            section
                .texts(key)
                .unwrap_or_default()
                .into_iter()
                .map(|text| text.value)
                .collect()
        };
        for agent in section
            .texts("agents")
            .unwrap_or_default()
            .iter()
            .filter(|agent| !is_agent_id(agent))
        {
            section.problems().error_hint(
                &agent.place,
                format!(
                    "\"{}\" is no id of an agent or workflow",
                    agent.value.escape_debug()
                ),
                "copy the id from the platform's address bar: 1 to 64 letters, digits, '-' and '_'",
            );
        }
        let (agents, prefixes) = (texts("agents"), texts("prefixes"));
        let paths = paths(section);
        let methods = methods(section, paths.is_empty());
        let rate = section.rate("rate").map(|rate| rate.value);
        let isolate = section.bool("isolate").is_none_or(|isolate| isolate.value);
        let (expires, max_upload) = (section.time("expires"), section.bytes("max_upload"));
        let runs_per_day = super::size(section, "runs_per_day").map(|most| most as u64);
        Some(Self {
            name: name.to_owned(),
            place: section.place().clone(),
            keys: keys?,
            expires: expires.map(|expires| expires.value),
            runs_per_day,
            max_upload: max_upload.map(|bytes| bytes.value),
            upstream_key,
            agents,
            prefixes,
            paths,
            methods,
            rate,
            isolate,
        })
    }
}

impl GatewayKey {
    /// Values that callers may present: `key`, or each of `keys`.
    fn live(name: &str, section: &Section<'_>, base: &Path) -> Option<Vec<Secret>> {
        let problems = section.problems();
        let is_missing = !section.has("key") && !section.has("keys");
        if is_missing && !section.is_misspelt("key") {
            problems.error_hint(
                section.place(),
                format!("keys.{name} has no key"),
                "key = \"env:NAME\" is what the caller presents as x-api-key; keys = [\"env:NEW\", \"env:OLD\"] are good both",
            );
        }
        let one = section.text("key").zip(section.secret("key", base));
        let many = section.secrets("keys", base).unwrap_or_default();
        if section.has("key") && section.has("keys") {
            problems.error_hint(
                section.place(),
                format!("keys.{name} has key and keys"),
                "write all of them in keys, the new one first",
            );
        }
        let one = one.map(|(written, key)| Located {
            value: key,
            place: written.place,
        });
        let all: Vec<Located<Secret>> = one.into_iter().chain(many).collect();
        for key in all
            .iter()
            .filter(|key| key.expose().len() < 16 && !key.is_placeholder())
        {
            problems.error_hint(
                &key.place,
                format!("a key of keys.{name} is shorter than 16 characters"),
                "make a long one, for example with: openssl rand -hex 24",
            );
        }
        (!all.is_empty()).then(|| all.into_iter().map(|key| key.value).collect())
    }

    /// True if the key is not valid any more.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// True if a text is a path segment that every server reads unchanged.
pub fn is_plain_segment(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    !text.is_empty() && text.bytes().all(plain) && !text.starts_with('.') && !text.ends_with('.')
}

fn paths(section: &Section<'_>) -> Vec<String> {
    let list = section.texts("paths").unwrap_or_default();
    for path in &list {
        let segments: Vec<&str> = path
            .strip_prefix('/')
            .unwrap_or_default()
            .split('/')
            .collect();
        let good = segments
            .iter()
            .enumerate()
            .all(|(at, segment)| match *segment {
                "*" => true,
                "**" => at + 1 == segments.len(),
                segment => is_plain_segment(segment),
            });
        if !good {
            section.problems().error_hint(
                &path.place,
                format!("\"{}\" is no path of a key", path.value.escape_debug()),
                "write a path as callers do, like \"/v1/models\"; a segment \"*\" stands for any one, \"**\" at the end for any rest",
            );
        }
    }
    list.into_iter().map(|path| path.value).collect()
}

fn methods(section: &Section<'_>, alone: bool) -> Vec<http::Method> {
    let Some(list) = section.texts("methods") else {
        return vec![http::Method::GET];
    };
    if alone {
        section.problems().error_hint(
            section.place(),
            format!("{}.methods says nothing without paths", section.name()),
            "it is for the paths of the same table",
        );
    }
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let read = |method: &Located<String>| {
        if known.contains(&method.value.as_str()) {
            return method.value.parse().ok();
        }
        let what = format!("\"{}\" is no method of a key", method.value.escape_debug());
        section.problems().error_hint(
            &method.place,
            what,
            format!("write one of {}", known.join(", ")),
        );
        None
    };
    list.iter().filter_map(read).collect()
}

/// True if two addresses are the same server: scheme, host and port.
pub fn is_same_server(one: &http::Uri, other: &http::Uri) -> bool {
    let server = |uri: &http::Uri| {
        let port = uri.port_u16().or(match uri.scheme_str() {
            Some("http") => Some(80),
            Some("https") => Some(443),
            _ => None,
        });
        (
            uri.scheme_str().map(str::to_owned),
            uri.host().map(str::to_ascii_lowercase),
            port,
        )
    };
    server(one) == server(other)
}

/// Checks the references between keys and prefixes.
pub(super) fn check(config: &Config, problems: &Problems) {
    for key in config.keys.iter().filter(|key| key.upstream_key.is_none()) {
        for proxy in config
            .proxies
            .iter()
            .filter(|proxy| key.is_good_at(&proxy.prefix))
        {
            let goes_home = is_same_server(&proxy.upstream, &config.upstream.base_url);
            if proxy.exchange_keys && proxy.upstream_key.is_none() && !goes_home {
                problems.error_hint(
                    &key.place,
                    format!(
                        "nothing says what goes to {} for keys.{}: it is not the server of upstream.base_url",
                        proxy.upstream, key.name
                    ),
                    format!(
                        "set upstream_key in the [[proxy]] table of \"{}\" or in keys.{}, or keep the key to other prefixes",
                        *proxy.prefix, key.name
                    ),
                );
            }
        }
        for prefix in &key.prefixes {
            if !config
                .proxies
                .iter()
                .any(|proxy| *proxy.prefix == prefix.trim_end_matches('/'))
            {
                problems.warn(
                    &key.place,
                    format!(
                        "keys.{} names the prefix \"{}\", and no [[proxy]] has it",
                        key.name,
                        prefix.escape_debug()
                    ),
                    "write the prefix as it stands in the [[proxy]] table",
                );
            }
        }
    }
}

/// Default time limit until an upstream behind a prefix begins its answer: the time of a run.
const PROXY_TIMEOUT: Duration = Duration::from_secs(1_500);

/// Default silence of an event stream: shorter than most middle boxes keep an idle connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

impl ProxyConfig {
    /// Name in counters and logs.
    pub fn label(&self) -> String {
        format!("proxy:{}", *self.prefix)
    }

    pub(super) fn read_all(root: &Section<'_>, base: &Path) -> Vec<Self> {
        let mut proxies: Vec<Self> = Vec::new();
        for section in root.sections("proxy") {
            let Some(proxy) = Self::read(&section, base) else {
                continue;
            };
            if proxies.iter().any(|other| *other.prefix == *proxy.prefix) {
                section.problems().error(
                    &proxy.prefix.place,
                    format!(
                        "the prefix \"{}\" stands in two [[proxy]] tables",
                        proxy.prefix.value.escape_debug()
                    ),
                );
            }
            proxies.push(proxy);
        }
        proxies
    }

    fn read(section: &Section<'_>, base: &Path) -> Option<Self> {
        let problems = section.problems();
        let prefix =
            section
                .required_text("prefix", "for example \"/v1\"")
                .and_then(|text| {
                    let cut = text.value.trim_end_matches('/').to_owned();
                    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
                    let good = cut.starts_with('/')
                        && !cut.contains("//")
                        && !cut.contains("/.")
                        && cut.bytes().all(plain);
                    let taken = ["/hooks", "/files", "/events"]
                        .iter()
                        .any(|own| cut == *own || cut.starts_with(&format!("{own}/")));
                    if good && !taken {
                        return Some(Located {
                            value: cut,
                            place: text.place,
                        });
                    }
                    problems.error_hint(
                &text.place,
                format!("\"{}\" cannot be the prefix of a proxy", text.value.escape_debug()),
                "write a path like \"/v1\"; /hooks, /files and /events are the gateway's own",
            );
                    None
                });
        let written = section.required_text("upstream", "for example \"https://api.xpander.ai\"");
        let upstream = written
            .as_ref()
            .and_then(|text| address::server(section, "upstream", text));
        let flag = |key: &str, default: bool| section.bool(key).map_or(default, |flag| flag.value);
        let (strip_prefix, exchange_keys, require_key) = (
            flag("strip_prefix", false),
            flag("exchange_keys", true),
            flag("require_key", false),
        );
        let upstream_key = section.secret("upstream_key", base);
        let forward_authorization = flag("forward_authorization", false);
        if let (Some(written), Some((_, Some(_))), true) =
            (&written, &upstream, forward_authorization)
        {
            problems.error_hint(
                &written.place,
                format!(
                    "{} has a name in it, and forward_authorization sends the caller's own",
                    section.path("upstream")
                ),
                "a request has one Authorization: take the name out of the address, or leave forward_authorization out",
            );
        }
        let (max_body, rate) = (section.bytes("max_body"), section.rate("rate"));
        let (timeout, heartbeat) = (section.duration("timeout"), section.duration("heartbeat"));
        let (upstream, login) = upstream?;
        Some(Self {
            prefix: prefix?,
            upstream,
            login,
            strip_prefix,
            exchange_keys,
            upstream_key,
            require_key,
            forward_authorization,
            heartbeat: heartbeat.map_or(HEARTBEAT, |heartbeat| heartbeat.value),
            max_body: max_body.map(|bytes| bytes.value),
            rate: rate.map(|rate| rate.value),
            timeout: timeout.map_or(PROXY_TIMEOUT, |timeout| timeout.value),
        })
    }
}
