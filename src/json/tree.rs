//! A JSON text as a tree of values, whole or only the wanted members.
//!
//! Numbers keep their spelling. Of two equal keys in one object the last one counts.

use serde_json::{Map, Number, Value};

use super::scan::{JsonFault, Scan};

/// Reads a JSON text as a tree.
pub fn tree(text: &str) -> Result<Value, JsonFault> {
    let mut scan = Scan::new(text);
    let value = scan.tree()?;
    scan.end()?;
    Ok(value)
}

/// The part of a tree that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Projection {
    /// The whole value.
    All,
    /// These members of an object, each with its wanted part. A list is read as an empty list.
    Members(Vec<(String, Projection)>),
}

impl Projection {
    /// No member at all.
    pub const NOTHING: Self = Self::Members(Vec::new());

    /// Adds the value that these keys lead to, each key one level below the key before.
    pub fn add(&mut self, mut keys: std::str::Split<'_, char>) {
        let Self::Members(members) = self else { return };
        let Some(key) = keys.next() else {
            *self = Self::All;
            return;
        };
        match members.iter_mut().find(|(known, _)| known == key) {
            Some((_, below)) => below.add(keys),
            None => {
                let mut below = Self::NOTHING;
                below.add(keys);
                members.push((key.to_owned(), below));
            }
        }
    }
}

/// Reads the wanted part of a JSON text as a tree. The rest is checked all the same.
pub fn part(text: &str, wanted: &Projection) -> Result<Value, JsonFault> {
    let mut scan = Scan::new(text);
    let value = scan.part(wanted)?;
    scan.end()?;
    Ok(value)
}

impl Scan<'_> {
    fn tree(&mut self) -> Result<Value, JsonFault> {
        let first = self.begin()?;
        let start = self.at();
        Ok(match first {
            b'{' => {
                let mut map = Map::new();
                self.members(|scan, key| {
                    let value = scan.tree()?;
                    map.insert(key.text().into_owned(), value);
                    Ok(())
                })?;
                Value::Object(map)
            }
            b'[' => {
                let mut list = Vec::new();
                self.items(|scan, _| {
                    list.push(scan.tree()?);
                    Ok(())
                })?;
                Value::Array(list)
            }
            b'"' => Value::String(self.string()?.text().into_owned()),
            other => {
                self.scalar(other)?;
                match other {
                    b't' => Value::Bool(true),
                    b'f' => Value::Bool(false),
                    b'n' => Value::Null,
                    _ => Value::Number(Number::from_string_unchecked(self.since(start).to_owned())),
                }
            }
        })
    }

    fn part(&mut self, wanted: &Projection) -> Result<Value, JsonFault> {
        let Projection::Members(members) = wanted else {
            return self.tree();
        };
        self.blanks();
        match self.next() {
            Some(b'{') => {
                self.begin()?;
                let mut map = Map::new();
                self.members(|scan, key| {
                    let key = key.text();
                    match members.iter().find(|(name, _)| *name == key) {
                        Some((name, below)) => drop(map.insert(name.clone(), scan.part(below)?)),
                        None => scan.skip()?,
                    }
                    Ok(())
                })?;
                Ok(Value::Object(map))
            }
            Some(b'[') => {
                self.skip()?;
                Ok(Value::Array(Vec::new()))
            }
            _ => self.tree(),
        }
    }
}
