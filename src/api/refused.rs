//! Refused requests.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// A refused request in a list, without its body and the values of its headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefusedView {
    /// Time of the request.
    pub at: Timestamp,
    /// Id of the request, which its answer carried.
    pub request_id: String,
    /// Name of the source; null if the request found no source.
    pub source: Option<String>,
    /// Method of the request.
    pub method: String,
    /// Path without the query, cut.
    pub path: String,
    /// Address of the caller.
    pub peer: IpAddr,
    /// Names of the headers.
    pub headers: Vec<String>,
    /// Size of the body, as far as it was read.
    pub body_bytes: u64,
    /// Code in the answer to the caller.
    pub code: String,
    /// Finer reason in a stable word.
    pub reason: String,
    /// Explanation for the operator.
    pub cause: String,
    /// True if the request is kept whole.
    pub whole: bool,
}

/// A refused request, with all its parts if it is kept whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefusedPage {
    /// The request as it stands in a list.
    #[serde(flatten)]
    pub sample: RefusedView,
    /// The whole request.
    pub request: Option<WholeView>,
}

/// A whole request. Values that are secrets are masked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WholeView {
    /// Method of the request.
    pub method: String,
    /// Target of the request.
    pub target: String,
    /// Headers: names and values.
    pub headers: Vec<(String, String)>,
    /// Body as text, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Body in base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// Query of `GET /refused`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RefusedQuery {
    /// Only of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Only at or after this time (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Largest number of entries, from 1 to 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}
