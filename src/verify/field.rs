//! One text of a request, by where it stands: `header:X-Id`, `query:mode`, `form:payload`, `json:event.type`.
//!
//! What stands there twice stands there not at all: two readers could each take another one.

use std::borrow::Cow;
use std::cell::OnceCell;

use http::HeaderName;
use http::header::CONTENT_TYPE;

use super::document::{self, FormBytes, Json};
use crate::config::{Located, Problems};
use crate::model::Received;

/// Where a text stands.
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
    /// Reads the notation; what is none is a problem.
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

/// A request being looked at; documents in it are read when first asked for, and once.
pub(crate) struct RequestView<'r> {
    pub(crate) received: &'r Received,
    document: &'r DocumentPlace,
    json: OnceCell<Result<Json, String>>,
    form: OnceCell<Result<FormBytes, String>>,
}

impl<'r> RequestView<'r> {
    pub(crate) fn new(received: &'r Received, document: &'r DocumentPlace) -> Self {
        Self {
            received,
            document,
            json: OnceCell::new(),
            form: OnceCell::new(),
        }
    }

    /// The text at a place, before any signature is found. An error is a document that cannot be read.
    pub(crate) fn text<'s>(
        &'s self,
        field: &Field,
        item: Option<&'s Json>,
    ) -> Result<Option<Cow<'s, [u8]>>, String> {
        Ok(match field {
            Field::Header(name) => {
                let mut lines = self.header_lines(name);
                let first = lines.next();
                if lines.next().is_some() {
                    None
                } else {
                    first.map(Cow::Borrowed)
                }
            }
            Field::Query(name) => {
                let pairs = form_urlencoded::parse(self.received.query().as_bytes());
                only(
                    pairs
                        .filter(|(key, _)| key == name)
                        .map(|(_, value)| into_bytes(value)),
                )
            }
            Field::Form(name) => only(
                self.form()?
                    .iter()
                    .filter(|(key, _)| key == name.as_bytes())
                    .map(|(_, value)| Cow::Borrowed(&value[..])),
            ),
            Field::Json(path) => {
                let root = match item {
                    Some(item) => item,
                    None => self.json()?,
                };
                root.at(path)
                    .and_then(Json::as_text)
                    .map(|text| Cow::Borrowed(text.as_bytes()))
            }
            Field::Body => Some(Cow::Borrowed(&self.received.body)),
            Field::Signature(_) => None,
        })
    }

    /// The lines of a header, without blanks around them: those are no part of a value.
    pub(crate) fn header_lines(
        &self,
        name: &HeaderName,
    ) -> impl Iterator<Item = &'r [u8]> + use<'r> {
        self.received
            .headers
            .get_all(name)
            .iter()
            .map(|value| value.as_bytes().trim_ascii())
    }

    /// The document that `json:` looks into.
    pub(crate) fn json(&self) -> Result<&Json, String> {
        let parse = || match self.document {
            DocumentPlace::Body => Json::parse(&self.received.body),
            DocumentPlace::Multipart(field) => {
                document::part(self.content_type(), &self.received.body, field)
                    .ok_or_else(|| format!("the body has no form part {field}"))
                    .and_then(|part| Json::parse(&part))
            }
        };
        self.json.get_or_init(parse).as_ref().map_err(String::clone)
    }

    /// The fields of the form.
    pub(crate) fn form(&self) -> Result<&FormBytes, String> {
        let parse = || match document::is_json(self.content_type()) {
            true => Ok(FormBytes::new()),
            false => document::form(self.content_type(), &self.received.body),
        };
        self.form.get_or_init(parse).as_ref().map_err(String::clone)
    }

    fn content_type(&self) -> &'r str {
        self.received
            .header(CONTENT_TYPE.as_str())
            .unwrap_or_default()
    }
}

/// The one item of a list that has one.
fn only<'t>(mut found: impl Iterator<Item = Cow<'t, [u8]>>) -> Option<Cow<'t, [u8]>> {
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn into_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}
