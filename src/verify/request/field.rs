//! Place of one text in a request: `header:X-Id`, `query:mode`, `form:payload`, `json:event.type`.
//!
//! A place that holds two texts counts as empty: two readers could each take another one.

use http::HeaderName;

use crate::config::{Located, Problems};

/// Place of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Header(HeaderName),
    Query(String),
    Form(String),
    Json(Vec<String>),
    /// Another key of the signature list.
    Signature(String),
    Body,
}

/// The body as the place where `json:` looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum DocumentPlace {
    #[default]
    Body,
    Multipart(String),
}

impl Field {
    /// Reads the notation; any other text is a problem.
    pub(crate) fn parse(written: &Located<String>, problems: &Problems) -> Option<Self> {
        let field = Self::read(&written.value);
        if field.is_none() {
            problems.error_hint(
                &written.place,
                format!(
                    "\"{}\" names no place in a request",
                    written.value.escape_debug()
                ),
                "write header:Name, query:name, form:name, json:path, signature:key or body",
            );
        }
        field
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        if text == "body" {
            return Some(Self::Body);
        }
        let (kind, name) = text.split_once(':')?;
        if name.is_empty() {
            return None;
        }
        Some(match kind {
            "header" => Self::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
            "query" => Self::Query(name.to_owned()),
            "form" => Self::Form(name.to_owned()),
            "json" => Self::Json(steps(name)),
            "signature" => Self::Signature(name.to_owned()),
            _ => return None,
        })
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Form(name) => write!(f, "form:{name}"),
            Self::Json(path) => write!(f, "json:{}", path.join(".")),
            Self::Signature(key) => write!(f, "signature:{key}"),
            Self::Body => f.write_str("body"),
        }
    }
}

/// The steps of a dotted path.
pub(crate) fn steps(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}
