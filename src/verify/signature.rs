//! Finding signatures: where they stand, how they are listed, how they are written.
//!
//! What does not decode is not a candidate, and unknown keys of a list are skipped, never fallen back on. At most
//! [`MOST`] candidates are looked at: a request with more is refused before the first comparison.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;

use super::content::{ContentTemplate, TemplateSetup};
use super::document::Json;
use super::field::{Field, RequestView, steps};
use crate::config::Section;
use crate::model::OriginFault;

/// Why something is not proved, and a sentence for the operator.
pub(crate) type ProofError = (OriginFault, String);

/// How many signatures a request may carry.
pub(crate) const MOST: usize = 16;

/// How many entries a list of signatures may have, the ones that are skipped included.
const MOST_ENTRIES: usize = 64;

/// Where signatures or tokens stand.
#[derive(Clone, Debug)]
pub(crate) struct SignaturePlaces {
    pub(crate) list: Vec<SignaturePlace>,
    /// What a sender writes before it.
    pub(crate) prefix: String,
    /// What may stand before it instead.
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
        request: &'q RequestView<'_>,
        item: Option<&'q Json>,
    ) -> Result<Vec<Cow<'q, [u8]>>, ProofError> {
        let mut raw: Vec<Cow<'q, [u8]>> = Vec::new();
        let mut header = |name: &http::HeaderName| {
            let lines: Vec<&[u8]> = request.header_lines(name).take(MOST + 1).collect();
            if lines.len() > 1 && !self.repeated {
                return Err(malformed(format!("the header {name} stands there twice")));
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
                    let text = request
                        .text(field, item)
                        .map_err(|cause| (OriginFault::MissingPart, cause))?;
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
            return Err((
                OriginFault::MissingSignature,
                "there is no signature".into(),
            ));
        }
        if raw.len() > MOST {
            return Err(too_many());
        }
        let texts: Vec<Cow<'q, [u8]>> = raw.iter().flat_map(|text| self.peeled(text)).collect();
        if texts.is_empty() {
            return Err(malformed(
                "the signature does not begin the way this provider's do".into(),
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

/// A text of the file that may hold `{config:name}`, and nothing of the request.
fn fixed(text: &crate::config::Located<String>, setup: &TemplateSetup<'_>) -> Option<String> {
    let template = ContentTemplate::compile(text, setup)?;
    let fixed = template.fixed();
    if fixed.is_none() {
        setup
            .problems
            .error(&text.place, "only {config:name} may stand in this text");
    }
    fixed
}

/// How a digest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Hex,
    HexLower,
    Base64,
    Base64Url,
    Base64Hex,
}

/// Base64 for addresses, which senders write with and without padding.
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Encoding {
    const WORDS: [(&'static str, Self); 5] = [
        ("hex", Self::Hex),
        ("hex-lower", Self::HexLower),
        ("base64", Self::Base64),
        ("base64url", Self::Base64Url),
        ("base64-hex", Self::Base64Hex),
    ];

    /// Its word.
    pub(crate) fn word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, known)| *known == self)
            .map_or("", |(word, _)| word)
    }

    /// The bytes, when the text is written exactly so.
    pub(crate) fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => hex::decode(text).ok(),
            Self::HexLower if text.bytes().any(|b| b.is_ascii_uppercase()) => None,
            Self::HexLower => hex::decode(text).ok(),
            Self::Base64 => BASE64_STANDARD.decode(text).ok(),
            Self::Base64Url => BASE64_URL.decode(text).ok(),
            Self::Base64Hex => hex::decode(BASE64_STANDARD.decode(text).ok()?).ok(),
        }
    }

    /// The text the sender would write.
    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex | Self::HexLower => hex::encode(bytes),
            Self::Base64 => BASE64_STANDARD.encode(bytes),
            Self::Base64Url => BASE64_URL.encode(bytes),
            Self::Base64Hex => BASE64_STANDARD.encode(hex::encode(bytes)),
        }
    }
}

/// How signatures are listed in a text.
#[derive(Clone, Debug)]
pub(crate) struct Grammar {
    pub(crate) places: SignaturePlaces,
    pub(crate) encoding: Encoding,
    pub(crate) split: Option<String>,
    pub(crate) pair: Option<String>,
    pub(crate) select: Vec<String>,
    pub(crate) positional: Vec<String>,
    group: Option<String>,
}

/// The signatures of one text or group, and the other keys that stood with them.
#[derive(Debug, Default)]
pub(crate) struct SignatureGroup {
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) candidates: Vec<Vec<u8>>,
}

impl Grammar {
    /// Reads the keys of `[verify]` that say how signatures are found and written.
    pub(crate) fn read(section: &Section<'_>, setup: &TemplateSetup<'_>) -> Option<Self> {
        let separator = |key: &str| {
            section
                .text(key)
                .map(|text| text.value)
                .filter(|text| !text.is_empty())
        };
        let places = SignaturePlaces::read(section, setup);
        let encoding = section
            .one_of("encoding", &Encoding::WORDS)
            .map_or(Encoding::Hex, |word| word.value);
        let (group, split, pair) = (separator("group"), separator("split"), separator("pair"));
        let written = section.texts("select").unwrap_or_default();
        let select: Vec<Option<String>> = written.iter().map(|text| fixed(text, setup)).collect();
        let positional = section
            .texts("positional")
            .unwrap_or_default()
            .into_iter()
            .map(|text| text.value)
            .collect();
        if pair.is_some() == written.is_empty() {
            section.problems().error_hint(
                section.place(),
                format!("{} has only one of pair and select", section.name()),
                "pair parts the key of an entry from its value, select names the key of the signatures",
            );
        }
        let select = select.into_iter().collect::<Option<_>>()?;
        Some(Self {
            places: places?,
            encoding,
            split,
            pair,
            select,
            positional,
            group,
        })
    }

    /// Whether other keys can stand beside the signatures.
    pub(crate) fn has_fields(&self) -> bool {
        self.pair.is_some() || !self.positional.is_empty()
    }

    /// Finds the candidates. There is at least one when this succeeds.
    pub(crate) fn find(
        &self,
        request: &RequestView<'_>,
        item: Option<&Json>,
    ) -> Result<Vec<SignatureGroup>, ProofError> {
        let mut all = Vec::new();
        let (mut seen, mut decoded, mut entries) = (0, 0, 0);
        for text in self.places.texts(request, item)? {
            let text = std::str::from_utf8(&text)
                .map_err(|_| malformed("the signature is no text".into()))?;
            for group in parted(text, self.group.as_deref()) {
                let mut found = SignatureGroup::default();
                for (number, entry) in parted(group, self.split.as_deref()).enumerate() {
                    entries += 1;
                    if entries > MOST_ENTRIES {
                        return Err(too_many());
                    }
                    if let Some(name) = self.positional.get(number) {
                        found.fields.push((name.clone(), entry.as_bytes().to_vec()));
                        continue;
                    }
                    let signature = match self.pair.as_deref().map(|pair| entry.split_once(pair)) {
                        None => entry,
                        Some(Some((key, value)))
                            if self.select.iter().any(|wanted| wanted == key) =>
                        {
                            value
                        }
                        Some(Some((key, value))) => {
                            found
                                .fields
                                .push((key.to_owned(), value.as_bytes().to_vec()));
                            continue;
                        }
                        Some(None) => continue,
                    };
                    if signature.is_empty() {
                        continue;
                    }
                    seen += 1;
                    if seen > MOST {
                        return Err(too_many());
                    }
                    if let Some(bytes) = self
                        .encoding
                        .decode(signature)
                        .filter(|bytes| !bytes.is_empty())
                    {
                        decoded += 1;
                        found.candidates.push(bytes);
                    }
                }
                match all.last_mut() {
                    // Without keys of their own they are signatures over the same text, which is digested once.
                    Some(before) if !self.has_fields() => {
                        let before: &mut SignatureGroup = before;
                        before.candidates.append(&mut found.candidates);
                    }
                    _ => all.push(found),
                }
            }
        }
        match (seen, decoded) {
            (0, _) => Err((
                OriginFault::MissingSignature,
                "there is no signature of a kind that counts".into(),
            )),
            (_, 0) => Err(malformed(
                "the signature is not written the way this provider writes them".into(),
            )),
            _ => Ok(all),
        }
    }
}

/// The pieces between separators, or the whole where there is none.
fn parted<'t>(text: &'t str, separator: Option<&'t str>) -> impl Iterator<Item = &'t str> {
    let mut pieces = separator.map(|separator| text.split(separator));
    let mut whole = Some(text);
    std::iter::from_fn(move || match &mut pieces {
        Some(pieces) => pieces.next(),
        None => whole.take(),
    })
}

fn malformed(cause: String) -> ProofError {
    (OriginFault::MalformedSignature, cause)
}

fn too_many() -> ProofError {
    malformed(format!("more than {MOST} signatures"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_strict() {
        let bytes = [0xfb, 0xff, 0x01, 0x02];
        for (_, encoding) in Encoding::WORDS {
            assert_eq!(
                encoding.decode(&encoding.encode(&bytes)).as_deref(),
                Some(&bytes[..]),
                "{encoding:?}"
            );
            for wrong in ["z", " ", "ab\n", "ä"] {
                assert_eq!(encoding.decode(wrong), None, "{encoding:?} {wrong:?}");
            }
        }
        assert!(Encoding::Hex.decode("FBff").is_some());
        assert!(Encoding::HexLower.decode("FBff").is_none());
        assert!(Encoding::Base64.decode("+/8BAg").is_none(), "no padding");
        assert!(
            Encoding::Base64.decode("-_8BAg==").is_none(),
            "other alphabet"
        );
        assert!(
            Encoding::Base64.decode("+/8BAh==").is_none(),
            "bits left over"
        );
        assert!(Encoding::Base64Url.decode("-_8BAg==").is_some());
    }
}
