//! Addresses of servers as written.
//!
//! What is promised: a name and a password in an address are taken out of it here, so that nothing which logs or prints
//! an address can show them. Messages about an address do not repeat it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use percent_encoding::percent_decode_str;

use super::problem::Located;
use super::secret::Secret;
use super::section::Section;

/// A server that requests are sent to, and what it gets as `Authorization` where its address has a name in it.
pub(super) type Server = (Uri, Option<Secret>);

/// Reads the address of a server. A path after the host is kept; a name and a password before the host become basic auth
/// (RFC 7617), as other clients have it.
pub(super) fn server(
    section: &Section<'_>,
    key: &str,
    written: &Located<String>,
) -> Option<Server> {
    let path = section.path(key);
    let wrong = |what: &str, hint: &str| {
        section
            .problems()
            .error_hint(&written.place, format!("{path} {what}"), hint);
        None
    };
    let good = |uri: &Uri| {
        let is_whole = uri.authority().is_some_and(|authority| {
            // A password with a slash or a # in it ends the host early, and its beginning would be the port.
            let host = authority
                .as_str()
                .rsplit(['@', ']'])
                .next()
                .unwrap_or_default();
            host.split_once(':')
                .is_none_or(|(_, port)| port.parse::<u16>().is_ok())
        });
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        is_http && is_whole && uri.query().is_none() && !written.contains('#')
    };
    let Some(uri) = written.parse::<Uri>().ok().filter(good) else {
        return wrong(
            "is no address",
            "write for example \"https://api.xpander.ai\"; a path after the host is kept; in a name or a password before \
             the host, other characters than letters and digits are written as %XX",
        );
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let Some((user, host)) = authority.rsplit_once('@') else {
        return Some((uri, None));
    };
    let Some(login) = basic(user) else {
        return wrong(
            "has a name or a password that basic auth cannot carry",
            "the name has no colon in it, and neither has a control character; write both as UTF-8 with %XX",
        );
    };
    let bare = Uri::builder()
        .scheme(uri.scheme_str().unwrap_or("https"))
        .authority(host)
        .path_and_query(uri.path());
    match bare.build() {
        Ok(bare) => Some((bare, Some(Secret::new(path, login)))),
        Err(_) => wrong(
            "is no address",
            "write for example \"https://name:password@api.example.com\"",
        ),
    }
}

/// True if an address has a user name or a password in it.
pub(super) fn has_login(text: &str) -> bool {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#'])
        .next()
        .is_some_and(|authority| authority.contains('@'))
}

/// The header that a name and a password become.
fn basic(user: &str) -> Option<String> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().ok()?.into_owned();
        (!text.chars().any(char::is_control)).then_some(text)
    };
    let (name, password) = (decoded(name)?, decoded(password)?);
    (!name.contains(':'))
        .then(|| format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Problems};

    fn read(base_url: &str) -> (Option<Config>, String) {
        let problems = Problems::default();
        let text = format!("[upstream]\nbase_url = \"{base_url}\"");
        let config = Config::parse("t", &text, Path::new("."), std::iter::empty(), &problems);
        let problems = problems
            .into_sorted()
            .iter()
            .map(|problem| format!("{problem:?}"))
            .collect();
        (config, problems)
    }

    #[test]
    fn a20_a_password_in_an_address_is_basic_auth_and_is_never_printed() {
        for (address, bare, login) in [
            (
                "http://bob:s3cret@127.0.0.1:9000/base",
                "http://127.0.0.1:9000/base",
                "bob:s3cret",
            ),
            ("https://bob@api.test", "https://api.test/", "bob:"),
            (
                "https://b%40b:p%3Aa%2Fs%C3%A9@api.test",
                "https://api.test/",
                "b@b:p:a/s\u{e9}",
            ),
            ("https://:s3cret@[::1]:1/v", "https://[::1]:1/v", ":s3cret"),
        ] {
            let (config, _) = read(address);
            let config = config.unwrap();
            assert_eq!(config.upstream.base_url.to_string(), bare, "{address}");
            let expected = format!("Basic {}", STANDARD.encode(login));
            assert_eq!(
                config.upstream.login.as_ref().unwrap().expose(),
                expected.as_bytes(),
                "{address}"
            );
            let printed = format!("{:?}", config.upstream);
            assert!(
                !printed.contains("s3cret") && !printed.contains(&STANDARD.encode(login)),
                "{printed}"
            );
        }
        for address in [
            "http://b%3Ab:s3cret@h",
            "http://bob:s3cret%0A@h",
            "http://bob:s3cret%FF@h",
            "http://bob:s3#cret@h",
            "http://bob:s3/cret@h",
        ] {
            let (config, problems) = read(address);
            assert!(
                config.is_none() && problems.contains("upstream.base_url"),
                "{address}: {problems}"
            );
            assert!(!problems.contains("s3"), "{address}: {problems}");
        }
        assert!(read("https://api.test").0.unwrap().upstream.login.is_none());
    }

    #[test]
    fn a20_a_login_is_seen_wherever_it_stands_in_an_address() {
        for text in [
            "http://a:b@h",
            "s3://key:secret@bucket/x",
            "https://a@h/p?q#f",
        ] {
            assert!(has_login(text), "{text}");
        }
        for text in ["http://h/a@b", "https://h?a=b@c", "a@b", "env:A@B", ""] {
            assert!(!has_login(text), "{text}");
        }
    }
}
