//! Signing oracle: texts that a handshake has signed for any caller, kept apart from the texts of events.
//!
//! Some handshakes are answered with a digest under the secret of the events. The caller then holds a signature over a
//! text of its choice, so no event may have such a text: it is refused as forged. The texts that may be asked for are
//! bounded by a narrow expression, and every signed text is compared with the same expression.

use regex::bytes::{Regex, RegexBuilder};

use crate::config::Section;
use crate::model::OriginFault;
use crate::verify::proof_error::ProofError;
use crate::verify::template::ContentTemplate;

/// Longest text of a request that is signed for any caller.
const LONGEST: usize = 256;

/// Texts of events; a pattern must match none of them.
const EVENTS: [&[u8]; 5] = [
    b"{\"type\":\"a b\",\"n\":[1]}",
    b"[1,{}]",
    b"type=a&n=1",
    b"1700000000.{}",
    b"<a>b</a>",
];

/// The texts that one handshake signs.
#[derive(Clone, Debug)]
pub(crate) struct SigningOracle {
    /// A place of the request must match it in full.
    pattern: Regex,
    /// The texts that go under the keyed digest.
    texts: Vec<Regex>,
}

impl SigningOracle {
    /// Reads `pattern` of a challenge with these answers. The inner none: nothing is signed. A keyed digest without a
    /// pattern is a problem.
    pub(crate) fn read(
        section: &Section<'_>,
        answers: &[&ContentTemplate],
    ) -> Option<Option<Self>> {
        let problems = section.problems();
        let written = section.text("pattern");
        let is_keyed = answers
            .iter()
            .any(|template| !template.keyed_fields().is_empty());
        match (&written, is_keyed) {
            (None, false) => return Some(None),
            (None, true) => {
                problems.error_hint(
                    section.place(),
                    format!("{} has a keyed digest of what is asked, and no pattern", section.name()),
                    "say what may be signed for any caller, as narrow as the provider's own libraries do: \
                     pattern = '[a-f0-9]{20,32}'",
                );
                return None;
            }
            (Some(text), false) => {
                let what = format!(
                    "{} says nothing, for nothing is signed",
                    section.path("pattern")
                );
                problems.error(&text.place, what);
                return None;
            }
            (Some(_), true) => {}
        }
        let text = written?;
        let Some(pattern) = whole(&text) else {
            problems.error(
                &text.place,
                format!("{} is not a regular expression", section.path("pattern")),
            );
            return None;
        };
        if EVENTS.iter().any(|event| pattern.is_match(event)) {
            problems.error_hint(
                &text.place,
                format!(
                    "{} lets any caller have an event signed",
                    section.path("pattern")
                ),
                "allow only what the provider asks with, for example '[a-f0-9]{20,32}'",
            );
            return None;
        }
        let texts = answers
            .iter()
            .flat_map(|template| template.keyed_texts(&text))
            .map(|text| whole(&text));
        Some(Some(Self {
            pattern,
            texts: texts.collect::<Option<_>>()?,
        }))
    }

    /// True if a text of a request may be signed for any caller.
    pub(crate) fn allows(&self, text: &[u8]) -> bool {
        text.len() <= LONGEST && is_token(text) && self.pattern.is_match(text)
    }
}

/// An expression for the whole of a text. Bytes count, whatever characters they make.
fn whole(text: &str) -> Option<Regex> {
    RegexBuilder::new(&format!("^(?:{text})$"))
        .unicode(false)
        .build()
        .ok()
}

/// Refuses a signed text that one of these handshakes could have had signed.
pub(crate) fn refuse(asked: &[SigningOracle], signed: &[u8]) -> Result<(), ProofError> {
    let made = |asked: &SigningOracle| asked.texts.iter().any(|text| text.is_match(signed));
    if asked.iter().any(made) {
        let cause = "the handshake could have signed this text for any caller";
        return Err((OriginFault::SignedForStranger, cause.into()));
    }
    Ok(())
}

/// True if a text has the form of a challenge: one word, unlike any document or form.
fn is_token(text: &[u8]) -> bool {
    let bare = text
        .iter()
        .rposition(|byte| *byte != b'=')
        .map_or(&[][..], |at| &text[..=at]);
    !bare.is_empty()
        && bare.iter().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+' | b'/')
        })
}
