//! Places of an event that the values of an address are read from.

use http::{HeaderMap, HeaderName};
use serde_json::Value;

use super::path::{ValuePath, text_of};

/// Most values at one path of which the first text, number or truth value is taken.
const CANDIDATES: usize = 32;

/// An event as far as an address is read from it.
#[derive(Clone, Copy, Debug)]
pub struct EventFields<'e> {
    /// The JSON of the event; null where it has none.
    pub json: &'e Value,
    /// The fields of its form.
    pub form: &'e [(String, String)],
    /// The pairs of its query.
    pub query: &'e [(String, String)],
    /// Its headers.
    pub headers: &'e HeaderMap,
}

/// Place of a value in an event.
#[derive(Clone, Debug)]
pub(super) enum FieldPlace {
    Json(ValuePath),
    Form(String),
    Query(String),
    Header(HeaderName),
}

impl FieldPlace {
    /// Reads `json:a.b`, `form:name`, `query:name` or `header:name`; true if a `?` makes the value optional.
    pub(super) fn parse(text: &str) -> Result<(Self, bool), String> {
        let unfit = || format!("\"{}\" names no place in an event", text.escape_debug());
        let (kind, name) = text.split_once(':').ok_or_else(unfit)?;
        let (kind, optional) = match kind.strip_suffix('?') {
            Some(kind) => (kind, true),
            None => (kind, false),
        };
        if name.is_empty() {
            return Err(unfit());
        }
        let place = match kind {
            "json" => Self::Json(ValuePath::parse(name)?),
            "form" => Self::Form(name.to_owned()),
            "query" => Self::Query(name.to_owned()),
            "header" => Self::Header(HeaderName::try_from(name).map_err(|_| unfit())?),
            _ => return Err(unfit()),
        };
        Ok((place, optional))
    }

    /// The value, where the event has one. A field of a form that stands twice counts as absent.
    pub(super) fn value(&self, event: &EventFields<'_>) -> Option<Value> {
        let one = |pairs: &[(String, String)], name: &str| {
            let mut found = pairs.iter().filter(|(key, _)| key == name);
            let (_, value) = found.next()?;
            found.next().is_none().then(|| Value::String(value.clone()))
        };
        let value = match self {
            Self::Json(path) => {
                let mut values = path.all(event.json, CANDIDATES).into_iter();
                values.find(|value| text_of(value).is_some()).cloned()
            }
            Self::Form(name) => one(event.form, name),
            Self::Query(name) => one(event.query, name),
            Self::Header(name) => {
                let mut all = event.headers.get_all(name).iter();
                let value = all.next()?.to_str().ok()?;
                all.next()
                    .is_none()
                    .then(|| Value::String(value.to_owned()))
            }
        };
        value.filter(|value| value.as_str() != Some(""))
    }
}
