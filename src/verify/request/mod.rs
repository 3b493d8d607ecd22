//! View of a request for its check: texts by their places, documents parsed once.

pub(crate) mod body_kinds;
pub(crate) mod condition;
pub(crate) mod document;
pub(crate) mod field;
pub(crate) mod inflate;

use std::borrow::Cow;
use std::cell::OnceCell;

use http::HeaderName;
use http::header::CONTENT_TYPE;

use self::document::{FormBytes, Json};
use self::field::{DocumentPlace, Field};
use crate::model::Received;

/// Reads a document that has signed fields.
fn parsed(document: &[u8]) -> Result<Json, String> {
    Json::parse(document)
        .map_err(|fault| format!("the document with the signed fields cannot be read: {fault}"))
}

/// A request being looked at; documents in it are read when first asked for, and once.
pub(crate) struct RequestTexts<'r> {
    pub(crate) received: &'r Received,
    document: &'r DocumentPlace,
    json: OnceCell<Result<Json, String>>,
    form: OnceCell<Result<FormBytes, String>>,
}

impl<'r> RequestTexts<'r> {
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
            DocumentPlace::Body => parsed(&self.received.body),
            DocumentPlace::Multipart(field) => {
                document::part(self.content_type(), &self.received.body, field)
                    .ok_or_else(|| format!("the body has no form part {field}"))
                    .and_then(|part| parsed(&part))
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
