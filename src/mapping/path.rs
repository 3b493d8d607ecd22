//! Where a value stands in a document: a dotted path, followed while the body is read, or a JSONPath, which pays for
//! a tree when it is used.

use crate::config::{Located, Problems};

use super::jsonpath::JsonPath;

/// A dotted path: `message.chat.id`, `entry.0.changes.0.value`. A segment is an object's key or an array's index. An
/// object's key that has dots in it takes several segments at once and wins over the shorter ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dotted {
    text: String,
    /// Where each segment ends.
    ends: Vec<usize>,
}

/// The longest dotted path.
const SEGMENTS: usize = 127;

impl Dotted {
    /// Splits a path at its dots; what is wrong with it otherwise.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.split('.').any(str::is_empty) {
            return Err("a part of it is empty");
        }
        let ends: Vec<usize> = text
            .match_indices('.')
            .map(|(at, _)| at)
            .chain([text.len()])
            .collect();
        if ends.len() > SEGMENTS {
            return Err("it has more than 127 parts");
        }
        Ok(Self {
            text: text.to_owned(),
            ends,
        })
    }

    /// A key of the document itself, as it is.
    pub(super) fn of_key(key: &str) -> Self {
        Self {
            text: key.to_owned(),
            ends: vec![key.len()],
        }
    }

    /// How many segments it has.
    pub(super) const fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many segments lie behind once `key` is followed from segment `at`; none if it does not lead on.
    pub(super) fn key(&self, at: usize, key: &str) -> Option<usize> {
        let rest = self.text.get(self.start(at)?..)?;
        if !rest.starts_with(key) {
            return None;
        }
        let end = self.text.len() - rest.len() + key.len();
        self.ends[at..]
            .iter()
            .position(|stop| *stop == end)
            .map(|more| at + more + 1)
    }

    /// Segment `at` as an array's index.
    pub(super) fn index(&self, at: usize) -> Option<usize> {
        let segment = self.text.get(self.start(at)?..*self.ends.get(at)?)?;
        let plain = segment == "0"
            || (!segment.starts_with('0') && segment.bytes().all(|b| b.is_ascii_digit()));
        if plain { segment.parse().ok() } else { None }
    }

    fn start(&self, at: usize) -> Option<usize> {
        match at {
            0 => Some(0),
            _ if at >= self.ends.len() => None,
            _ => Some(self.ends[at - 1] + 1),
        }
    }
}

/// The dotted paths of a mapping, each once; they are followed together.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths(Vec<Dotted>);

impl Paths {
    /// The number under which the path's piece is found.
    pub(super) fn add(&mut self, path: Dotted) -> usize {
        self.0
            .iter()
            .position(|known| *known == path)
            .unwrap_or_else(|| {
                self.0.push(path);
                self.0.len() - 1
            })
    }

    /// All of them, in the order of their numbers.
    pub(super) fn list(&self) -> &[Dotted] {
        &self.0
    }
}

/// A path, compiled.
#[derive(Clone, Debug)]
pub(super) enum Path {
    /// By its number in [`Paths`].
    Dotted(usize),
    /// RFC 9535.
    Json(Box<JsonPath>),
}

impl Path {
    /// Compiles a path as written; what is wrong with it is a problem.
    pub(super) fn compile(
        written: &Located<String>,
        paths: &mut Paths,
        problems: &Problems,
    ) -> Option<Self> {
        let better = super::notation::better(written);
        let compiled = if written.starts_with('$') {
            JsonPath::parse(written).map(|path| Self::Json(Box::new(path)))
        } else {
            Dotted::parse(written)
                .map(|path| Self::Dotted(paths.add(path)))
                .map_err(str::to_owned)
        };
        match compiled {
            Ok(path) => {
                super::notation::doubt(written, problems);
                Some(path)
            }
            Err(what) => {
                let hint = match better {
                    Some(right) => format!("did you mean {right:?}?"),
                    None => {
                        "write a dotted path like \"message.chat.id\" or a JSONPath like \"$.items[0].id\"".to_owned()
                    }
                };
                problems.error_hint(
                    &written.place,
                    format!("{:?} is no path: {what}", written.value),
                    hint,
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan;
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn at(text: &str, path: &str) -> Option<String> {
        let found = scan::extract(text, &[Dotted::parse(path).unwrap()]).unwrap();
        found[0].clone().map(|range| text[range].to_owned())
    }

    #[test]
    fn keys_and_indexes_lead_to_a_piece_as_it_stands() {
        let text = r#" {"entry": [{"changes":[ {"value" : -1001234567890 } ]}], "0": {"a\u0062": [1, 2.50] } } "#;
        assert_eq!(
            at(text, "entry.0.changes.0.value").as_deref(),
            Some("-1001234567890")
        );
        assert_eq!(at(text, "0.ab").as_deref(), Some("[1, 2.50]"));
        for nowhere in [
            "entry.1",
            "entry.00",
            "entry.-1",
            "entry.0x",
            "0.ab.x",
            "nothing",
            "entry.0.changes.0.value.x",
        ] {
            assert_eq!(at(text, nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn a_key_with_dots_wins_and_a_dead_end_falls_back() {
        assert_eq!(at(r#"{"a":{"b":1},"a.b":2}"#, "a.b").as_deref(), Some("2"));
        assert_eq!(
            at(r#"{"a.b":{"c":2},"a":{"b":{"c":1},"b.c":3}}"#, "a.b.c").as_deref(),
            Some("2")
        );
        assert_eq!(
            at(r#"{"a.b":{},"a":{"b":{"c":1},"b.c":3}}"#, "a.b.c").as_deref(),
            Some("3")
        );
    }

    #[test]
    fn t61_the_last_of_two_equal_keys_counts() {
        assert_eq!(at(r#"{"a":{"b":1},"a":{}}"#, "a.b"), None);
        assert_eq!(
            at(r#"{"a":0,"a":{"b":1,"b":2}}"#, "a.b").as_deref(),
            Some("2")
        );
    }

    #[test]
    fn the_longest_path_is_followed_to_the_deepest_place() {
        let text = format!("{}1{}", "{\"a\":".repeat(127), "}".repeat(127));
        let path = vec!["a"; 127].join(".");
        assert_eq!(at(&text, &path).as_deref(), Some("1"));
        assert!(Dotted::parse(&format!("{path}.a")).is_err());
    }

    #[test]
    fn empty_parts_are_no_path() {
        for wrong in ["", ".", "a.", ".a", "a..b"] {
            assert!(Dotted::parse(wrong).is_err(), "{wrong}");
        }
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-zé\\\\\"\n\u{1F600}]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[abc.01]{1,3}", inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    /// What the path means, said over a tree.
    fn follow<'a>(value: &'a Value, segments: &[&str]) -> Option<&'a Value> {
        if segments.is_empty() {
            return Some(value);
        }
        match value {
            Value::Object(map) => (1..=segments.len())
                .rev()
                .find_map(|n| follow(map.get(&segments[..n].join("."))?, &segments[n..])),
            Value::Array(list) => {
                let index: usize = segments[0].parse().ok()?;
                (index.to_string() == segments[0]).then_some(())?;
                follow(list.get(index)?, &segments[1..])
            }
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn a_path_finds_what_a_tree_says(value in document(), paths in prop::collection::vec("[abc01]{1,2}(\\.[abc01]{1,2}){0,3}", 1..5)) {
            let text = serde_json::to_string_pretty(&value).unwrap();
            let dotted: Vec<Dotted> = paths.iter().map(|p| Dotted::parse(p).unwrap()).collect();
            let found = scan::extract(&text, &dotted).unwrap();
            for (path, found) in paths.iter().zip(found) {
                let segments: Vec<&str> = path.split('.').collect();
                let piece = found.map(|range| serde_json::from_str::<Value>(&text[range]).unwrap());
                prop_assert_eq!(piece.as_ref(), follow(&value, &segments), "{}", path);
            }
            prop_assert_eq!(scan::tree(&text).unwrap(), value);
        }

        #[test]
        fn what_is_json_is_judged_as_by_the_library(text in "[\\[\\]{}:,\"a01.eE+\\-tru nul\\\\d8]{0,24}") {
            // A reader that keeps nothing does not ask for whole surrogate pairs.
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(scan::tree(&text).is_ok(), theirs, "{}", text);
            prop_assert_eq!(scan::extract(&text, &[Dotted::parse("a").unwrap()]).is_ok(), theirs, "{}", text);
        }
    }

    #[test]
    fn keys_that_the_library_keeps_for_itself_are_keys() {
        let text = r#"{"$serde_json::private::Number":"x","$serde_json::private::RawValue":"{"}"#;
        assert_eq!(scan::tree(text).unwrap().as_object().unwrap().len(), 2);
    }

    #[test]
    fn t60_numbers_keep_their_digits() {
        for row in super::super::corpus::cases("edge-cases/numbers.json")
            .as_array()
            .unwrap()
        {
            let number = row["number"].as_str().unwrap();
            let text = format!("{{\"n\":{number}}}");
            assert_eq!(at(&text, "n").as_deref(), Some(number));
            assert_eq!(scan::tree(&text).unwrap().to_string(), text);
        }
        assert_eq!(scan::tree("[1E5]").unwrap().to_string(), "[1E5]");
        assert_eq!(json!({"a": 1}), scan::tree("{\"a\":1}").unwrap());
    }
}
