//! A scheme run backwards: signs a request the way its provider would, for the demo, for tests and for trying out.
//!
//! Only what stands in headers can be written; a signature inside the document has no place to be put afterwards.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use super::content::Context;
use super::field::{Field, Request};
use super::mac::Running;
use super::scheme::{Scheme, Signed, Way};
use super::signature::{Grammar, Spot};
use crate::model::{Received, Timestamp};

impl Scheme {
    /// The headers that make a request this provider's, with the secret of this number. Headers that are signed and
    /// are not about the time, such as an id, have to be in the request already. An error says why it cannot be done.
    pub fn sign(
        &self,
        secret: usize,
        request: &Received,
        now: Timestamp,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let way = self.way(&Request::new(request, &self.document)).map_err(|(_, cause)| cause)?;
        let key = way.keys().get(secret).ok_or_else(|| format!("there is no secret number {}", secret + 1));
        match way {
            Way::Open => Ok(Vec::new()),
            Way::Basic(_) => {
                let value = format!("Basic {}", BASE64_STANDARD.encode(key?.expose()));
                Ok(vec![(AUTHORIZATION, header_value(value.as_bytes())?)])
            }
            Way::Token(token, None) => {
                let value = [token.places.prefix.as_bytes(), key?.expose()].concat();
                Ok(vec![(place(token.places.list.first())?, header_value(&value)?)])
            }
            Way::Token(_, Some(_)) => Err("a token inside the document cannot be put there".into()),
            Way::Digest(signed) => signed.sign(&self.document, key?, request, now),
        }
    }
}

impl Signed {
    fn sign(
        &self,
        document: &super::field::Document,
        key: &super::mac::Key,
        request: &Received,
        now: Timestamp,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        if self.each.is_some() || self.grammar.places.wraps() {
            return Err("a signature inside a document cannot be put there".into());
        }
        let mut headers = Vec::new();
        let mut fields = Vec::new();
        let mut request = request.clone();
        let mut ts = None;
        if let Some(stamp) = &self.stamp {
            let written = stamp.window.write(now).into_bytes();
            match &stamp.from {
                Field::Header(name) => {
                    let value = header_value(&written)?;
                    request.headers.insert(name.clone(), value.clone());
                    headers.push((name.clone(), value));
                    ts = Some(written);
                }
                Field::Signature(name) => {
                    fields.push((name.clone(), written.clone()));
                    ts = Some(written);
                }
                // It stands in the document already.
                other => {
                    let looked = Request::new(&request, document);
                    ts = looked.text(other, None)?.map(std::borrow::Cow::into_owned);
                }
            }
        }
        let looked = Request::new(&request, document);
        let context = Context { request: &looked, item: None, fields: &fields, ts: ts.as_deref(), key: Some(key) };
        let algorithm = self.algorithm.of(&context).map_err(|(_, cause)| cause)?;
        let mut digest = if self.keyed { key.hmac(algorithm) } else { Running::plain(algorithm) };
        let content = self.contents.first().ok_or("nothing is signed")?;
        content.feed(&context, &mut |bytes| digest.take(bytes))?;
        let text = self.grammar.write(digest.finish().as_bytes(), &fields);
        headers.push((place(self.grammar.places.list.first())?, header_value(text.as_bytes())?));
        Ok(headers)
    }
}

impl Grammar {
    /// A list with one signature in it.
    fn write(&self, digest: &[u8], fields: &[(String, Vec<u8>)]) -> String {
        let signature = self.encoding.encode(digest);
        let field = |name: &str| {
            let found = fields.iter().find(|(key, _)| key == name);
            found.map_or_else(String::new, |(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        let mut entries: Vec<String> = self.positional.iter().map(|name| field(name)).collect();
        match (&self.pair, self.select.first()) {
            (Some(pair), Some(select)) => {
                let others = fields.iter().filter(|(key, _)| !self.positional.contains(key));
                entries.extend(others.map(|(key, _)| format!("{key}{pair}{}", field(key))));
                entries.push(format!("{select}{pair}{signature}"));
            }
            _ => entries.push(signature),
        }
        format!("{}{}", self.places.prefix, entries.join(self.split.as_deref().unwrap_or_default()))
    }
}

fn place(spot: Option<&Spot>) -> Result<HeaderName, String> {
    match spot {
        Some(Spot::Field(Field::Header(name))) => Ok(name.clone()),
        Some(Spot::Numbered(start)) => {
            HeaderName::from_bytes(format!("{start}1").as_bytes()).map_err(|_| "this is no name of a header".into())
        }
        _ => Err("only signatures that stand in headers can be written".into()),
    }
}

/// A value for a header; what cannot stand in one is not shown, since it may be the secret.
fn header_value(bytes: &[u8]) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_bytes(bytes).map_err(|_| "the value cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
