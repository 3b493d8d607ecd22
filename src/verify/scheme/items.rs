//! List in a request whose items are signed one by one.

use crate::config::Section;
use crate::model::OriginFault;
use crate::verify::proof_error::{ProofError, malformed, missing};
use crate::verify::request::RequestTexts;
use crate::verify::request::document::Json;
use crate::verify::request::field::steps;

/// A list whose items are proved one by one.
#[derive(Clone, Debug)]
pub(crate) struct SignedItems {
    pub(crate) list: Vec<String>,
    pub(crate) rest: Vec<String>,
}

/// Number of items of a list that are proved one by one.
const MOST_ITEMS: usize = 1000;

impl SignedItems {
    /// Reads `each`; the outer option is whether it could be read.
    pub(super) fn read(section: &Section<'_>) -> Option<Option<Self>> {
        let Some(written) = section.text("each") else {
            return Some(None);
        };
        let path = |text: &str| {
            if text.is_empty() {
                Vec::new()
            } else {
                steps(text)
            }
        };
        match written.split_once("[*]") {
            Some((list, rest))
                if !rest.contains("[*]") && (rest.is_empty() || rest.starts_with('.')) =>
            {
                Some(Some(Self {
                    list: path(list),
                    rest: path(rest.trim_start_matches('.')),
                }))
            }
            _ => {
                section.problems().error_hint(
                    &written.place,
                    format!("{} must be a path with one [*] in it", section.path("each")),
                    "for example \"items[*].request\"",
                );
                None
            }
        }
    }
}

/// Proves every item of a list, or the whole request where no list is configured. Gives the name of the first item's key.
/// An empty list proves nothing.
pub(crate) fn each_item<'q>(
    each: Option<&SignedItems>,
    request: &'q RequestTexts<'_>,
    mut judge: impl FnMut(Option<&'q Json>) -> Result<String, ProofError>,
) -> Result<String, ProofError> {
    let Some(each) = each else { return judge(None) };
    let items = match request.json().map_err(missing)?.at(&each.list) {
        Some(Json::List(items)) if items.len() > MOST_ITEMS => {
            return Err(malformed(format!("more than {MOST_ITEMS} items to prove")));
        }
        Some(Json::List(items)) => items.as_slice(),
        _ => &[],
    };
    let mut proved = None;
    for item in items {
        let item = item
            .at(&each.rest)
            .ok_or_else(|| missing("a signed item is missing".into()))?;
        let key = judge(Some(item))?;
        proved.get_or_insert(key);
    }
    proved.ok_or_else(|| {
        (
            OriginFault::MissingSignature,
            "there is no item to prove".into(),
        )
    })
}
