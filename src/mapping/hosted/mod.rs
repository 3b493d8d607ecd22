//! A request at the drop-in door, read as the platform's hosted webhook reads it: parameters from the query and the body,
//! a mapping that the caller sends along, and the rest of the body as context for the agent.
//!
//! Promises: pure and bounded; numbers keep their spelling and keys their order; a caller's paths are dotted paths only;
//! a parameter is not repeated in the context.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::document::{self, FormFields};
use super::explain::{MissCause, PathMiss, look_around};
use super::value::{self, Text, says_something};
use crate::json::{self, Dotted, JsonFault};
use crate::model::{
    HostedCall, Name, Origin, Param, Params, Refusal, Setting, TextNotes, Tokens, is_agent_id,
};
use crate::text::{self, fields};

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

/// Part of a request in which a setting stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ParamPlace {
    Query,
    Body,
}

impl ParamPlace {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Body => "body",
        }
    }
}

/// A body after it was read.
enum Read<'a> {
    Empty,
    /// Named fields; the JSON text is there for paths, and as the message where no field is taken out of it.
    Fields(Map<String, Value>, Cow<'a, str>),
    /// A list, or a text that is no JSON.
    Text(Cow<'a, str>),
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
    if let Ok((Read::Fields(_, text) | Read::Text(text), _)) = body(asked)
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
        Read::Fields(fields, _) => fields,
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
        Read::Empty => None,
        Read::Text(text) if has_prompt => Some(value::cleared(text.to_string())),
        // A list is input for a machine and is passed on unchanged, like a text, which is the message itself.
        Read::Text(text) => {
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
        Read::Fields(fields, text) => rest(fields, text, has_prompt),
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

/// Reads the body. Its content decides about its kind, before its declared type.
fn body<'a>(asked: &CallRequest<'a>) -> Result<(Read<'a>, TextNotes), Refusal> {
    let bytes = match asked.body {
        CallBody::Parts(parts) => {
            let fields: FormFields<'_> = parts
                .iter()
                .map(|(key, value)| (Cow::Borrowed(key.as_str()), Cow::Borrowed(value.as_str())))
                .collect();
            return Ok((made(&fields), TextNotes::default()));
        }
        CallBody::Whole(bytes) => bytes,
    };
    if bytes.trim_ascii().is_empty() {
        return Ok((Read::Empty, TextNotes::default()));
    }
    let essence = asked
        .content_type
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase();
    let is_json =
        matches!(essence.as_str(), "application/json" | "text/json") || essence.ends_with("+json");
    let declared = text::declared(asked.content_type);
    let read = text::json(bytes, declared.as_deref());
    if is_json || read.text.trim_ascii_start().starts_with(['{', '[']) {
        // The caller gets this answer at once, and can mend the request.
        if read.notes.replaced {
            let whole = std::str::from_utf8(bytes)
                .err()
                .map_or(0, |error| error.valid_up_to());
            return Err(Refusal::Malformed(format!(
                "the body is not UTF-8 from byte {whole} on"
            )));
        }
        let json = text::mended(read.text);
        match json::tree(&json) {
            Ok(Value::Object(fields)) => return Ok((Read::Fields(fields, json), read.notes)),
            Ok(_) => return Ok((Read::Text(json), read.notes)),
            Err(JsonFault::Syntax(_)) if !is_json => {}
            Err(fault) => return Err(document::refusal(fault)),
        }
    }
    if essence == "application/x-www-form-urlencoded" {
        let raw = fields::split(bytes).map_err(|error| document::too_many("form", error))?;
        let (fields, notes) = fields::form(raw, declared.as_deref());
        return Ok((made(&fields), notes));
    }
    let read = text::plain(bytes, declared.as_deref());
    if read.notes.replaced {
        return Err(Refusal::Unsupported(
            "the body is neither JSON nor a form nor UTF-8 text".into(),
        ));
    }
    Ok((Read::Text(read.text), read.notes))
}

/// Fields of a form as JSON.
fn made<'a>(fields: &FormFields<'_>) -> Read<'a> {
    match document::object(fields) {
        Value::Object(map) if !map.is_empty() => {
            let text = Value::from(map.clone()).to_string();
            Read::Fields(map, Cow::Owned(text))
        }
        _ => Read::Empty,
    }
}

/// A request while it becomes a call, with the mistakes found so far.
struct CallReader<'a> {
    query: &'a FormFields<'a>,
    fields: &'a Map<String, Value>,
    wrong: Vec<Value>,
    settings: Vec<Setting>,
}

impl CallReader<'_> {
    /// The last value of a name in the query, unless it is empty.
    fn in_query(&self, name: &str) -> Option<&str> {
        let found = self
            .query
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| &**value);
        found.filter(|value| !value.is_empty())
    }

    /// A field of the body, unless it is null or empty.
    fn in_body(&self, name: &str) -> Option<&Value> {
        self.fields
            .get(name)
            .filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    /// Adds a mistake in the form that callers of such an API know. The wrong value is not repeated, because it may be a
    /// secret.
    fn wrong(&mut self, loc: &[&str], kind: &str, msg: &str) {
        self.wrong
            .push(json!({ "type": kind, "loc": loc, "msg": msg }));
    }

    /// The agent: the path, then the query, then the body.
    fn agent(&mut self, path: &str) -> Result<String, Refusal> {
        let in_path = percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| Refusal::Malformed("the path does not decode to UTF-8".into()))?;
        let in_query = self.in_query("agent_id").map(str::to_owned);
        let in_body = self
            .in_body("agent_id")
            .map(|value| (!value.is_object() && !value.is_array(), text_of(value)));
        let is_wrong = matches!(in_body, Some((false, _)));
        let in_body = in_body.filter(|(plain, _)| *plain).map(|(_, text)| text);
        let in_path = Some(in_path.into_owned()).filter(|id| !id.is_empty());
        let mut found = [("path", in_path), ("query", in_query), ("body", in_body)]
            .into_iter()
            .filter_map(|(from, id)| id.map(|id| (from, id)));
        let Some((from, id)) = found.next() else {
            if is_wrong {
                self.wrong(
                    &["body", "agent_id"],
                    "string_type",
                    "Input should be a valid string",
                );
                return Err(Refusal::Invalid(
                    Value::from(std::mem::take(&mut self.wrong)).to_string(),
                ));
            }
            return Err(Refusal::NoAgent);
        };
        let over = found.map(|(from, _)| from).collect();
        self.settings.push(Setting {
            name: "agent_id",
            from,
            over,
        });
        if !is_agent_id(&id) {
            self.wrong(
                &[from, "agent_id"],
                "string_pattern_mismatch",
                "String should match pattern '^[A-Za-z0-9_-]{1,64}$'",
            );
            return Err(Refusal::Invalid(
                Value::from(std::mem::take(&mut self.wrong)).to_string(),
            ));
        }
        Ok(id)
    }

    /// Values that the caller's mapping finds, one place for each name.
    fn mapped(
        &mut self,
        read: &Read<'_>,
        notes: &mut Vec<PathMiss>,
    ) -> Result<[Option<(String, String)>; Name::ALL.len()], Refusal> {
        let mut found = [const { None }; Name::ALL.len()];
        let Some(written) = self.in_query("params_mapping") else {
            return Ok(found);
        };
        let Ok(Value::Object(mapping)) = json::tree(written) else {
            return Err(Refusal::Malformed(
                "params_mapping is not a JSON object".into(),
            ));
        };
        let (mut paths, mut targets) = (Vec::new(), Vec::new());
        for (target, path) in &mapping {
            let Some(name) = Name::parse(target) else {
                let shown: String = target.chars().take(64).collect();
                let names = Name::ALL.map(Name::as_str).join(", ");
                let msg = format!("there is no parameter {shown:?} to map to; there are {names}");
                self.wrong(&["query", "params_mapping"], "value_error", &msg);
                continue;
            };
            let parsed = match path {
                Value::String(path) => Dotted::parse(path),
                _ => Err("it is not a text"),
            };
            match parsed {
                Ok(dotted) => {
                    paths.push(dotted);
                    targets.push((name, text_of(path)));
                }
                Err(why) => {
                    let msg = format!("the path for {} is no dotted path: {why}", name.as_str());
                    self.wrong(
                        &["query", "params_mapping", name.as_str()],
                        "value_error",
                        &msg,
                    );
                }
            }
        }
        let text = match read {
            Read::Fields(_, text) => &**text,
            Read::Text(text) => text,
            Read::Empty => "null",
        };
        // A text that is not JSON has no place for a path to lead to.
        let Ok(pieces) = json::extract(text, &paths) else {
            return Ok(found);
        };
        for ((name, path), piece) in targets.into_iter().zip(pieces) {
            let raw = piece.and_then(|range| text.get(range));
            if let Some(miss) = MissCause::of(raw, name) {
                notes.push(PathMiss {
                    of: name.as_str(),
                    path: path.clone(),
                    miss,
                    near: None,
                });
            }
            let Some(raw) = raw.filter(|raw| says_something(raw)) else {
                continue;
            };
            let value = match value::text(raw) {
                Text::One(text) => text.into_owned(),
                Text::Many if name == Name::Prompt => value::compact(raw)?,
                Text::Many => {
                    let msg = format!(
                        "the path for {} leads to a list or an object",
                        name.as_str()
                    );
                    self.wrong(
                        &["query", "params_mapping", name.as_str()],
                        "string_type",
                        &msg,
                    );
                    continue;
                }
                Text::Absent => continue,
            };
            if let Some(slot) = Name::ALL.iter().position(|other| *other == name) {
                found[slot] = Some((path, value));
            }
        }
        Ok(found)
    }

    /// Takes the strongest value of a parameter.
    fn param(
        &mut self,
        name: Name,
        mapped: Option<(String, String)>,
    ) -> Result<Option<Param>, Refusal> {
        let mut all: Vec<(Origin, String)> = Vec::new();
        all.extend(mapped.map(|(path, value)| (Origin::Mapping(path), value)));
        all.extend(
            self.in_query(name.as_str())
                .map(|value| (Origin::Query, value.to_owned())),
        );
        match self.in_body(name.as_str()) {
            Some(Value::Object(_) | Value::Array(_)) if name != Name::Prompt && all.is_empty() => {
                self.wrong(
                    &["body", name.as_str()],
                    "string_type",
                    "Input should be a valid string",
                );
            }
            // A stronger value takes its place, so this one is not looked at.
            Some(Value::Object(_) | Value::Array(_)) if name != Name::Prompt => {}
            Some(value) => all.push((Origin::Body, text_of(value))),
            None => {}
        }
        let mut all = all.into_iter();
        let Some((origin, value)) = all.next() else {
            return Ok(None);
        };
        let value = value::cleared(value);
        Ok(Some(Param {
            name,
            value,
            origin,
            over: all.map(|(origin, _)| origin).collect(),
        }))
    }

    /// Takes a setting from the query, or else from the body.
    fn setting(&mut self, name: &'static str) -> Option<(ParamPlace, Value)> {
        let query = self.in_query(name).map(Value::from);
        let body = self.in_body(name).cloned();
        let over = if query.is_some() && body.is_some() {
            vec![ParamPlace::Body.as_str()]
        } else {
            Vec::new()
        };
        let found = query
            .map(|value| (ParamPlace::Query, value))
            .or(body.map(|value| (ParamPlace::Body, value)))?;
        self.settings.push(Setting {
            name,
            from: found.0.as_str(),
            over,
        });
        Some(found)
    }

    fn flag(&mut self, name: &'static str) -> bool {
        let Some((spot, value)) = self.setting(name) else {
            return false;
        };
        let read = match &value {
            Value::Bool(yes) => Some(*yes),
            Value::Number(number) if number.as_str() == "0" => Some(false),
            Value::Number(number) if number.as_str() == "1" => Some(true),
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" | "t" | "y" => Some(true),
                "false" | "0" | "no" | "off" | "f" | "n" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if read.is_none() {
            let msg = "Input should be a valid boolean, unable to interpret input";
            self.wrong(&[spot.as_str(), name], "bool_parsing", msg);
        }
        read.unwrap_or(false)
    }

    fn tokens(&mut self) -> Option<Tokens> {
        let (spot, value) = self.setting("user_tokens")?;
        let object = match value {
            Value::Object(_) => Some(value),
            Value::String(text) => json::tree(&text).ok().filter(Value::is_object),
            _ => None,
        };
        if object.is_none() {
            self.wrong(
                &[spot.as_str(), "user_tokens"],
                "dict_type",
                "Input should be a valid dictionary",
            );
        }
        object.map(|object| Tokens::new(object.to_string()))
    }

    fn getter(&mut self) -> Result<Option<String>, Refusal> {
        let Some((spot, value)) = self.setting("getter") else {
            return Ok(None);
        };
        if value.is_object() || value.is_array() {
            self.wrong(
                &[spot.as_str(), "getter"],
                "string_type",
                "Input should be a valid string",
            );
            return Ok(None);
        }
        let path = text_of(&value);
        if let Err(why) = Dotted::parse(&path) {
            let msg = format!("Input should be a dotted path: {why}");
            self.wrong(&[spot.as_str(), "getter"], "value_error", &msg);
        }
        value::without_nul(path, "getter").map(Some)
    }
}

/// A value as text: strings as they are, anything else as compact JSON.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
