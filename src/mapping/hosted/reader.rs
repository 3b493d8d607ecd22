//! Parameters and settings of a call, with the mistakes in them.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::body::ReadBody;
use crate::json::{self, Dotted};
use crate::mapping::document::FormFields;
use crate::mapping::explain::{MissCause, PathMiss};
use crate::mapping::value::{self, Text, says_something};
use crate::model::{Name, Origin, Param, Refusal, Setting, Tokens, is_agent_id};

/// Part of a request in which a setting stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ParamPlace {
    Query,
    Body,
}

/// Names with the paths that they are mapped from, as written, and the paths parsed.
type WrittenMapping = (Vec<(Name, String)>, Vec<Dotted>);

impl ParamPlace {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Body => "body",
        }
    }
}

/// A request while it becomes a call, with the mistakes found so far.
pub(super) struct CallReader<'a> {
    pub(super) query: &'a FormFields<'a>,
    pub(super) fields: &'a Map<String, Value>,
    pub(super) wrong: Vec<Value>,
    pub(super) settings: Vec<Setting>,
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
    pub(super) fn agent(&mut self, path: &str) -> Result<String, Refusal> {
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
    pub(super) fn mapped(
        &mut self,
        read: &ReadBody<'_>,
        notes: &mut Vec<PathMiss>,
    ) -> Result<[Option<(String, String)>; Name::ALL.len()], Refusal> {
        let mut found = [const { None }; Name::ALL.len()];
        let Some((targets, paths)) = self.mapping()? else {
            return Ok(found);
        };
        let text = match read {
            ReadBody::Fields(_, text) => &**text,
            ReadBody::Text(text) => text,
            ReadBody::Empty => "null",
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

    /// Reads `params_mapping` of the query: names with their paths as written, and the paths parsed.
    fn mapping(&mut self) -> Result<Option<WrittenMapping>, Refusal> {
        let Some(written) = self.in_query("params_mapping") else {
            return Ok(None);
        };
        let Ok(Value::Object(mapping)) = json::tree(written) else {
            return Err(Refusal::Malformed(
                "params_mapping is not a JSON object".into(),
            ));
        };
        let (mut targets, mut paths) = (Vec::new(), Vec::new());
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
        Ok(Some((targets, paths)))
    }

    /// Takes the strongest value of a parameter.
    pub(super) fn param(
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

    pub(super) fn flag(&mut self, name: &'static str) -> bool {
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

    pub(super) fn tokens(&mut self) -> Option<Tokens> {
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

    pub(super) fn getter(&mut self) -> Result<Option<String>, Refusal> {
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
