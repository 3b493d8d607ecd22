//! Places where signatures or tokens stand in a request.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{MOST, fixed, too_many};
use crate::config::Section;
use crate::verify::proof_error::{ProofError, malformed, missing, no_signature};
use crate::verify::request::RequestTexts;
use crate::verify::request::document::Json;
use crate::verify::request::field::{Field, steps};
use crate::verify::template::parse::TemplateSetup;

/// Places of signatures or tokens.
#[derive(Clone, Debug)]
pub(crate) struct SignaturePlaces {
    pub(crate) list: Vec<SignaturePlace>,
    /// The prefix that a sender writes before it.
    pub(crate) prefix: String,
    /// Prefixes that may stand there instead.
    other_prefixes: Vec<String>,
    repeated: bool,
    pub(crate) unwrap: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
pub(crate) enum SignaturePlace {
    Field(Field),
    /// Headers of this name with a number behind it.
    Numbered(String),
}

impl std::fmt::Display for SignaturePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Field(field) => field.fmt(f),
            Self::Numbered(start) => write!(f, "header:{start}*"),
        }
    }
}

impl SignaturePlaces {
    /// Reads `signature`, `prefix`, `repeated` and `unwrap`.
    pub(crate) fn read(section: &Section<'_>, setup: &TemplateSetup<'_>) -> Option<Self> {
        let problems = section.problems();
        let written = section.texts("signature").unwrap_or_default();
        if written.is_empty() {
            problems.error_hint(
                section.place(),
                format!("{} is missing", section.path("signature")),
                "say where the signature stands, for example \"header:X-Signature\"",
            );
        }
        let spots: Vec<Option<SignaturePlace>> = written
            .iter()
            .map(|text| {
                match text
                    .strip_prefix("header:")
                    .and_then(|name| name.strip_suffix('*'))
                {
                    Some(name) if !name.is_empty() => {
                        Some(SignaturePlace::Numbered(name.to_ascii_lowercase()))
                    }
                    _ => Field::parse(text, problems).map(SignaturePlace::Field),
                }
            })
            .collect();
        let prefixes = section.texts("prefix").unwrap_or_default();
        let prefixes: Option<Vec<String>> =
            prefixes.iter().map(|text| fixed(text, setup)).collect();
        let unwrap = match section.text("unwrap") {
            Some(text) => match text.strip_prefix("base64-json:") {
                Some(member) if !member.is_empty() => Some(Some(steps(member))),
                _ => {
                    problems.error_hint(
                        &text.place,
                        format!("{} has one form", section.path("unwrap")),
                        "write \"base64-json:\" and the member of the object that is the signature",
                    );
                    None
                }
            },
            None => Some(None),
        };
        let repeated = section.bool("repeated").is_some_and(|yes| yes.value);
        let list: Vec<SignaturePlace> = spots.into_iter().collect::<Option<_>>()?;
        let (mut prefixes, unwrap) = (prefixes?.into_iter(), unwrap?);
        let prefix = prefixes.next().unwrap_or_default();
        let other_prefixes = prefixes.collect();
        (!list.is_empty()).then_some(Self {
            list,
            prefix,
            other_prefixes,
            repeated,
            unwrap,
        })
    }

    /// The texts that stand there, without the prefix, unwrapped.
    pub(crate) fn texts<'q>(
        &self,
        request: &'q RequestTexts<'_>,
        item: Option<&'q Json>,
    ) -> Result<Vec<Cow<'q, [u8]>>, ProofError> {
        let mut raw: Vec<Cow<'q, [u8]>> = Vec::new();
        let mut header = |name: &http::HeaderName| {
            let lines: Vec<&[u8]> = request.header_lines(name).take(MOST + 1).collect();
            if lines.len() > 1 && !self.repeated {
                return Err(malformed(format!("the header {name} is there twice")));
            }
            raw.extend(
                lines
                    .into_iter()
                    .filter(|line| !line.is_empty())
                    .map(Cow::Borrowed),
            );
            Ok(())
        };
        let mut others = Vec::new();
        for spot in &self.list {
            match spot {
                SignaturePlace::Field(Field::Header(name)) => header(name)?,
                SignaturePlace::Field(field) => {
                    let text = request.text(field, item).map_err(missing)?;
                    others.extend(text.filter(|text| !text.is_empty()));
                }
                SignaturePlace::Numbered(start) => {
                    for name in request.received.headers.keys() {
                        let number = name.as_str().strip_prefix(start.as_str());
                        if number.is_some_and(|n| {
                            (1..=4).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit())
                        }) {
                            header(name)?;
                        }
                    }
                }
            }
        }
        raw.append(&mut others);
        if raw.is_empty() {
            return Err(no_signature());
        }
        if raw.len() > MOST {
            return Err(too_many());
        }
        let texts: Vec<Cow<'q, [u8]>> = raw.iter().flat_map(|text| self.peeled(text)).collect();
        if texts.is_empty() {
            return Err(malformed(
                "the signature does not begin the way this provider's do",
            ));
        }
        Ok(texts)
    }

    /// A text without each of the prefixes that it begins with.
    fn peeled<'t>(&self, text: &Cow<'t, [u8]>) -> Vec<Cow<'t, [u8]>> {
        let prefixes = std::iter::once(&self.prefix).chain(&self.other_prefixes);
        prefixes
            .filter_map(|prefix| self.peel(prefix.as_bytes(), text.clone()))
            .collect()
    }

    fn peel<'t>(&self, prefix: &[u8], text: Cow<'t, [u8]>) -> Option<Cow<'t, [u8]>> {
        let text = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.strip_prefix(prefix)?),
            Cow::Owned(text) => Cow::Owned(text.strip_prefix(prefix)?.to_vec()),
        };
        match &self.unwrap {
            None => Some(text),
            Some(member) => {
                let json = Json::parse(&BASE64_STANDARD.decode(&text).ok()?).ok()?;
                json.at(member)?
                    .as_text()
                    .map(|text| Cow::Owned(text.as_bytes().to_vec()))
            }
        }
    }
}
