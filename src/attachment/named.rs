//! Finding the files that a payload only names.

use serde_json::Value;

use super::fetch::Fetcher;
use super::named_file::NamedFile;
use crate::config::{FetchMethod, FetchStep};
use crate::text;

/// The longest id, in bytes.
const MAX_ID: usize = 512;

/// The largest number of values of a payload that are searched for files.
const VALUES: usize = 10_000;

impl Fetcher {
    /// Finds the files that a payload names, each once, in their order; no more than `most`.
    pub fn named(&self, body: &[u8], most: usize) -> Vec<NamedFile> {
        let read = text::mended(text::json(body, None).text);
        let Ok(document) = serde_json::from_str::<Value>(&read) else {
            return Vec::new();
        };
        let mut found: Vec<NamedFile> = Vec::new();
        for path in &self.rule.each {
            for value in at_path(&document, path) {
                let Some(file) = self.file(value) else {
                    continue;
                };
                if found.len() < most && !found.iter().any(|known| known.id == file.id) {
                    found.push(file);
                }
            }
        }
        found
    }

    fn file(&self, value: &Value) -> Option<NamedFile> {
        let text = |key: &str| match value.get(key)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let of = |key: &Option<String>| key.as_deref().and_then(text);
        let address = match &self.rule.way {
            FetchMethod::Named(key) => Some(text(key)?),
            _ => None,
        };
        let id = text(&self.rule.id).filter(|id| id.len() <= MAX_ID)?;
        let size = of(&self.rule.size).and_then(|size| size.parse().ok());
        Some(NamedFile {
            id,
            name: of(&self.rule.name),
            kind: of(&self.rule.kind),
            size,
            address,
        })
    }
}

/// Finds the values at a path.
fn at_path<'v>(document: &'v Value, path: &[FetchStep]) -> Vec<&'v Value> {
    let mut here = vec![document];
    for step in path {
        let mut next = Vec::new();
        for value in here {
            match (step, value) {
                (FetchStep::Key(key), Value::Object(map)) => next.extend(map.get(key)),
                (FetchStep::Key(key), Value::Array(list)) => {
                    next.extend(key.parse::<usize>().ok().and_then(|at| list.get(at)))
                }
                (FetchStep::Each, Value::Object(map)) => next.extend(map.values()),
                (FetchStep::Each, Value::Array(list)) => next.extend(list),
                (FetchStep::Last, Value::Array(list)) => next.extend(list.last()),
                _ => {}
            }
            next.truncate(VALUES);
        }
        here = next;
    }
    here
}
