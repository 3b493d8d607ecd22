//! A delivery as a request: pure, so that a retry sends the same bytes.

use std::time::Duration;

use bytes::Bytes;

use crate::config::SourceConfig;
use crate::inbox::Claimed;
use crate::model::Params;

/// One call of an agent or a workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Path and query under the base URL.
    pub path: String,
    /// The JSON body.
    pub body: Bytes,
    /// `input.text` in it, for telling this turn of a conversation from another.
    pub text: String,
    /// How long it may take, where the source says.
    pub timeout: Option<Duration>,
}

impl Call {
    /// The call that a delivery makes.
    pub fn new(_claimed: &Claimed, _source: &SourceConfig) -> Self {
        unimplemented!()
    }
}

/// `input.text` of an event: its prompt, and its JSON where the source puts it there.
pub fn text(_params: &Params, _body: &Bytes, _headers: &[(String, String)], _source: &SourceConfig) -> String {
    unimplemented!()
}
