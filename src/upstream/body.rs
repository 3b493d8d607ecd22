//! The JSON body of a call: one structure for the proper API and for the hosted form, and one order of its keys.
//!
//! It stays a structure until the call is sent or sealed, so that links to files can be added at their place. Written
//! twice, it gives the same bytes. A body that was read from a sealed call is written as it was.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::user::UserDetails;
use crate::model::Tokens;

/// The value of `source` and `source_node_type`: the upstream's word for runs that a gateway begins.
const SOURCE: &str = "webhook";

/// The body of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvokeBody {
    /// The message with its files and its user.
    pub input: CallInput,
    /// The upstream's id for the run. Without one the upstream chooses it.
    pub id: Option<String>,
    /// Tokens for the agent's own tools. Their text is written as it is: numbers in it keep their digits.
    pub user_tokens: Option<Tokens>,
    /// Further fields in their order, such as those of the source's configuration.
    pub fields: Vec<(Cow<'static, str>, Value)>,
    /// The text that is added to the agent's system prompt.
    pub additional_context: Option<String>,
}

/// The `input` of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallInput {
    /// Links to the files that go with the message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// The message.
    pub text: String,
    /// The user who wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserDetails>,
}

impl InvokeBody {
    /// A body with a message, an id and nothing else.
    pub fn new(text: impl Into<String>, id: Option<String>) -> Self {
        Self {
            input: CallInput {
                files: Vec::new(),
                text: text.into(),
                user: None,
            },
            id,
            user_tokens: None,
            fields: Vec::new(),
            additional_context: None,
        }
    }

    /// The same body with links to files before everything else in `input`.
    #[must_use]
    pub fn with_files(mut self, links: &[String]) -> Self {
        self.input.files = links.to_vec();
        self
    }

    /// The bytes that are sent.
    pub fn to_json(&self) -> Bytes {
        // The message is most of a body, and may be JSON itself, whose quotation marks are escaped.
        let text = self.input.text.len();
        let mut out = Vec::with_capacity(text + text / 4 + 512);
        serde_json::to_writer(&mut out, self)
            .expect("keys are text, tokens are JSON, and memory takes whatever is written");
        out.into()
    }
}

impl Serialize for InvokeBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut body = serializer.serialize_map(None)?;
        body.serialize_entry("input", &self.input)?;
        if let Some(id) = &self.id {
            body.serialize_entry("id", id)?;
        }
        body.serialize_entry("source", SOURCE)?;
        body.serialize_entry("source_node_type", SOURCE)?;
        if let Some(tokens) = &self.user_tokens {
            let tokens: &RawValue =
                serde_json::from_str(tokens.expose()).map_err(S::Error::custom)?;
            body.serialize_entry("user_tokens", tokens)?;
        }
        for (name, value) in &self.fields {
            body.serialize_entry(name, value)?;
        }
        if let Some(context) = &self.additional_context {
            body.serialize_entry("additional_context", context)?;
        }
        body.end()
    }
}

impl<'de> Deserialize<'de> for InvokeBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BodyVisitor)
    }
}

/// Reads a body that was written by [`InvokeBody`]. A derived reader would lose the order of `fields`.
struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = InvokeBody;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body of a call")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InvokeBody, A::Error> {
        let mut input = None;
        let mut body = InvokeBody::new(String::new(), None);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "input" => input = Some(map.next_value()?),
                "id" => body.id = Some(map.next_value()?),
                "source" | "source_node_type" => drop(map.next_value::<IgnoredAny>()?),
                "user_tokens" => {
                    let tokens: Box<RawValue> = map.next_value()?;
                    body.user_tokens = Some(Tokens::new(tokens.get().to_owned()));
                }
                "additional_context" => body.additional_context = Some(map.next_value()?),
                _ => body.fields.push((name.into(), map.next_value()?)),
            }
        }
        body.input = input.ok_or_else(|| serde::de::Error::missing_field("input"))?;
        Ok(body)
    }
}
