//! Kinds of body that a provider sends, judged together with the proof.
//!
//! A signature is over bytes, and a key may sign other bytes than events: a provider's sign-in, a handshake, a token of an
//! app. So a body of another kind than the provider's events is refused, however well it is signed. The bytes are judged;
//! the content type is not signed, and can only rule a kind out.

use http::header::CONTENT_TYPE;

use crate::config::Section;
use crate::json::is_json;
use crate::model::{OriginFault, Received};
use crate::text::{self, multipart};
use crate::verify::proof_error::ProofError;

/// One kind of body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyKind {
    /// One JSON object.
    JsonObject,
    /// A JSON object or array.
    Json,
    /// A form: `application/x-www-form-urlencoded` or `multipart/form-data`.
    Form,
    /// An XML document.
    Xml,
    /// A compact JWS.
    Jws,
    /// No body.
    Empty,
}

const WORDS: [(&str, Option<BodyKind>); 7] = [
    ("json-object", Some(BodyKind::JsonObject)),
    ("json", Some(BodyKind::Json)),
    ("form", Some(BodyKind::Form)),
    ("xml", Some(BodyKind::Xml)),
    ("jws", Some(BodyKind::Jws)),
    ("empty", Some(BodyKind::Empty)),
    ("any", None),
];

/// The kinds that are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BodyKinds {
    /// None where bodies may be of any kind.
    kinds: Option<Vec<BodyKind>>,
}

impl BodyKinds {
    /// Reads `body_kind`; a section without it takes bodies of any kind.
    pub(crate) fn read(section: &Section<'_>) -> Option<Self> {
        let Some(words) = section.texts("body_kind") else {
            return Some(Self::default());
        };
        let (mut kinds, mut any, mut sound) = (Vec::new(), words.is_empty(), true);
        for word in &words {
            match WORDS.iter().find(|(known, _)| *known == word.value) {
                Some((_, Some(kind))) => kinds.push(*kind),
                Some((_, None)) => any = true,
                None => {
                    sound = false;
                    let known = WORDS.map(|(word, _)| word).join(", ");
                    let what = format!("no kind of body is called \"{}\"", word.escape_debug());
                    section
                        .problems()
                        .error_hint(&word.place, what, format!("known are {known}"));
                }
            }
        }
        sound.then_some(Self {
            kinds: (!any).then_some(kinds),
        })
    }

    /// True if bodies of any kind are taken.
    pub(crate) const fn any(&self) -> bool {
        self.kinds.is_none()
    }

    /// True if every body begins with a brace or a bracket, and ends with one.
    pub(crate) fn only_json(&self) -> bool {
        let json = |kind: &BodyKind| matches!(kind, BodyKind::Json | BodyKind::JsonObject);
        self.kinds
            .as_ref()
            .is_some_and(|kinds| kinds.iter().all(json))
    }

    /// Checks the kind of a body.
    pub(crate) fn check(&self, received: &Received) -> Result<(), ProofError> {
        let Some(kinds) = &self.kinds else {
            return Ok(());
        };
        if kinds.iter().any(|kind| kind.fits(received)) {
            Ok(())
        } else {
            Err(wrong())
        }
    }

    /// Checks the kind of a body by the head alone, where that is enough: one that is stored as it streams in is a form with files,
    /// or a file.
    pub(crate) fn check_head(&self, head: &Received) -> Result<(), ProofError> {
        let Some(kinds) = &self.kinds else {
            return Ok(());
        };
        let kind = essence(head);
        let fits = match kind.as_str() {
            "multipart/form-data" => kinds.contains(&BodyKind::Form),
            "application/json" | "text/json" | "application/x-www-form-urlencoded" => true,
            other => other.ends_with("+json"),
        };
        if fits { Ok(()) } else { Err(wrong()) }
    }
}

fn wrong() -> ProofError {
    (
        OriginFault::WrongBodyKind,
        "the body is of another kind than this provider's events are".into(),
    )
}

impl BodyKind {
    fn fits(self, received: &Received) -> bool {
        let body = received.body.trim_ascii();
        // Read as the mapping reads it, which sees no form where this sees JSON.
        let begins = |with: &[char]| {
            let declared =
                text::declared(received.header(CONTENT_TYPE.as_str()).unwrap_or_default());
            let read = text::json(&received.body, declared.as_deref()).text;
            read.trim_ascii_start().starts_with(with).then_some(read)
        };
        let json = |with: &[char]| begins(with).is_some_and(|read| is_json(&read));
        match self {
            Self::JsonObject => json(&['{']),
            Self::Json => json(&['{', '[']),
            Self::Form => match essence(received).as_str() {
                "application/x-www-form-urlencoded" => {
                    body.contains(&b'=') && begins(&['{', '[', '<']).is_none()
                }
                "multipart/form-data" => {
                    let written = received.header(CONTENT_TYPE.as_str()).unwrap_or_default();
                    multipart::read(written, &received.body).is_ok()
                }
                _ => false,
            },
            Self::Xml => body
                .strip_prefix(b"\xef\xbb\xbf")
                .unwrap_or(body)
                .starts_with(b"<"),
            Self::Jws => {
                let text =
                    |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
                body.iter().all(text) && body.iter().filter(|byte| **byte == b'.').count() == 2
            }
            Self::Empty => body.is_empty(),
        }
    }
}

/// The content type without its parameters, in lower case.
fn essence(received: &Received) -> String {
    let written = received.header(CONTENT_TYPE.as_str()).unwrap_or_default();
    written
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Verify as _;
    use crate::verify::tests::support::{fault, post, scheme};

    /// True if a signed body of a content type is taken where `kinds` are.
    fn takes(kinds: &str, content_type: &str, body: &str) -> bool {
        let scheme = scheme(&format!("signature = 'header:s'\nbody_kind = {kinds}"));
        let mut request = post(&[("content-type", content_type)], body);
        let mut mac = crate::verify::keys::mac::RunningDigest::keyed(
            crate::verify::keys::mac::Algorithm::Sha256,
            b"a-long-secret",
        );
        mac.take(body.as_bytes());
        request
            .headers
            .insert("s", hex::encode(mac.finish().as_bytes()).parse().unwrap());
        match fault(scheme.judge(&request, request.at)) {
            None => true,
            Some(OriginFault::WrongBodyKind) => false,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn s1_a_signed_body_of_another_kind_is_no_event() {
        let (form, multipart) = (
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=b",
        );
        for (kinds, content_type, body, taken) in [
            ("'json-object'", "application/json", r#" {"a":1} "#, true),
            ("'json-object'", "text/plain", r#"{"a":1}"#, true),
            ("'json-object'", "application/json", "[{}]", false),
            ("'json-object'", "application/json", "abcDEF012345", false),
            ("'json-object'", "application/json", "12345678", false),
            ("'json-object'", "application/json", "", false),
            ("'json-object'", form, r#"{"a":"b&prompt=x"}"#, true),
            ("'json-object'", form, r#"{"a":"\ud800&prompt=x"}"#, true),
            ("'json-object'", form, r#"{"a":"\x&prompt=x"}"#, false),
            (
                "'json-object'",
                "application/json",
                "\u{feff}{\"a\":1}",
                true,
            ),
            ("'json-object'", "application/json", "\u{feff}[]", false),
            ("'json-object'", form, "code=abc&shop=x", false),
            ("'json'", "application/json", "[{}]", true),
            ("'json'", "application/json", "null", false),
            ("['json', 'empty']", "application/json", "", true),
            ("'form'", form, "a=1&b=2", true),
            ("'form'", "text/plain", "a=1&b=2", false),
            ("'form'", form, r#"{"a":"b=1"}"#, false),
            ("'form'", form, "\u{feff}{\"a\":\"b=1\"}", false),
            ("'form'", form, "abcDEF", false),
            ("'form'", multipart, "--b\r\n\r\n--b--", true),
            ("'form'", multipart, "a preamble\r\n--b\r\n\r\n--b--", true),
            ("'form'", multipart, "--b\r\n", false),
            ("'xml'", "text/xml", "<a/>", true),
            ("'xml'", "text/xml", "a<b", false),
            ("'jws'", "application/jwt", "YQ.YQ.YQ", true),
            ("'jws'", "application/jwt", "YQ.YQ", false),
            ("['json', 'form']", form, "a=1", true),
            ("'any'", "text/plain", "whatever", true),
        ] {
            assert_eq!(
                takes(kinds, content_type, body),
                taken,
                "{kinds} {content_type} {body}"
            );
        }
    }
}
