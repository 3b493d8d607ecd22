//! Every setting of a configuration by its name, as a digest of what it is: what has changed between two of them, and
//! which of that holds after a restart only. Nothing here can be read back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::config::{Admin, Attachments, Config, InboxConfig, Log, Server, Table, Value};

/// Sections with settings that are read at the start only; each section says which.
const AT_START: [(&str, &[&str]); 5] = [
    ("admin", Admin::AT_START),
    ("attachments", Attachments::AT_START),
    ("inbox", InboxConfig::AT_START),
    ("log", Log::AT_START),
    ("server", Server::AT_START),
];

/// The settings of a configuration.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<String, [u8; 32]>);

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({})", self.0.len())
    }
}

impl Settings {
    /// Those of a configuration. Secrets count with what they are and not only with where they are kept.
    pub(super) fn of(config: &Config) -> Self {
        let mut all = BTreeMap::new();
        gather(config, &config.written, String::new(), &mut all);
        // A provider's file is a setting as well, by its name.
        for (name, provider) in &config.providers {
            if let Some(written) = &provider.written {
                let mut digest = Sha256::new();
                add_table(config, written, &mut digest);
                all.insert(format!("provider {name}"), digest.finalize().into());
            }
        }
        Self(all)
    }

    /// One short word for all of them: two processes that say the same have the same configuration.
    pub(super) fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for (name, value) in &self.0 {
            digest.update(name);
            digest.update([0]);
            digest.update(value);
        }
        hex::encode(&digest.finalize()[..8])
    }

    /// The names of what is another in `next`, and holds after a restart only.
    pub(super) fn waiting(&self, next: &Self) -> Vec<String> {
        self.changed(next)
            .filter(|name| is_at_start(name))
            .map(str::to_owned)
            .collect()
    }

    fn changed<'s>(&'s self, next: &'s Self) -> impl Iterator<Item = &'s str> {
        let names: BTreeSet<&str> = self
            .0
            .keys()
            .chain(next.0.keys())
            .map(String::as_str)
            .collect();
        names
            .into_iter()
            .filter(|name| self.0.get(*name) != next.0.get(*name))
    }
}

/// True for a setting that is read at the start only.
fn is_at_start(name: &str) -> bool {
    let Some((section, key)) = name.split_once('.') else {
        return false;
    };
    AT_START
        .iter()
        .filter(|(known, _)| *known == section)
        .flat_map(|(_, settings)| *settings)
        .any(|setting| key == *setting || (setting.ends_with('.') && key.starts_with(setting)))
}

fn gather(config: &Config, table: &Table, before: String, all: &mut BTreeMap<String, [u8; 32]>) {
    for (key, _, node) in &table.entries {
        let name = if before.is_empty() {
            key.clone()
        } else {
            format!("{before}.{key}")
        };
        match &node.value {
            Value::Table(inner) => gather(config, inner, name, all),
            value => {
                let mut digest = Sha256::new();
                add(config, value, &mut digest);
                all.insert(name, digest.finalize().into());
            }
        }
    }
}

/// Adds a value to a digest, each kind with a mark of its own, so that none is taken for another.
fn add(config: &Config, value: &Value, digest: &mut Sha256) {
    match value {
        Value::Text(text) => {
            put(digest, b't', text.as_bytes());
            if let Some(name) = text.strip_prefix("env:") {
                put(
                    digest,
                    b'e',
                    std::env::var(name).unwrap_or_default().as_bytes(),
                );
            } else if let Some(file) = text.strip_prefix("file:") {
                let file = config.base.join(file);
                let bytes = if file.is_file() {
                    std::fs::read(file).unwrap_or_default()
                } else {
                    Vec::new()
                };
                put(digest, b'f', &bytes);
            }
        }
        Value::Integer(number) => put(digest, b'i', &number.to_be_bytes()),
        Value::Float(number) => put(digest, b'd', &number.to_be_bytes()),
        Value::Bool(yes) => put(digest, b'b', &[u8::from(*yes)]),
        Value::Time(text) => put(digest, b'T', text.as_bytes()),
        Value::List(items) => {
            put(digest, b'l', &length(items.len()));
            items
                .iter()
                .for_each(|item| add(config, &item.value, digest));
        }
        Value::Table(table) => add_table(config, table, digest),
    }
}

/// Adds a table to a digest. The order of its keys does not count.
fn add_table(config: &Config, table: &Table, digest: &mut Sha256) {
    put(digest, b'm', &length(table.entries.len()));
    let mut entries: Vec<_> = table.entries.iter().collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    for (key, _, node) in entries {
        digest.update(key);
        digest.update([0]);
        add(config, &node.value, digest);
    }
}

/// Adds bytes to a digest, with the kind of their value and their number.
fn put(digest: &mut Sha256, kind: u8, bytes: &[u8]) {
    digest.update([kind]);
    digest.update(length(bytes.len()));
    digest.update(bytes);
}

fn length(of: usize) -> [u8; 8] {
    u64::try_from(of).unwrap_or(u64::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{DEFAULTS, Problems};

    /// Sections and settings that hold from the reload on.
    const AT_ONCE: [&str; 29] = [
        "admin.hosts",
        "admin.keep_refused",
        "admin.token",
        "attachments.accept",
        "attachments.keep",
        "attachments.link_lifetime",
        "attachments.links",
        "attachments.max_file",
        "attachments.max_files",
        "attachments.max_upload",
        "attachments.upload_timeout",
        "destinations",
        "dispatch.",
        "dropin.",
        "fetch.",
        "inbox.keep",
        "keys",
        "limits.",
        "providers.",
        "proxy",
        "server.body_stall",
        "server.body_timeout",
        "server.max_body",
        "server.max_held",
        "server.min_body_rate",
        "server.public_url",
        "source_defaults.",
        "sources",
        "upstream.",
    ];

    fn settings(text: &str, base: &Path) -> Settings {
        let problems = Problems::default();
        let config = Config::parse("t", text, base, std::iter::empty(), &problems);
        Settings::of(&config.unwrap_or_else(|| panic!("{text}: {:?}", problems.into_sorted())))
    }

    /// Every setting of the reference, those that stand there as comments included, each with its section.
    fn reference() -> Vec<String> {
        let mut section = String::new();
        let mut all = Vec::new();
        for line in DEFAULTS.lines() {
            let line = line.strip_prefix("# ").unwrap_or(line);
            if let Some(name) = line.strip_prefix('[') {
                section = name
                    .trim_start_matches('[')
                    .split(']')
                    .next()
                    .unwrap_or_default()
                    .to_owned();
            } else if let Some((key, _)) = line.split_once(" = ")
                && key
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                && !section.is_empty()
            {
                all.push(format!("{section}.{key}"));
            }
        }
        all
    }

    #[test]
    fn a10_of_each_setting_it_is_known_whether_a_reload_takes_it() {
        let all = reference();
        assert!(all.len() > 120, "saw {} settings", all.len());
        for name in &all {
            let name = name.replace("attachments.settings", "attachments.settings.");
            let at_once = AT_ONCE.iter().any(|known| name.starts_with(known));
            assert!(
                at_once != is_at_start(&name),
                "{name}: does it hold from a reload on, or after a restart?"
            );
        }
        for (section, settings) in AT_START {
            for setting in settings.iter().filter(|setting| !setting.ends_with('.')) {
                let name = format!("{section}.{setting}");
                assert!(all.contains(&name), "{name} is no setting");
            }
        }
    }

    #[test]
    fn a10_what_waits_for_a_restart_is_named_and_moving_lines_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let of = |text: &str| settings(text, folder.path());
        let started = of("[server]\nmax_body = \"2MiB\"\n[inbox]\nbatch = 64\n");
        assert_eq!(
            of("# moved\n\n[inbox]\nbatch = 64\n\n[server]\nmax_body = \"2MiB\"\n"),
            started
        );
        let next =
            of("[server]\nmax_body = \"3MiB\"\nidle_timeout = \"5s\"\n[log]\nfilter = \"debug\"\n");
        assert_eq!(
            started.waiting(&next),
            ["inbox.batch", "log.filter", "server.idle_timeout"]
        );
        assert_eq!(started.waiting(&started), Vec::<String>::new());
        assert_ne!(started.digest(), next.digest());
    }

    #[test]
    fn a10_a_secret_file_that_says_something_else_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(folder.path().join("key"), text).unwrap();
        write("0123456789abcdef0123456789abcdef");
        let of = || settings("[inbox]\nkey = \"file:key\"\n", folder.path());
        let started = of();
        assert_eq!(of(), started);
        write("another-key-0123456789abcdef0123");
        assert_eq!(started.waiting(&of()), ["inbox.key"]);
    }

    #[test]
    fn a10_a_provider_file_is_compared_by_its_settings_and_not_by_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(folder.path().join("mine.toml"), text).unwrap();
        let of = || settings("[providers]\nfolder = \".\"\n", folder.path()).digest();
        write("title = \"Mine\"\n[verify]\nscheme = \"none\"\n");
        let started = of();
        write("# moved\n\ntitle = \"Mine\"\n\n[verify]\nscheme = \"none\"\n");
        assert_eq!(of(), started);
        write("title = \"Another\"\n[verify]\nscheme = \"none\"\n");
        assert_ne!(of(), started);
    }
}
