//! What may be kept of a request: its line and its headers, without what proves who somebody is by being known.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::field::Field;
use super::scheme::Scheme;
use super::signature::Spot;
use super::{Kept, Source};
use crate::model::Received;

/// What stands for a value that is not kept.
const MASK: &str = "***";

/// Words in the names of headers and of fields in queries behind which people put what only they know.
const SECRETIVE: [&str; 13] = [
    "apikey",
    "auth",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "credentials",
    "jwt",
    "key",
    "password",
    "secret",
    "session",
    "token",
];

/// Names that have such a word and no secret.
const OPEN: [&str; 1] = ["idempotency-key"];

/// Names in queries that are keys to what follows; in headers they are not, and help to see what was wrong.
const SIGNATURES: [&str; 2] = ["signature", "sig"];

/// Headers that are not kept at all.
const DROPPED: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "x-api-key"];

impl Source {
    /// What may be kept of a request.
    pub fn kept(&self, received: &Received) -> Kept {
        kept(&self.scheme, received)
    }
}

pub(super) fn kept(scheme: &Scheme, received: &Received) -> Kept {
    let headers = received
        .headers
        .iter()
        .filter(|(name, _)| !DROPPED.contains(&name.as_str()))
        .map(|(name, value)| {
            let shown = scheme.shown().any(|spot| match spot {
                Spot::Field(Field::Header(header)) => header == name,
                Spot::Numbered(start) => name.as_str().starts_with(start.as_str()),
                Spot::Field(_) => false,
            });
            let shown = shown || is_secretive(name.as_str());
            (name.as_str().to_owned(), if shown { MASK.to_owned() } else { escaped(value.as_bytes()) })
        })
        .collect();
    Kept { request_line: format!("{} {}", received.method, target(scheme, &received.target)), headers }
}

/// Path and query, with the values masked that are keys. All other bytes stay as they were.
fn target(scheme: &Scheme, target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return escaped(target.as_bytes()) };
    let pairs: Vec<Cow<'_, str>> = query
        .split('&')
        .map(|pair| {
            let Some((name, _)) = pair.split_once('=') else { return Cow::Borrowed(pair) };
            let decoded = form_urlencoded::parse(name.as_bytes()).next().map_or(Cow::Borrowed(""), |(name, _)| name);
            let secretive = is_secretive(&decoded)
                || SIGNATURES.contains(&decoded.to_ascii_lowercase().as_str())
                || scheme.shown().any(|spot| matches!(spot, Spot::Field(Field::Query(query)) if *query == decoded));
            if secretive { Cow::Owned(format!("{name}={MASK}")) } else { Cow::Borrowed(pair) }
        })
        .collect();
    escaped(format!("{path}?{}", pairs.join("&")).as_bytes())
}

/// Whether a name says that a secret stands behind it.
fn is_secretive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !OPEN.contains(&name.as_str())
        && name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| SECRETIVE.contains(&word))
}

/// Visible text as it is; every other byte as `\x` and two digits.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b' '..=b'~' => text.push(char::from(*byte)),
            b'\t' => text.push('\t'),
            // Writing to a String cannot fail.
            other => drop(write!(text, "\\x{other:02x}")),
        }
    }
    text
}
