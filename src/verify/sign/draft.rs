//! Draft of a request that is being signed: texts are put at its places.

use std::ops::Range;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value as JsonValue};

use crate::model::Received;
use crate::verify::request::RequestTexts;
use crate::verify::request::document::{self, Json};
use crate::verify::request::field::{DocumentPlace, Field};
use crate::verify::signature::places::{SignaturePlace, SignaturePlaces};

/// A request that is being signed.
pub(super) struct Draft<'d> {
    pub(super) request: Received,
    document: &'d DocumentPlace,
    /// The path of the item that is signed by itself; empty where the request is signed as a whole.
    pub(super) item: Vec<String>,
}

impl<'d> Draft<'d> {
    pub(super) const fn new(request: Received, document: &'d DocumentPlace) -> Self {
        Self {
            request,
            document,
            item: Vec::new(),
        }
    }

    /// The request as it stands.
    pub(super) fn view(&self) -> RequestTexts<'_> {
        RequestTexts::new(&self.request, self.document)
    }

    /// The item that is signed by itself.
    pub(super) fn item_of<'v>(
        &self,
        view: &'v RequestTexts<'_>,
    ) -> Result<Option<&'v Json>, String> {
        if self.item.is_empty() {
            return Ok(None);
        }
        Ok(view.json()?.at(&self.item))
    }

    /// True if a text stands at a place.
    pub(super) fn has(&self, field: &Field) -> Result<bool, String> {
        let view = self.view();
        let text = view.text(field, self.item_of(&view)?)?;
        Ok(text.is_some_and(|text| !text.is_empty()))
    }

    /// Puts a signature or a token at the first of its places.
    pub(super) fn put_first(
        &mut self,
        places: &SignaturePlaces,
        value: &[u8],
    ) -> Result<(), String> {
        match places.list.first() {
            Some(SignaturePlace::Field(field)) => self.put(field, value),
            Some(SignaturePlace::Numbered(start)) => {
                let name = HeaderName::from_bytes(format!("{start}1").as_bytes())
                    .map_err(|_| "invalid header name")?;
                self.request.headers.insert(name, header_value(value)?);
                Ok(())
            }
            None => Err("there is no place for the signature".into()),
        }
    }

    /// Puts a text at a place.
    pub(super) fn put(&mut self, field: &Field, value: &[u8]) -> Result<(), String> {
        match field {
            Field::Header(name) => {
                let value = header_value(value)?;
                self.request.headers.insert(name.clone(), value);
            }
            Field::Query(name) => self.put_query(name, text(value)?),
            Field::Form(name) => self.put_form(name, text(value)?)?,
            Field::Json(path) => self.put_json(path, text(value)?)?,
            Field::Body => self.request.body = value.to_vec().into(),
            Field::Signature(_) => {
                return Err("a signature's own keys are written with it".into());
            }
        }
        Ok(())
    }

    fn put_query(&mut self, name: &str, value: &str) {
        let request = &mut self.request;
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        let kept =
            form_urlencoded::parse(request.query().as_bytes()).filter(|(key, _)| key != name);
        let query = pairs.extend_pairs(kept).append_pair(name, value).finish();
        request.target = format!("{}?{query}", request.path());
        let base = request
            .url
            .split_once('?')
            .map_or(request.url.as_str(), |(base, _)| base);
        request.url = format!("{base}?{query}");
    }

    fn put_form(&mut self, name: &str, value: &str) -> Result<(), String> {
        let kind = self.request.header("content-type").unwrap_or_default();
        if kind.to_ascii_lowercase().starts_with("multipart/") {
            return Err("a field of a multipart form cannot be put there".into());
        }
        let kept: Vec<(String, String)> = form_urlencoded::parse(&self.request.body)
            .into_owned()
            .filter(|(key, _)| key != name)
            .collect();
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        self.request.body = pairs
            .extend_pairs(kept)
            .append_pair(name, value)
            .finish()
            .into();
        Ok(())
    }

    fn put_json(&mut self, path: &[String], value: &str) -> Result<(), String> {
        let range = self.document_range()?;
        let body = &self.request.body;
        let mut tree: JsonValue =
            serde_json::from_slice(&body[range.clone()]).map_err(|_| "the document is not JSON")?;
        let mut place = &mut tree;
        for step in self.item.iter().chain(path) {
            place = child(place, step)?;
        }
        *place = match (&*place, value.parse::<i64>()) {
            (JsonValue::Number(_), Ok(number)) => number.into(),
            _ => value.into(),
        };
        let written = tree.to_string().into_bytes();
        self.request.body = [&body[..range.start], &written, &body[range.end..]]
            .concat()
            .into();
        Ok(())
    }

    /// The bytes of the body that are the JSON document.
    fn document_range(&self) -> Result<Range<usize>, String> {
        let body = &self.request.body;
        let DocumentPlace::Multipart(name) = self.document else {
            return Ok(0..body.len());
        };
        let kind = self.request.header("content-type").unwrap_or_default();
        let part = document::part(kind, body, name).ok_or("the form has no such part")?;
        let framed = [b"\r\n\r\n", &part[..], b"\r\n--"].concat();
        let start =
            memchr::memmem::find(body, &framed).ok_or("the form's part cannot be changed")?;
        Ok(start + 4..start + 4 + part.len())
    }
}

/// The value at one step into a tree. A value that is not a list or an object is replaced by an object.
fn child<'t>(place: &'t mut JsonValue, step: &str) -> Result<&'t mut JsonValue, String> {
    if !matches!(place, JsonValue::Array(_) | JsonValue::Object(_)) {
        *place = JsonValue::Object(Map::new());
    }
    match place {
        JsonValue::Array(list) => step
            .parse::<usize>()
            .ok()
            .and_then(|number| list.get_mut(number))
            .ok_or_else(|| "a list has not that many items".to_owned()),
        JsonValue::Object(entries) => Ok(entries.entry(step.to_owned()).or_insert(JsonValue::Null)),
        _ => Err("the document has no such place".into()),
    }
}

fn text(value: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(value).map_err(|_| "the value is not text".to_owned())
}

impl SignaturePlaces {
    /// A signature inside the object that it is a member of, where it is one.
    pub(super) fn wrapped(&self, text: &[u8]) -> Vec<u8> {
        let Some(member) = &self.unwrap else {
            return text.to_vec();
        };
        let inner = text.strip_prefix(self.prefix.as_bytes()).unwrap_or(text);
        let value = JsonValue::String(String::from_utf8_lossy(inner).into_owned());
        let object = member.iter().rev().fold(value, |inner, step| {
            let mut object = Map::new();
            object.insert(step.clone(), inner);
            JsonValue::Object(object)
        });
        format!(
            "{}{}",
            self.prefix,
            BASE64_STANDARD.encode(object.to_string())
        )
        .into_bytes()
    }
}

/// A header value. The error does not show a text that cannot stand in one, since it may be the secret.
pub(super) fn header_value(bytes: &[u8]) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_bytes(bytes)
        .map_err(|_| "the value cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
