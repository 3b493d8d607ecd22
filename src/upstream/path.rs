//! Paths of the upstream's API. A name from outside is always one segment of a path, whatever is in it.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::RunMode;

/// Characters that are escaped in a path segment, a query value or the local part of an address: all but the
/// unreserved ones (RFC 3986).
pub(super) const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The path that runs an agent (`agents`) or a workflow (`workflows`), below the base URL.
pub(super) fn invoke(collection: &str, id: &str, run: RunMode, version: Option<&str>) -> String {
    let manner = match run {
        RunMode::Call => "",
        RunMode::Async => "/async",
        RunMode::Stream => "/stream",
    };
    let mut path = format!("/v1/{collection}/{}/invoke{manner}", segment(id));
    if let Some(version) = version.filter(|version| !version.is_empty()) {
        path.push_str("?version=");
        path.extend(utf8_percent_encode(version, ESCAPED));
    }
    path
}

/// A text as one segment of a path. A segment of dots would be a step up, also in the spelling `%2E`, for a proxy that
/// tidies paths: its percent signs are encoded too, so that it names something that nobody has.
pub(super) fn segment(text: &str) -> Cow<'_, str> {
    match text {
        "." | ".." => text.replace('.', "%252E").into(),
        _ => utf8_percent_encode(text, ESCAPED).into(),
    }
}
