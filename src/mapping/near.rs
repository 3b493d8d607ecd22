//! Suggestions for a path that leads nowhere.

use serde_json::Value;

use crate::config::section::nearest;

/// Most places of a document that are looked at.
const MOST: usize = 10_000;

/// Finds a similar path that leads to a value of the document; nothing if no path or several paths are similar.
pub(super) fn near(document: &Value, path: &str) -> Option<String> {
    let written = plain(path);
    if written != path && leads(document, &written).is_some() {
        return Some(written);
    }
    let steps: Vec<&str> = written.split('.').collect();
    mended(document, &steps).or_else(|| elsewhere(document, steps.last()?))
}

/// The path without what other notations put around it: `$.items[0].id`, `body.items.0.id`.
fn plain(path: &str) -> String {
    let path = path.strip_prefix('$').unwrap_or(path);
    let path = path
        .replace("['", ".")
        .replace("[\"", ".")
        .replace("']", "")
        .replace("\"]", "");
    let path = path.replace('[', ".").replace(']', "");
    let path = path.trim_start_matches('.');
    path.strip_prefix("body.").unwrap_or(path).to_owned()
}

fn step<'d>(here: &'d Value, name: &str) -> Option<&'d Value> {
    match here {
        Value::Object(fields) => fields.get(name),
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

fn leads<'d>(document: &'d Value, path: &str) -> Option<&'d Value> {
    let found = path.split('.').try_fold(document, step)?;
    (!found.is_null()).then_some(found)
}

/// The path in which each step that leads nowhere is replaced by the most similar key.
fn mended(document: &Value, steps: &[&str]) -> Option<String> {
    let (mut here, mut path) = (document, Vec::new());
    for name in steps {
        // A step into a list that is not an index means the first item.
        if let (Value::Array(list), Err(_)) = (here, name.parse::<usize>()) {
            here = list.first()?;
            path.push("0".to_owned());
        }
        let like = match (step(here, name), here) {
            (Some(_), _) => (*name).to_owned(),
            (None, Value::Object(fields)) => {
                let same = fields
                    .keys()
                    .find(|key| letters(key) == letters(name))
                    .map(String::as_str);
                same.or_else(|| nearest(name, fields.keys().map(String::as_str)))?
                    .to_owned()
            }
            _ => return None,
        };
        here = step(here, &like)?;
        path.push(like);
    }
    (!here.is_null()).then(|| path.join("."))
}

/// A name without case, blanks, hyphens and underscores.
fn letters(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Path to the only key of this name in the document.
fn elsewhere(document: &Value, name: &str) -> Option<String> {
    let mut found: Option<String> = None;
    let mut left = vec![(String::new(), document)];
    let mut seen = 0;
    while let Some((path, here)) = left.pop() {
        seen += 1;
        if seen > MOST {
            return None;
        }
        let below = |key: &str| {
            if path.is_empty() {
                key.to_owned()
            } else {
                format!("{path}.{key}")
            }
        };
        match here {
            Value::Object(fields) => {
                for (key, value) in fields {
                    // A dot in a name is no step.
                    if key == name
                        && !value.is_null()
                        && !key.contains('.')
                        && found.replace(below(key)).is_some()
                    {
                        return None;
                    }
                    left.push((below(key), value));
                }
            }
            Value::Array(list) => left.extend(
                list.iter()
                    .enumerate()
                    .map(|(at, value)| (below(&at.to_string()), value)),
            ),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_that_leads_nowhere_is_compared_with_those_that_do() {
        let document = json!({
            "message": {"text": "hi", "chat": {"id": 7}, "userName": "ann"},
            "items": [{"id": 1, "sku": "a"}, {"id": 2}],
            "nothing": null,
        });
        for (path, found) in [
            ("$.message.text", Some("message.text")),
            ("body.message.text", Some("message.text")),
            ("items[0].id", Some("items.0.id")),
            ("items.id", Some("items.0.id")),
            ("message.txt", Some("message.text")),
            ("Message.Text", Some("message.text")),
            ("message.user_name", Some("message.userName")),
            ("text", Some("message.text")),
            ("event.chat", Some("message.chat")),
            ("sku", Some("items.0.sku")),
            ("id", None),
            ("nothing", None),
            ("quite.different", None),
            ("", None),
        ] {
            assert_eq!(near(&document, path).as_deref(), found, "{path}");
        }
        assert_eq!(near(&json!("a text"), "a"), None);
    }
}
