//! Description of a request's check in words: the scheme, the signed text, its age.

use crate::config::Value;
use crate::model::{Received, Timestamp};
use crate::verify::dry_run::DryRun;
use crate::verify::keys::mac::Algorithm;
use crate::verify::keys::public::PublicKeyAlgorithm;
use crate::verify::request::RequestTexts;
use crate::verify::scheme::key_material::KeyMaterial;
use crate::verify::scheme::mechanism::Mechanism;
use crate::verify::scheme::signed::Signed;
use crate::verify::signature::places::SignaturePlaces;
use crate::verify::template::render::Context;

/// Number of bytes that are shown of either end of the signed text.
const ENDS: usize = 24;

impl DryRun {
    /// Describes a request before it is judged: the scheme, the signed text, its coverage, its age.
    pub fn describe(&self, received: &Received, now: Timestamp) -> Vec<String> {
        let mut lines = vec![format!("the scheme is {}", self.scheme_in_words(received))];
        lines.extend(self.content_in_words(received));
        lines.push(self.coverage_in_words());
        lines.extend(self.age_in_words(received, now));
        lines
    }

    /// The parts of a request that its proof covers, and those that it does not.
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

    fn way(&self, received: &Received) -> &Mechanism {
        self.scheme
            .way(&RequestTexts::new(received, &self.scheme.document))
            .unwrap_or(&self.scheme.base)
    }

    fn scheme_in_words(&self, received: &Received) -> String {
        match self.way(received) {
            Mechanism::Open => "none: whoever knows the address is let in".into(),
            Mechanism::Certificate(_) => "the client certificate of the connection".into(),
            Mechanism::Ask(ask) => format!("what {} says of it", ask.told()),
            Mechanism::Basic(_) => "HTTP basic auth".into(),
            Mechanism::Token(token, _) => {
                format!("a shared token in {}", places_in_words(&token.places))
            }
            Mechanism::Jwt(jwt) => {
                let ways: Vec<&str> = jwt.ways.iter().map(|(name, _)| *name).collect();
                format!(
                    "a signed token ({}) in {}",
                    ways.join(", "),
                    places_in_words(&jwt.places)
                )
            }
            Mechanism::Signed(signed) => signature_in_words(signed),
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
        let request = RequestTexts::new(received, &self.scheme.document);
        let found = signed.grammar.find(&request, None);
        let fields = found
            .as_deref()
            .ok()
            .and_then(<[_]>::first)
            .map_or(&[][..], |found| &found.fields);
        let mut context = Context {
            fields,
            ..Context::new(&request)
        };
        let ts = signed.time(&context).ok().flatten();
        context.ts = ts.as_deref();
        Some(
            match (
                &signed.keys,
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
        let stamp = signed.stamp.as_ref()?;
        let request = RequestTexts::new(received, &self.scheme.document);
        let found = signed.grammar.find(&request, None);
        let fields = found
            .as_deref()
            .ok()
            .and_then(<[_]>::first)
            .map_or(&[][..], |found| &found.fields);
        let context = Context {
            fields,
            ..Context::new(&request)
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

/// Describes a signature: its digest, encoding and place.
fn signature_in_words(signed: &Signed) -> String {
    let digests: Vec<&str> = signed.algorithm.all().map(Algorithm::word).collect();
    let digests = digests.join(" or ");
    let how = match &signed.keys {
        KeyMaterial::Hmac(_) => format!("HMAC with {digests}"),
        KeyMaterial::Plain(_) => format!("a plain {digests} of a text with the secret in it"),
        KeyMaterial::Public(public) if public.algorithm == PublicKeyAlgorithm::Ed25519 => {
            "an Ed25519 signature".to_owned()
        }
        KeyMaterial::Public(public) => {
            format!("a {} signature with {digests}", public.algorithm.what())
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
        places_in_words(&grammar.places)
    )
}

fn places_in_words(places: &SignaturePlaces) -> String {
    let list: Vec<String> = places.list.iter().map(ToString::to_string).collect();
    list.join(" or ")
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
