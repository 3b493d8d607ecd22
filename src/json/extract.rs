//! Pieces of a JSON text at dotted paths, found in one pass over the text.
//!
//! Nothing is allocated for what no path leads to; everything that is passed over is checked all the same.

use std::ops::Range;

use super::dotted::Dotted;
use super::scan::{JsonFault, Scan};

/// Byte ranges of the pieces, one for each path; nothing for a path that leads nowhere.
pub type PieceRanges = Vec<Option<Range<usize>>>;

/// Checks a JSON text and finds the piece at each path.
pub fn extract(text: &str, paths: &[Dotted]) -> Result<PieceRanges, JsonFault> {
    extract_noting(text, paths).map(|(found, _)| found)
}

/// Does the same as [`extract`]. The flag is true if the text has an escape of half a surrogate pair.
pub fn extract_noting(text: &str, paths: &[Dotted]) -> Result<(PieceRanges, bool), JsonFault> {
    let mut scan = Scan::new(text);
    let wants: Vec<PathCursor> = (0..paths.len())
        .map(|path| PathCursor { path, at: 0 })
        .collect();
    let mut found = vec![None; paths.len()];
    scan.walk(paths, &wants, &mut found)?;
    scan.end()?;
    Ok((found, scan.has_halves()))
}

/// A path, and the number of its segments that were followed so far.
#[derive(Clone, Copy)]
struct PathCursor {
    path: usize,
    at: usize,
}

/// Place in an object where a path may go on. Of several places for one path the one with the longest key wins.
struct MemberSlot {
    want: usize,
    to: usize,
    found: Option<Range<usize>>,
}

impl Scan<'_> {
    /// Follows the paths into the next value. `found` has a place for each of them.
    fn walk(
        &mut self,
        paths: &[Dotted],
        wants: &[PathCursor],
        found: &mut [Option<Range<usize>>],
    ) -> Result<(), JsonFault> {
        if wants.is_empty() {
            return self.skip();
        }
        let first = self.begin()?;
        let start = self.at();
        match first {
            b'{' => self.walk_members(paths, wants, found)?,
            b'[' => self.walk_items(paths, wants, found)?,
            other => self.scalar(other)?,
        }
        for (want, found) in wants.iter().zip(found) {
            if want.at == paths[want.path].segments() {
                *found = Some(start..self.at());
            }
        }
        Ok(())
    }

    /// Follows the paths into the members of the object under the cursor.
    fn walk_members(
        &mut self,
        paths: &[Dotted],
        wants: &[PathCursor],
        found: &mut [Option<Range<usize>>],
    ) -> Result<(), JsonFault> {
        let mut next = Vec::new();
        let mut slots: Vec<MemberSlot> = Vec::new();
        self.members(|scan, key| {
            next.clear();
            let key = key.text();
            // The slots that this key fills, one for each path that goes on here.
            let mut into = Vec::new();
            for (index, want) in wants.iter().enumerate() {
                if let Some(to) = paths[want.path].key(want.at, &key) {
                    next.push(PathCursor {
                        path: want.path,
                        at: to,
                    });
                    let known = slots
                        .iter()
                        .position(|slot| (slot.want, slot.to) == (index, to));
                    into.push(known.unwrap_or_else(|| {
                        slots.push(MemberSlot {
                            want: index,
                            to,
                            found: None,
                        });
                        slots.len() - 1
                    }));
                }
            }
            if next.is_empty() {
                return scan.skip();
            }
            let mut inner = vec![None; next.len()];
            scan.walk(paths, &next, &mut inner)?;
            for (slot, found) in into.into_iter().zip(inner) {
                slots[slot].found = found;
            }
            Ok(())
        })?;
        slots.sort_by_key(|slot| slot.to);
        for slot in slots {
            if slot.found.is_some() {
                found[slot.want] = slot.found;
            }
        }
        Ok(())
    }

    /// Follows the paths into the items of the array under the cursor.
    fn walk_items(
        &mut self,
        paths: &[Dotted],
        wants: &[PathCursor],
        found: &mut [Option<Range<usize>>],
    ) -> Result<(), JsonFault> {
        let mut next = Vec::new();
        self.items(|scan, position| {
            next.clear();
            let mut into = Vec::new();
            for (index, want) in wants.iter().enumerate() {
                if paths[want.path].index(want.at) == Some(position) {
                    next.push(PathCursor {
                        path: want.path,
                        at: want.at + 1,
                    });
                    into.push(index);
                }
            }
            if next.is_empty() {
                return scan.skip();
            }
            let mut inner = vec![None; next.len()];
            scan.walk(paths, &next, &mut inner)?;
            for (index, piece) in into.into_iter().zip(inner) {
                found[index] = piece;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{is_valid, tree};
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn at(text: &str, path: &str) -> Option<String> {
        let found = extract(text, &[Dotted::parse(path).unwrap()]).unwrap();
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
            let found = extract(&text, &dotted).unwrap();
            for (path, found) in paths.iter().zip(found) {
                let segments: Vec<&str> = path.split('.').collect();
                let piece = found.map(|range| serde_json::from_str::<Value>(&text[range]).unwrap());
                prop_assert_eq!(piece.as_ref(), follow(&value, &segments), "{}", path);
            }
            prop_assert_eq!(tree(&text).unwrap(), value);
        }

        #[test]
        fn what_is_json_is_judged_as_by_the_library(text in "[\\[\\]{}:,\"a01.eE+\\-tru nul\\\\d8]{0,24}") {
            // A reader that keeps nothing does not ask for whole surrogate pairs.
            let theirs = is_valid(&text);
            prop_assert_eq!(tree(&text).is_ok(), theirs, "{}", text);
            prop_assert_eq!(extract(&text, &[Dotted::parse("a").unwrap()]).is_ok(), theirs, "{}", text);
        }
    }

    #[test]
    fn keys_that_the_library_keeps_for_itself_are_keys() {
        let text = r#"{"$serde_json::private::Number":"x","$serde_json::private::RawValue":"{"}"#;
        assert_eq!(tree(text).unwrap().as_object().unwrap().len(), 2);
    }
}
