//! The secrets of a source. An answer has their names, never their values.

use serde::{Deserialize, Serialize};

use super::key::UseView;
use crate::model::Timestamp;

/// A secret, by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SecretView {
    /// Name of the secret, like the name of its environment variable.
    pub name: String,
    /// End of its validity.
    pub until: Option<Timestamp>,
    /// True if its validity has ended.
    pub ended: bool,
    /// Requests that it proved.
    pub used: Option<UseView>,
    /// Start of the count: the start of the process.
    pub counted_since: Timestamp,
}
