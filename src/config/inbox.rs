//! `[inbox]`: where events are kept, for how long, and with which key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Secret, Section, size};

/// `[inbox]`
#[derive(Clone, Debug)]
pub struct InboxConfig {
    /// The engine, and where it keeps them.
    pub engine: Engine,
    /// Folder for this process's own files, when the events are elsewhere.
    pub folder: PathBuf,
    /// Most events of one commit.
    pub batch: usize,
    /// Most events that wait for the writer.
    pub queue: usize,
    /// Time for which finished events are kept, for sources without a time of their own.
    pub keep: KeepConfig,
    /// True if operators can search for words in bodies.
    pub search: bool,
    /// Largest size of the inbox.
    pub max_disk: Option<u64>,
    /// Free space that the inbox leaves on the disk.
    pub min_free: u64,
    /// Time for which the leases of a silent process hold (Postgres).
    pub lease: Duration,
    /// Number of connections to the database (Postgres).
    pub connections: usize,
    /// What callers' own calls are sealed with and status links are signed with; without one the program makes one
    /// beside the inbox.
    pub key: Option<Secret>,
    /// What the key was before: what was sealed and signed with these still holds.
    pub old_keys: Vec<Secret>,
    /// True if the content of events is encrypted.
    pub encrypt: bool,
}

/// Engine that keeps events.
#[derive(Clone, Debug)]
pub enum Engine {
    /// A file on a local disk.
    Sqlite(PathBuf),
    /// A database server, by the address with everything in it.
    Postgres(Secret),
}

impl Engine {
    /// Description of the engine for people, without secrets.
    pub fn title(&self) -> String {
        match self {
            Self::Sqlite(path) => path.display().to_string(),
            Self::Postgres(_) => "postgres".to_owned(),
        }
    }
}

/// Times for which finished events are kept, where they are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepConfig {
    /// Those whose deliveries are delivered; all, where nothing else is said.
    pub all: Option<Duration>,
    /// Those with a delivery that is dead or unknown.
    pub dead: Option<Duration>,
    /// Those that were filtered, cancelled or dropped.
    pub filtered: Option<Duration>,
}

impl InboxConfig {
    /// Settings of this section that are read at the start only. All others hold from a reload on.
    pub const AT_START: &[&str] = &[
        "batch",
        "connections",
        "encrypt",
        "key",
        "lease",
        "max_disk",
        "min_free",
        "old_keys",
        "queue",
        "search",
        "url",
    ];

    /// A file that is kept beside the events where they are in a file, and in the folder `data` where not.
    pub fn beside(&self, name: &str) -> PathBuf {
        match &self.engine {
            Engine::Sqlite(path) => path.with_file_name(name),
            Engine::Postgres(_) => self.folder.join(name),
        }
    }

    /// `token`: whether there is an admin token.
    pub(super) fn read(section: &Section<'_>, base: &Path, token: bool) -> Option<Self> {
        let engine = engine(section, base);
        if let (Some(Engine::Postgres(_)), Some(url)) = (&engine, section.text("url")) {
            // What one process made beside itself, the others could not read.
            for (there, what, size) in [
                (section.has("key"), "inbox.key", 32),
                (token, "admin.token", 24),
            ] {
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
    if let Some(path) = url
        .strip_prefix("sqlite:")
        .filter(|path| !path.is_empty() && *path != ":memory:")
    {
        return Some(Engine::Sqlite(base.join(path)));
    }
    let is_postgres =
        |url: &str| url.starts_with("postgres://") || url.starts_with("postgresql://");
    let secret = if is_postgres(&url.value) {
        Some(Secret::new("inbox.url", url.value.clone()))
    } else if url.starts_with("env:") || url.starts_with("file:") {
        section.secret("url", base)
    } else {
        None
    };
    match secret {
        Some(secret) if std::str::from_utf8(secret.expose()).is_ok_and(is_postgres) => {
            Some(Engine::Postgres(secret))
        }
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
    pub(super) fn read(section: &Section<'_>) -> Self {
        let time = |key| section.duration(key).map(|time| time.value);
        Self {
            all: time("keep"),
            dead: time("keep_dead"),
            filtered: time("keep_filtered"),
        }
    }
}
