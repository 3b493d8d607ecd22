//! Paths into JSON that may branch: `result.message_id`, `*.chat.id`, `posts.*`, `edits.-1`.

use serde_json::Value;

/// Most values that one search looks at. An answer of a channel or an event is far below; a made-up one ends here.
const LOOKS: usize = 20_000;

/// A compiled path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValuePath(Vec<PathStep>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum PathStep {
    /// The value of a key, or of an index of a list.
    Key(String),
    /// Every value of an object or a list, in their order.
    Each,
    /// The last value of a list.
    Last,
}

impl ValuePath {
    /// Reads a path: keys with dots between, `*` for every value, `-1` for the last of a list.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.split('.').any(str::is_empty) {
            return Err(format!("\"{}\" is no path", text.escape_debug()));
        }
        let step = |part: &str| match part {
            "*" => PathStep::Each,
            "-1" => PathStep::Last,
            key => PathStep::Key(key.to_owned()),
        };
        Ok(Self(text.split('.').map(step).collect()))
    }

    /// The first value at the path. `null` counts as absent.
    pub(crate) fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.all(value, 1).into_iter().next()
    }

    /// The values at the path, at most `most` of them.
    pub(crate) fn all<'v>(&self, value: &'v Value, most: usize) -> Vec<&'v Value> {
        let mut search = PathSearch {
            found: Vec::new(),
            most,
            looks: LOOKS,
        };
        search.walk(value, &self.0);
        search.found
    }
}

struct PathSearch<'v> {
    found: Vec<&'v Value>,
    most: usize,
    looks: usize,
}

impl<'v> PathSearch<'v> {
    fn walk(&mut self, value: &'v Value, steps: &[PathStep]) {
        if self.found.len() >= self.most || self.looks == 0 {
            return;
        }
        self.looks -= 1;
        let Some((step, rest)) = steps.split_first() else {
            if !value.is_null() {
                self.found.push(value);
            }
            return;
        };
        match (step, value) {
            (PathStep::Key(key), Value::Object(map)) => {
                if let Some(inner) = map.get(key) {
                    self.walk(inner, rest);
                }
            }
            (PathStep::Key(key), Value::Array(list)) => {
                if let Some(inner) = key.parse().ok().and_then(|at: usize| list.get(at)) {
                    self.walk(inner, rest);
                }
            }
            (PathStep::Each, Value::Object(map)) => {
                map.values().for_each(|inner| self.walk(inner, rest));
            }
            (PathStep::Each, Value::Array(list)) => {
                list.iter().for_each(|inner| self.walk(inner, rest));
            }
            (PathStep::Last, Value::Array(list)) => {
                if let Some(inner) = list.last() {
                    self.walk(inner, rest);
                }
            }
            _ => {}
        }
    }
}

/// A value as text: texts as they are, numbers with all their digits, truth values. Lists and objects have no text.
pub(crate) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, json: &str) -> Vec<String> {
        let value: Value = serde_json::from_str(json).unwrap();
        let path = ValuePath::parse(path).unwrap();
        let texts = path.all(&value, 10).into_iter();
        texts.map(ToString::to_string).collect()
    }

    #[test]
    fn a_star_is_any_key_and_minus_one_the_last_of_a_list() {
        let update = r#"{"update_id":7,"message":{"chat":{"id":-1001234567890123456789}}}"#;
        assert_eq!(found("*.chat.id", update), ["-1001234567890123456789"]);
        let list = r#"[{"a":[1,2]},{"a":[3]},{"b":null}]"#;
        assert_eq!(found("*.a.-1", list), ["2", "3"]);
        assert_eq!(found("1.a.0", list), ["3"]);
        assert!(found("*.b", list).is_empty(), "null counts as absent");
        assert!(ValuePath::parse("a..b").is_err());
    }

    #[test]
    fn a_search_of_a_hostile_document_ends() {
        let wide = format!("[{}1]", "[[],[],[],[]],".repeat(20_000));
        assert!(found("*.*.*.*.*.*", &wide).is_empty());
    }
}
