//! Mistakes of people and programs that make a right request a wrong one, found by trying them.

use bytes::Bytes;
use serde_json::Value as JsonValue;

use super::variants::{addresses, path_of, rewritten, slips};
use crate::config::{Node, Place, Secret, Value};
use crate::model::{OriginFault, Received, Refusal, Timestamp, Verify as _};
use crate::verify::dry_run::{CheckConfig, DryRun};

/// The largest body that other forms of are tried.
const MOST_BYTES: usize = 1024 * 1024;

/// Guesses at another configuration: a key of `[verify]`, its value, and the mistake in words.
const GUESSES: [(&str, &str, &str); 20] = [
    (
        "secret_encoding",
        "utf8",
        "the secret has to be used as text, and the configuration decodes it",
    ),
    (
        "secret_encoding",
        "base64",
        "the secret is base64 that has to be decoded, and is used as text",
    ),
    (
        "secret_encoding",
        "whsec",
        "the secret is whsec_ and base64 that has to be decoded, and is used as text",
    ),
    (
        "secret_encoding",
        "hex",
        "the secret is hexadecimal digits that have to be decoded, and is used as text",
    ),
    (
        "encoding",
        "hex",
        "the signature is written as hexadecimal digits",
    ),
    ("encoding", "base64", "the signature is written as base64"),
    (
        "encoding",
        "base64url",
        "the signature is written as base64url",
    ),
    ("algorithm", "sha1", "it is signed with SHA-1"),
    ("algorithm", "sha256", "it is signed with SHA-256"),
    ("algorithm", "sha512", "it is signed with SHA-512"),
    (
        "prefix",
        "",
        "the signature stands there without the text before it",
    ),
    ("prefix", "sha256=", "sha256= stands before the signature"),
    ("prefix", "sha1=", "sha1= stands before the signature"),
    ("prefix", "v0=", "v0= stands before the signature"),
    ("prefix", "v1=", "v1= stands before the signature"),
    ("prefix", "Bearer ", "Bearer stands before the token"),
    ("signed_content", "{body}", "only the body is signed"),
    (
        "signed_content",
        "{ts}.{body}",
        "time and body are signed with a dot between them",
    ),
    (
        "signed_content",
        "{ts}{body}",
        "time and body are signed with nothing between them",
    ),
    (
        "signed_content",
        "{body}{ts}",
        "the body is signed before the time",
    ),
];

impl DryRun {
    /// The mistake that explains a refusal: with it undone, the request is right.
    pub fn hint(&self, received: &Received, now: Timestamp) -> Option<String> {
        let Err(refusal) = self.scheme.judge(received, now) else {
            return None;
        };
        let Refusal::Origin(fault, _) = refusal.plain() else {
            return None;
        };
        match fault {
            OriginFault::Stale => {
                return Some(
                    "it waited too long on its way, was sent again later, or our clock is ahead"
                        .into(),
                );
            }
            OriginFault::Future => {
                return Some("the sender's clock is ahead of ours, or ours is behind".into());
            }
            OriginFault::WrongSignature
            | OriginFault::WrongSecret
            | OriginFault::MalformedSignature
            | OriginFault::BodyChanged
            | OriginFault::MissingPart
            | OriginFault::ClaimMismatch
            | OriginFault::BadTimestamp => {}
            OriginFault::MissingSignature => return self.other_headers(received, now),
            OriginFault::NotAttempted
            | OriginFault::UnknownKey
            | OriginFault::WrongBodyKind
            | OriginFault::SignedForStranger => return None,
        }
        self.other_requests(received, now)
            .or_else(|| self.other_checks(received, now))
    }

    /// The signature that stands in another header: that of an older scheme of the same sender, as a rule.
    fn other_headers(&self, received: &Received, now: Timestamp) -> Option<String> {
        let wanted = match self.written.verify.get("signature").map(|node| &node.value) {
            Some(Value::Text(text)) => text.strip_prefix("header:")?.to_ascii_lowercase(),
            _ => return None,
        };
        let is_alike = |name: &str| {
            let words = ["signature", "hmac", "digest", "-sign", "token", "secret"];
            let shares = words
                .iter()
                .any(|word| name.contains(word) && wanted.contains(word));
            name != wanted
                && (wanted.starts_with(name) || name.starts_with(wanted.as_str()) || shares)
        };
        let others = received
            .headers
            .keys()
            .map(http::HeaderName::as_str)
            .filter(|name| is_alike(name));
        // Each is tried with some digests, and a request may have as many headers as it likes.
        let others: Vec<&str> = others.take(4).collect();
        for name in &others {
            for (algorithm, title) in [("sha1", "SHA-1"), ("sha256", "SHA-256"), ("md5", "MD5")] {
                for prefix in [format!("{algorithm}="), String::new()] {
                    let mut written = self.written.clone();
                    set(&mut written, "signature", &format!("header:{name}"));
                    set(&mut written, "algorithm", algorithm);
                    set(&mut written, "prefix", &prefix);
                    let tried = Self::compile(written).ok();
                    let tried = tried.and_then(|trial| trial.scheme.judge(received, now).ok());
                    if tried.is_some_and(|proof| proof.secret.is_some()) {
                        return Some(format!(
                            "the sender signs in an older way: {name} has a right signature ({title}), and only {wanted} counts"
                        ));
                    }
                }
            }
        }
        let name = others.first()?;
        Some(format!(
            "the sender signs in another way: there is {name}, and only {wanted} counts"
        ))
    }

    /// The request as it may have been signed.
    fn other_requests(&self, received: &Received, now: Timestamp) -> Option<String> {
        let is_good = |request: &Received| self.scheme.judge(request, now).is_ok();
        let mut bodies: Vec<(Bytes, &str)> = Vec::new();
        let body = &received.body;
        if body.len() <= MOST_BYTES {
            if let Some(cut) = body
                .strip_suffix(b"\r\n")
                .or_else(|| body.strip_suffix(b"\n"))
            {
                bodies.push((
                    body.slice_ref(cut),
                    "a line end was added to the body after it was signed",
                ));
            }
            bodies.push((
                [body, &b"\n"[..]].concat().into(),
                "a line end was cut off the body after it was signed",
            ));
            if let Ok(json) = serde_json::from_slice::<JsonValue>(body) {
                let what = "the JSON was read and written again on its way: something between the sender and here \
                            changes the body";
                bodies.extend(rewritten(&json).into_iter().map(|text| (text.into(), what)));
            }
        }
        for (body, what) in bodies {
            let mut request = received.clone();
            request.body = body;
            if request.body != received.body && is_good(&request) {
                return Some(what.into());
            }
        }
        for (url, what) in addresses(&received.url) {
            let mut request = received.clone();
            request.target = path_of(&url);
            request.url = url;
            if is_good(&request) {
                return Some(format!(
                    "the address that the provider was given is another one: {what}"
                ));
            }
        }
        None
    }

    /// The check as it may have been meant.
    fn other_checks(&self, received: &Received, now: Timestamp) -> Option<String> {
        let is_good = |written: CheckConfig| {
            // A check of another kind than the one that is configured must not pass for it.
            Self::compile(written).is_ok_and(|trial| {
                trial
                    .scheme
                    .judge(received, now)
                    .is_ok_and(|proof| proof.secret.is_some())
            })
        };
        for (number, secret) in self.written.secrets.iter().enumerate() {
            for (text, what) in slips(secret.expose()) {
                let mut written = self.written.clone();
                written.secrets[number] = Secret::new(secret.name(), text);
                if is_good(written) {
                    return Some(format!("the secret {} {what}", secret.name()));
                }
            }
        }
        for (key, word, what) in GUESSES {
            let mut written = self.written.clone();
            set(&mut written, key, word);
            if is_good(written) {
                return Some(what.into());
            }
        }
        None
    }
}

/// Sets a key of `[verify]` to a guess.
fn set(written: &mut CheckConfig, key: &str, word: &str) {
    let place = Place {
        file: "a guess".into(),
        line: 0,
    };
    let value = Value::Text(word.to_owned());
    written.verify.set(&[key], Node { place, value });
}
