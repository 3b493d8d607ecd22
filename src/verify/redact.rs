//! Redaction of a request: its line and its headers, without the secrets in them.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::model::{ENROL, Received};
use crate::verify::request::field::Field;
use crate::verify::scheme::Scheme;
use crate::verify::signature::places::SignaturePlace;

/// Substitute for a value that is not kept.
const MASK: &str = "***";

/// Number of characters of a signature that are kept.
const DIGITS: usize = 8;

/// The longest word that stands beside signatures: the name of an algorithm, a time.
const LONGEST_WORD: usize = 15;

/// Words in the names of headers and of query fields whose values are secrets.
const SECRETIVE: [&str; 11] = [
    "apikey",
    "auth",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "credentials",
    "jwt",
    "password",
    "secret",
    "token",
];

/// Words that mean a secret before "key"; "key" alone may be the key of an event.
const KEYS: [&str; 3] = ["api", "access", "private"];

/// Names of query fields that give access by themselves.
const OPENING: [&str; 5] = [ENROL, "key", "seal", "sig", "signature"];

/// Headers that are not kept at all.
const DROPPED: [&str; 4] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-api-key",
];

/// A request without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactedRequest {
    /// Method and target.
    pub request_line: String,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// Redacts a request that this scheme judges.
pub(crate) fn redacted(scheme: &Scheme, received: &Received) -> RedactedRequest {
    let headers = received
        .headers
        .iter()
        .filter(|(name, _)| !DROPPED.contains(&name.as_str()))
        .map(|(name, value)| {
            let stands = |spot: &SignaturePlace| match spot {
                SignaturePlace::Field(Field::Header(header)) => header == name,
                SignaturePlace::Numbered(start) => name.as_str().starts_with(start.as_str()),
                SignaturePlace::Field(_) => false,
            };
            let value = if scheme.shown().any(stands) || is_secretive(name.as_str()) {
                MASK.to_owned()
            } else if scheme.spelled().any(stands) {
                beginnings(&escaped(value.as_bytes()))
            } else {
                escaped(value.as_bytes())
            };
            (name.as_str().to_owned(), value)
        })
        .collect();
    let (shown, signed): (Vec<_>, Vec<_>) = (scheme.shown().collect(), scheme.spelled().collect());
    let hidden = |name: &str, value: &str| {
        if stands_in_query(shown.iter().copied(), name) {
            return Some(MASK.to_owned());
        }
        stands_in_query(signed.iter().copied(), name).then(|| beginnings(value))
    };
    RedactedRequest {
        request_line: format!("{} {}", received.method, target(&received.target, &hidden)),
        headers,
    }
}

/// True if a field of the query is one of these places.
pub(crate) fn stands_in_query<'s>(
    spots: impl IntoIterator<Item = &'s SignaturePlace>,
    name: &str,
) -> bool {
    spots
        .into_iter()
        .any(|spot| matches!(spot, SignaturePlace::Field(Field::Query(query)) if query == name))
}

/// A value that holds signatures, of each its first digits: enough to see which it was, too little to send it again.
fn beginnings(value: &str) -> String {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    let (mut short, mut cut) = (String::with_capacity(value.len()), false);
    let mut rest = value;
    // Runs end at a byte of ASCII or at the value's end, so they are cut between characters.
    while let Some(first) = rest.bytes().next().map(is_digit) {
        let end = rest
            .bytes()
            .position(|byte| is_digit(byte) != first)
            .unwrap_or(rest.len());
        let (run, behind) = rest.split_at(end);
        if first && run.len() > LONGEST_WORD {
            short.push_str(&run[..DIGITS]);
            short.push('…');
            cut = true;
        } else {
            short.push_str(run);
        }
        rest = behind;
    }
    if cut || value.len() <= DIGITS {
        return short;
    }
    // No signature was recognised: all of it may be one.
    let end = (0..=DIGITS)
        .rev()
        .find(|end| value.is_char_boundary(*end))
        .unwrap_or(0);
    format!("{}…", &value[..end])
}

/// Path and query, with the values masked that are keys, and with those that `hidden` has another text for. All other
/// bytes stay as they were.
pub(crate) fn target(target: &str, hidden: &dyn Fn(&str, &str) -> Option<String>) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return escaped(target.as_bytes());
    };
    let pairs: Vec<Cow<'_, str>> = query
        .split('&')
        .map(|pair| {
            let Some((name, value)) = pair.split_once('=') else {
                return Cow::Borrowed(pair);
            };
            let decoded = form_urlencoded::parse(name.as_bytes())
                .next()
                .map_or(Cow::Borrowed(""), |(name, _)| name);
            if is_secretive(&decoded) || OPENING.contains(&decoded.to_ascii_lowercase().as_str()) {
                return Cow::Owned(format!("{name}={MASK}"));
            }
            hidden(&decoded, value).map_or(Cow::Borrowed(pair), |value| {
                Cow::Owned(format!("{name}={value}"))
            })
        })
        .collect();
    escaped(format!("{path}?{}", pairs.join("&")).as_bytes())
}

/// True if a name says that its value is a secret.
fn is_secretive(name: &str) -> bool {
    let is = |word: &str, known: &str| word.eq_ignore_ascii_case(known);
    let mut before = "";
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| {
            let says = SECRETIVE.iter().any(|known| is(word, known))
                || is(word, "key") && KEYS.iter().any(|known| is(before, known));
            before = word;
            says
        })
}

/// Visible text as it is; every other byte as `\x` and two digits.
fn escaped(bytes: &[u8]) -> String {
    let is_visible = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    let mut text = String::with_capacity(bytes.len());
    for run in bytes.chunk_by(|one, next| is_visible(one) == is_visible(next)) {
        match std::str::from_utf8(run) {
            Ok(visible) if run.first().is_some_and(is_visible) => text.push_str(visible),
            // Writing to a String cannot fail.
            _ => {
                for byte in run {
                    let _ = write!(text, "\\x{byte:02x}");
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t57_names_that_say_secret_are_told_from_names_of_events() {
        for name in [
            "x-api-key",
            "api_key",
            "apikey",
            "Access-Token",
            "x-auth",
            "set-cookie2.cookie",
            "X-Gitlab-Token",
            "client_secret",
            "x-access-key",
            "db.password",
            "x-jwt-assertion",
        ] {
            assert!(is_secretive(name), "{name}");
        }
        for name in [
            "x-event-key",
            "idempotency-key",
            "x-github-event",
            "x-hub-signature-256",
            "author",
            "tokenizer",
            "x-request-id",
            "monkey",
            "key-id",
            "content-type",
        ] {
            assert!(!is_secretive(name), "{name}");
        }
    }
}
