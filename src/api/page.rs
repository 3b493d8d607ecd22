//! Pages of a list, and what an operator holds.

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "PageOf{T}"))]
pub struct PageView<T> {
    /// Entries of the page.
    pub items: Vec<T>,
    /// Start of the next page; null at the end of the list.
    pub next_cursor: Option<String>,
    /// Holds of an operator. They stand here whatever the list is of, if it tells them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paused: Vec<PausedView>,
}

impl<T> PageView<T> {
    /// The page of a list that has no further one.
    pub const fn whole(items: Vec<T>) -> Self {
        Self {
            items,
            next_cursor: None,
            paused: Vec::new(),
        }
    }
}

/// A hold of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PausedView {
    /// Name of the source or destination, or `all`.
    pub what: String,
    /// Kind of the hold: `all`, `source` or `destination`.
    pub kind: String,
    /// Begin of the hold.
    pub since: Timestamp,
}
