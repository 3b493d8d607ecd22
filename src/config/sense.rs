//! Settings that start and cannot do what they are there for: a key that is missing, a folder that nobody may write to,
//! a source that nobody reaches. Everything here is a warning, but for what surely fails.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::attachment::{LinkKind, StorePlace};
use super::node::{Table, Value};
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
        sense.client_certs(source);
    }
    config
        .written
        .each_text(&mut |text, place, path| sense.dollar(text, place, path));
}

impl Sense<'_> {
    /// A source that accepts client certificates needs a listener that asks for them.
    fn client_certs(&self, source: &SourceConfig) {
        let tls = self.config.server.tls.as_ref();
        if let Some(pattern) = source.client_certs.first()
            && tls.and_then(|tls| tls.clients.as_ref()).is_none()
        {
            self.problems.error_hint(
                &pattern.place,
                format!(
                    "source {} has client_certs, and the public listener asks for no client certificate",
                    source.name
                ),
                "set [server.tls] client_ca = \"tls/clients.pem\" to the CA that signs the certificates of its callers",
            );
        }
    }

    fn place(&self, path: &[&str]) -> Place {
        self.config.setting(path)
    }

    fn upstream(&self) {
        let (upstream, config) = (&self.config.upstream, self.config);
        let is_needed =
            !config.sources.is_empty() || config.keys.iter().any(|key| key.upstream_key.is_none());
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
                format!(
                    "runs are sent to {}/v1/agents/…",
                    address(&upstream.base_url)
                ),
                "leave /v1 out of upstream.base_url: it is put behind it",
            );
        }
        for proxy in config.proxies.iter().filter(|proxy| !proxy.strip_prefix) {
            let path = proxy.upstream.path().trim_end_matches('/');
            if !path.is_empty() && path.ends_with(proxy.prefix.as_str()) {
                self.problems.warn(
                    &proxy.prefix.place,
                    format!(
                        "what comes below {0} goes to {1}{0}/…",
                        *proxy.prefix,
                        address(&proxy.upstream)
                    ),
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
        let folder = if folder == Path::new("") {
            Path::new(".")
        } else {
            folder
        };
        // One that is not there is made, if what it would stand in may be written to.
        let there = folder.ancestors().map(|part| {
            if part == Path::new("") {
                Path::new(".")
            } else {
                part
            }
        });
        let Some(there) = there.into_iter().find(|part| part.exists()) else {
            return;
        };
        let why = if !there.is_dir() {
            "is no folder"
        } else if !is_writable(there) {
            "cannot be written to by this user"
        } else {
            return;
        };
        self.problems.warn(
            &self.place(path),
            format!(
                "{key}: {} {why}, and the gateway keeps its data in {}",
                there.display(),
                folder.display()
            ),
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
        let has_links = matches!(attachments.store.value, StorePlace::Bucket(_))
            && attachments.links != LinkKind::Gateway;
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
        let kind = match source
            .destination
            .as_ref()
            .map(|destination| destination.kind)
        {
            Some(DestinationKind::Workflow) => "workflow",
            _ => "agent",
        };
        if let Some(destination) = &source.destination
            && NO_AGENTS.contains(&destination.id.to_ascii_lowercase().as_str())
        {
            self.problems.warn(
                &at(kind),
                format!(
                    "\"{}\" stands where the id of the {} of source {} belongs",
                    destination.id, kind, source.name
                ),
                "copy the id from the platform's address bar",
            );
        }
        if source.files.is_some() && self.config.attachments.store.value == StorePlace::None {
            self.problems.warn(
                &source.place,
                format!(
                    "source {} takes no files: attachments.store is empty",
                    source.name
                ),
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
            let hint = "remove it to have the provider's own check; for a sender of your own write provider = \"custom\"";
            self.problems.warn(&verify.place, what, hint);
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
            || ["env:", "file:", "literal:"]
                .iter()
                .any(|kind| text.starts_with(kind));
        if is_read_elsewhere {
            return;
        }
        let found = text
            .match_indices("${")
            .map(|(at, _)| at)
            .find(|at| !text[at + 2..].starts_with('{'));
        let Some(at) = found else { return };
        let inner = text[at + 2..]
            .split_once('}')
            .map_or("", |(inner, _)| inner.trim());
        let hint = if matches!(key, "prompt" | "thread") && inner.contains('.') {
            format!(
                "values of the event stand in two braces: {{{{ {} }}}}",
                inner.chars().take(60).collect::<String>()
            )
        } else {
            "nothing is filled in here; a secret is named with env:NAME, and values of the event stand in {{ }}"
                .to_owned()
        };
        self.problems.warn(
            place,
            format!("{}: ${{…}} stands there as it is", path.join(".")),
            hint,
        );
    }
}

/// True if a `[verify]` section checks nothing.
fn is_open(verify: &Table) -> bool {
    verify
        .get("scheme")
        .is_some_and(|node| matches!(&node.value, Value::Text(text) if text == "none"))
}

/// An address without what may be a secret in it.
fn address(uri: &http::Uri) -> String {
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!(
        "{}://{host}{}",
        uri.scheme_str().unwrap_or("https"),
        uri.path().trim_end_matches('/')
    )
}

/// True if two listeners ask for the same address.
fn is_one(a: SocketAddr, b: SocketAddr) -> bool {
    let is_any = |ip: IpAddr| ip.is_unspecified();
    let same_family = a.is_ipv4() == b.is_ipv4();
    a.port() == b.port()
        && (a.ip() == b.ip() || (same_family && (is_any(a.ip()) || is_any(b.ip()))))
}

#[cfg(unix)]
fn is_writable(folder: &Path) -> bool {
    rustix::fs::access(
        folder,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    )
    .is_ok()
}

#[cfg(not(unix))]
fn is_writable(folder: &Path) -> bool {
    std::fs::metadata(folder).is_ok_and(|data| !data.permissions().readonly())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let problems = Problems::default();
        let config = Config::parse("t", text, folder.path(), std::iter::empty(), &problems);
        check(&config.unwrap_or_else(|| panic!("{text}")), &problems);
        problems
            .into_sorted()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    const SOURCE: &str = "[sources.a]\nprovider = \"github\"\nsecrets = [\"literal:0123456789abcdef\"]\nagent = \"A\"\n";
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
                format!(
                    "{KEY}[[proxy]]\nprefix = \"/v1\"\nupstream = \"https://api.example.com/v1\""
                ),
                "goes to https://api.example.com/v1/v1/",
            ),
            (
                "[server]\nlisten = \"127.0.0.1:9\"\n[admin]\nlisten = \"127.0.0.1:9\"".to_owned(),
                "t:4: error: server.listen and admin.listen are one address",
            ),
            (
                "[server]\nlisten = \"0.0.0.0:9\"\n[admin]\nlisten = \"127.0.0.1:9\"".to_owned(),
                "are one address",
            ),
            (
                "[dropin]\nenabled = false".to_owned(),
                "nothing answers at the public listener",
            ),
            (
                "[inbox]\nurl = \"sqlite:/dev/null/inbox.db\"".to_owned(),
                "t:2: warning: inbox.url: /dev/null is no folder",
            ),
            (
                format!("{KEY}{SOURCE}files = true"),
                "takes no files: server.public_url is not set",
            ),
            (
                format!("{KEY}{SOURCE}files = true\n[attachments]\nstore = \"\""),
                "attachments.store is empty",
            ),
            (
                format!("{KEY}{SOURCE}respond = \"wait\""),
                "a status_url that has no host",
            ),
            (
                "[server]\npublic_url = \"https://hooks.example.com/hooks\"".to_owned(),
                "/hooks/hooks/NAME",
            ),
            (
                format!("{KEY}{}", SOURCE.replace("\"A\"", "\"TODO\"")),
                "t:6: warning: \"TODO\" stands where",
            ),
            (
                format!("{KEY}{SOURCE}allow = [\"192.0.2.0/24\"]"),
                "nobody reaches source a",
            ),
            (
                format!("{KEY}{SOURCE}verify = {{ signature = \"header:X-S\" }}"),
                "replaces the whole check of the provider github",
            ),
            (
                format!("{KEY}{SOURCE}prompt = \"Hi ${{body.user.name}}\""),
                "{{ body.user.name }}",
            ),
            (
                format!("{KEY}{SOURCE}title = \"${{NAME}}\""),
                "title: ${…} stands there as it is",
            ),
        ] {
            let said = said(&text);
            assert!(
                said.iter().any(|one| one.contains(wanted)),
                "{wanted}\n{text}\n{said:#?}"
            );
        }
        for good in [
            String::new(),
            format!("{KEY}{SOURCE}"),
            format!("{KEY}{SOURCE}prompt = \"costs ${{{{ body.total }}}}\""),
            format!("{KEY}{SOURCE}[server]\ntrusted_proxies = [\"127.0.0.1\"]\n")
                .replace("agent", "allow = [\"192.0.2.1\"]\nagent"),
            "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"".to_owned(),
        ] {
            assert_eq!(said(&good), Vec::<String>::new(), "{good}");
        }
    }
}
