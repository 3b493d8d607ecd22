//! The kind of a body that its content type declares.

/// Kind of body that the content type declares.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Json,
    Form,
    /// A form in parts.
    Parts,
    Multipart,
    Binary,
    Text,
}

impl Label {
    /// Reads a content type.
    pub(super) fn of(content_type: &str) -> Self {
        let essence = content_type
            .split(';')
            .next()
            .unwrap_or("")
            .trim()
            .to_ascii_lowercase();
        match essence.as_str() {
            "application/x-www-form-urlencoded" => Self::Form,
            "application/json" | "text/json" => Self::Json,
            "multipart/form-data" => Self::Parts,
            other if other.ends_with("+json") => Self::Json,
            other if other.starts_with("multipart/") => Self::Multipart,
            other if is_binary(other) => Self::Binary,
            _ => Self::Text,
        }
    }
}

/// True for a media type that is not text.
fn is_binary(essence: &str) -> bool {
    let (kind, sub) = essence.split_once('/').unwrap_or_default();
    match kind {
        "image" => !sub.ends_with("+xml"),
        "audio" | "video" | "font" => true,
        "application" => {
            matches!(
                sub,
                "octet-stream"
                    | "pdf"
                    | "zip"
                    | "gzip"
                    | "protobuf"
                    | "x-protobuf"
                    | "cbor"
                    | "msgpack"
            )
        }
        _ => false,
    }
}
