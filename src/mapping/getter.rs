//! Selection from a task object: the object with its result parsed in place, or the value at one path.
//!
//! Works on the text, so that every other byte stays the same and numbers keep their digits. The output is always JSON.

use std::borrow::Cow;
use std::ops::Range;

use crate::json::{self, Dotted};

/// The member of a task object that holds the agent's answer as text.
const RESULT: &str = "result";

/// A path into a task object, compiled: `result.summary`, `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Getter {
    whole: Dotted,
    /// The rest of a path that goes into the result.
    inner: Option<Dotted>,
}

impl Getter {
    /// Parses a dotted path. The error says why the path is invalid.
    ///
    /// ```
    /// use sluicegate::mapping::getter::{Getter, shape};
    ///
    /// let getter = Getter::parse("result.summary")?;
    /// let task = br#"{"id":"t1","result":"{\"summary\":\"all is well\",\"cost\":1.50}"}"#;
    /// assert_eq!(shape(task, Some(&getter), false), br#""all is well""#);
    /// assert!(Getter::parse("result..summary").is_err());
    /// # Ok::<(), &'static str>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let whole = Dotted::parse(text)?;
        let inner = text
            .strip_prefix(RESULT)
            .and_then(|rest| rest.strip_prefix('.'));
        Ok(Self {
            whole,
            inner: inner.map(Dotted::parse).transpose()?,
        })
    }
}

/// True if an upstream's answer is a task object.
pub fn is_task(answer: &[u8]) -> bool {
    let text = std::str::from_utf8(answer).unwrap_or_default();
    text.trim_ascii_start().starts_with('{') && json::extract(text, &[]).is_ok()
}

/// Returns the task object with its result parsed in place (`json`), or the value at a path (`getter`); null if the path
/// leads nowhere. A path into a result that contains JSON as text leads into that JSON, with or without `json`. An answer
/// that is not a JSON object is returned unchanged.
pub fn shape(task: &[u8], getter: Option<&Getter>, json: bool) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(task) else {
        return task.to_vec();
    };
    match getter {
        Some(getter) => get(text, getter, json).as_bytes().to_vec(),
        None if json => parsed_in_place(text).unwrap_or_else(|| task.to_vec()),
        None => task.to_vec(),
    }
}

fn get<'t>(text: &'t str, getter: &Getter, json: bool) -> Cow<'t, str> {
    let null = Cow::Borrowed("null");
    let Ok(found) = json::extract(text, &[getter.whole.clone(), Dotted::of_key(RESULT)]) else {
        return null;
    };
    let [whole, result] = found.as_slice() else {
        return null;
    };
    let inner = || inner_json(&text[result.clone()?]);
    match (whole, &getter.inner) {
        (Some(whole), _) if json && Some(whole) == result.as_ref() => {
            inner().map_or(Cow::Borrowed(&text[whole.clone()]), Cow::Owned)
        }
        (Some(whole), _) => Cow::Borrowed(&text[whole.clone()]),
        (None, Some(rest)) => inner()
            .and_then(|inner| piece(&inner, rest))
            .map_or(null, Cow::Owned),
        (None, None) => null,
    }
}

fn piece(text: &str, path: &Dotted) -> Option<String> {
    let found = json::extract(text, std::slice::from_ref(path)).ok()?;
    let range: Range<usize> = found.into_iter().next()??;
    Some(text[range].to_owned())
}

/// The JSON that a JSON string holds.
fn inner_json(raw: &str) -> Option<String> {
    let text = json::string(raw)?;
    json::extract(&text, &[]).ok()?;
    Some(text.trim().to_owned())
}

fn parsed_in_place(text: &str) -> Option<Vec<u8>> {
    let found = json::extract(text, &[Dotted::of_key(RESULT)]).ok()?;
    let range = found.into_iter().next()??;
    let inner = inner_json(&text[range.clone()])?;
    Some(
        [&text[..range.start], &inner, &text[range.end..]]
            .concat()
            .into_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = r#"{"id": "t", "status":"completed", "n": 12345678901234567890,
        "result": "{\"summary\": \"up 15%\", \"list\": [1.50, 2]}"}"#;

    fn shaped(task: &str, getter: Option<&str>, json: bool) -> String {
        let getter = getter.map(|path| Getter::parse(path).unwrap());
        String::from_utf8(shape(task.as_bytes(), getter.as_ref(), json)).unwrap()
    }

    #[test]
    fn a_getter_is_the_value_alone_and_leads_into_a_result_that_is_json() {
        for json in [false, true] {
            for (path, wanted) in [
                ("status", "\"completed\""),
                ("n", "12345678901234567890"),
                ("result.summary", "\"up 15%\""),
                ("result.list.0", "1.50"),
                ("result.list", "[1.50, 2]"),
                ("result.nothing", "null"),
                ("nothing", "null"),
                ("status.x", "null"),
            ] {
                assert_eq!(shaped(TASK, Some(path), json), wanted, "{path}");
            }
        }
        assert_eq!(
            shaped(TASK, Some("result"), false),
            r#""{\"summary\": \"up 15%\", \"list\": [1.50, 2]}""#
        );
        assert_eq!(
            shaped(TASK, Some("result"), true),
            r#"{"summary": "up 15%", "list": [1.50, 2]}"#
        );
        let object = r#"{"result":{"a":1}}"#;
        assert_eq!(
            shaped(object, Some("result.a"), false),
            "1",
            "an object needs no parsing"
        );
    }

    #[test]
    fn json_parses_the_result_in_place_and_leaves_the_rest_alone() {
        let wanted = TASK.replace(
            r#""{\"summary\": \"up 15%\", \"list\": [1.50, 2]}""#,
            r#"{"summary": "up 15%", "list": [1.50, 2]}"#,
        );
        assert_eq!(shaped(TASK, None, true), wanted);
        assert_eq!(shaped(TASK, None, false), TASK);
        for plain in [
            r#"{"result":"plain"}"#,
            r#"{"result":null}"#,
            r#"{"result":""}"#,
            r#"{"id":1}"#,
        ] {
            assert_eq!(shaped(plain, None, true), plain);
        }
    }

    #[test]
    fn only_a_json_object_is_a_task() {
        assert!(is_task(TASK.as_bytes()) && is_task(b" {}"));
        for wrong in ["", "[]", "\"x\"", "{\"id\":", "<html>", "null"] {
            assert!(!is_task(wrong.as_bytes()), "{wrong}");
        }
        assert!(!is_task(b"\xff"));
    }

    #[test]
    fn what_is_no_task_does_no_harm() {
        for odd in ["", "[]", "{", "\u{1}", "nan"] {
            assert_eq!(shaped(odd, None, true), odd);
            assert_eq!(shaped(odd, Some("a"), true), "null");
        }
        assert_eq!(shape(b"\xff", None, true), b"\xff");
        for wrong in ["", "a.", "result.", "result..a"] {
            assert!(Getter::parse(wrong).is_err(), "{wrong}");
        }
    }
}
