//! Why a request was refused, in words: what is signed, how old it is, and what probably went wrong, found by trying
//! the mistakes that people and programs make. Never an expected signature, never a secret.

use bytes::Bytes;
use serde_json::Value as Json;

use super::content::Context;
use super::dry_run::{CheckConfig, DryRun};
use super::field::RequestView;
use super::keys::jwt;
use super::scheme::{KeyMaterial, Mechanism, Signed};
use crate::config::{Node, Place, Secret, Value};
use crate::model::{OriginFault, Received, Refusal, Timestamp, Verify as _};

/// The largest body that other forms of are tried.
const MOST_BYTES: usize = 1024 * 1024;

/// How many bytes are shown of either end of what is signed.
const ENDS: usize = 24;

impl DryRun {
    /// What there is to say of a request, a sentence each.
    pub fn explain(&self, received: &Received, now: Timestamp) -> Vec<String> {
        let judged = self.judge(received, now);
        let mut lines = self.describe(received, now);
        match (judged.verdict, judged.code, &judged.cause) {
            ("refused", Some(code), Some(cause)) => {
                lines.push(format!("it is refused ({code}): {cause}"));
                match self.hint(received, now) {
                    Some(hint) => lines.push(format!("probably {hint}")),
                    None if code == OriginFault::WrongSignature.as_str() => lines.push(
                        "no usual mistake explains it: the secret is another, or the body was changed on its way"
                            .into(),
                    ),
                    None => {}
                }
            }
            (verdict, code, _) => {
                let by = judged
                    .secret
                    .map_or_else(String::new, |secret| format!(" by {secret}"));
                let code = code.map_or_else(String::new, |code| format!(" ({code})"));
                let means = match verdict {
                    "verified" => ": the sender and every byte of the body are proved",
                    "authenticated" => ": the sender is proved, and not the whole body",
                    _ => ": nothing is proved, and nothing refused",
                };
                lines.push(format!("it is {verdict}{code}{by}{means}"));
            }
        }
        if let Some(reply) = judged.reply {
            lines.push(format!(
                "it is a handshake, answered with {} and {} bytes of {}",
                reply.status,
                reply.body.len(),
                reply.content_type
            ));
        }
        lines
    }

    /// What is said of a request before it is judged: the scheme, what is signed, what that covers, how old it is.
    pub fn describe(&self, received: &Received, now: Timestamp) -> Vec<String> {
        let mut lines = vec![format!("the scheme is {}", self.scheme_in_words(received))];
        lines.extend(self.content_in_words(received));
        lines.push(self.coverage_in_words());
        lines.extend(self.age_in_words(received, now));
        lines
    }

    /// Which parts of a request what proves it covers.
    fn coverage_in_words(&self) -> String {
        let scheme = self.scheme();
        let named = scheme
            .event_id
            .iter()
            .chain(&scheme.event_type)
            .map(|place| place.value.as_str());
        let mut places: Vec<&str> = ["body", "query"].into_iter().chain(named).collect();
        places.dedup();
        let (covered, open): (Vec<&str>, Vec<&str>) =
            places.into_iter().partition(|place| scheme.covers(place));
        let list = |places: Vec<&str>| {
            if places.is_empty() {
                "none of them".to_owned()
            } else {
                places.join(", ")
            }
        };
        format!(
            "of body, query, id and type the proof covers: {}; it does not cover: {}",
            list(covered),
            list(open)
        )
    }

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
                    let place = Place {
                        file: "a guess".into(),
                        line: 0,
                    };
                    let header = format!("header:{name}");
                    for (key, word) in [
                        ("signature", header.as_str()),
                        ("algorithm", algorithm),
                        ("prefix", &prefix),
                    ] {
                        let node = Node {
                            place: place.clone(),
                            value: Value::Text(word.to_owned()),
                        };
                        written.verify.set(&[key], node);
                    }
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
            if let Ok(json) = serde_json::from_slice::<Json>(body) {
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
        for (key, word, what) in [
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
        ] {
            let mut written = self.written.clone();
            let place = Place {
                file: "a guess".into(),
                line: 0,
            };
            written.verify.set(
                &[key],
                Node {
                    place,
                    value: Value::Text(word.into()),
                },
            );
            if is_good(written) {
                return Some(what.into());
            }
        }
        None
    }

    fn way(&self, received: &Received) -> &Mechanism {
        self.scheme
            .way(&RequestView::new(received, &self.scheme.document))
            .unwrap_or(&self.scheme.base)
    }

    fn scheme_in_words(&self, received: &Received) -> String {
        let places = |signed: &super::signature::SignaturePlaces| {
            let list: Vec<String> = signed.list.iter().map(ToString::to_string).collect();
            list.join(" or ")
        };
        match self.way(received) {
            Mechanism::Open => "none: whoever knows the address is let in".into(),
            Mechanism::Ask(ask) => format!("what {} says of it", ask.told()),
            Mechanism::Basic(_) => "HTTP basic auth".into(),
            Mechanism::Token(token, _) => format!("a shared token in {}", places(&token.places)),
            Mechanism::Jwt(jwt) => {
                let ways: Vec<&str> = jwt
                    .ways
                    .iter()
                    .map(|(name, _): &(&str, jwt::JwtAlgorithm)| *name)
                    .collect();
                format!(
                    "a signed token ({}) in {}",
                    ways.join(", "),
                    places(&jwt.places)
                )
            }
            Mechanism::Signed(signed) => {
                let digests: Vec<&str> = signed
                    .algorithm
                    .all()
                    .map(super::keys::mac::Algorithm::word)
                    .collect();
                let how = match &signed.prove {
                    KeyMaterial::Hmac(_) => format!("HMAC with {}", digests.join(" or ")),
                    KeyMaterial::Plain(_) => format!(
                        "a plain {} of a text with the secret in it",
                        digests.join(" or ")
                    ),
                    KeyMaterial::Public {
                        kind: super::keys::public::PublicKeyAlgorithm::Ed25519,
                        ..
                    } => "an Ed25519 signature".to_owned(),
                    KeyMaterial::Public { kind, .. } => {
                        format!("a {} signature with {}", kind.what(), digests.join(" or "))
                    }
                };
                let grammar = &signed.grammar;
                let prefix = match grammar.places.prefix.as_str() {
                    "" => String::new(),
                    prefix => format!(" behind \"{}\"", prefix.escape_debug()),
                };
                format!(
                    "{how}, written as {}, in {}{prefix}",
                    grammar.encoding.word(),
                    places(&grammar.places)
                )
            }
        }
    }

    fn content_in_words(&self, received: &Received) -> Option<String> {
        let Mechanism::Signed(signed) = self.way(received) else {
            return None;
        };
        let template = self
            .written
            .verify
            .get("signed_content")
            .map(|node| &node.value);
        let template = match template {
            Some(Value::Text(text)) => text.as_str(),
            Some(Value::List(_)) => "one of several texts",
            _ => "{body}",
        };
        let request = RequestView::new(received, &self.scheme.document);
        let found = signed.grammar.find(&request, None);
        let fields = found
            .as_deref()
            .ok()
            .and_then(<[_]>::first)
            .map_or(&[][..], |found| &found.fields);
        let mut context = Context {
            request: &request,
            item: None,
            fields,
            ts: None,
            key: None,
        };
        let ts = signed.time(&context).ok().flatten();
        context.ts = ts.as_deref();
        Some(
            match (
                &signed.prove,
                signed
                    .contents
                    .first()
                    .map(|content| content.bytes(&context)),
            ) {
                (KeyMaterial::Plain(_), _) => format!("what is digested: {template}"),
                (_, Some(Ok(bytes))) => format!(
                    "what is signed: {template}, {} bytes: {}",
                    bytes.len(),
                    ends(&bytes)
                ),
                (_, Some(Err(what))) => {
                    format!("what is signed: {template}, which cannot be made: {what}")
                }
                (_, None) => return None,
            },
        )
    }

    fn age_in_words(&self, received: &Received, now: Timestamp) -> Option<String> {
        let Mechanism::Signed(signed) = self.way(received) else {
            return None;
        };
        let signed: &Signed = signed;
        let stamp = signed.stamp.as_ref()?;
        let request = RequestView::new(received, &self.scheme.document);
        let found = signed.grammar.find(&request, None);
        let fields = found
            .as_deref()
            .ok()
            .and_then(<[_]>::first)
            .map_or(&[][..], |found| &found.fields);
        let context = Context {
            request: &request,
            item: None,
            fields,
            ts: None,
            key: None,
        };
        let ts = signed.time(&context).ok().flatten()?;
        Some(match stamp.window.parse(&ts) {
            None => format!("the time in {} cannot be read", stamp.from),
            Some(at) if at > now => format!(
                "it was signed {} s ahead of our clock",
                at.since(now).as_secs()
            ),
            Some(at) => format!("it was signed {} s ago", now.since(at).as_secs()),
        })
    }
}

/// The first and the last bytes of a text.
fn ends(bytes: &[u8]) -> String {
    let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
    if bytes.len() <= 2 * ENDS {
        return format!("\"{}\"", show(bytes));
    }
    format!(
        "\"{}\" … \"{}\"",
        show(&bytes[..ENDS]),
        show(&bytes[bytes.len() - ENDS..])
    )
}

/// A document as other programs would write it: compact, with blanks behind commas and colons, indented, with escapes.
fn rewritten(json: &Json) -> Vec<String> {
    let compact = json.to_string();
    let mut spaced = String::with_capacity(compact.len() * 2);
    let (mut in_text, mut escaped) = (false, false);
    for letter in compact.chars() {
        spaced.push(letter);
        match letter {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            ',' | ':' if !in_text => spaced.push(' '),
            _ => {}
        }
    }
    let indented = serde_json::to_string_pretty(json).unwrap_or_default();
    let mut all = vec![compact, spaced, indented];
    for text in all.clone() {
        let mut plain = String::with_capacity(text.len());
        let mut units = [0; 2];
        for letter in text.chars() {
            if letter.is_ascii() {
                plain.push(letter);
            } else {
                for unit in letter.encode_utf16(&mut units) {
                    plain.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
        all.push(plain);
    }
    // Some write a slash with a backslash before it.
    all.push(all[0].replace('/', "\\/"));
    all
}

/// An address as it may have been meant.
fn addresses(url: &str) -> Vec<(String, &'static str)> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Vec::new();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (path, query) = path
        .split_once('?')
        .map_or((path, None), |(path, query)| (path, Some(query)));
    let tail = |query: Option<&str>| query.map_or_else(String::new, |query| format!("?{query}"));
    let mut all = Vec::new();
    match path.strip_suffix('/') {
        Some(cut) => all.push((
            format!("{scheme}://{authority}{cut}{}", tail(query)),
            "without the slash at the end",
        )),
        None => all.push((
            format!("{scheme}://{authority}{path}/{}", tail(query)),
            "with a slash at the end",
        )),
    }
    match authority.rsplit_once(':') {
        Some((host, _)) => all.push((
            format!("{scheme}://{host}{path}{}", tail(query)),
            "without the port",
        )),
        None => {
            let port = if scheme == "http" { 80 } else { 443 };
            all.push((
                format!("{scheme}://{authority}:{port}{path}{}", tail(query)),
                "with the port",
            ));
        }
    }
    let (other, what) = if scheme == "https" {
        ("http", "with http")
    } else {
        ("https", "with https")
    };
    all.push((format!("{other}://{authority}{path}{}", tail(query)), what));
    if query.is_some() {
        all.push((format!("{scheme}://{authority}{path}"), "without the query"));
    }
    all
}

fn path_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find(['/', '?'])
        .map_or("/", |at| &rest[at..])
        .to_owned()
}

/// A secret as it may have been meant.
fn slips(secret: &[u8]) -> Vec<(Vec<u8>, &'static str)> {
    let mut all = Vec::new();
    let trimmed = secret.trim_ascii();
    if trimmed != secret {
        all.push((
            trimmed.to_vec(),
            "has blanks or a line end around it that do not belong to it",
        ));
    }
    all.push((
        [secret, b"\n"].concat(),
        "is used with a line end by the sender",
    ));
    if let Some(bare) = secret.strip_prefix(b"whsec_") {
        all.push((bare.to_vec(), "is used by the sender without its whsec_"));
    }
    if let Some(bare) = trimmed
        .strip_prefix(b"\"")
        .and_then(|secret| secret.strip_suffix(b"\""))
    {
        all.push((
            bare.to_vec(),
            "has quotation marks around it that do not belong to it",
        ));
    }
    all.push((
        secret.to_ascii_lowercase(),
        "is written in small letters by the sender",
    ));
    all
}

#[cfg(test)]
mod tests {
    use super::super::sign::Signer;
    use super::*;
    use crate::config::{Problems, Table};
    use crate::verify::tests::requests::{NOW, post};

    fn trial(verify: &str, secrets: &[&str]) -> DryRun {
        let secrets = secrets
            .iter()
            .enumerate()
            .map(|(n, s)| Secret::new(format!("secret {n}"), *s))
            .collect();
        let verify = Table::parse("t", verify, &Problems::default());
        DryRun::compile(CheckConfig {
            verify,
            challenges: Vec::new(),
            secrets,
            values: Vec::new(),
        })
        .unwrap()
    }

    const TIMED: &str = "signature = 'header:x-sig'\nprefix = 'v1='\nsigned_content = '{ts}.{url}.{body}'\n\
                         timestamp = { from = 'header:x-time', tolerance = 300 }\n";
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn usual_mistakes_are_named() {
        let right = trial(TIMED, &[SECRET]);
        let body = "{\"a\": 1, \"b\": [\"é\", \"x,y:z\"]}";
        let signed = right
            .scheme
            .signed(Signer::Secret(0), &post(&[], body), NOW)
            .unwrap();
        let hint = |trial: &DryRun, change: &dyn Fn(&mut Received)| {
            let mut request = signed.clone();
            change(&mut request);
            let lines = trial.explain(&request, NOW).join("\n");
            assert!(
                !lines.contains(SECRET) && !lines.contains("MfKQ9r8G"),
                "{lines}"
            );
            let mac = signed.headers["x-sig"].to_str().unwrap();
            assert!(
                !lines.contains(&mac[3..]),
                "the expected signature is never shown: {lines}"
            );
            lines
        };
        let same: &dyn Fn(&mut Received) = &|_| {};
        assert!(hint(&right, same).contains("verified by secret 0"));
        for (expected, lines) in [
            (
                "JSON was read and written again",
                hint(&right, &|r| {
                    r.body = "{\"a\":1,\"b\":[\"é\",\"x,y:z\"]}".into()
                }),
            ),
            (
                "a line end was added",
                hint(&right, &|r| r.body = format!("{body}\n").into()),
            ),
            ("without the slash", hint(&right, &|r| r.url.push('/'))),
            (
                "without the port",
                hint(&right, &|r| r.url = r.url.replace(".com", ".com:443")),
            ),
            (
                "used as text, and the configuration decodes it",
                hint(
                    &trial(&format!("{TIMED}secret_encoding = 'whsec'"), &[SECRET]),
                    same,
                ),
            ),
            (
                "has blanks or a line end",
                hint(&trial(TIMED, &[&format!("{SECRET}\n")]), same),
            ),
            (
                "without the text before it",
                hint(&right, &|r| {
                    let bare = r.headers["x-sig"].to_str().unwrap()[3..].to_owned();
                    r.headers.insert("x-sig", bare.parse().unwrap());
                }),
            ),
            (
                "written as hexadecimal digits",
                hint(
                    &trial(&format!("{TIMED}encoding = 'base64'"), &[SECRET]),
                    same,
                ),
            ),
            ("it was signed 0 s ago", hint(&right, same)),
            (
                "the secret is another, or the body was changed",
                hint(&trial(TIMED, &["another-secret"]), same),
            ),
        ] {
            assert!(lines.contains(expected), "{expected} is not in\n{lines}");
        }
        let late = right
            .explain(&signed, NOW + std::time::Duration::from_secs(900))
            .join("\n");
        assert!(
            late.contains("900 s ago") && late.contains("waited too long"),
            "{late}"
        );
    }
}
