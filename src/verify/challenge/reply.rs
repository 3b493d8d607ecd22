//! Reply to a challenge: status, type, body and headers, made from templates.
//!
//! A reply reflects the text of an unknown caller. So it is small, plain text or JSON, and marked `nosniff`.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value as JsonValue};

use super::ChallengeResponse;
use crate::config::{Located, Node, Section, Value as Toml};
use crate::verify::template::ContentTemplate;
use crate::verify::template::parse::TemplateSetup;
use crate::verify::template::render::Context;

/// Largest answer in bytes.
const MOST_BYTES: usize = 1024;

/// Type of a body that is plain text.
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

/// A reply, compiled.
#[derive(Debug)]
pub(super) struct Reply {
    status: u16,
    content_type: &'static str,
    body: ReplyBody,
    headers: Vec<(HeaderName, ContentTemplate)>,
}

#[derive(Debug)]
enum ReplyBody {
    Empty,
    Text(ContentTemplate),
    Json(JsonTemplate),
}

/// A JSON value whose texts are templates.
#[derive(Debug)]
enum JsonTemplate {
    Text(ContentTemplate),
    Other(JsonValue),
    List(Vec<JsonTemplate>),
    Object(Vec<(String, JsonTemplate)>),
}

impl Reply {
    /// Reads the table `reply`.
    pub(super) fn read(section: &Section<'_>, setup: &TemplateSetup<'_>) -> Option<Self> {
        let problems = section.problems();
        let status = section.integer("status").map_or(Some(200), |status| {
            let good = u16::try_from(status.value)
                .ok()
                .filter(|code| (200..300).contains(code));
            if good.is_none() {
                problems.error(
                    &status.place,
                    format!("{} must be from 200 to 299", section.path("status")),
                );
            }
            good
        });
        let text = section.text("text");
        let json = section.node("json");
        let kind = section.one_of(
            "type",
            &[
                ("text/plain", PLAIN),
                ("application/json", "application/json"),
            ],
        );
        let body = match (&text, json) {
            (Some(_), Some(node)) => {
                problems.error(
                    &node.place,
                    format!("{} has both text and json", section.name()),
                );
                None
            }
            (Some(text), None) => ContentTemplate::compile(text, setup).map(ReplyBody::Text),
            (None, Some(node)) => JsonTemplate::read(node, setup).map(ReplyBody::Json),
            (None, None) => Some(ReplyBody::Empty),
        };
        let mut headers = Some(Vec::new());
        for (name, value) in section.text_table("headers").unwrap_or_default() {
            let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
            if parsed.is_none() {
                problems.error(&name.place, "invalid header name");
            }
            headers = headers
                .zip(parsed.zip(ContentTemplate::compile(&value, setup)))
                .map(|(mut all, header)| {
                    all.push(header);
                    all
                });
        }
        let default = if json.is_some() {
            "application/json"
        } else {
            PLAIN
        };
        Some(Self {
            status: status?,
            content_type: kind.map_or(default, |kind| kind.value),
            body: body?,
            headers: headers?,
        })
    }

    /// All templates of the reply.
    pub(super) fn templates(&self) -> Vec<&ContentTemplate> {
        let mut all: Vec<&ContentTemplate> =
            self.headers.iter().map(|(_, template)| template).collect();
        match &self.body {
            ReplyBody::Empty => {}
            ReplyBody::Text(template) => all.push(template),
            ReplyBody::Json(shape) => shape.collect(&mut all),
        }
        all
    }

    /// Makes the answer.
    pub(super) fn render(&self, context: &Context<'_, '_>) -> Result<ChallengeResponse, String> {
        let body = match &self.body {
            ReplyBody::Empty => Vec::new(),
            ReplyBody::Text(template) => template.bytes(context)?,
            ReplyBody::Json(shape) => shape.render(context)?.to_string().into_bytes(),
        };
        if body.len() > MOST_BYTES {
            return Err(format!(
                "the answer to the challenge would be larger than {MOST_BYTES} bytes"
            ));
        }
        let mut headers = vec![("x-content-type-options".to_owned(), "nosniff".to_owned())];
        for (name, template) in &self.headers {
            let value = template.bytes(context)?;
            let value = HeaderValue::from_bytes(&value)
                .ok()
                .filter(|value| value.len() <= MOST_BYTES);
            match value.as_ref().and_then(|value| value.to_str().ok()) {
                Some(value) => headers.push((name.as_str().to_owned(), value.to_owned())),
                None => {
                    return Err(format!(
                        "the challenge cannot be answered in the header {name}"
                    ));
                }
            }
        }
        Ok(ChallengeResponse {
            status: self.status,
            content_type: self.content_type.to_owned(),
            headers,
            body: Bytes::from(body),
        })
    }
}

impl JsonTemplate {
    fn read(node: &Node, setup: &TemplateSetup<'_>) -> Option<Self> {
        Some(match &node.value {
            Toml::Text(text) => Self::Text(ContentTemplate::compile(
                &Located {
                    value: text.clone(),
                    place: node.place.clone(),
                },
                setup,
            )?),
            Toml::Integer(number) => Self::Other((*number).into()),
            Toml::Float(number) => Self::Other((*number).into()),
            Toml::Bool(yes) => Self::Other((*yes).into()),
            Toml::Time(text) => Self::Other(text.clone().into()),
            Toml::List(items) => Self::List(
                items
                    .iter()
                    .map(|item| Self::read(item, setup))
                    .collect::<Option<_>>()?,
            ),
            Toml::Table(table) => Self::Object(
                table
                    .entries
                    .iter()
                    .map(|(key, _, node)| Some((key.clone(), Self::read(node, setup)?)))
                    .collect::<Option<_>>()?,
            ),
        })
    }

    fn collect<'s>(&'s self, into: &mut Vec<&'s ContentTemplate>) {
        match self {
            Self::Text(template) => into.push(template),
            Self::Other(_) => {}
            Self::List(items) => items.iter().for_each(|item| item.collect(into)),
            Self::Object(entries) => entries.iter().for_each(|(_, item)| item.collect(into)),
        }
    }

    fn render(&self, context: &Context<'_, '_>) -> Result<JsonValue, String> {
        Ok(match self {
            Self::Text(template) => {
                let text = String::from_utf8(template.bytes(context)?);
                JsonValue::String(text.map_err(|_| "the challenge is not text".to_owned())?)
            }
            Self::Other(value) => value.clone(),
            Self::List(items) => JsonValue::Array(
                items
                    .iter()
                    .map(|item| item.render(context))
                    .collect::<Result<_, _>>()?,
            ),
            Self::Object(entries) => {
                let mut object = Map::new();
                for (key, shape) in entries {
                    object.insert(key.clone(), shape.render(context)?);
                }
                JsonValue::Object(object)
            }
        })
    }
}
