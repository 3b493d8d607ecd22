//! The upstream's task as the caller wants to see it: whole, with its result as JSON, or one value of it.
//!
//! Done on the text, so that what nobody asked about stays as the upstream wrote it.

use super::super::path::Dotted;
use super::super::scan;

/// The upstream's answer is no task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no JSON object")]
pub struct Unusable;

/// What the caller gets of a task. `getter` is a dotted path into it; a path that leads nowhere is answered `null`.
pub fn shape(task: &[u8], json: bool, getter: Option<&str>) -> Result<String, Unusable> {
    let task = std::str::from_utf8(task).map_err(|_| Unusable)?;
    let wanted = getter.and_then(|path| Dotted::parse(path).ok());
    let paths: Vec<Dotted> = [Some(Dotted::of_key("result")), wanted].into_iter().flatten().collect();
    let mut found = scan::extract(task, &paths).map_err(|_| Unusable)?.into_iter();
    if !task.trim_ascii_start().starts_with('{') {
        return Err(Unusable);
    }
    let result = found.next().flatten();
    let piece = found.next().flatten();
    // The path's own meaning comes first: a task may have what is asked for under that very name.
    if let (Some(range), false) = (&piece, json) {
        return Ok(task.get(range.clone()).unwrap_or("null").to_owned());
    }
    let into_result = getter.is_some_and(|path| path.starts_with("result."));
    let parsed = result.and_then(|range| {
        let inner = scan::string(task.get(range.clone())?)?.into_owned();
        // A text that is no JSON stays a text.
        scan::extract(&inner, &[]).ok()?;
        Some((range, inner))
    });
    let whole = match parsed {
        Some((range, inner)) if json || into_result => {
            let (before, after) = (task.get(..range.start), task.get(range.end..));
            format!("{}{}{}", before.unwrap_or(""), inner.trim(), after.unwrap_or(""))
        }
        _ => task.to_owned(),
    };
    if getter.is_none() {
        return Ok(whole);
    }
    let Some(path) = paths.get(1) else { return Ok("null".to_owned()) };
    let found = scan::extract(&whole, std::slice::from_ref(path)).unwrap_or_default();
    let piece = found.into_iter().next().flatten().and_then(|range| whole.get(range));
    Ok(piece.unwrap_or("null").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = r#"{"id":"t","n":1.50,"result":"{\"summary\":\"up 15%\",\"a\":[1e5]}","later":{"x":[null]}}"#;

    fn shaped(json: bool, getter: Option<&str>) -> String {
        shape(TASK.as_bytes(), json, getter).unwrap()
    }

    #[test]
    fn a_task_passes_as_it_is_or_with_its_result_as_json() {
        assert_eq!(shaped(false, None), TASK);
        assert_eq!(
            shaped(true, None),
            r#"{"id":"t","n":1.50,"result":{"summary":"up 15%","a":[1e5]},"later":{"x":[null]}}"#
        );
        for plain in [r#"{"result":"plain words"}"#, r#"{"result":null}"#, r#"{"result":{"a":1}}"#, "{}"] {
            assert_eq!(shape(plain.as_bytes(), true, None).unwrap(), plain);
        }
        assert_eq!(shape(br#"{"result":" 42 "}"#, true, None).unwrap(), r#"{"result":42}"#);
    }

    #[test]
    fn a_getter_takes_one_value_and_goes_into_a_result_that_is_json() {
        for (json, getter, wanted) in [
            (false, "result.summary", r#""up 15%""#),
            (true, "result.summary", r#""up 15%""#),
            (false, "result.a.0", "1e5"),
            (false, "result.b", "null"),
            (false, "id", r#""t""#),
            (false, "n", "1.50"),
            (false, "later", r#"{"x":[null]}"#),
            (false, "nothing.here", "null"),
            (true, "result", r#"{"summary":"up 15%","a":[1e5]}"#),
            (false, "result", r#""{\"summary\":\"up 15%\",\"a\":[1e5]}""#),
        ] {
            assert_eq!(shaped(json, Some(getter)), wanted, "{getter}");
        }
        assert_eq!(shape(br#"{"result":"no JSON"}"#, false, Some("result.a")).unwrap(), "null");
        assert_eq!(shape(br#"{"result":{"a":7}}"#, false, Some("result.a")).unwrap(), "7");
    }

    #[test]
    fn what_is_no_object_is_no_task() {
        for wrong in ["", "[]", "\"x\"", "{\"id\":", "<html>", "null"] {
            assert_eq!(shape(wrong.as_bytes(), false, None), Err(Unusable), "{wrong}");
        }
        assert_eq!(shape(b"\xff", false, None), Err(Unusable));
    }
}
