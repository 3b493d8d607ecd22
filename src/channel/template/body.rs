//! A template of a JSON body.
//!
//! A text that is exactly one value keeps the value's JSON type. An absent optional value drops its key. A table that had
//! only such values is dropped with them, so that no half object is left. A list of one item that names a value of a part
//! is repeated for each part of the call.

use serde_json::{Map, Number, Value};

use super::{FillError, Slot, SlotUse, TemplateNames, TextTemplate, Values, text::FillEncoding};
use crate::config::{Node, Place, Value as Written};

/// A compiled template of JSON.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BodyTemplate {
    /// A value without anything to fill in.
    Fixed(Value),
    /// A text with values in it, or one value.
    Text(TextTemplate),
    /// A list.
    List(Vec<Self>),
    /// A list with an item for each part of the call.
    EachPart(Box<Self>),
    /// A table.
    Table(Vec<(String, Self)>),
}

impl BodyTemplate {
    /// Compiles a value of a file. The error is a sentence and its place.
    pub(crate) fn parse(node: &Node, names: &TemplateNames<'_>) -> Result<Self, (Place, String)> {
        Ok(match &node.value {
            Written::Text(text) => {
                let place = |what| (node.place.clone(), what);
                let template = TextTemplate::parse(text, names).map_err(place)?;
                match template.as_fixed() {
                    Some(fixed) => Self::Fixed(Value::String(fixed)),
                    None => Self::Text(template),
                }
            }
            Written::Integer(number) => Self::Fixed(Value::from(*number)),
            Written::Float(number) => {
                Self::Fixed(Number::from_f64(*number).map_or(Value::Null, Value::Number))
            }
            Written::Bool(yes) => Self::Fixed(Value::Bool(*yes)),
            Written::Time(text) => Self::Fixed(Value::String(text.clone())),
            Written::List(items) => {
                let mut all = Vec::with_capacity(items.len());
                for item in items {
                    all.push(Self::parse(item, names)?);
                }
                match all.as_slice() {
                    [one] if one.slots().iter().any(|of| of.slot.is_of_part()) => {
                        Self::EachPart(Box::new(one.clone()))
                    }
                    _ => Self::List(all),
                }
            }
            Written::Table(table) => {
                let mut all = Vec::with_capacity(table.entries.len());
                for (key, _, value) in &table.entries {
                    all.push((key.clone(), Self::parse(value, names)?));
                }
                Self::Table(all)
            }
        })
    }

    /// Values that the template names.
    pub(crate) fn slots(&self) -> Vec<&SlotUse> {
        match self {
            Self::Fixed(_) => Vec::new(),
            Self::Text(text) => text.slots().collect(),
            Self::List(items) => items.iter().flat_map(Self::slots).collect(),
            Self::EachPart(item) => item.slots(),
            Self::Table(entries) => entries
                .iter()
                .flat_map(|(_, entry)| entry.slots())
                .collect(),
        }
    }

    /// True if the body has room for several parts.
    pub(crate) fn carries_several(&self) -> bool {
        match self {
            Self::EachPart(_) => true,
            Self::List(items) => items.iter().any(Self::carries_several),
            Self::Table(entries) => entries.iter().any(|(_, entry)| entry.carries_several()),
            Self::Fixed(_) | Self::Text(_) => self.slots().iter().any(|of| of.slot == Slot::Texts),
        }
    }

    /// The JSON with its values filled in; nothing where all of it was left out.
    pub(crate) fn fill(
        &self,
        values: &dyn Values,
        part: usize,
    ) -> Result<Option<Value>, FillError> {
        match self {
            Self::Fixed(value) => Ok(Some(value.clone())),
            Self::Text(text) => match text.as_slot() {
                Some(of) => match values.value(&of.slot, part) {
                    None if !of.is_optional => Err(FillError::Missing(of.slot.name().to_owned())),
                    value => Ok(value),
                },
                None => Ok(text
                    .fill(values, part, FillEncoding::Whole)?
                    .map(Value::String)),
            },
            Self::List(items) => {
                let filled = items.iter().map(|item| item.fill(values, part));
                let all: Result<Vec<_>, _> = filled.filter_map(Result::transpose).collect();
                all.map(|all| list(all, items.len()))
            }
            Self::EachPart(item) => {
                let filled = (0..values.parts()).map(|part| item.fill(values, part));
                let all: Result<Vec<_>, _> = filled.filter_map(Result::transpose).collect();
                all.map(|all| list(all, values.parts()))
            }
            Self::Table(entries) => {
                let mut map = Map::new();
                let (mut has_filled, mut has_dropped) = (false, false);
                for (key, entry) in entries {
                    match entry.fill(values, part)? {
                        Some(value) => {
                            has_filled |= !entry.slots().is_empty();
                            map.insert(key.clone(), value);
                        }
                        None => has_dropped = true,
                    }
                }
                Ok((has_filled || !has_dropped).then_some(Value::Object(map)))
            }
        }
    }
}

/// A list of what is left of so many items; nothing if all of them were left out.
fn list(left: Vec<Value>, written: usize) -> Option<Value> {
    (!left.is_empty() || written == 0).then_some(Value::Array(left))
}
