//! Rendering of a template: its bytes, fed part by part to whatever takes them.

use std::borrow::Cow;

use super::{ContentTemplate, Filter, Placeholder, TemplatePart};
use crate::verify::keys::mac::{Key, RunningDigest, crc32};
use crate::verify::request::RequestTexts;
use crate::verify::request::document::Json;
use crate::verify::request::field::Field;

/// Values that a template is filled from.
#[derive(Clone, Copy)]
pub(crate) struct Context<'c, 'r> {
    pub(crate) request: &'c RequestTexts<'r>,
    /// The item of an `each` list.
    pub(crate) item: Option<&'c Json>,
    /// The other keys of the signature list.
    pub(crate) fields: &'c [(String, Vec<u8>)],
    /// The time stamp, as received.
    pub(crate) ts: Option<&'c [u8]>,
    /// The key being tried.
    pub(crate) key: Option<&'c Key>,
}

impl<'c, 'r> Context<'c, 'r> {
    /// The context of a request alone: no item, no signature list, no time, no key.
    pub(crate) const fn new(request: &'c RequestTexts<'r>) -> Self {
        Self {
            request,
            item: None,
            fields: &[],
            ts: None,
            key: None,
        }
    }
}

impl<'c> Context<'c, '_> {
    /// The text at a place, signature keys included.
    pub(crate) fn text(&self, field: &Field) -> Result<Option<Cow<'c, [u8]>>, String> {
        match field {
            Field::Signature(key) => {
                let mut found = self.fields.iter().filter(|(name, _)| name == key);
                let first = found.next();
                // A key that is there twice has no single value.
                Ok(first
                    .filter(|_| found.next().is_none())
                    .map(|(_, value)| Cow::Borrowed(value.as_slice())))
            }
            field => self.request.text(field, self.item),
        }
    }

    fn value(&self, value: &Placeholder) -> Result<Option<Cow<'c, [u8]>>, String> {
        let received = self.request.received;
        Ok(match value {
            Placeholder::Field(field) => self.text(field)?,
            Placeholder::FieldOrEmpty(field) => Some(self.text(field)?.unwrap_or_default()),
            Placeholder::Ts => self.ts.map(Cow::Borrowed),
            Placeholder::Secret => self.key.map(|key| Cow::Borrowed(key.expose())),
            Placeholder::Method => Some(Cow::Borrowed(received.method.as_str().as_bytes())),
            Placeholder::Path => Some(Cow::Borrowed(received.target.as_bytes())),
            Placeholder::Url => Some(Cow::Borrowed(received.url.as_bytes())),
            Placeholder::UrlBase => {
                let base = received
                    .url
                    .split_once('?')
                    .map_or(received.url.as_str(), |(base, _)| base);
                Some(Cow::Borrowed(base.as_bytes()))
            }
            Placeholder::UrlWithPort => Some(Cow::Owned(with_port(&received.url).into_bytes())),
            Placeholder::FormSorted => {
                let mut pairs: Vec<&(Vec<u8>, Vec<u8>)> = self.request.form()?.iter().collect();
                pairs.sort_unstable();
                pairs.dedup();
                Some(Cow::Owned(
                    pairs.iter().flat_map(|(name, value)| [name, value]).fold(
                        Vec::new(),
                        |mut all, bytes| {
                            all.extend_from_slice(bytes);
                            all
                        },
                    ),
                ))
            }
            Placeholder::QuerySorted => {
                let mut pairs: Vec<&str> = received
                    .query()
                    .split('&')
                    .filter(|pair| !pair.is_empty())
                    .collect();
                pairs.sort_unstable_by_key(|pair| pair.split_once('=').unwrap_or((pair, "")));
                Some(Cow::Owned(pairs.join("&").into_bytes()))
            }
            Placeholder::QueryLast => {
                let query = received.query();
                Some(Cow::Borrowed(
                    query
                        .rsplit_once('&')
                        .map_or(query, |(_, last)| last)
                        .as_bytes(),
                ))
            }
            Placeholder::HeaderListed(name) => self.listed(name),
        })
    }

    /// `name:value` of the headers that a header lists, sorted, joined by `;`.
    fn listed(&self, name: &http::HeaderName) -> Option<Cow<'c, [u8]>> {
        let mut lines = self.request.header_lines(name);
        let list = std::str::from_utf8(lines.next()?).ok()?;
        if lines.next().is_some() || list.split(',').count() > 64 {
            return None;
        }
        let mut pairs = Vec::new();
        for name in list.split(',') {
            let name = http::HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            let value = self
                .request
                .text(&Field::Header(name.clone()), None)
                .ok()??;
            pairs.push([name.as_str().as_bytes(), b":", &value].concat());
        }
        pairs.sort_unstable();
        Some(Cow::Owned(pairs.join(&b";"[..])))
    }
}

/// An address with the port that its scheme implies written out.
fn with_port(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    match (has_port, scheme) {
        (false, "https") => format!("{scheme}://{authority}:443{path}"),
        (false, "http") => format!("{scheme}://{authority}:80{path}"),
        _ => url.to_owned(),
    }
}

impl ContentTemplate {
    /// Feeds the bytes, part by part. An error names what is absent or unreadable.
    pub(crate) fn feed(
        &self,
        context: &Context<'_, '_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), String> {
        feed(&self.0, context, take)
    }

    /// Feeds what stands before the body; without one, everything.
    pub(crate) fn feed_before(
        &self,
        body: Option<usize>,
        context: &Context<'_, '_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), String> {
        feed(&self.0[..body.unwrap_or(self.0.len())], context, take)
    }

    /// Feeds what stands behind the body.
    pub(crate) fn feed_behind(
        &self,
        body: Option<usize>,
        context: &Context<'_, '_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), String> {
        feed(body.map_or(&[], |body| &self.0[body + 1..]), context, take)
    }

    /// The bytes in one piece.
    pub(crate) fn bytes(&self, context: &Context<'_, '_>) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        self.feed(context, &mut |bytes| all.extend_from_slice(bytes))?;
        Ok(all)
    }

    /// The same; a text that is the body and nothing else is not copied.
    pub(crate) fn message<'c>(&self, context: &Context<'c, '_>) -> Result<Cow<'c, [u8]>, String> {
        match self.as_value() {
            Some(Placeholder::Field(Field::Body)) => {
                Ok(Cow::Borrowed(&context.request.received.body))
            }
            _ => self.bytes(context).map(Cow::Owned),
        }
    }
}

fn feed(
    parts: &[TemplatePart],
    context: &Context<'_, '_>,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), String> {
    for part in parts {
        match part {
            TemplatePart::Text(text) => take(text),
            TemplatePart::Value(Placeholder::Field(Field::Body)) => {
                take(&context.request.received.body)
            }
            TemplatePart::Value(value) => match context.value(value)? {
                Some(bytes) => take(&bytes),
                None => return Err(format!("{} is missing", name(value))),
            },
            TemplatePart::Filtered(of, filters) => take(&filtered(of, filters, context)?),
            TemplatePart::Section(of) => {
                if filled(of, context)? {
                    feed(of, context, take)?;
                }
            }
        }
    }
    Ok(())
}

/// True if every value in a section is there and not empty.
fn filled(parts: &[TemplatePart], context: &Context<'_, '_>) -> Result<bool, String> {
    for part in parts {
        let full = match part {
            TemplatePart::Text(_) => true,
            TemplatePart::Value(value) => {
                context.value(value)?.is_some_and(|bytes| !bytes.is_empty())
            }
            TemplatePart::Filtered(of, _) | TemplatePart::Section(of) => filled(of, context)?,
        };
        if !full {
            return Ok(false);
        }
    }
    Ok(true)
}

fn filtered(
    of: &[TemplatePart],
    filters: &[Filter],
    context: &Context<'_, '_>,
) -> Result<Vec<u8>, String> {
    let begin = |filter: &Filter| match filter {
        Filter::Digest(algorithm) => Ok(Some(RunningDigest::plain(*algorithm))),
        Filter::Hmac(algorithm) => match context.key {
            Some(key) => Ok(Some(key.hmac(*algorithm))),
            None => Err("a secret is missing".to_owned()),
        },
        _ => Ok(None),
    };
    let mut rest = filters.iter();
    // A digest that comes first is fed part by part, so that a body under it is not copied.
    let mut bytes = match filters.first().map(begin).transpose()?.flatten() {
        Some(mut digest) => {
            rest.next();
            feed(of, context, &mut |bytes| digest.take(bytes))?;
            digest.finish().as_bytes().to_vec()
        }
        None => {
            let mut all = Vec::new();
            feed(of, context, &mut |bytes| all.extend_from_slice(bytes))?;
            all
        }
    };
    for filter in rest {
        bytes = match filter {
            Filter::Crc32 => crc32(&bytes).to_string().into_bytes(),
            Filter::Hex => hex::encode(&bytes).into_bytes(),
            Filter::Base64 => {
                base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &bytes).into_bytes()
            }
            digest => match begin(digest)? {
                Some(mut running) => {
                    running.take(&bytes);
                    running.finish().as_bytes().to_vec()
                }
                None => bytes,
            },
        };
    }
    Ok(bytes)
}

/// A value's name in sentences.
fn name(value: &Placeholder) -> String {
    match value {
        Placeholder::Field(field) | Placeholder::FieldOrEmpty(field) => field.to_string(),
        Placeholder::HeaderListed(name) => format!("a header that {name} lists"),
        Placeholder::Ts => "the time stamp".into(),
        _ => "a part of the signed text".into(),
    }
}
