//! Parameters in an address, sealed so that only the operator can write them.
//!
//! A provider that is given an address sends everything to it, and most sign nothing of it. The seal covers the source
//! and every parameter, in one order, so that an address is good for its source and for nothing else.

use form_urlencoded::Serializer;

use super::Source;
use crate::config::QueryUse;
use crate::inbox::seal::Sealer;
use crate::model::{Name, Received, Refusal};

/// The field of the query that holds the seal.
const SEAL: &str = "seal";

impl Source {
    /// Refuses parameters in a query that the operator did not seal, where the source takes no others.
    pub fn check_query(&self, received: &Received, sealer: &Sealer) -> Result<(), Refusal> {
        if self.config.query != QueryUse::Sealed {
            return Ok(());
        }
        let (mut params, mut seals) = (Vec::new(), Vec::new());
        for (name, value) in form_urlencoded::parse(received.query().as_bytes()) {
            match Name::parse(&name) {
                Some(name) => params.push((name, value.into_owned())),
                None if name == SEAL => seals.push(value),
                None => {}
            }
        }
        let good = match seals.as_slice() {
            [] => params.is_empty(),
            [seal] => text(&self.config.name, &params)
                .is_some_and(|text| sealer.is_query_seal(&text, seal)),
            _ => false,
        };
        if good { Ok(()) } else { Err(Refusal::BadSeal) }
    }

    /// The path and query of this source with these parameters; none where one of them is there twice.
    pub fn target(&self, params: &[(Name, String)], sealer: &Sealer) -> Option<String> {
        let text = text(&self.config.name, params)?;
        let path = format!("/hooks/{}", self.config.name);
        if params.is_empty() {
            return Some(path);
        }
        let mut query = Serializer::new(String::new());
        query.extend_pairs(params.iter().map(|(name, value)| (name.as_str(), value)));
        if self.config.query == QueryUse::Sealed {
            query.append_pair(SEAL, &sealer.query_seal(&text));
        }
        Some(format!("{path}?{}", query.finish()))
    }
}

/// The text that a seal covers; none where a parameter is there twice.
fn text(source: &str, params: &[(Name, String)]) -> Option<Vec<u8>> {
    let mut params: Vec<&(Name, String)> = params.iter().collect();
    params.sort_unstable();
    if params.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return None;
    }
    let mut text = Vec::new();
    let fields = params
        .iter()
        .flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    for field in std::iter::once(source).chain(fields) {
        text.extend_from_slice(&(field.len() as u64).to_be_bytes());
        text.extend_from_slice(field.as_bytes());
    }
    Some(text)
}
