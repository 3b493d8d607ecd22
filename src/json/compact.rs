//! JSON in its shortest layout.

use super::is_valid;

/// Removes blanks between values and escapes that are not needed; returns nothing for a text that is not JSON.
///
/// Works on the text, because a tree of values would spell some numbers in another way.
pub fn compact(text: &str) -> Option<String> {
    if !is_valid(text) {
        return None;
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(text.len());
    // The bytes from `copied` to `at` are copied as they are.
    let (mut copied, mut at) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let (end, has_escapes) = end_of_string(bytes, at)?;
                // A string with half a character in it cannot be written anew and stays as it is.
                if has_escapes && let Ok(plain) = serde_json::from_str::<String>(text.get(at..end)?)
                {
                    out.extend_from_slice(&bytes[copied..at]);
                    serde_json::to_writer(&mut out, &plain).ok()?;
                    copied = end;
                }
                at = end;
            }
            b' ' | b'\t' | b'\n' | b'\r' => {
                out.extend_from_slice(&bytes[copied..at]);
                at += 1;
                copied = at;
            }
            _ => at += 1,
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    String::from_utf8(out).ok()
}

/// The end of the JSON string that begins at `start`, and a flag that is true if the string has escapes.
fn end_of_string(bytes: &[u8], start: usize) -> Option<(usize, bool)> {
    let (mut at, mut has_escapes) = (start + 1, false);
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some((at + 1, has_escapes));
        }
        has_escapes = true;
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    #[test]
    fn compact_json_says_what_it_said() {
        for (json, wanted) in [
            (
                r#" { "a\\" : "b \" c" , "d" : [ 1E5 , -0 , 1.50 ] } "#,
                r#"{"a\\":"b \" c","d":[1E5,-0,1.50]}"#,
            ),
            (r#"{"k":1, "k":2}"#, r#"{"k":1,"k":2}"#),
            (
                r#"["\u00e9\/\n\u0000", "\ud800"]"#,
                r#"["é/\n\u0000","\ud800"]"#,
            ),
            (r#""""#, r#""""#),
        ] {
            assert_eq!(compact(json).as_deref(), Some(wanted));
        }
        for no_json in ["", "{", "{} x", "\"a", "nan", "'a'"] {
            assert_eq!(compact(no_json), None, "{no_json}");
        }
    }

    proptest! {
        #[test]
        fn compacting_undoes_every_layout(value in any_json()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(compact(&pretty), Some(value.to_string()));
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<String>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            Just(Value::Null)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::from(map.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }
}
