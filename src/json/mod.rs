//! JSON bodies, read and rewritten as text.
//!
//! One reader of the grammar, [`Scan`], serves everything that decides about a body: `extract` finds pieces at dotted
//! paths, `tree` and [`part`] make trees for templates and JSONPaths, [`Json`] is the strict tree for the fields that a
//! signature covers. So the check of a signature and the mapping never understand a body in two ways.
//!
//! `compact` and `shorten` rewrite a text and decide nothing. They take a text of any depth, which a reader with a
//! stack cannot, so they let `serde_json` check the grammar ([`is_valid`]) and then work on the text. A property test
//! holds that both readers take the same texts. Answers with a known shape are read by `serde_json` where they arrive.

mod compact;
mod dotted;
mod extract;
mod quoted;
mod scan;
mod shorten;
mod tree;
mod unique;

pub use compact::compact;
pub use dotted::Dotted;
pub use extract::{PieceRanges, extract, extract_noting};
pub use quoted::Quoted;
pub use scan::{DEPTH, JsonFault, NODES, Scan, string};
pub use shorten::shorten;
pub use tree::{Projection, part, tree};
pub use unique::Json;

use serde::de::IgnoredAny;

/// True if a text is JSON as mappings read it, or JSON that is too large or nests too deep for them.
pub fn is_json(text: &str) -> bool {
    !matches!(extract(text, &[]), Err(JsonFault::Syntax(_)))
}

/// True if a text is JSON, nested as deep as it may be.
pub fn is_valid(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}
