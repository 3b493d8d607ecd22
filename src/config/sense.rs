//! What starts and cannot do what it is there for: a key that is missing, a folder that nobody may write to, a source
//! that nobody reaches. Everything here is a warning, but for what surely fails.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::attachment::{LinkKind, StorePlace};
use super::node::{Node, Table, Value};
use super::problem::{Place, Problems};
use super::{Config, Engine, Respond, SourceConfig};
use crate::model::DestinationKind;

/// Names of agents that stand in texts about agents.
const NO_AGENTS: [&str; 14] = [
    "todo",
    "tbd",
    "fixme",
    "xxx",
    "changeme",
    "change-me",
    "replace-me",
    "replace_me",
    "agent-id",
    "agent_id",
    "your-agent-id",
    "your_agent_id",
    "my-agent-id",
    "workflow-id",
];

/// A configuration, looked at by somebody who wants to see it work.
struct Sense<'a> {
    config: &'a Config,
    problems: &'a Problems,
}

/// Notes what makes no sense.
pub fn check(config: &Config, problems: &Problems) {
    let sense = Sense { config, problems };
    sense.upstream();
    sense.listeners();
    sense.folders();
    sense.public_url();
    for source in &config.sources {
        sense.source(source);
    }
    sense.texts(&config.written, &mut Vec::new());
}

impl Sense<'_> {
    fn place(&self, path: &[&str]) -> Place {
        self.config.setting(path)
    }

    fn upstream(&self) {
        let (upstream, config) = (&self.config.upstream, self.config);
        let is_needed = !config.sources.is_empty() || config.keys.iter().any(|key| key.upstream_key.is_none());
        if upstream.api_key.is_none() && is_needed {
            self.problems.warn(
                &self.place(&["upstream", "api_key"]),
                "upstream.api_key is not set: the upstream refuses every run",
                "[upstream] api_key = \"env:XPANDER_API_KEY\", with the key of your organisation",
            );
        }
        if upstream.base_url.path().split('/').any(|part| part == "v1") {
            self.problems.warn(
                &self.place(&["upstream", "base_url"]),
                format!("runs are sent to {}/v1/agents/…", address(&upstream.base_url)),
                "leave /v1 out of upstream.base_url: it is put behind it",
            );
        }
        for proxy in config.proxies.iter().filter(|proxy| !proxy.strip_prefix) {
            let path = proxy.upstream.path().trim_end_matches('/');
            if !path.is_empty() && path.ends_with(proxy.prefix.as_str()) {
                self.problems.warn(
                    &proxy.prefix.place,
                    format!("what comes below {0} goes to {1}{0}/…", *proxy.prefix, address(&proxy.upstream)),
                    "leave the prefix out of the upstream's address, or set strip_prefix = true",
                );
            }
        }
    }

    fn listeners(&self) {
        let (server, admin) = (self.config.server.listen, self.config.admin.listen);
        if server.port() != 0 && is_one(server, admin) {
            self.problems.error_hint(
                &self.place(&["admin", "listen"]),
                format!("server.listen and admin.listen are one address: {server}"),
                "give each a port of its own, for example 127.0.0.1:8080 and 127.0.0.1:8081",
            );
        }
        let has_door = self.config.dropin.enabled || !self.config.proxies.is_empty();
        if self.config.sources.is_empty() && !has_door {
            self.problems.warn(
                &self.place(&["dropin", "enabled"]),
                "nothing answers at the public listener: there is no source, no [[proxy]], and the drop-in is off",
                "add a source: [sources.NAME] with provider, secrets and agent",
            );
        }
    }

    /// The folders that the gateway writes to.
    fn folders(&self) {
        let data = self.config.inbox.beside("sluicegate.key");
        if let Some(folder) = data.parent() {
            self.folder(folder, "inbox.url", &["inbox", "url"]);
        }
        if let Engine::Sqlite(file) = &self.config.inbox.engine
            && file.is_dir()
        {
            self.problems.error_hint(
                &self.place(&["inbox", "url"]),
                format!("{} is a folder and no file", file.display()),
                "name a file in it, for example sqlite:data/inbox.db",
            );
        }
        if let StorePlace::Folder(folder) = &self.config.attachments.store.value {
            self.folder(folder, "attachments.store", &["attachments", "store"]);
        }
    }

    fn folder(&self, folder: &Path, key: &str, path: &[&str]) {
        let folder = if folder == Path::new("") { Path::new(".") } else { folder };
        // One that is not there is made, if what it would stand in may be written to.
        let there = folder.ancestors().map(|part| if part == Path::new("") { Path::new(".") } else { part });
        let Some(there) = there.into_iter().find(|part| part.exists()) else { return };
        let why = if !there.is_dir() {
            "is no folder"
        } else if !is_writable(there) {
            "cannot be written to by this user"
        } else {
            return;
        };
        self.problems.warn(
            &self.place(path),
            format!("{key}: {} {why}, and the gateway keeps its data in {}", there.display(), folder.display()),
            "name another folder, or give this one to the user that runs sluicegate",
        );
    }

    fn public_url(&self) {
        let url = &self.config.server.public_url;
        if !url.is_empty() {
            if url.ends_with("/hooks") {
                self.problems.warn(
                    &self.place(&["server", "public_url"]),
                    format!("the addresses of sources are {url}/hooks/NAME"),
                    "leave /hooks out of server.public_url: it is put behind it",
                );
            }
            return;
        }
        let attachments = &self.config.attachments;
        let has_links =
            matches!(attachments.store.value, StorePlace::Bucket(_)) && attachments.links != LinkKind::Gateway;
        for source in &self.config.sources {
            if source.files.is_some() && !has_links {
                self.problems.warn(
                    &source.place,
                    format!("source {} takes no files: server.public_url is not set", source.name),
                    "set it to the address that the agent's tools reach; links to files are built from it",
                );
            }
            if source.respond == Respond::Wait {
                self.problems.warn(
                    &source.place,
                    format!(
                        "source {} answers with a status_url that has no host: server.public_url is not set",
                        source.name
                    ),
                    "set it to the address that callers reach",
                );
            }
        }
    }

    fn source(&self, source: &SourceConfig) {
        let at = |key: &str| self.place(&["sources", &source.name, key]);
        let kind = match source.destination.as_ref().map(|destination| destination.kind) {
            Some(DestinationKind::Workflow) => "workflow",
            _ => "agent",
        };
        if let Some(destination) = &source.destination
            && NO_AGENTS.contains(&destination.id.to_ascii_lowercase().as_str())
        {
            self.problems.warn(
                &at(kind),
                format!("\"{}\" stands where the id of the {} of source {} belongs", destination.id, kind, source.name),
                "copy the id from the platform's address bar",
            );
        }
        if source.files.is_some() && self.config.attachments.store.value == StorePlace::None {
            self.problems.warn(
                &source.place,
                format!("source {} takes no files: attachments.store is empty", source.name),
                "name a folder or a bucket there, for example \"file:data/files\"",
            );
        }
        let server = &self.config.server;
        let is_local = |block: &crate::model::Block| {
            block.holds([127, 0, 0, 1].into()) || block.holds(std::net::Ipv6Addr::LOCALHOST.into())
        };
        let is_alone = server.listen.ip().is_loopback() && server.trusted_proxies.is_empty();
        if is_alone && !source.allow.is_empty() && !source.allow.iter().any(is_local) {
            self.problems.warn(
                &at("allow"),
                format!("nobody reaches source {}: at {} every caller has the address of this machine", source.name, server.listen),
                "name the proxy in front in server.trusted_proxies, for example [\"127.0.0.1\"], so that its callers' addresses count",
            );
        }
        if let Some(verify) = &source.verify
            && let Some(provider) = self.config.providers.get(source.provider.value.as_str())
            && let Some(shipped) = &provider.verify
            && !is_open(shipped)
        {
            let what = format!(
                "source {}: this table replaces the whole check of the provider {}, also what it does not name",
                source.name, provider.name
            );
            let hint =
                "remove it to have the provider's own check; for a sender of your own write provider = \"custom\"";
            self.problems.warn(&verify.place, what, hint);
        }
    }

    /// Every text of the file, for what other programs would fill in.
    fn texts<'t>(&self, table: &'t Table, path: &mut Vec<&'t str>) {
        for (key, _, node) in &table.entries {
            path.push(key);
            self.text(node, path);
            path.pop();
        }
    }

    fn text<'t>(&self, node: &'t Node, path: &mut Vec<&'t str>) {
        match &node.value {
            Value::Table(table) => self.texts(table, path),
            Value::List(list) => list.iter().for_each(|node| self.text(node, path)),
            Value::Text(text) => self.dollar(text, &node.place, path),
            _ => {}
        }
    }

    /// `${…}`, which stays as it is.
    fn dollar(&self, text: &str, place: &Place, path: &[&str]) {
        let key = path.last().copied().unwrap_or_default();
        // Paths and conditions are read by others, who say what is wrong with them. Secrets are weighed where they are
        // read.
        let is_read_elsewhere = path.contains(&"params_mapping")
            || matches!(key, "when" | "getter")
            || (key == "thread" && !text.contains("{{"))
            || ["env:", "file:", "literal:"].iter().any(|kind| text.starts_with(kind));
        if is_read_elsewhere {
            return;
        }
        let found = text.match_indices("${").map(|(at, _)| at).find(|at| !text[at + 2..].starts_with('{'));
        let Some(at) = found else { return };
        let inner = text[at + 2..].split_once('}').map_or("", |(inner, _)| inner.trim());
        let hint = if matches!(key, "prompt" | "thread") && inner.contains('.') {
            format!("values of the event stand in two braces: {{{{ {} }}}}", inner.chars().take(60).collect::<String>())
        } else {
            "nothing is filled in here; a secret is named with env:NAME, and values of the event stand in {{ }}"
                .to_owned()
        };
        self.problems.warn(place, format!("{}: ${{…}} stands there as it is", path.join(".")), hint);
    }
}

/// An environment variable that was meant to set something: the name it should have.
pub(super) fn misnamed(table: &Table, key: &str) -> Option<String> {
    let rest = key.strip_prefix("SLUICEGATE_").filter(|rest| !rest.starts_with('_'))?;
    let reference = format!("env:{key}");
    if holds(table, &reference) {
        return None;
    }
    let wanted = rest.to_ascii_lowercase();
    let section = table.entries.iter().find_map(|(section, _, node)| {
        let inner = wanted.strip_prefix(section.as_str())?.strip_prefix('_')?;
        match &node.value {
            Value::Table(table) if table.get(inner).is_some() => Some((section, inner)),
            _ => None,
        }
    });
    let (section, inner) = section?;
    Some(format!("SLUICEGATE__{}__{}", section.to_ascii_uppercase(), inner.to_ascii_uppercase()))
}

/// Leaves one source of a configuration, and nothing that others need: its own commands do without their secrets. One
/// that is not there leaves everything as it is.
pub(super) fn keep_source(table: &mut Table, name: &str) {
    let is_there = find(table, &["sources", name]).is_some();
    if !is_there {
        return;
    }
    table.entries.retain(|(key, ..)| !matches!(key.as_str(), "keys" | "proxy"));
    for (key, _, node) in &mut table.entries {
        let Value::Table(inner) = &mut node.value else { continue };
        match key.as_str() {
            "sources" => inner.entries.retain(|(source, ..)| source == name),
            "upstream" => inner.entries.retain(|(key, ..)| key != "api_key"),
            _ => {}
        }
    }
}

/// Whether a text stands anywhere in a table.
fn holds(table: &Table, text: &str) -> bool {
    fn is_in(value: &Value, text: &str) -> bool {
        match value {
            Value::Text(own) => own == text,
            Value::List(list) => list.iter().any(|node| is_in(&node.value, text)),
            Value::Table(table) => holds(table, text),
            _ => false,
        }
    }
    table.entries.iter().any(|(_, _, node)| is_in(&node.value, text))
}

/// Whether a `[verify]` section checks nothing.
fn is_open(verify: &Table) -> bool {
    verify.get("scheme").is_some_and(|node| matches!(&node.value, Value::Text(text) if text == "none"))
}

/// An address without what may be a secret in it.
fn address(uri: &http::Uri) -> String {
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{}://{host}{}", uri.scheme_str().unwrap_or("https"), uri.path().trim_end_matches('/'))
}

/// Whether two listeners cannot both have what they ask for.
fn is_one(a: SocketAddr, b: SocketAddr) -> bool {
    let is_any = |ip: IpAddr| ip.is_unspecified();
    let same_family = a.is_ipv4() == b.is_ipv4();
    a.port() == b.port() && (a.ip() == b.ip() || (same_family && (is_any(a.ip()) || is_any(b.ip()))))
}

#[cfg(unix)]
fn is_writable(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(not(unix))]
fn is_writable(folder: &Path) -> bool {
    std::fs::metadata(folder).is_ok_and(|data| !data.permissions().readonly())
}

pub(super) fn find<'t>(table: &'t Table, path: &[&str]) -> Option<&'t Node> {
    let (first, rest) = path.split_first()?;
    match (table.get(first), rest) {
        (found, []) => found,
        (Some(Node { value: Value::Table(table), .. }), rest) => find(table, rest),
        _ => None,
    }
}

/// The text of a configuration file, or what is wrong with its letters.
pub(super) fn utf8(file: &Path, bytes: Vec<u8>, problems: &Problems) -> Option<String> {
    let name = file.display().to_string();
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => rest.to_vec(),
        None => bytes,
    };
    let place = |line: u32| Place { file: name.as_str().into(), line };
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        problems.error_hint(&place(1), "this file is UTF-16, and has to be UTF-8", "save it again as UTF-8");
        return None;
    }
    let error = match String::from_utf8(bytes) {
        Ok(text) => return Some(text),
        Err(error) => error,
    };
    let at = error.utf8_error().valid_up_to();
    let bytes = error.into_bytes();
    let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    let byte = bytes.get(at).copied().unwrap_or_default();
    problems.error_hint(
        &place(u32::try_from(line).unwrap_or(u32::MAX)),
        format!("this file is not UTF-8: the byte 0x{byte:02X} stands in this line"),
        format!(
            "save it again as UTF-8; in Latin-1 and Windows-1252 this byte is \"{}\"",
            char::from(byte).escape_debug()
        ),
    );
    None
}

/// Every file that a configuration was read from or names as the place of a secret, beside itself.
pub(super) fn files(table: &Table, base: &Path) -> Vec<PathBuf> {
    fn gather(value: &Value, base: &Path, all: &mut Vec<PathBuf>) {
        match value {
            Value::Text(text) => all.extend(text.strip_prefix("file:").map(|file| base.join(file))),
            Value::List(list) => list.iter().for_each(|node| gather(&node.value, base, all)),
            Value::Table(table) => table.entries.iter().for_each(|(_, _, node)| gather(&node.value, base, all)),
            _ => {}
        }
    }
    let mut all = Vec::new();
    for (key, _, node) in &table.entries {
        // The store is a folder of files that come and go.
        let Value::Table(section) = &node.value else { continue };
        for (name, _, node) in &section.entries {
            match (key.as_str(), name.as_str(), &node.value) {
                ("attachments", "store", _) => {}
                (_, "ca_file", Value::Text(file)) if !file.is_empty() => all.push(base.join(file)),
                ("providers", "folder", Value::Text(folder)) if !folder.is_empty() => {
                    let files = std::fs::read_dir(base.join(folder)).into_iter().flatten().flatten();
                    all.extend(
                        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "toml")),
                    );
                }
                (_, _, value) => gather(value, base, &mut all),
            }
        }
    }
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let problems = Problems::default();
        let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let config = Config::parse("t", text, folder.path(), environment, &problems);
        check(&config.unwrap_or_else(|| panic!("{text}")), &problems);
        problems.into_sorted().iter().map(ToString::to_string).collect()
    }

    const SOURCE: &str =
        "[sources.a]\nprovider = \"github\"\nsecrets = [\"literal:0123456789abcdef\"]\nagent = \"A\"\n";
    const KEY: &str = "[upstream]\napi_key = \"literal:key\"\n";

    #[test]
    fn what_cannot_work_is_said_with_its_line() {
        for (text, wanted) in [
            (SOURCE.to_owned(), "upstream.api_key is not set"),
            (
                format!("{KEY}base_url = \"https://api.example.com/v1\"\n"),
                "t:3: warning: runs are sent to https://api.example.com/v1/v1/agents",
            ),
            (
                format!("{KEY}[[proxy]]\nprefix = \"/v1\"\nupstream = \"https://api.example.com/v1\""),
                "goes to https://api.example.com/v1/v1/",
            ),
            (
                "[server]\nlisten = \"127.0.0.1:9\"\n[admin]\nlisten = \"127.0.0.1:9\"".to_owned(),
                "t:4: error: server.listen and admin.listen are one address",
            ),
            ("[server]\nlisten = \"0.0.0.0:9\"\n[admin]\nlisten = \"127.0.0.1:9\"".to_owned(), "are one address"),
            ("[dropin]\nenabled = false".to_owned(), "nothing answers at the public listener"),
            (
                "[inbox]\nurl = \"sqlite:/dev/null/inbox.db\"".to_owned(),
                "t:2: warning: inbox.url: /dev/null is no folder",
            ),
            (format!("{KEY}{SOURCE}files = true"), "takes no files: server.public_url is not set"),
            (format!("{KEY}{SOURCE}files = true\n[attachments]\nstore = \"\""), "attachments.store is empty"),
            (format!("{KEY}{SOURCE}respond = \"wait\""), "a status_url that has no host"),
            ("[server]\npublic_url = \"https://hooks.example.com/hooks\"".to_owned(), "/hooks/hooks/NAME"),
            (format!("{KEY}{}", SOURCE.replace("\"A\"", "\"TODO\"")), "t:6: warning: \"TODO\" stands where"),
            (format!("{KEY}{SOURCE}allow = [\"192.0.2.0/24\"]"), "nobody reaches source a"),
            (
                format!("{KEY}{SOURCE}verify = {{ signature = \"header:X-S\" }}"),
                "replaces the whole check of the provider github",
            ),
            (format!("{KEY}{SOURCE}prompt = \"Hi ${{body.user.name}}\""), "{{ body.user.name }}"),
            (format!("{KEY}{SOURCE}title = \"${{NAME}}\""), "title: ${…} stands there as it is"),
        ] {
            let said = said(&text, &[]);
            assert!(said.iter().any(|one| one.contains(wanted)), "{wanted}\n{text}\n{said:#?}");
        }
        for good in [
            String::new(),
            format!("{KEY}{SOURCE}"),
            format!("{KEY}{SOURCE}prompt = \"costs ${{{{ body.total }}}}\""),
            format!("{KEY}{SOURCE}[server]\ntrusted_proxies = [\"127.0.0.1\"]\n")
                .replace("agent", "allow = [\"192.0.2.1\"]\nagent"),
            "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"".to_owned(),
        ] {
            assert_eq!(said(&good, &[]), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn an_environment_variable_with_one_underscore_is_told() {
        let said = |key: &str| said("", &[(key, "127.0.0.1:1")]);
        assert!(
            said("SLUICEGATE_SERVER_LISTEN")[0].contains("SLUICEGATE__SERVER__LISTEN"),
            "{:?}",
            said("SLUICEGATE_SERVER_LISTEN")
        );
        assert!(said("SLUICEGATE_DISPATCH_MAX_ATTEMPTS")[0].contains("SLUICEGATE__DISPATCH__MAX_ATTEMPTS"));
        for other in ["SLUICEGATE_ADMIN_TOKEN", "SLUICEGATE_KEY", "SLUICEGATE_SOMETHING", "SERVER_LISTEN"] {
            assert_eq!(said(other), Vec::<String>::new(), "{other}");
        }
    }

    #[test]
    fn a19_a_file_in_another_encoding_is_said_with_its_line() {
        let read = |bytes: &[u8]| {
            let problems = Problems::default();
            let text = utf8(Path::new("g.toml"), bytes.to_vec(), &problems);
            (text, problems.into_sorted().iter().map(ToString::to_string).collect::<String>())
        };
        let (text, said) = read(b"a = 1\nb = \"caf\xe9\"\n");
        assert!(
            text.is_none() && said.contains("g.toml:2") && said.contains("0xE9") && said.contains("\"é\""),
            "{said}"
        );
        assert!(read(b"\xff\xfea\0").1.contains("UTF-16"));
        assert_eq!(read(b"\xef\xbb\xbfa = 1").0.as_deref(), Some("a = 1"));
    }
}
