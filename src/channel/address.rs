//! The address of an answer: named values of the event, read when the event is accepted and kept as plain data.
//!
//! A value keeps its JSON type and all its digits. Values that let their holder write to the chat are kept apart and are
//! never printed.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::field::{EventFields, FieldPlace};
use super::path::text_of;
use super::pattern::TextPattern;
use crate::config::reply::{AddressCandidate, AddressConfig, ReplyConfig, TextPair};
use crate::config::{Place, Problems};

/// The longest value, in bytes. The longest that channels use, tokens of interactions, have a few hundred.
const LONGEST: usize = 4096;

/// Named values that say where an answer goes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyAddress {
    /// Values that may be shown.
    open: Map<String, Value>,
    /// Values that let their holder write to the chat.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    secret: Map<String, Value>,
}

impl fmt::Debug for ReplyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret: Vec<&String> = self.secret.keys().collect();
        f.debug_struct("ReplyAddress")
            .field("open", &self.open)
            .field("secret", &secret)
            .finish()
    }
}

impl ReplyAddress {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.open.get(name).or_else(|| self.secret.get(name))
    }

    /// The value of a name as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(text_of)
    }

    /// True if a value must not be shown.
    pub fn is_secret(&self, name: &str) -> bool {
        self.secret.contains_key(name)
    }

    /// Values that may be shown, in the order of the file.
    pub fn shown(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.open.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Replaces a value, for a chat that has moved. A name that the address does not have is not added.
    pub fn replace(&mut self, name: &str, value: Value) -> bool {
        let place = match self.secret.get_mut(name) {
            Some(place) => Some(place),
            None => self.open.get_mut(name),
        };
        let has = place.is_some();
        if let Some(place) = place {
            *place = value;
        }
        has
    }

    #[cfg(test)]
    pub(crate) fn of(open: Value, secret: Value) -> Self {
        let map = |value| match value {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        Self {
            open: map(open),
            secret: map(secret),
        }
    }
}

/// The reason why an event has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A value that must be there is missing.
    #[error("the event has no value for {0}")]
    Missing(String),
    /// A value is longer than any that a channel makes, or has control characters in it.
    #[error("the value for {0} is longer than {LONGEST} bytes or has control characters in it")]
    Unfit(String),
}

/// The compiled `to` table.
#[derive(Clone, Debug)]
pub(crate) struct AddressRule {
    names: Vec<NameRule>,
}

#[derive(Clone, Debug)]
struct NameRule {
    name: String,
    is_secret: bool,
    candidates: Vec<CandidateRule>,
}

#[derive(Clone, Debug)]
struct CandidateRule {
    value: CandidateValue,
    when: Vec<(FieldPlace, TextPattern)>,
    not: Vec<String>,
}

#[derive(Clone, Debug)]
enum CandidateValue {
    Fixed(String),
    Of(FieldPlace),
    /// The same; its absence is no error.
    OfOptional(FieldPlace),
}

impl AddressRule {
    /// Compiles the `to` table; every mistake is a problem.
    pub(crate) fn compile(written: &ReplyConfig, problems: &Problems) -> Self {
        for secret in &written.secret {
            if !written
                .to
                .iter()
                .any(|name| name.name.value == secret.value)
            {
                let what = format!("no name of the address is {:?}", secret.value);
                problems.error_hint(&secret.place, what, "secret lists names of to");
            }
        }
        let is_secret = |name: &AddressConfig| {
            let mut secret = written.secret.iter();
            secret.any(|secret| secret.value == name.name.value)
        };
        let names = written.to.iter().map(|name| NameRule {
            name: name.name.value.clone(),
            is_secret: is_secret(name),
            candidates: name
                .candidates
                .iter()
                .filter_map(|candidate| CandidateRule::compile(candidate, problems))
                .collect(),
        });
        Self {
            names: names.collect(),
        }
    }

    /// The names of the address.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| name.name.as_str())
    }

    /// True if a name is one of the secret ones.
    pub(crate) fn is_secret(&self, name: &str) -> bool {
        self.names
            .iter()
            .any(|known| known.is_secret && known.name == name)
    }

    /// Reads the address from an event.
    pub(crate) fn read(&self, event: &EventFields<'_>) -> Result<ReplyAddress, AddressError> {
        let mut address = ReplyAddress::default();
        for name in &self.names {
            let value = name.candidates.iter().find_map(|rule| rule.value(event));
            let Some(value) = value else {
                if name.is_required(event) {
                    return Err(AddressError::Missing(name.name.clone()));
                }
                continue;
            };
            let text = text_of(&value).unwrap_or_default();
            if text.len() > LONGEST || text.chars().any(char::is_control) {
                return Err(AddressError::Unfit(name.name.clone()));
            }
            let into = match name.is_secret {
                true => &mut address.secret,
                false => &mut address.open,
            };
            into.insert(name.name.clone(), value);
        }
        Ok(address)
    }
}

impl NameRule {
    /// True if the absence of every candidate is an error: one of them is not optional and its conditions are met.
    fn is_required(&self, event: &EventFields<'_>) -> bool {
        self.candidates.iter().any(|rule| {
            matches!(rule.value, CandidateValue::Of(_)) && rule.not.is_empty() && rule.is_met(event)
        })
    }
}

impl CandidateRule {
    fn compile(written: &AddressCandidate, problems: &Problems) -> Option<Self> {
        let note = |place: &Place, result: Result<_, String>| match result {
            Ok(value) => Some(value),
            Err(what) => {
                let hint = "write json:path, form:name, query:name or header:name, with a ? for what may be absent";
                problems.error_hint(place, what, hint);
                None
            }
        };
        let value = match (&written.from, &written.is) {
            (Some(from), None) => {
                let (place, optional) = note(&from.place, FieldPlace::parse(from))?;
                match optional {
                    true => CandidateValue::OfOptional(place),
                    false => CandidateValue::Of(place),
                }
            }
            (None, Some(is)) => CandidateValue::Fixed(is.value.clone()),
            // Reported where the table was read.
            _ => return None,
        };
        let condition = |(place, pattern): &TextPair| {
            let field = note(&place.place, FieldPlace::parse(place));
            let compiled = TextPattern::parse(pattern);
            let compiled = compiled.map_err(|what| problems.error(&pattern.place, what));
            Some((field?.0, compiled.ok()?))
        };
        let when: Vec<_> = written.when.iter().map(condition).collect();
        Some(Self {
            value,
            when: when.into_iter().collect::<Option<_>>()?,
            not: written.not.iter().map(|not| not.value.clone()).collect(),
        })
    }

    fn is_met(&self, event: &EventFields<'_>) -> bool {
        self.when.iter().all(|(field, pattern)| {
            let text = field.value(event).as_ref().and_then(text_of);
            pattern.fits(text.as_deref())
        })
    }

    fn value(&self, event: &EventFields<'_>) -> Option<Value> {
        if !self.is_met(event) {
            return None;
        }
        let value = match &self.value {
            CandidateValue::Fixed(text) => Value::String(text.clone()),
            CandidateValue::Of(place) | CandidateValue::OfOptional(place) => place.value(event)?,
        };
        let text = text_of(&value)?;
        (!self.not.contains(&text)).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::channel::tests::{rule, telegram};

    fn read(
        rule: &AddressRule,
        json: &str,
        form: &[(String, String)],
    ) -> Result<ReplyAddress, AddressError> {
        rule.read(&EventFields {
            json: &serde_json::from_str(json).unwrap(),
            form,
            query: &[],
            headers: &HeaderMap::new(),
        })
    }

    #[test]
    fn a_topic_counts_only_where_the_message_is_in_one() {
        let spec = telegram();
        let in_topic = r#"{"message":{"chat":{"id":-1009007199254740993123},"message_id":5,"message_thread_id":7,"is_topic_message":true}}"#;
        let address = read(&spec.address, in_topic, &[]).unwrap();
        assert_eq!(
            address.text("chat").as_deref(),
            Some("-1009007199254740993123")
        );
        assert_eq!(address.text("topic").as_deref(), Some("7"));
        let reply = in_topic.replace(r#","is_topic_message":true"#, "");
        assert_eq!(read(&spec.address, &reply, &[]).unwrap().get("topic"), None);
        let general = in_topic.replace(":7,", ":1,");
        assert_eq!(
            read(&spec.address, &general, &[]).unwrap().get("topic"),
            None
        );
        assert_eq!(
            read(&spec.address, r#"{"poll":{}}"#, &[]),
            Err(AddressError::Missing("chat".into()))
        );
    }

    #[test]
    fn a_secret_value_is_kept_and_never_printed() {
        let spec = rule(
            "to.url = 'form:response_url'\nto.secret = ['url']\nto.kind = [{ is = 'a', when = { 'form:x' = '1' } }, { is = 'b' }]",
        );
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let form = [
            pair("response_url", "https://hooks.example.com/T0KEN"),
            pair("x", "1"),
        ];
        let address = read(&spec.address, "null", &form).unwrap();
        assert!(!format!("{address:?}").contains("T0KEN"));
        assert!(address.is_secret("url") && address.text("kind").as_deref() == Some("a"));
        let kept = serde_json::to_string(&address).unwrap();
        assert_eq!(
            serde_json::from_str::<ReplyAddress>(&kept).unwrap(),
            address
        );
        let twice = [form.clone(), form].concat();
        assert!(
            read(&spec.address, "null", &twice).is_err(),
            "two values are none"
        );
    }

    #[test]
    fn values_with_control_characters_or_of_great_length_are_refused() {
        let spec = rule("to.chat = 'json:chat'");
        for bad in ["a\\nb".to_owned(), "a\\u0000".to_owned(), "x".repeat(5_000)] {
            let json = format!(r#"{{"chat":"{bad}"}}"#);
            assert_eq!(
                read(&spec.address, &json, &[]),
                Err(AddressError::Unfit("chat".into()))
            );
        }
        assert!(
            read(&spec.address, r#"{"chat":{"a":1}}"#, &[]).is_err(),
            "an object is no value"
        );
    }
}
