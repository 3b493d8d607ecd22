//! Digest algorithm of a signature: one that the file names, or one of several that the request names.

use crate::config::{Section, Value as Toml};
use crate::verify::keys::mac::Algorithm;
use crate::verify::proof_error::{ProofError, malformed, missing};
use crate::verify::request::field::Field;
use crate::verify::template::render::Context;

/// Choice of the digest algorithm.
#[derive(Debug)]
pub(crate) enum AlgorithmChoice {
    One(Algorithm),
    /// The request names one of those that the file allows.
    Listed(Field, Vec<(String, Algorithm)>),
}

impl AlgorithmChoice {
    /// Reads the key `algorithm`.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        match section.node("algorithm").map(|node| &node.value) {
            None => Some(Self::One(Algorithm::Sha256)),
            Some(Toml::Table(_)) => {
                let table = section.section("algorithm")?;
                let from = table
                    .required_text("from", "name the field that names the algorithm")
                    .and_then(|text| Field::parse(&text, table.problems()));
                let mut map = Vec::new();
                for (text, word) in table.text_table("map").unwrap_or_default() {
                    match Algorithm::parse(&word) {
                        Some(algorithm) => map.push((text.value, algorithm)),
                        None => table
                            .problems()
                            .error(&word.place, "no algorithm is called so"),
                    }
                }
                if map.is_empty() {
                    let what = format!("{} allows no algorithm", table.path("map"));
                    table.problems().error_hint(
                        table.place(),
                        what,
                        "for example map = { v2 = \"sha256\" }",
                    );
                    return None;
                }
                Some(Self::Listed(from?, map))
            }
            Some(_) => section
                .one_of("algorithm", &Algorithm::WORDS)
                .map(|word| Self::One(word.value)),
        }
    }

    /// The algorithms that may be used.
    pub(crate) fn all(&self) -> impl Iterator<Item = Algorithm> {
        let (one, listed) = match self {
            Self::One(algorithm) => (Some(*algorithm), &[][..]),
            Self::Listed(_, map) => (None, map.as_slice()),
        };
        one.into_iter()
            .chain(listed.iter().map(|(_, algorithm)| *algorithm))
    }

    /// The algorithm of a request.
    pub(crate) fn of(&self, context: &Context<'_, '_>) -> Result<Algorithm, ProofError> {
        let (from, map) = match self {
            Self::One(algorithm) => return Ok(*algorithm),
            Self::Listed(from, map) => (from, map),
        };
        let word = context
            .text(from)
            .map_err(missing)?
            .ok_or_else(|| missing(format!("{from} is missing")))?;
        map.iter()
            .find(|(text, _)| text.as_bytes() == &*word)
            .map(|(_, algorithm)| *algorithm)
            .ok_or_else(|| malformed(format!("{from} names an algorithm that is not allowed")))
    }
}
