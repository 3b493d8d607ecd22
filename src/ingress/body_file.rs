//! The file that a whole body is: its name.

use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};

use crate::text::parameter;

/// The name that the sender of a body gives it, or else one made of its type.
pub(super) fn name(headers: &HeaderMap) -> String {
    let disposition = headers
        .get(CONTENT_DISPOSITION)
        .map(|line| parameter::parse(line.as_bytes()));
    let named = disposition
        .and_then(|disposition| disposition.text("filename", None))
        .map(|(name, _)| name);
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let kind = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        let kind = kind
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        // The agent tells a file's kind by its extension.
        let extension = EXTENSIONS
            .iter()
            .find(|(known, _)| *known == kind)
            .map_or("", |(_, extension)| extension);
        format!("file{extension}")
    })
}

/// Extensions of the kinds of files that agents read.
const EXTENSIONS: [(&str, &str); 17] = [
    ("application/pdf", ".pdf"),
    ("application/msword", ".doc"),
    (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ".docx",
    ),
    ("application/vnd.ms-excel", ".xls"),
    (
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ".xlsx",
    ),
    ("application/zip", ".zip"),
    ("text/plain", ".txt"),
    ("text/csv", ".csv"),
    ("image/png", ".png"),
    ("image/jpeg", ".jpg"),
    ("image/gif", ".gif"),
    ("image/webp", ".webp"),
    ("image/svg+xml", ".svg"),
    ("audio/mpeg", ".mp3"),
    ("audio/ogg", ".ogg"),
    ("audio/wav", ".wav"),
    ("audio/mp4", ".m4a"),
];
