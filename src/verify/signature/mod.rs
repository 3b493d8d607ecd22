//! Signatures in a request: their places, how they are listed, how they are encoded.
//!
//! A text that does not decode is not a candidate. Unknown keys of a list are skipped, never fallen back on. A request
//! has at most [`MOST`] candidates: one with more is refused before the first comparison.

pub(crate) mod encoding;
pub(crate) mod places;

use self::encoding::Encoding;
use self::places::SignaturePlaces;
use super::proof_error::{ProofError, malformed};
use super::request::RequestTexts;
use super::request::document::Json;
use super::template::ContentTemplate;
use super::template::parse::TemplateSetup;
use crate::config::{Located, Section};
use crate::model::OriginFault;

/// Number of signatures that a request may carry.
pub(crate) const MOST: usize = 16;

/// Number of entries that a list of signatures may have, including those that are skipped.
const MOST_ENTRIES: usize = 64;

/// Grammar of a list of signatures.
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

/// Running count of what a request lists.
#[derive(Default)]
struct ListCount {
    entries: usize,
    signatures: usize,
    decoded: usize,
}

impl Grammar {
    /// Reads the keys of `[verify]` for the places, the grammar and the encoding of signatures.
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

    /// True if other keys can stand beside the signatures.
    pub(crate) fn has_fields(&self) -> bool {
        self.pair.is_some() || !self.positional.is_empty()
    }

    /// Finds the candidates. There is at least one when this succeeds.
    pub(crate) fn find(
        &self,
        request: &RequestTexts<'_>,
        item: Option<&Json>,
    ) -> Result<Vec<SignatureGroup>, ProofError> {
        let mut all: Vec<SignatureGroup> = Vec::new();
        let mut count = ListCount::default();
        for text in self.places.texts(request, item)? {
            let text =
                std::str::from_utf8(&text).map_err(|_| malformed("the signature is not text"))?;
            for group in parted(text, self.group.as_deref()) {
                let mut found = self.read_group(group, &mut count)?;
                match all.last_mut() {
                    // Without keys of their own they are signatures over the same text, which is digested once.
                    Some(before) if !self.has_fields() => {
                        before.candidates.append(&mut found.candidates);
                    }
                    _ => all.push(found),
                }
            }
        }
        match (count.signatures, count.decoded) {
            (0, _) => Err((
                OriginFault::MissingSignature,
                "there is no signature of a kind that counts".into(),
            )),
            (_, 0) => Err(malformed(
                "the signature is not written the way this provider writes them",
            )),
            _ => Ok(all),
        }
    }

    /// Reads the entries of one group.
    fn read_group(&self, group: &str, count: &mut ListCount) -> Result<SignatureGroup, ProofError> {
        let mut found = SignatureGroup::default();
        for (number, entry) in parted(group, self.split.as_deref()).enumerate() {
            count.entries += 1;
            if count.entries > MOST_ENTRIES {
                return Err(too_many());
            }
            if let Some(name) = self.positional.get(number) {
                found.fields.push((name.clone(), entry.as_bytes().to_vec()));
                continue;
            }
            let signature = match self.pair.as_deref().map(|pair| entry.split_once(pair)) {
                None => entry,
                Some(Some((key, value))) if self.select.iter().any(|wanted| wanted == key) => value,
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
            count.signatures += 1;
            if count.signatures > MOST {
                return Err(too_many());
            }
            let decoded = self.encoding.decode(signature);
            if let Some(bytes) = decoded.filter(|bytes| !bytes.is_empty()) {
                count.decoded += 1;
                found.candidates.push(bytes);
            }
        }
        Ok(found)
    }
}

/// The pieces between separators; the whole text without a separator.
fn parted<'t>(text: &'t str, separator: Option<&'t str>) -> impl Iterator<Item = &'t str> {
    let mut pieces = separator.map(|separator| text.split(separator));
    let mut whole = Some(text);
    std::iter::from_fn(move || match &mut pieces {
        Some(pieces) => pieces.next(),
        None => whole.take(),
    })
}

/// A text of the file that may hold `{config:name}`, and nothing of the request.
fn fixed(text: &Located<String>, setup: &TemplateSetup<'_>) -> Option<String> {
    let template = ContentTemplate::compile(text, setup)?;
    let fixed = template.fixed();
    if fixed.is_none() {
        setup
            .problems
            .error(&text.place, "only {config:name} may stand in this text");
    }
    fixed
}

fn too_many() -> ProofError {
    malformed(format!("more than {MOST} signatures"))
}
