//! Calls to a channel: from a way, an address, a part and the secrets to one request.
//!
//! Promises: the token goes to the host of `api` or to a host that the file lists, and to no other; nothing that is printed
//! has a secret in it; a value of the payload changes neither the path around it nor the headers.

mod base;
mod signature;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::address::ReplyAddress;
use super::reply::OutgoingPart;
use super::spec::{CallTemplate, ChannelBody, ChannelSpec, TargetTemplate};
use super::template::{FillEncoding, FillError, Slot, Values};
use crate::config::reply::ReplyAuth;
use crate::model::Timestamp;

/// One request to a channel, ready to be sent. No redirect of its answer may be followed.
pub struct ChannelCall {
    /// The method.
    pub method: Method,
    /// The whole address. It may hold a token; only [`Self::shown`] may be logged.
    pub url: String,
    /// The headers; those with secrets are marked as sensitive.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The method and the address with the names of secrets in place of them, for logs and attempts.
    pub shown: String,
}

impl fmt::Debug for ChannelCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.keys().map(http::HeaderName::as_str).collect();
        f.debug_struct("ChannelCall")
            .field("shown", &self.shown)
            .field("headers", &headers)
            .field("body", &self.body.len())
            .finish()
    }
}

/// The reason why a call cannot be made. It never can be, as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// A template cannot be filled.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// The address of the payload is not one of the channel's own.
    #[error("the address in {0} is not at a host of the channel")]
    ForeignHost(String),
    /// A secret is missing, or cannot stand in a header.
    #[error("the {0} of the source is missing or cannot be sent")]
    Secret(&'static str),
    /// The file has no such call.
    #[error("the channel has no such call")]
    NoCall,
}

/// Secrets of a source for its channel. They are never printed.
#[derive(Clone, Copy, Default)]
pub struct ChannelSecrets<'s> {
    /// The token, given by the operator or asked for with one of the ways of `auth`.
    pub token: Option<&'s str>,
    /// Name and password of `auth = "basic"`.
    pub basic: Option<(&'s str, &'s str)>,
    /// Key that signs a call over its body.
    pub signing_key: Option<&'s [u8]>,
}

impl fmt::Debug for ChannelSecrets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelSecrets")
    }
}

/// Everything that a call is made from, beside its way.
#[derive(Clone, Copy, Debug)]
pub struct CallContext<'c> {
    /// The address of the answer.
    pub address: &'c ReplyAddress,
    /// Names of the address that the channel has refused; they count as absent.
    pub without: &'c BTreeSet<String>,
    /// The source's values.
    pub values: &'c [(String, String)],
    /// The secrets.
    pub secrets: ChannelSecrets<'c>,
    /// Id of the event.
    pub event_id: &'c str,
    /// Status of the run.
    pub status: &'c str,
    /// Time of the call.
    pub now: Timestamp,
}

/// The message of a call: the parts that it carries, and its names.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallMessage<'m> {
    /// The parts.
    pub parts: &'m [OutgoingPart],
    /// Number of the first of them, from 0.
    pub first: usize,
    /// Number of all parts of the answer.
    pub total: usize,
    /// The key of the message.
    pub key: Option<Uuid>,
    /// Id of the message that is changed, or of the sign of life that ends.
    pub sent: Option<&'m Value>,
    /// True if the call refers to the message that is answered.
    pub quotes: bool,
    /// Time before which the message was surely not there, for a question.
    pub since: Option<Timestamp>,
}

/// A call of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOf {
    /// The way with this number.
    Send(usize),
    /// The change of a message.
    Edit,
    /// The question for a message.
    Check,
    /// The sign of typing, and its end.
    Typing,
    /// The call that ends the sign of typing.
    TypingOff,
    /// The mark on the message that is answered.
    Mark,
    /// The call that takes the mark away.
    MarkOff,
}

impl ChannelSpec {
    fn template(&self, of: CallOf) -> Option<&CallTemplate> {
        match of {
            CallOf::Send(way) => self.ways.get(way).map(|way| &way.call),
            CallOf::Edit => self.edit.as_ref(),
            CallOf::Check => self.check.as_ref().map(|check| &check.call),
            CallOf::Typing => self.typing.as_ref().map(|sign| &sign.call),
            CallOf::TypingOff => self.typing.as_ref().and_then(|sign| sign.off.as_ref()),
            CallOf::Mark => self.mark.as_ref().map(|sign| &sign.call),
            CallOf::MarkOff => self.mark.as_ref().and_then(|sign| sign.off.as_ref()),
        }
    }

    /// Makes a call.
    pub fn call(
        &self,
        of: CallOf,
        context: &CallContext<'_>,
        message: CallMessage<'_>,
    ) -> Result<ChannelCall, CallError> {
        let template = self.template(of).ok_or(CallError::NoCall)?;
        let values = CallValues {
            quote: self.quote.as_deref(),
            context,
            message,
        };
        let (mut url, shown) = self.url(template, &values)?;
        append_query(&mut url, template, &values)?;
        let body = body(template, &values)?;
        let headers = self.headers(template, &values, &body)?;
        Ok(ChannelCall {
            method: template.method.clone(),
            shown: format!("{} {shown}", template.method),
            url,
            headers,
            body,
        })
    }

    /// The address without its query, and the same for logs.
    fn url(
        &self,
        template: &CallTemplate,
        values: &CallValues<'_>,
    ) -> Result<(String, String), CallError> {
        let is_secret = |slot: &Slot| match slot {
            Slot::Token => true,
            Slot::Named(name) => self.address.is_secret(name),
            _ => false,
        };
        let filled = |text: &super::template::TextTemplate| {
            let path = text.fill(values, 0, FillEncoding::Path);
            path.map(Option::unwrap_or_default)
        };
        match &template.target {
            TargetTemplate::Below(target) => {
                let api = self.api.as_ref().ok_or(CallError::NoCall)?;
                let path = filled(target)?;
                if path == "/" {
                    // The address of the configuration is the whole one, with its last slash or without.
                    return Ok((api.0.clone(), api.0.clone()));
                }
                let shown = target.shown(values, &is_secret);
                Ok((format!("{}{path}", api.0), format!("{}{shown}", api.0)))
            }
            TargetTemplate::At { base, rest } => {
                let name = base.slot.name();
                let found = values.value(&base.slot, 0);
                let found = found.ok_or_else(|| FillError::Missing(name.to_owned()))?;
                let url = found
                    .as_str()
                    .and_then(|text| base::checked(text, &self.hosts))
                    // Behind a query there is no path any more.
                    .filter(|url| rest.is_empty() || !url.contains('?'));
                let url = url.ok_or_else(|| CallError::ForeignHost(name.to_owned()))?;
                let shown = match is_secret(&base.slot) {
                    true => format!("{{{name}}}"),
                    false => url.clone(),
                };
                let behind = rest.shown(values, &is_secret);
                Ok((
                    format!("{url}{}", filled(rest)?),
                    format!("{shown}{behind}"),
                ))
            }
        }
    }

    fn headers(
        &self,
        template: &CallTemplate,
        values: &CallValues<'_>,
        body: &Bytes,
    ) -> Result<HeaderMap, CallError> {
        let mut headers = HeaderMap::new();
        let kind = match &template.body {
            ChannelBody::Empty => None,
            ChannelBody::Json(_) => Some("application/json"),
            ChannelBody::Form(_) => Some("application/x-www-form-urlencoded"),
        };
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        for (name, text) in &template.headers {
            if let Some(text) = text.fill(values, 0, FillEncoding::Header)? {
                let value = sensitive(&text);
                let unfit = || FillError::Unfit(name.as_str().to_owned());
                headers.insert(name, value.ok_or_else(unfit)?);
            }
        }
        let is_below_api = matches!(template.target, TargetTemplate::Below(_));
        let secrets = &values.context.secrets;
        if is_below_api && !headers.contains_key(AUTHORIZATION) {
            let text = match self.auth {
                ReplyAuth::None | ReplyAuth::Token | ReplyAuth::StandardWebhooks => None,
                ReplyAuth::Basic => {
                    let (name, password) = secrets.basic.ok_or(CallError::Secret("password"))?;
                    let pair = BASE64_STANDARD.encode(format!("{name}:{password}"));
                    Some(format!("Basic {pair}"))
                }
                ReplyAuth::Bearer
                | ReplyAuth::OauthClient
                | ReplyAuth::GoogleServiceAccount
                | ReplyAuth::GithubApp => {
                    let token = secrets.token.ok_or(CallError::Secret("token"))?;
                    Some(format!("Bearer {token}"))
                }
            };
            if let Some(text) = text {
                let value = sensitive(&text).ok_or(CallError::Secret("token"))?;
                headers.insert(AUTHORIZATION, value);
            }
        }
        if self.auth == ReplyAuth::StandardWebhooks {
            let key = secrets.signing_key.ok_or(CallError::Secret("key"))?;
            let id = values.message.key.unwrap_or_default();
            signature::sign(&mut headers, key, id, values.context.now, body)?;
        }
        Ok(headers)
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn append_query(
    url: &mut String,
    template: &CallTemplate,
    values: &CallValues<'_>,
) -> Result<(), FillError> {
    if template.query.is_empty() {
        return Ok(());
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, text) in &template.query {
        if let Some(text) = text.fill(values, 0, FillEncoding::Whole)? {
            query.append_pair(name, &text);
        }
    }
    let query = query.finish();
    if !query.is_empty() {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(&query);
    }
    Ok(())
}

fn body(template: &CallTemplate, values: &CallValues<'_>) -> Result<Bytes, FillError> {
    match &template.body {
        ChannelBody::Empty => Ok(Bytes::new()),
        ChannelBody::Json(body) => {
            let filled = body.fill(values, 0)?;
            let filled = filled.unwrap_or_else(|| Value::Object(Map::new()));
            Ok(Bytes::from(filled.to_string()))
        }
        ChannelBody::Form(fields) => {
            let mut form = form_urlencoded::Serializer::new(String::new());
            for (name, text) in fields {
                if let Some(text) = text.fill(values, 0, FillEncoding::Whole)? {
                    form.append_pair(name, &text);
                }
            }
            Ok(Bytes::from(form.finish()))
        }
    }
}

/// Values of one call by their names.
pub(crate) struct CallValues<'c> {
    /// Name of the address by which an answer refers to the message.
    pub(crate) quote: Option<&'c str>,
    pub(crate) context: &'c CallContext<'c>,
    pub(crate) message: CallMessage<'c>,
}

impl Values for CallValues<'_> {
    fn value(&self, slot: &Slot, part: usize) -> Option<Value> {
        let (context, message) = (self.context, &self.message);
        let of_part = || message.parts.get(part);
        let text = |text: &str| Some(Value::String(text.to_owned()));
        match slot {
            Slot::Text => text(&of_part()?.text),
            Slot::Plain => text(&of_part()?.plain),
            Slot::Markup => text(of_part()?.markup.as_ref()?),
            Slot::Html => text(of_part()?.html.as_ref()?),
            Slot::Entities => {
                let entities = &of_part()?.entities;
                (!entities.is_empty()).then(|| Value::Array(entities.clone()))
            }
            Slot::Texts => {
                let texts = message.parts.iter().map(|part| part.text.clone());
                Some(Value::Array(texts.map(Value::String).collect()))
            }
            Slot::Part => Some(Value::from(message.first + part + 1)),
            Slot::Parts => Some(Value::from(message.total)),
            Slot::Key(None) => text(&message.key?.to_string()),
            Slot::Key(Some(count)) => {
                // Hex digits without dashes: 25 of them are 100 bits.
                let digits = message.key?.simple().to_string();
                text(digits.get(..*count)?)
            }
            Slot::Since(form) => Some(form.of(message.since?)),
            Slot::Sent => message.sent.cloned(),
            Slot::Token => text(context.secrets.token?),
            Slot::Status => text(context.status),
            Slot::EventId => text(context.event_id),
            Slot::Now => text(&context.now.to_string()),
            Slot::Named(name) if context.without.contains(name) => None,
            Slot::Named(name) if !message.quotes && self.quote == Some(name) => None,
            Slot::Named(name) => context.address.get(name).cloned().or_else(|| {
                let mut values = context.values.iter();
                let (_, value) = values.find(|(known, _)| known == name)?;
                text(value)
            }),
        }
    }

    fn parts(&self) -> usize {
        self.message.parts.len()
    }
}
