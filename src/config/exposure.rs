//! Warnings about settings that work and are not safe, so that an operator knows of them before strangers do.

use std::net::IpAddr;
use std::path::Path;

use super::address::has_login;
use super::node::{Table, Value};
use super::problem::{Place, Problems};
use super::{Config, Engine, SourceConfig};

/// A configuration, looked at as a stranger would.
struct Look<'a> {
    config: &'a Config,
    table: &'a Table,
    problems: &'a Problems,
    /// True if another machine can reach the public listener.
    is_reached: bool,
}

/// Notes what is not safe.
pub(super) fn check(config: &Config, table: &Table, problems: &Problems) {
    let server = &config.server;
    let is_reached = !server.public_url.is_empty() || !server.listen.ip().is_loopback();
    let look = Look {
        config,
        table,
        problems,
        is_reached,
    };
    look.listeners();
    look.doors();
    look.sources();
    look.inbox();
    look.blocks();
    let mut literals = Vec::new();
    table.each_text(&mut |text, place, path| {
        look.one(text, place, path);
        if is_reached && text.starts_with("literal:") {
            literals.push(place);
        }
    });
    look.literals(&literals);
}

impl Look<'_> {
    /// Place of a setting, or of the file if the setting is absent.
    fn place(&self, path: &[&str]) -> &Place {
        self.table
            .find(path)
            .map_or(&self.table.place, |node| &node.place)
    }

    fn warn(&self, path: &[&str], what: impl Into<String>, hint: &str) {
        self.problems.warn(self.place(path), what, hint);
    }

    fn listeners(&self) {
        let (server, admin) = (&self.config.server, self.config.admin.listen);
        if !admin.ip().is_loopback() {
            self.warn(
                &["admin", "listen"],
                format!("operators call {admin} in clear: whoever is on the way reads admin.token"),
                "listen on 127.0.0.1 and reach it through a tunnel, or through a proxy that speaks TLS",
            );
        }
        let is_https = server.public_url.starts_with("https://");
        if !server.public_url.is_empty() && !is_https && !is_local(&server.public_url) {
            self.warn(
                &["server", "public_url"],
                "third parties call server.public_url in clear: keys, tokens and what they send can be read on the way",
                "use an https address: [server.tls], or a proxy in front that speaks TLS",
            );
        }
        if !server.listen.ip().is_loopback() && server.tls.is_none() && !is_https {
            self.warn(
                &["server", "listen"],
                format!("anybody who reaches {} calls in clear", server.listen),
                "set [server.tls], or put a proxy that speaks TLS in front and name its https address in server.public_url",
            );
        }
    }

    fn doors(&self) {
        if !self.is_reached {
            return;
        }
        let takes_others = !self.config.dropin.require_key.holds(self.config.keys.len());
        if self.config.dropin.enabled && takes_others {
            self.warn(
                if self.config.keys.is_empty() { &["dropin", "enabled"] } else { &["dropin", "require_key"] },
                "the drop-in door is open to whoever has a key of the platform, anybody's",
                "[dropin] enabled = false shuts it; with [keys], and require_key not false, it is for those alone",
            );
        }
        for proxy in self
            .config
            .proxies
            .iter()
            .filter(|proxy| !proxy.require_key)
        {
            self.problems.warn(
                &proxy.prefix.place,
                format!(
                    "whoever calls below {} is passed through, with any key or none",
                    *proxy.prefix
                ),
                "require_key = true takes the keys of [keys] alone",
            );
        }
    }

    fn sources(&self) {
        for source in self
            .config
            .sources
            .iter()
            .filter(|source| source.allow.is_empty())
        {
            if let Some(place) = self.proves_nothing(source) {
                self.problems.warn(
                    place,
                    format!("source {} takes what anybody sends: nothing proves who it is", source.name),
                    "choose a scheme that proves it; where the sender can none, allow = [\"192.0.2.0/24\"] keeps it to its addresses",
                );
            }
        }
    }

    fn proves_nothing<'s>(&'s self, source: &'s SourceConfig) -> Option<&'s Place> {
        let provider = self.config.providers.get(source.provider.value.as_str());
        let verify = source
            .verify
            .as_ref()
            .or_else(|| provider.and_then(|provider| provider.verify.as_ref()))?;
        let none = verify
            .get("scheme")
            .filter(|node| matches!(&node.value, Value::Text(text) if text == "none"))?;
        Some(if source.verify.is_some() {
            &none.place
        } else {
            &source.place
        })
    }

    fn inbox(&self) {
        let Engine::Postgres(url) = &self.config.inbox.engine else {
            return;
        };
        let Some(text) = url.expose_text() else {
            return;
        };
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let pairs = || query.split('&').filter_map(|pair| pair.split_once('='));
        let verifies = pairs().any(|(name, value)| {
            (name, value) == ("sslmode", "verify-full") || name == "sslrootcert"
        });
        let whole = address.split_once("://").map_or("", |(_, rest)| rest);
        let hosts = whole
            .rsplit('@')
            .next()
            .unwrap_or_default()
            .split('/')
            .next()
            .unwrap_or_default();
        let elsewhere = hosts.split(',').chain(
            pairs()
                .filter(|(name, _)| *name == "host")
                .map(|(_, host)| host),
        );
        // A path, also an encoded one, is a socket of this machine.
        let elsewhere = elsewhere
            .filter(|host| !host.is_empty() && !host.starts_with('/') && !host.starts_with('%'));
        if !verifies
            && elsewhere
                .into_iter()
                .any(|host| !is_local(&format!("postgres://{host}")))
        {
            self.warn(
                &["inbox", "url"],
                "the database is elsewhere and does not have to prove its name: whoever is on the way can be it",
                "add ?sslmode=verify-full to its address, with &sslrootcert=FILE for a certificate authority of your own",
            );
        }
    }

    fn blocks(&self) {
        for block in &self.config.server.trusted_proxies {
            if block.bits() < if block.is_v4() { 8 } else { 16 } {
                self.warn(
                    &["server", "trusted_proxies"],
                    format!("{block} are not your proxies: everybody in it chooses the address that it is known by"),
                    "name the addresses that your proxies call from",
                );
            }
        }
        for block in &self.config.fetch.allow {
            let inner = ["127.0.0.1", "::1", "169.254.169.254", "fd00:ec2::254"];
            let inner = inner.iter().find(|inner| {
                inner
                    .parse::<IpAddr>()
                    .is_ok_and(|inner| block.holds(inner))
            });
            if let Some(inner) = inner {
                self.warn(
                    &["fetch", "allow"],
                    format!("{block} holds {inner}: what callers name is fetched from there too"),
                    "name the servers inside that keep files, and nothing wider",
                );
            }
        }
        for (source, block) in self
            .config
            .sources
            .iter()
            .flat_map(|s| s.allow.iter().map(move |block| (s, block)))
        {
            if block.bits() == 0 {
                let what = format!("{block} keeps nobody from source {}", source.name);
                self.problems.warn(
                    &source.place,
                    what,
                    "name the addresses that its provider sends from",
                );
            }
        }
    }

    /// Secrets that stand in the configuration: one warning for all of them, so that it hides no other.
    fn literals(&self, literals: &[&Place]) {
        let Some((first, others)) = literals.split_first() else {
            return;
        };
        let others: Vec<String> = others
            .iter()
            .map(|place| {
                if place.file == first.file {
                    place.line.to_string()
                } else {
                    place.to_string()
                }
            })
            .collect();
        let what = match others.len() {
            0 => "a secret stands in this file, and the gateway is reached from outside".to_owned(),
            more => format!(
                "a secret stands in this file, and the gateway is reached from outside; so do {more} more, in {}",
                others.join(", ")
            ),
        };
        self.problems.warn(
            first,
            what,
            "keep each in a file of its own (file:PATH) or in the environment (env:NAME)",
        );
    }

    fn one(&self, text: &str, place: &Place, path: &[&str]) {
        let key = path.last().copied().unwrap_or_default();
        if matches!(key, "base_url" | "upstream") && has_login(text) && self.is_reached {
            let what = format!(
                "a password stands in {}, and the gateway is reached from outside",
                path.join(".")
            );
            let hint = format!(
                "keep the address out of the file: the environment variable SLUICEGATE__{} sets it",
                path.join("__").to_ascii_uppercase()
            );
            self.problems.warn(
                place,
                what,
                if path.len() == 2 {
                    &hint
                } else {
                    "let nobody but sluicegate read the file"
                },
            );
        }
        if let Some(file) = text
            .strip_prefix("file:")
            .or_else(|| (path == ["server", "tls", "key"]).then_some(text))
        {
            self.file(file, place);
        }
        if matches!(key, "base_url" | "upstream" | "api" | "endpoint")
            && text.starts_with("http://")
            && !is_local(text)
        {
            let what = format!(
                "{} is called in clear: keys and what is sent can be read on the way",
                path.join(".")
            );
            self.problems.warn(place, what, "use its https address");
        }
    }

    /// A secret that others on this machine read. Where containers put theirs, there are no others.
    #[cfg(unix)]
    fn file(&self, file: &str, place: &Place) {
        use std::os::unix::fs::PermissionsExt as _;
        let file = self.config.base.join(file);
        let given = ["/run/secrets", "/var/run/secrets"]
            .iter()
            .any(|folder| file.starts_with(Path::new(folder)));
        let open = std::fs::metadata(&file)
            .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o007 != 0);
        if open && !given {
            let what = format!("everybody on this machine reads {}", file.display());
            self.problems.warn(
                place,
                what,
                "chmod 600, and let the user that runs sluicegate own it",
            );
        }
    }

    #[cfg(not(unix))]
    fn file(&self, _: &str, _: &Place) {}
}

/// True if an address leads to this machine.
fn is_local(address: &str) -> bool {
    let Ok(uri) = address.parse::<http::Uri>() else {
        return false;
    };
    let Some(host) = uri.host() else { return false };
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(text: &str) -> Vec<String> {
        let problems = Problems::default();
        assert!(
            Config::parse("t", text, Path::new("."), std::iter::empty(), &problems).is_some(),
            "{text}"
        );
        problems
            .into_sorted()
            .iter()
            .map(|problem| format!("{} {}", problem.place, problem.what))
            .collect()
    }

    #[test]
    fn s25_what_is_not_safe_is_said_with_its_line() {
        let open = "[server]\npublic_url = \"https://hooks.example.com\"\n";
        let shut = "[dropin]\nenabled = false\n";
        let key = "[keys.ci]\nkey = \"literal:a-gateway-key-of-ours-1\"";
        for (text, line, what) in [
            (
                "[upstream]\nbase_url = \"http://api.example.com\"",
                2,
                "upstream.base_url is called in clear",
            ),
            (
                "[sources.a]\nprovider = \"custom\"\nagent = \"A\"\nverify = { scheme = \"none\" }",
                4,
                "nothing proves who",
            ),
            (
                "[sources.a]\nprovider = \"youtube\"\nagent = \"A\"",
                1,
                "nothing proves who",
            ),
            ("[admin]\nlisten = \"0.0.0.0:8081\"", 2, "in clear"),
            (
                "[admin]\ntoken = \"literal:12345678\"",
                2,
                "shorter than 24",
            ),
            (
                &format!("{open}{shut}[upstream]\napi_key = \"literal:key\""),
                6,
                "a secret stands in this file",
            ),
            (open, 1, "the drop-in door is open"),
            (
                &format!("{open}[dropin]\nrequire_key = false\n{key}"),
                4,
                "the drop-in door is open",
            ),
            (
                &format!("{open}{shut}[upstream]\nbase_url = \"https://bob:pw@api.example.com\""),
                6,
                "a password stands in upstream.base_url",
            ),
            (
                "[server]\npublic_url = \"http://hooks.example.com\"\n[dropin]\nenabled = false",
                2,
                "in clear",
            ),
            (
                "[server]\nlisten = \"0.0.0.0:8080\"\n[dropin]\nenabled = false",
                2,
                "calls in clear",
            ),
            (
                "[server]\ntrusted_proxies = [\"0.0.0.0/0\"]",
                2,
                "are not your proxies",
            ),
            (
                "[fetch]\nallow = [\"169.254.0.0/16\"]",
                2,
                "holds 169.254.169.254",
            ),
            (
                &format!(
                    "{open}{shut}[[proxy]]\nprefix = \"/v1\"\nupstream = \"https://api.xpander.ai\""
                ),
                6,
                "any key or none",
            ),
            (
                "[[proxy]]\nprefix = \"/v1\"\nupstream = \"http://api.example.com\"",
                3,
                "called in clear",
            ),
        ] {
            let said = warned(text);
            let wanted = format!("t:{line} ");
            let found = said
                .iter()
                .any(|one| (one.starts_with(&wanted) || line == 1) && one.contains(what));
            assert!(found, "{text}\n{said:#?}");
        }
        for safe in [
            "",
            "[upstream]\nbase_url = \"http://127.0.0.1:9000\"\napi_key = \"literal:key\"",
            "[upstream]\nbase_url = \"http://[::1]:9000\"",
            "[server]\npublic_url = \"http://localhost:8080\"\n[dropin]\nenabled = false",
            "[sources.a]\nprovider = \"youtube\"\nagent = \"A\"\nallow = [\"192.0.2.0/24\"]",
            &format!("{open}{shut}"),
            &format!("{open}[dropin]\nrequire_key = true\n"),
        ] {
            assert_eq!(warned(safe), Vec::<String>::new(), "{safe}");
        }
    }

    #[test]
    fn s25_a_database_elsewhere_has_to_prove_its_name() {
        for (url, is_safe) in [
            ("postgres://u@localhost/d", true),
            ("postgres://u@127.0.0.1:5433/d", true),
            ("postgres://u@%2Fvar%2Frun/d", true),
            ("postgres:///d?host=/var/run/postgresql", true),
            ("postgres://u@db.example.com/d?sslmode=verify-full", true),
            ("postgres://u@db.example.com/d?sslrootcert=/ca.pem", true),
            ("postgres://u@db.example.com/d", false),
            ("postgres://u@db/d?sslmode=require", false),
            ("postgres://u@localhost,db/d", false),
            ("postgres:///d?host=db", false),
        ] {
            let keys = "[admin]\ntoken = \"literal:0123456789abcdef01234567\"";
            let text = format!(
                "{keys}\n[inbox]\nurl = \"{url}\"\nkey = \"literal:0123456789abcdef0123456789abcdef\""
            );
            assert_eq!(
                warned(&text).is_empty(),
                is_safe,
                "{url} {:?}",
                warned(&text)
            );
        }
    }
}
