//! The address of the database: what the driver reads of it, and what it does not.
//!
//! What is promised: nothing of an address that cannot be read is said, since any part of it may be the password.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use crate::config::Secret;

/// Time that connecting may take, the handshakes included.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// Time that a server may be silent on the wire before it counts as gone.
const SILENCE: Duration = Duration::from_secs(10);

/// An address, read.
pub(super) struct Address {
    /// The address in the driver's form.
    pub(super) config: Config,
    /// True if the server has to prove its name.
    pub(super) verify: bool,
    /// A file with certificates to trust besides the usual ones.
    pub(super) ca_file: Option<PathBuf>,
    /// True if a server that loses what it said yes to is taken all the same.
    pub(super) r#unsafe: bool,
}

impl Address {
    /// Reads an address as libpq has it, `postgres://user:password@host:port/name?sslmode=verify-full`.
    pub(super) fn read(url: &Secret) -> Result<Self, String> {
        let unreadable = || {
            format!(
                "{}: the database's address cannot be read; it goes postgres://user:password@host/name, and of a \
                 password other characters than letters and digits are written as %XX",
                url.name()
            )
        };
        let text = url.expose_text().ok_or_else(unreadable)?;
        // As the driver has it: whatever is before the first @ is user and password.
        let host = text.find('@').unwrap_or(0);
        let (rest, query) = match text[host..].find('?') {
            Some(mark) => (&text[..host + mark], &text[host + mark + 1..]),
            None => (text, ""),
        };
        let mut kept = Vec::new();
        let (mut mode, mut verify, mut ca_file, mut r#unsafe) =
            (SslMode::Prefer, false, None, false);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(unreadable)?;
            match (name, value) {
                ("sslmode", "disable") => mode = SslMode::Disable,
                ("sslmode", "prefer") => mode = SslMode::Prefer,
                ("sslmode", "require") => mode = SslMode::Require,
                ("sslmode", "verify-full") => (mode, verify) = (SslMode::Require, true),
                ("sslmode", _) => {
                    return Err(format!(
                        "{}: sslmode is one of disable, prefer, require (encrypted, whoever the server is) and \
                         verify-full (it has to prove its name)",
                        url.name()
                    ));
                }
                ("sslrootcert", path) => {
                    let path = percent_encoding::percent_decode_str(path)
                        .decode_utf8()
                        .map_err(|_| unreadable())?;
                    ca_file = Some(PathBuf::from(path.into_owned()));
                }
                ("sluicegate_unsafe", value) => r#unsafe = value == "1",
                _ => kept.push(pair),
            }
        }
        let mut config: Config = format!("{rest}?{}", kept.join("&"))
            .parse()
            .map_err(|_| unreadable())?;
        config.ssl_mode(mode);
        if config.get_application_name().is_none() {
            config.application_name("sluicegate");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE);
        }
        config
            .keepalives_idle(SILENCE)
            .keepalives_interval(SILENCE / 4)
            .keepalives_retries(3);
        // As libpq: certificates that are named are there to be used.
        Ok(Self {
            config,
            verify: verify || ca_file.is_some(),
            ca_file,
            r#unsafe,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Address, String> {
        Address::read(&Secret::new("env:DB", url))
    }

    #[test]
    fn an_address_says_how_it_is_to_be_proved() {
        for (query, mode, verify) in [
            ("", SslMode::Prefer, false),
            ("?sslmode=disable", SslMode::Disable, false),
            (
                "?sslmode=require&application_name=x",
                SslMode::Require,
                false,
            ),
            ("?sslmode=verify-full", SslMode::Require, true),
            (
                "?sslmode=require&sslrootcert=%2Fetc%2Fca.pem",
                SslMode::Require,
                true,
            ),
        ] {
            let address = read(&format!("postgres://u:p@h/d{query}")).unwrap();
            assert_eq!(
                (address.config.get_ssl_mode(), address.verify),
                (mode, verify),
                "{query}"
            );
            assert_eq!(address.config.get_dbname(), Some("d"));
        }
        let odd = read("postgres://u:p?sslmode=disable@h/d?sslmode=require")
            .unwrap()
            .config;
        assert_eq!(
            (odd.get_password(), odd.get_ssl_mode()),
            (Some(&b"p?sslmode=disable"[..]), SslMode::Require)
        );
        assert!(
            read("postgres://u@h/d?sluicegate_unsafe=1")
                .unwrap()
                .r#unsafe
        );
    }

    /// T57
    #[test]
    fn nothing_of_an_address_that_cannot_be_read_is_said() {
        for url in [
            "postgres://u:hunter2@h:port/d",
            "hunter2",
            "postgres://u@h/d?sslmode=hunter2",
            "postgres://u@h/d?hunter2",
        ] {
            let said = read(url).err().unwrap_or_default();
            assert!(
                said.starts_with("env:DB: ") && !said.contains("hunter2"),
                "{url}: {said}"
            );
        }
    }
}
