//! Paths that are written as other programs write them. Read as ours they are keys with odd names and find nothing, so
//! the operator is told the right spelling.

use crate::config::{Located, Problems};

/// Words that stand for the body elsewhere, and for a key of it here.
const BODY: [&str; 6] = ["request.body", "req.body", "$json", "$body", "body", "json"];

/// Kinds of places in other settings. A path needs none of them.
const KINDS: [&str; 3] = ["json?:", "json:", "body:"];

/// Notes a path that finds nothing as it stands, unless the document has keys of such names.
pub(super) fn doubt(written: &Located<String>, problems: &Problems) {
    let path = written.value.as_str();
    if let Some(part) = ["header", "headers", "query", "form"]
        .iter()
        .find(|part| names_part(path, part))
    {
        problems.warn(
            &written.place,
            format!("{path:?} leads to a key of the body and not to the {}", part.trim_end_matches('s')),
            "a path leads into the body alone; a template reaches the rest: {{ headers['x-name'] }}, {{ query.name }}",
        );
    } else if let Some(right) = better(path) {
        let literal = literal(path).map_or_else(String::new, |own| {
            format!("; a key that is called so is {own:?}")
        });
        problems.warn(
            &written.place,
            format!("{path:?} is written as other programs write a path, and finds nothing here"),
            format!("did you mean {right:?}?{literal}"),
        );
    }
}

/// The path as it has to be written here, where it is in another notation.
pub fn better(path: &str) -> Option<String> {
    let mut right = path.trim().to_owned();
    // One notation may stand inside of another: a template around brackets behind a word for the body.
    for _ in 0..4 {
        match once(&right) {
            Some(next) => right = next,
            None => break,
        }
    }
    (right != path && !right.is_empty()).then_some(right)
}

/// One step nearer to the right spelling; none where there is nothing to change.
fn once(path: &str) -> Option<String> {
    for (open, close) in [("{{", "}}"), ("${", "}"), ("{", "}"), ("<", ">")] {
        if let Some(inner) = path
            .strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close))
        {
            return Some(inner.trim().to_owned());
        }
    }
    if let Some(pointer) = path.strip_prefix("#/").or_else(|| path.strip_prefix('/')) {
        let parts = pointer.trim_end_matches('/').split('/');
        return Some(
            parts
                .map(|part| part.replace("~1", "/").replace("~0", "~"))
                .collect::<Vec<_>>()
                .join("."),
        );
    }
    for kind in KINDS {
        if let Some(rest) = path.strip_prefix(kind).filter(|rest| !rest.is_empty()) {
            return Some(rest.to_owned());
        }
    }
    for word in BODY {
        if let Some(rest) = path
            .strip_prefix(word)
            .and_then(|rest| rest.strip_prefix(['.', '[']))
        {
            // The bracket belongs to what follows.
            let cut = path.len() - rest.len() - 1;
            let rest = if path[cut..].starts_with('[') {
                &path[cut..]
            } else {
                rest
            };
            return (!rest.is_empty()).then(|| rest.to_owned());
        }
    }
    // A JSONPath is read as such.
    if path.starts_with("$.") || path.starts_with("$[") || path == "$" {
        return None;
    }
    if let Some(rest) = path
        .strip_prefix(['$', '.'])
        .filter(|rest| !rest.is_empty())
    {
        return Some(rest.to_owned());
    }
    if path.contains('[') {
        return bracketed(path);
    }
    let is_from_end = |segment: &str| {
        segment
            .strip_prefix('-')
            .is_some_and(|n| n.parse::<u32>().is_ok())
    };
    if path
        .split('.')
        .any(|segment| segment == "*" || is_from_end(segment))
    {
        return Some(json_path(path));
    }
    None
}

/// A dotted path with stars and places from the end, as the JSONPath that it means.
fn json_path(path: &str) -> String {
    path.split('.')
        .fold("$".to_owned(), |whole, segment| match segment {
            "*" => whole + "[*]",
            segment if segment.parse::<i64>().is_ok() => format!("{whole}[{segment}]"),
            segment => format!("{whole}.{segment}"),
        })
}

/// A path with brackets: dotted where they hold indexes and plain names, else a JSONPath. None for what no program reads.
fn bracketed(path: &str) -> Option<String> {
    let mut dotted: Vec<String> = Vec::new();
    let (mut rest, mut is_plain) = (path, true);
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let end = inside.find(']')?;
            let (text, behind) = (inside[..end].trim(), &inside[end + 1..]);
            let quoted = ['"', '\'']
                .iter()
                .find_map(|q| text.strip_prefix(*q).and_then(|text| text.strip_suffix(*q)));
            let segment = quoted.unwrap_or(if text.is_empty() { "*" } else { text });
            is_plain &= quoted.map_or_else(
                || segment.bytes().all(|b| b.is_ascii_digit()),
                |name| !name.is_empty() && !name.contains('.'),
            );
            dotted.push(segment.to_owned());
            rest = behind;
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            if end > 0 {
                dotted.push(name[..end].to_owned());
            } else if !name.starts_with('[') {
                return None;
            }
            rest = &name[end..];
        }
    }
    if is_plain {
        return Some(dotted.join("."));
    }
    let path = if path.starts_with('[') {
        format!("${path}")
    } else {
        format!("$.{path}")
    };
    Some(path.replace("[]", "[*]").replace(".[", "["))
}

/// True if a path begins with the name of another part of a request.
fn names_part(path: &str, part: &str) -> bool {
    let rest = path.strip_prefix(part).unwrap_or_default();
    rest.starts_with(':') || (part == "headers" && rest.starts_with(['.', '[']))
}

/// The spelling that leads to a key with such a name, unless that spelling is itself one of the wrong ones.
fn literal(path: &str) -> Option<String> {
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    path.split('.').all(is_name).then(|| format!("$.{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a15_paths_in_other_notations_are_told_the_right_spelling() {
        for (written, right) in [
            ("items[0].id", "items.0.id"),
            ("items[0]['id']", "items.0.id"),
            ("items.[0].id", "items.0.id"),
            ("['items'][0]", "items.0"),
            ("[0].id", "0.id"),
            ("items[*].id", "$.items[*].id"),
            ("items[].id", "$.items[*].id"),
            ("items[-1].id", "$.items[-1].id"),
            ("items.-1.id", "$.items[-1].id"),
            ("items.*.id", "$.items[*].id"),
            ("a['b.c'].d", "$.a['b.c'].d"),
            ("body.x", "x"),
            ("body.items[0].id", "items.0.id"),
            ("body['x']", "x"),
            ("request.body.x", "x"),
            ("$json.x", "x"),
            ("$json[\"x\"]", "x"),
            ("json:x", "x"),
            ("/items/0/id", "items.0.id"),
            ("#/items/0", "items.0"),
            ("/a~1b/c", "a/b.c"),
            (".items[0].id", "items.0.id"),
            ("$items", "items"),
            ("{{ body.x }}", "x"),
            ("${x.y}", "x.y"),
            ("{x}", "x"),
            (" text ", "text"),
        ] {
            assert_eq!(better(written).as_deref(), Some(right), "{written}");
        }
        for good in [
            "text",
            "items.0.id",
            "$.items[0].id",
            "$",
            "$['a b']",
            "a-b.c_d",
            "bodyx.y",
            "text/plain",
            "a b",
        ] {
            assert_eq!(better(good), None, "{good}");
        }
    }

    #[test]
    fn a15_whatever_is_written_has_an_end() {
        for odd in [
            "[", "]", "[[", "a[", "a..[0]", "body.", "body", "{{}}", "/", "#/", "[]", "é[0]",
            "body[", "$",
        ] {
            let _ = better(odd);
        }
        assert_eq!(better("é[0]").as_deref(), Some("é.0"));
    }

    #[test]
    fn a15_a_path_to_another_part_of_the_request_is_told() {
        let problems = Problems::default();
        let place = crate::config::Place {
            file: "t".into(),
            line: 1,
        };
        for path in [
            "header:X-Id",
            "headers.x-id",
            "query:a",
            "form:b",
            "headers_seen",
            "query.a",
        ] {
            doubt(
                &Located {
                    value: path.into(),
                    place: place.clone(),
                },
                &problems,
            );
        }
        let said: Vec<String> = problems
            .into_sorted()
            .into_iter()
            .map(|problem| problem.what)
            .collect();
        assert_eq!(said.len(), 4, "{said:#?}");
    }
}
