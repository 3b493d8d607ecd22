//! What the operator wrote: defaults, then the file, then the environment, laid on each other and checked as one.
//!
//! Reading never stops at the first mistake. [`Config::load`] gives everything that is wrong, and a `Config` only
//! when nothing is. The stages compile their own sections (`source`, `mapping`, …) with the same list of problems, so
//! `sluicegate check` is the same path as starting.

pub mod attachment;
pub mod channel;
pub mod door;
pub mod node;
pub mod problem;
pub mod provider;
pub mod reconcile;
pub mod secret;
pub mod section;
pub mod source;
pub mod unit;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use attachment::{Attachments, Intake, LinkKind, SourceFiles, StorePlace};
pub use channel::{ChannelFiles, Part, SourceFetch, Step, Target, Way};
pub use door::{DropIn, ExtraFields, GatewayKey, ProxyConfig};
pub use node::{Node, Table, Value};
pub use problem::{Located, Place, Problem, Problems, Weight};
pub use provider::{Ack, Provider, Sample};
pub use reconcile::{LogKind, ProviderLog, ReconcileConfig};
pub use secret::Secret;
pub use section::Section;
pub use source::{EventJson, OnUnknown, Respond, RunFields, RunMode, SourceConfig, TaskIdForm};
pub use unit::Rate;

use crate::model::{Block, Destination};

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
    pub upstream: Upstream,
    /// What requests name and the gateway fetches.
    pub fetch: Fetch,
    /// Where events are kept.
    pub inbox: Inbox,
    /// Getting them there.
    pub dispatch: Dispatch,
    /// Files that come along.
    pub attachments: Attachments,
    /// How much, how fast.
    pub limits: Limits,
    /// What the program says of itself.
    pub log: Log,
    /// The providers that are known: compiled in, and those of the operator's folder over them.
    pub providers: BTreeMap<String, Arc<Provider>>,
    /// The configured ways in.
    pub sources: Vec<SourceConfig>,
    /// The stand-in for the platform's hosted webhook.
    pub dropin: DropIn,
    /// The keys that callers may present instead of the upstream's.
    pub keys: Vec<GatewayKey>,
    /// What is passed through to an upstream, by prefix of the path.
    pub proxies: Vec<ProxyConfig>,
    /// The folder that relative paths start from: the configuration file's.
    pub base: PathBuf,
}

/// `[server]`
#[derive(Clone, Debug)]
pub struct Server {
    /// Where third parties call.
    pub listen: SocketAddr,
    /// The address by which they know it, without a slash at the end.
    pub public_url: String,
    /// The largest body where neither the source nor its provider says.
    pub max_body: u64,
    /// The largest request head.
    pub max_head: usize,
    /// How long a head may take, and a TLS handshake.
    pub head_timeout: Duration,
    /// How long a connection may be idle between two requests.
    pub idle_timeout: Duration,
    /// How long a caller may take nothing of its answer.
    pub write_stall: Duration,
    /// How long a body may stand still.
    pub body_stall: Duration,
    /// How long a body may take in all.
    pub body_timeout: Duration,
    /// How many connections at once.
    pub max_connections: usize,
    /// How many of those from one address.
    pub max_connections_per_address: usize,
    /// How many requests in work at once.
    pub max_requests: usize,
    /// Who is believed when it names its callers.
    pub trusted_proxies: Vec<Block>,
    /// Whether those begin connections with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether HTTP/2 is spoken without TLS.
    pub http2_cleartext: bool,
    /// The certificate, where TLS is spoken.
    pub tls: Option<TlsFiles>,
    /// How long a stop may take.
    pub drain_timeout: Duration,
}

/// `[server.tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those it hangs on.
    pub cert: Located<PathBuf>,
    /// Its key.
    pub key: Located<PathBuf>,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where operators call.
    pub listen: SocketAddr,
    /// What they must show; without one the program makes one beside the inbox.
    pub token: Option<Secret>,
    /// Host names it goes by, besides addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// `[upstream]`
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where the API is; a path in it stands before every call's own.
    pub base_url: http::Uri,
    /// The key it wants.
    pub api_key: Option<Secret>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a blocking run may take.
    pub run_timeout: Duration,
    /// The largest answer.
    pub max_answer: u64,
    /// How many requests it may get, runs and questions for runs together.
    pub budget: Option<Rate>,
    /// A file with certificates to trust besides the usual ones.
    pub ca_file: Option<PathBuf>,
}

/// `[fetch]`
#[derive(Clone, Debug, Default)]
pub struct Fetch {
    /// What is reached although it is not of the public internet.
    pub allow: Vec<Block>,
}

/// `[inbox]`
#[derive(Clone, Debug)]
pub struct Inbox {
    /// The engine, and where it keeps them.
    pub engine: Engine,
    /// Where this process keeps what is its own, when the events are elsewhere.
    pub folder: PathBuf,
    /// How many events share a commit at most.
    pub batch: usize,
    /// How many may wait for the writer.
    pub queue: usize,
    /// How long finished events are kept, where a source does not say.
    pub keep: KeepConfig,
    /// Whether operators can search for words in bodies.
    pub search: bool,
    /// How large it may become.
    pub max_disk: Option<u64>,
    /// How much of the disk it leaves free.
    pub min_free: u64,
    /// How long the leases of a process that is heard of no more hold (Postgres).
    pub lease: Duration,
    /// How many connections there are to the database (Postgres).
    pub connections: usize,
    /// What callers' own calls are sealed with and status links are signed with; without one the program makes one
    /// beside the inbox.
    pub key: Option<Secret>,
    /// What the key was before: what was sealed and signed with these still holds.
    pub old_keys: Vec<Secret>,
    /// Whether what events say is kept encrypted.
    pub encrypt: bool,
}

/// What keeps events.
#[derive(Clone, Debug)]
pub enum Engine {
    /// A file on a local disk.
    Sqlite(PathBuf),
    /// A database server, by the address with everything in it.
    Postgres(Secret),
}

impl Engine {
    /// What it is, for people; without secrets.
    pub fn title(&self) -> String {
        match self {
            Self::Sqlite(path) => path.display().to_string(),
            Self::Postgres(_) => "postgres".to_owned(),
        }
    }
}

impl Inbox {
    /// A file that is kept beside the events where they are in a file, and in the folder `data` where not.
    pub fn beside(&self, name: &str) -> PathBuf {
        match &self.engine {
            Engine::Sqlite(path) => path.with_file_name(name),
            Engine::Postgres(_) => self.folder.join(name),
        }
    }
}

/// How long finished events are kept, as far as it is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepConfig {
    /// Those whose deliveries are delivered; all, where nothing else is said.
    pub all: Option<Duration>,
    /// Those with a delivery that is dead or unknown.
    pub dead: Option<Duration>,
    /// Those that were filtered, cancelled or dropped.
    pub filtered: Option<Duration>,
}

/// How much at once and how fast to a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// How many deliveries in flight.
    pub concurrency: Option<usize>,
    /// How often.
    pub rate: Option<Rate>,
}

/// How many calls of a destination are remembered at most.
const MAX_BREAKER_CALLS: usize = 1_000;

/// When a destination that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Of how many of the last calls.
    pub calls: usize,
    /// How many of a hundred have to fail; 0: it is never left alone.
    pub percent: usize,
    /// How long until it is tried again, with one call.
    pub rest: Duration,
}

/// `[dispatch]`
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// How many deliveries at once.
    pub concurrency: usize,
    /// How often, in all.
    pub rate: Option<Rate>,
    /// What holds for each destination that is not among `destinations`.
    pub each_destination: Caps,
    /// What holds for single destinations (`[destinations."agent/ID"]`).
    pub destinations: HashMap<Destination, Caps>,
    /// When a destination that fails is left alone.
    pub breaker: Breaker,
    /// How often a delivery is tried that reaches the upstream.
    pub max_attempts: u32,
    /// The wait before the second try; doubled for each one after.
    pub backoff: Duration,
    /// The longest wait between two tries.
    pub backoff_max: Duration,
    /// How long an upstream that takes nothing is tried before a delivery is dead.
    pub give_up_after: Duration,
    /// How long to follow a run that has not ended.
    pub follow_timeout: Duration,
}

/// `[limits]`
#[derive(Clone, Debug)]
pub struct Limits {
    /// Each caller's address.
    pub caller: Option<Rate>,
    /// The whole gateway.
    pub whole: Option<Rate>,
    /// How many runs a day there may be.
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
    /// What is logged, as `tracing` writes it: `info`, `sluicegate=debug`.
    pub filter: String,
}

impl Config {
    /// Reads a configuration. Everything that is wrong is noted in `problems`; when an error is among it, nothing
    /// should start, whatever is returned.
    pub fn load(file: &Path, problems: &Problems) -> Option<Self> {
        let name = file.display().to_string();
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                problems.error_hint(
                    &Place { file: name.into(), line: 0 },
                    format!("cannot be read: {error}"),
                    "name the file with --config; config/example.toml shows one",
                );
                return None;
            }
        };
        let base = match file.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Self::parse(&name, &text, &base, std::env::vars(), problems)
    }

    /// Reads a configuration from text. `base` is the folder that relative paths start from; `environment` may
    /// overrule single settings: `SLUICEGATE__SERVER__LISTEN` is `server.listen`.
    pub fn parse(
        name: &str,
        text: &str,
        base: &Path,
        environment: impl Iterator<Item = (String, String)>,
        problems: &Problems,
    ) -> Option<Self> {
        let mut table = Table::parse("default settings", DEFAULTS, problems);
        table.lay(Table::parse(name, text, problems));
        for (key, value) in environment {
            overrule(&mut table, &key, &value);
        }
        lay_source_defaults(&mut table);

        let root = Section::new(&table, "", problems);
        let providers = providers(&root, base, problems);
        let mut sources = Vec::new();
        if let Some(section) = root.section("sources") {
            for (key, place) in section.keys() {
                if !is_name(key) {
                    problems.error_hint(
                        place,
                        format!("\"{}\" cannot be the name of a source", key.escape_debug()),
                        "use letters, digits, '-' and '_'; it becomes the last part of /hooks/{name}",
                    );
                }
                if let Some(source) = section.section(key) {
                    sources.push(SourceConfig::read(key, &source, base));
                }
            }
        }
        // Read by `lay_source_defaults`; wrong keys in it are reported where they land.
        root.has("source_defaults");
        // All sections are read before the first that is missing ends it: every problem comes at once.
        let server = root.section("server").and_then(|section| Server::read(&section, base));
        let mut token = false;
        let admin = root.section("admin").and_then(|section| {
            token = section.has("token");
            Admin::read(&section, base)
        });
        let upstream = root.section("upstream").and_then(|section| Upstream::read(&section, base));
        let fetch = root.section("fetch").map(|section| Fetch { allow: section.blocks("allow").unwrap_or_default() });
        let inbox = root.section("inbox").and_then(|section| Inbox::read(&section, base, token));
        let dispatch = root.section("dispatch").and_then(|section| Dispatch::read(&section, Caps::read_all(&root)));
        let attachments = root.section("attachments").and_then(|section| Attachments::read(&section, base));
        let limits = root.section("limits").map(|section| Limits::read(&section));
        let log = root.section("log").and_then(|section| Log::read(&section));
        let dropin = root.section("dropin").and_then(|section| DropIn::read(&section));
        let keys = GatewayKey::read_all(&root, base);
        let proxies = ProxyConfig::read_all(&root);
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
            sources,
            base: base.to_owned(),
        };
        channel::check(&config, problems);
        Some(config)
    }
}

impl Server {
    fn read(section: &Section<'_>, base: &Path) -> Option<Self> {
        let listen = section.parsed("listen", "an address and port like \"127.0.0.1:8080\"");
        let public_url = public_url(section);
        let (max_body, max_head) = (section.bytes("max_body"), section.bytes("max_head"));
        let head_timeout = section.duration("head_timeout");
        let (idle_timeout, write_stall) = (section.duration("idle_timeout"), section.duration("write_stall"));
        let (body_stall, body_timeout) = (section.duration("body_stall"), section.duration("body_timeout"));
        let max_connections = size(section, "max_connections");
        let max_connections_per_address = size(section, "max_connections_per_address");
        let max_requests = size(section, "max_requests");
        let trusted_proxies = section.blocks("trusted_proxies").unwrap_or_default();
        let (proxy_protocol, http2_cleartext) = (section.bool("proxy_protocol"), section.bool("http2_cleartext"));
        if let Some(on) = proxy_protocol.as_ref().filter(|on| on.value)
            && trusted_proxies.is_empty()
        {
            section.problems().error_hint(
                &on.place,
                "server.proxy_protocol has nobody to believe",
                "name the proxies in server.trusted_proxies, for example [\"10.0.0.0/8\"]",
            );
        }
        let tls = section.section("tls").map(|section| TlsFiles::read(&section, base));
        let drain_timeout = section.duration("drain_timeout");
        Some(Self {
            listen: listen?.value,
            public_url: public_url.unwrap_or_default(),
            max_body: max_body?.value,
            max_head: usize::try_from(max_head?.value).unwrap_or(usize::MAX),
            head_timeout: head_timeout?.value,
            idle_timeout: idle_timeout?.value,
            write_stall: write_stall?.value,
            body_stall: body_stall?.value,
            body_timeout: body_timeout?.value,
            max_connections: max_connections?,
            max_connections_per_address: max_connections_per_address?,
            max_requests: max_requests?,
            trusted_proxies,
            proxy_protocol: proxy_protocol?.value,
            http2_cleartext: http2_cleartext?.value,
            tls: match tls {
                Some(files) => Some(files?),
                None => None,
            },
            drain_timeout: drain_timeout?.value,
        })
    }
}

impl TlsFiles {
    fn read(section: &Section<'_>, base: &Path) -> Option<Self> {
        let cert = section.required_text("cert", "name the file of the certificate, as PEM");
        let key = section.required_text("key", "name the file of the certificate's key, as PEM");
        Some(Self { cert: cert?.map(|file| base.join(file)), key: key?.map(|file| base.join(file)) })
    }
}

fn public_url(section: &Section<'_>) -> Option<String> {
    let written = section.text("public_url")?;
    let text = written.value.trim_end_matches('/');
    if text.is_empty() {
        return None;
    }
    let good = text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some() && uri.query().is_none()
    });
    if !good {
        section.problems().error_hint(
            &written.place,
            "server.public_url is no address",
            "write what third parties call, for example \"https://hooks.example.com\"",
        );
        return None;
    }
    Some(text.to_owned())
}

impl Admin {
    fn read(section: &Section<'_>, base: &Path) -> Option<Self> {
        let token = section.secret("token", base);
        if let (Some(token), Some(written)) = (&token, section.text("token"))
            && token.expose().len() < 8
        {
            section.problems().error_hint(
                &written.place,
                "admin.token is shorter than 8 characters",
                "make a long one, for example with: openssl rand -hex 24",
            );
        }
        let listen = section.parsed("listen", "an address and port like \"127.0.0.1:8081\"");
        let hosts = section.texts("hosts").unwrap_or_default().into_iter().map(|host| host.value).collect();
        Some(Self { listen: listen?.value, token, hosts })
    }
}

impl Upstream {
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
        let base_url = section.text("base_url").and_then(|text| {
            let uri = text.parse::<http::Uri>().ok().filter(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some() && uri.query().is_none()
            });
            if uri.is_none() {
                section.problems().error_hint(
                    &text.place,
                    "upstream.base_url is no address",
                    "write for example \"https://api.xpander.ai\"; a path after the host is kept",
                );
            }
            uri
        });
        let (connect_timeout, run_timeout) = (section.duration("connect_timeout"), section.duration("run_timeout"));
        let max_answer = section.bytes("max_answer");
        let budget = section.rate("budget");
        let ca_file = section.text("ca_file").filter(|file| !file.is_empty()).map(|file| base.join(&file.value));
        Some(Self {
            base_url: base_url?,
            api_key,
            connect_timeout: connect_timeout?.value,
            run_timeout: run_timeout?.value,
            max_answer: max_answer?.value,
            budget: budget.map(|rate| rate.value),
            ca_file,
        })
    }
}

impl Inbox {
    /// `token`: whether there is an admin token.
    fn read(section: &Section<'_>, base: &Path, token: bool) -> Option<Self> {
        let engine = engine(section, base);
        if let (Some(Engine::Postgres(_)), Some(url)) = (&engine, section.text("url")) {
            // What one process made beside itself, the others could not read.
            for (there, what, size) in [(section.has("key"), "inbox.key", 32), (token, "admin.token", 24)] {
                if !there {
                    section.problems().error_hint(
                        &url.place,
                        format!("{what} is not set, which an inbox on Postgres needs"),
                        format!(
                            "give all processes that share the inbox the same one, for example \"file:…\", made with: \
                             openssl rand -hex {size}"
                        ),
                    );
                }
            }
        }
        let (batch, queue) = (size(section, "batch"), size(section, "queue"));
        let keep = KeepConfig::read(section);
        let search = section.bool("search");
        let (max_disk, min_free) = (section.bytes("max_disk"), section.bytes("min_free"));
        let lease = section.duration("lease");
        if let Some(lease) = &lease
            && lease.value < Duration::from_secs(2)
        {
            section.problems().error_hint(
                &lease.place,
                "inbox.lease is shorter than 2 seconds",
                "a process that is only slow for a moment would lose its work to another; 15s is usual",
            );
        }
        let connections = size(section, "connections");
        let key = section.secret("key", base);
        if let (Some(key), Some(written)) = (&key, section.text("key"))
            && key.expose().len() < 32
        {
            section.problems().error_hint(
                &written.place,
                "inbox.key is shorter than 32 characters",
                "make one, for example with: openssl rand -hex 32",
            );
        }
        let old_keys = section.secrets("old_keys", base).unwrap_or_default();
        for key in old_keys.iter().filter(|key| key.expose().len() < 32) {
            section.problems().error_hint(
                &key.place,
                "a key of inbox.old_keys is shorter than 32 characters",
                "list what inbox.key was before it was changed",
            );
        }
        let encrypt = section.bool("encrypt");
        if let (Some(encrypt), Some(true)) = (&encrypt, search.as_ref().map(|search| search.value))
            && encrypt.value
        {
            section.problems().error_hint(
                &encrypt.place,
                "inbox.encrypt and inbox.search are both on",
                "an index of words would show what is encrypted: switch one of them off",
            );
        }
        Some(Self {
            engine: engine?,
            folder: base.join("data"),
            batch: batch?,
            queue: queue?,
            keep,
            search: search?.value,
            max_disk: max_disk.map(|bytes| bytes.value),
            min_free: min_free?.value,
            lease: lease?.value,
            connections: connections?,
            key,
            old_keys: old_keys.into_iter().map(|key| key.value).collect(),
            encrypt: encrypt?.value,
        })
    }
}

/// The inbox's address. One with a password may stand in the environment or in a file.
fn engine(section: &Section<'_>, base: &Path) -> Option<Engine> {
    let url = section.text("url")?;
    if let Some(path) = url.strip_prefix("sqlite:").filter(|path| !path.is_empty() && *path != ":memory:") {
        return Some(Engine::Sqlite(base.join(path)));
    }
    let is_postgres = |url: &str| url.starts_with("postgres://") || url.starts_with("postgresql://");
    let secret = if is_postgres(&url.value) {
        Some(Secret::new("inbox.url", url.value.clone()))
    } else if url.starts_with("env:") || url.starts_with("file:") {
        section.secret("url", base)
    } else {
        None
    };
    match secret {
        Some(secret) if std::str::from_utf8(secret.expose()).is_ok_and(is_postgres) => Some(Engine::Postgres(secret)),
        _ => {
            section.problems().error_hint(
                &url.place,
                "inbox.url names no inbox",
                "write \"sqlite:\" and a file on a local disk, for example \"sqlite:data/inbox.db\", or the address of a \
                 database, \"postgres://user@host/name\"; \"env:NAME\" or \"file:PATH\" for one with a password",
            );
            None
        }
    }
}

impl KeepConfig {
    fn read(section: &Section<'_>) -> Self {
        let time = |key| section.duration(key).map(|time| time.value);
        Self { all: time("keep"), dead: time("keep_dead"), filtered: time("keep_filtered") }
    }
}

impl Caps {
    fn read(section: &Section<'_>, concurrency: &str, rate: &str) -> Self {
        Self { concurrency: size(section, concurrency), rate: section.rate(rate).map(|rate| rate.value) }
    }

    /// `[destinations."agent/ID"]`
    fn read_all(root: &Section<'_>) -> HashMap<Destination, Self> {
        let Some(all) = root.section("destinations") else { return HashMap::new() };
        let mut destinations = HashMap::new();
        for (name, place) in all.keys() {
            let caps = all.section(name).map(|section| Self::read(&section, "concurrency", "rate"));
            match name.parse() {
                Ok(destination) => destinations.extend(caps.map(|caps| (destination, caps))),
                Err(_) => all.problems().error_hint(
                    place,
                    format!("\"{}\" is no destination", name.escape_debug()),
                    "write [destinations.\"agent/ID\"] or [destinations.\"workflow/ID\"]",
                ),
            }
        }
        destinations
    }
}

impl Breaker {
    fn read(section: &Section<'_>) -> Option<Self> {
        let calls = size(section, "breaker_calls");
        if calls.is_some_and(|calls| calls > MAX_BREAKER_CALLS)
            && let Some(node) = section.node("breaker_calls")
        {
            let most = format!("{} must be at most {MAX_BREAKER_CALLS}", section.path("breaker_calls"));
            section.problems().error(&node.place, most);
        }
        let percent = section.integer("breaker_percent");
        let rest = section.duration("breaker_rest");
        let percent = percent.and_then(|percent| match usize::try_from(percent.value) {
            Ok(whole) if whole <= 100 => Some(whole),
            _ => {
                section.problems().error_hint(
                    &percent.place,
                    "dispatch.breaker_percent is no share of a hundred",
                    "50 leaves a destination alone when half of its calls fail, 0 never does",
                );
                None
            }
        });
        Some(Self { calls: calls?, percent: percent?, rest: rest?.value })
    }
}

impl Dispatch {
    fn read(section: &Section<'_>, destinations: HashMap<Destination, Caps>) -> Option<Self> {
        let (concurrency, max_attempts) = (size(section, "concurrency"), size(section, "max_attempts"));
        let (backoff, backoff_max) = (section.duration("backoff"), section.duration("backoff_max"));
        let give_up_after = section.duration("give_up_after");
        let follow_timeout = section.duration("follow_timeout");
        let each_destination = Caps::read(section, "destination_concurrency", "destination_rate");
        let (rate, breaker) = (section.rate("rate"), Breaker::read(section));
        Some(Self {
            concurrency: concurrency?,
            rate: rate.map(|rate| rate.value),
            each_destination,
            destinations,
            breaker: breaker?,
            max_attempts: u32::try_from(max_attempts?).unwrap_or(u32::MAX),
            backoff: backoff?.value,
            backoff_max: backoff_max?.value,
            give_up_after: give_up_after?.value,
            follow_timeout: follow_timeout?.value,
        })
    }
}

impl Limits {
    fn read(section: &Section<'_>) -> Self {
        let runs = section.section("runs_per_day").map(|runs| {
            let read = |key| size(&runs, key).map(|most| most as u64);
            RunBudgets { whole: read("whole"), agent: read("agent"), user: read("user") }
        });
        Self {
            caller: section.rate("caller").map(|r| r.value),
            whole: section.rate("whole").map(|r| r.value),
            runs: runs.unwrap_or_default(),
        }
    }
}

impl Log {
    fn read(section: &Section<'_>) -> Option<Self> {
        let json = section.one_of("format", &[("text", false), ("json", true)]);
        let filter = section.text("filter");
        Some(Self { json: json?.value, filter: filter?.value })
    }
}

/// A whole number that is at least one.
pub(super) fn size(section: &Section<'_>, key: &str) -> Option<usize> {
    let number = section.integer(key)?;
    if number.value == 0 {
        section.problems().error(&number.place, format!("{} must be at least 1", section.path(key)));
    }
    Some(usize::try_from(number.value).unwrap_or(usize::MAX).max(1))
}

/// A name that may stand in paths, labels and headers.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// One environment variable over the file: `SLUICEGATE__A__B` sets `a.b`. Truth values and whole numbers are read as
/// such, everything else is text.
fn overrule(table: &mut Table, key: &str, value: &str) {
    let Some(path) = key.strip_prefix("SLUICEGATE__") else { return };
    let path = path.to_ascii_lowercase();
    let path: Vec<&str> = path.split("__").collect();
    let place = Place { file: Arc::from(format!("environment variable {key}")), line: 0 };
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
    let Some(Node { value: Value::Table(defaults), .. }) = table.get("source_defaults").cloned() else { return };
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
            ((*name).to_owned(), Arc::new(Provider::read(name, &table, &problems)))
        };
        (shipped_providers().iter().map(read).collect(), problems.into_sorted())
    });
    problems.add(wrong);
    all.clone()
}

/// The providers compiled in, and those of `[providers] folder` over them.
fn providers(root: &Section<'_>, base: &Path, problems: &Problems) -> BTreeMap<String, Arc<Provider>> {
    let mut all = shipped(problems);
    let Some(folder) = root.section("providers").and_then(|section| section.text("folder")) else { return all };
    if folder.is_empty() {
        return all;
    }
    let files = match std::fs::read_dir(base.join(&folder.value)) {
        Ok(files) => files,
        Err(error) => {
            problems.error_hint(
                &folder.place,
                format!("the provider folder {} cannot be read: {error}", folder.value),
                "make it, or leave providers.folder out",
            );
            return all;
        }
    };
    let mut paths: Vec<PathBuf> = files.filter_map(|file| file.ok().map(|file| file.path())).collect();
    paths.sort();
    for path in paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "toml")) {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let table = Table::parse(&path.display().to_string(), &text, problems);
                all.insert(name.clone(), Arc::new(Provider::read(&name, &table, problems)));
            }
            Err(error) => {
                let place = Place { file: path.display().to_string().into(), line: 0 };
                problems.error(&place, format!("cannot be read: {error}"));
            }
        }
    }
    all
}

include!(concat!(env!("OUT_DIR"), "/shipped_providers.rs"));
