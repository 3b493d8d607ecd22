//! The operator's configuration: defaults, the file over them, the environment over both, checked as one.
//!
//! Reading never stops at the first mistake. [`Config::load`] reports every mistake, and returns a `Config` only if there
//! is none that prevents the start. The stages compile their own sections (`source`, `mapping`, …) with the same list of
//! problems, so `sluicegate check` takes the same path as a start.

mod address;
pub mod attachment;
pub mod chat;
pub mod dispatch;
pub mod door;
mod exposure;
pub mod fetch;
pub mod inbox;
pub mod node;
mod origin;
pub mod private;
pub mod problem;
pub mod provider;
pub mod reconcile;
pub mod reply;
pub mod secret;
pub mod section;
pub mod sense;
pub mod server;
pub mod source;
mod source_map;
pub mod unit;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use attachment::{Attachments, FileRules, LinkKind, SourceFetch, SourceFiles, StorePlace};
pub use dispatch::{BreakerConfig, Caps, Dispatch};
pub use door::{DropIn, ExtraFields, GatewayKey, ProxyConfig, RequireKey};
pub use fetch::{FetchMethod, FetchRule, FetchStep, FetchTarget, TargetPart};
pub use inbox::{Engine, InboxConfig, KeepConfig};
pub use node::{Node, Table, Value};
pub use problem::{Located, Place, Problem, Problems, Weight};
pub use provider::{Ack, Kind, Provider, Runs, Sample, Setup, find_provider, fold, near_provider};
pub use reconcile::{LogKind, ProviderLog, ReconcileConfig};
pub use secret::Secret;
pub use section::Section;
pub use server::{ClientAuth, Forwarding, Server, TlsFiles};
pub use source::{
    EventJson, OnUnknown, OnUnmappable, QueryUse, ReplayWindow, Respond, RunFields, RunMode,
    SourceConfig, TaskIdForm,
};
pub use source_map::SourceMap;
pub use unit::Rate;

use crate::model::Block;

/// Every setting with its default; the base layer, and the reference in the documentation.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// A configuration, as used.
#[derive(Clone, Debug)]
pub struct Config {
    /// The public listener.
    pub server: Server,
    /// The operator's listener.
    pub admin: Admin,
    /// The agent platform's API.
    pub upstream: UpstreamConfig,
    /// Fetches of addresses that requests name.
    pub fetch: Fetch,
    /// The inbox.
    pub inbox: InboxConfig,
    /// Getting them there.
    pub dispatch: Dispatch,
    /// Files that come along.
    pub attachments: Attachments,
    /// Concurrency and rates of dispatch.
    pub limits: Limits,
    /// Log and telemetry.
    pub log: Log,
    /// The providers that are known: compiled in, and those of the operator's folder over them.
    pub providers: BTreeMap<String, Arc<Provider>>,
    /// The configured ways in.
    pub sources: SourceMap,
    /// The stand-in for the platform's hosted webhook.
    pub dropin: DropIn,
    /// The keys that callers may present instead of the upstream's.
    pub keys: Vec<GatewayKey>,
    /// Prefixes that are passed through to an upstream.
    pub proxies: Vec<ProxyConfig>,
    /// The folder that relative paths start from: the configuration file's.
    pub base: PathBuf,
    /// Settings as they were written, with defaults and environment.
    pub written: Arc<WrittenTable>,
    /// The other files that it was read from: secrets, certificates to trust, providers.
    pub files: Vec<PathBuf>,
}

/// What was written. Secrets may stand in it, so it is not printed.
#[derive(Clone)]
pub struct WrittenTable(Table);

impl std::ops::Deref for WrittenTable {
    type Target = Table;
    fn deref(&self) -> &Table {
        &self.0
    }
}

impl std::fmt::Debug for WrittenTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WrittenTable")
            .field("place", &self.0.place)
            .finish_non_exhaustive()
    }
}

/// The most refused requests that are kept whole.
const MOST_REFUSED: u64 = 100;

/// `[admin]`
#[derive(Clone, Debug)]
pub struct Admin {
    /// Address for operators.
    pub listen: SocketAddr,
    /// Token of operators; without one the program makes one beside the inbox.
    pub token: Option<Secret>,
    /// Host names it goes by, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Number of the last refused requests that are kept whole, in memory.
    pub keep_refused: usize,
}

/// `[upstream]`
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Address of the API; a path in it goes before the path of every call.
    pub base_url: http::Uri,
    /// `Authorization` for the API, made from a user name and password in its address.
    pub login: Option<Secret>,
    /// The key it wants.
    pub api_key: Option<Secret>,
    /// Time limit for a connection.
    pub connect_timeout: Duration,
    /// Time limit for a blocking run.
    pub run_timeout: Duration,
    /// The largest answer.
    pub max_answer: u64,
    /// Rate of requests to the API, runs and questions about runs together.
    pub budget: Option<Rate>,
    /// A file with certificates to trust besides the usual ones.
    pub ca_file: Option<PathBuf>,
}

/// `[fetch]`
#[derive(Clone, Debug, Default)]
pub struct Fetch {
    /// Networks that may be reached although they are not public.
    pub allow: Vec<Block>,
}

/// `[limits]`
#[derive(Clone, Debug)]
pub struct Limits {
    /// Each caller's address.
    pub caller: Option<Rate>,
    /// The whole gateway.
    pub whole: Option<Rate>,
    /// Most runs a day.
    pub runs: RunBudgets,
}

/// `[limits.runs_per_day]`; a source's own stands with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunBudgets {
    /// In all.
    pub whole: Option<u64>,
    /// Of each agent or workflow.
    pub agent: Option<u64>,
    /// For each user of a source.
    pub user: Option<u64>,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// `text` or `json`.
    pub json: bool,
    /// Log filter in the notation of `tracing`: `info`, `sluicegate=debug`.
    pub filter: String,
}

impl Config {
    /// Reads a configuration. Everything that is wrong is noted in `problems`; when an error is among it, nothing
    /// should start, whatever is returned.
    pub fn load(file: &Path, problems: &Problems) -> Option<Self> {
        Self::load_for(file, None, problems)
    }

    /// The same with one source alone, where it is there: what the others, the upstream and callers need is not asked for.
    /// It is for commands that an operator types where those secrets are not.
    pub fn load_for(file: &Path, source: Option<&str>, problems: &Problems) -> Option<Self> {
        let name = file.display().to_string();
        let text = match std::fs::read(file) {
            Ok(bytes) => origin::utf8(file, bytes, problems)?,
            Err(error) => {
                let hint = match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        "`sluicegate init` writes one to begin with; one that is elsewhere is named with --config FILE"
                    }
                    _ => {
                        "name the file with --config FILE, and let the user that runs sluicegate read it"
                    }
                };
                problems.error_hint(
                    &Place {
                        file: name.into(),
                        line: 0,
                    },
                    format!("cannot be read: {error}"),
                    hint,
                );
                return None;
            }
        };
        let base = match file.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Self::read(&name, &text, &base, source, std::env::vars(), problems)
    }

    /// Reads a configuration from text. `base` is the folder that relative paths start from; `environment` may
    /// overrule single settings: `SLUICEGATE__SERVER__LISTEN` is `server.listen`.
    ///
    /// ```
    /// use std::path::Path;
    ///
    /// use sluicegate::config::{Config, Problems};
    ///
    /// let text = "[sources.hook]\nprovider = \"custom\"\nverify = { scheme = \"none\" }\nagent = \"a\"\n";
    /// let problems = Problems::default();
    /// let config = Config::parse("example.toml", text, Path::new("."), std::iter::empty(), &problems);
    /// assert_eq!(config.map(|config| config.sources.len()), Some(1));
    ///
    /// let problems = Problems::default();
    /// Config::parse("example.toml", "[server]\nlisten = 7", Path::new("."), std::iter::empty(), &problems);
    /// assert!(problems.any_error());
    /// ```
    pub fn parse(
        name: &str,
        text: &str,
        base: &Path,
        environment: impl Iterator<Item = (String, String)>,
        problems: &Problems,
    ) -> Option<Self> {
        Self::read(name, text, base, None, environment, problems)
    }

    fn read(
        name: &str,
        text: &str,
        base: &Path,
        source: Option<&str>,
        environment: impl Iterator<Item = (String, String)>,
        problems: &Problems,
    ) -> Option<Self> {
        let mut table = Table::parse("default settings", DEFAULTS, problems);
        table.lay(Table::parse(name, text, problems));
        overrule_all(&mut table, environment, problems);
        if let Some(source) = source {
            origin::keep_source(&mut table, source);
        }
        lay_source_defaults(&mut table);

        let root = Section::new(&table, "", problems);
        let providers = providers(&root, base, problems);
        let sources = sources(&root, base, &providers);
        // Read by `lay_source_defaults`; wrong keys in it are reported where they land.
        root.has("source_defaults");
        // All sections are read before the first that is missing ends it: every problem comes at once.
        let server = root
            .section("server")
            .and_then(|section| Server::read(&section, base));
        let mut token = false;
        let admin = root.section("admin").and_then(|section| {
            token = section.has("token");
            Admin::read(&section, base)
        });
        let upstream = root
            .section("upstream")
            .and_then(|section| UpstreamConfig::read(&section, base));
        let fetch = root.section("fetch").map(|section| Fetch {
            allow: section.blocks("allow").unwrap_or_default(),
        });
        let inbox = root
            .section("inbox")
            .and_then(|section| InboxConfig::read(&section, base, token));
        let dispatch = root
            .section("dispatch")
            .and_then(|section| Dispatch::read(&section, Caps::read_all(&root)));
        let attachments = root
            .section("attachments")
            .and_then(|section| Attachments::read(&section, base));
        let limits = root.section("limits").map(|section| Limits::read(&section));
        let log = root.section("log").and_then(|section| Log::read(&section));
        let dropin = root
            .section("dropin")
            .and_then(|section| DropIn::read(&section));
        let keys = GatewayKey::read_all(&root, base);
        let proxies = ProxyConfig::read_all(&root, base);
        let config = Self {
            server: server?,
            admin: admin?,
            upstream: upstream?,
            fetch: fetch.unwrap_or_default(),
            inbox: inbox?,
            dispatch: dispatch?,
            attachments: attachments?,
            limits: limits?,
            log: log?,
            dropin: dropin?,
            keys,
            proxies,
            providers,
            sources: sources.into_iter().collect(),
            base: base.to_owned(),
            files: origin::files(&table, base),
            written: Arc::new(WrittenTable(table.clone())),
        };
        fetch::check(&config, problems);
        door::check(&config, problems);
        exposure::check(&config, &table, problems);
        Some(config)
    }
}

impl Config {
    /// Place of a setting, or of the file if the setting is absent.
    pub fn setting(&self, path: &[&str]) -> Place {
        self.written
            .find(path)
            .map_or_else(|| self.written.place.clone(), |node| node.place.clone())
    }

    /// Of a hundred places, how many callers with foreign keys may have in all: a quarter where nothing is said, and
    /// everything where there is nobody else.
    pub fn foreign_share(&self) -> u32 {
        let alone = self.sources.is_empty() && self.keys.is_empty();
        self.dropin
            .share
            .unwrap_or(if alone { 100 } else { FOREIGN_SHARE })
    }
}

/// The share of callers with foreign keys where nothing is said of it.
const FOREIGN_SHARE: u32 = 25;

/// The shortest token of an operator: what can be guessed is, sooner or later.
const MIN_TOKEN: usize = 24;

impl Admin {
    /// Settings of this section that are read at the start only. All others hold from a reload on.
    pub const AT_START: &[&str] = &["listen"];

    fn read(section: &Section<'_>, base: &Path) -> Option<Self> {
        let token = section.secret("token", base);
        if let (Some(token), Some(written)) = (&token, section.text("token"))
            && token.expose().len() < MIN_TOKEN
        {
            let what = format!("admin.token is shorter than {MIN_TOKEN} characters");
            let hint = "make a long one, for example with: openssl rand -hex 24";
            // One that was written for trying out is only pointed at, unless anybody finds it by trying.
            if token.name().starts_with("literal ") && token.expose().len() >= 8 {
                section.problems().warn(&written.place, what, hint);
            } else {
                section.problems().error_hint(&written.place, what, hint);
            }
        }
        let listen = section.parsed("listen", "an address and port like \"127.0.0.1:8081\"");
        let hosts = section
            .texts("hosts")
            .unwrap_or_default()
            .into_iter()
            .map(|host| host.value)
            .collect();
        let keep_refused = section.integer("keep_refused").map(|number| {
            if number.value > MOST_REFUSED {
                section.problems().error_hint(
                    &number.place,
                    format!("admin.keep_refused is larger than {MOST_REFUSED}"),
                    "they are kept in memory; 20 are enough to look at",
                );
            }
            usize::try_from(number.value.min(MOST_REFUSED)).unwrap_or_default()
        });
        Some(Self {
            listen: listen?.value,
            token,
            hosts,
            keep_refused: keep_refused?,
        })
    }
}

impl UpstreamConfig {
    fn read(section: &Section<'_>, base: &Path) -> Option<Self> {
        let api_key = section.secret("api_key", base);
        if let Some(key) = &api_key
            && http::HeaderValue::from_bytes(key.expose()).is_err()
        {
            section.problems().error_hint(
                section.place(),
                "upstream.api_key cannot stand in a header",
                "it has a line break or a control character in it; copy it again",
            );
        }
        let server = section
            .text("base_url")
            .and_then(|text| address::server(section, "base_url", &text));
        let (connect_timeout, run_timeout) = (
            section.duration("connect_timeout"),
            section.duration("run_timeout"),
        );
        let max_answer = section.bytes("max_answer");
        let budget = section.rate("budget");
        let ca_file = section
            .text("ca_file")
            .filter(|file| !file.is_empty())
            .map(|file| base.join(&file.value));
        let (base_url, login) = server?;
        Some(Self {
            base_url,
            login,
            api_key,
            connect_timeout: connect_timeout?.value,
            run_timeout: run_timeout?.value,
            max_answer: max_answer?.value,
            budget: budget.map(|rate| rate.value),
            ca_file,
        })
    }
}

impl Limits {
    fn read(section: &Section<'_>) -> Self {
        let runs = section.section("runs_per_day").map(|runs| {
            let read = |key| size(&runs, key).map(|most| most as u64);
            RunBudgets {
                whole: read("whole"),
                agent: read("agent"),
                user: read("user"),
            }
        });
        Self {
            caller: section.rate("caller").map(|r| r.value),
            whole: section.rate("whole").map(|r| r.value),
            runs: runs.unwrap_or_default(),
        }
    }
}

impl Log {
    /// Settings of this section that are read at the start only. All others hold from a reload on.
    pub const AT_START: &[&str] = &["filter", "format"];

    fn read(section: &Section<'_>) -> Option<Self> {
        let json = section.one_of("format", &[("text", false), ("json", true)]);
        let filter = section.text("filter");
        Some(Self {
            json: json?.value,
            filter: filter?.value,
        })
    }
}

/// A whole number that is at least one.
pub(super) fn size(section: &Section<'_>, key: &str) -> Option<usize> {
    let number = section.integer(key)?;
    if number.value == 0 {
        section.problems().error(
            &number.place,
            format!("{} must be at least 1", section.path(key)),
        );
    }
    Some(usize::try_from(number.value).unwrap_or(usize::MAX).max(1))
}

/// A name that may stand in paths, labels and headers.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Lays the settings of the environment over a configuration. A variable that sets nothing is reported.
fn overrule_all(
    table: &mut Table,
    environment: impl Iterator<Item = (String, String)>,
    problems: &Problems,
) {
    for (key, value) in environment {
        overrule(table, &key, &value);
        if let Some(right) = origin::misnamed(table, &key) {
            let place = Place {
                file: format!("environment variable {key}").into(),
                line: 0,
            };
            problems.warn(
                &place,
                "this variable sets nothing",
                format!("two underscores stand between the words: {right}"),
            );
        }
    }
}

/// Reads the sources.
fn sources(
    root: &Section<'_>,
    base: &Path,
    providers: &BTreeMap<String, Arc<Provider>>,
) -> Vec<SourceConfig> {
    let mut sources = Vec::new();
    if let Some(section) = root.section("sources") {
        for (key, place) in section.keys() {
            if !is_name(key) {
                root.problems().error_hint(
                    place,
                    format!("\"{}\" cannot be the name of a source", key.escape_debug()),
                    "use letters, digits, '-' and '_'; it becomes the last part of /hooks/{name}",
                );
            }
            if let Some(source) = section.section(key) {
                sources.push(SourceConfig::read(key, &source, base, providers));
            }
        }
    }
    sources
}

/// One environment variable over the file: `SLUICEGATE__A__B` sets `a.b`. Truth values and whole numbers are read as
/// such, everything else is text.
fn overrule(table: &mut Table, key: &str, value: &str) {
    let Some(path) = key.strip_prefix("SLUICEGATE__") else {
        return;
    };
    let path = path.to_ascii_lowercase();
    let path: Vec<&str> = path.split("__").collect();
    let place = Place {
        file: Arc::from(format!("environment variable {key}")),
        line: 0,
    };
    let value = match (value, value.parse::<i64>()) {
        ("true", _) => Value::Bool(true),
        ("false", _) => Value::Bool(false),
        (_, Ok(number)) => Value::Integer(number),
        _ => Value::Text(value.to_owned()),
    };
    table.set(&path, Node { place, value });
}

/// Puts `[source_defaults]` under every source.
fn lay_source_defaults(table: &mut Table) {
    let Some(Node {
        value: Value::Table(defaults),
        ..
    }) = table.get("source_defaults").cloned()
    else {
        return;
    };
    for (key, _, node) in &mut table.entries {
        if let ("sources", Value::Table(sources)) = (key.as_str(), &mut node.value) {
            for (.., source) in &mut sources.entries {
                if let Value::Table(own) = &mut source.value {
                    let over = std::mem::replace(own, defaults.clone());
                    own.lay(over);
                }
            }
        }
    }
}

/// Provider files by name.
type Shipped = BTreeMap<String, Arc<Provider>>;

/// The providers compiled in. They are read once, however often a configuration is.
fn shipped(problems: &Problems) -> Shipped {
    static SHIPPED: OnceLock<(Shipped, Vec<Problem>)> = OnceLock::new();
    let (all, wrong) = SHIPPED.get_or_init(|| {
        let problems = Problems::default();
        let read = |(name, text): &(&str, &str)| {
            let table = Table::parse(&format!("config/providers/{name}.toml"), text, &problems);
            (
                (*name).to_owned(),
                Arc::new(Provider::read(name, &table, &problems)),
            )
        };
        (
            shipped_providers().iter().map(read).collect(),
            problems.into_sorted(),
        )
    });
    problems.add(wrong);
    all.clone()
}

/// The providers compiled in, and those of `[providers] folder` over them.
fn providers(
    root: &Section<'_>,
    base: &Path,
    problems: &Problems,
) -> BTreeMap<String, Arc<Provider>> {
    let mut all = shipped(problems);
    let Some(folder) = root
        .section("providers")
        .and_then(|section| section.text("folder"))
    else {
        return all;
    };
    if folder.is_empty() {
        return all;
    }
    let files = match std::fs::read_dir(base.join(&folder.value)) {
        Ok(files) => files,
        Err(error) => {
            problems.error_hint(
                &folder.place,
                format!(
                    "the provider folder {} cannot be read: {error}",
                    folder.value
                ),
                "make it, or leave providers.folder out",
            );
            return all;
        }
    };
    let mut paths: Vec<PathBuf> = files
        .filter_map(|file| file.ok().map(|file| file.path()))
        .collect();
    paths.sort();
    let mut own = Vec::new();
    for path in paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
    {
        let name = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let table = Table::parse(&path.display().to_string(), &text, problems);
                all.insert(
                    name.clone(),
                    Arc::new(Provider::read(&name, &table, problems)),
                );
                own.push(name);
            }
            Err(error) => {
                let place = Place {
                    file: path.display().to_string().into(),
                    line: 0,
                };
                problems.error(&place, format!("cannot be read: {error}"));
            }
        }
    }
    provider::settle_aliases(&mut all, &own, problems);
    all
}

include!(concat!(env!("OUT_DIR"), "/shipped_providers.rs"));
