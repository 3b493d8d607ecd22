//! A request at the drop-in door, read as the platform's hosted webhook reads it: parameters from the query and the body,
//! a mapping that the caller sends along, and the rest of the body as context for the agent.
//!
//! Promises: pure and bounded; numbers keep their spelling and keys their order; a caller's paths are dotted paths only;
//! a parameter is not repeated in the context.

mod body;
mod reader;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use body::{ReadBody, body};
use reader::CallReader;

use super::document;
use super::explain::{PathMiss, look_around};
use super::value;
use crate::json;
use crate::model::{HostedCall, Name, Origin, Param, Params, Refusal};
use crate::text::fields;

/// A request at the drop-in door.
#[derive(Clone, Copy, Debug)]
pub struct CallRequest<'a> {
    /// The last segment of the path as it stands there; empty at `/`.
    pub path_agent: &'a str,
    /// The query, without its question mark.
    pub query: &'a str,
    /// The type that the body says it has.
    pub content_type: &'a str,
    /// The body.
    pub body: CallBody<'a>,
}

/// Body of a call, as bytes or as parts that were read before.
#[derive(Clone, Copy, Debug)]
pub enum CallBody<'a> {
    /// Its bytes.
    Whole(&'a [u8]),
    /// The text parts of a multipart body, in order.
    Parts(&'a [(String, String)]),
}

/// Settings of a call that stand beside the parameters of [`Name`].
const SETTINGS: [&str; 6] = [
    "agent_id",
    "asynchronous",
    "getter",
    "json",
    "user_tokens",
    "disable_attachment_injection",
];

/// Fields of a body that have no meaning there and are kept from the agent all the same.
const SILENT: [&str; 2] = ["x-api-key", "params_mapping"];

/// Reads a request.
pub fn read(asked: &CallRequest<'_>) -> Result<HostedCall, Refusal> {
    follow(asked, &mut Vec::new())
}

/// Reads a request and lists the paths of the caller's mapping that found no value.
pub fn explain(asked: &CallRequest<'_>) -> (Result<HostedCall, Refusal>, Vec<PathMiss>) {
    let mut notes = Vec::new();
    let read = follow(asked, &mut notes);
    if let Ok((ReadBody::Fields(_, text) | ReadBody::Text(text), _)) = body(asked)
        && let Ok(document) = json::tree(&text)
    {
        look_around(&mut notes, &document);
    }
    (read, notes)
}

fn follow(asked: &CallRequest<'_>, notes: &mut Vec<PathMiss>) -> Result<HostedCall, Refusal> {
    let (query, mut notes_of_text) =
        fields::query(asked.query).map_err(|error| document::too_many("query", error))?;
    let (read, of_body) = body(asked)?;
    notes_of_text = notes_of_text.and(&of_body);
    let nothing = Map::new();
    let fields = match &read {
        ReadBody::Fields(fields, _) => fields,
        _ => &nothing,
    };
    let mut ask = CallReader {
        query: &query,
        fields,
        wrong: Vec::new(),
        settings: Vec::new(),
    };

    let agent_id = ask.agent(asked.path_agent)?;
    let mapped = ask.mapped(&read, notes)?;
    let mut params = Vec::new();
    for (name, mapped) in Name::ALL.into_iter().zip(mapped) {
        params.extend(ask.param(name, mapped)?);
    }
    let asynchronous = ask.flag("asynchronous");
    let json = ask.flag("json");
    let disable_attachment_injection = ask.flag("disable_attachment_injection");
    let user_tokens = ask.tokens();
    let getter = ask.getter()?;

    let has_prompt = params
        .first()
        .is_some_and(|param| param.name == Name::Prompt);
    let extra = match &read {
        ReadBody::Empty => None,
        ReadBody::Text(text) if has_prompt => Some(value::cleared(text.to_string())),
        // A list is input for a machine and is passed on unchanged, like a text, which is the message itself.
        ReadBody::Text(text) => {
            let prompt = value::cleared(text.to_string());
            let prompt = Param {
                name: Name::Prompt,
                value: prompt,
                origin: Origin::Body,
                over: Vec::new(),
            };
            params.insert(0, prompt);
            None
        }
        ReadBody::Fields(fields, text) => rest(fields, text, has_prompt),
    };
    if params
        .first()
        .is_none_or(|param| param.name != Name::Prompt)
    {
        let none = Param {
            name: Name::Prompt,
            value: String::new(),
            origin: Origin::Event,
            over: Vec::new(),
        };
        params.insert(0, none);
    }
    if !ask.wrong.is_empty() {
        return Err(Refusal::Invalid(Value::from(ask.wrong).to_string()));
    }
    Ok(HostedCall {
        agent_id,
        id: None,
        params: Params::new(params).noted(notes_of_text),
        extra,
        asynchronous,
        getter,
        json,
        user_tokens,
        disable_attachment_injection,
        settings: ask.settings,
    })
}

/// Fields of the body that are not parameters, as context for the agent.
fn rest(fields: &Map<String, Value>, text: &str, has_prompt: bool) -> Option<String> {
    let is_taken = |key: &str| {
        Name::parse(key).is_some()
            || SETTINGS.contains(&key)
            || SILENT.iter().any(|silent| silent.eq_ignore_ascii_case(key))
    };
    let left: Map<String, Value> = fields
        .iter()
        .filter(|(key, _)| !is_taken(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    match left.len() {
        0 => None,
        // Nothing was taken out: the body reaches the agent byte for byte.
        all if all == fields.len() && !has_prompt => Some(text.to_owned()),
        _ => Some(Value::from(left).to_string()),
    }
}
